"""Refer to a product as a shopper does: by its full name, a part of it, a noun in the shopper's language, a brand or a size.

A reference is used only if it fits no other product of the shelf. This module also makes references that are ambiguous, and
references to absent products.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random

from intent.synth import size as sizes
from intent.synth.language import Language, Noun
from intent.synth.lexicon import ODD, Idea, Pool, english, ideas
from intent.synth.market import THINGS, invent
from intent.synth.phenomena import shares
from intent.synth.shelf import Product, Shelf, alike, canonical_size, ontology, qualities

# A unit that requires a size: "two litres of milk" means two of "Milk 1L", but not of "Milk 500ml".
EXACT = {"litre": "1l", "kilo": "1kg"}
UNITS_OF_SIZE = frozenset(EXACT)
DIGIT = re.compile(r"\d")


@cache
def _odd() -> list[str]:
    return [idea.name for idea in ideas().values() if idea.department == ODD]


def _is_other(name: str, other: str) -> bool:
    """Return whether two ideas that share a word are different products. A bare noun may mean any product that ends in it."""
    (*modifiers, head), (*others, last) = english(name), english(other)
    return head != last or bool(modifiers and others)


class Mention:
    """A noun phrase that refers to a product.

    `number`: mass, many or one. `kind`: how it refers to the product, a phenomenon's name. `units`: what the product is counted
    in. `before`, `after`: a brand or size next to the noun, with blanks.
    """

    __slots__ = ("after", "before", "kind", "noun", "number", "units")

    def __init__(self, noun: Noun, number: str, kind: str, units: tuple[str, ...] = (), before: str = "", after: str = ""):
        self.noun, self.number, self.kind, self.units = noun, noun.number or number, kind, units
        self.before, self.after = before, after

    @property
    def many(self) -> bool:
        """Return whether the noun is usually plural (apples)."""
        return self.number == "many"

    @property
    def has_number(self) -> bool:
        """Return whether the phrase contains a number, which is not a quantity."""
        text = f"{self.noun.text}{self.before}{self.after}"
        return bool(DIGIT.search(text)) or self.noun.language.numbers.in_text(f"{self.before}{self.after}")

    def say(self, phrase: str) -> str:
        """Return the mention in a phrase of the language file, such as "the"."""
        plural = self.many or (self.number == "one" and "one" in self.noun.language.phrases.get(phrase, ()))
        return self.noun.say(phrase, plural, self.before, self.after)

    def counted(self, n: int) -> str:
        """Return the mention in the form that follows the number `n`, without the number."""
        return f"{self.before}{self.noun.counted(n)}{self.after}"


@dataclass(frozen=True)
class Slip:
    """A variant of the product that the shopper names first, and the detail that corrects it.

    `adjective`: the detail is one, so it can have an article ("the red one").
    """

    variant: Mention
    detail: Noun
    adjective: bool


class Speaker:
    """Someone who refers to the products of `shelf` in `language`. `weights`: how often each kind of reference is tried."""

    def __init__(self, language: Language, shelf: Shelf, rng: Random, weights: Mapping[str, float]):
        self.language, self.shelf, self.rng = language, shelf, rng
        self.kind = shares(tuple(weights.items()))

    def refer(self, product: Product) -> Mention:
        """Return a reference that fits only this product. Falls back to the noun, a part of the name, then the full name."""
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
        """Use the idea's own noun, with as many attributes as distinguish the product from the others."""
        return self._described(product, product.idea)

    def _kind_of(self, product: Product) -> Mention | None:
        """Use the noun of the idea's parent: "milk" for the only milk of the shelf."""
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
        """Add a brand or quality that no name of the shelf has: "organic milk" for the only milk of the shelf."""
        if not product.idea or product.extra or not self.shelf.clear(product.idea):
            return None
        if self.rng.random() < 0.5:
            options = () if product.brand else (*ontology()["brands"][ideas()[product.idea].department], invent(self.rng).name)
            extra, field = self._unsaid(options), "brand"
        else:
            extra, field = self._unsaid(() if product.quality else qualities(product.idea)), "quality"
        if not extra:
            return None
        mention = self._phrase(product.idea, product, **{field: extra})
        mention.kind = "unneeded_word"
        return mention

    def slip(self, product: Product) -> Slip | None:
        """Name a variant of the product by mistake. None if no variant differs in a detail that only this product has."""
        variants = self.shelf.variants(product)
        if not variants:
            return None
        idea, other = product.idea, self._pick(variants)
        which = self.language.draw_wording(idea, self.rng)
        if other.quality in alike(product.quality) and self.shelf.clear(idea, quality=product.quality):
            first, then = (int(self.rng.random() * self.language.wordings(p.quality)) for p in (other, product))
            noun, after = self.language.described(idea, which, other.quality, first), ""
            detail = self.language.quality(idea, which, product.quality, then)
            adjective = self.language.is_adjective(product.quality, then)
        elif other.size and self._differ_in_size(product, other) and self.shelf.clear(idea, size=product.size):
            noun, after = self.language.nouns[idea][which], self._sized(other.size, "", "")[1]
            detail, adjective = self.language.verbatim(self._size_alone(product.size), noun.gender), False
        else:
            return None
        units = tuple(unit for unit in self._units(product) if unit not in UNITS_OF_SIZE)
        return Slip(Mention(noun, ideas()[idea].number, "slip", units, "", after), detail, adjective)

    def _differ_in_size(self, product: Product, other: Product) -> bool:
        # Behind "no", the number of a pack would be a quantity: "eggs in a pack of 12, no, 6".
        if not product.size or product.size.endswith(("pack", "bags", "pieces", "cups")):
            return False
        return canonical_size(product.size) != canonical_size(other.size)

    def _size_alone(self, size: str) -> str:
        """Say a size, sometimes without its name: "in a 42, sorry, 43"."""
        named = sizes.NAMED.fullmatch(size)
        if named and named[1] in ("EU", "SPF") and self.rng.random() < 0.4:
            return named[2]
        return sizes.said(size, self.language, self.rng)

    def _unsaid(self, options: Sequence[str]) -> str:
        """Return one of `options` that no name of the shelf mentions, or "" if three draws find none."""
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
        which = self.language.draw_wording(word, self.rng)
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
        """Add the size before or after the noun ("2 litre milk"). A size without an amount comes behind it ("in XL")."""
        raw, phrase = self.language.raw, sizes.said(size, self.language, self.rng)
        if not size[:1].isdigit():
            return before, f"{after} {phrase}"
        if raw.get("size_before") and phrase[:1].isdigit() and self.rng.random() < 0.4:
            return before + self._pick(raw["size_before"]).format(s=phrase), after
        # The templates may add "of", which needs an amount: "milk of x6" is ungrammatical.
        template = self._pick(raw["size_after"]) if phrase[:1].isdigit() else " {s}"
        return before, after + template.format(s=phrase)

    def _units(self, product: Product) -> tuple[str, ...]:
        idea = ideas().get(product.idea)
        return tuple(u for u in idea.units if u not in EXACT or canonical_size(product.size) == EXACT[u]) if idea else ()

    def ambiguous(self) -> Mention | None:
        """Return words of an idea or of names that fit two or more products of the shelf equally; None if there are none."""
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
        """Refer to a product that the shelf lacks: another idea, a wrong brand or quality, or an invented name.

        `strangers`: the shelf has names of unknown ideas, so a common idea may be one of them. None if the draw fits the shelf.
        """
        r = self.rng.random()
        if r < 0.15:
            return self._invented()
        if r < 0.3:
            return self._wrong(brand=True)
        if r < 0.38:
            return self._wrong(brand=False)
        names = _odd() if strangers or r < 0.45 else self._similar(pool) if r < 0.75 else self._siblings(pool)
        return self._unknown(ideas()[self._pick(names or pool.weighted)])

    def _siblings(self, pool: Pool) -> list[str]:
        """Return the ideas of the pool whose parent is that of a product of the shelf: oat milk beside whole milk."""
        words = self.shelf.words
        return [name for name, parent in pool.members if parent in words]

    def _similar(self, pool: Pool) -> list[str]:
        """Return ideas that are easy to take for a product of the shelf.

        They share a word with a product (running shoes beside running socks), or else are of its department.
        """
        idea = ideas().get(self._pick(self.shelf.products).idea)
        if idea is None:
            return []
        near = [other.name for other in pool.near(idea.name) if _is_other(other.name, idea.name)]
        if near and self.rng.random() < 0.7:
            return near
        return [other.name for other in pool.departments.get(idea.department, ())]

    def _unknown(self, idea: Idea) -> Mention | None:
        noun = self.language.nouns[idea.name][self.language.draw_wording(idea.name, self.rng)]
        if self.shelf.has(idea) or any(self.shelf.mentions(text) for text in noun.spellings):
            return None
        return Mention(noun, idea.number, "absent", idea.units)

    def _wrong(self, brand: bool) -> Mention | None:
        """Combine an idea of the shelf with a brand or quality that the shelf lacks."""
        product = self._pick(self.shelf.products)
        same = [p for p in self.shelf.products if p.idea == product.idea]
        if not product.idea or not all(p.brand if brand else p.quality for p in same):
            return None
        department = ideas()[product.idea].department
        options = ontology()["brands"][department] if brand else qualities(product.idea)
        taken = {p.brand if brand else p.quality for p in self.shelf.products}
        if not brand:
            # Gray socks may also be woolen. Only a quality that excludes the real one makes another product, such as a color.
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
        """Return the name of a product without an idea, with another last word; empty if there is no such product."""
        names = [p.name.split() for p in self.shelf.products if not p.idea and " " in p.name]
        if not names or self.rng.random() < 0.4:
            return ""
        return " ".join([*self._pick(names)[:-1], self._pick(THINGS)])

    def _pick(self, options: Sequence):
        return options[int(self.rng.random() * len(options))]
