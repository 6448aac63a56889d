"""Describe the events of a run for listeners: its plan, engines, shards and commit, each after it has ended.

Pure. The driver's own thread calls the listener, so a listener must be quick and must never raise.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from intent.run.shard import Plan


@dataclass(frozen=True)
class Event:
    """One event. `name`: plan, engine, shard, frequent or commit. `seconds`: its duration. `ended`: its end as Unix time.

    `error`: why it failed. `facts`: names and counts, never text from the log.
    """

    name: str
    seconds: float
    facts: Mapping[str, str | int | float] = field(default_factory=dict)
    error: str = ""
    plan: Plan | None = None
    ended: float = field(default_factory=time.time)


Listener = Callable[[Event], None]


def unheard(event: Event) -> None:
    """Ignore the event: the default listener."""


def planned(plan: Plan, source: str, seconds: float) -> Event:
    """Return the event of a plan that took `seconds`. `source`: the input's URI."""
    blobs = {shard.blob for shard in plan.shards}
    counts = {"rows": sum(max(0, shard.rows) for shard in plan.shards), "bytes": sum(blob.size for blob in blobs)}
    counts |= {"objects": len(blobs), "shards": len(plan.shards), "left_out": len(plan.left_out)}
    return Event("plan", seconds, {"source": source, **counts}, plan=plan)
