"""Define the typed configuration of every job, validated before any work.

Knows nothing of Hydra but MISSING. Every value can be overridden on a job's command line.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any

from omegaconf import MISSING

from intent.artifacts.variant import Precision, VariantSpec, expand
from intent.errors import ConfigError
from intent.lake import DELTA, ICEBERG, is_table
from intent.storage import StorageOptions, absolute, split_uri
from intent.task.schema import Choice, Count, Entity, IntentSchema, Slot


class SlotKind(Enum):
    choice = "choice"
    entity = "entity"
    count = "count"


class CodecName(Enum):
    json = "json"
    compact = "compact"
    pointing = "pointing"


class ClusterMode(Enum):
    local = "local"
    attach = "attach"


class CatalogSource(Enum):
    given = "given"
    sampled = "sampled"


class HeldOut(Enum):
    messages = "messages"
    templates = "templates"


class GoldHalf(Enum):
    guide = "guide"
    measure = "measure"


class Device(Enum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


# llama.cpp allows 256 sequences, and one of them is the prompt.
MOST_SEQUENCES = 255
LEAST_TOKENS = 16


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
    """A schema. `repeat`: 1 means one intent per message; more means a list of up to so many intents."""

    name: str = MISSING
    instruction: str = MISSING
    slots: list[SlotConfig] = MISSING
    repeat: int = 1

    def schema(self) -> IntentSchema:
        return IntentSchema(self.name, self.instruction, tuple(slot.slot() for slot in self.slots), self.repeat)


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
class LabelledConfig:
    """Your own labelled messages instead of generated ones. `uri`: a Parquet, CSV or JSON lines file, or a folder of them.

    `message`, `language`, `split`: columns. `slots`: the columns of the schema's slots, in its order; empty: the slots' names.
    A schema of lists has one column of JSON or lists; empty: `intents`. The column `split` holds train, validation or test.
    Without it, a hash of the message decides, with the shares `validation_share` and `test_share`.
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


@dataclass
class EndpointConfig:
    """A model behind an OpenAI-compatible API. The key is read from the environment variable `key_variable`.

    `url`: its base, such as http://127.0.0.1:8000/v1; None: OpenAI's own. `requests_per_minute`: None: no limit. `attempts`:
    per request. `timeout`: in seconds. `options`: replace a job's options of each request; null removes one. `input_price`,
    `output_price`: USD per million tokens.
    """

    model: str | None = None
    url: str | None = None
    key_variable: str = "OPENAI_API_KEY"
    concurrency: int = 8
    requests_per_minute: float | None = None
    attempts: int = 6
    timeout: float = 60.0
    options: dict[str, Any] = field(default_factory=dict)
    input_price: float = 0.0
    output_price: float = 0.0

    def __post_init__(self):
        require("@" not in (self.url or ""), "endpoint.url", "(hidden)", "holds credentials; set the key's variable instead")
        for name in ("concurrency", "attempts", "timeout"):
            require(getattr(self, name) > 0, f"endpoint.{name}", getattr(self, name), "use a positive number")
        rate = self.requests_per_minute
        require(rate is None or rate > 0, "endpoint.requests_per_minute", rate, "use a positive number, or null for no limit")
        for name in ("input_price", "output_price"):
            require(getattr(self, name) >= 0, f"endpoint.{name}", getattr(self, name), "use USD a million tokens, at least 0")


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


PACKAGE = "package:"
SHIPPED = "shipped:"


@dataclass
class ModelConfig:
    """A base model. `source`: a Hugging Face id, a local path, or `package:NAME/FILE.gguf`, a GGUF in an installed package.

    A GGUF in several pieces is `package:NAME1/FILE1 NAME2/FILE2 ...`, in order. `sha256`: of the whole GGUF. `adapter`: a
    folder with a LoRA to merge into the model first; `shipped:NAME` is one of intent/adapters. `vocabulary`: `full`, or the
    file that lists the tokens to keep, as jobs.vocabulary writes it; `shipped:NAME` is that of an adapter. `group_size`: for
    GPTQ; it must divide the model's dimensions. `file_type`: for GGUF; fast for the model's rows and close to the unquantized
    model. The groups engine/ and quant/ use the last two in the names of their variants.
    """

    name: str = MISSING
    source: str = MISSING
    revision: str | None = None
    sha256: str | None = None
    adapter: str | None = None
    vocabulary: str = "full"
    group_size: int = 64
    file_type: str = "Q8_0"

    def __post_init__(self):
        require(self.source != "", "model.source", self.source, "give a Hugging Face id, a folder, or package:NAME/FILE.gguf")
        checked = self.sha256 is None or self.source.startswith(PACKAGE)
        require(checked, "model.sha256", self.sha256, f"is of a package's file, not of {self.source}; use model.sha256=null")


@dataclass
class TrainConfig:
    """QLoRA (Dettmers et al., arXiv 2305.14314): NF4 base, LoRA on all linear layers, loss on the answer only.

    `also`: further data sets, of this or other schemas, mixed into the first. `batch_messages`: messages per step, shared
    equally by the `workers`. `pass_tokens`: the most tokens of one forward pass; a larger step takes several passes, so that
    long catalogs fit into memory. `epochs`: 0 keeps the base as it is. `adapter`: continue from this adapter, which has the
    same rank and is named like `model.adapter`; with `model.adapter=null`, the result is an adapter of the plain base again.
    """

    uri: str | None = None
    also: list[str] = field(default_factory=list)
    adapter: str | None = None
    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    learning_rate: float = 1e-3
    warmup_share: float = 0.05
    epochs: int = 1
    batch_messages: int = 32
    pass_tokens: int = 100_000
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
        require(self.epochs >= 0, "train.epochs", self.epochs, "train for 1 epoch or more, or for 0 to keep the base as it is")
        require(self.pass_tokens > 0, "train.pass_tokens", self.pass_tokens, "use at least 1, e.g. 100000")
        require(self.batch_messages > 0, "train.batch_messages", self.batch_messages, "use at least 1 message a step")
        require(0 < self.stop_at <= 1, "train.stop_at", self.stop_at, "use a share in (0, 1]")
        for name in ("workers", "cpus", "validate_every", "patience"):
            require(getattr(self, name) > 0, f"train.{name}", getattr(self, name), "use at least 1")
        more = -(-self.batch_messages // self.workers) * self.workers
        near = " or ".join(str(size) for size in (more - self.workers, more) if size > 0)
        remedy = f"cannot be shared equally by {self.workers} workers (train.workers); use {near}"
        require(self.batch_messages % self.workers == 0, "train.batch_messages", self.batch_messages, remedy)

    @property
    def worker_messages(self) -> int:
        """The messages per step of one worker."""
        return self.batch_messages // self.workers


@dataclass
class QuantConfig:
    """The variants to make or to sweep; `{a,b}` in a name stands for both.

    `batches`: the batch sizes that a sweep measures; empty: the engine's setting. `allowed_loss`: of exact match, against the
    reference. `cascade_precision`: the share of the SVM's answers in a cascade that must be right on validation messages.
    `in_scope_accuracy`: the share of the validation messages in scope that must be answered right at the confidence below which
    a message counts as out of scope.
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
        return [VariantSpec.parse(name) for name in self.variants]


@dataclass
class EngineConfig:
    """The variants that classify, and the size of each kind of actor. Sizes of None are found from the machine.

    `variants`: empty: those that a sweep selected for this hardware or, without a selection, those in `otherwise`.
    `parity_messages`: how many gold messages (at most 64) an actor labels before it starts; 0: none. `parity_disagreement`: an
    actor is refused if a larger share of them is not labelled as the unquantized model did.
    """

    variants: list[str] = field(default_factory=list)
    otherwise: list[str] = field(default_factory=list)
    abstain_below: float = 0.0
    device: Device = Device.auto
    gguf_sequences: int = 16
    gptq_batch: int | None = None
    max_message_tokens: int = 256
    parity_messages: int = 32
    parity_disagreement: float = 0.1

    def __post_init__(self):
        for field_name in ("variants", "otherwise"):
            for name in getattr(self, field_name):
                spec = VariantSpec.parse(name, f"engine.{field_name}")
                require(spec.engine != "base", f"engine.{field_name}", name, "is measured only; name a variant of a checkpoint")
        require(0 <= self.abstain_below <= 1, "engine.abstain_below", self.abstain_below, "use a confidence in [0, 1]")
        together = f"use 1 to {MOST_SEQUENCES}: llama.cpp decodes no more messages together"
        require(0 < self.gguf_sequences <= MOST_SEQUENCES, "engine.gguf_sequences", self.gguf_sequences, together)
        require(self.gptq_batch is None or self.gptq_batch > 0, "engine.gptq_batch", self.gptq_batch, "use at least 1")
        least = f"use at least {LEAST_TOKENS}: a message of a few words has as many, and one that has more is rejected"
        require(self.max_message_tokens >= LEAST_TOKENS, "engine.max_message_tokens", self.max_message_tokens, least)
        require(0 <= self.parity_messages <= 64, "engine.parity_messages", self.parity_messages, "use 0 (unchecked) to 64")
        share = self.parity_disagreement
        require(0 <= share < 1, "engine.parity_disagreement", share, "use a share in [0, 1), e.g. 0.1")


@dataclass
class FleetConfig:
    """The number of actors per engine (None: as many as the cluster has room for), and the size of shards.

    `rows_per_shard`: None: some tens of seconds of work for the slowest kind of engine, from 256 to 20,000 rows. A run that
    continues keeps the shards of its plan.
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
        require(rows is None or rows > 0, "fleet.rows_per_shard", rows, "use at least 1, or null: sized by the engine")
        for name in ("gguf_actors", "gptq_actors"):
            actors = getattr(self, name)
            require(actors is None or actors > 0, f"fleet.{name}", actors, "use at least 1, or null for as many as fit")


@dataclass
class StorageConfig:
    endpoint: str | None = None
    region: str | None = None

    def __post_init__(self):
        self.options()

    def options(self) -> StorageOptions:
        return StorageOptions(self.endpoint, self.region)


@dataclass
class ClusterConfig:
    """The Ray cluster. `prices`: USD per hour of one "cpu" and one "gpu" (None: unknown).

    A price under a processor's own name, as a report gives it, takes precedence.
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
            known = name == kind or kind not in ("cpu", "gpu")
            require(known, f"cluster.prices.{name}", price, f"name it {kind}, or give a model's own name")
            require(price is None or price >= 0, f"cluster.prices.{name}", price, "use USD an hour, at least 0")


@dataclass
class JobConfig:
    """The whole configuration; each job reads the parts it needs. `workspace`: where artifacts are kept.

    `catalog`: a Parquet, CSV or JSON file, or a folder of them, with the products' names in the column `catalog_column`.
    `shelves_above`: a catalog of more products is cut into shelves of like products, each with its own prompt. `baseline`: a
    hosted model (`baseline.model`) that evaluate and sweep ask too. `gold`: evaluate on this half of the hand-written gold set
    instead of the data set's held-out messages.
    """

    workspace: str = "artifacts"
    catalog: str = MISSING
    catalog_column: str = "name"
    shelves_above: int = 1000
    codec: CodecName = CodecName.pointing
    gold: GoldHalf | None = None
    schema: SchemaConfig = MISSING
    data: DataConfig = field(default_factory=DataConfig)
    labelled: LabelledConfig = field(default_factory=LabelledConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    model: ModelConfig = MISSING
    train: TrainConfig = field(default_factory=TrainConfig)
    quant: QuantConfig = field(default_factory=QuantConfig)
    baseline: EndpointConfig = field(default_factory=EndpointConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    fleet: FleetConfig = field(default_factory=FleetConfig)
    storage: StorageConfig = field(default_factory=StorageConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)

    def __post_init__(self):
        for part, name, told in self.places():
            if (uri := getattr(part, name)) is not None:
                setattr(part, name, self._place(told, uri))
        self.train.also = [self._place("train.also", uri) for uri in self.train.also]
        self.workspace = self.workspace.removesuffix("/")
        require(self.shelves_above > 0, "shelves_above", self.shelves_above, "use at least 1 product a prompt, e.g. 1000")
        twice = self.train.adapter is not None and self.train.adapter == self.model.adapter
        require(not twice, "train.adapter", self.train.adapter, "is merged into the base already; use model.adapter=null")

    def places(self) -> Iterator[tuple[Any, str, str]]:
        """Yield (owner, attribute, name on the command line) of every value that is a file, a folder or a prefix."""
        if self.schema.schema().uses_catalog:
            yield self, "catalog", "catalog"
        yield self, "workspace", "workspace"
        yield from ((part, "uri", f"{name}.uri") for name in ("data", "labelled", "train") for part in [getattr(self, name)])
        for name in ("model", "train"):
            part = getattr(self, name)
            if part.adapter and not part.adapter.startswith(SHIPPED):
                yield part, "adapter", f"{name}.adapter"
        if self.model.vocabulary != "full" and not self.model.vocabulary.startswith(SHIPPED):
            yield self.model, "vocabulary", "model.vocabulary"

    def written(self) -> dict[str, str]:
        """Return the places that the job writes to, by name."""
        return {"workspace": self.workspace}

    def _place(self, told: str, uri: str) -> str:
        """Return the same place as seen from any worker's folder. Raises ConfigError if only this machine knows it."""
        if uri.startswith(ICEBERG):
            return uri
        if uri.startswith(DELTA):
            return DELTA + self._place(told, uri.removeprefix(DELTA))
        anywhere = "://" in uri or uri.startswith("/")
        remedy = "is relative to the folder that the cluster runs this job in, which does not last"
        remedy += "; give s3://bucket/prefix, or a path from / on that every node reaches"
        require(anywhere or self.cluster.mode is ClusterMode.local, told, uri, remedy)
        home = os.path.expanduser(uri)
        require(
            not home.startswith("~"), told, uri, "is nobody's home folder here; for a folder of that name write ./ before it"
        )
        return absolute(home)


@dataclass
class VocabularyConfig(JobConfig):
    """`output`: the file that lists the tokens."""

    output: str = MISSING

    def places(self) -> Iterator[tuple[Any, str, str]]:
        yield from super().places()
        yield self, "output", "output"


@dataclass
class RetrieverConfig(JobConfig):
    """`output`: a folder that the retriever is copied to; None: it stays in the workspace alone."""

    output: str | None = None

    def places(self) -> Iterator[tuple[Any, str, str]]:
        yield from super().places()
        yield self, "output", "output"

    def written(self) -> dict[str, str]:
        return super().written() | ({"output": self.output} if self.output else {})


@dataclass
class CalibrateConfig(JobConfig):
    """`output`: the adapter's folder, whose temperatures are written."""

    output: str = MISSING

    def places(self) -> Iterator[tuple[Any, str, str]]:
        yield from super().places()
        yield self, "output", "output"


class CacheVariants(Enum):
    same = "same"
    any = "any"


@dataclass
class CacheConfig:
    """The cache of labels in the workspace.

    `variants`: a label serves the `same` variant, or `any` variant of its checkpoint that is checked against the unquantized
    model. `gigabytes`, `days` since the last use: the most that is kept per scope. `sample`: the share of the cached messages
    that the engines see again. `agreement`: the cache is dropped if a smaller share of these gets the same intent.
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
    stats = "stats"
    verify = "verify"
    prune = "prune"
    delete = "delete"


@dataclass
class CacheJobConfig(JobConfig):
    """`action`: what `jobs.cache` does with the scope of this name, or with all scopes (null)."""

    action: CacheAction = CacheAction.stats
    scope: str | None = None
    cache: CacheConfig = field(default_factory=CacheConfig)


@dataclass
class ClassifyConfig(JobConfig):
    """The input and the output of a labelling run.

    `input`: a folder or prefix of Parquet files, a Delta table by its folder, or `iceberg:CATALOG/NAMESPACE.TABLE`; for a
    table also the rows of a partition, with `/COLUMN=VALUE` after it. `input_version`: Delta's version or Iceberg's
    snapshot id; None: the version that the run started with, or else the current one. `input_pattern`: names, or keys below
    `input`, of the log's objects, such as `part-*`; None: every object that is Parquet by its name (.parquet, .parq, .pq)
    or, if the name does not say, by its content. `keep_columns`: columns of the objects or of their folders `name=value`.
    `explode`: if a schema's intents are lists, write one row per item instead of one per message. `models`: the file that
    names the variants; None: the workspace's file, and the job makes what is missing if that needs no training
    (`train.epochs=0`) and nothing in the workspace was trained. `publish`: where labels go beside `output`, as one commit:
    `delta:FOLDER`, `iceberg:CATALOG/NAMESPACE.TABLE`, or a folder of partitions. `partition_by`: the partition columns of
    the folder, or of a new table.
    """

    input: str = MISSING
    output: str = MISSING
    input_pattern: str | None = None
    input_version: int | None = None
    id_column: str = "id"
    message_column: str = "message"
    keep_columns: list[str] = field(default_factory=list)
    explode: bool = False
    publish: str | None = None
    partition_by: list[str] = field(default_factory=list)
    models: str | None = None
    cache: CacheConfig = field(default_factory=CacheConfig)

    def __post_init__(self):
        super().__post_init__()
        require(self.input_pattern != "", "input_pattern", "", "give a pattern such as *.parquet, or null")
        told = f"the schema {self.schema.name!r} has one intent a message, which is a row already; use explode=false"
        require(self.schema.repeat > 1 or not self.explode, "explode", True, told)
        self._check_partitions()

    def places(self) -> Iterator[tuple[Any, str, str]]:
        yield from super().places()
        yield from ((self, name, name) for name in ("input", "output", "publish", "models"))

    def _check_partitions(self) -> None:
        names, publish = self.partition_by, self.publish
        remedy = "is of what is published; name the folder or table too, with publish="
        require(publish is not None or not names, "partition_by", names, remedy)
        made = ["id", *(field.name for field in self.schema.schema().label_fields(self.explode)), *self.keep_columns]
        lacking = [name for name in names if name not in made]
        require(not lacking, "partition_by", lacking, f"labels have the columns {made}; add it to keep_columns")
        whole = publish is None or is_table(publish) or bool(names)
        require(whole, "partition_by", names, f"name the columns whose values name the folders of {publish}, such as [dt]")

    def written(self) -> dict[str, str]:
        published = {} if self.publish is None or self.publish.startswith(ICEBERG) else {"publish": self.publish}
        return {"output": self.output} | {name: uri.removeprefix(DELTA) for name, uri in published.items()}


@dataclass
class InspectConfig(JobConfig):
    """`output`: of the run to inspect. `html`: the file for a page about it; null: none."""

    output: str = MISSING
    html: str | None = None

    def __post_init__(self):
        super().__post_init__()
        require("{" not in self.output, "output", self.output, "is the place of many nights; name one night's, with its date")

    def places(self) -> Iterator[tuple[Any, str, str]]:
        yield from super().places()
        yield from ((self, name, name) for name in ("output", "html"))

    def written(self) -> dict[str, str]:
        return {} if self.html is None else {"html": split_uri(self.html)[0]}


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


YESTERDAY = "yesterday"


@dataclass
class NightlyConfig(ClassifyConfig):
    """`input` and `output` contain the date: `{date}`, or `{year}`, `{month}` and `{day}`; `input` may contain `{hour}`.

    All placeholders may have an offset, as in `{date+1d}`. `date`: yesterday (UTC), a date, or FIRST..LAST. `arrival`: the key
    of the input's object that says that the input is complete. `arrival_hours`: the longest wait for it.
    """

    date: str = YESTERDAY
    arrival: str | None = None
    arrival_hours: float = 6.0
    gate: GateConfig = field(default_factory=GateConfig)

    def places(self) -> Iterator[tuple[Any, str, str]]:
        yield from super().places()
        yield self.gate, "gold", "gate.gold"

    def written(self) -> dict[str, str]:
        return super().written() | {"workspace": self.workspace}

    def __post_init__(self):
        super().__post_init__()
        language = self.gate.language
        require(language is None or language in self.keep_columns, "gate.language", language, "name it in keep_columns too")
        require(self.arrival_hours >= 0, "arrival_hours", self.arrival_hours, "use hours from 0 on")
        named = self.date != YESTERDAY or not self.gate.accept
        require(named, "gate.accept", True, f"name the night too: date=YYYY-MM-DD, not date={YESTERDAY}")
        waits = self.arrival is None or not self.input.startswith(ICEBERG)
        require(waits, "arrival", self.arrival, "is an object beside the log, and a catalog's table has none; use null")


class Shape(Enum):
    embedded = "embedded"
    llama32_1b = "llama32_1b"


class RowKind(StrEnum):
    engine = "engine"
    create_completion = "create_completion"
    generate = "generate"
    pipeline = "pipeline"
    server = "server"
    vllm = "vllm"
    ray_data = "ray_data"
    encoder = "encoder"
    limit = "limit"


@dataclass
class BenchmarkConfig(JobConfig):
    """What `jobs.benchmark` measures, at most `seconds` per row. `shape`: the configured model, or random weights.

    The first of `codecs`, `sequences` and `threads` (None: every CPU) is the setting of every row. The others are measured
    alone. `vocabulary`: a Llama 3 vocabulary in GGUF form for the random weights; None: the configured model's. `night`:
    measure runs over logs of so many rows instead, and planning `objects` objects. `nights`: measure so many nights of
    `messages` distinct messages with the label cache, and lookups in a cache of `entries` entries. `products`:
    measure generated catalogs of so many products, each with `messages` about it and the workspace's own engines.
    """

    shape: Shape = Shape.embedded
    rows: list[RowKind] = field(default_factory=lambda: list(RowKind))
    codecs: list[CodecName] = field(default_factory=lambda: [CodecName.compact, CodecName.json])
    sequences: list[int] = field(default_factory=lambda: [16])
    threads: list[int] = field(default_factory=list)
    messages: int = 512
    seconds: float = 20.0
    vocabulary: str | None = None
    night: list[int] = field(default_factory=list)
    objects: int = 100_000
    nights: int = 0
    entries: int = 20_000_000
    products: list[int] = field(default_factory=list)

    def places(self) -> Iterator[tuple[Any, str, str]]:
        yield from super().places()
        yield self, "vocabulary", "vocabulary"

    def __post_init__(self):
        super().__post_init__()
        for name in ("rows", "codecs", "sequences"):
            require(bool(getattr(self, name)), name, getattr(self, name), "name at least one")
        for name in ("sequences", "threads", "night", "products"):
            require(all(n > 0 for n in getattr(self, name)), name, getattr(self, name), "use sizes of at least 1")
        require(self.seconds > 0, "seconds", self.seconds, "measure each row for more than 0 seconds")
        require(self.messages > 0, "messages", self.messages, "use at least 1 message")
        require(self.nights != 1 and self.nights >= 0, "nights", self.nights, "use 2 nights or more, or 0: none")
        require(self.entries > 0, "entries", self.entries, "use at least 1")
