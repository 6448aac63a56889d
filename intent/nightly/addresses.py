"""Fill the placeholders of a nightly run's addresses: the date and, in the input, the hours.

    s3://shop/log/dt={date}                              {date} is 2026-11-23
    s3://shop/log/{year}/{month}/{day}/{hour}            the folders of Amazon Data Firehose: all 24 hours of the date
    s3://shop/log/year={year}/month={month:d}            :d without leading zeros
    s3://shop/log/dt={date+1d}, .../{day-2h}/{hour-2h}   days or hours later or earlier, the same in the whole address

Pure.
"""

import re
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import cached_property

from intent.errors import ConfigError

FORMATS = {"date": "{:%Y-%m-%d}", "year": "{:%Y}", "month": "{:%m}", "day": "{:%d}", "hour": "{:%H}"}
OFFSET, PLAIN = r"(?P<offset>[+-]\d+[dh])?", r"(?P<plain>:d)?"
HOLE = re.compile(rf"\{{(?P<name>{'|'.join(FORMATS)}){OFFSET}{PLAIN}\}}")
ANY_HOLE = re.compile(r"\{[^{}]*\}?")
HOURS = 24


@dataclass(frozen=True)
class DatedAddress:
    """An address with placeholders, from the setting `field`. Raises ConfigError unless each date has an address of its own."""

    field: str
    address: str

    def __post_init__(self):
        names, offsets = {hole["name"] for hole in self._holes}, {hole["offset"] for hole in self._holes}
        unknown = [match[0] for match in ANY_HOLE.finditer(self.address) if not HOLE.fullmatch(match[0])]
        if unknown or any(hole["plain"] and hole["name"] == "date" for hole in self._holes):
            self._refuse(f"{(unknown or ['{date:d}'])[0]} is none of {{{'}, {'.join(FORMATS)}}}, as {{day+1d}} or {{month:d}}")
        if "date" not in names and not {"year", "month", "day"} <= names:
            self._refuse("must hold {date}, or {year}, {month} and {day}, so that each nightly run has its own address")
        if len(offsets) > 1:
            self._refuse("has placeholders with different offsets; use one offset for all, such as {day-2h} and {hour-2h}")
        if "hour" not in names and any(offset and offset.endswith("h") for offset in offsets):
            self._refuse("has an offset in hours without {hour}; use days, such as {date-1d}, or add {hour}")

    @property
    def stem(self) -> str:
        """Return the folder that contains the addresses of all dates."""
        return self.address.partition("{")[0].rpartition("/")[0]

    @property
    def has_hours(self) -> bool:
        """Return whether the address has the placeholder {hour}."""
        return any(hole["name"] == "hour" for hole in self._holes)

    def of(self, day: date) -> list[str]:
        """Return the addresses for a date: one, or one for each hour."""
        start = datetime.combine(day, time())
        return [self._at(start + timedelta(hours=hour)) for hour in range(HOURS if self.has_hours else 1)]

    @cached_property
    def _holes(self) -> list[re.Match]:
        return list(HOLE.finditer(self.address))

    def _at(self, moment: datetime) -> str:
        def fill(hole: re.Match) -> str:
            count, unit = (hole["offset"] or "+0d")[:-1], (hole["offset"] or "+0d")[-1]
            moved = moment + timedelta(**{"d": {"days": int(count)}, "h": {"hours": int(count)}}[unit])
            text = FORMATS[hole["name"]].format(moved)
            return str(int(text)) if hole["plain"] else text

        return HOLE.sub(fill, self.address)

    def _refuse(self, remedy: str) -> None:
        raise ConfigError(self.field, self.address, remedy)


def output_address(address: str) -> DatedAddress:
    """Return an output's address with placeholders. Raises ConfigError if a date would have several addresses."""
    output = DatedAddress("output", address)
    if output.has_hours:
        raise ConfigError("output", address, "has {hour}, but a nightly run has one output; leave {hour} out")
    return output
