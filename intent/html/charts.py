"""Map values to the pixels of a chart. A template draws the chart."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

# An axis is logarithmic if the ratio of its highest and lowest value is over this.
LOG_FROM = 5.0


@dataclass(frozen=True)
class Frame:
    """A picture of `width` x `height` pixels, and the edges of the plot in it."""

    width: int
    height: int
    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True)
class Scale:
    """Map the values from `low` to `high` to the pixels from `start` to `end`. `log`: by their logarithms."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    @classmethod
    def around(cls, values: Sequence[float], start: float, end: float) -> "Scale":
        """Return a scale with a margin on both sides of `values`. It is logarithmic if their ratio is over LOG_FROM."""
        low, high = min(values), max(values)
        if low > 0 and high / low > LOG_FROM:
            margin = (high / low) ** 0.08
            return cls(low / margin, high * margin, start, end, log=True)
        margin = 0.08 * ((high - low) or abs(high) or 1.0)
        return cls(low - margin, high + margin, start, end)

    def at(self, value: float) -> float:
        """Return the position of `value` in pixels, rounded to a tenth."""
        value, low, high = map(math.log10 if self.log else float, (value, self.low, self.high))
        return round(self.start + (value - low) / (high - low) * (self.end - self.start), 1)

    def ticks(self, about: int) -> list[float]:
        """Return the round values on the scale for an axis.

        A linear scale has about `about` of them. A logarithmic one has 1, 2 and 5 times each power of ten.
        """
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            return [d * 10.0**power for power in powers for d in (1, 2, 5) if self.low <= d * 10.0**power <= self.high]
        step = 10 ** math.floor(math.log10((self.high - self.low) / about))
        step *= next(factor for factor in (1, 2, 5, 10) if (self.high - self.low) / (step * factor) <= about)
        return [n * step for n in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]
