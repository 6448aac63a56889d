"""Configure the schema, and the user's own labelled messages."""

from dataclasses import dataclass, field
from enum import Enum

from omegaconf import MISSING

from intent.errors import require
from intent.task.schema import Choice, Count, Entity, IntentSchema, Slot


class SlotKind(Enum):
    """The class of a slot in `schema.py`."""

    choice = "choice"
    entity = "entity"
    count = "count"


@dataclass
class SlotConfig:
    """A slot. `values`, `ends`: of a choice. `min`, `max`, `default`: of a count."""

    kind: SlotKind = MISSING
    name: str = MISSING
    values: list[str] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    min: int = 1
    max: int = 99
    default: int = 1

    def slot(self) -> Slot:
        """Return the slot. Raises ConfigError if it is invalid."""
        if self.kind is SlotKind.choice:
            return Choice(self.name, tuple(self.values), tuple(self.ends))
        if self.kind is SlotKind.entity:
            return Entity(self.name)
        return Count(self.name, self.min, self.max, self.default)


@dataclass
class SchemaConfig:
    """A schema. `repeat`: 1 for one intent per message; more for a list of up to that many intents."""

    name: str = MISSING
    instruction: str = MISSING
    slots: list[SlotConfig] = MISSING
    repeat: int = 1

    def schema(self) -> IntentSchema:
        """Return the schema. Raises ConfigError if it is invalid."""
        return IntentSchema(self.name, self.instruction, tuple(slot.slot() for slot in self.slots), self.repeat)


@dataclass
class LabelledConfig:
    """Your own labelled messages instead of generated ones. `uri`: a Parquet, CSV or JSON lines file, or a folder of them.

    `message`, `language`, `split`: names of columns. `slots`: the columns of the schema's slots, in order; if empty, the slots'
    names. A schema of lists has one column of JSON or lists; if empty, `intents`. The column `split` holds train, validation or
    test. Without it, a hash of the message decides, with the shares `validation_share` and `test_share`.
    """

    uri: str | None = None
    message: str = "message"
    slots: list[str] = field(default_factory=list)
    language: str | None = None
    split: str | None = None
    validation_share: float = 0.1
    test_share: float = 0.1

    def __post_init__(self):
        for name in ("validation_share", "test_share"):
            require(0 < getattr(self, name) < 0.5, f"labelled.{name}", getattr(self, name), "use a share in (0, 0.5), e.g. 0.1")
