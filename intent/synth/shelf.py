"""Describe products by idea (milk), brand, size and quality, and find which references fit only one product of a catalog.

This module knows product ideas and languages. It knows no message.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import count
from itertools import product as combinations
from pathlib import Path

import yaml

from intent.synth.language import LOADER, Noun, available, load, nouns_of
from intent.synth.lexicon import Idea, english, ideas, wordings

SIZE = re.compile(
    r"\(?\b\d+(?:[.,]\d+)?(?:\s?x\s?\d+(?:[.,]\d+)?)?[\s-]?"
    r"(?:kg|g|mg|ml|cl|l|ltr|litre|liter|cm|mm|m|inch|zoll|gb|tb|mah|w|pack|pk|bags?|st|stk|stück|stuks|uds|pz|kom|un|unidades|pcs|ct"
    r"|er-?set|er[- ]?pack|er|pieces?|teile|teilig|tlg\.?|piezas|pzas|pièces|pezzi|dijelova|dij\.?|stukjes|delig|peças|pçs"
    r"|cups?|tassen|tazas|tasses|tazze|šalic[ae]|kopjes|kops|chávenas|xícaras)(?!\w)\)?",
    re.IGNORECASE,
)
COUNTED = re.compile(r"(\d+) (?:pack|bags|pieces|cups)")
WORD = re.compile(r"\w+")
BRACKETS = re.compile(r"\([^)]*\)")
UNCHANGING = re.compile(r"[^|~ ]*")  # of a noun's first word, before its endings
LONGEST = 6  # the most words in a noun: "pastilha para máquina de lavar loiça"
JOINTS = frozenset("in im with for of and from mit für aus und met voor van en".split())
DURABLE = ("electronics", "fashion", "home", "sports", "toys", "diy", "appliances", "smart_home")
OPPOSITES = (("fresh", "frozen"), ("large", "small"))
COLOURS = ("black", "white", "red", "blue", "green", "grey", "yellow", "pink")
COLOURED = "coloured"
# An idea and a language, by the words of a noun and by where its language puts the head: "first" or "last".
Vocabulary = dict[tuple[tuple[str, ...], str], tuple[str, str]]


@dataclass(frozen=True)
class Product:
    """A product. `name`: as in the catalog. `idea`: its product type, or empty if no language file has the name.

    `brand` and `size` are empty if the name has none. `quality`: a color, or one of `qualities` (organic, large) or `varieties`
    (woolen, with lemon) in products.yaml. `extra`: the name says more than the other fields.
    """

    name: str
    idea: str = ""
    brand: str = ""
    size: str = ""
    quality: str = ""
    extra: bool = False

    @property
    def plain(self) -> bool:
        """Return whether the name says only the idea."""
        return not (self.brand or self.size or self.quality or self.extra)


@cache
def ontology() -> dict:
    """Return the contents of `products.yaml`."""
    return yaml.load((Path(__file__).parent / "products.yaml").read_text(encoding="utf-8"), LOADER)


@cache
def qualities(idea: str) -> tuple[str, ...]:
    """Return what distinguishes products of an idea besides brand and size: colors, other qualities (organic), varieties."""
    listed = ideas()[idea].traits
    colours = COLOURS if COLOURED in listed else ()
    named = (name for name in ontology()["qualities"] if name in listed)
    varieties = (name for group, names in ontology()["varieties"].items() if group in listed for name in names)
    return tuple(dict.fromkeys((*colours, *named, *varieties)))


@cache
def traits() -> tuple[str, ...]:
    """Return the names that the column `traits` of an idea's row can have."""
    return (COLOURED, *ontology()["qualities"], *ontology()["varieties"])


@cache
def alike(quality: str) -> frozenset[str]:
    """Return the qualities that exclude `quality`: the other colors, or the other materials."""
    families = [COLOURS, *OPPOSITES, *ontology()["varieties"].values()]
    return frozenset(name for family in families if quality in family for name in family) - {quality}


@cache
def confusable(word: str) -> frozenset[str]:
    """Return the ideas that may be confused with the idea `word`, in either direction."""
    return frozenset(_akin().get(word, ()))


@cache
def _akin() -> dict[str, set[str]]:
    """Return the akin ideas of each idea, in both directions.

    An idea that only qualifies another one is left out: someone who says "apples" does not mean apple juice.
    """
    akin: dict[str, set[str]] = {}
    for idea in ideas().values():
        for other in idea.akin:
            if _tells_kind(english(idea.name), english(other)) or _tells_kind(english(other), english(idea.name)):
                continue
            akin.setdefault(idea.name, set()).add(other)
            akin.setdefault(other, set()).add(idea.name)
    return akin


def _tells_kind(words: tuple[str, ...], of: tuple[str, ...]) -> bool:
    """Return whether `words` qualify the noun in `of`, as apple does in apple juice."""
    return len(words) < len(of) and of[: len(words)] == words


class Shelf:
    """The products of one catalog, and how many of them each reference fits. `language`: the code of that of the names."""

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
        """Return whether the reference fits exactly one product. `word`: an idea. An empty attribute is not said."""
        return self.fits[word, brand, canonical_size(size), quality] == 1 and not confusable(word) & self.words

    def variants(self, product: Product) -> list[Product]:
        """Return the other products of the same idea: the skimmed milk for the whole milk."""
        return [other for other in self._by_idea.get(product.idea, ()) if other is not product]

    @cached_property
    def varied(self) -> list[Product]:
        """Return the products that have variants."""
        return [product for products in self._by_idea.values() if len(products) > 1 for product in products]

    @cached_property
    def _by_idea(self) -> dict[str, list[Product]]:
        by_idea: dict[str, list[Product]] = {}
        for product in self.products:
            if product.idea:
                by_idea.setdefault(product.idea, []).append(product)
        return by_idea

    @cached_property
    def durable(self) -> tuple[Product, ...]:
        """Return the products that wear out or break instead of running out. Products without an idea are among them."""
        return tuple(p for p in self.products if not p.idea or ideas()[p.idea].department in DURABLE)

    @cached_property
    def unclear(self) -> list[tuple[str, str, str, str]]:
        """Return (idea, brand, canonical size, quality) of each reference that fits two or more products equally.

        A reference that says everything that one product's name says is left out, because it means that product.
        """
        whole = {(p.idea, p.brand, canonical_size(p.size), p.quality) for p in self.products if p.idea and not p.extra}
        return sorted(key for key, count in self.fits.items() if count > 1 and key[0] not in self.plain and key not in whole)

    @cached_property
    def counts(self) -> frozenset[int]:
        """Return the numbers of sizes that count something: 6 of "6 pack", 1000 of "1000 pieces"."""
        counted = (COUNTED.fullmatch(product.size) for product in self.products)
        return frozenset(int(match[1]) for match in counted if match)

    @cached_property
    def pairs(self) -> list[str]:
        """Return the ideas whose plain word means exactly two products: "both lamps"."""
        two = (word for (word, *attributes), count in self.fits.items() if count == 2 and not any(attributes))
        return sorted(word for word in two if word not in self.plain and not confusable(word) & self.words)

    @cached_property
    def shared(self) -> list[str]:
        """Return parts of names that fit two or more products and are not a product's full name."""
        whole = {frozenset(words(name)) for name in self.names}
        parts = Counter(text for product in self.products for text in _shorter(product))
        return [
            text for text, n in parts.items() if n > 1 and _telling(tokens := words(text)) and frozenset(tokens) not in whole
        ]

    def has(self, idea: Idea) -> bool:
        """Return whether a product of the shelf is of this idea, is named only by its parent, or may be confused with it."""
        return bool(self.ideas & {*idea.line, *confusable(idea.name), *confusable(idea.parent)}) or idea.name in self.words

    def mentions(self, text: str) -> bool:
        """Return whether a name has all words of `text`, or the name of a product without an idea has one of them."""
        terms = frozenset(words(text))
        return any(
            terms <= tokens or (not p.idea and terms & tokens) for p, tokens in zip(self.products, self._tokens, strict=True)
        )

    def parts(self, product: Product) -> list[str]:
        """Return shorter forms of the name that fit no other name of the shelf."""
        if product.name not in self._parts:
            self._parts[product.name] = [text for text in _shorter(product) if self._only(text)]
        return self._parts[product.name]

    def holds(self, text: str) -> bool:
        """Return whether a name has all words of `text`."""
        terms = frozenset(words(text))
        return any(terms <= tokens for tokens in self._tokens)

    def _only(self, text: str) -> bool:
        terms = frozenset(words(text))
        return _telling(terms) and sum(terms <= tokens for tokens in self._tokens) == 1


def _telling(tokens: Iterable[str]) -> bool:
    """Return whether the words are specific enough: one has over three letters and is not a number."""
    return any(len(word) > 3 and not word.isdigit() for word in tokens)


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
    """Return the text with single blanks, and without blanks and separators at its ends."""
    return " ".join(text.split()).strip(" ,-–·/")


def words(text: str) -> list[str]:
    """Return the words of the text, case-folded."""
    return WORD.findall(text.casefold())


def given(names: Sequence[str]) -> Shelf:
    """Return the shelf of the user's own catalog. Ideas and sizes are recognized in the names."""
    vocabulary = _vocabulary({word for name in names for word in _outside(name)})
    recognized = [_recognise(name, vocabulary) for name in names]
    codes = Counter(code for _, code in recognized if code)
    return Shelf([product for product, _ in recognized], codes.most_common(1)[0][0] if codes else "")


def _outside(name: str) -> list[str]:
    """Return the words of a name outside of brackets and sizes."""
    return words(tidy(SIZE.sub(" ", BRACKETS.sub(" ", name))))


def _recognise(name: str, vocabulary: Vocabulary) -> tuple[Product, str]:
    """Return the product that a name means, and the code of the name's language, or "".

    Only the head of a name has the idea, since "Apple phone case" is not an apple. The head is the end of the name, or its
    beginning in a language that puts the noun first.
    """
    size = SIZE.search(name)
    text = _outside(name)
    spelled = size.group().strip("()") if size else ""
    for length in range(min(len(text), LONGEST), 0, -1):
        head = [(tuple(text[-length:]), "last"), (tuple(text[:length]), "first")]
        for phrase, place in head:
            entry = vocabulary.get((phrase, place))
            if entry and not (place == "last" and _is_contents(text[:-length], vocabulary)):
                idea, code = entry
                extra = len(text) > length or BRACKETS.search(name) is not None
                return Product(name, idea, "", spelled, "", extra), code
    return Product(name, "", "", spelled, "", True), ""


@cache
def canonical_size(text: str) -> str:
    """Return a size in one spelling for comparison: "(1,5 L)" becomes "1.5l"."""
    return "".join(text.split()).strip("()").replace(",", ".").lower()


def _is_contents(before: Sequence[str], vocabulary: Vocabulary) -> bool:
    """Return whether the words behind `before` are a product's contents or kind: "Tuna in Oil", "Juice Orange"."""
    starts = (tuple(before[:length]) for length in range(1, min(len(before), LONGEST) + 1))
    return bool(JOINTS & set(before)) or any((start, "last") in vocabulary for start in starts)


def _vocabulary(of: Iterable[str]) -> Vocabulary:
    """Return the entries of all nouns whose first word may be one of the words `of`. English wins for a shared noun."""
    vocabulary: Vocabulary = {}
    beginnings = {word[:length] for word in of for length in range(len(word) + 1)}
    for _, code, idea, text in sorted(noun for beginning in beginnings for noun in _nouns().get(beginning, ())):
        language = load(code)
        for spelling in Noun(language, text).spellings:
            vocabulary.setdefault((tuple(words(spelling)), language.head), (idea, code))
    return vocabulary


@cache
def _nouns() -> dict[str, list[tuple[int, str, str, str]]]:
    """Return every noun of every language, by what the first word of all its forms begins with: a number, the language, the
    idea and the noun in the notation of `Noun`. The numbers of English nouns are the lowest.

    A catalog needs few of the nouns, and forming the words of all takes seconds.
    """
    nouns: dict[str, list[tuple[int, str, str, str]]] = defaultdict(list)
    numbers = count()
    for code in sorted(available(), key=lambda code: (code != "en", code)):
        cells = wordings(code)
        for idea in filter(cells.__contains__, ideas()):
            for text in nouns_of(cells[idea]):
                unchanging = WORD.search(UNCHANGING.match(text).group().casefold())  # type: ignore[union-attr]  # matches any text
                nouns[unchanging.group() if unchanging else ""].append((next(numbers), code, idea, text))
    return nouns
