"""The vocabulary's tables: complete in every language, and whoever breaks a row is told its line, its column and why."""

from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from intent.synth import words
from intent.synth.language import available
from intent.synth.shelf import traits
from intent.synth.vocabulary import FOLDER, ideas, kinds

PETS = (FOLDER / "pets.tsv").read_text(encoding="utf-8")
FIELDS = PETS.split("\n")[0].split("\t")


def test_no_language_lacks_a_word_and_every_row_is_right():
    assert [str(fault) for fault in words.faults()] == []


def test_every_group_of_traits_tells_some_products_apart():
    listed = {trait for idea in ideas().values() for trait in idea.traits}
    assert listed == set(traits())


def test_kinds_are_said_in_every_language_and_have_members():
    assert {"milk", "bread"} <= kinds() <= set(ideas())


RIGHT = dict(
    idea="newt_snacks", number="many", units="bag", sizes="100g 3_pack 6x20ml EU_43 XL", traits="meat",
    en="newt snack|,s", de="molchig~ Snack|,s /m", es="bocado|,s de tritón /m", fr="en-cas pour triton /m",
    hr="molčj|a,u,e,e,e,e,a hrana /f; molčj|i,i,eg,a,i,e,ih zalogaj|,,a,a,i,e,a /m", it="|uovo,uova di tritone /m>f",
    nl="molssnack|,s /c; molsbrokken /cp", pt="petisco|,s de tritão /m",
)  # fmt: skip


def check(folder: Path, rows: list[dict[str, str]]) -> tuple[int, list[str]]:
    """The command's exit code and output for the pets' table with `rows` more, in which only these cells are not right."""
    named = [{"idea": f"newt_snacks_{number}"} | row for number, row in enumerate(rows)]
    added = ["\t".join((RIGHT | row).get(field, "") for field in FIELDS) + "\n" for row in named]
    path = folder / "pets.tsv"
    path.write_text(PETS + "".join(added), encoding="utf-8")
    out = StringIO()
    with redirect_stdout(out):
        return words.main([str(path)]), out.getvalue().splitlines()


def test_a_right_row_passes_wherever_its_table_lies(tmp_path):
    assert check(tmp_path, [{}]) == (0, [f"{tmp_path / 'pets.tsv'}: nothing wrong"])


WRONG = [
    ("idea", "Newt snacks", "is no name"),
    ("idea", "flour", "'flour' has 2 rows"),
    ("parent", "newt_food", "no row has the idea 'newt_food'"),
    ("parent", "whole_milk", "has a parent itself; use that one, 'milk'"),
    ("number", "few", "'few' is unknown; use one of mass, many, one"),
    ("units", "bag barrel", "'barrel' is unknown"),
    ("sizes", "100grams", "'100grams' is unreadable"),
    ("traits", "colored", "'colored' is unknown"),
    ("akin", "newt", "'newt' is no other row's idea"),
    ("de", "", "is empty"),
    ("de", "Molchsnack|,s", "lacks a gender"),
    ("de", "Molchsnack|,s /x", "ends with /x"),
    ("de", "Molchsnack|s /m", "has 1 endings in 'Molchsnack|s'; give 2: sg, pl"),
    ("hr", "molčj|a,u,e,e,e,e hrana /f", "has 6 endings"),
    ("hr", "molčja  hrana /f", "two blanks"),
    ("fr", "petit~ en-cas /m", "has a ~"),
    ("en", "newt snack,s", "has a comma"),
    ("en", "newt snack|,s; newt snack|,s", "is there twice"),
    ("nl", "hondenvoer /n", "'hondenvoer', as does dog_food (pets.tsv:"),
    ("nl", "melk /c", "'melk', as does milk (grocery.tsv:"),
]


def test_a_wrong_cell_is_named_with_its_line_its_column_and_what_is_wrong(tmp_path):
    code, said = check(tmp_path, [{column: cell} for column, cell, _ in WRONG])
    first = PETS.count("\n") + 1
    for line, (column, _, what) in enumerate(WRONG, first):
        assert any(text.startswith(f"pets.tsv:{line}: {column}: ") and what in text for text in said), (column, what)
    assert code == 1


def test_words_that_may_mean_either_are_listed_as_akin_and_a_member_is_never_called_as_its_kind(tmp_path):
    either = own_words("dog_snacks") | {"nl": "hondenvoer /n", "akin": "dog_food"}
    member = own_words("newt_milk") | {"nl": "melk /c", "parent": "milk"}
    code, said = check(tmp_path, [either, member])
    assert code == 1 and len(said) == 2 and "only the kind may be called so" in said[0]


def own_words(idea: str) -> dict[str, str]:
    """Words that no other row has."""
    return {"idea": idea} | {field: f"{idea} /{'n' if field == 'nl' else 'm'}" for field in available()} | {"en": idea}


def test_a_missing_tab_and_an_unknown_department_are_told_first(tmp_path):
    (tmp_path / "zoo.tsv").write_text(PETS + "newt_snacks\t\tmany\n", encoding="utf-8")
    said = [str(fault) for fault in words.faults(tmp_path / "zoo.tsv")]
    assert said[0].startswith("zoo.tsv:1: file: no department is called 'zoo'")
    assert said[1].endswith(f"row: has 3 cells; give {7 + len(available())}, as the header has, with a tab between two")
