"""Write sizes as a shop prints them in a product's name, and as a shopper says them.

Ideas have their sizes in one notation: "500g", "6x330ml", "20x30cm", "6 pack", "EU 43", "SPF 30", "XL".
"""

import re
from collections.abc import Mapping, Sequence
from random import Random

AMOUNT = re.compile(r"(?P<digits>\d[\d.,]*(?:x\d[\d.,]*)*)(?P<unit>.*)")
NAMED = re.compile(r"(EU|SPF) (\d+)")
# How shops print sizes, the frequent ways repeated. "plain" is the notation of the ideas.
STYLES = ("plain", "plain", "plain", "spaced", "spaced", "local", "local", "brackets")


def pick(rng: Random, options: Sequence):
    """Return one of `options`. It takes a third of the time of `rng.choice`, which matters since a catalog needs hundreds."""
    return options[int(rng.random() * len(options))]


def printed(size: str, style: str, local: Mapping, pack: int) -> str:
    """Return a size as a shop prints it: "6 x 33 cl", "(500 g)", "6er-Pack".

    `style`: one of STYLES. `local`: the contents of the language file. `pack`: the number of the shop's way to print packs.
    """
    amount = AMOUNT.fullmatch(size)
    if not amount or style == "plain":
        return size
    digits, unit = amount["digits"], amount["unit"].strip()
    if unit == "pack":
        names = local["pack_names"]
        return names[pack % len(names)].format(n=digits)
    if style == "local":
        digits, unit = _centilitres(digits, unit)
        digits = digits if local["code"] == "en" else digits.replace(".", ",")
        unit = unit.lower() if unit == "L" else unit
    text = f"{digits.replace('x', ' x ')} {unit}"
    return f"({text})" if style == "brackets" else text


def _centilitres(digits: str, unit: str) -> tuple[str, str]:
    """Convert full tens of milliliters to centiliters, as drinks are labeled: 330 ml becomes "33 cl"."""
    *count, amount = digits.split("x")
    if unit == "ml" and amount.endswith("0") and len(amount) == 3:
        return "x".join([*count, amount[:-1]]), "cl"
    return digits, unit


def said(size: str, local: Mapping, rng: Random) -> str:
    """Return a size in a shopper's words ("2 litre", "factor 50", "in 43"), or often in the notation of the ideas."""
    amount = AMOUNT.fullmatch(size)
    if not amount:
        named = NAMED.fullmatch(size)
        kind, n = named.groups() if named else ("letter", size)
        return pick(rng, local["size_names"][kind]).format(n=n) if rng.random() < 0.6 else size
    digits, unit = amount["digits"], amount["unit"].strip()
    spoken = local["size_words"].get(unit)
    if not spoken or rng.random() >= 0.4:
        return size
    if unit == "pack" and rng.random() < 0.5:
        return pick(rng, local["pack_names"]).format(n=digits).strip("()")
    one, _, more = pick(rng, spoken).partition("/")
    return f"{digits} {one if digits == '1' or not more else more}"
