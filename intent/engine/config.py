"""Configure the engines that classify."""

from dataclasses import dataclass, field
from enum import Enum

from intent.artifacts.variant import VariantSpec
from intent.errors import require


class OutputFormat(Enum):
    """How answers are written. See `automaton.py`."""

    json = "json"
    compact = "compact"
    entity_first = "entity_first"


class Device(Enum):
    """Where models compute. `auto`: on CUDA if there is a device."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


# llama.cpp allows 256 sequences, and one of them is the prompt.
MOST_SEQUENCES = 255
LEAST_TOKENS = 16


@dataclass
class EngineConfig:
    """The variants that classify, and the size of each kind of actor. A size of None is derived from the machine.

    `variants`: if empty, the variants that a sweep selected for this hardware or, without a selection, those in `otherwise`.
    `golden_messages`: how many messages of the golden set, at most 64, an actor labels before it starts; 0: none.
    `golden_disagreement`: an actor is refused if it labels a larger share of them differently from the unquantized model.
    """

    variants: list[str] = field(default_factory=list)
    otherwise: list[str] = field(default_factory=list)
    abstain_below: float = 0.0
    device: Device = Device.auto
    gguf_sequences: int = 32
    gptq_batch: int | None = None
    max_message_tokens: int = 256
    golden_messages: int = 32
    golden_disagreement: float = 0.1

    def __post_init__(self):
        for field_name in ("variants", "otherwise"):
            for name in getattr(self, field_name):
                spec = VariantSpec.parse(name, f"engine.{field_name}")
                require(
                    spec.engine != "base",
                    f"engine.{field_name}",
                    name,
                    "is only for measurements; name a variant of a checkpoint",
                )
        require(0 <= self.abstain_below <= 1, "engine.abstain_below", self.abstain_below, "use a confidence in [0, 1]")
        together = f"use 1 to {MOST_SEQUENCES}: llama.cpp decodes no more messages together"
        require(0 < self.gguf_sequences <= MOST_SEQUENCES, "engine.gguf_sequences", self.gguf_sequences, together)
        require(self.gptq_batch is None or self.gptq_batch > 0, "engine.gptq_batch", self.gptq_batch, "use at least 1")
        least = f"use at least {LEAST_TOKENS}, the tokens of a message of a few words; longer messages are rejected"
        require(self.max_message_tokens >= LEAST_TOKENS, "engine.max_message_tokens", self.max_message_tokens, least)
        require(0 <= self.golden_messages <= 64, "engine.golden_messages", self.golden_messages, "use 0 (unchecked) to 64")
        share = self.golden_disagreement
        require(0 <= share < 1, "engine.golden_disagreement", share, "use a share in [0, 1), e.g. 0.1")
