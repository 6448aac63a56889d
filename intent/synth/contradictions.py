"""Find examples whose labels contradict their messages.

The rules know examples and languages, but not how an example was made. So they check a teacher's examples and generated ones.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import TypedDict, cast

from intent.dataset.deduplicate import normal_form
from intent.dataset.example import Example
from intent.synth.language import load
from intent.synth.phenomena import LISTS
from intent.task.schema import Intent, items_of
from intent.task.text import without_accents

# The rules cannot read such messages reliably.
UNREADABLE = frozenset({"typo", "voice", "code_switching", "number_in_name", "number_beside"})
CORRECTED = frozenset({"correct_product_add", "correct_product_remove", "distractor_add", "distractor_remove", "slip"})
# Lists that name products or numbers that are not in the label.
OTHERS_NAMED = frozenset({"list_correction", "list_aside", "list_unknown", "list_distractor", "slip"})
OTHERS_COUNTED = OTHERS_NAMED | {"list_total", "list_twice", "list_both"}
SMALL_TALK = frozenset({"small_talk_before", "small_talk_after", "rambling"})
LINE_NUMBER = re.compile(r"(?<!\S)([1-9])[.)](?=\s+\S)")
CLOSE_COMMA = re.compile(r"(?<=\D),(?=\S)")
INTEGER = re.compile(r"(?<![\w.,])x?(\d{1,4})(?:x|(?!\w|[.,]\d))")
MEASURE = re.compile(r"(?<![\w.,])\d+(?:[.,x]\d+)*[\s-]?(?:kg|g|mg|ml|cl|l|cm|mm|m|inch|gb|mah|w)\b", re.IGNORECASE)


class CartItem(TypedDict):
    """An item of a cart's intent that names a product."""

    action: str
    product: str
    quantity: int


def contradictions(examples: Iterable[Example], catalogs: Mapping[str, Sequence[str]]) -> Iterator[tuple[Example, str]]:
    """Yield (example, reason) for each contradiction. `catalogs`: product names by catalog id.

    The rules check product and quantity only if the message is clear, and pass an example that they cannot decide. The rules of
    a list's phenomenon ("a swap removes one thing and adds another") look only at the label, and always decide.
    """
    for example in examples:
        items, phenomena = _cart_items(example.intent), frozenset(example.phenomena)
        reasons = [why for name in LISTS if name in phenomena for why in _list_rule(name, items)]
        if items and not UNREADABLE & phenomena:
            rules = _one if len(items) == 1 and not LISTS.keys() & phenomena else _several
            reasons += rules(example, items, catalogs[example.catalog])
        yield from ((example, why) for why in reasons)


def _cart_items(intent: Intent) -> list[CartItem]:
    return [cast(CartItem, item) for item in items_of(intent) if item["product"]]


def _one(example: Example, items: Sequence[CartItem], catalog: Sequence[str]) -> Iterator[str]:
    text = f" {example.message.casefold()} "
    named = _named(text, catalog)
    product, quantity = items[0]["product"], items[0]["quantity"]
    other = next(iter(named)) if len(named) == 1 else product
    if not CORRECTED & set(example.phenomena) and not _words(other) <= _words(product):
        yield f"the message names {other!r}"
    rest = _without(text, [*named, product])
    numbers = _numbers(MEASURE.sub(" ", rest), example.language)
    if numbers and quantity not in numbers and not (quantity == 1 and CORRECTED & set(example.phenomena)):
        yield f"the message says {sorted(numbers)}"
    if not numbers and quantity != 1 and quantity not in _numbers(rest, example.language):
        yield "the message says no number"


def _several(example: Example, items: Sequence[CartItem], catalog: Sequence[str]) -> Iterator[str]:
    """Yield full names and numbers in the message that no item has, and quantities over 1 that the message does not say."""
    text, phenomena = f" {_unnumbered(CLOSE_COMMA.sub(', ', example.message.casefold()))} ", set(example.phenomena)
    products = [item["product"] for item in items]
    named = _named(text, catalog)
    if not OTHERS_NAMED & phenomena:
        others = (name for name in sorted(named) if not any(_words(name) <= _words(product) for product in products))
        yield from (f"the message names {name!r}" for name in others)
    rest = _without(text, [*named, *products])
    numbers, quantities = _numbers(rest, example.language), {item["quantity"] for item in items}
    if "list_twice" not in phenomena and (missing := sorted(quantities - {1} - numbers)):
        yield f"the message does not say {missing}"
    more = _numbers(MEASURE.sub(" ", rest), example.language) - quantities - ({1, 2, 3} if "dozen" in phenomena else {1})
    if more and not (OTHERS_COUNTED | SMALL_TALK) & phenomena:
        yield f"the message says {sorted(more)}"
    if "list_total" in phenomena and (total := sum(item["quantity"] for item in items)) not in numbers:
        yield f"the message does not say {total}, the sum of its items"


def _list_rule(name: str, items: Sequence[CartItem]) -> Iterator[str]:
    """Yield the reasons why `items` cannot be the label of a message with the phenomenon `name`."""
    actions, quantities = [item["action"] for item in items], {item["quantity"] for item in items}
    if len({(item["action"], item["product"]) for item in items}) < len(items):
        yield "an item is there twice"
    if name == "list_swap" and sorted(actions) != ["add", "remove"]:
        yield "a swap removes one thing and adds another"
    if name == "list_mixed" and len(set(actions)) < 2:
        yield "the message adds and removes, its label does not"
    if name not in ("list_swap", "list_mixed") and len(set(actions)) > 1:
        yield "one action is shared, its label has two"
    if name in ("list_remove", "list_refusal") and "add" in actions:
        yield "nothing is added"
    if name in ("list", "list_need", "list_total", "list_twice", "list_aside") and "remove" in actions:
        yield "nothing is removed"
    if name == "list_each" and len(quantities) > 1:
        yield "all items have one quantity"
    if name in ("list_refusal", "list_need", "list_both") and quantities != {1}:
        yield "no quantity is said"
    if name == "list_twice" and quantities == {1}:
        yield "the quantity of a product that is requested twice is summed"
    if len(items) < (1 if name in ("list_unknown", "list_correction") else 2):
        yield "a list has several items"


def _unnumbered(text: str) -> str:
    """Remove the line numbers of a list ("1. milk 2. eggs"), because they are not quantities."""
    marks = [int(number) for number in LINE_NUMBER.findall(text)]
    return LINE_NUMBER.sub(" ", text) if len(marks) > 1 and marks == list(range(1, len(marks) + 1)) else text


def _words(name: str) -> set[str]:
    return set(normal_form(name).split())


def _named(text: str, catalog: Sequence[str]) -> set[str]:
    """Return the catalog's full names in the text. A name inside a longer one does not count."""
    names: set[str] = set()
    for name in sorted(catalog, key=len, reverse=True):
        pattern = _whole(name)
        if pattern.search(text):
            names.add(name)
            text = pattern.sub(" ", text)
    return names


@cache
def _whole(name: str) -> re.Pattern:
    return re.compile(rf"(?<!\w){re.escape(name.casefold())}(?!\w)")


def _spelled(words: Mapping[str, Mapping[int, str]]) -> Iterator[tuple[str, int]]:
    return ((word, n) for by_number in words.values() for n, word in by_number.items() if n > 1)


def _without(text: str, names: Sequence[str]) -> str:
    for name in sorted(names, key=len, reverse=True):
        text = _whole(name).sub(" ", text)
    return text


def _numbers(text: str, language: str) -> set[int]:
    """Return the numbers in the text, in digits or words. A word for one does not count, since it may be an article."""
    pattern, values = _number_words(language)
    words = {values[match.group(1)] for match in pattern.finditer(without_accents(text).casefold())}
    return {int(digits) for digits in INTEGER.findall(text)} | words


@cache
def _number_words(code: str) -> tuple[re.Pattern, dict[str, int]]:
    numbers = load(code).numbers
    values = {without_accents(word).casefold(): n for words in (numbers.words, numbers.apart) for word, n in _spelled(words)}
    for table in (numbers.dozens, numbers.pairs):
        values.update({without_accents(phrase).casefold(): n for n, phrases in table.items() for phrase in phrases})
    for words in (numbers.words, numbers.apart):
        values.update({without_accents(word, digraphs=True).casefold(): n for word, n in _spelled(words)})
    longest_first = sorted(values, key=len, reverse=True)
    return re.compile(rf"(?<!\w)({'|'.join(map(re.escape, longest_first))})(?!\w)"), values
