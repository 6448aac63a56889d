"""Write a message that asks for several products. Each scenario of `phenomena.LISTS` is a method of its name."""

from intent.synth.basket import Basket
from intent.synth.lexicon import Pool
from intent.synth.listing import SENTENCES
from intent.synth.phenomena import LISTS
from intent.synth.request import slots_of
from intent.synth.shelf import Product
from intent.synth.wording import Templates, Wording

ASIDES = ("other_request", "question", "statement", "past", "small_talk")
INLINE = ("conjunction", "commas")  # the styles of a list that goes on into the next clause


class ListMessage:
    """A message that fills `basket` and says it. `templates`: returns the parsed templates of a group."""

    def __init__(self, basket: Basket, templates: Templates):
        self.basket, self.templates = basket, templates
        self.wording = Wording(basket, templates)
        self.language, self.listing, self.roles = basket.language, self.wording.listing, basket.roles
        self.random, self.pick, self.put = basket.rng.random, basket.pick, self.wording.put
        self.group = ""

    def write(self, scenario: str, pool: Pool) -> str | None:
        """Return a message of the scenario; None if the shelf lacks the products that it needs. `pool`: absent products."""
        self.pool = pool
        self.basket.note(scenario)
        self.group = self.pick(LISTS[scenario][0])
        message = getattr(self, f"_{scenario}")()
        if message is None:
            return None
        for item in self.basket.said:
            item.describe()
        return message

    def _list(self) -> str | None:
        return self.wording.framed("add") if self._choose_some("add") else None

    def _list_remove(self) -> str | None:
        return self.wording.framed("remove") if self._choose_some("remove") else None

    def _choose_some(self, action: str) -> bool:
        """Choose products of any kind, or sometimes of one kind. Then the noun is said once ("two red shirts and one blue")."""
        basket = self.basket
        if self.random() < basket.surface["elided_noun"] and basket.choose_variants(action):
            basket.note("elided_noun")
            self.listing.in_a_sentence(INLINE)
            self.wording.elided = True
            return True
        if not basket.choose_items(action, basket.length()):
            return False
        basket.misspeak()
        return True

    def _list_unknown(self) -> str | None:
        basket, action = self.basket, "add" if self.random() < 0.75 else "remove"
        known = basket.choose_items(action, max(1, basket.length() - 1))
        stranger = basket.request(action)
        which = "ambiguous" if self.random() < 0.25 else "not_in_catalog"
        if not known or not stranger.choose(which, "add", self.pool, basket.limits):
            return None
        basket.items.insert(int(self.random() * (len(basket.items) + 1)), stranger)
        return self.wording.framed(action)

    def _list_aside(self) -> str | None:
        """Put a question, a story or small talk before or behind a list. It requests nothing."""
        basket = self.basket
        if not basket.choose_items("add", basket.length()):
            return None
        self.listing.in_a_sentence()
        group = self.pick(ASIDES)
        aside = basket.request("none")
        if not aside.choose(group, group, self.pool, basket.limits) or aside.product in [item.product for item in basket.items]:
            return None
        beside, message = aside.say(self.templates(group)).rstrip("., "), self.wording.framed("add")
        if self.random() < 0.5:
            return f"{message.rstrip('., ')}{self.pick(('. ', '. ', ' - ', ', '))}{beside}"
        return f"{beside}{' ' if beside[-1:] in '?!' else self.pick(('. ', ', ', ' - '))}{message}"

    def _list_mixed(self) -> str | None:
        """Alternate clauses that add and clauses that remove, sometimes with a swap at the end."""
        basket = self.basket
        turns = ["add", "remove"] if self.random() < 0.5 else ["remove", "add"]
        turns += turns[:1] if basket.most > 2 and self.random() < 0.25 else []
        counts = [1 + (self.random() < 0.4) for _ in turns]
        length = sum(counts) + (2 if self.random() < 0.15 else 0)
        products = basket.products(length)
        if not products or length > basket.most:
            return None
        self.listing.in_a_sentence(INLINE)
        clauses = []
        for action, count in zip(turns, counts, strict=True):
            basket.items = [basket.item(products.pop(), action) for _ in range(count)]
            clauses.append(self.put(f"list_clause_{action}"))
        if products:
            clauses.append(self._swap(products))
        return self.pick(self.language.joins["clause"]).join(clauses)

    def _list_correction(self) -> str | None:
        basket, replaced = self.basket, self.group == "list_fix_product"
        self.listing.in_a_sentence()
        action = "remove" if self.group in ("list_fix_last", "list_fix_named") and self.random() < 0.25 else "add"
        length = min(basket.length(), basket.most - 1) if replaced else basket.length()
        products = basket.products(length + replaced)
        if not products:
            return None
        if replaced:
            self.roles["new"] = basket.item(products.pop(), action)
        basket.items = [basket.item(product, action) for product in products]
        if self.group == "list_fix_last":
            fixed = basket.items[-1]
            fixed.quantity, fixed.spoken = basket.draw_number(1), basket.draw_number(1)
            if fixed.quantity == fixed.spoken:
                return None
        elif self.group == "list_fix_named":
            fixed = self.roles["fixed"] = self.pick(basket.items)
            fixed.quantity = basket.draw_number(1)
            if fixed.quantity == (fixed.spoken or 1):
                return None
        else:
            self.roles["dropped"] = self.pick(basket.items)
        return self.put(self.group)

    def _list_distractor(self) -> str | None:
        """Name a product that the shopper keeps or already has beside the list."""
        basket = self.basket
        products = basket.products(basket.length() + 1)
        if not products:
            return None
        # "I already have milk" may ask to remove milk. It is unambiguous only beside items that are added.
        action = "remove" if self.group == "list_keep" and self.random() < 0.6 else "add"
        self.listing.in_a_sentence()
        self.roles["kept"] = basket.item(products.pop(), action)
        basket.items = [basket.item(product, action) for product in products]
        return self.put(self.group)

    def _list_need(self) -> str | None:
        """Say that items have run out. That requests one of each."""
        basket = self.basket
        if not basket.choose_items("add", min(basket.length(), 5)):
            return None
        self.listing.in_a_sentence(INLINE)
        for item in basket.items:
            item.quantity = item.spoken = 0
        return self.put(self.group)

    def _list_swap(self) -> str | None:
        products = self.basket.products(2, variants=0.5)
        return self._swap(products) if products else None

    def _swap(self, products: list[Product]) -> str:
        parts = self.pick(self.templates("list_swap"))
        for role, action in (("out", "remove"), ("in", "add")):
            item = self.roles[role] = self.basket.item(products.pop(), action)
            if role not in slots_of(parts):
                item.quantity = item.spoken = 0
        return self.wording.expand(parts)

    def _list_each(self) -> str | None:
        basket = self.basket
        action = "remove" if self.group.endswith("remove") else "add"
        if self.random() < 2.5 * basket.surface["elided_noun"] and basket.choose_variants(action):
            basket.note("elided_noun")
            self.wording.elided = True
        elif not basket.choose_items(action, min(basket.length(), 4)):
            return None
        self.listing.in_a_sentence(INLINE if self.wording.elided else SENTENCES)
        number = min(basket.draw_number(2), 12)
        for item in basket.items:
            item.quantity = number
        return self.put(self.group)

    def _list_refusal(self) -> str | None:
        basket, parts = self.basket, self.pick(self.templates("list_refuse"))
        pair = not slots_of(parts) & {"refused"}
        if not basket.choose_items("remove", 2 if pair else min(basket.length(), 4)):
            return None
        for item in basket.items:
            item.quantity = item.spoken = 0
        self.roles |= {"first": basket.items[0], "last": basket.items[-1]}
        return self.wording.expand(parts)

    def _list_total(self) -> str | None:
        basket = self.basket
        if self.group == "list_variants" and basket.choose_variants():
            self.listing.in_a_sentence(INLINE)
            return self.put("list_variants")
        if not basket.choose_items("add", basket.length()):
            return None
        self.listing.in_a_sentence()
        for item in basket.items:
            item.quantity = item.spoken = item.spoken or 1
        return self.put("list_total") if basket.total <= basket.limits[1] else None

    def _list_both(self) -> str | None:
        """Name two products with one noun: "both lamps can go"."""
        return self.put(self.group) if self.basket.choose_both(self.group.removeprefix("list_both_")) else None

    def _list_twice(self) -> str | None:
        basket = self.basket
        if not basket.choose_items("add", basket.length()):
            return None
        if self.random() < 0.4:
            # The item is said before the others, so that another item stands between.
            basket.repeat(basket.items[0])
            return self.wording.framed("add") if basket.items[0].quantity <= basket.limits[1] else None
        self.listing.in_a_sentence()
        again = self.roles["more"] = self.pick(basket.items)
        basket.more = min(basket.draw_number(1), 6)
        again.quantity = (again.spoken or 1) + basket.more
        return self.put(self.group) if again.quantity <= basket.limits[1] else None
