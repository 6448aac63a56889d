"""Configure the evaluation."""

from enum import Enum


class GoldHalf(Enum):
    """A half of the gold set, see `gold/README.md`."""

    guide = "guide"
    measure = "measure"
