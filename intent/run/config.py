"""Configure the cluster and the actors of a run."""

from dataclasses import dataclass, field
from enum import Enum

from intent.errors import require


class ClusterMode(Enum):
    """`local`: start a cluster in this process. `attach`: join the cluster that the job runs in."""

    local = "local"
    attach = "attach"


@dataclass
class FleetConfig:
    """The number of actors per engine, and the size of shards.

    `gguf_actors`, `gptq_actors`: None: as many as fit on the cluster. `rows_per_shard`: None: about 30 seconds of work
    for the slowest kind of engine, from 256 to 20,000 rows. A run that continues keeps the shards of its plan. `attempts`: how
    often a shard may fail before it is given up.
    """

    gguf_actors: int | None = None
    gptq_actors: int | None = None
    gguf_cpus: int = 1
    gptq_cpus: int = 1
    rows_per_shard: int | None = None
    attempts: int = 3

    def __post_init__(self):
        for name in ("gguf_cpus", "gptq_cpus", "attempts"):
            require(getattr(self, name) > 0, f"fleet.{name}", getattr(self, name), "use at least 1")
        rows = self.rows_per_shard
        require(rows is None or rows > 0, "fleet.rows_per_shard", rows, "use at least 1, or null to size shards by the engine")
        for name in ("gguf_actors", "gptq_actors"):
            actors = getattr(self, name)
            require(actors is None or actors > 0, f"fleet.{name}", actors, "use at least 1, or null for as many as fit")


@dataclass
class ClusterConfig:
    """The Ray cluster. `prices`: USD per hour of one "cpu" and one "gpu". None: unknown.

    A price under a processor's model name, as a report gives it, takes precedence.
    """

    mode: ClusterMode = ClusterMode.local
    cpus: int | None = None
    gpus: int | None = None
    prices: dict[str, float | None] = field(default_factory=lambda: {"cpu": None, "gpu": None})

    def __post_init__(self):
        require(self.cpus is None or self.cpus > 0, "cluster.cpus", self.cpus, "use at least 1, or null for all")
        require(self.gpus is None or self.gpus >= 0, "cluster.gpus", self.gpus, "use at least 0, or null for all")
        for name, price in self.prices.items():
            kind = name.lower().removesuffix("s")
            valid = name == kind or kind not in ("cpu", "gpu")
            require(valid, f"cluster.prices.{name}", price, f"name it {kind}, or give a processor's model name")
            require(price is None or price >= 0, f"cluster.prices.{name}", price, "use USD per hour, at least 0")
