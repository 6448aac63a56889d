"""Write a message about one product: choose product and quantity, then say them in the message's language.

`choose` draws product and quantity. `say` fills the slots of a template:

    {np}               the product with its quantity
    {np_stated}        the same, and the quantity is always said
    {num}, {digits}    the quantity alone, in digits or words; in digits
    {counted}          the noun in the form that follows the quantity
    {list_item}        the product as in a list: "milk: 2"
    {name}             the product's name in the catalog
    {other}, {third}   other products

Any other slot is a phrase ({the}) or an agreeing word ({is}) of the language file. `other_` before it means another product.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from random import Random

from intent.synth.grammar import Parts, expand, literals, names
from intent.synth.language import Language, Noun
from intent.synth.lexicon import Pool
from intent.synth.phenomena import shares
from intent.synth.reference import Mention, Slip, Speaker
from intent.synth.shelf import Product, Shelf

COMMON = (1, 2, 2, 2, 2, 3, 3, 3, 4, 4, 5, 5, 6, 6, 7, 8, 9, 10, 10, 12, 12, 15, 20)
VARIANT = 0.35  # the chance that the other product of a message is of the same idea, if the shelf has one
# The ways in which a note and a line of a list say how many.
NOTES = ("{n}x {name}", "{name} x{n}", "{n} x {name}", "{name} x {n}", "{n}x{name}", "{name} ({n})", "{name} {n}")
LINES = ("{n}x {name}", "{name}: {n}", "{name} - {n}", "{name}, {n}", "{name} ({n})", "{name} {n}x", "{name} {n}")
BEFORE_UNITS = (" ", ", ", ": ", " - ")
STATED = frozenset({"remove_stated", "limit", "fix_add", "fix_remove"})
UNSTATED = frozenset({"add_one", "indirect", "worn_out", "remove_one", "no_more", "distract_remove"})
SLIPPING = frozenset({"add", "terse", "indirect", "occasion", "remove"})  # the scenarios in which a shopper misspeaks
WITH_OTHERS = frozenset({"several", "question", "fix_product_add", "fix_product_remove", "distract_add", "distract_remove"})


class Request:
    """A request for a product of `shelf`. `language`: that of the message. `words`: that of the nouns, usually the same.

    `weights`: the tables of `phenomena.mix`. The attribute `quantity` is what the shopper means; `spoken` is what the message
    says first, and differs if the shopper corrects it. 0 means one that is not said. `slip` and `miscounted` are what the
    shopper says wrong and corrects at once ("two, no, three milks"), see `misspeak`. `alone`: the message names no other item.
    """

    def __init__(self, language: Language, words: Language, shelf: Shelf, rng: Random, action: str, weights: Mapping):
        self.language, self.words, self.shelf, self.rng, self.action = (language, words, shelf, rng, action)
        self.styles, self.speaker = (weights["quantity"], Speaker(words, shelf, rng, weights["reference"]))
        self.surface: Mapping[str, float] = weights["surface"]
        self.phenomena: list[str] = []
        self.product: Product | None = None
        self.mention: Mention | None = None
        self.others: list[Mention] = []
        self.quantity = 0
        self.spoken = 0
        self.alone = True
        self.slip: Slip | None = None
        self.miscounted = 0
        self.beyond = False
        self.plural = False
        self.box: Noun | None = None
        self.uses_mention = False

    @property
    def reference(self) -> Mention:
        """Return the mention of the product that is asked for."""
        assert self.mention is not None, "a product is chosen before it is said"
        return self.mention

    def choose(self, scenario: str, group: str, pool: Pool, limits: tuple[int, int]) -> bool:
        """Choose product and quantity. Returns False if the shelf lacks what the scenario needs.

        `group`: the template group. `pool`: ideas for absent products. `limits`: the lowest and highest quantity.
        """
        self.limits = limits
        if scenario == "not_in_catalog":
            self.mention = self.speaker.absent(
                pool, strangers=sum(not p.idea for p in self.shelf.products) * 5 > len(self.shelf.names)
            )
        elif scenario == "ambiguous":
            self.mention = self.speaker.ambiguous()
        else:
            products = self.shelf.durable if scenario == "worn_out" else self.shelf.products
            if not products:
                return False
            self.product = self.pick(products)
            self.mention = self.speaker.refer(self.product)
        self.beyond = scenario == "quantity_out_of_range"
        self.quantity = self.draw_quantity(group)
        self.spoken = self.quantity
        if group in ("fix_add", "fix_remove"):
            self.spoken = self.draw_number(1)
            return self.spoken != self.quantity and self.mention is not None
        if scenario in SLIPPING:
            self.misspeak()
        return self.mention is not None and self._choose_others(group)

    def misspeak(self) -> None:
        """Let the shopper sometimes get the quantity or a detail of the product wrong and correct it in the same breath."""
        if not self.product or self.rng.random() >= self.surface["slip"]:
            return
        if self.rng.random() < 0.6:
            self.slip = self.speaker.slip(self.product)
        if not self.slip and self.spoken:
            number = self.draw_number(1)
            self.miscounted = 0 if number == self.spoken else number

    def _choose_others(self, group: str) -> bool:
        if group not in WITH_OTHERS:
            return True
        rest = [product for product in self.shelf.products if product is not self.product]
        others = self.rng.sample(rest, min(2, len(rest)))
        variants = self.shelf.variants(self.product) if self.product and self.rng.random() < VARIANT else []
        if variants:
            others[0] = self.pick(variants)
        self.others = [self.speaker.refer(product) for product in dict.fromkeys(others)]
        return bool(self.others)

    def draw_quantity(self, group: str) -> int:
        """Draw the quantity for a template of `group`; 0 to say none."""
        if group in UNSTATED:
            self.phenomena.append("no_quantity")
            return 1
        if group in STATED:
            return self.draw_number(2)
        return 0 if self.rng.random() < self.styles["no_quantity"] else self.draw_number(1)

    def draw_number(self, least: int) -> int:
        """Draw a quantity of at least `least`, within the limits."""
        low, high = max(self.limits[0], least), self.limits[1]
        n = self.pick(COMMON) if self.rng.random() < 0.88 else self.rng.randint(low, high)
        return n if low <= n <= high else low

    def say(self, templates: Sequence[Parts]) -> str:
        """Return the message in one of the templates, drawn at random."""
        parts = self.pick(templates)
        if says_number(parts, self.language):
            self.note("number_beside")
        if self.mention:
            self._set_agreement(parts)
        message = expand(parts, self.rng, self.language.rules, self.fill)
        return self.language.contract(message)

    def _set_agreement(self, parts: Parts) -> None:
        """Decide what the template's words agree with: the noun, or its package if a slot can name it ("a bottle of milk")."""
        slots, words = slots_of(parts), self.words
        units = [unit for unit in self.reference.units if unit != "pair"]
        boxable = slots & words.unit_phrases and not slots & {"bare", "of", "gen", "counted"}
        self.box = self.pick(words.units[self.pick(units)]) if boxable and units and self.rng.random() < 0.3 else None
        self.plural = self.reference.number == "one" and bool(slots & words.one_phrases)

    def describe(self) -> None:
        """Add the phenomena that come from the reference to the product."""
        mention = self.reference
        if self.words is not self.language and mention.kind not in ("full_name", "partial_name"):
            self.note("code_switching")
        if mention.kind not in ("absent", "ambiguous"):
            self.note(mention.kind)
        if mention.number != "mass" and (self.plural or (mention.many and mention.kind != "full_name")):
            self.note("plural")
        if any(each.has_number for each in (mention, *self.others)):
            self.note("number_in_name")

    def fill(self, slot: str) -> str:
        """Return the text of a template's slot."""
        mention, self.uses_mention = self.reference, True
        if slot.startswith(("other", "third")):
            mention, slot = self.others[-1 if slot[0] == "t" else 0], slot[6:] or "np_other"
        fill = _SLOTS.get(slot)
        if fill:
            return fill(self, mention)
        if forms := self.language.agree.get(slot):
            if self.box and mention is self.mention:
                return agreeing(forms, self.box.gender, plural=False)
            plural = mention.many or (self.plural and mention is self.mention)
            return agreeing(forms, mention.noun.plural_gender if plural else mention.noun.gender, plural)
        if slot in self.words.unstated:
            return self._fill_phrase(mention, self.pick(self.words.unstated[slot][mention.number]))
        if self.box and mention is self.mention and "unit" in self.words.phrases.get(slot, ()):
            return f"{self.box.say(slot)} {mention.say('of')}"
        return mention.say(slot)

    def _np(self, mention: Mention) -> str:
        if self.beyond:
            return f"{self.pick(self.words.numbers.beyond)} {mention.counted(9)}"
        if mention is self.mention and (self.slip or self.miscounted):
            return self._corrected(mention)
        return self._stated(mention, self.spoken) if self.spoken else self._unstated(mention)

    def _corrected(self, mention: Mention) -> str:
        """Say the quantity or the product wrong, then what is right of it."""
        self.note("slip")
        no = expand(self.pick(self.language.rules["no"]), self.rng, self.language.rules, self.fill)
        if self.slip:
            first, many = self.slip.variant, self.spoken > 1 or mention.many
            wrong = self._stated(first, self.spoken) if self.spoken else self._unstated(first)
            detail = self.slip.detail
            # "The red one" would make one of several.
            if many or not self.slip.adjective or self.rng.random() < 0.4:
                return f"{wrong}{no} {detail.say('bare', many)}"
            one = expand(self.pick(self.words.one_of_them), self.rng, {}, lambda phrase: detail.say(phrase, many))
            return f"{wrong}{no} {one}"
        # In a list, the wrong number alone would belong to the item before: "milk, two, no, three eggs".
        if not self.alone or self.rng.random() < 0.5:
            right = self._numeral(self.spoken, mention.noun.gender, self._number_style())
            return f"{self._stated(mention, self.miscounted)}{no} {right}"
        wrong = self._numeral(self.miscounted, mention.noun.gender, self._number_style())
        return f"{wrong}{no} {self._stated(mention, self.spoken)}"

    def _np_stated(self, mention: Mention) -> str:
        if self.beyond:
            return self._np(mention)
        return self._stated(mention, self.spoken) if self.spoken > 1 else mention.counted(1)

    def _np_other(self, mention: Mention) -> str:
        """Say another product, with a quantity only if this one has it: "two milks, no, eggs" leaves open how many eggs."""
        if self.spoken and self.rng.random() < 0.5:
            return self._stated(mention, self.draw_number(1))
        return self._unstated(mention)

    def _unstated(self, mention: Mention) -> str:
        self.note("no_quantity")
        side = self.words.unstated["remove" if self.action == "remove" else "add"]
        return self._fill_phrase(mention, self.pick(side[mention.number]))

    def _fill_phrase(self, mention: Mention, phrase: str) -> str:
        """Say the noun without a number, sometimes as the contents of a package ("a bottle of milk")."""
        self.plural = mention.many
        units = [unit for unit in mention.units if unit != "pair"]
        if not units or "unit" not in self.words.phrases.get(phrase, ()) or self.rng.random() > 0.2:
            return mention.say(phrase)
        box = self.pick(self.words.units[self.pick(units)])
        self.box = box if mention is self.mention else self.box
        return f"{box.say(phrase)} {mention.say('of')}"

    def _stated(self, mention: Mention, n: int) -> str:
        self.plural = n > 1
        style = self._style(mention, n)
        self.note(style)
        if style in ("dozen", "pair"):
            words = self.words.numbers.dozens if style == "dozen" else self.words.numbers.pairs
            return f"{self.pick(words[n])} {self._dozen_of(mention, n)}"
        if style == "times":
            return self._noted(NOTES, mention.say("bare"), n)
        if style == "unit":
            unit = self.pick(self.words.units[self.pick(mention.units)])
            return f"{self.say_number(n, unit.gender)} {unit.counted(n)} {mention.say('of')}"
        if n == 1 and style == "number_word":
            return mention.noun.say("one", False, mention.before, mention.after)
        return f"{self._numeral(n, mention.noun.gender, style)} {mention.counted(n)}"

    def _dozen_of(self, mention: Mention, n: int) -> str:
        """Say the noun or its package after a dozen: as after a number, or in the phrase `of` ("une douzaine d'œufs")."""
        inside = self.words.numbers.dozens_of
        if mention.units and self.rng.random() < 0.3:
            unit = self.pick(self.words.units[self.pick(mention.units)])
            return f"{unit.say('of', True) if inside else unit.counted(n)} {mention.say('of')}"
        return mention.noun.say("of", True, mention.before, mention.after) if inside else mention.counted(n)

    def _style(self, mention: Mention, n: int) -> str:
        styles, numbers = dict(self.styles), self.words.numbers
        del styles["no_quantity"]
        if n not in numbers.dozens or "pack" in mention.after or (mention.kind == "full_name" and self.rng.random() < 0.7):
            styles["dozen"] = 0
        if n not in numbers.pairs or "pair" in mention.units:
            styles["pair"] = 0
        if not mention.units or (mention.units == ("pair",) and n == 1):
            styles["unit"] = 0
        return shares(tuple(styles.items()))(self.rng) if any(styles.values()) else "digit"

    def say_number(self, n: int, gender: str) -> str:
        """Return the number in digits or, agreeing with a noun of this gender, in words."""
        style = self._number_style()
        self.note(style)
        return self._numeral(n, gender, style)

    def _number_style(self) -> str:
        digit, word = self.styles["digit"], self.styles["number_word"]
        return "digit" if self.rng.random() * (digit + word) < digit or not word else "number_word"

    def _numeral(self, n: int, gender: str, style: str) -> str:
        if style == "digit":
            return str(n)
        numbers = self.words.numbers
        apart = n > 20 and self.rng.random() < self.surface["number_apart"]
        return (numbers.apart if apart else numbers.words)[gender][n]

    def _num(self, mention: Mention) -> str:
        return self.say_number(self.quantity, mention.noun.gender)

    def _list_item(self, mention: Mention) -> str:
        if self.beyond or not self.spoken or not self.styles["times"]:
            return self._np(mention)
        if self.styles["unit"] and self.rng.random() < 0.3:
            return f"{mention.say('bare')}{self.pick(BEFORE_UNITS)}{self.counted_unit(mention, self.spoken)}"
        self.note("times")
        return self._noted(LINES, mention.say("bare"), self.spoken)

    def counted_unit(self, mention: Mention, n: int) -> str:
        """Return the number with a unit, as a note has it behind a product: "3 packs".

        Return the number alone if a size of the shelf has it, since "eggs 6 pieces" would name the pack of six.
        """
        if n in self.shelf.counts:
            return str(n)
        self.note("unit")
        unit = self.pick(self.words.units[self.pick(mention.units or ("item",))])
        return f"{self.say_number(n, unit.gender)} {unit.counted(n)}"

    def _noted(self, ways: Sequence[str], name: str, n: int) -> str:
        """Say name and number in one of `ways`. Use the first way if the text names another product ("Adapter 2")."""
        text = self.pick(ways).format(n=n, name=name)
        return ways[0].format(n=n, name=name) if self.shelf.holds(text) else text

    def note(self, phenomenon: str) -> None:
        """Add a phenomenon to those of the message, once."""
        if phenomenon in ("number_word", "dozen", "unit") and self.words is not self.language:
            self.note("code_switching")
        if phenomenon not in self.phenomena:
            self.phenomena.append(phenomenon)

    def pick(self, options: Sequence):
        """Return one of `options`, drawn at random."""
        return options[int(self.rng.random() * len(options))]


@cache
def slots_of(parts: Parts) -> frozenset[str]:
    """Return the slots of a template, including those in its alternatives."""
    return frozenset(names(parts, "slot"))


@cache
def says_number(parts: Parts, language: Language) -> bool:
    """Return whether a template's own words have a number, which is no quantity: "our son turns three"."""
    return language.numbers.in_text(literals(parts))


def agreeing(forms: Mapping[str, str], gender: str, plural: bool) -> str:
    """Return the first form that exists of "pf", "p", "all" (plural) or "f", "s", "all" (singular), else any form."""
    keys = ("p" + gender, "p", "all") if plural else (gender, "s", "all")
    return next((forms[key] for key in keys if key in forms), next(iter(forms.values())))


def _name(request: Request, _: Mention) -> str:
    assert request.product is not None, "a name is said of a product of the shelf"
    return request.product.name


_SLOTS: Mapping[str, Callable[[Request, Mention], str]] = {
    "np": Request._np,
    "np_stated": Request._np_stated,
    "np_other": Request._np_other,
    "num": Request._num,
    "list_item": Request._list_item,
    "counted": lambda request, mention: mention.counted(request.quantity or 2),
    "digits": lambda request, mention: str(request.quantity or 1),
    "name": _name,
}
