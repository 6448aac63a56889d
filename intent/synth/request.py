"""One message in the making: what is meant, and how product and quantity are said in the message's language."""

from random import Random

from intent.schema import Count
from intent.synth.grammar import Parts, expand
from intent.synth.language import Language, Noun
from intent.synth.shelf import Product, Shelf, akin, ideas, words

SMALL = (1, 2, 2, 2, 3, 3, 3, 4, 4, 5, 5, 6, 6, 7, 8, 9, 10, 12, 12)


class Mention:
    """How a product is called: a noun with its forms, and what stands beside it."""

    __slots__ = ("after", "before", "kind", "noun", "number", "units")

    def __init__(self, noun: Noun, number: str, kind: str, units: tuple[str, ...] = (), before: str = "", after: str = ""):
        self.noun, self.number, self.kind, self.units, self.before, self.after = noun, number, kind, units, before, after

    def say(self, phrase: str, plural: bool | None = None) -> str:
        return self.noun.say(phrase, self.number == "many" if plural is None else plural, self.before, self.after)

    def counted(self, n: int) -> str:
        return f"{self.before}{self.noun.counted(n)}{self.after}"


class Request:
    """`choose` settles what is meant; `say` puts it into words, filling the templates' slots."""

    def __init__(self, language: Language, shelf: Shelf, rng: Random, action: str, count: Count):
        self.language, self.shelf, self.rng, self.action, self.count = language, shelf, rng, action, count
        self.phenomena: list[str] = []
        self.product: Product | None = None
        self.quantity = 0
        self.mention: Mention | None = None
        self.other: Mention | None = None
        self.beyond = False
        self.corrects_quantity = False

    def choose(self, scenario: str, group: str) -> bool:
        """Whether the catalog has what the scenario needs."""
        if scenario == "not_in_catalog":
            self.mention = self._absent()
        elif scenario == "ambiguous":
            self.mention = self._ambiguous()
        else:
            self.product = self._pick(self.shelf.products)
            self.mention = self._refer(self.product)
        if scenario in ("several_products", "correction"):
            others = [product for product in self.shelf.products if product is not self.product]
            self.other = self._refer(self._pick(others)) if others else None
            if self.other is None:
                return False
        self.corrects_quantity = group in ("fix_add", "fix_remove")
        self.beyond = scenario == "quantity_out_of_range"
        if group in ("remove_stated", "limit", "fix_add", "fix_remove"):
            self.quantity = self._number(2)
        elif not self.quantity:
            self.quantity = 1 if self.rng.random() < 0.4 else self._number(1)
        return self.mention is not None

    def say(self, templates: list[Parts]) -> str:
        return expand(self._pick(templates), self.rng, self.language.rules, self._fill)

    def _fill(self, slot: str) -> str:
        if slot in ("np", "plain_np"):
            return self._quantified(self.mention, self._first_quantity())
        if slot == "other":
            return self._quantified(self.other, 1 if self.rng.random() < 0.5 else self._number(1))
        if slot == "num":
            return self._numeral(self.quantity, self.mention.noun.gender)
        if slot == "digits":
            return str(self.quantity)
        if slot == "name":
            return self.product.name
        return self.mention.say(slot)

    def _first_quantity(self) -> int:
        """The quantity said before a correction, else the one that is meant."""
        return self._number(1) if self.corrects_quantity else self.quantity

    def _quantified(self, mention: Mention, n: int) -> str:
        r, rng = self.rng.random(), self.rng
        if self.beyond:
            return f"{self._pick(self.language.numbers.beyond)} {mention.counted(9)}"
        if n == 1 and r < 0.8:
            if self.action == "remove":
                return mention.say("the" if r < 0.6 else "bare" if mention.number != "one" else "a")
            return mention.say("bare" if mention.number != "one" and r < 0.6 else "a" if mention.number == "one" else "some")
        if n in self.language.numbers.dozens and r < 0.35 and mention.kind != "full_name":
            self.phenomena.append("dozen")
            return f"{self._pick(self.language.numbers.dozens[n])} {mention.counted(n)}"
        if r > 0.9:
            self.phenomena.append("digit")
            name = mention.say("bare")
            return (f"{n}x {name}", f"{name} x{n}", f"{n} x {name}", f"{name} x {n}")[int(rng.random() * 4)]
        if mention.units and r > 0.55:
            unit = self._pick(self.language.units[self._pick(mention.units)])
            return f"{self._numeral(n, unit.gender)} {unit.counted(n)} {mention.say('of')}"
        return f"{self._numeral(n, mention.noun.gender)} {mention.counted(n)}"

    def _numeral(self, n: int, gender: str) -> str:
        if self.rng.random() < 0.5:
            self.phenomena.append("digit")
            return str(n)
        self.phenomena.append("number_word")
        return self.language.numbers.words[gender][n]

    def _number(self, least: int) -> int:
        n = self._pick(SMALL) if self.rng.random() < 0.85 else self.rng.randint(1, 99)
        return max(n, least)

    def _refer(self, product: Product) -> Mention | None:
        """A way to name `product` that fits no other product of the catalog."""
        r = self.rng.random()
        if product.idea and r < 0.75:
            idea = ideas()[product.idea]
            for word in self.rng.sample(idea.line, len(idea.line)):
                if self.shelf.fits[word, "", "", ""] == 1 and not self.shelf.unclear(word):
                    kind = "partial_name" if word != product.idea else "translated"
                    noun = self._pick(self.language.nouns[word])
                    return Mention(noun, idea.number, kind, self._units(product))
                if product.size and self.shelf.fits[word, "", product.size, ""] == 1 and not self.shelf.unclear(word):
                    noun = self._pick(self.language.nouns[word])
                    return Mention(noun, idea.number, "size", self._units(product), after=f" {product.size}")
        number = ideas()[product.idea].number if product.idea else "one"
        gender = self.language.nouns[product.idea][0].gender if product.idea else self.language.genders[0]
        text = product.name if r < 0.85 else product.name.lower()
        self.phenomena.append("full_name")
        return Mention(self.language.verbatim(text, gender), "mass" if number == "many" else number, "full_name")

    def _units(self, product: Product) -> tuple[str, ...]:
        exact = {"litre": ("1L",), "kilo": ("1kg",)}
        return tuple(u for u in ideas()[product.idea].units if product.size in exact.get(u, (product.size,)))

    def _absent(self) -> Mention | None:
        """Something that the catalog has nothing of."""
        idea = self._pick(list(ideas().values()))
        if self.shelf.ideas & {*idea.line, *akin(idea.name)}:
            return None
        noun = self._pick(self.language.nouns[idea.name])
        if any(token in self.shelf.token_count for token in words(noun.form(self.language.forms[0]))):
            return None
        return Mention(noun, idea.number, "absent", idea.units)

    def _ambiguous(self) -> Mention | None:
        shared = sorted({key[0] for key, n in self.shelf.fits.items() if n > 1 and key[1:] == ("", "", "")})
        if not shared:
            return None
        word = self._pick(shared)
        example = next(p for p in self.shelf.products if p.idea and word in ideas()[p.idea].line)
        return Mention(self._pick(self.language.nouns[word]), ideas()[example.idea].number, "ambiguous")

    def _pick(self, options):
        return options[int(self.rng.random() * len(options))]
