"""Define the typed configuration of every job, validated before any work.

Knows nothing of Hydra but MISSING. Every value can be overridden on a job's command line.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from intent.benchmark.config import RowKind, Shape
from intent.engine.config import EngineConfig, OutputFormat
from intent.errors import require
from intent.evaluate.config import GoldPart
from intent.label_cache.config import CacheAction, CacheConfig
from intent.lake import DELTA, ICEBERG, is_table
from intent.nightly.config import GateConfig
from intent.openai import EndpointConfig
from intent.quantize.config import QuantConfig
from intent.run.config import ClusterConfig, ClusterMode, FleetConfig
from intent.storage import absolute, split_uri
from intent.storage.config import StorageConfig
from intent.synth.config import DataConfig, TeacherConfig
from intent.task.config import LabelledConfig, SchemaConfig
from intent.train.config import SHIPPED, ModelConfig, TrainConfig


@dataclass
class JobConfig:
    """The whole configuration; each job reads the parts it needs. `workspace`: where artifacts are kept.

    `catalog`: a Parquet, CSV or JSON file, or a folder of them, with the products' names in the column `catalog_column`.
    `shelves_above`: a catalog of more products is cut into shelves of like products, each with its own prompt. `baseline`: a
    hosted model (`baseline.model`) that evaluate and sweep ask too. `gold`: evaluate on this part of the hand-written gold set
    instead of the data set's held-out messages.
    """

    workspace: str = "artifacts"
    catalog: str = MISSING
    catalog_column: str = "name"
    shelves_above: int = 1000
    output_format: OutputFormat = OutputFormat.entity_first
    gold: GoldPart | None = None
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
        for part, name, key in self.locations():
            if (uri := getattr(part, name)) is not None:
                setattr(part, name, self._absolute(key, uri))
        self.train.also = [self._absolute("train.also", uri) for uri in self.train.also]
        self.workspace = self.workspace.removesuffix("/")
        require(self.shelves_above > 0, "shelves_above", self.shelves_above, "use at least 1 product a prompt, e.g. 1000")
        twice = self.train.adapter is not None and self.train.adapter == self.model.adapter
        require(not twice, "train.adapter", self.train.adapter, "is merged into the base already; use model.adapter=null")

    def locations(self) -> Iterator[tuple[Any, str, str]]:
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
        """Return the folders and prefixes that the job writes to, by name."""
        return {"workspace": self.workspace}

    def _absolute(self, key: str, uri: str) -> str:
        """Return the same place as seen from any worker's folder. Raises ConfigError if only this machine knows it."""
        if uri.startswith(ICEBERG):
            return uri
        if uri.startswith(DELTA):
            return DELTA + self._absolute(key, uri.removeprefix(DELTA))
        anywhere = "://" in uri or uri.startswith("/")
        remedy = "is relative to the folder that the cluster runs this job in, which does not last"
        remedy += "; give s3://bucket/prefix, or a path from / on that every node reaches"
        require(anywhere or self.cluster.mode is ClusterMode.local, key, uri, remedy)
        home = os.path.expanduser(uri)
        require(
            not home.startswith("~"), key, uri, "is nobody's home folder here; for a folder of that name write ./ before it"
        )
        return absolute(home)


@dataclass
class OutputConfig(JobConfig):
    """A job that writes the file or folder `output`: a list of tokens (jobs.vocabulary), or an adapter's temperatures
    (jobs.calibrate).
    """

    output: str = MISSING

    def locations(self) -> Iterator[tuple[Any, str, str]]:
        yield from super().locations()
        yield self, "output", "output"


@dataclass
class RetrieverConfig(JobConfig):
    """`output`: a folder that the retriever is copied to; None: it stays in the workspace alone."""

    output: str | None = None

    def locations(self) -> Iterator[tuple[Any, str, str]]:
        yield from super().locations()
        yield self, "output", "output"

    def written(self) -> dict[str, str]:
        return super().written() | ({"output": self.output} if self.output else {})


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
        remedy = f"the schema {self.schema.name!r} has one intent a message, which is a row already; use explode=false"
        require(self.schema.repeat > 1 or not self.explode, "explode", True, remedy)
        self._check_partitions()

    def locations(self) -> Iterator[tuple[Any, str, str]]:
        yield from super().locations()
        yield from ((self, name, name) for name in ("input", "output", "publish", "models"))

    def _check_partitions(self) -> None:
        names, publish = self.partition_by, self.publish
        remedy = "is of what is published; name the folder or table too, with publish="
        require(publish is not None or not names, "partition_by", names, remedy)
        output_columns = ["id", *(field.name for field in self.schema.schema().label_fields(self.explode)), *self.keep_columns]
        lacking = [name for name in names if name not in output_columns]
        require(not lacking, "partition_by", lacking, f"labels have the columns {output_columns}; add it to keep_columns")
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
        remedy = "has a placeholder, so it is the address of many runs; name one run's, with its date"
        require("{" not in self.output, "output", self.output, remedy)

    def locations(self) -> Iterator[tuple[Any, str, str]]:
        yield from super().locations()
        yield from ((self, name, name) for name in ("output", "html"))

    def written(self) -> dict[str, str]:
        return {} if self.html is None else {"html": split_uri(self.html)[0]}


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

    def locations(self) -> Iterator[tuple[Any, str, str]]:
        yield from super().locations()
        yield self.gate, "gold", "gate.gold"

    def written(self) -> dict[str, str]:
        return super().written() | {"workspace": self.workspace}

    def __post_init__(self):
        super().__post_init__()
        language = self.gate.language
        require(language is None or language in self.keep_columns, "gate.language", language, "name it in keep_columns too")
        require(self.arrival_hours >= 0, "arrival_hours", self.arrival_hours, "use hours from 0 on")
        named = self.date != YESTERDAY or not self.gate.accept
        require(named, "gate.accept", True, f"name the run's date too: date=YYYY-MM-DD, not date={YESTERDAY}")
        waits = self.arrival is None or not self.input.startswith(ICEBERG)
        require(waits, "arrival", self.arrival, "is an object beside the log, and a catalog's table has none; use null")


@dataclass
class BenchmarkConfig(JobConfig):
    """What `jobs.benchmark` measures, at most `seconds` per row. `shape`: the configured model, or random weights.

    The first of `output_formats`, `sequences` and `threads` (None: every CPU) is the setting of every row. The others are
    measured alone. `vocabulary`: a Llama 3 vocabulary in GGUF form for the random weights; None: the configured model's.
    `run_rows`: measure runs over logs of so many rows instead, and planning `objects` objects. `runs`: measure so many runs
    of `messages` distinct messages with the label cache, and lookups in a cache of `entries` entries. `products`: measure
    generated catalogs of so many products, each with `messages` about it and the workspace's own engines.
    """

    shape: Shape = Shape.embedded
    rows: list[RowKind] = field(default_factory=lambda: list(RowKind))
    output_formats: list[OutputFormat] = field(default_factory=lambda: [OutputFormat.compact, OutputFormat.json])
    sequences: list[int] = field(default_factory=lambda: [32])
    threads: list[int] = field(default_factory=list)
    messages: int = 512
    seconds: float = 20.0
    vocabulary: str | None = None
    run_rows: list[int] = field(default_factory=list)
    objects: int = 100_000
    runs: int = 0
    entries: int = 20_000_000
    products: list[int] = field(default_factory=list)

    def locations(self) -> Iterator[tuple[Any, str, str]]:
        yield from super().locations()
        yield self, "vocabulary", "vocabulary"

    def __post_init__(self):
        super().__post_init__()
        for name in ("rows", "output_formats", "sequences"):
            require(bool(getattr(self, name)), name, getattr(self, name), "name at least one")
        for name in ("sequences", "threads", "run_rows", "products"):
            require(all(n > 0 for n in getattr(self, name)), name, getattr(self, name), "use sizes of at least 1")
        require(self.seconds > 0, "seconds", self.seconds, "measure each row for more than 0 seconds")
        require(self.messages > 0, "messages", self.messages, "use at least 1 message")
        require(self.runs != 1 and self.runs >= 0, "runs", self.runs, "use 2 runs or more, or 0: none")
        require(self.entries > 0, "entries", self.entries, "use at least 1")
