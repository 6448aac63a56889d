"""Every language file is complete, and its grammar says what a native speaker would."""

import shutil

import pytest

from intent.synth import language as module
from intent.synth import lexicon, validate
from intent.synth.language import available, load


@pytest.mark.parametrize("code", available())
def test_a_language_file_lacks_nothing(code):
    assert validate.complaints(code) == []


def test_products_name_only_product_types_that_exist():
    assert validate.uncovered() == []


def test_an_incomplete_language_file_is_reported_with_its_gaps(tmp_path, monkeypatch):
    text = (module.FOLDER / "en.yaml").read_text(encoding="utf-8")
    text = text.replace("  carton: ", "  cartoon: ").replace("{num} {counted}", "{numb} {counted}")
    (tmp_path / "xx.yaml").write_text(text.replace("  keep:\n", "  kept:\n"), encoding="utf-8")
    monkeypatch.setattr(validate, "FOLDER", tmp_path)
    complaints = " ".join(validate.complaints("xx"))
    assert "units.carton" in complaints and "{numb}" in complaints and "templates.keep" in complaints


def test_adding_a_language_is_adding_a_file_and_a_column(tmp_path, monkeypatch):
    shutil.copy(module.FOLDER / "en.yaml", tmp_path / "xx.yaml")
    for table in lexicon.FOLDER.glob("*.tsv"):
        lines = table.read_text(encoding="utf-8").splitlines()
        english = lines[0].split("\t").index("en")
        wider = [f"{line}\t{line.split(chr(9))[english] if number else 'xx'}" for number, line in enumerate(lines)]
        (tmp_path / table.name).write_text("\n".join(wider) + "\n", encoding="utf-8")
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    monkeypatch.setattr(lexicon, "FOLDER", tmp_path)
    load.cache_clear()
    lexicon.rows.cache_clear()
    assert available() == ["xx"] and load("xx").nouns["eggs"][0].counted(2) == "eggs"
    load.cache_clear()
    lexicon.rows.cache_clear()


@pytest.mark.parametrize(
    ("code", "idea", "number", "expected"),
    [
        ("en", "strawberries", 2, "two strawberries"),
        ("de", "red_apples", 3, "drei rote Äpfel"),
        ("de", "red_apples", 1, "einen roten Apfel"),
        ("es", "bananas", 21, "veintiún plátanos"),
        ("fr", "eggs", 80, "quatre-vingts œufs"),
        ("it", "eggs", 1, "un uovo"),
        ("hr", "bananas", 2, "dvije banane"),
        ("hr", "bananas", 5, "pet banana"),
        ("hr", "bananas", 21, "dvadeset jednu bananu"),
        ("hr", "plain_yogurt", 3, "tri obična jogurta"),
        ("pt", "apples", 2, "duas maçãs"),
        ("nl", "eggs", 22, "tweeëntwintig eieren"),
    ],
)
def test_a_counted_noun_agrees_with_its_number(code, idea, number, expected):
    language = load(code)
    noun = language.nouns[idea][0]
    assert f"{language.numbers.words[noun.gender][number]} {noun.counted(number)}" == expected


@pytest.mark.parametrize(
    ("code", "phrase", "idea", "expected"),
    [
        ("en", "a", "umbrella", "an umbrella"),
        ("de", "the", "green_tea", "den Grüntee"),
        ("de", "kein", "milk", "keine Milch"),
        ("es", "the", "water", "el agua"),
        ("fr", "the", "olive_oil", "l'huile d'olive"),
        ("fr", "of", "olive_oil", "d'huile d'olive"),
        ("fr", "some", "water", "de l'eau"),
        ("fr", "some", "milk", "du lait"),
        ("it", "the", "sugar", "lo zucchero"),
        ("it", "some", "water", "dell'acqua"),
        ("it", "a", "backpack", "uno zaino"),
        ("hr", "gen", "milk", "mlijeka"),
        ("hr", "the", "coffee", "kavu"),
        ("pt", "of_the", "milk", "do leite"),
        ("nl", "the", "bread", "het brood"),
    ],
)
def test_a_phrase_has_the_article_and_the_case(code, phrase, idea, expected):
    assert load(code).nouns[idea][0].say(phrase) == expected


@pytest.mark.parametrize(
    ("code", "idea", "colour", "phrase", "expected"),
    [
        ("de", "t_shirt", "black", "a", "ein schwarzes T-Shirt"),
        ("es", "t_shirt", "black", "a", "una camiseta negra"),
        ("nl", "mouse", "wireless", "a", "een draadloze muis"),
        ("hr", "kettle", "electric", "the", "električno kuhalo za vodu"),
        ("nl", "t_shirt", "red", "a", "een rood T-shirt"),
        ("hr", "t_shirt", "red", "the", "crvenu majicu"),
        ("fr", "jacket", "white", "a", "une veste blanche"),
    ],
)
def test_a_colour_agrees_with_its_noun(code, idea, colour, phrase, expected):
    assert load(code).described(idea, 0, colour).say(phrase) == expected


def test_an_adjective_follows_a_noun_that_changes_its_gender_in_the_plural():
    eggs = load("it").described("eggs", 0, "fresh")
    assert (eggs.say("the"), eggs.say("the", True)) == ("l'uovo fresco", "le uova fresche")
