"""A generated data set has no evaluation message in its training split."""

from collections import Counter

import pytest

from intent.artifacts import Files
from intent.artifacts.lineage import Lineage
from intent.dataset.dataset import CARD, SPLITS, read_catalogs, read_split
from intent.dataset.deduplicate import message_key
from intent.errors import ConfigError
from intent.synth.phenomena import SCENARIOS, SURFACE
from intent.task.schema import items_of
from jobs.app import load_config
from jobs.generate import generate

pytestmark = pytest.mark.usefixtures("ray_cluster")


def made(workspace, *overrides: str) -> Files:
    lineage = Lineage(load_config("generate", [f"workspace={workspace}", "data.languages=[en]", *overrides]))
    return Files(generate(lineage, lineage.config.data))


def test_no_evaluation_text_is_trained_on_whatever_catalog_it_is_about(tmp_path):
    """Sampled catalogs differ from split to split, and "hello there" is the same text with each of them."""
    files = made(tmp_path, "data.catalogs=sampled", "data.train=3000", "data.validation=300", "data.test=300")
    examples = {split: read_split(files, split) for split in SPLITS}
    assert {split: len(rows) for split, rows in examples.items()} == {"train": 3000, "validation": 300, "test": 300}
    texts = {split: {message_key(example.message) for example in rows} for split, rows in examples.items()}
    assert not texts["train"] & texts["test"] | texts["train"] & texts["validation"] | texts["validation"] & texts["test"]
    catalogs = read_catalogs(files)
    assert all(example.catalog in catalogs for rows in examples.values() for example in rows)
    # The same text about other products teaches the model to select, so a text may repeat within a split.
    pairs = [(example.catalog, message_key(example.message)) for example in examples["train"]]
    assert len(set(pairs)) == 3000 > len(texts["train"])


@pytest.mark.parametrize(("catalogs", "test"), [("given", 300), ("sampled", 4000)])
def test_more_messages_than_there_are_is_refused_and_not_waited_for(tmp_path, monkeypatch, catalogs, test):
    """The generator knows some 340 different pieces of English small talk."""
    monkeypatch.setattr("jobs.generate.BARREN_TASKS", 3)
    silent = [f"+data.phenomena.{name}=0" for name in (*SCENARIOS, *SURFACE) if name != "small_talk"]
    with pytest.raises(ConfigError, match=r"data\.\w+=\d+: only [\d,]+ different messages can be generated; ask for fewer"):
        made(tmp_path, f"data.catalogs={catalogs}", f"data.test={test}", "data.validation=400", *silent)


def test_a_schema_that_repeats_gives_a_data_set_of_lists_with_its_card(tmp_path):
    sizes = ["data.train=400", "data.validation=60", "data.test=60"]
    lineage = Lineage(load_config("generate", [f"workspace={tmp_path}", "schema=basket", *sizes]))
    data = generate(lineage, lineage.config.data)
    examples = read_split(Files(data), "train")
    lengths = Counter(str(len(items_of(example.intent))) for example in examples)
    assert data.record.metrics["items"] == dict(sorted(lengths.items())) and len(lengths) >= 5
    assert "## Items a message" in Files(data).read(CARD).decode()
