"""Which artifact a configuration names: the same configuration finds, in every job, what an earlier job made of it.

data -> checkpoint <- base, checkpoint -> variant. Each has a fingerprint of its own settings and of its inputs, and lies
in the workspace under it. Inputs are named by content, never by where they lie. An explicit `data.uri` or `train.uri`
stands for what would be made.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from enum import Enum
from functools import cached_property
from pathlib import Path

from intent import calibration, labelled
from intent.artifacts import Artifact, ArtifactRecord, artifact_uri, file_sha256, find, fingerprint, load
from intent.artifacts.source import pinned, source_content
from intent.artifacts.variant import CASCADE, SVM, VariantSpec
from intent.catalog import Catalog
from intent.config import JobConfig, ModelConfig, TeacherConfig
from intent.engine import parity
from intent.errors import ConfigError
from intent.evaluate import gold
from intent.prompt import Prompt
from intent.train import vocabulary
from intent.train.base import adapter_folder, vocabulary_file
from intent.train.linear import SOURCES
from intent.train.merge import ADAPTER_FILES

# Bumped when the same settings give other bytes.
VERSIONS = {"base": 2, "data": 12, "checkpoint": 6, "parity": 2, "variant": 2, "svm": 2, "embedding": 1}
GOLD_SLOTS = ["action", "product", "quantity"]
# What decides where a thing is made, or of what others are made, and not what it is; and where what it is made of lies,
# whose content is an input.
PLACES = (
    "uri", "also", "device", "cpus", "workers", "pass_tokens", "group_size", "file_type", "adapter", "vocabulary", "source",
    "revision", "sha256",
)  # fmt: skip


class Lineage:
    """The artifacts of one configuration."""

    def __init__(self, config: JobConfig):
        self.config = config
        self.options = config.storage.options()
        self.schema = config.schema.schema()

    @cached_property
    def catalog(self) -> Catalog:
        """Raises ConfigError where `catalog` cannot be read. Empty for a schema that uses none."""
        if not self.schema.uses_catalog:
            return Catalog(())
        return Catalog.read(self.config.catalog, self.config.catalog_column, self.options)

    def check(self) -> None:
        """What a job reads itself, so that it is refused before a cluster is up. Raises ConfigError."""
        _ = self.catalog

    @cached_property
    def prompt(self) -> Prompt:
        return Prompt(self.schema, self.catalog.names)

    @cached_property
    def labelled_files(self) -> dict[str, bytes]:
        """The files of `labelled.uri`, by key. Raises ConfigError where it holds none."""
        return labelled.read_files(self.config.labelled.uri, self.options)

    @property
    def schema_fingerprint(self) -> str:
        return fingerprint(self.schema.identity())

    @cached_property
    def model(self) -> ModelConfig:
        """The base model, as the job's tasks are to load it: from one commit, and from a folder by its absolute path."""
        return pinned(self.config.model)

    @cached_property
    def _source(self) -> str:
        return source_content(self.model)

    def base_record(self) -> ArtifactRecord:
        inputs, adapter = {"source": self._source}, self.config.model.adapter
        if adapter:
            inputs["adapter"] = _content(adapter_folder(adapter), (*ADAPTER_FILES, calibration.FILE))
        if self.config.model.vocabulary != vocabulary.FULL:
            inputs["vocabulary"] = file_sha256(vocabulary_file(self.config.model.vocabulary))
        return self._record("base", self.config.model, inputs)

    def data_record(self) -> ArtifactRecord:
        inputs = {"schema": self.schema_fingerprint, "catalog": self._catalog_fingerprint()}
        if self.config.labelled.uri:
            inputs["labelled"] = labelled.fingerprint_of(self.labelled_files)
            return self._record("data", self.config.labelled, inputs)
        if self.config.teacher.messages:
            inputs["teacher"] = fingerprint(_saying(self.config.teacher))
        return self._record("data", self.config.data, inputs)

    def checkpoint_record(self) -> ArtifactRecord:
        data = self.data().fingerprint if self.config.data.uri else self.data_record().fingerprint
        inputs = {"base": self.base_record().fingerprint, "data": data, "schema": self.schema_fingerprint}
        if adapter := self.config.train.adapter:
            inputs["adapter"] = _content(adapter_folder(adapter, "train.adapter"), ADAPTER_FILES)
        if self.config.train.also:
            inputs["also"] = fingerprint([other.fingerprint for other in self.also()])
        return self._record("checkpoint", self.config.train, inputs, codec=self.config.codec.value)

    def variant_record(self, checkpoint: Artifact, spec: VariantSpec) -> ArtifactRecord:
        settings = {"name": spec.name, "version": VERSIONS["variant"], "codec": checkpoint.record.config["codec"]}
        if spec.engine == "gptq" or spec.imatrix:
            settings["calibration_messages"] = self.config.quant.calibration_messages
        inputs = {"checkpoint": checkpoint.fingerprint, "schema": checkpoint.record.inputs["schema"]}
        return ArtifactRecord(f"variant-{spec.name}", settings, inputs)

    def linear_record(self, spec: VariantSpec) -> ArtifactRecord:
        settings = {"name": spec.name, "version": VERSIONS[spec.engine], "codec": spec.engine}
        inputs = {"data": self.data().fingerprint, "schema": self.schema_fingerprint}
        inputs |= {"source": SOURCES[spec.source].sha256} if spec.source else {}
        return ArtifactRecord(f"variant-{spec.name}", settings, inputs)

    def cascade_record(self, spec: VariantSpec, svm: Artifact, model: Artifact) -> ArtifactRecord:
        settings = {"name": spec.name, "version": VERSIONS["svm"], "codec": model.record.config["codec"]}
        settings |= {"precision": self.config.quant.cascade_precision}
        inputs = {"svm": svm.fingerprint, "model": model.fingerprint, "schema": self.schema_fingerprint}
        return ArtifactRecord(f"variant-{spec.name}", settings, inputs)

    def parity_record(self, checkpoint: Artifact, data: Artifact) -> ArtifactRecord:
        settings = {"codec": checkpoint.record.config["codec"], "messages": parity.MESSAGES, "version": VERSIONS["parity"]}
        return ArtifactRecord("parity", settings, {"checkpoint": checkpoint.fingerprint, "data": data.fingerprint})

    def data(self) -> Artifact:
        return self._find(self.config.data.uri, self.data_record, "data.uri", "jobs.generate")

    def also(self) -> list[Artifact]:
        """The data sets of `train.also`. Raises ConfigError where one is none."""
        return [self._find(uri, self.data_record, "train.also", "jobs.generate") for uri in self.config.train.also]

    def base(self) -> Artifact:
        return self._find(None, self.base_record, "", "jobs.train")

    def held_out(self) -> Artifact:
        """What variants are measured on: the data set's own held-out messages, or with `gold` a half of the gold set."""
        if self.config.gold is None:
            return self.data()
        if self.schema.names != GOLD_SLOTS:
            remedy = "use schema=cart or schema=basket, or leave it out"
            raise ConfigError("gold", self.config.gold.value, f"is labelled with {GOLD_SLOTS}; {remedy}")
        return gold.publish(self.config.gold.value, self.config.workspace, self.options, lists=self.schema.repeat > 1)

    def checkpoint(self) -> Artifact:
        return self._find(self.config.train.uri, self.checkpoint_record, "train.uri", "jobs.train")

    def variant(self, spec: VariantSpec) -> Artifact:
        if spec.engine == "base":
            return self.base()
        if spec.engine == "reference":
            return self.checkpoint()
        return self._find(None, lambda: self._variant_record(spec), "", f"jobs.quantize quant.variants=[{spec.name}]")

    def _variant_record(self, spec: VariantSpec) -> ArtifactRecord:
        if spec.linear:
            return self.linear_record(spec)
        if spec.engine == CASCADE:
            return self.cascade_record(spec, self.variant(VariantSpec.parse(SVM)), self.variant(spec.model))
        return self.variant_record(self.checkpoint(), spec)

    def _find(self, uri: str | None, record: Callable[[], ArtifactRecord], field: str, job: str) -> Artifact:
        if uri:
            found = find(uri, self.options)
            if found is None:
                raise ConfigError(field, uri, "holds no finished artifact (no record.json)")
            return found
        where = artifact_uri(self.config.workspace, record())
        return load(where, f"run python -m {job} with the same settings first", self.options)

    def _record(self, kind: str, settings: object, inputs: dict, **more) -> ArtifactRecord:
        named = {key: value.value if isinstance(value, Enum) else value for key, value in asdict(settings).items()}
        kept = {key: value for key, value in named.items() if key not in PLACES}
        return ArtifactRecord(kind, kept | more | {"version": VERSIONS[kind]}, inputs)

    def _catalog_fingerprint(self) -> str:
        return fingerprint(self.catalog.names)


def _content(folder: Path, names: Sequence[str]) -> str:
    """Of those of the files `names` that the folder has."""
    return fingerprint({name: file_sha256(folder / name) for name in names if (folder / name).exists()})


def _saying(teacher: TeacherConfig) -> dict:
    """What decides a teacher's answers; how fast it is asked, and at what price, does not."""
    endpoint = teacher.endpoint
    asked = {"model": endpoint.model, "url": endpoint.url, "options": endpoint.options}
    return {**asdict(teacher), "endpoint": asked}


def require_matching(artifact: Artifact, lineage: Lineage) -> None:
    """Raises ConfigError where a variant was trained for another schema than the job's; a base was trained for none."""
    if artifact.record.kind != "base" and artifact.record.inputs.get("schema") != lineage.schema_fingerprint:
        raise ConfigError(
            "schema", lineage.schema.name, f"{artifact.uri} was trained for another schema; use that one or train again"
        )
