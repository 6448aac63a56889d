"""Products as a shopper sees them: an idea (milk), a brand, a size, a colour; and catalogs of them, sampled or given.

Knows product ideas and languages; knows no message.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from random import Random

import yaml

from intent.synth.language import LOADER, load

SIZE = re.compile(r"^(\d+([.,]\d+)?)\s?(kg|g|mg|ml|cl|l|cm|mm|m|inch|gb|tb|w|mah|pack|bags?|er|x\d+)?$", re.IGNORECASE)
DEPARTMENTS = ("grocery",)


@dataclass(frozen=True)
class Idea:
    """What a product is, without language, brand or size."""

    name: str
    parent: str
    number: str
    units: tuple[str, ...]
    sizes: tuple[str, ...]

    @cached_property
    def line(self) -> tuple[str, ...]:
        """Itself and what it is a kind of."""
        return (self.name, self.parent) if self.parent else (self.name,)


@dataclass(frozen=True)
class Product:
    """`name` as the catalog writes it; `idea` is empty for a name that no language file knows."""

    name: str
    idea: str = ""
    brand: str = ""
    size: str = ""
    colour: str = ""


@cache
def ideas() -> dict[str, Idea]:
    raw = _raw()
    return {
        name: Idea(name, parent, number, tuple(units.split()), tuple(sizes.split()))
        for department in DEPARTMENTS
        for name, (parent, number, units, sizes) in raw[department].items()
    }


@cache
def _raw() -> dict:
    return yaml.load((Path(__file__).parent / "products.yaml").read_text(encoding="utf-8"), LOADER)


@cache
def akin(word: str) -> frozenset[str]:
    """Ideas that `word` could be taken for although it is not their name."""
    return frozenset(_raw()["akin"].get(word, ()))


class Shelf:
    """The products of one catalog, and how often each way of naming one fits: `fits[idea, brand, size, colour]`."""

    def __init__(self, products: Sequence[Product], language: str = "en"):
        self.products, self.language = tuple(products), language
        self.names = tuple(product.name for product in products)
        self.fits = Counter(key for product in products for key in _keys(product))
        self.tokens = [frozenset(words(product.name)) for product in products]
        self.token_count = Counter(token for tokens in self.tokens for token in tokens)
        self.ideas = frozenset(word for product in products if product.idea for word in ideas()[product.idea].line)

    def unclear(self, idea: str) -> bool:
        """Whether `idea` could also be taken for something else that is here."""
        return bool(akin(idea) & self.ideas)


def _keys(product: Product) -> Iterator[tuple[str, str, str, str]]:
    for word in ideas()[product.idea].line if product.idea else ():
        for brand in {"", product.brand}:
            for size in {"", product.size}:
                for colour in {"", product.colour}:
                    yield word, brand, size, colour


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def sample(rng: Random, language: str, allowed: Sequence[str]) -> Shelf:
    """A made-up catalog of 8 to 40 products, near-duplicates among them."""
    pool = [ideas()[name] for name in allowed]
    products: dict[str, Product] = {}
    target = rng.randint(8, min(40, 3 * len(pool)))
    branded = rng.random() * 0.6
    sized = rng.random()
    for _ in range(200):
        if len(products) >= target:
            break
        product = _product(rng, language, rng.choice(pool), branded, sized)
        products.setdefault(product.name, product)
    shuffled = list(products.values())
    rng.shuffle(shuffled)
    return Shelf(shuffled, language)


def _product(rng: Random, language: str, idea: Idea, branded: float, sized: float) -> Product:
    brand = rng.choice(_raw()["brands"]["grocery"]) if rng.random() < branded else ""
    size = rng.choice(idea.sizes) if idea.sizes and rng.random() < sized else ""
    noun = load(language).nouns[idea.name][0].say("bare", idea.number == "many")
    noun = noun.title() if language == "en" else noun[0].upper() + noun[1:]
    parts = [brand, noun, size] if load(language).noun_after_brand else [noun, brand, size]
    return Product(" ".join(part for part in parts if part), idea.name, brand, size)


def given(names: Sequence[str]) -> Shelf:
    """The user's own catalog: ideas, sizes and brands are read from the names."""
    return Shelf([recognise(name) for name in names])


def recognise(name: str) -> Product:
    """What a name says by itself, read with every language's words."""
    tokens = name.split()
    size = next((token for token in tokens if SIZE.match(token) and not token.isdigit()), "")
    phrase = f" {' '.join(words(' '.join(token for token in tokens if token != size)))} "
    found = [(len(word), phrase.rfind(f" {word} "), idea) for word, idea in _vocabulary() if f" {word} " in phrase]
    idea = max(found)[2] if found else ""
    return Product(name, idea, "", size)


@cache
def _vocabulary() -> list[tuple[str, str]]:
    from intent.synth.language import available

    known = []
    for code in available():
        language = load(code)
        for idea in ideas():
            for noun in language.nouns.get(idea, []):
                for form in language.forms:
                    known.append((" ".join(words(noun.form(form).replace("~", ""))), idea))
    return sorted(set(known))
