"""What a job's command line does with several runs, and with an error that comes from a Ray task."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from intent.artifacts.lineage import Lineage
from intent.config import ClusterConfig, ClusterMode, FleetConfig, ModelConfig, QuantConfig, TrainConfig
from intent.errors import ConfigError
from jobs.app import _exit_code, load_config
from jobs.nodes import room

ROOT = Path(__file__).parents[2]


def test_of_several_runs_each_is_made_and_the_exit_code_is_the_worst(tmp_path):
    command = [sys.executable, "-m", "jobs.quantize", "-m", "quant.variants=[gptq-w4g0],[gguf-Q9],[gguf-Q1]"]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2, done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: quant.variants")]
    assert [name in line for name, line in zip(("gptq-w4g0", "gguf-Q9", "gguf-Q1"), lines, strict=True)] == [True] * 3
    assert not list(tmp_path.glob("*.yaml"))


def test_an_error_of_a_task_is_one_line(capsys):
    def run():
        raise ray.exceptions.RayTaskError("f", "Traceback\n" * 30, ConfigError("a.b", 1, "use 2")).as_instanceof_cause()

    assert _exit_code(run) == 2
    assert capsys.readouterr().err.strip() == "error: a.b=1: use 2"


def test_an_exit_code_of_a_job_is_kept():
    assert _exit_code(lambda: sys.exit(7)) == 7
    assert _exit_code(lambda: None) == 0
    with pytest.raises(ZeroDivisionError):
        _exit_code(lambda: 1 / 0)


@pytest.mark.parametrize(
    ("config", "values"),
    [
        (FleetConfig, {"gguf_actors": 0}),
        (FleetConfig, {"gptq_actors": -1}),
        (TrainConfig, {"validate_every": 0}),
        (TrainConfig, {"cpus": -1}),
        (QuantConfig, {"cpus": 0}),
        (ClusterConfig, {"cpus": 0}),
        (ClusterConfig, {"prices": {"gpus": 1.0}}),
        (ClusterConfig, {"prices": {"CPU": 1.0}}),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_name(config, values):
    (name,) = values
    with pytest.raises(ConfigError, match=rf"^\w+\.{name}"):
        config(**values)


def test_a_hash_of_another_file_than_the_models_is_not_ignored():
    with pytest.raises(ConfigError, match=r"model\.sha256=.*model\.sha256=null"):
        ModelConfig("m", "ORG/NAME", sha256="00")
    assert ClusterConfig(prices={"cpu": 0.1, "Tesla T4": 1.0}).prices["Tesla T4"] == 1.0


def test_a_model_brings_its_hyper_parameters_and_the_command_line_goes_before_them():
    paper = load_config("train", ["model=llama32_1b"])
    assert (paper.train.rank, paper.train.alpha, paper.train.learning_rate, paper.train.epochs) == (16, 32, 2e-4, 3)
    assert paper.quant.variants == paper.engine.otherwise == ["gptq-w4g128", "gguf-Q4_K_M"]
    named = load_config(
        "train", ["model=llama32_1b", "train.epochs=1", "engine=gptq", "quant=short", "quant.variants=[gguf-F16]"]
    )
    assert (named.train.epochs, named.quant.variants, named.engine.variants) == (1, ["gguf-F16"], ["gptq-w4g128"])
    embedded = load_config("train", [])
    assert embedded.engine.otherwise == ["gptq-w4g64", "gguf-Q4_K_M"]
    other = load_config("train", ["model.group_size=32"])
    assert Lineage(other).base_record() == Lineage(embedded).base_record(), "the base is the same"


def test_a_task_asks_a_local_cluster_for_no_more_cpus_than_it_has(monkeypatch):
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 1.0})
    assert room(ClusterConfig(), 2) == 1
    assert room(ClusterConfig(mode=ClusterMode.attach), 2) == 2, "a node of that size may join"
