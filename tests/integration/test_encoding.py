"""A data set of many files is encoded by many tasks, to the same messages as one file by one."""

import json
import shutil
from types import SimpleNamespace

import pytest

from intent import artifacts
from intent.artifacts import ArtifactRecord
from intent.config import TrainConfig
from intent.storage import StorageOptions
from intent.synth import dataset
from intent.synth.corpus import Corpus
from intent.synth.example import to_table
from intent.train.runner import TrainRequest, _encoded
from tests.tiny import CART, write_checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]


def request(tmp_path, monkeypatch, rows_per_file: int) -> TrainRequest:
    monkeypatch.setattr(dataset, "ROWS_PER_FILE", rows_per_file)
    corpus = Corpus(CART, ["en", "hr"], 1)

    def write(folder):
        for key, data in dataset.split_files("train", to_table(corpus.examples(0, 200))):
            (folder / key).write_bytes(data)
        (folder / dataset.CATALOGS).write_text(json.dumps(corpus.catalogs(0, 200)))

    def copy(folder):
        shutil.copytree(write_checkpoint(tmp_path / "base"), folder, dirs_exist_ok=True)

    data = artifacts.make(str(tmp_path), ArtifactRecord("data", {"rows": rows_per_file}, {}), write)
    base = artifacts.make(str(tmp_path), ArtifactRecord("base", {}, {}), copy)
    return TrainRequest(base, data, StorageOptions(), CART, "compact", TrainConfig())


def test_many_files_are_encoded_to_the_same_messages(tmp_path, monkeypatch):
    silent = SimpleNamespace(step=lambda done, total, text: None)
    whole, parts = (_encoded(request(tmp_path, monkeypatch, size), "train", silent) for size in (1000, 60))
    assert len(parts) >= len(whole) == 5
    assert [row for group in parts for row in group.rows] == [row for group in whole for row in group.rows]
