"""The teacher against llama-cpp-python's own server, serving the embedded default's GGUF."""

import pytest

from intent.artifacts import Files
from intent.artifacts.lineage import Lineage
from intent.config import JobConfig
from intent.dataset import dataset
from intent.dataset.dataset import read_split
from intent.synth.config import CatalogSource
from jobs.app import load_config
from jobs.generate import generate

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]


def config(url: str, workspace) -> JobConfig:
    overrides = [f"workspace={workspace}", "data.train=60", "data.validation=4", "data.test=4", "data.languages=[en]"]
    overrides += ["teacher.messages=3", "teacher.variants=2", "teacher.endpoint.model=smollm2", f"teacher.endpoint.url={url}"]
    overrides += ["teacher.endpoint.concurrency=2", "+teacher.endpoint.options.max_tokens=24", "+data.phenomena.typo=0"]
    made = load_config("generate", overrides)
    assert made.data.catalogs is CatalogSource.given
    return made


def test_a_real_server_is_asked_once_and_every_answer_is_accounted_for(smollm2_url, tmp_path):
    first = Lineage(config(smollm2_url, tmp_path / "a"))
    made = generate(first, first.config.data)
    metrics = made.record.metrics["teacher"]
    assert metrics["accepted"] + sum(metrics["rejected"].values()) == 3 * 2
    assert metrics["asked"] >= 3 and metrics["input_tokens"] > 300 and metrics["output_tokens"] > 0 and metrics["failed"] == 0
    examples = read_split(Files(made), "train")
    assert sum(e.generator == "teacher:smollm2" for e in examples) == metrics["accepted"]
    assert not any("typo" in example.phenomena for example in examples)
    assert "## Teacher" in Files(made).read(dataset.CARD).decode()

    # A job that was interrupted before it published its data set reuses the answers.
    answers = tmp_path / "b" / "endpoint"
    answers.parent.mkdir()
    (tmp_path / "a" / "endpoint").rename(answers)
    again = Lineage(config(smollm2_url, tmp_path / "b"))
    retold = generate(again, again.config.data).record.metrics["teacher"]
    assert retold["cached"] == retold["asked"] == metrics["asked"] and retold["spent"] == 0
    assert {k: v for k, v in retold.items() if k not in ("cached", "spent")} == {
        k: v for k, v in metrics.items() if k not in ("cached", "spent")
    }
