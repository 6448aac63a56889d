"""Keep the history of an output's nightly runs, apart from the output: profiles, pages, and labels that are not published.

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

# Earlier versions named the folder of profiles "portraits", and their journals must stay readable.
PROFILES, STAGED, INDEX = "portraits", "staged", "index.html"
MOST_RUNS = 92


@dataclass(frozen=True)
class Journal:
    """The journal in `store`. `below`: opens a subfolder of it. `output`: opens the store that readers of a date use."""

    store: Store
    below: Callable[[str], Store]
    output: Callable[[str], Store]

    def staged(self, day: str, run: str) -> Store:
        """Return the store into which a run labels. `run`: its fingerprint, so that each model and input gets
        its own folder.
        """
        return self.below(f"{STAGED}/{day}/{run}")

    def begun(self, day: str, accept: bool = False) -> list[Store]:
        """Return the stores of this date's planned runs, so that a run can continue with their models and table version.

        Leaves out a quarantined run unless `accept` is set, because better variants may have been selected since.
        """
        keys, profile = {blob.key for blob in self.store.list(f"{STAGED}/{day}/")}, self.profile(day)
        quarantined = bool(profile and profile.findings)
        runs = sorted(key.removesuffix(f"/{PLAN}") for key in keys if key.endswith(f"/{PLAN}"))
        return [self.below(run) for run in runs if accept or not (quarantined and f"{run}/{MANIFEST}" in keys)]

    def accepted(self, day: str) -> bool:
        """Return whether the run of this date is published."""
        return self.output(day).stat(MANIFEST) is not None

    def keep(self, profile: Profile) -> None:
        """Store a run's profile."""
        text = json.dumps(asdict(profile), ensure_ascii=False, indent=1)
        self.store.put(f"{PROFILES}/{profile.night}.json", text.encode())

    def profile(self, day: str) -> Profile | None:
        """Return the profile of this date's run, or None."""
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
        """Return the profiles of the `count` last accepted runs before `day`, oldest first."""
        profiles: list[Profile] = []
        for earlier in reversed([other for other in self.days() if other < day]):
            if len(profiles) == count:
                break
            if self.accepted(earlier) and (profile := self.profile(earlier)):
                profiles.insert(0, profile)
        return profiles

    def clear(self, day: str) -> None:
        """Delete the staged copy of an accepted run. The manifest goes first, so that no reader takes the
        rest for a whole run.
        """
        keys = sorted((blob.key for blob in self.store.list(f"{STAGED}/{day}/")), key=lambda key: not key.endswith(MANIFEST))
        manifests = [key for key in keys if key.endswith(MANIFEST)]
        for key in manifests:
            self.store.delete(key)
        with ThreadPoolExecutor(self.store.parallel) as pool:
            list(pool.map(self.store.delete, keys[len(manifests) :]))

    def draw(self, day: str, last: int) -> str:
        """Write the page of this date's run and the page of all runs, from their profiles. Returns the URI of
        the run's page.
        """
        days = self.days()[-MOST_RUNS:]
        if not days:
            return self.store.uri
        with ThreadPoolExecutor(self.store.parallel) as pool:
            profiles = [profile for profile in pool.map(self.profile, days) if profile]
            accepted = {day for day, done in zip(days, pool.map(self.accepted, days), strict=True) if done}
        self.store.put(INDEX, pages.trend_page(profiles, accepted).encode())
        if profile := self.profile(day):
            self.store.put(f"{day}.html", pages.nightly_run_page(profile, self.last(day, last), self.accepted(day)).encode())
        return f"{self.store.uri}/{day}.html"
