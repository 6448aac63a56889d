"""Configure the gate of a nightly run."""

from dataclasses import dataclass

from intent.errors import require


@dataclass
class GateConfig:
    """The limits of a nightly run, which is compared with the last `runs` accepted ones. A run over a limit is not published.

    `rejected`, `abstained`: the largest share of all rows. `change`: the largest difference of a share from its mean in the
    last runs. `distance`: the largest Jensen-Shannon distance, in [0, 1], of a slot's values from those of the last runs.
    `language`: a kept column; the values are also compared for each of its languages. `gold`: a file of messages labeled by
    hand, of which every variant must get the share `agreement` right. `accept`: publish this run even if it is over a limit.
    """

    runs: int = 7
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
        require(self.runs >= 0, "gate.runs", self.runs, "use 0 to compare with no earlier run, or more")
