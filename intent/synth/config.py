"""Configure the data set: synthetic messages, and a teacher."""

from dataclasses import dataclass, field
from enum import Enum

from intent.errors import require
from intent.openai import EndpointConfig


class CatalogSource(Enum):
    given = "given"
    sampled = "sampled"


class HeldOut(Enum):
    messages = "messages"
    templates = "templates"


@dataclass
class DataConfig:
    """Synthetic messages: how many per split, and in which languages (one file in intent/synth/languages each).

    `catalogs`: about the job's own catalog, or about many sampled ones, so that a model learns to point at any catalog.
    `held_out`: evaluation messages differ from training messages in their text, or also in their phrase templates (and, with
    sampled catalogs, their products). `phenomena`: weights that replace those of intent/synth/phenomena.py, by name; 0 means
    never.
    """

    uri: str | None = None
    catalogs: CatalogSource = CatalogSource.given
    held_out: HeldOut = HeldOut.messages
    train: int = 3000
    validation: int = 200
    test: int = 500
    languages: list[str] = field(default_factory=lambda: ["en", "de", "es"])
    phenomena: dict[str, float] = field(default_factory=dict)
    seed: int = 7

    def __post_init__(self):
        for name in ("train", "validation", "test"):
            require(getattr(self, name) > 0, f"data.{name}", getattr(self, name), "use at least 1 message")
        require(bool(self.languages), "data.languages", self.languages, "name at least one language, e.g. [en]")


@dataclass
class TeacherConfig:
    """A larger model that writes `variants` messages for the intents of `messages` training messages; 0: no teacher.

    `judge`: the model must also label each of its messages as intended, without seeing the label.
    """

    messages: int = 0
    variants: int = 3
    temperature: float = 1.0
    judge: bool = True
    endpoint: EndpointConfig = field(default_factory=EndpointConfig)

    def __post_init__(self):
        require(self.messages >= 0, "teacher.messages", self.messages, "use 0 for none, or more")
        require(1 <= self.variants <= 20, "teacher.variants", self.variants, "use 1 to 20 messages a request")
        model = self.endpoint.model
        require(bool(model) or not self.messages, "teacher.endpoint.model", model, "name the model that writes the messages")
