"""Configure the gate of a nightly run."""

from dataclasses import dataclass

from intent.errors import require


@dataclass
class GateConfig:
    """The limits of a nightly run, against the last `nights` accepted ones. A run over any limit is not published.

    `rejected`, `abstained`: the largest share of all rows. `change`: the largest difference of a share from its mean.
    `distance`: the largest distance of the distribution of a slot's values (Jensen-Shannon, in [0, 1]). `language`: a kept
    column by which distributions are also compared. `gold`: a file of messages labelled by hand, of which every variant must
    get the share `agreement` right. `accept`: publish this run even if it is over a limit.
    """

    nights: int = 7
    rejected: float = 0.05
    abstained: float = 0.3
    change: float = 0.1
    distance: float = 0.2
    language: str | None = None
    gold: str | None = None
    agreement: float = 0.9
    accept: bool = False

    def __post_init__(self):
        for name in ("rejected", "abstained", "change", "distance", "agreement"):
            require(0 <= getattr(self, name) <= 1, f"gate.{name}", getattr(self, name), "use a share or distance in [0, 1]")
        require(self.nights >= 0, "gate.nights", self.nights, "use 0 to compare with no other night, or more")
