"""A message that asks for several things: a `Request` for each, the list that they stand in, and what is said about it.

The slots of its templates: {items} is the list, {all_bare} the list without numbers, in this or another phrase, {refused} the
list with each item in a template of `list_refuse_item`, {variants} only what tells the items apart ("two red, one blue");
{clause} is the list as what is asked for, with or without a verb. {num} is the last item's right number, {total} the sum of
all, {total_np} the same with the noun, {each} the number of every item, {more} {more_counted} how many more of an item.
{fixed}, {dropped}, {new}, {out}, {in}, {first} and {last} are single items with their quantities, {kept} is a product that is
none; with a phrase behind it ({out_the}) no quantity is said.
"""

from collections.abc import Callable, Mapping, Sequence
from random import Random

from intent.synth.grammar import Parts, expand
from intent.synth.language import Language
from intent.synth.lexicon import Pool, ideas
from intent.synth.listing import Listing
from intent.synth.phenomena import LISTS, shares
from intent.synth.request import Request, slots_of
from intent.synth.shelf import Product, Shelf

LENGTHS = shares(((2, 0.38), (3, 0.28), (4, 0.17), (5, 0.1), (6, 0.07)))
# How a note writes a number beside each of its products.
BEFORE = ("{n}x {name}", "{n} x {name}", "{n}x{name}", "{n} {name}")
BEHIND = ("{name} x{n}", "{name}: {n}", "{name} ({n})", "{name} x {n}", "{name} = {n}")
PLAIN_FRAMES = {"add": ("add", "add", "occasion"), "remove": ("remove",)}
ASIDES = ("other_request", "question", "statement", "past", "small_talk")

Templates = Callable[[str], Sequence[Parts]]


class Basket(Request):
    """A shopper who wants several things from `shelf`. `templates` gives those of a group, `most` is the longest list."""

    def __init__(
        self,
        language: Language,
        words: Language,
        shelf: Shelf,
        rng: Random,
        weights: Mapping,
        templates: Templates,
        limits: tuple[int, int],
        most: int,
    ):
        super().__init__(language, words, shelf, rng, "add", weights)
        self.weights, self.templates, self.limits, self.most = weights, templates, limits, most
        self.items: list[Request] = []
        self.said: list[Request] = []
        self.roles: dict[str, Request] = {}
        self.listing = Listing(language.joins, shelf, rng, weights)
        self.pattern = ""
        self.elided = False
        self.more = 0
        self.kind = ""

    @property
    def meant(self) -> list[tuple[str, str, int]]:
        """(action, product, quantity) of each item, where it is first said; without what is taken back or not in the shelf."""
        others = [self.roles.get("dropped"), self.roles.get("kept")]
        meant = (item for item in self.said if item.product and item not in others)
        return [(item.action, item.product.name, item.quantity or 1) for item in meant]

    def write(self, scenario: str, pool: Pool) -> str | None:
        """The message; None where the shelf lacks what the scenario needs."""
        self.pool = pool
        self._note(scenario)
        self.kind = self._pick(LISTS[scenario][0])
        message = getattr(self, f"_{scenario}")()
        if message is None:
            return None
        for item in self.said:
            item.describe()
        return message

    # Scenarios

    def _list(self) -> str | None:
        return self._framed("add") if self._choose_some("add") else None

    def _list_remove(self) -> str | None:
        return self._framed("remove") if self._choose_some("remove") else None

    def _list_unknown(self) -> str | None:
        action = "add" if self.rng.random() < 0.75 else "remove"
        known = self._choose(action, max(1, self._length() - 1))
        stranger = self._request(action)
        which = "ambiguous" if self.rng.random() < 0.25 else "not_in_catalog"
        if not known or not stranger.choose(which, "add", self.pool, self.limits):
            return None
        self.items.insert(int(self.rng.random() * (len(self.items) + 1)), stranger)
        return self._framed(action)

    def _list_aside(self) -> str | None:
        """A list with a question, a story or small talk beside it, which asks for nothing."""
        if not self._choose("add", self._length()):
            return None
        self.listing.in_a_sentence()
        group = self._pick(ASIDES)
        aside = self._request("none")
        if not aside.choose(group, group, self.pool, self.limits):
            return None
        beside, message = aside.say(self.templates(group)).rstrip("., "), self._framed("add")
        if self.rng.random() < 0.5:
            return f"{message.rstrip('., ')}{self._pick(('. ', '. ', ' - ', ', '))}{beside}"
        return f"{beside}{' ' if beside[-1:] in '?!' else self._pick(('. ', ', ', ' - '))}{message}"

    def _list_mixed(self) -> str | None:
        """Clauses that add and clauses that remove by turns, now and then with a swap behind them."""
        turns = ["add", "remove"] if self.rng.random() < 0.5 else ["remove", "add"]
        turns += turns[:1] if self.most > 2 and self.rng.random() < 0.25 else []
        counts = [1 + (self.rng.random() < 0.4) for _ in turns]
        length = sum(counts) + (2 if self.rng.random() < 0.15 else 0)
        products = self._products(length)
        if not products or length > self.most:
            return None
        self.listing.in_a_sentence(("conjunction", "commas"))
        clauses = []
        for action, count in zip(turns, counts, strict=True):
            self.items = [self._item(products.pop(), action) for _ in range(count)]
            clauses.append(self._put(f"list_clause_{action}"))
        if products:
            clauses.append(self._swap(products))
        return self._pick(self.language.joins["clause"]).join(clauses)

    def _list_correction(self) -> str | None:
        self.listing.in_a_sentence()
        action = "remove" if self.kind in ("list_fix_last", "list_fix_named") and self.rng.random() < 0.25 else "add"
        length = min(self._length(), self.most - 1) if self.kind == "list_fix_product" else self._length()
        replaced = self.kind == "list_fix_product"
        products = self._products(length + replaced)
        if not products:
            return None
        if replaced:
            self.roles["new"] = self._item(products.pop(), action)
        self.items = [self._item(product, action) for product in products]
        if self.kind == "list_fix_last":
            fixed = self.items[-1]
            fixed.quantity, fixed.spoken = self._number(1), self._number(1)
            if fixed.quantity == fixed.spoken:
                return None
        elif self.kind == "list_fix_named":
            fixed = self.roles["fixed"] = self._pick(self.items)
            fixed.quantity = self._number(1)
            if fixed.quantity == (fixed.spoken or 1):
                return None
        else:
            self.roles["dropped"] = self._pick(self.items)
        return self._put(self.kind)

    def _list_distractor(self) -> str | None:
        """A list beside a product that the shopper keeps or has already."""
        products = self._products(self._length() + 1)
        if not products:
            return None
        # Who has a thing already may want to have it taken out: only beside things that are added it is clear.
        action = "remove" if self.kind == "list_keep" and self.rng.random() < 0.6 else "add"
        self.listing.in_a_sentence()
        self.roles["kept"] = self._item(products.pop(), action)
        self.items = [self._item(product, action) for product in products]
        return self._put(self.kind)

    def _list_need(self) -> str | None:
        """What is gone is to be added, one of each."""
        if not self._choose("add", min(self._length(), 5)):
            return None
        self.listing.in_a_sentence(("conjunction", "commas"))
        for item in self.items:
            item.quantity = item.spoken = 0
        return self._put(self.kind)

    def _list_swap(self) -> str | None:
        products = self._products(2)
        return self._swap(products) if products else None

    def _swap(self, products: list[Product]) -> str:
        parts = self._pick(self.templates("list_swap"))
        for role, action in (("out", "remove"), ("in", "add")):
            item = self.roles[role] = self._item(products.pop(), action)
            if role not in slots_of(parts):
                item.quantity = item.spoken = 0
        return self._expand(parts)

    def _list_each(self) -> str | None:
        action = "remove" if self.kind.endswith("remove") else "add"
        if not self._choose(action, min(self._length(), 4)):
            return None
        self.listing.in_a_sentence()
        number = min(self._number(2), 12)
        for item in self.items:
            item.quantity = number
        return self._put(self.kind)

    def _list_refusal(self) -> str | None:
        parts = self._pick(self.templates("list_refuse"))
        pair = not slots_of(parts) & {"refused"}
        if not self._choose("remove", 2 if pair else min(self._length(), 4)):
            return None
        for item in self.items:
            item.quantity = item.spoken = 0
        self.roles = {"first": self.items[0], "last": self.items[-1]}
        return self._expand(parts)

    def _list_total(self) -> str | None:
        if self.kind == "list_variants" and self._choose_variants():
            self.listing.in_a_sentence(("conjunction", "commas"))
            return self._put("list_variants")
        if not self._choose("add", self._length()):
            return None
        self.listing.in_a_sentence()
        for item in self.items:
            item.quantity = item.spoken = item.spoken or 1
        return self._put("list_total") if self._total() <= self.limits[1] else None

    def _list_twice(self) -> str | None:
        if not self._choose("add", self._length()):
            return None
        self.listing.in_a_sentence()
        again = self.roles["more"] = self._pick(self.items)
        self.more = min(self._number(1), 6)
        again.quantity = (again.spoken or 1) + self.more
        return self._put(self.kind) if again.quantity <= self.limits[1] else None

    # What is asked for

    def _length(self) -> int:
        return min(LENGTHS(self.rng), self.most)

    def _products(self, count: int) -> list[Product]:
        """`count` products of the shelf; none where it has fewer."""
        products = self.shelf.products
        return self.rng.sample(products, count) if count <= len(products) else []

    def _choose(self, action: str, count: int) -> bool:
        self.items = [self._item(product, action) for product in self._products(count)]
        return bool(self.items)

    def _choose_some(self, action: str) -> bool:
        """Products of any kind, or now and then of one kind, which is then named once ("two red shirts and one blue")."""
        if self.rng.random() < self.surface["elided_noun"] and self._choose_variants(action):
            self._note("elided_noun")
            self.listing.in_a_sentence(("conjunction", "commas"))
            self.elided = True
            return True
        return self._choose(action, self._length())

    def _item(self, product: Product, action: str) -> Request:
        item = self._request(action)
        item.product, item.mention = product, item.speaker.refer(product)
        item.quantity = item.spoken = item._quantity("add")
        return item

    def _request(self, action: str) -> Request:
        """One of the shopper's requests. "2x milk" stands only where the whole list is written so."""
        request = Request(self.language, self.words, self.shelf, self.rng, action, self.weights)
        request.limits, request.phenomena = self.limits, self.phenomena
        request.styles = {**request.styles, "times": 0}
        return request

    def _choose_variants(self, action: str = "add") -> bool:
        """Two or three products of one kind that differ in a quality, which alone names them."""
        alike: dict[str, list[Product]] = {}
        for product in self.shelf.products:
            known = ideas().get(product.idea)
            if known and known.number != "mass" and product.quality and self._is_clear(product):
                alike.setdefault(product.idea, []).append(product)
        groups = [products for products in alike.values() if len(products) > 1]
        if not groups:
            return False
        chosen = self._pick(groups)
        count = min(len(chosen), self.most, 2 + (self.rng.random() < 0.3))
        self.items = [self._item(product, action) for product in self.rng.sample(chosen, count)]
        for item in self.items:
            item.quantity = item.spoken = min(self._number(1), 6)
        self.which = int(self.rng.random() * len(self.words.nouns[chosen[0].idea]))
        return self._total() <= self.limits[1]

    def _is_clear(self, product: Product) -> bool:
        return self.shelf.clear(product.idea, quality=product.quality)

    def _total(self) -> int:
        return sum(item.quantity for item in self.items)

    # How it is said

    def _framed(self, action: str) -> str:
        """The list in a frame: one of those that a single product has, or one that a list ends or begins."""
        if not self.listing.is_note and not self.elided and len(self.items) < 5 and self.rng.random() < 0.08:
            return self._closed(self._in_clauses(action))
        note = "list_note" if action == "add" else "list_remove_note"
        if self.listing.is_note or self.rng.random() < 0.3:
            self.pattern = self._pattern()
            return self._closed(self._put(note))
        groups = PLAIN_FRAMES[action]
        plain = [parts for parts in self.templates(self._pick(groups)) if slots_of(parts) == {"np"}]
        return self._closed(self._expand(self._pick(plain)) if plain else self._put(note))

    def _in_clauses(self, action: str) -> str:
        """A sentence for each item: "put milk in, get eggs and add bread"."""
        items, clauses = self.items, []
        for item in items:
            self.items = [item]
            clauses.append(self._put(f"list_clause_{action}"))
        return self._pick(self.language.joins["clause"][:3]).join(clauses)

    def _closed(self, message: str) -> str:
        if self.rng.random() >= self.surface["that_is_all"] or not message[-1:].isalnum():
            return message
        self._note("that_is_all")
        return message + self._pick(self.language.joins["all"])

    def _pattern(self) -> str:
        """How a note writes a number beside each of its products; empty where it is said as in a sentence."""
        if not self.weights["quantity"]["times"] or self.rng.random() < 0.5:
            return ""
        return self._pick(BEHIND if self.rng.random() < 0.5 else BEFORE)

    def _put(self, group: str) -> str:
        return self._expand(self._pick(self.templates(group)))

    def _expand(self, parts: Parts) -> str:
        message = self.language.contract(expand(parts, self.rng, self.language.rules, self._fill))
        for pattern, to in self.language.join_contractions:
            message = pattern.sub(to, message)
        return message

    def _fill(self, slot: str) -> str:
        if filled := _SLOTS.get(slot):
            return filled(self)
        role, _, phrase = slot.partition("_")
        if role == "all":
            return self._joined(lambda item: item._fill(phrase))
        item = self.roles.get(role)
        if item is None:
            return super()._fill(slot)
        self._hear(item)
        if role == "fixed":
            item.spoken = item.quantity
        if phrase:
            item.plural = item.mention.many
        return item._fill(phrase or "np")

    def _hear(self, item: Request) -> None:
        if item not in self.said:
            self.said.append(item)

    def _joined(self, say: Callable[[Request], str]) -> str:
        """Every item as `say` has it, one after the other."""
        joined = self.listing.join(self._each(say))
        if self.weights["listing"][self.listing.style]:
            self._note(self.listing.style)
        self.surface = self.listing.surface
        return joined

    def _each(self, say: Callable[[Request], str]) -> list[str]:
        for item in self.items:
            self._hear(item)
        return [say(item) for item in self.items]

    def _named(self, item: Request) -> str:
        item.uses_mention = True
        if self.pattern and item.quantity == item.spoken:
            item._note("times")
            return self.pattern.format(n=item.spoken or 1, name=item.mention.say("bare"))
        return item._np(item.mention)

    def _clause(self) -> str:
        action = self.items[0].action
        return self._items() if action == "add" and self.rng.random() < 0.5 else self._put(f"list_clause_{action}")

    def _items(self) -> str:
        if self.elided:
            return self._joined(lambda item: self._told_apart(item, whole=item is self.items[0]))
        return self._joined(self._named)

    def _refused(self) -> str:
        parts = self._pick(self.templates("list_refuse_item"))
        said = self._each(lambda item: expand(parts, self.rng, self.language.rules, item._fill))
        last = self.language.joins["and"][0] if self.rng.random() < 0.3 else ", "
        return f"{', '.join(said[:-1])}{last}{said[-1]}"

    def _variants(self) -> str:
        return self._joined(self._told_apart)

    def _told_apart(self, item: Request, whole: bool = False) -> str:
        """Number and quality, with the noun where it is said in `whole`."""
        idea, quality = item.product.idea, item.product.quality
        wording = int(self.rng.random() * self.words.wordings(quality))
        noun = (self.words.described if whole else self.words.quality)(idea, self.which, quality, wording)
        return f"{self._said_number(item.quantity, noun.gender)} {noun.counted(item.quantity)}"

    def _total_np(self) -> str:
        noun = self.words.nouns[self.items[0].product.idea][self.which]
        return f"{self._said_number(self._total(), noun.gender)} {noun.counted(self._total())}"

    def _more_counted(self) -> str:
        return self.roles["more"].mention.counted(self.more)

    def _said_number(self, n: int, gender: str) -> str:
        style = self._digit_or_word()
        self._note(style)
        return self._numeral(n, gender, style)


_SLOTS: Mapping[str, Callable[[Basket], str]] = {
    "items": Basket._items,
    "np": Basket._items,
    "clause": Basket._clause,
    "refused": Basket._refused,
    "variants": Basket._variants,
    "num": lambda basket: basket.items[-1]._num(basket.items[-1].mention),
    "each": lambda basket: basket._said_number(basket.items[0].quantity, basket.words.genders[0]),
    "total": lambda basket: basket._said_number(basket._total(), basket.words.genders[0]),
    "total_np": Basket._total_np,
    "more": lambda basket: basket._said_number(basket.more, basket.roles["more"].mention.noun.gender),
    "more_counted": Basket._more_counted,
}
