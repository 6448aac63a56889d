"""Configure the evaluation."""

from enum import Enum


class GoldPart(Enum):
    """A part of the gold set, see `gold/README.md`."""

    guide = "guide"
    measure = "measure"
    practice = "practice"
