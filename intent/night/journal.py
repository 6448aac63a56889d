"""What is kept of the nights of one output, apart from it: portraits, pages, and labels that no reader may see yet.

    portraits/<date>.json           of every night that was labelled
    <date>.html, index.html         a page a night, and the run of nights
    staged/<date>/<run>/            a night while it is labelled; a quarantined one stays

A night is accepted if and only if its own output has a manifest. Knows stores and portraits; nothing of Ray or clocks.
"""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

from intent.night import page
from intent.night.gate import Portrait
from intent.night.ledger import MANIFEST, PLAN
from intent.night.progress import Summary
from intent.storage import Store

PORTRAITS, STAGED, INDEX = "portraits", "staged", "index.html"
MOST_NIGHTS = 92


@dataclass(frozen=True)
class Journal:
    """`below`: the store of a folder of this one. `output`: the store that a date's readers read."""

    store: Store
    below: Callable[[str], Store]
    output: Callable[[str], Store]

    def staged(self, day: str, run: str) -> Store:
        """Where the run with this fingerprint labels: another model or input never meets what an earlier one left."""
        return self.below(f"{STAGED}/{day}/{run}")

    def begun(self, day: str, accept: bool = False) -> list[Store]:
        """Where runs have been planned for this date; of a quarantined night not the finished ones, but to `accept` one.

        Other variants may have been selected since. What is finished and was not judged yet goes on.
        """
        keys, portrait = {blob.key for blob in self.store.list(f"{STAGED}/{day}/")}, self.portrait(day)
        quarantined = bool(portrait and portrait.findings)
        runs = sorted(key.removesuffix(f"/{PLAN}") for key in keys if key.endswith(f"/{PLAN}"))
        return [self.below(run) for run in runs if accept or not (quarantined and f"{run}/{MANIFEST}" in keys)]

    def accepted(self, day: str) -> bool:
        return self.output(day).stat(MANIFEST) is not None

    def keep(self, portrait: Portrait) -> None:
        text = json.dumps(asdict(portrait), ensure_ascii=False, indent=1)
        self.store.put(f"{PORTRAITS}/{portrait.night}.json", text.encode())

    def portrait(self, day: str) -> Portrait | None:
        try:
            fields = json.loads(self.store.read(f"{PORTRAITS}/{day}.json"))
        except FileNotFoundError:
            return None
        return Portrait(**fields | {"summary": Summary(**fields["summary"])})

    def days(self) -> list[str]:
        """The dates of all portraits, oldest first."""
        keys = (blob.key for blob in self.store.list(f"{PORTRAITS}/"))
        return sorted(key.removeprefix(f"{PORTRAITS}/").removesuffix(".json") for key in keys)

    def last(self, day: str, count: int) -> list[Portrait]:
        """Of the accepted nights before `day`, the `count` last, oldest first."""
        found: list[Portrait] = []
        for earlier in reversed([known for known in self.days() if known < day]):
            if len(found) == count:
                break
            if self.accepted(earlier) and (portrait := self.portrait(earlier)):
                found.insert(0, portrait)
        return found

    def clear(self, day: str) -> None:
        """Delete what is staged of an accepted night. A manifest goes before the parts that it lists."""
        keys = sorted((blob.key for blob in self.store.list(f"{STAGED}/{day}/")), key=lambda key: not key.endswith(MANIFEST))
        manifests = [key for key in keys if key.endswith(MANIFEST)]
        for key in manifests:
            self.store.delete(key)
        with ThreadPoolExecutor(self.store.parallel) as pool:
            list(pool.map(self.store.delete, keys[len(manifests) :]))

    def draw(self, day: str, last: int) -> str:
        """Make the page of the night, and that of all nights, from what is kept. Returns the night's URI."""
        days = self.days()[-MOST_NIGHTS:]
        if not days:
            return self.store.uri
        with ThreadPoolExecutor(self.store.parallel) as pool:
            nights = [night for night in pool.map(self.portrait, days) if night]
            accepted = {day for day, done in zip(days, pool.map(self.accepted, days), strict=True) if done}
        self.store.put(INDEX, page.trend_page(nights, accepted).encode())
        if night := self.portrait(day):
            self.store.put(f"{day}.html", page.night_page(night, self.last(day, last), self.accepted(day)).encode())
        return f"{self.store.uri}/{day}.html"
