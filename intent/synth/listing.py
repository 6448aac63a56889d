"""Join the items of a list: in a sentence, as a note with a line per item, or as dictation.

This module knows words and the names on a shelf. It knows no intent.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from random import Random

from intent.synth.phenomena import shares
from intent.synth.shelf import Shelf

NOTES = ("line_breaks", "bullets")
SENTENCES = ("conjunction", "commas", "dictation")
COMMAS = (", ", ", ", ", ", ",", "; ", " / ", " + ")
MARKS = ("- ", "* ", "• ", "– ", "-", "+ ", "> ", "[ ] ")
NUMBERS = ("{}. ", "{}) ")


class Listing:
    """One shopper's way to list products. `joins`: the language's words between two items. `weights`: from `phenomena.mix`.

    The attribute `style` is a name in `phenomena.LISTING`. `surface` has the weights of the noise for the message, which depend
    on the style.
    """

    def __init__(self, joins: Mapping[str, Sequence[str]], shelf: Shelf, rng: Random, weights: Mapping[str, Mapping]):
        self.joins, self.shelf, self.rng = joins, shelf, rng
        self.weights: Mapping[str, float] = weights["listing"]
        self.style = shares(tuple(self.weights.items()))(rng)
        self.surface: Mapping[str, float] = weights["surface"]

    @property
    def is_note(self) -> bool:
        """Return whether each item has its own line."""
        return self.style in NOTES

    def in_a_sentence(self, styles: Sequence[str] = SENTENCES) -> None:
        """Change to one of `styles`, because the message goes on behind the list and a note cannot."""
        if self.style not in styles:
            weights = tuple((style, self.weights[style]) for style in styles)
            self.style = shares(weights)(self.rng) if any(weight for _, weight in weights) else styles[0]

    def join(self, items: list[str]) -> str:
        """Join the items in the listing's style.

        Dictated items get commas if two of them side by side would name another product.
        """
        if self.style == "dictation" and self._run_together(items):
            self.style = "commas"
        return getattr(self, f"_{self.style}")(items)

    def _conjunction(self, items: list[str]) -> str:
        last = self._pick(self.joins["and"])
        if self.rng.random() < 0.15 or len(items) == 1:
            return last.join(items)
        return f"{', '.join(items[:-1])}{last}{items[-1]}"

    def _commas(self, items: list[str]) -> str:
        return self._pick(COMMAS).join(items)

    def _line_breaks(self, lines: list[str]) -> str:
        """Join the lines, usually below the text before them, and turn off voice: nobody dictates line breaks."""
        self.surface = {**self.surface, "voice": 0.0}
        return ("\n" if self.rng.random() < 0.7 else "") + "\n".join(lines)

    def _bullets(self, items: list[str]) -> str:
        if self.rng.random() < 0.25:
            # Without its period or bracket, a line's number would look like a quantity.
            self.surface = {**self.surface, "no_punctuation": 0.0}
            number = self._pick(NUMBERS)
            return self._line_breaks([number.format(n) + text for n, text in enumerate(items, 1)])
        mark = self._pick(MARKS)
        return self._line_breaks([mark + text for text in items])

    def _dictation(self, items: list[str]) -> str:
        # Speech recognition writes no commas.
        self.surface = {**self.surface, "voice": 1.0 if self.surface["voice"] else 0.0}
        between = [self._pick(self.joins["then"]) if self.rng.random() < 0.4 else " " for _ in items[1:]]
        return items[0] + "".join(join + text for join, text in zip(between, items[1:], strict=True))

    def _run_together(self, items: list[str]) -> bool:
        """Return whether one item's last word and the next one's first name another product ("milk" "chocolate")."""
        return any(self.shelf.holds(f"{one.split()[-1]} {other.split()[0]}") for one, other in pairwise(items))

    def _pick(self, options: Sequence[str]) -> str:
        return options[int(self.rng.random() * len(options))]
