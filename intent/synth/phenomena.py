"""Name the phenomena that make messages differ, with the weight of each in a corpus.

Weight 0 switches a phenomenon off. The weights in SURFACE and LIST_SURFACE, and `no_quantity`, are the chance that a message
has the phenomenon. The other weights are relative shares of their table.
"""

from bisect import bisect
from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import accumulate
from random import Random
from typing import Any

from intent.errors import ConfigError

# Scenario -> (action, template groups, weight). A group that is listed twice is drawn twice as often.
SCENARIOS: dict[str, tuple[str, tuple[str, ...], float]] = {
    "add": ("add", ("add", "add", "add", "add", "add", "add_one"), 21),
    "terse": ("add", ("terse",), 4.5),
    "indirect": ("add", ("indirect",), 7.5),
    "worn_out": ("add", ("worn_out",), 2),
    "occasion": ("add", ("occasion",), 3.5),
    "limit": ("add", ("limit",), 2.5),
    "remove": ("remove", ("remove", "remove", "remove", "remove_stated"), 17),
    "remove_colloquial": ("remove", ("remove_one",), 6),
    "negation": ("remove", ("no_more",), 3),
    "correct_quantity_add": ("add", ("fix_add",), 3),
    "correct_quantity_remove": ("remove", ("fix_remove",), 1.5),
    "correct_product_add": ("add", ("fix_product_add",), 2.5),
    "correct_product_remove": ("remove", ("fix_product_remove",), 1),
    "distractor_add": ("add", ("distract_add",), 1.5),
    "distractor_remove": ("remove", ("distract_remove",), 1),
    "not_in_catalog": ("none", ("add", "add", "add", "add_one", "terse", "indirect", "occasion", "remove", "remove_one"), 8.5),
    "ambiguous": ("none", ("add", "add", "terse", "indirect", "occasion", "remove", "remove_one"), 4),
    "several_products": ("none", ("several",), 3.5),
    "question": ("none", ("question",), 3.5),
    "past_event": ("none", ("past",), 2.5),
    "statement": ("none", ("statement",), 2),
    "cancelled": ("none", ("cancelled",), 1),
    "keep": ("none", ("keep",), 0.8),
    "quantity_out_of_range": ("none", ("add", "remove"), 1.2),
    "no_product": ("none", ("no_product",), 1.5),
    "injection": ("none", ("injection",), 1.8),
    "other_request": ("none", ("other_request",), 2.5),
    "small_talk": ("none", ("small_talk",), 2),
    "gibberish": ("none", (), 0.4),
}
# Scenario of a schema that repeats -> (template groups, weight). 30 % of its messages that change the cart are lists.
LISTS: dict[str, tuple[tuple[str, ...], float]] = {
    "list": (("list_note",), 8.2),
    "list_remove": (("list_remove_note",), 3.2),
    "list_need": (("list_need",), 1.8),
    "list_mixed": (("list_clause_add", "list_clause_remove"), 3.4),
    "list_distractor": (("list_keep", "list_have"), 1.4),
    "list_correction": (("list_fix_last", "list_fix_named", "list_fix_drop", "list_fix_product"), 3.6),
    "list_swap": (("list_swap",), 2.2),
    "list_each": (("list_each_add", "list_each_add", "list_each_remove"), 1.8),
    "list_refusal": (("list_refuse",), 1.6),
    "list_unknown": (("list_note",), 2),
    "list_aside": (("list_note",), 1.4),
    "list_total": (("list_total", "list_variants"), 1.6),
    "list_both": (("list_both_add", "list_both_remove", "list_both_remove"), 1.2),
    "list_twice": (("list_more",), 1.2),
}
# A schema that repeats can label several products, so they do not mean `none` there.
ONE_ONLY = frozenset({"several_products"})
# The styles of a list, see `synth.listing`.
LISTING = {"conjunction": 0.4, "commas": 0.2, "line_breaks": 0.14, "bullets": 0.12, "dictation": 0.14}
QUANTITY = {"no_quantity": 0.42, "digit": 0.2, "number_word": 0.2, "unit": 0.16, "times": 0.06, "dozen": 0.25, "pair": 0.12}
REFERENCE = {"full_name": 0.09, "name_part": 0.13, "noun": 0.44, "kind_of": 0.18, "brand": 0.08, "size": 0.08, "unneeded": 0.05}
SURFACE = {
    "small_talk_before": 0.17,
    "small_talk_after": 0.13,
    "rambling": 0.07,
    "typo": 0.13,
    "no_diacritics": 0.15,
    "casing": 0.33,
    "no_punctuation": 0.08,
    "emoji": 0.05,
    "voice": 0.09,
    "code_switching": 0.03,
    "slip": 0.05,
    "number_apart": 0.2,
}
LIST_SURFACE = {"that_is_all": 0.1, "elided_noun": 0.1}


@lru_cache(maxsize=1_000)
def shares(weights: tuple[tuple[Any, float], ...]) -> Callable[[Random], Any]:
    """Return a function that draws a name or number by its weight, like `Random.choices`, but sums the weights only once."""
    names, cumulative = [name for name, _ in weights], list(accumulate(weight for _, weight in weights))
    total, last = cumulative[-1] + 0.0, len(names) - 1
    return lambda rng: names[bisect(cumulative, rng.random() * total, 0, last)]


def mix(weights: Mapping[str, float], lists: bool = False) -> dict[str, dict[str, float]]:
    """Return the tables with `weights` instead of the defaults. `lists`: include the tables of lists.

    Raises ConfigError for a name that no table has, a negative weight, or a table without a weight above 0.
    """
    tables = {
        "scenario": {name: weight for name, (_, _, weight) in SCENARIOS.items()},
        "quantity": dict(QUANTITY),
        "reference": dict(REFERENCE),
        "surface": dict(SURFACE),
    }
    if lists:
        single = {name: weight for name, weight in tables["scenario"].items() if name not in ONE_ONLY}
        tables["scenario"] = single | {name: weight for name, (_, weight) in LISTS.items()}
        tables |= {"listing": dict(LISTING), "surface": SURFACE | LIST_SURFACE}
    known = {name: table for table in tables.values() for name in table}
    for name, weight in weights.items():
        if name not in known:
            raise ConfigError("data.phenomena", name, f"use names out of {sorted(known)}")
        if weight < 0:
            raise ConfigError(f"data.phenomena.{name}", weight, "use 0 (never) or more")
        known[name][name] = float(weight)
    if not any(tables["scenario"].values()):
        raise ConfigError("data.phenomena", dict(weights), "leave at least one scenario above 0")
    if lists and not any(tables["listing"].values()):
        raise ConfigError("data.phenomena", dict(weights), f"leave at least one of {list(LISTING)} above 0")
    return tables
