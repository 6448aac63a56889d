"""Write a message that asks for several products: one `Request` per item, the list of the items, and the text around it.

The templates have these slots:

    {items}                  the list
    {all_bare}               the list without numbers, in the phrase `bare`; other phrases work too ({all_the})
    {refused}                the list with each item in a template of `list_refuse_item`
    {variants}               the list with only what distinguishes the items ("two red, one blue")
    {clause}                 the list as a request, with or without a verb
    {num}                    the corrected number of the last item
    {total}, {total_np}      the sum of all numbers; the same with the noun
    {each}                   the number that every item has
    {more}, {more_counted}   how many more of an item; the noun of that item
    {fixed} {dropped} {new}  single items with their quantities; a phrase ({out_the}) leaves out the quantity
    {out} {in} {first} {last}
    {kept}                   a product that is not an item
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
# The ways in which a note writes a number before or behind a product.
BEFORE = ("{n}x {name}", "{n} x {name}", "{n}x{name}", "{n} {name}")
BEHIND = ("{name} x{n}", "{name}: {n}", "{name} ({n})", "{name} x {n}", "{name} = {n}")
PLAIN_FRAMES = {"add": ("add", "add", "occasion"), "remove": ("remove",)}
ASIDES = ("other_request", "question", "statement", "past", "small_talk")

Templates = Callable[[str], Sequence[Parts]]


class Basket(Request):
    """A request for several products of `shelf`.

    `templates`: returns the parsed templates of a group. `limits`: the lowest and highest quantity. `most`: the most items.
    """

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
        """Return (action, product, quantity) of each item, in the order in which the message first says them.

        Items that the shopper takes back and items that the shelf lacks are left out.
        """
        others = [self.roles.get("dropped"), self.roles.get("kept")]
        meant = (item for item in self.said if item.product and item not in others)
        return [(item.action, item.product.name, item.quantity or 1) for item in meant]

    def write(self, scenario: str, pool: Pool) -> str | None:
        """Return a message of `scenario`, a name in `phenomena.LISTS`; None if the shelf lacks the products that it needs."""
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
        """Put a question, a story or small talk before or behind a list. It requests nothing."""
        if not self._choose("add", self._length()):
            return None
        self.listing.in_a_sentence()
        group = self._pick(ASIDES)
        aside = self._request("none")
        if not aside.choose(group, group, self.pool, self.limits) or aside.product in [item.product for item in self.items]:
            return None
        beside, message = aside.say(self.templates(group)).rstrip("., "), self._framed("add")
        if self.rng.random() < 0.5:
            return f"{message.rstrip('., ')}{self._pick(('. ', '. ', ' - ', ', '))}{beside}"
        return f"{beside}{' ' if beside[-1:] in '?!' else self._pick(('. ', ', ', ' - '))}{message}"

    def _list_mixed(self) -> str | None:
        """Alternate clauses that add and clauses that remove, sometimes with a swap at the end."""
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
        """Name a product that the shopper keeps or already has beside the list."""
        products = self._products(self._length() + 1)
        if not products:
            return None
        # "I already have milk" may ask to remove milk. It is unambiguous only beside items that are added.
        action = "remove" if self.kind == "list_keep" and self.rng.random() < 0.6 else "add"
        self.listing.in_a_sentence()
        self.roles["kept"] = self._item(products.pop(), action)
        self.items = [self._item(product, action) for product in products]
        return self._put(self.kind)

    def _list_need(self) -> str | None:
        """Say that items have run out. That requests one of each."""
        if not self._choose("add", min(self._length(), 5)):
            return None
        self.listing.in_a_sentence(("conjunction", "commas"))
        for item in self.items:
            item.quantity = item.spoken = 0
        return self._put(self.kind)

    def _list_swap(self) -> str | None:
        products = self._products(2, variants=0.5)
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

    # Choosing the items

    def _length(self) -> int:
        return min(LENGTHS(self.rng), self.most)

    def _products(self, count: int, variants: float = 0.2) -> list[Product]:
        """Return `count` different products of the shelf, or no product if it has fewer.

        `variants`: the chance that two of them are of one idea, if the shelf has two.
        """
        products = self.shelf.products
        if count > len(products):
            return []
        chosen = self.rng.sample(products, count)
        if count > 1 and self.shelf.varied and self.rng.random() < variants:
            first = self._pick(self.shelf.varied)
            second = self._pick(self.shelf.variants(first))
            chosen = [first, second, *(product for product in chosen if product not in (first, second))][:count]
            self.rng.shuffle(chosen)
        return chosen

    def _choose(self, action: str, count: int) -> bool:
        self.items = [self._item(product, action) for product in self._products(count)]
        return bool(self.items)

    def _choose_some(self, action: str) -> bool:
        """Choose products of any kind, or sometimes of one kind. Then the noun is said once ("two red shirts and one blue")."""
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
        """Return a request for one item, without the style "times", because "2x milk" suits a whole list or no item."""
        request = Request(self.language, self.words, self.shelf, self.rng, action, self.weights)
        request.limits, request.phenomena = self.limits, self.phenomena
        request.styles = {**request.styles, "times": 0}
        return request

    def _choose_variants(self, action: str = "add") -> bool:
        """Choose two or three products of one kind whose qualities alone distinguish them."""
        by_idea: dict[str, list[Product]] = {}
        for product in self.shelf.products:
            idea = ideas().get(product.idea)
            if idea and idea.number != "mass" and product.quality and self._is_clear(product):
                by_idea.setdefault(product.idea, []).append(product)
        groups = [products for products in by_idea.values() if len(products) > 1]
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

    # Putting the items into words

    def _framed(self, action: str) -> str:
        """Put the list into a template: one for a single product, or one for a note."""
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
        """Say each item in a clause of its own: "put milk in, get eggs and add bread"."""
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
        """Draw how a note writes each number beside its product; empty to say it as in a sentence."""
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
        """Join what `say` returns for every item."""
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
        phrases = self._each(lambda item: expand(parts, self.rng, self.language.rules, item._fill))
        last = self.language.joins["and"][0] if self.rng.random() < 0.3 else ", "
        return f"{', '.join(phrases[:-1])}{last}{phrases[-1]}"

    def _variants(self) -> str:
        return self._joined(self._told_apart)

    def _told_apart(self, item: Request, whole: bool = False) -> str:
        """Say the number and the quality of an item, and the noun if `whole`."""
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
