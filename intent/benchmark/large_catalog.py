"""Generate a catalog of up to a million products, and messages about it, to measure large catalogs.

The catalog is one shop that names its products in one language and sells everything that the generator knows.
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
# A product type counts as exhausted after this many draws without a new product.
TRIES = 20


def products(count: int, seed: int = 7, language: str = "en", sold: Sequence[Idea] | None = None) -> list[Product]:
    """Return `count` products with different names. `sold`: their types; None means all types.

    Raises ConfigError if the generator does not know that many.
    """
    rng, spoken = Random(seed), load(language)
    stock = list(sold or (idea for idea in ideas().values() if idea.name not in kinds() and idea.department != ODD))
    by_name: dict[str, Product] = {}
    while len(by_name) < count and stock:
        rng.shuffle(stock)
        exhausted = set()
        for idea in stock:
            if len(by_name) == count:
                break
            for _ in range(TRIES):
                product = _draw(rng, spoken, idea)
                if product.name.casefold() not in by_name:
                    by_name[product.name.casefold()] = product
                    break
            else:
                exhausted.add(idea.name)
        stock = [idea for idea in stock if idea.name not in exhausted]
    if len(by_name) < count:
        raise ConfigError("products", count, f"the generator knows only about {len(by_name):,} products; use fewer")
    drawn = list(by_name.values())
    rng.shuffle(drawn)
    return drawn


def _draw(rng: Random, language: Language, idea: Idea) -> Product:
    """Draw a product of one type. Most have a brand, a size or a quality, as in a large shop."""

    def maybe(options: Sequence[str], chance: float) -> str:
        return rng.choice(options) if options and rng.random() < chance else ""

    brand = maybe(ontology()["brands"].get(idea.department, ()), 0.9)
    size, quality = maybe(idea.sizes, 0.8), maybe(qualities(idea.name), 0.7)
    noun = language.described(idea.name, 0, quality) if quality else language.nouns[idea.name][0]
    text = language.title(noun.say("title", idea.number == "many"))
    name = " ".join(part for part in ((brand, text, size) if language.brand_first else (text, brand, size)) if part)
    return Product(name, idea.name, brand, size, quality)


class LargeCorpus(Corpus):
    """Messages like those of `Corpus`, about the products `stock` of one large shop. `language`: the code of their names'."""

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


def routing_figures(index: Index, examples: Sequence[Example]) -> dict[str, float]:
    """Measure how the messages of `examples` are routed to shelves.

    "found": of the messages about products, the share for which every product is on an asked shelf. "asks": shelves asked per
    message. "nothing": of the other messages, the share for which no shelf is asked.
    """
    numbers = {name: number for number, name in enumerate(index.names.to_pylist())}
    requested = [[numbers[item[PRODUCT]] for item in items_of(e.intent) if item.get(PRODUCT)] for e in examples]
    asks = route(index, [example.message for example in examples])
    shelves: list[list[int]] = [[] for _ in examples]
    for row, shelf in zip(asks.rows, asks.shelves, strict=True):
        if shelf != NOWHERE:
            shelves[row].append(shelf)
    about = [i for i, products_ in enumerate(requested) if products_]
    hits = sum(all(any(index.holds(shelf, p) for shelf in shelves[i]) for p in requested[i]) for i in about)
    unasked = sum(not shelves[i] and not requested[i] for i in range(len(examples)))
    return {
        "found": round(hits / max(1, len(about)), 4),
        "asks": round(sum(map(len, shelves)) / len(examples), 3),
        "nothing": round(unasked / max(1, len(examples) - len(about)), 4),
    }


class _IndexedShelf(Shelf):
    """A shelf with an index from words to names, since a scan over a million names is too slow."""

    @cached_property
    def _having(self) -> dict[str, set[int]]:
        rows: dict[str, set[int]] = {}
        for number, tokens in enumerate(self._tokens):
            for token in tokens:
                rows.setdefault(token, set()).add(number)
        return rows

    def holds(self, text: str) -> bool:
        return bool(self._with(text))

    def mentions(self, text: str) -> bool:
        """Return what `Shelf.mentions` would. It is the same as `holds`, because each product has an idea."""
        return self.holds(text)

    def _only(self, text: str) -> bool:
        tokens = words(text)
        return any(len(word) > 3 and not word.isdigit() for word in tokens) and len(self._with(text)) == 1

    def _with(self, text: str) -> set[int]:
        having: Iterator[set[int]] = (self._having.get(word, set()) for word in set(words(text)))
        return set.intersection(*sorted(having, key=len)) if text.strip() else set()
