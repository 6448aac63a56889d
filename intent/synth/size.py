"""Write sizes as a shop prints them in a product's name, and as a shopper says them.

Ideas have their sizes in one notation: "500g", "6x330ml", "20x30cm", "6 pack", "100 pieces", "EU 43", "SPF 30", "SIZE 4", "XL".
"""

import re
from collections.abc import Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from intent.synth.language import Language

AMOUNT = re.compile(r"(?P<digits>\d[\d.,]*(?:x\d[\d.,]*)*)(?P<unit>.*)")
NAMED = re.compile(r"(EU|SPF|SIZE|NO|GRIT) (\d+)")
IN_WORDS = 0.15  # the chance that a shopper says the number of a size in words: "factor fifty"
# How shops print sizes, the frequent ways repeated. "plain" is the notation of the ideas.
STYLES = ("plain", "plain", "plain", "spaced", "spaced", "local", "local", "brackets")


def pick(rng: Random, options: Sequence):
    """Return one of `options`. It takes a third of the time of `rng.choice`, which matters since a catalog needs hundreds."""
    return options[int(rng.random() * len(options))]


def printed(size: str, style: str, local: Mapping, way: int) -> str:
    """Return a size as a shop prints it: "6 x 33 cl", "(500 g)", "6er-Pack".

    `style`: one of STYLES. `local`: the contents of the language file. `way`: the number of the shop's way to print
    packs, pieces and named sizes.
    """
    labels, named, amount = local["size_labels"], NAMED.fullmatch(size), AMOUNT.fullmatch(size)
    if named and named[1] in labels:
        return _label(labels[named[1]], way, named[2])
    digits, unit = (amount["digits"], amount["unit"].strip()) if amount else ("", "")
    if unit in labels:
        return _label(labels[unit], way, digits)
    if not amount or style == "plain":
        return size
    if unit == "pack":
        return _label(local["pack_names"], way, digits)
    if style == "local":
        digits, unit = _centilitres(digits, unit)
        digits = digits if local["code"] == "en" else digits.replace(".", ",")
        unit = unit.lower() if unit == "L" else unit
    text = f"{digits.replace('x', ' x ')} {unit}"
    return f"({text})" if style == "brackets" else text


def _label(ways: Sequence[str], way: int, number: str) -> str:
    return ways[way % len(ways)].format(n=number)


def _centilitres(digits: str, unit: str) -> tuple[str, str]:
    """Convert full tens of milliliters to centiliters, as drinks are labeled: 330 ml becomes "33 cl"."""
    *count, amount = digits.split("x")
    if unit == "ml" and amount.endswith("0") and len(amount) == 3:
        return "x".join([*count, amount[:-1]]), "cl"
    return digits, unit


def said(size: str, language: "Language", rng: Random) -> str:
    """Return a size in a shopper's words ("2 litre", "factor fifty", "in 43"), or often in the notation of the ideas."""
    local, amount = language.raw, AMOUNT.fullmatch(size)
    if not amount:
        named = NAMED.fullmatch(size)
        kind, n = named.groups() if named else ("letter", size)
        if kind not in local["size_labels"] and rng.random() >= 0.6:
            return size
        return pick(rng, local["size_names"][kind]).format(n=_in_words(n, language, rng))
    digits, unit = amount["digits"], amount["unit"].strip()
    spoken = local["size_words"].get(unit)
    if not spoken or (unit not in local["size_labels"] and rng.random() >= 0.4):
        return size
    if unit == "pack" and rng.random() < 0.5:
        return pick(rng, local["pack_names"]).format(n=digits).strip("()")
    one, _, more = pick(rng, spoken).partition("/")
    return f"{digits} {one if digits == '1' or not more else more}"


def _in_words(number: str, language: "Language", rng: Random) -> str:
    if not number.isdigit() or not 2 <= int(number) <= 99 or rng.random() >= IN_WORDS:
        return number
    return language.numbers.words[language.genders[0]][int(number)]
