"""How a shopper calls a product: its full name, a part of it, a word of their own language, a brand, a size.

A way to call a product is used only if it fits no other product of the shelf; what is ambiguous or absent is made here too.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from random import Random

from intent.synth import size as sizes
from intent.synth.language import Language, Noun
from intent.synth.lexicon import ODD, Idea, Pool, ideas
from intent.synth.market import THINGS, invent
from intent.synth.phenomena import shares
from intent.synth.shelf import Product, Shelf, alike, canonical_size, ontology, qualities

# The unit that says a product's own size: "two litres of milk" asks for two of "Milk 1L", and for nothing else.
EXACT = {"litre": "1l", "kilo": "1kg"}
UNITS_OF_SIZE = frozenset(EXACT)
DIGIT = re.compile(r"\d")


@cache
def _odd() -> list[str]:
    return [idea.name for idea in ideas().values() if idea.department == ODD]


class Mention:
    """A noun with its forms, what stands beside it, and what it was made from (a phenomenon's name)."""

    __slots__ = ("after", "before", "kind", "noun", "number", "units")

    def __init__(self, noun: Noun, number: str, kind: str, units: tuple[str, ...] = (), before: str = "", after: str = ""):
        self.noun, self.number, self.kind, self.units = noun, noun.number or number, kind, units
        self.before, self.after = before, after

    @property
    def many(self) -> bool:
        return self.number == "many"

    @property
    def has_number(self) -> bool:
        return bool(DIGIT.search(f"{self.noun.text}{self.before}{self.after}"))

    def say(self, phrase: str) -> str:
        plural = self.many or (self.number == "one" and "one" in self.noun.language.phrases.get(phrase, ()))
        return self.noun.say(phrase, plural, self.before, self.after)

    def counted(self, n: int) -> str:
        return f"{self.before}{self.noun.counted(n)}{self.after}"


class Speaker:
    """Someone who calls the products of `shelf` in `language`. `weights`: how often each kind of reference is tried."""

    def __init__(self, language: Language, shelf: Shelf, rng: Random, weights: Mapping[str, float]):
        self.language, self.shelf, self.rng = language, shelf, rng
        self.kind = shares(tuple(weights.items()))

    def refer(self, product: Product) -> Mention:
        kind = self.kind(self.rng)
        if kind == "full_name":
            return self._full_name(product)
        return getattr(self, f"_{kind}")(product) or self._noun(product) or self._name_part(product) or self._full_name(product)

    def _full_name(self, product: Product, text: str = "", kind: str = "full_name") -> Mention:
        idea = ideas().get(product.idea)
        gender = self.language.nouns[product.idea][0].gender if idea else self.language.genders[0]
        number = idea.number if idea else "one"
        return Mention(self.language.verbatim(text or product.name, gender), number, kind, self._units(product))

    def _name_part(self, product: Product) -> Mention | None:
        parts = self.shelf.parts(product)
        return self._full_name(product, self._pick(parts), "partial_name") if parts else None

    def _noun(self, product: Product) -> Mention | None:
        """The idea's own word, with as much beside it as tells the product from the others."""
        return self._described(product, product.idea)

    def _kind_of(self, product: Product) -> Mention | None:
        """Only what kind of thing it is: "milk" for the one milk that is there."""
        idea = ideas().get(product.idea)
        return self._described(product, idea.parent or idea.name) if idea else None

    def _brand(self, product: Product) -> Mention | None:
        if product.brand and self.rng.random() < 0.4 and self.shelf.brands[product.brand] == 1:
            return self._full_name(product, product.brand, "brand")
        return self._described(product, product.idea, brand=product.brand)

    def _size(self, product: Product) -> Mention | None:
        idea = ideas().get(product.idea)
        return self._described(product, self._pick(idea.line), size=product.size) if idea else None

    def _unneeded(self, product: Product) -> Mention | None:
        """The only one of its kind with a brand or a quality that no name here says: "organic milk" where there is one milk."""
        if not product.idea or product.extra or not self.shelf.clear(product.idea):
            return None
        if self.rng.random() < 0.5:
            options = () if product.brand else (*ontology()["brands"][ideas()[product.idea].department], invent(self.rng).name)
            said, field = self._unsaid(options), "brand"
        else:
            said, field = self._unsaid(() if product.quality else qualities(product.idea)), "quality"
        if not said:
            return None
        mention = self._phrase(product.idea, product, **{field: said})
        mention.kind = "unneeded_word"
        return mention

    def _unsaid(self, options: Sequence[str]) -> str:
        """One of `options` that no name here has a word of. Empty where that takes more than a few tries."""
        tries = [self._pick(options) for _ in range(3)] if options else []
        return next((option for option in tries if not self.shelf.mentions(option)), "")

    def _described(self, product: Product, word: str, brand: str = "", size: str = "") -> Mention | None:
        if not product.idea:
            return None
        chosen, missing = ({"brand": brand, "size": size, "quality": ""}, ["brand", "size", "quality"])
        self.rng.shuffle(missing)
        while not self.shelf.clear(word, **chosen):
            if not missing:
                return None
            attribute = missing.pop()
            chosen[attribute] = getattr(product, attribute)
        return self._phrase(word, product, **chosen)

    def _phrase(self, word: str, product: Product, brand: str = "", size: str = "", quality: str = "") -> Mention:
        which = int(self.rng.random() * len(self.language.nouns[word]))
        noun = self.language.nouns[word][which]
        if quality:
            wording = int(self.rng.random() * self.language.wordings(quality))
            noun = self.language.described(word, which, quality, wording)
        kind = "size" if size else "brand" if brand else self._kind_name(word, product, which)
        before, after = "", ""
        if brand:
            before, after = (f"{brand} ", "") if self.language.brand_first else ("", f" {brand}")
        if size:
            before, after = self._sized(size, before, after)
        return Mention(noun, ideas()[word].number, kind, self._units(product), before, after)

    def _kind_name(self, word: str, product: Product, which: int) -> str:
        if word != product.idea:
            return "partial_name"
        if self.language.code != self.shelf.language:
            return "translated"
        return "synonym" if which else "noun"

    def _sized(self, size: str, before: str, after: str) -> tuple[str, str]:
        """The size before or after the noun ("2 litre milk"); one without an amount stands behind it ("in XL")."""
        raw, said = self.language.raw, sizes.said(size, self.language.raw, self.rng)
        if not size[:1].isdigit():
            return before, f"{after} {said}"
        if raw.get("size_before") and said[:1].isdigit() and self.rng.random() < 0.4:
            return before + self._pick(raw["size_before"]).format(s=said), after
        # "Milk of x6" is no phrase: only an amount can be of something.
        template = self._pick(raw["size_after"]) if said[:1].isdigit() else " {s}"
        return before, after + template.format(s=said)

    def _units(self, product: Product) -> tuple[str, ...]:
        idea = ideas().get(product.idea)
        return tuple(u for u in idea.units if u not in EXACT or canonical_size(product.size) == EXACT[u]) if idea else ()

    def ambiguous(self) -> Mention | None:
        """Words that fit two or more products of the shelf equally: of their idea, or of their names."""
        if self.shelf.shared and (not self.shelf.unclear or self.rng.random() < 0.3):
            return Mention(self.language.verbatim(self._pick(self.shelf.shared), self.language.genders[0]), "one", "ambiguous")
        if not self.shelf.unclear:
            return None
        word, brand, size, quality = self._pick(self.shelf.unclear)
        named = (p for p in self.shelf.products if p.idea and word in ideas()[p.idea].line)
        fitting = next(p for p in named if not size or canonical_size(p.size) == size)
        mention = self._phrase(word, fitting, brand, fitting.size if size else "", quality)
        mention.units = tuple(unit for unit in mention.units if unit not in UNITS_OF_SIZE)
        return mention

    def absent(self, pool: Pool, strangers: bool) -> Mention | None:
        """A product that the shelf does not have: something else, a wrong brand or quality, an invented name.

        `strangers`: the shelf has names that no language file knows, so a common thing might be one of them.
        """
        r = self.rng.random()
        if r < 0.15:
            return self._invented()
        if r < 0.3:
            return self._wrong(brand=True)
        if r < 0.38:
            return self._wrong(brand=False)
        names = _odd() if strangers or r < 0.45 else pool.names
        if r > 0.7 and not strangers:
            words = self.shelf.words
            names = [name for name, parent in pool.members if parent in words] or names
        return self._unknown(ideas()[self._pick(names)])

    def _unknown(self, idea: Idea) -> Mention | None:
        noun = self._pick(self.language.nouns[idea.name])
        if self.shelf.has(idea) or any(self.shelf.mentions(text) for text in noun.spellings):
            return None
        return Mention(noun, idea.number, "absent", idea.units)

    def _wrong(self, brand: bool) -> Mention | None:
        """A thing that is here, in a brand or a quality that is not."""
        product = self._pick(self.shelf.products)
        same = [p for p in self.shelf.products if p.idea == product.idea]
        if not product.idea or not all(p.brand if brand else p.quality for p in same):
            return None
        department = ideas()[product.idea].department
        options = ontology()["brands"][department] if brand else qualities(product.idea)
        taken = {p.brand if brand else p.quality for p in self.shelf.products}
        if not brand:
            # Grey socks may be woollen ones: only another colour makes them others.
            options = [option for option in options if all(option in alike(p.quality) for p in same)]
        wrong = [option for option in options if option not in taken and not self.shelf.mentions(option)]
        if not wrong:
            return None
        return self._phrase(product.idea, product, **{"brand" if brand else "quality": self._pick(wrong)})

    def _invented(self) -> Mention | None:
        near = self._other_version()
        text = near or invent(self.rng).name
        if self.shelf.holds(text) if near else self.shelf.mentions(text):
            return None
        return Mention(self.language.verbatim(text, self.language.genders[0]), "one", "absent")

    def _other_version(self) -> str:
        """An unknown product's name with another last word: near what is here, and not here. Empty where there is none."""
        names = [p.name.split() for p in self.shelf.products if not p.idea and " " in p.name]
        if not names or self.rng.random() < 0.4:
            return ""
        return " ".join([*self._pick(names)[:-1], self._pick(THINGS)])

    def _pick(self, options: Sequence):
        return options[int(self.rng.random() * len(options))]
