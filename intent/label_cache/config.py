"""Configure the label cache."""

from dataclasses import dataclass
from enum import Enum

from intent.errors import require


class CacheVariants(Enum):
    """Choose which variants share labels."""

    same = "same"
    any = "any"


@dataclass
class CacheConfig:
    """Configure the cache of labels in the workspace.

    `variants`: `same` reuses a label only for the variant that gave it; `any` reuses it for every variant of the checkpoint
    that is checked against the unquantized model. `gigabytes`: the maximum size per scope. `days`: the maximum time since an
    entry's last use. `sample`: the share of the cached messages that the engines label again. `agreement`: the cache is dropped
    if a smaller share of the sample gets the same intent.
    """

    enabled: bool = True
    variants: CacheVariants = CacheVariants.same
    gigabytes: float = 8.0
    days: int = 30
    sample: float = 0.005
    agreement: float = 0.98

    def __post_init__(self):
        require(self.gigabytes > 0, "cache.gigabytes", self.gigabytes, "use more than 0, or cache.enabled=false")
        require(0 < self.days <= 3650, "cache.days", self.days, "use 1 to 3650 days")
        require(0 <= self.sample <= 1, "cache.sample", self.sample, "use a share in [0, 1], e.g. 0.005")
        require(0 <= self.agreement < 1, "cache.agreement", self.agreement, "use a share in [0, 1), e.g. 0.98")


class CacheAction(Enum):
    """Choose what the job `jobs.cache` does."""

    stats = "stats"
    verify = "verify"
    prune = "prune"
    delete = "delete"
