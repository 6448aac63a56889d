"""Name what can be evaluated."""

from enum import Enum


class GoldHalf(Enum):
    guide = "guide"
    measure = "measure"
