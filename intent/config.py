"""Typed configuration of every job: what `conf/` may say, validated before any work.

Knows nothing of Hydra but MISSING. Every value can be overridden on a job's command line.
"""

import re
from dataclasses import dataclass, field
from enum import Enum

from omegaconf import MISSING

from intent.errors import ConfigError
from intent.schema import Choice, Count, Entity, IntentSchema, Slot
from intent.storage import StorageOptions


class SlotKind(Enum):
    choice = "choice"
    entity = "entity"
    count = "count"


class CodecName(Enum):
    json = "json"
    compact = "compact"


class ClusterMode(Enum):
    local = "local"
    attach = "attach"


class CatalogSource(Enum):
    given = "given"
    sampled = "sampled"


class HeldOut(Enum):
    messages = "messages"
    templates = "templates"


class Device(Enum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Precision(Enum):
    auto = "auto"
    bfloat16 = "bfloat16"
    float16 = "float16"
    float32 = "float32"


def require(ok: bool, field_name: str, value: object, remedy: str) -> None:
    if not ok:
        raise ConfigError(field_name, value, remedy)


@dataclass
class SlotConfig:
    kind: SlotKind = MISSING
    name: str = MISSING
    values: list[str] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    min: int = 1
    max: int = 99
    default: int = 1

    def slot(self) -> Slot:
        if self.kind is SlotKind.choice:
            return Choice(self.name, tuple(self.values), tuple(self.ends))
        if self.kind is SlotKind.entity:
            return Entity(self.name)
        return Count(self.name, self.min, self.max, self.default)


@dataclass
class SchemaConfig:
    name: str = MISSING
    instruction: str = MISSING
    slots: list[SlotConfig] = MISSING

    def schema(self) -> IntentSchema:
        return IntentSchema(self.name, self.instruction, tuple(slot.slot() for slot in self.slots))


@dataclass
class DataConfig:
    """Synthetic messages: how many of each split, in which languages (a file of intent/synth/languages each).

    `catalogs`: about the job's own catalog, or about many sampled ones, so that a model learns to point at any.
    `held_out`: evaluation messages differ from training ones by their text, or also by phrase templates (and, with
    sampled catalogs, products) that no training message has.
    """

    uri: str | None = None
    catalogs: CatalogSource = CatalogSource.given
    held_out: HeldOut = HeldOut.messages
    train: int = 3000
    validation: int = 200
    test: int = 500
    languages: list[str] = field(default_factory=lambda: ["en", "de", "es"])
    seed: int = 7

    def __post_init__(self):
        for name in ("train", "validation", "test"):
            require(getattr(self, name) > 0, f"data.{name}", getattr(self, name), "use at least 1 message")
        require(bool(self.languages), "data.languages", self.languages, "name at least one language, e.g. [en]")


@dataclass
class ModelConfig:
    """A base model: a Hugging Face id or a local path, or `package:NAME/FILE.gguf`, a GGUF inside an installed package.

    `adapter`: a folder with a LoRA to merge into it first; `shipped:NAME` is one of intent/adapters.
    """

    name: str = MISSING
    source: str = MISSING
    revision: str | None = None
    sha256: str | None = None
    adapter: str | None = None

    def __post_init__(self):
        require(self.source != "", "model.source", self.source, "give a Hugging Face id, a folder, or package:NAME/FILE.gguf")


@dataclass
class TrainConfig:
    """QLoRA (Dettmers et al., arXiv 2305.14314): NF4 base, LoRA on all linear layers, loss on the answer only."""

    uri: str | None = None
    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    learning_rate: float = 1e-3
    warmup_share: float = 0.05
    epochs: int = 1
    batch_messages: int = 32
    validate_every: int = 30
    stop_at: float = 0.99
    patience: int = 4
    four_bit: bool = True
    device: Device = Device.auto
    precision: Precision = Precision.auto
    workers: int = 1
    cpus: int = 2
    seed: int = 7

    def __post_init__(self):
        require(self.rank > 0, "train.rank", self.rank, "use a positive LoRA rank, e.g. 16")
        require(0 < self.learning_rate < 1, "train.learning_rate", self.learning_rate, "use a value in (0, 1), e.g. 1e-3")
        require(self.epochs > 0, "train.epochs", self.epochs, "train for at least 1 epoch")
        require(self.batch_messages > 0, "train.batch_messages", self.batch_messages, "use at least 1 message a step")
        require(0 < self.stop_at <= 1, "train.stop_at", self.stop_at, "use a share in (0, 1]")
        require(self.workers > 0, "train.workers", self.workers, "use at least 1 worker")


GGUF_TYPES = ("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "IQ4_NL", "Q3_K_M")


@dataclass(frozen=True)
class VariantSpec:
    """What a variant's name says: `reference`, `gptq-w4g64`, `gguf-Q4_K_M` or `gguf-Q4_K_M-imatrix`."""

    name: str
    engine: str
    bits: int = 16
    group_size: int = -1
    file_type: str = ""
    imatrix: bool = False

    @classmethod
    def parse(cls, name: str, field_name: str = "quant.variants") -> "VariantSpec":
        if name == "reference":
            return cls(name, "reference")
        if match := re.fullmatch(r"gptq-w([2348])g(\d+)", name):
            return cls(name, "gptq", int(match[1]), int(match[2]))
        if (match := re.fullmatch(r"gguf-([A-Z0-9_]+?)(-imatrix)?", name)) and match[1] in GGUF_TYPES:
            return cls(name, "gguf", file_type=match[1], imatrix=bool(match[2]))
        raise ConfigError(field_name, name, f"use gptq-w<2|3|4|8>g<group size>, or gguf-<type>[-imatrix] of {list(GGUF_TYPES)}")


@dataclass
class QuantConfig:
    variants: list[str] = field(default_factory=list)
    calibration_messages: int = 128
    cpus: int = 2

    def __post_init__(self):
        for name in self.variants:
            VariantSpec.parse(name)
        require(self.calibration_messages > 0, "quant.calibration_messages", self.calibration_messages, "use at least 1")

    def specs(self) -> list[VariantSpec]:
        return [VariantSpec.parse(name) for name in self.variants]


@dataclass
class EngineConfig:
    """Which variants classify, and how each kind of actor is shaped. `None` sizes: found from the machine."""

    variants: list[str] = field(default_factory=list)
    abstain_below: float = 0.0
    device: Device = Device.auto
    gguf_sequences: int = 32
    gptq_batch: int = 32
    max_message_tokens: int = 256

    def __post_init__(self):
        for name in self.variants:
            VariantSpec.parse(name, "engine.variants")
        require(0 <= self.abstain_below <= 1, "engine.abstain_below", self.abstain_below, "use a confidence in [0, 1]")
        require(self.gguf_sequences > 0, "engine.gguf_sequences", self.gguf_sequences, "use at least 1")
        require(self.gptq_batch > 0, "engine.gptq_batch", self.gptq_batch, "use at least 1")
        require(self.max_message_tokens > 0, "engine.max_message_tokens", self.max_message_tokens, "use at least 1")


@dataclass
class FleetConfig:
    """Actors per engine (None: as many as the cluster has room for) and how a log is cut into shards."""

    gguf_actors: int | None = None
    gptq_actors: int | None = None
    gguf_cpus: int = 1
    gptq_cpus: int = 1
    rows_per_shard: int = 20000
    attempts: int = 3

    def __post_init__(self):
        for name in ("gguf_cpus", "gptq_cpus", "rows_per_shard", "attempts"):
            require(getattr(self, name) > 0, f"fleet.{name}", getattr(self, name), "use at least 1")


@dataclass
class StorageConfig:
    endpoint: str | None = None
    region: str | None = None

    def options(self) -> StorageOptions:
        return StorageOptions(self.endpoint, self.region)


@dataclass
class ClusterConfig:
    mode: ClusterMode = ClusterMode.local
    cpus: int | None = None
    gpus: int | None = None


@dataclass
class JobConfig:
    """The whole configuration; each job reads the parts it needs. `workspace` is where artifacts are kept."""

    workspace: str = "artifacts"
    catalog: str = MISSING
    codec: CodecName = CodecName.compact
    schema: SchemaConfig = MISSING
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = MISSING
    train: TrainConfig = field(default_factory=TrainConfig)
    quant: QuantConfig = field(default_factory=QuantConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    fleet: FleetConfig = field(default_factory=FleetConfig)
    storage: StorageConfig = field(default_factory=StorageConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)


@dataclass
class ClassifyConfig(JobConfig):
    input: str = MISSING
    output: str = MISSING
    id_column: str = "id"
    message_column: str = "message"
    keep_columns: list[str] = field(default_factory=list)
    models: str | None = None


@dataclass
class NightlyConfig(ClassifyConfig):
    """`input` and `output` may hold `{date}`, replaced by the date as YYYY-MM-DD."""

    date: str = "yesterday"
