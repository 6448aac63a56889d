"""Read the lexicon from the tables of `products/`: every product type, and the words for it in every language.

A table has one department. A row has one product type, called an idea. A cell in a language's column has the idea's wordings.
This module knows no grammar: `language` parses the wordings, and `words` checks the tables.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from intent.errors import ConfigError

FOLDER = Path(__file__).parent / "products"
COLUMNS = ("idea", "parent", "number", "units", "sizes", "traits", "akin", "demand")
# How often an idea is drawn, by its demand. Shops stock, and shoppers request, everyday products far more often than rare ones.
WEIGHTS = {"high": 6, "": 2, "low": 1}
DEPARTMENTS = (
    "grocery", "electronics", "fashion", "home", "sports", "pharmacy", "toys", "office", "pets", "bakery", "deli", "drinks",
    "frozen", "world_food", "cleaning", "baby", "cosmetics", "diy", "garden", "car", "appliances", "smart_home", "craft",
    "party", "media",
)  # fmt: skip
ODD = "odd"  # Shops never sell these ideas, but some messages request them.


@dataclass(frozen=True)
class Idea:
    """A product type, without language, brand or size.

    `parent`: the idea that this one is a kind of, or empty. `number`: mass (milk), many (apples) or one (a laptop). `units`:
    what it is counted in (bottle). `sizes`: in the notation of `synth.size`. `traits`: the groups of qualities that it comes
    in. `akin`: other ideas that its words may also mean. `demand`: how often shoppers request it, one of WEIGHTS.
    """

    name: str
    parent: str
    number: str
    units: tuple[str, ...]
    sizes: tuple[str, ...]
    traits: tuple[str, ...]
    akin: tuple[str, ...]
    demand: str
    department: str

    @cached_property
    def line(self) -> tuple[str, ...]:
        """Return the idea and its parent, if it has one."""
        return (self.name, self.parent) if self.parent else (self.name,)


@dataclass(frozen=True)
class Row:
    """A row of a table. `line`: counted from 1, the header's. `cells`: by column name."""

    department: str
    line: int
    cells: dict[str, str]


def read(path: Path) -> Iterator[Row]:
    """Yield the rows of one table. Raises ConfigError for a row that does not have as many cells as the header."""
    header, *lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    columns = header.split("\t")
    for number, line in enumerate(lines, 2):
        cells = line.split("\t")
        if len(cells) != len(columns):
            count = f"{len(cells)} cells"
            raise ConfigError(f"{path.name}:{number}", count, f"give {len(columns)}, as in the header, separated by tabs")
        yield Row(path.stem, number, dict(zip(columns, cells, strict=True)))


@cache
def rows() -> tuple[Row, ...]:
    """Return the rows of every table, department by department."""
    return tuple(row for department in (*departments(), ODD) for row in read(FOLDER / f"{department}.tsv"))


@cache
def departments() -> tuple[str, ...]:
    """Return the departments that have a table."""
    return tuple(name for name in DEPARTMENTS if (FOLDER / f"{name}.tsv").exists())


@cache
def ideas() -> dict[str, Idea]:
    """Return every idea by name, the kinds (milk) after their members (whole milk)."""
    by_name = {idea.name: idea for idea in map(_idea, rows())}
    return dict(sorted(by_name.items(), key=lambda item: item[0] in kinds()))


@cache
def kinds() -> frozenset[str]:
    """Return the ideas that are parents of others. Shoppers say them, but no product is sold by their name alone."""
    return frozenset(row.cells["parent"] for row in rows()) - {""}


def _idea(row: Row) -> Idea:
    name, parent, number, *lists, demand = (row.cells[column] for column in COLUMNS)
    units, sizes, traits, akin = (tuple(text.split()) for text in lists)
    sizes = tuple(size.replace("_", " ") for size in sizes)
    return Idea(name, parent, number, units, sizes, traits, akin, demand, row.department)


class Pool:
    """The ideas `names`, indexed by department, by parent and by English word, since each sampled catalog looks them up.

    `weighted` and the lists of `departments` hold each idea as often as its demand says, so that a uniform draw is weighted.
    """

    def __init__(self, names: Sequence[str]):
        self.weighted = [name for name in names for _ in range(WEIGHTS[ideas()[name].demand])]
        self.departments: dict[str, list[Idea]] = {}
        self.members = [(name, ideas()[name].parent) for name in names if ideas()[name].parent]
        for name in self.weighted:
            self.departments.setdefault(ideas()[name].department, []).append(ideas()[name])
        self._by_word: dict[str, list[Idea]] = {}
        for name in names:
            for word in english(name):
                self._by_word.setdefault(word, []).append(ideas()[name])

    def near(self, idea: str) -> list[Idea]:
        """Return other ideas whose English name shares a word with this one's (apple juice for apples); none for no idea."""
        if not idea:
            return []
        return [other for word in english(idea) for other in self._by_word.get(word, ()) if other.name != idea]


@cache
def english(idea: str) -> tuple[str, ...]:
    """Return the words of the idea's first English wording, each in the singular."""
    first = _english()[idea].partition(";")[0].partition(" /")[0]
    return tuple(stem + endings.partition(",")[0] for stem, _, endings in (word.partition("|") for word in first.split()))


@cache
def _english() -> dict[str, str]:
    return wordings("en")


def wordings(code: str) -> dict[str, str]:
    """Return the unparsed wordings of each idea in the language `code`, without the ideas that the language lacks."""
    return {row.cells["idea"]: cell for row in rows() if (cell := row.cells.get(code))}
