"""Find the artifacts of a configuration, so that a job finds what an earlier job made with the same settings.

A checkpoint has a base and a data set as inputs, and a variant has a checkpoint. The fingerprint of an artifact's own settings
and inputs names its folder in the workspace. Inputs count by content, never by location. `data.uri` and `train.uri` name
another artifact instead. Without training (train.epochs=0), the checkpoint is the base, and neither it nor its variants depend
on the catalog.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from intent.artifacts import Artifact, ArtifactRecord, artifact_uri, file_sha256, find, fingerprint, load
from intent.artifacts.source import pinned, source_content
from intent.artifacts.variant import SVM, VariantSpec
from intent.config import JobConfig
from intent.dataset import labelled
from intent.engine import calibration, golden_set
from intent.errors import ConfigError
from intent.evaluate import gold
from intent.retrieve import retriever
from intent.retrieve.index import BORDER, CORE
from intent.retrieve.retriever import SHIPPED
from intent.synth import language
from intent.synth.config import CatalogSource, DataConfig, TeacherConfig
from intent.task.catalog import Catalog
from intent.task.prompt import Prompt
from intent.train import vocabulary
from intent.train.base import adapter_folder, vocabulary_file
from intent.train.config import ModelConfig
from intent.train.linear import SOURCES
from intent.train.merge import ADAPTER_FILES

# Raise a version when the same settings produce different bytes.
VERSIONS = {"base": 2, "data": 20, "checkpoint": 7, "parity": 3, "variant": 2, "svm": 2, "embedding": 1, "shelves": 1}
GOLD_SLOTS = ["action", "product", "quantity"]
# Fields that do not affect an artifact's content. Locations are among them, because the content there is an input itself.
EXCLUDED = (
    "uri", "also", "device", "cpus", "workers", "pass_tokens", "group_size", "file_type", "adapter", "vocabulary", "source",
    "revision", "sha256",
)  # fmt: skip
# The messages that calibrate and check the variants of a model without training.
MANY_CATALOGS = DataConfig(catalogs=CatalogSource.sampled, train=1024, validation=480, test=1)

C = TypeVar("C", bound=JobConfig)


class Lineage(Generic[C]):
    """The artifacts of one configuration."""

    def __init__(self, config: C):
        self.config = config
        self.options = config.storage.options()
        self.schema = config.schema.schema()

    @cached_property
    def catalog(self) -> Catalog:
        """Return the catalog, empty for a schema that uses none. Raises ConfigError if it cannot be read."""
        if not self.schema.uses_catalog:
            return Catalog(())
        return Catalog.read(self.config.catalog, self.config.catalog_column, self.options)

    def check(self) -> None:
        """Read the job's own inputs, to raise ConfigError before a cluster starts."""
        _ = self.catalog

    @property
    def has_shelves(self) -> bool:
        """Return whether the catalog is too large for one prompt and is split into shelves."""
        return len(self.catalog.names) > self.config.shelves_above

    @cached_property
    def prompt(self) -> Prompt:
        """Return the prompt with the whole catalog, or without products if the catalog is split into shelves."""
        return Prompt(self.schema, () if self.has_shelves else self.catalog.names)

    def index_record(self) -> ArtifactRecord:
        """Return the record of the catalog's shelves."""
        inputs = {"catalog": self._catalog_fingerprint(), "retriever": file_sha256(SHIPPED / retriever.FILE)}
        return ArtifactRecord("shelves", {"core": CORE, "border": BORDER, "version": VERSIONS["shelves"]}, inputs)

    @cached_property
    def index(self) -> Artifact | None:
        """Return the catalog's shelves, or None if it has none. Raises MissingArtifact if they are not made yet."""
        return self._find(None, self.index_record, "", "jobs.classify") if self.has_shelves else None

    @cached_property
    def labelled_files(self) -> dict[str, bytes]:
        """Return the files of `labelled.uri`, by key. Raises ConfigError if there are none."""
        return labelled.read_files(str(self.config.labelled.uri), self.options)

    @property
    def schema_fingerprint(self) -> str:
        """Return the fingerprint of the schema."""
        return fingerprint(self.schema.identity())

    @cached_property
    def model(self) -> ModelConfig:
        """Return the base model with its source pinned to one commit, or to a folder's absolute path."""
        return pinned(self.config.model)

    @cached_property
    def _source(self) -> str:
        return source_content(self.model)

    def base_record(self) -> ArtifactRecord:
        """Return the record of the base model with its adapter and vocabulary."""
        inputs, adapter = {"source": self._source}, self.config.model.adapter
        if adapter:
            inputs["adapter"] = _content(adapter_folder(adapter), (*ADAPTER_FILES, calibration.FILE))
        if self.config.model.vocabulary != vocabulary.FULL:
            inputs["vocabulary"] = file_sha256(vocabulary_file(self.config.model.vocabulary))
        return self._record("base", self.config.model, inputs)

    def data_record(self) -> ArtifactRecord:
        """Return the record of the data set, labelled or generated."""
        inputs = {"schema": self.schema_fingerprint}
        if self.config.labelled.uri:
            inputs |= {"catalog": self._catalog_fingerprint(), "labelled": labelled.fingerprint_of(self.labelled_files)}
            return self._record("data", self.config.labelled, inputs)
        if self.config.data.catalogs is CatalogSource.given:
            inputs["catalog"] = self._catalog_fingerprint()
        if self.config.teacher.messages:
            inputs["teacher"] = fingerprint(_teacher_identity(self.config.teacher))
        return self._record("data", self.config.data, inputs)

    def checkpoint_record(self) -> ArtifactRecord:
        """Return the record of the trained checkpoint, or of the base as a checkpoint."""
        inputs = {"base": self.base_record().fingerprint, "schema": self.schema_fingerprint}
        if not self.config.train.epochs:
            settings = {"epochs": 0, "output_format": self.config.output_format.value, "version": VERSIONS["checkpoint"]}
            return ArtifactRecord("checkpoint", settings, inputs)
        inputs["data"] = self._data_fingerprint()
        if adapter := self.config.train.adapter:
            inputs["adapter"] = _content(adapter_folder(adapter, "train.adapter"), ADAPTER_FILES)
        if self.config.train.also:
            inputs["also"] = fingerprint([other.fingerprint for other in self.also()])
        return self._record("checkpoint", self.config.train, inputs, output_format=self.config.output_format.value)

    def variant_record(self, checkpoint: Artifact, spec: VariantSpec) -> ArtifactRecord:
        """Return the record of a checkpoint's variant."""
        settings = {"name": spec.name, "version": VERSIONS["variant"], "output_format": checkpoint.record.output_format}
        inputs = {"checkpoint": checkpoint.fingerprint, "schema": checkpoint.record.inputs["schema"]}
        if spec.calibrated:
            settings["calibration_messages"] = self.config.quant.calibration_messages
            if not is_trained(checkpoint):
                inputs["data"] = self.of_messages(checkpoint)._data_fingerprint()
        return ArtifactRecord(f"variant-{spec.name}", settings, inputs)

    def linear_record(self, spec: VariantSpec) -> ArtifactRecord:
        """Return the record of an SVM or an embedding classifier. Raises MissingArtifact without data."""
        settings = {"name": spec.name, "version": VERSIONS[spec.engine], "output_format": spec.engine}
        inputs = {"data": self.data().fingerprint, "schema": self.schema_fingerprint}
        inputs |= {"source": SOURCES[spec.source].sha256} if spec.source else {}
        return ArtifactRecord(f"variant-{spec.name}", settings, inputs)

    def cascade_record(self, spec: VariantSpec, svm: Artifact, model: Artifact) -> ArtifactRecord:
        """Return the record of a cascade of an SVM and a language model."""
        settings = {"name": spec.name, "version": VERSIONS["svm"], "output_format": model.record.output_format}
        settings |= {"precision": self.config.quant.cascade_precision}
        inputs = {"svm": svm.fingerprint, "model": model.fingerprint, "schema": self.schema_fingerprint}
        return ArtifactRecord(f"variant-{spec.name}", settings, inputs)

    def golden_set_record(self, checkpoint: Artifact, data: Artifact) -> ArtifactRecord:
        """Return the record of a checkpoint's golden set."""
        settings = {
            "output_format": checkpoint.record.output_format,
            "messages": golden_set.MESSAGES,
            "version": VERSIONS["parity"],
        }
        # The kind is part of the fingerprint, so it keeps its earlier name.
        return ArtifactRecord("parity", settings, {"checkpoint": checkpoint.fingerprint, "data": data.fingerprint})

    def of_messages(self, checkpoint: Artifact) -> "Lineage":
        """Return the lineage whose data set calibrates and checks the variants of `checkpoint`.

        This is the checkpoint's training data or the data set that the configuration names. Otherwise, a checkpoint without
        training uses a data set about many catalogs, which does not depend on the job's catalog.
        """
        if is_trained(checkpoint) or self.config.data.uri or self.config.labelled.uri:
            return self
        data = replace(MANY_CATALOGS, languages=language.available())
        return Lineage(replace(self.config, data=data, teacher=TeacherConfig()))

    def data(self) -> Artifact:
        """Return the data set. Raises MissingArtifact if it is not made yet."""
        return self._find(self.config.data.uri, self.data_record, "data.uri", "jobs.generate")

    def also(self) -> list[Artifact]:
        """Return the data sets of `train.also`. Raises ConfigError if one of them is not a data set."""
        return [self._find(uri, self.data_record, "train.also", "jobs.generate") for uri in self.config.train.also]

    def base(self) -> Artifact:
        """Return the base model. Raises MissingArtifact if it is not made yet."""
        return self._find(None, self.base_record, "", "jobs.train")

    def held_out(self) -> Artifact:
        """Return the data set that variants are measured on: the job's own or, with `gold`, one part of the gold set."""
        if self.config.gold is None:
            return self.data()
        if self.schema.names != GOLD_SLOTS:
            remedy = "use schema=cart or schema=basket, or leave it out"
            raise ConfigError("gold", self.config.gold.value, f"is labelled with {GOLD_SLOTS}; {remedy}")
        return gold.publish(self.config.gold.value, self.config.workspace, self.options, lists=self.schema.repeat > 1)

    def checkpoint(self) -> Artifact:
        """Return the checkpoint. Raises MissingArtifact if it is not made yet."""
        return self._find(self.config.train.uri, self.checkpoint_record, "train.uri", "jobs.train")

    def variant(self, spec: VariantSpec) -> Artifact:
        """Return a variant. Raises MissingArtifact if it is not made yet."""
        if spec.engine == "base":
            return self.base()
        if spec.engine == "reference":
            return self.checkpoint()
        return self._find(None, lambda: self._variant_record(spec), "", f"jobs.quantize quant.variants=[{spec.name}]")

    def _variant_record(self, spec: VariantSpec) -> ArtifactRecord:
        if spec.linear:
            return self.linear_record(spec)
        if spec.model:
            return self.cascade_record(spec, self.variant(VariantSpec.parse(SVM)), self.variant(spec.model))
        return self.variant_record(self.checkpoint(), spec)

    def _find(self, uri: str | None, record: Callable[[], ArtifactRecord], field: str, job: str) -> Artifact:
        if uri:
            artifact = find(uri, self.options)
            if artifact is None:
                raise ConfigError(field, uri, "holds no finished artifact (no record.json)")
            return artifact
        where = artifact_uri(self.config.workspace, record())
        return load(where, f"run python -m {job} with the same settings first", self.options)

    def _record(self, kind: str, settings: Any, inputs: dict, **more) -> ArtifactRecord:
        named = {key: value.value if isinstance(value, Enum) else value for key, value in asdict(settings).items()}
        relevant = {key: value for key, value in named.items() if key not in EXCLUDED}
        return ArtifactRecord(kind, relevant | more | {"version": VERSIONS[kind]}, inputs)

    def _data_fingerprint(self) -> str:
        return self.data().fingerprint if self.config.data.uri else self.data_record().fingerprint

    def _catalog_fingerprint(self) -> str:
        return fingerprint(self.catalog.names)


def _content(folder: Path, names: Sequence[str]) -> str:
    """Return a fingerprint of the files among `names` that the folder has."""
    return fingerprint({name: file_sha256(folder / name) for name in names if (folder / name).exists()})


def _teacher_identity(teacher: TeacherConfig) -> dict:
    """Return the settings that determine a teacher's answers, without its speed and price."""
    endpoint = teacher.endpoint
    identity = {"model": endpoint.model, "url": endpoint.url, "options": endpoint.options}
    return {**asdict(teacher), "endpoint": identity}


def is_trained(checkpoint: Artifact) -> bool:
    """Return whether the checkpoint was trained, and is not only the base."""
    return "data" in checkpoint.record.inputs


def matches(artifact: Artifact, lineage: Lineage) -> bool:
    """Return whether the variant fits the job's schema. A base fits every schema."""
    return artifact.record.kind == "base" or artifact.record.inputs.get("schema") == lineage.schema_fingerprint


def require_matching(artifact: Artifact, lineage: Lineage) -> None:
    """Raise ConfigError if a variant was trained for another schema than the job's."""
    if not matches(artifact, lineage):
        raise ConfigError(
            "schema", lineage.schema.name, f"{artifact.uri} was trained for another schema; use that one or train again"
        )
