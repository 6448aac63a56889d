"""Configure the generated data set and its teacher."""

from dataclasses import dataclass, field
from enum import Enum

from intent.errors import require
from intent.openai import EndpointConfig


class CatalogSource(Enum):
    """The catalogs that messages are about, see `DataConfig`."""

    given = "given"
    sampled = "sampled"


class HeldOut(Enum):
    """What evaluation messages must not share with training messages, see `DataConfig`."""

    messages = "messages"
    templates = "templates"


@dataclass
class DataConfig:
    """Configure the synthetic messages. Raises ConfigError for a split without messages or without a language.

    `uri`: read this data set instead of generating one. `catalogs`: `given` is the job's own catalog; `sampled` draws many
    catalogs, so that a model learns to choose from any catalog. `held_out`: `messages` keeps the text of evaluation messages
    out of training; `templates` keeps their phrase templates out too, and with sampled catalogs also their products. `train`,
    `validation`, `test`: messages per split. `languages`: codes of the files in intent/synth/languages. `phenomena`: weights by
    name that replace those of intent/synth/phenomena.py; 0 switches a phenomenon off.
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
    """Configure a larger model that writes more training messages. Raises ConfigError for a value out of range.

    `messages`: the training messages whose intents it writes about; 0 means no teacher. `variants`: the messages per intent, 1
    to 20. `judge`: accept a message only if the model, without seeing the label, gives the message the same label.
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
