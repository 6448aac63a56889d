"""A made-up catalog of up to a million products, and messages about it: what large catalogs are measured with.

One shop that writes in one language and sells everything: product types, brands, sizes and qualities of the generator.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from random import Random

from intent.dataset.example import Example
from intent.errors import ConfigError
from intent.retrieve.index import Index
from intent.retrieve.route import NOWHERE, route
from intent.synth.corpus import Corpus
from intent.synth.language import Language, load
from intent.synth.lexicon import ODD, Idea, ideas, kinds
from intent.synth.shelf import Product, Shelf, ontology, qualities, words
from intent.task.catalog import Catalog
from intent.task.schema import IntentSchema, items_of

PRODUCT = "product"
# Draws of one product type before it counts as sold in every form that it has.
TRIES = 20


def products(count: int, seed: int = 7, language: str = "en", sold: Sequence[Idea] | None = None) -> list[Product]:
    """`count` products of which no two are the same thing or have the same name. `sold`: the types; None is all.

    Raises ConfigError where there are not so many.
    """
    rng, spoken = Random(seed), load(language)
    stock = list(sold or (idea for idea in ideas().values() if idea.name not in kinds() and idea.department != ODD))
    found: dict[str, Product] = {}
    while len(found) < count and stock:
        rng.shuffle(stock)
        sold_out = set()
        for idea in stock:
            if len(found) == count:
                break
            for _ in range(TRIES):
                product = _draw(rng, spoken, idea)
                if product.name.casefold() not in found:
                    found[product.name.casefold()] = product
                    break
            else:
                sold_out.add(idea.name)
        stock = [idea for idea in stock if idea.name not in sold_out]
    if len(found) < count:
        raise ConfigError("products", count, f"the generator knows only about {len(found):,} products; use fewer")
    made = list(found.values())
    rng.shuffle(made)
    return made


def _draw(rng: Random, language: Language, idea: Idea) -> Product:
    """A form of one product type. Most have a brand, a size or a quality, as products of a large shop do."""

    def maybe(options: Sequence[str], chance: float) -> str:
        return rng.choice(options) if options and rng.random() < chance else ""

    brand = maybe(ontology()["brands"].get(idea.department, ()), 0.9)
    size, quality = maybe(idea.sizes, 0.8), maybe(qualities(idea.name), 0.7)
    noun = language.described(idea.name, 0, quality) if quality else language.nouns[idea.name][0]
    text = language.title(noun.say("title", idea.number == "many"))
    name = " ".join(part for part in ((brand, text, size) if language.brand_first else (text, brand, size)) if part)
    return Product(name, idea.name, brand, size, quality)


class LargeCorpus(Corpus):
    """Messages as `Corpus` makes them, about the products of one large shop."""

    def __init__(
        self,
        schema: IntentSchema,
        languages: Sequence[str],
        seed: int,
        stock: Sequence[Product],
        split: str = "test",
        language: str = "en",
    ):
        self.shelf = _IndexedShelf(stock, language)
        super().__init__(schema, languages, seed, Catalog(self.shelf.names), split)

    def _shelf(self, block: int) -> Shelf:
        return self.shelf


def asked(index: Index, examples: Sequence[Example]) -> dict[str, float]:
    """How the messages of `examples` are routed.

    `found`: the share of those about a product whose product is on a shelf that is asked. `asks`: shelves a message.
    `nothing`: the share of the others that no shelf is asked about.
    """
    numbers = {name: number for number, name in enumerate(index.names.to_pylist())}
    wanted = [[numbers[item[PRODUCT]] for item in items_of(e.intent) if item.get(PRODUCT)] for e in examples]
    asks = route(index, [example.message for example in examples])
    shelves: list[list[int]] = [[] for _ in examples]
    for row, shelf in zip(asks.rows, asks.shelves, strict=True):
        if shelf != NOWHERE:
            shelves[row].append(shelf)
    about = [i for i, products_ in enumerate(wanted) if products_]
    found = sum(all(any(index.holds(shelf, p) for shelf in shelves[i]) for p in wanted[i]) for i in about)
    unasked = sum(not shelves[i] and not wanted[i] for i in range(len(examples)))
    return {
        "found": round(found / max(1, len(about)), 4),
        "asks": round(sum(map(len, shelves)) / len(examples), 3),
        "nothing": round(unasked / max(1, len(examples) - len(about)), 4),
    }


class _IndexedShelf(Shelf):
    """A shelf that finds the names with some words by an index: among a million, each of them is too many to look at."""

    @cached_property
    def _having(self) -> dict[str, set[int]]:
        found: dict[str, set[int]] = {}
        for number, tokens in enumerate(self._tokens):
            for token in tokens:
                found.setdefault(token, set()).add(number)
        return found

    def holds(self, text: str) -> bool:
        return bool(self._with(text))

    def mentions(self, text: str) -> bool:
        """As `Shelf.mentions`: each product here is of a known type."""
        return self.holds(text)

    def _only(self, text: str) -> bool:
        said = words(text)
        return any(len(word) > 3 and not word.isdigit() for word in said) and len(self._with(text)) == 1

    def _with(self, text: str) -> set[int]:
        having: Iterator[set[int]] = (self._having.get(word, set()) for word in set(words(text)))
        return set.intersection(*sorted(having, key=len)) if text.strip() else set()
