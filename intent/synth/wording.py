"""Put a basket into words: expand a template with its items.

The templates have these slots:

    {items}                  the list
    {all_bare}               the list without numbers, in the phrase `bare`; other phrases work too ({all_the})
    {refused}                the list with each item in a template of `list_refuse_item`
    {variants}               the list with only what distinguishes the items ("two red, one blue")
    {clause}                 the list as a request, with or without a verb
    {num}                    the corrected number of the last item
    {total}, {total_np}      the sum of all numbers; the same with the noun
    {each}                   the number that every item has
    {both}                   two products of one kind ("both lamps"); {both_the} is their noun alone in a phrase
    {more}, {more_counted}   how many more of an item; the noun of that item
    {fixed} {dropped} {new}  single items with their quantities; a phrase ({out_the}) leaves out the quantity
    {out} {in} {first} {last}
    {kept}                   a product that is not an item

This module chooses no product and no quantity.
"""

from collections.abc import Callable, Mapping, Sequence

from intent.synth.basket import Basket
from intent.synth.grammar import Parts, expand
from intent.synth.language import Noun
from intent.synth.listing import Listing
from intent.synth.request import Request, agreeing, says_number, slots_of
from intent.synth.shelf import alike

# The ways in which a note writes a number before or behind a product.
BEFORE = ("{n}x {name}", "{n} x {name}", "{n}x{name}", "{n} {name}")
SPOKEN = "{name} {n}"  # the number may be a word
COUNTED = "{name} {counted}"  # the number has a unit: "nappies three packs"
BEHIND = ("{name} x{n}", "{name}: {n}", "{name} ({n})", "{name} x {n}", "{name} = {n}", SPOKEN, SPOKEN, COUNTED, COUNTED)
PLAIN_FRAMES = {"add": ("add", "add", "occasion"), "remove": ("remove",)}

Templates = Callable[[str], Sequence[Parts]]


class Wording:
    """How one message says `basket`. `templates`: returns the parsed templates of a group.

    The attribute `pattern` is how a note writes each number beside its product; empty to say it as in a sentence. With
    `elided`, the noun that the items share is said once ("two red shirts and one blue").
    """

    def __init__(self, basket: Basket, templates: Templates):
        self.basket, self.templates = basket, templates
        self.language, self.rng, self.pick = basket.language, basket.rng, basket.pick
        self.listing = Listing(self.language.joins, basket.shelf, self.rng, basket.weights)
        self.pattern = ""
        self.elided = False

    def framed(self, action: str) -> str:
        """Put the list into a template: one for a single product, or one for a note."""
        if not self.listing.is_note and not self.elided and len(self.basket.items) < 5 and self.rng.random() < 0.08:
            return self._closed(self._in_clauses(action))
        note = "list_note" if action == "add" else "list_remove_note"
        if self.listing.is_note or self.rng.random() < 0.3:
            self.pattern = self._draw_pattern()
            if self.pattern in BEHIND:
                # Speech recognition drops the commas that tell to which item a number belongs.
                self.listing.surface = {**self.listing.surface, "voice": 0.0}
            return self._closed(self.put(note))
        groups = PLAIN_FRAMES[action]
        plain = [parts for parts in self.templates(self.pick(groups)) if slots_of(parts) == {"np"}]
        return self._closed(self.expand(self.pick(plain)) if plain else self.put(note))

    def put(self, group: str) -> str:
        """Return the message in one of the group's templates, drawn at random."""
        return self.expand(self.pick(self.templates(group)))

    def expand(self, parts: Parts) -> str:
        """Return the message in this template."""
        if says_number(parts, self.language):
            self.basket.note("number_beside")
        message = self.language.contract(expand(parts, self.rng, self.language.rules, self._fill))
        for pattern, to in self.language.join_contractions:
            message = pattern.sub(to, message)
        return message

    def _in_clauses(self, action: str) -> str:
        """Say each item in a clause of its own: "put milk in, get eggs and add bread"."""
        clauses = []
        for item in self.basket.items:
            self.basket.items = [item]
            clauses.append(self.put(f"list_clause_{action}"))
        return self.pick(self.language.joins["clause"][:3]).join(clauses)

    def _closed(self, message: str) -> str:
        if self.rng.random() >= self.basket.surface["that_is_all"] or not message[-1:].isalnum():
            return message
        self.basket.note("that_is_all")
        return message + self.pick(self.language.joins["all"])

    def _draw_pattern(self) -> str:
        if not self.basket.weights["quantity"]["times"] or self.rng.random() < 0.5:
            return ""
        pattern = self.pick(BEHIND if self.rng.random() < 0.5 else BEFORE)
        return SPOKEN if pattern == COUNTED and not self.basket.weights["quantity"]["unit"] else pattern

    def _fill(self, slot: str) -> str:
        if filled := _SLOTS.get(slot):
            return filled(self)
        role, _, phrase = slot.partition("_")
        if role == "all":
            return self._joined(lambda item: self._shared(item, phrase) if self.elided else item.fill(phrase))
        if role == "both":
            self._hear_all()
            return self.basket.shared.say(phrase, plural=True)
        item = self.basket.roles[role]
        if role == "in" and not item.spoken and (detail := self._detail(item)):
            self.basket.hear(item)
            return detail.say(phrase or "the", item.reference.many)
        self.basket.hear(item)
        if role == "fixed":
            item.spoken = item.quantity
            if self.rng.random() < 0.25:
                return f"{item.reference.say('the')} {item.fill('num')}"
        if phrase:
            item.plural = item.reference.many
        return item.fill(phrase or "np")

    def _joined(self, say: Callable[[Request], str]) -> str:
        """Join what `say` returns for every item."""
        joined = self.listing.join(self._each(say))
        if self.basket.weights["listing"][self.listing.style]:
            self.basket.note(self.listing.style)
        self.basket.surface = self.listing.surface
        return joined

    def _each(self, say: Callable[[Request], str]) -> list[str]:
        self._hear_all()
        return [say(item) for item in self.basket.items]

    def _hear_all(self) -> None:
        for item in self.basket.items:
            self.basket.hear(item)

    def _named(self, item: Request) -> str:
        if item is self.basket.again and not item.spoken:
            return item.reference.say("another")
        if self.pattern and item.quantity == item.spoken:
            # In dictation, the number of another item would follow a bare product: "milk 2 eggs 3".
            bare = not item.spoken and self.pattern in BEHIND and self.listing.style != "dictation"
            if bare and self.rng.random() < 0.6:
                return item.reference.say("bare")
            n = item.spoken or 1
            if self.pattern == COUNTED:
                return self.pattern.format(name=item.reference.say("bare"), counted=item.counted_unit(item.reference, n))
            item.note("times")
            number = self.basket.say_number(n, item.reference.noun.gender) if self.pattern == SPOKEN else str(n)
            return self.pattern.format(n=number, name=item.reference.say("bare"))
        return item.fill("np")

    def _clause(self) -> str:
        action = self.basket.items[0].action
        return self._items() if action == "add" and self.rng.random() < 0.5 else self.put(f"list_clause_{action}")

    def _items(self) -> str:
        if self.elided:
            return self._joined(lambda item: self._told_apart(item, whole=item is self.basket.items[0]))
        return self._joined(self._named)

    def _refused(self) -> str:
        parts = self.pick(self.templates("list_refuse_item"))
        phrases = self._each(lambda item: expand(parts, self.rng, self.language.rules, item.fill))
        last = self.language.joins["and"][0] if self.rng.random() < 0.3 else ", "
        return f"{', '.join(phrases[:-1])}{last}{phrases[-1]}"

    def _variants(self) -> str:
        return self._joined(self._told_apart)

    def _told_apart(self, item: Request, whole: bool = False) -> str:
        """Say the number and the quality of an item, and the noun if `whole`."""
        noun = self._quality(item, whole)
        return f"{self.basket.say_number(item.quantity, noun.gender)} {noun.counted(item.quantity)}"

    def _shared(self, item: Request, phrase: str) -> str:
        """Say the item's quality, and the noun only with the first item: "fig candles and cedar"."""
        whole = item is self.basket.items[0]
        return self._quality(item, whole).say(phrase if whole else "bare", plural=True)

    def _quality(self, item: Request, whole: bool) -> Noun:
        """Return the quality of an item, with the noun that all items share if `whole`."""
        assert item.product is not None, "an item is told apart by its product's quality"
        words, idea, quality = self.basket.words, item.product.idea, item.product.quality
        wording = int(self.rng.random() * words.wordings(quality))
        return (words.described if whole else words.quality)(idea, self.basket.noun, quality, wording)

    def _detail(self, item: Request) -> Noun | None:
        """Return what distinguishes the item from the one that it replaces, if both are of one kind and that one was said."""
        out, product = self.basket.roles["out"], item.product
        if out not in self.basket.said or not product or not out.product or out.product.idea != product.idea:
            return None
        words, quality = self.basket.words, product.quality
        if quality not in alike(out.product.quality) or not self.basket.is_clear(product) or self.rng.random() < 0.5:
            return None
        wording = int(self.rng.random() * words.wordings(quality))
        # The detail gets an article and stands for one: "swap the blue shirt for the red".
        if out.spoken > 1 or not words.is_adjective(quality, wording):
            return None
        nouns = words.nouns[product.idea]
        which = next((n for n, noun in enumerate(nouns) if noun.gender == out.reference.noun.gender), 0)
        return words.quality(product.idea, which, quality, wording)

    def _number(self, n: int) -> str:
        return self.basket.say_number(n, self.basket.words.genders[0])

    def _total_np(self) -> str:
        noun, total = self.basket.shared, self.basket.total
        return f"{self.basket.say_number(total, noun.gender)} {noun.counted(total)}"

    def _both(self) -> str:
        noun, words = self.basket.shared, self.basket.words
        self._hear_all()
        if "both" in words.phrases:
            return noun.say("both", plural=True)
        return f"{agreeing(words.agree['both'], noun.plural_gender, plural=True)} {noun.counted(2)}"

    def _more(self) -> str:
        return self.basket.say_number(self.basket.more, self.basket.roles["more"].reference.noun.gender)

    def _more_counted(self) -> str:
        return self.basket.roles["more"].reference.counted(self.basket.more)


_SLOTS: Mapping[str, Callable[[Wording], str]] = {
    "items": Wording._items,
    "np": Wording._items,
    "clause": Wording._clause,
    "refused": Wording._refused,
    "variants": Wording._variants,
    "num": lambda wording: wording.basket.items[-1].fill("num"),
    "each": lambda wording: wording._number(wording.basket.items[0].quantity),
    "total": lambda wording: wording._number(wording.basket.total),
    "total_np": Wording._total_np,
    "both": Wording._both,
    "more": Wording._more,
    "more_counted": Wording._more_counted,
}
