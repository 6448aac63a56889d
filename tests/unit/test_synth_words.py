"""The lexicon's tables are complete in every language. An error names the line, the column and the reason."""

from contextlib import redirect_stdout
from io import StringIO

import pytest

from intent.synth import words
from intent.synth.language import available
from intent.synth.lexicon import FOLDER, ideas, kinds
from intent.synth.shelf import traits

FIELDS = (FOLDER / "pets.tsv").read_text(encoding="utf-8").split("\n")[0].split("\t")


def test_no_language_lacks_a_word_and_every_row_is_right():
    assert [str(fault) for fault in words.faults()] == []


def test_every_group_of_traits_tells_some_products_apart():
    listed = {trait for idea in ideas().values() for trait in idea.traits}
    assert listed == set(traits())


def test_kinds_have_words_in_every_language_and_members():
    assert {"milk", "bread"} <= kinds() <= set(ideas())


RIGHT = dict(
    idea="newt_snacks", number="many", units="bag", sizes="100g 3_pack 6x20ml EU_43 XL", traits="meat",
    en="newt snack|,s", de="molchig~ Snack|,s /m", es="bocado|,s de tritón /m", fr="en-cas pour triton /m",
    hr="molčj|a,u,e,e,e,e,a hrana /f; molčj|i,i,eg,a,i,e,ih zalogaj|,,a,a,i,e,a /m", it="|uovo,uova di tritone /m>f",
    nl="molssnack|,s /c; molsbrokken /cp", pt="petisco|,s de tritão /m",
)  # fmt: skip


@pytest.fixture
def check(tmp_path, monkeypatch):
    """Return a function that checks a table of pets with the wrong cells `rows`. It returns the exit code and the output."""
    products = tmp_path / "products"
    products.mkdir()
    (products / "grocery.tsv").write_text(_rows("grocery", "flour", "milk", "whole_milk"), encoding="utf-8")
    monkeypatch.setattr(words, "FOLDER", products)

    def checked(*rows: dict[str, str]) -> tuple[int, list[str]]:
        named = [RIGHT | {"idea": f"newt_snacks_{number}"} | row for number, row in enumerate(rows)]
        added = ["\t".join(row.get(field, "") for field in FIELDS) + "\n" for row in named]
        path = tmp_path / "pets.tsv"
        path.write_text(_rows("pets", "dog_food", "dog_treats", "cat_food") + "".join(added), encoding="utf-8")
        out = StringIO()
        with redirect_stdout(out):
            return words.main([str(path)]), out.getvalue().splitlines()

    return checked


def _rows(department: str, *names: str) -> str:
    """Return the header and the rows `names` of a table."""
    lines = (FOLDER / f"{department}.tsv").read_text(encoding="utf-8").splitlines(keepends=True)
    return "".join(line for line in lines if line.split("\t")[0] in ("idea", *names))


def test_a_right_row_passes_wherever_its_table_lies(check, tmp_path):
    assert check({}) == (0, [f"{tmp_path / 'pets.tsv'}: nothing wrong"])


WRONG = [
    ("idea", "Newt snacks", "is not a valid name"),
    ("idea", "flour", "'flour' has 2 rows"),
    ("parent", "newt_food", "no row has the idea 'newt_food'"),
    ("parent", "whole_milk", "has a parent itself; use that one, 'milk'"),
    ("parent", "flour", "'flour' is sold itself"),
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


def test_a_wrong_cell_is_named_with_its_line_column_and_reason(check):
    code, output = check(*({column: cell} for column, cell, _ in WRONG))
    for line, (column, _, problem) in enumerate(WRONG, 5):
        assert any(text.startswith(f"pets.tsv:{line}: {column}: ") and problem in text for text in output), (column, problem)
    assert code == 1


def test_words_that_may_mean_either_are_listed_as_akin_and_a_member_is_never_called_as_its_kind(check):
    either = own_words("dog_snacks") | {"nl": "hondenvoer /n", "akin": "dog_food"}
    member = own_words("newt_milk") | {"nl": "melk /c", "parent": "milk"}
    code, output = check(either, member)
    assert code == 1 and len(output) == 2 and "only the parent may have this word" in output[0]


def own_words(idea: str) -> dict[str, str]:
    """Return words that no other row has."""
    return {"idea": idea} | {field: f"{idea} /{'n' if field == 'nl' else 'm'}" for field in available()} | {"en": idea}


def test_a_missing_tab_and_an_unknown_department_are_reported_first(tmp_path):
    table = tmp_path / "zoo.tsv"
    table.write_text("\t".join(FIELDS) + "\nnewt_snacks\t\tmany\n", encoding="utf-8")
    unknown, short = map(str, words.faults(table))
    assert unknown.startswith("zoo.tsv:1: file: no department is called 'zoo'")
    assert short == f"zoo.tsv:2: row: has 3 cells; give {len(FIELDS)}, as in the header, separated by tabs"
