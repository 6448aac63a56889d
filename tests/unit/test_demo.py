"""The demo reports weak variants, and writes a complete log."""

import pyarrow.parquet as pq
import pytest

from intent.artifacts.lineage import Lineage
from intent.config import ClassifyConfig
from intent.storage import open_store
from jobs import demo
from jobs.app import load_config


def row(exact: float, lost: float) -> dict:
    return {"score": {"exact": exact}, "loss": [lost, lost - 0.01, lost + 0.01]}


def test_a_variant_that_is_less_exact_than_it_should_be_is_named():
    fine = {"reference": row(0.96, 0), "gguf-Q4_K_M": row(0.942, 0.018), "gguf-Q2_K": {"reason": "MemoryError"}}
    assert demo.weak(fine) == ""
    lines = demo.weak(fine | {"gptq-w4g64": row(0.955, 0.025), "svm": {"score": {"exact": 0.85}, "loss": None}})
    assert lines.endswith(": gptq-w4g64 (0.955), svm (0.850)") and "below 0.9, or more than 0.02" in lines


def test_each_phase_and_all_of_them_say_how_long_they_took(capsys):
    now = [100.0]
    phases = demo.Phases(clock=lambda: now[0])

    def work(seconds: float):
        now[0] += seconds
        return seconds

    now[0] += 7
    assert phases.run("generate", "generate 3,000 labelled messages", lambda: work(12)) == 12
    phases.run("train", "fine-tune", lambda: work(240))
    output = capsys.readouterr().out
    assert "== generate 3,000 labelled messages\n   generate took 0:00:12\n" in output and "train took 0:04:00" in output
    assert str(phases) == "all of it took 0:04:19: generate 0:00:12, train 0:04:00"


def test_a_log_that_was_cut_off_is_written_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "DISTINCT", 100)
    config = load_config("classify", [f"workspace={tmp_path}", "input=x", "output=y"], ClassifyConfig)
    store = open_store(f"{tmp_path}/log")

    class Full:
        def stat(self, key):
            return store.stat(key)

        def put(self, key, data):
            if key == "part-2.parquet":
                raise OSError("no space left")
            store.put(key, data)

    with pytest.raises(OSError):
        demo.write_log(Full(), Lineage(config), config.data)
    demo.write_log(store, Lineage(config), config.data)
    assert sum(pq.read_table(path).num_rows for path in (tmp_path / "log").glob("*.parquet")) == 20_000
