"""Many tasks encode a data set of many files to the same messages as one task encodes one file."""

import shutil
from functools import partial
from types import SimpleNamespace

import pytest

from intent import artifacts
from intent.artifacts import ArtifactRecord
from intent.dataset import dataset
from intent.dataset.example import to_table
from intent.storage import StorageOptions
from intent.synth.corpus import Corpus
from intent.task.schema import IntentSchema
from intent.train.config import TrainConfig
from intent.train.runner import TrainRequest, _encoded
from tests.tiny import BASKET, CART, write_checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]


def request(tmp_path, monkeypatch, rows_per_file: int, *schemas: IntentSchema) -> TrainRequest:
    monkeypatch.setattr(dataset, "ROWS_PER_FILE", rows_per_file)

    def write(folder, schema):
        corpus = Corpus(schema, ["en", "hr"], 1)
        for key, data in dataset.split_files("train", to_table(corpus.examples(0, 200))):
            (folder / key).write_bytes(data)
        dataset.write_catalogs(folder, corpus.catalogs(0, 200))
        dataset.write_schema(folder, schema)

    def copy(folder):
        shutil.copytree(write_checkpoint(tmp_path / "base"), folder, dirs_exist_ok=True)

    data = tuple(
        artifacts.make(
            str(tmp_path), ArtifactRecord("data", {"rows": rows_per_file, "of": schema.name}, {}), partial(write, schema=schema)
        )
        for schema in schemas
    )
    base = artifacts.make(str(tmp_path), ArtifactRecord("base", {}, {}), copy)
    return TrainRequest(base, data, StorageOptions(), "entity_first", TrainConfig())


def test_many_files_are_encoded_to_the_same_messages(tmp_path, monkeypatch):
    silent = SimpleNamespace(step=lambda done, total, text: None)
    whole, parts = (_encoded(request(tmp_path, monkeypatch, size, CART), "train", silent) for size in (1000, 60))
    assert len(parts) >= len(whole) == 5
    assert [row for group in parts for row in group.rows] == [row for group in whole for row in group.rows]


def test_data_sets_of_two_schemas_are_trained_on_together_each_asked_in_its_own_way(tmp_path, monkeypatch):
    silent = SimpleNamespace(step=lambda done, total, text: None)
    groups = _encoded(request(tmp_path, monkeypatch, 1000, CART, BASKET), "train", silent)
    assert {group.automaton.schema.name for group in groups} == {CART.name, BASKET.name}
    assert sum(len(group.rows) for group in groups) == 400
    assert {group.automaton.schema == (CART if group.automaton.schema.repeat == 1 else BASKET) for group in groups} == {True}
