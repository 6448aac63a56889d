"""Configure the variants to make and to sweep."""

from dataclasses import dataclass, field

from intent.artifacts.variant import VariantSpec, expand
from intent.errors import require


@dataclass
class QuantConfig:
    """Configure the variants to make or to sweep.

    `variants`: names, in which `{a,b}` stands for both. `batches`: the batch sizes that a sweep measures; empty: the engine's
    setting. `allowed_loss`: the most exact match, as a share, that a variant may lose against the reference.
    `cascade_precision`: the share of the SVM's answers in a cascade that must be right on validation messages.
    `in_scope_accuracy`: sets the confidence below which a message counts as out of scope; it is the share of the in-scope
    messages that must still be answered right, with 95 % confidence. `calibration_messages`: messages to calibrate GPTQ and the
    importance matrix on. `cpus`: per task.
    """

    variants: list[str] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    allowed_loss: float = 0.01
    cascade_precision: float = 0.99
    in_scope_accuracy: float = 0.93
    calibration_messages: int = 128
    cpus: int = 2

    def __post_init__(self):
        self.variants = list(dict.fromkeys(name for pattern in self.variants for name in expand(pattern)))
        for name in self.variants:
            VariantSpec.parse(name)
        require(all(size > 0 for size in self.batches), "quant.batches", self.batches, "use sizes of at least 1")
        require(0 <= self.allowed_loss < 1, "quant.allowed_loss", self.allowed_loss, "use a share in [0, 1), e.g. 0.01")
        for name, usual in (("cascade_precision", 0.99), ("in_scope_accuracy", 0.93)):
            share = getattr(self, name)
            require(0 < share <= 1, f"quant.{name}", share, f"use a share in (0, 1], e.g. {usual}")
        for name in ("calibration_messages", "cpus"):
            require(getattr(self, name) > 0, f"quant.{name}", getattr(self, name), "use at least 1")

    def specs(self) -> list[VariantSpec]:
        """Parse the variants' names."""
        return [VariantSpec.parse(name) for name in self.variants]
