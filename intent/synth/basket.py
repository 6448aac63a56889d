"""Choose what a message asks for when it names several products: one `Request` per item.

This module knows products and quantities. `wording` says the items, and `lists` decides which message they make.
"""

from collections.abc import Mapping
from random import Random

from intent.synth.language import Language, Noun
from intent.synth.lexicon import ideas
from intent.synth.phenomena import shares
from intent.synth.request import Request
from intent.synth.shelf import Product, Shelf

LENGTHS = shares(((2, 0.38), (3, 0.28), (4, 0.17), (5, 0.1), (6, 0.07)))


class Basket(Request):
    """The products of `shelf` that one message names. `limits`: the lowest and highest quantity. `most`: the most items.

    The attribute `items` is the list. `roles` has, by the name of a template's slot, items that the message names on their own.
    `said` has all items in the order in which the message first says them. `more` is how many of one item are added later.
    `again` says an earlier item a second time. `kind` is the idea whose noun items of one kind share, and `noun` numbers it.
    """

    def __init__(
        self,
        language: Language,
        words: Language,
        shelf: Shelf,
        rng: Random,
        weights: Mapping,
        limits: tuple[int, int],
        most: int,
    ):
        super().__init__(language, words, shelf, rng, "add", weights)
        self.weights, self.limits, self.most = weights, limits, most
        self.items: list[Request] = []
        self.roles: dict[str, Request] = {}
        self.said: list[Request] = []
        self.again: Request | None = None
        self.more = 0
        self.kind = ""
        self.noun = 0

    @property
    def meant(self) -> list[tuple[str, str, int]]:
        """Return (action, product, quantity) of each item, in the order in which the message first says them.

        Items that the shopper takes back and items that the shelf lacks are left out.
        """
        others = [self.roles.get("dropped"), self.roles.get("kept")]
        return [
            (item.action, item.product.name, item.quantity or 1) for item in self.said if item.product and item not in others
        ]

    @property
    def total(self) -> int:
        """Return the sum of all quantities."""
        return sum(item.quantity for item in self.items)

    def length(self) -> int:
        """Draw how many items the list has."""
        return min(LENGTHS(self.rng), self.most)

    def products(self, count: int, variants: float = 0.2) -> list[Product]:
        """Draw `count` different products of the shelf, or no product if it has fewer.

        `variants`: the chance that two of them are of one idea, if the shelf has two.
        """
        products = self.shelf.products
        if count > len(products):
            return []
        chosen = self.rng.sample(products, count)
        if count > 1 and self.shelf.varied and self.rng.random() < variants:
            first = self.pick(self.shelf.varied)
            second = self.pick(self.shelf.variants(first))
            chosen = [first, second, *(product for product in chosen if product not in (first, second))][:count]
            self.rng.shuffle(chosen)
        return chosen

    def choose_items(self, action: str, count: int) -> bool:
        """Draw the items. Returns False if the shelf has too few products."""
        self.items = [self.item(product, action) for product in self.products(count)]
        return bool(self.items)

    def misspeak(self) -> None:
        """Let the shopper say one item wrong at first, sometimes."""
        self.pick(self.items).misspeak()

    def repeat(self, item: Request) -> None:
        """Add `item` again at the end of the list: "two milks, eggs and another milk"."""
        assert item.product is not None, "an item of a list has a product"
        self.again = self.request(item.action)
        self.again.mention = item.mention
        self.again.spoken = 0 if self.rng.random() < 0.5 else min(self.draw_number(1), 6)
        self.again.quantity = self.again.spoken
        item.quantity = (item.spoken or 1) + (self.again.spoken or 1)
        self.items.append(self.again)

    def choose_variants(self, action: str = "add") -> bool:
        """Draw two or three products of one kind whose qualities alone distinguish them.

        Returns False if the shelf has none, or if their quantities are over the limit together.
        """
        by_idea: dict[str, list[Product]] = {}
        for product in self.shelf.products:
            idea = ideas().get(product.idea)
            if idea and idea.number != "mass" and product.quality and self.is_clear(product):
                by_idea.setdefault(product.idea, []).append(product)
        groups = [products for products in by_idea.values() if len(products) > 1]
        if not groups:
            return False
        chosen = self.pick(groups)
        count = min(len(chosen), self.most, 2 + (self.rng.random() < 0.3))
        self.items = [self.item(product, action) for product in self.rng.sample(chosen, count)]
        for item in self.items:
            item.quantity = item.spoken = min(self.draw_number(1), 6)
        self._share_noun(chosen[0].idea)
        return self.total <= self.limits[1]

    def choose_both(self, action: str) -> bool:
        """Choose the two products that one noun means, in the order of the shelf. Returns False if there are no such two."""
        kinds = [kind for kind in self.shelf.pairs if ideas()[kind].number != "mass"]
        if not kinds:
            return False
        self._share_noun(self.pick(kinds))
        both = [product for product in self.shelf.products if product.idea and self.kind in ideas()[product.idea].line]
        self.items = [self.item(product, action) for product in both]
        for item in self.items:
            item.quantity = item.spoken = 0
        return True

    def _share_noun(self, kind: str) -> None:
        self.kind, self.noun = kind, self.words.draw_wording(kind, self.rng)

    @property
    def shared(self) -> Noun:
        """Return the noun that all items share."""
        return self.words.nouns[self.kind][self.noun]

    def is_clear(self, product: Product) -> bool:
        """Return whether the product's quality distinguishes it from the others of its kind."""
        return self.shelf.clear(product.idea, quality=product.quality)

    def item(self, product: Product, action: str) -> Request:
        """Return an item with a reference to the product and a quantity, both drawn."""
        item = self.request(action)
        item.product, item.mention = product, item.speaker.refer(product)
        item.quantity = item.spoken = item.draw_quantity("add")
        return item

    def request(self, action: str) -> Request:
        """Return a request for one item, without the style "times", because "2x milk" suits a whole list or no item."""
        request = Request(self.language, self.words, self.shelf, self.rng, action, self.weights)
        request.limits, request.phenomena, request.alone = self.limits, self.phenomena, False
        request.styles = {**request.styles, "times": 0}
        return request

    def hear(self, item: Request) -> None:
        """Note that the message says the item, unless it has said it before."""
        if item not in self.said:
            self.said.append(item)
