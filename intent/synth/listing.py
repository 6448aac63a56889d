"""How the items of a list stand beside each other: in a sentence, as a note with a line each, or as they are dictated.

Knows words and the names on a shelf; knows no intent.
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
    """One shopper's way to list things. `joins`: the language's words between two items.

    `style`: a name of `phenomena.LISTING`; `surface`: the weights of what may disturb the message that holds the list.
    """

    def __init__(self, joins: Mapping[str, Sequence[str]], shelf: Shelf, rng: Random, weights: Mapping[str, Mapping]):
        self.joins, self.shelf, self.rng = joins, shelf, rng
        self.weights: Mapping[str, float] = weights["listing"]
        self.style = shares(tuple(self.weights.items()))(rng)
        self.surface: Mapping[str, float] = weights["surface"]

    @property
    def is_note(self) -> bool:
        """Whether each item has a line of its own."""
        return self.style in NOTES

    def in_a_sentence(self, styles: Sequence[str] = SENTENCES) -> None:
        """Takes one of `styles`, where more is said behind the list than a note has room for."""
        if self.style not in styles:
            weights = tuple((style, self.weights[style]) for style in styles)
            self.style = shares(weights)(self.rng) if any(weight for _, weight in weights) else styles[0]

    def join(self, said: list[str]) -> str:
        """The items one after the other. A line break is a space to a model."""
        if self.style in ("line_breaks", "dictation") and self._run_together(said):
            self.style = "commas"
        return getattr(self, f"_{self.style}")(said)

    def _conjunction(self, said: list[str]) -> str:
        last = self._pick(self.joins["and"])
        if self.rng.random() < 0.15 or len(said) == 1:
            return last.join(said)
        return f"{', '.join(said[:-1])}{last}{said[-1]}"

    def _commas(self, said: list[str]) -> str:
        return self._pick(COMMAS).join(said)

    def _line_breaks(self, said: list[str]) -> str:
        return "\n".join(said)

    def _bullets(self, said: list[str]) -> str:
        if self.rng.random() < 0.25:
            # Without its mark, the number of a line would be a quantity.
            self.surface = {**self.surface, "voice": 0.0, "no_punctuation": 0.0}
            number = self._pick(NUMBERS)
            return "\n".join(number.format(n) + text for n, text in enumerate(said, 1))
        mark = self._pick(MARKS)
        return "\n".join(mark + text for text in said)

    def _dictation(self, said: list[str]) -> str:
        # Speech recognition hears words and no commas.
        self.surface = {**self.surface, "voice": 1.0 if self.surface["voice"] else 0.0}
        between = [self._pick(self.joins["then"]) if self.rng.random() < 0.4 else " " for _ in said[1:]]
        return said[0] + "".join(join + text for join, text in zip(between, said[1:], strict=True))

    def _run_together(self, said: list[str]) -> bool:
        """Whether the end of one item and the beginning of the next could be another product ("milk" "chocolate")."""
        return any(self.shelf.holds(f"{one.split()[-1]} {other.split()[0]}") for one, other in pairwise(said))

    def _pick(self, options: Sequence[str]) -> str:
        return options[int(self.rng.random() * len(options))]
