"""Check the lexicon's tables. Each fault has its line, its column and a remedy.

`python -m intent.synth.words` checks all tables of `products/`. `python -m intent.synth.words FILE.tsv` checks one table
together with the others; FILE can be anywhere, and replaces the table of the same name.
"""

import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from intent.synth.language import Language, Noun, available, load
from intent.synth.lexicon import COLUMNS, DEPARTMENTS, FOLDER, ODD, WEIGHTS, Row, read
from intent.synth.shelf import traits

NUMBERS = ("mass", "many", "one")
SIZE_UNITS = (
    *("mg", "g", "kg", "ml", "cl", "L", "mm", "cm", "m", "_inch", "GB", "TB", "mAh", "W", "V"),
    *("_pack", "_bags", "_pieces", "_cups"),
)
SIZE_NAMES = ("XS", "S", "M", "L", "XL", "XXL", "A3", "A4", "A5", "A6", "C4", "C5", "C6", "DL", "W30", "W32", "W34")
MEASURE = re.compile(rf"\d+(\.\d+)?(x\d+(\.\d+)?)*({'|'.join(SIZE_UNITS)})|(EU|SPF|SIZE|NO|GRIT)_\d+")
NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


@dataclass(frozen=True)
class Fault:
    """A fault in a table. `line`: counted from 1, the header's. `column`: its name, or "file", "header" or "row"."""

    department: str
    line: int
    column: str
    problem: str

    def __str__(self) -> str:
        return f"{self.department}.tsv:{self.line}: {self.column}: {self.problem}"


def faults(path: Path | None = None) -> list[Fault]:
    """Return the faults of every table, or of the table at `path` together with the others. Sorted by department and line."""
    paths = {table.stem: table for table in sorted(FOLDER.glob("*.tsv"))}
    if path:
        paths[path.stem] = path
    all_faults = [Fault(name, *fault) for name, table in paths.items() for fault in _shape(table)]
    if not all_faults:
        rows = [row for table in paths.values() for row in read(table)]
        all_faults = [*_rows(rows), *(fault for code in available() for fault in _language(load(code), rows))]
    return sorted((f for f in all_faults if not path or f.department == path.stem), key=lambda f: (f.department, f.line))


def _shape(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield (line, column, fault) for a table's name, its header and the number of cells."""
    if path.stem not in (*DEPARTMENTS, ODD):
        yield 1, "file", f"no department is called {path.stem!r}; name it after one of {', '.join((*DEPARTMENTS, ODD))}"
    header, *lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    columns, required = header.split("\t"), [*COLUMNS, *available()]
    if sorted(columns) != sorted(required):
        yield 1, "header", f"the columns are {columns}; use {required}, separated by tabs"
    for number, line in enumerate(lines, 2):
        if (count := line.count("\t") + 1) != len(columns):
            yield number, "row", f"has {count} cells; give {len(columns)}, as in the header, separated by tabs"


def _rows(rows: Sequence[Row]) -> Iterator[Fault]:
    """Yield the faults of the columns that have no wordings."""
    count = Counter(row.cells["idea"] for row in rows)
    parents = {row.cells["idea"]: row.cells["parent"] for row in rows}
    sold = {row.cells["idea"] for row in rows if row.cells["sizes"] or row.cells["traits"]}
    for row in rows:
        cells = row.cells
        for column, problem in _wrong(cells, count, parents, sold):
            yield Fault(row.department, row.line, column, problem)


def _wrong(cells: Mapping, count: Counter, parents: Mapping, sold: set[str]) -> Iterator[tuple[str, str]]:
    idea, parent = cells["idea"], cells["parent"]
    if not NAME.fullmatch(idea):
        yield "idea", f"{idea!r} is not a valid name; use lower-case English words joined by _"
    if count[idea] > 1:
        yield "idea", f"{idea!r} has {count[idea]} rows in all tables; keep one"
    if parent and parent not in parents:
        yield "parent", f"no row has the idea {parent!r}; add a row for it or leave the parent empty"
    elif parents.get(parent):
        yield "parent", f"{parent!r} has a parent itself; use that one, {parents[parent]!r}"
    elif parent in sold:
        yield "parent", f"{parent!r} is sold itself, since its row has sizes or traits; list it under akin and leave this empty"
    if cells["number"] not in NUMBERS:
        yield "number", f"{cells['number']!r} is unknown; use one of {', '.join(NUMBERS)}"
    if cells["demand"] not in WEIGHTS:
        yield "demand", f"{cells['demand']!r} is unknown; use high or low, or leave it empty"
    for column, known in (("units", _units()), ("traits", traits())):
        for name in cells[column].split():
            if name not in known:
                yield column, f"{name!r} is unknown; use some of {', '.join(known)}"
    for size in cells["sizes"].split():
        if size not in SIZE_NAMES and not MEASURE.fullmatch(size):
            yield "sizes", f"{size!r} is unreadable; write it like 500g 1.5L 6x330ml 6_pack EU_43 {' '.join(SIZE_NAMES)}"
    for other in cells["akin"].split():
        if other not in parents or other == idea:
            yield "akin", f"{other!r} is no other row's idea; correct or delete it"


@cache
def _units() -> list[str]:
    """Return the units that every language has a word for."""
    return sorted(set.intersection(*(set(load(code).raw["units"]) for code in available())))


def _language(language: Language, rows: Sequence[Row]) -> Iterator[Fault]:
    """Yield the faults of one language's column."""
    meanings: dict[str, dict[str, str]] = defaultdict(dict)  # spelling -> {idea that it means: the wording}
    for row in rows:
        complaints, nouns = _cell(language, row.cells[language.code])
        for problem in complaints:
            yield Fault(row.department, row.line, language.code, problem)
        for noun in nouns:
            for spelling in noun.spellings:
                meanings[spelling.casefold()].setdefault(row.cells["idea"], noun.text)
    rows_by_idea = {row.cells["idea"]: row for row in rows}
    for (idea, text, other), spelling in _shared(meanings, rows).items():
        row = rows_by_idea[idea]
        yield Fault(row.department, row.line, language.code, _taken(text, spelling, row, rows_by_idea[other]))


def _shared(meanings: Mapping[str, Mapping[str, str]], rows: Sequence[Row]) -> dict[tuple[str, str, str], str]:
    """Return {(idea, its wording, another idea): a spelling of both} for ideas whose rows do not list them as akin."""
    akin = {frozenset((row.cells["idea"], other)) for row in rows for other in row.cells["akin"].split()}
    return {
        (idea, text, other): spelling
        for spelling, ideas in meanings.items()
        if len(ideas) > 1
        for idea, text in ideas.items()
        for other in ideas
        if other != idea and frozenset((idea, other)) not in akin
    }


def _taken(text: str, spelling: str, row: Row, other: Row) -> str:
    name = other.cells["idea"]
    fault = f"{text!r} says {spelling!r}, as does {name} ({other.department}.tsv:{other.line})"
    if name == row.cells["parent"] or row.cells["idea"] == other.cells["parent"]:
        return f"{fault}, its parent or member; only the parent may have this word, so delete it in the member's row"
    return f"{fault}; delete one, or list {name} under akin if the word may mean either"


def _cell(language: Language, cell: str) -> tuple[list[str], list[Noun]]:
    """Return (the faults of a cell's wordings, the wordings without a fault)."""
    if not cell.strip():
        return ["is empty; write at least one wording"], []
    complaints, nouns = [], []
    for text in cell.split(";"):
        noun = Noun(language, text.strip())
        wrong = list(notation(language, noun))
        if not wrong and any((noun.text, noun.marks) == (other.text, other.marks) for other in nouns):
            wrong = ["is there twice; delete one"]
        complaints += [f"{text.strip()!r} {problem}" for problem in wrong]
        nouns += [] if wrong else [noun]
    return complaints, nouns


def notation(language: Language, noun: Noun) -> Iterator[str]:
    """Yield where a noun's text and marks break the notation of `language.Noun`."""
    genders = "|".join(language.genders)
    if not noun.marks and len(language.genders) > 1:
        yield f"lacks a gender; end it with ' /' and one of {', '.join(language.genders)}"
    elif noun.marks and not re.fullmatch(rf"({genders})(p|s|>({genders}))?", noun.marks):
        yield f"ends with /{noun.marks}; write one of {', '.join(language.genders)}, then nothing, p, s or > and a gender"
    if "/" in noun.text:
        yield "has a / inside; use / only before the gender, with a blank before it and none behind"
    if "~" in noun.text and not any("adj" in rule for rule in language.phrases.values()):
        yield "has a ~, which this language does not use; delete it"
    for word in noun.text.split(" "):
        stem, bar, endings = word.partition("|")
        if not word:
            yield "has two blanks together or no text; use single blanks between words"
        elif not bar and "," in stem:
            yield f"has a comma in {word!r} but no |; put | between the stem and its endings"
        elif bar and ("|" in endings or endings.count(",") != len(language.forms) - 1):
            given = len(endings.split(","))
            yield f"has {given} endings in {word!r}; give {len(language.forms)}: {', '.join(language.forms)}"


def main(arguments: Sequence[str]) -> int:
    """Print the faults. Returns the exit code: 0 without faults, 1 with faults, 2 for wrong arguments."""
    path = Path(arguments[0]) if arguments else None
    if len(arguments) > 1 or (path and not path.exists()):
        print("usage: python -m intent.synth.words [FILE.tsv]", file=sys.stderr)
        return 2
    all_faults = faults(path)
    print(*all_faults, sep="\n", end="\n" if all_faults else "")
    print(f"{path or FOLDER}: {len(all_faults) or 'nothing'} wrong")
    return 1 if all_faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
