"""Keep the history of one output's nightly runs, apart from the output: profiles, pages, and labels that no reader may see yet.

    portraits/<date>.json          the profile of every run that was labelled
    <date>.html, index.html         one page per run, and one of all runs
    staged/<date>/<run>/            a run while it is labelled; a quarantined run stays here

A run is accepted if and only if its own output has a manifest. Knows stores and profiles; nothing of Ray or clocks.
"""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

from intent.nightly import pages
from intent.nightly.gate import Profile
from intent.run.ledger import MANIFEST, PLAN
from intent.run.progress import Summary
from intent.storage import Store

# The folder is called as in journals of earlier versions.
PROFILES, STAGED, INDEX = "portraits", "staged", "index.html"
MOST_NIGHTS = 92


@dataclass(frozen=True)
class Journal:
    """`below`: opens the store of a subfolder. `output`: opens the store that a date's readers read."""

    store: Store
    below: Callable[[str], Store]
    output: Callable[[str], Store]

    def staged(self, day: str, run: str) -> Store:
        """Return where the run with this fingerprint labels. Another model or input has another place, so it finds no
        leftovers.
        """
        return self.below(f"{STAGED}/{day}/{run}")

    def begun(self, day: str, accept: bool = False) -> list[Store]:
        """Return where runs of this date were planned. A finished run that was quarantined is left out unless it is to be
        accepted.

        Other variants may have been selected since. A finished run that was not judged yet continues.
        """
        keys, profile = {blob.key for blob in self.store.list(f"{STAGED}/{day}/")}, self.profile(day)
        quarantined = bool(profile and profile.findings)
        runs = sorted(key.removesuffix(f"/{PLAN}") for key in keys if key.endswith(f"/{PLAN}"))
        return [self.below(run) for run in runs if accept or not (quarantined and f"{run}/{MANIFEST}" in keys)]

    def accepted(self, day: str) -> bool:
        return self.output(day).stat(MANIFEST) is not None

    def keep(self, profile: Profile) -> None:
        text = json.dumps(asdict(profile), ensure_ascii=False, indent=1)
        self.store.put(f"{PROFILES}/{profile.night}.json", text.encode())

    def profile(self, day: str) -> Profile | None:
        try:
            fields = json.loads(self.store.read(f"{PROFILES}/{day}.json"))
        except FileNotFoundError:
            return None
        return Profile(**fields | {"summary": Summary(**fields["summary"])})

    def days(self) -> list[str]:
        """Return the dates of all profiles, oldest first."""
        keys = (blob.key for blob in self.store.list(f"{PROFILES}/"))
        return sorted(key.removeprefix(f"{PROFILES}/").removesuffix(".json") for key in keys)

    def last(self, day: str, count: int) -> list[Profile]:
        """Return the `count` last accepted runs before `day`, oldest first."""
        found: list[Profile] = []
        for earlier in reversed([known for known in self.days() if known < day]):
            if len(found) == count:
                break
            if self.accepted(earlier) and (profile := self.profile(earlier)):
                found.insert(0, profile)
        return found

    def clear(self, day: str) -> None:
        """Delete the staged copy of an accepted run: first the manifest, then the parts that it lists."""
        keys = sorted((blob.key for blob in self.store.list(f"{STAGED}/{day}/")), key=lambda key: not key.endswith(MANIFEST))
        manifests = [key for key in keys if key.endswith(MANIFEST)]
        for key in manifests:
            self.store.delete(key)
        with ThreadPoolExecutor(self.store.parallel) as pool:
            list(pool.map(self.store.delete, keys[len(manifests) :]))

    def draw(self, day: str, last: int) -> str:
        """Make the page of the run and the page of all runs from what is stored. Returns the run's URI."""
        days = self.days()[-MOST_NIGHTS:]
        if not days:
            return self.store.uri
        with ThreadPoolExecutor(self.store.parallel) as pool:
            nights = [night for night in pool.map(self.profile, days) if night]
            accepted = {day for day, done in zip(days, pool.map(self.accepted, days), strict=True) if done}
        self.store.put(INDEX, pages.trend_page(nights, accepted).encode())
        if night := self.profile(day):
            self.store.put(f"{day}.html", pages.nightly_run_page(night, self.last(day, last), self.accepted(day)).encode())
        return f"{self.store.uri}/{day}.html"
