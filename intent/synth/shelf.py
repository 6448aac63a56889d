"""Products as a shopper sees them: an idea (milk), a brand, a size, a colour; and a shelf, the products of one catalog.

Knows product ideas and languages; knows no message.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import product as combinations
from pathlib import Path

import yaml

from intent.synth.language import LOADER, available, load
from intent.synth.lexicon import Idea, english, ideas

SIZE = re.compile(
    r"\(?\b\d+(?:[.,]\d+)?(?:\s?x\s?\d+(?:[.,]\d+)?)?\s?"
    r"(?:kg|g|mg|ml|cl|l|ltr|litre|liter|cm|mm|m|inch|zoll|gb|tb|mah|w|pack|pk|bags?|st|stk|stück|stuks|uds|pz|kom|un|pcs|er|ct)\b\)?",
    re.IGNORECASE,
)
WORD = re.compile(r"\w+")
BRACKETS = re.compile(r"\([^)]*\)")
LONGEST = 6  # words of a noun: "pastilha para máquina de lavar loiça"
JOINTS = frozenset("in im with for of and from mit für aus und met voor van en".split())
DURABLE = ("electronics", "fashion", "home", "sports", "toys", "diy", "appliances", "smart_home")
OPPOSITES = (("fresh", "frozen"), ("large", "small"))
COLOURS = ("black", "white", "red", "blue", "green", "grey", "yellow", "pink")
COLOURED = "coloured"


@dataclass(frozen=True)
class Product:
    """`name` as the catalog writes it; `idea` is empty for a name that no language file knows.

    `quality`: a colour, or one of `qualities` (organic, large) or `varieties` (woollen, with lemon). `extra`: the name says
    more than the other fields hold.
    """

    name: str
    idea: str = ""
    brand: str = ""
    size: str = ""
    quality: str = ""
    extra: bool = False

    @property
    def plain(self) -> bool:
        return not (self.brand or self.size or self.quality or self.extra)


@cache
def ontology() -> dict:
    """`products.yaml`, as it is written."""
    return yaml.load((Path(__file__).parent / "products.yaml").read_text(encoding="utf-8"), LOADER)


@cache
def qualities(idea: str) -> tuple[str, ...]:
    """What tells products of one idea apart besides brand and size: colours, other qualities (organic, large), varieties."""
    listed = ideas()[idea].traits
    colours = COLOURS if COLOURED in listed else ()
    named = (name for name in ontology()["qualities"] if name in listed)
    varieties = (name for group, names in ontology()["varieties"].items() if group in listed for name in names)
    return tuple(dict.fromkeys((*colours, *named, *varieties)))


@cache
def traits() -> tuple[str, ...]:
    """The names of the groups that an idea's row can list."""
    return (COLOURED, *ontology()["qualities"], *ontology()["varieties"])


@cache
def alike(quality: str) -> frozenset[str]:
    """The qualities that a product has instead of `quality`, not beside it: the other colours, the other materials."""
    families = [COLOURS, *OPPOSITES, *ontology()["varieties"].values()]
    return frozenset(name for family in families if quality in family for name in family) - {quality}


@cache
def confusable(word: str) -> frozenset[str]:
    """Ideas that `word` could be taken for, or that could be taken for it, although it is not their name."""
    return frozenset(_akin().get(word, ()))


@cache
def _akin() -> dict[str, set[str]]:
    """Each idea that is akin to others, whichever of their rows says so.

    What only tells the other's kind is not: who says apples does not mean apple juice.
    """
    found: dict[str, set[str]] = {}
    for idea in ideas().values():
        for other in idea.akin:
            if _tells_kind(english(idea.name), english(other)) or _tells_kind(english(other), english(idea.name)):
                continue
            found.setdefault(idea.name, set()).add(other)
            found.setdefault(other, set()).add(idea.name)
    return found


def _tells_kind(words: tuple[str, ...], of: tuple[str, ...]) -> bool:
    """Whether `words` stand before the noun in `of`: apple in apple juice."""
    return len(words) < len(of) and of[: len(words)] == words


class Shelf:
    """The products of one catalog, and how many of them each way to name one fits."""

    def __init__(self, products: Sequence[Product], language: str = "en"):
        self.products, self.language = tuple(products), language
        self.names = tuple(product.name for product in products)
        self.fits = Counter(key for product in products for key in _keys(product))
        self.ideas = frozenset(product.idea for product in products if product.idea)
        self.words = frozenset(word for idea in self.ideas for word in ideas()[idea].line)
        self.plain = frozenset(word for p in products if p.plain and p.idea for word in ideas()[p.idea].line)
        self.brands = Counter(product.brand for product in products if product.brand)
        self._tokens = [frozenset(words(product.name)) for product in products]
        self._parts: dict[str, list[str]] = {}

    def clear(self, word: str, brand: str = "", size: str = "", quality: str = "") -> bool:
        """Whether exactly one product here can be meant."""
        return self.fits[word, brand, canonical_size(size), quality] == 1 and not confusable(word) & self.words

    @cached_property
    def durable(self) -> tuple[Product, ...]:
        """What wears out or breaks rather than runs out, as far as is known."""
        return tuple(p for p in self.products if not p.idea or ideas()[p.idea].department in DURABLE)

    @cached_property
    def unclear(self) -> list[tuple[str, str, str, str]]:
        """The ways to name that fit two or more products equally, sizes canonical; where one is wholly named, it wins."""
        whole = {(p.idea, p.brand, canonical_size(p.size), p.quality) for p in self.products if p.idea and not p.extra}
        return sorted(key for key, count in self.fits.items() if count > 1 and key[0] not in self.plain and key not in whole)

    @cached_property
    def shared(self) -> list[str]:
        """Parts of names that fit two or more products and are no product's whole name."""
        whole = {frozenset(words(name)) for name in self.names}
        parts = Counter(text for product in self.products for text in _shorter(product))
        return [text for text, n in parts.items() if n > 1 and _telling(said := words(text)) and frozenset(said) not in whole]

    def has(self, idea: Idea) -> bool:
        """Whether something here is the idea, is called by its kind's name alone, or could be taken for it."""
        return bool(self.ideas & {*idea.line, *confusable(idea.name), *confusable(idea.parent)}) or idea.name in self.words

    def mentions(self, text: str) -> bool:
        """Whether some name has all words of `text`, or an unknown product's name has one of them."""
        said = frozenset(words(text))
        return any(
            said <= tokens or (not p.idea and said & tokens) for p, tokens in zip(self.products, self._tokens, strict=True)
        )

    def parts(self, product: Product) -> list[str]:
        """Shorter ways to write the name that no other name here contains."""
        if product.name not in self._parts:
            self._parts[product.name] = [text for text in _shorter(product) if self._only(text)]
        return self._parts[product.name]

    def holds(self, text: str) -> bool:
        """Whether some name has all words of `text`."""
        said = frozenset(words(text))
        return any(said <= tokens for tokens in self._tokens)

    def _only(self, text: str) -> bool:
        said = frozenset(words(text))
        return _telling(said) and sum(said <= tokens for tokens in self._tokens) == 1


def _telling(said: Iterable[str]) -> bool:
    return any(len(word) > 3 and not word.isdigit() for word in said)


def _keys(product: Product) -> Iterator[tuple[str, str, str, str]]:
    if product.idea:
        attributes = ({"", product.brand}, {"", canonical_size(product.size)}, {"", product.quality})
        yield from combinations(ideas()[product.idea].line, *attributes)


def _shorter(product: Product) -> list[str]:
    bare = tidy(SIZE.sub(" ", product.name))
    short = [bare] if bare != product.name else []
    tokens = bare.split()
    if product.brand and product.brand in bare:
        short.append(tidy(bare.replace(product.brand, " ")))
    if not product.idea and len(tokens) > 1:
        short += [" ".join(tokens[1:]), " ".join(tokens[:-1])]
    return [text for text in dict.fromkeys(short) if text]


def tidy(text: str) -> str:
    return " ".join(text.split()).strip(" ,-–·/")


def words(text: str) -> list[str]:
    return WORD.findall(text.casefold())


def given(names: Sequence[str]) -> Shelf:
    """The user's own catalog: ideas and sizes are read from the names."""
    known = [_recognise(name) for name in names]
    codes = Counter(code for _, code in known if code)
    return Shelf([product for product, _ in known], codes.most_common(1)[0][0] if codes else "")


def _recognise(name: str) -> tuple[Product, str]:
    """What a name says by itself, and in which language.

    Only the head of a name says what it is ("Apple phone case" is no apple): its end, or its beginning in a language
    that puts the noun first.
    """
    size = SIZE.search(name)
    outside = BRACKETS.sub(" ", name)
    text = words(tidy(SIZE.sub(" ", outside)))
    spelled = size.group().strip("()") if size else ""
    for length in range(min(len(text), LONGEST), 0, -1):
        head = [(tuple(text[-length:]), "last"), (tuple(text[:length]), "first")]
        for phrase, place in head:
            found = _vocabulary().get((phrase, place))
            if found and not (place == "last" and _is_contents(text[:-length])):
                idea, code = found
                return Product(name, idea, "", spelled, "", len(text) > length or outside != name), code
    return Product(name, "", "", spelled, "", True), ""


@cache
def canonical_size(text: str) -> str:
    """A size as every spelling of it is compared: "(1,5 L)" is "1.5l"."""
    return "".join(text.split()).strip("()").replace(",", ".").lower()


def _is_contents(before: Sequence[str]) -> bool:
    """Whether what follows `before` says what is in a product, or of which kind it is: "Tuna in Oil", "Juice Orange"."""
    starts = (tuple(before[:length]) for length in range(1, min(len(before), LONGEST) + 1))
    return bool(JOINTS & set(before)) or any((start, "last") in _vocabulary() for start in starts)


@cache
def _vocabulary() -> dict[tuple[tuple[str, ...], str], tuple[str, str]]:
    """(words of a noun, where its language puts the head) -> (idea, language); English first where languages share a word."""
    known: dict = {}
    for code in sorted(available(), key=lambda code: (code != "en", code)):
        language = load(code)
        for idea in ideas():
            for noun in language.nouns.get(idea, ()):
                for spelling in noun.spellings:
                    known.setdefault((tuple(words(spelling)), language.head), (idea, code))
    return known
