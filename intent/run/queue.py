"""Decide which shard an actor gets next: a retry, a fresh shard or, near the end, a speculative copy.

Pure state without a clock or Ray, so that every decision can be tested and simulated.
"""

from collections import defaultdict, deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from intent.run.shard import Shard

Actor = Hashable
MAX_FREE_RETRIES = 10
# An actor hangs if it has finished no shard for longer than each of these: half an hour, the time at one row per second, and 20
# times its usual time. Every engine that was measured is faster than one row per second.
HANGING_SECONDS, HANGING_SECONDS_PER_ROW, HANGING_PACES = 30 * 60, 1.0, 20


@dataclass
class _Flight:
    """A shard in progress. `holders`: when each actor took it. `alone`: it is a retry, so its actor holds no other shard."""

    holders: dict[Actor, float]
    alone: bool = False


@dataclass(eq=False)
class Queue:
    """Track shards that wait, are in progress, are done, and have failed.

    An attempt fails when the shard fails or its actor dies. A shard that failed `attempts` times is given up. A retry runs
    alone on its actor, if possible on another actor than before. So a shard that kills its actors is told apart from a shard
    that only shared an actor with it, and from a broken actor. `final`: the number of shards that failed in a way that a retry
    cannot help.
    """

    shards: Sequence[Shard]
    attempts: int
    failed: dict[Shard, str] = field(default_factory=dict)
    final: int = 0
    retries: int = 0

    def __post_init__(self):
        self._runs: dict[Hashable, deque[Shard]] = {}
        for shard in self.shards:
            self._runs.setdefault((shard.blob.key, shard.run), deque()).append(shard)
        self._fresh = deque(self._runs)
        self.waiting = len(self.shards)
        self._own: dict[Actor, Hashable] = {}
        self._to_retry: deque[Shard] = deque()
        self._flights: dict[Shard, _Flight] = {}
        self._tries: dict[Shard, list[Actor]] = defaultdict(list)
        self._free_retries: dict[Shard, int] = defaultdict(int)
        self._present: set[Actor] = set()
        self._held: dict[Actor, list[Shard]] = {}
        self._open: set[Shard] = set(self.shards)
        # Seconds per row of each actor, and when its last shard was done. An actor computes one shard at a time.
        self._pace: dict[Actor, float] = {}
        self._last: dict[Actor, float] = {}

    @property
    def open(self) -> bool:
        """Return whether any shard is neither done nor failed."""
        return bool(self._open)

    @property
    def remaining(self) -> int:
        """Return how many shards are neither done nor failed."""
        return len(self._open)

    def assigned(self, actor: Actor) -> list[Shard]:
        """Return the shards that are assigned to `actor`, in the order in which it took them."""
        return list(self._held.get(actor, ()))

    def take(self, actor: Actor, now: float) -> Shard | None:
        """Give `actor` a shard at the time `now`, in seconds. Returns None if there is nothing for it.

        In order of preference, the actor gets a retry, the next shard of its own row group, the first shard of a new row group,
        or the last shard of the row group of another actor with the most shards left. If no shard waits, an idle actor gets a
        speculative copy of a shard that is late or that it should finish first.
        """
        self._present.add(actor)
        shards = self.assigned(actor)
        if any(self._flights[shard].alone for shard in shards):
            return None
        if retry := next((shard for shard in self._to_retry if self._may_try(actor, shard)), None):
            if shards:
                return None
            self.waiting -= 1
            self._to_retry.remove(retry)
            return self._start(retry, actor, now, alone=True)
        shard = self._next(actor)
        if shard is None and not shards:
            shard = self._slowest(actor, now)
        return self._start(shard, actor, now) if shard else None

    def done(self, shard: Shard, actor: Actor, now: float) -> bool:
        """Record that a shard is done. Returns False if another copy of it finished first."""
        flight = self._land(shard)
        if flight and actor in flight.holders:
            took = (now - max(flight.holders[actor], self._last.get(actor, 0.0))) / shard.rows
            self._pace[actor] = took if actor not in self._pace else 0.5 * self._pace[actor] + 0.5 * took
        self._last[actor] = now
        first = shard in self._open
        self._open.discard(shard)
        return first

    def fail(self, shard: Shard, actor: Actor, reason: str, final: bool = False) -> None:
        """Record a failed attempt. `final`: a retry cannot help."""
        if shard not in self._open or not self._release(shard, actor):
            return
        self._tries[shard].append(actor)
        if shard in self._flights:
            # The other copy may still succeed. The copy that ends last decides.
            self._flights[shard].alone = True
        elif final or len(self._tries[shard]) >= self.attempts:
            self._open.discard(shard)
            self.final += final
            self.failed[shard] = reason if final else f"{reason} (tried {len(self._tries[shard])} times)"
        else:
            self._give_back(shard)

    def retry_free(self, shard: Shard, actor: Actor, reason: str) -> None:
        """Return the shard to the queue without counting an attempt, at most MAX_FREE_RETRIES times."""
        self._free_retries[shard] += 1
        if self._free_retries[shard] > MAX_FREE_RETRIES:
            self.fail(shard, actor, reason)
        elif self._release(shard, actor):
            self._give_back(shard)

    def lost(self, actor: Actor, reason: str, free: bool = False) -> list[Shard]:
        """Put a dead actor's shards back into the queue, and return them. `free`: count no attempt, because
        its node was lost.
        """
        shards = self.assigned(actor)
        self._present.discard(actor)
        for shard in shards:
            (self.retry_free if free else self.fail)(shard, actor, reason)
        self._own.pop(actor, None)
        self._pace.pop(actor, None)
        return shards

    def overdue(self, now: float) -> list[Actor]:
        """Return the actors that hang, by HANGING_SECONDS, HANGING_SECONDS_PER_ROW and HANGING_PACES."""
        return [actor for actor, shards in self._held.items() if shards and self._hangs(actor, shards, now)]

    def _hangs(self, actor: Actor, shards: list[Shard], now: float) -> bool:
        since = max(min(self._flights[shard].holders[actor] for shard in shards), self._last.get(actor, 0.0))
        per_row = max(HANGING_SECONDS_PER_ROW, HANGING_PACES * self._pace.get(actor, 0.0))
        return now - since > max(HANGING_SECONDS, per_row * max(shard.rows for shard in shards))

    def _give_back(self, shard: Shard) -> None:
        if shard not in self._flights:
            self.retries += 1
            self.waiting += 1
            self._to_retry.append(shard)

    def _may_try(self, actor: Actor, shard: Shard) -> bool:
        return actor not in self._tries[shard] or self._present <= set(self._tries[shard])

    def _start(self, shard: Shard, actor: Actor, now: float, alone: bool = False) -> Shard:
        self._flights.setdefault(shard, _Flight({}, alone)).holders[actor] = now
        self._held.setdefault(actor, []).append(shard)
        return shard

    def _land(self, shard: Shard) -> _Flight | None:
        """Take the shard away from all of its actors."""
        flight = self._flights.pop(shard, None)
        for holder in flight.holders if flight else ():
            self._held[holder].remove(shard)
        return flight

    def _release(self, shard: Shard, actor: Actor) -> bool:
        flight = self._flights.get(shard)
        if flight is None or actor not in flight.holders:
            return False
        del flight.holders[actor]
        self._held[actor].remove(shard)
        if not flight.holders:
            del self._flights[shard]
        return True

    def _next(self, actor: Actor) -> Shard | None:
        run = self._own.get(actor)
        if run not in self._runs:
            if self._fresh:
                run = self._own[actor] = self._fresh.popleft()
            else:
                run = max(self._runs, key=lambda run: len(self._runs[run]), default=None)
        if run is None:
            return None
        self.waiting -= 1
        # The last shard of another actor's row group is the farthest from that actor's position.
        shard = self._runs[run].popleft() if run == self._own.get(actor) else self._runs[run].pop()
        if not self._runs[run]:
            del self._runs[run]
        return shard

    def _slowest(self, actor: Actor, now: float) -> Shard | None:
        """Return the shard with the longest expected time left whose only holder is late or slower than this actor.

        Starts no copy that could only finish second, because it would take memory bandwidth from the first.
        """
        best, most = None, 0.0
        for shard, flight in self._flights.items():
            if len(flight.holders) > 1 or flight.alone or actor in flight.holders:
                continue
            [holder] = flight.holders
            if (mine := self._pace.get(actor, self._pace.get(holder))) is None:
                continue
            since, due = self._due(holder, shard, self._pace.get(holder, mine))
            # Assume that a late shard needs as long again.
            late, remaining = now >= due, now - since if now >= due else due - now
            if remaining >= most and (late or remaining > mine * shard.rows):
                best, most = shard, remaining
        return best

    def _due(self, holder: Actor, shard: Shard, pace: float) -> tuple[float, float]:
        """Return when `holder` began its current shard, and when it should finish `shard`."""
        queued = self._held[holder]
        since = max(self._flights[queued[0]].holders[holder], self._last.get(holder, 0.0))
        return since, since + pace * sum(other.rows for other in queued[: queued.index(shard) + 1])
