"""Command lines of jobs: arguments, several runs, and errors of Ray tasks."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
import yaml

from intent.artifacts import ArtifactRecord
from intent.artifacts.lineage import Lineage
from intent.config import BenchmarkConfig, ClassifyConfig, NightlyConfig
from intent.engine.config import OutputFormat
from intent.errors import ConfigError, IntentError
from intent.quantize.config import QuantConfig
from intent.run.config import ClusterConfig, ClusterMode, FleetConfig
from intent.train.config import ModelConfig, TrainConfig
from jobs.app import _exit_code, _placed, _start, cluster, load_config
from jobs.nodes import task_cpus

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


def test_old_names_of_settings_work_and_name_the_new_ones(capsys):
    assert load_config("train", ["codec=pointing"]).output_format is OutputFormat.entity_first
    assert "warning: codec=pointing: the setting was renamed; use output_format=entity_first" in capsys.readouterr().err
    formats = load_config("benchmark", ["codecs=[pointing,json]"], BenchmarkConfig).output_formats
    assert formats == [OutputFormat.entity_first, OutputFormat.json]
    assert "use output_formats=[entity_first,json]" in capsys.readouterr().err
    assert load_config("train", ["output_format=compact"]).output_format is OutputFormat.compact
    assert not capsys.readouterr().err
    engine = load_config("train", ["engine.parity_messages=5", "++engine.parity_disagreement=0.2"]).engine
    assert (engine.golden_messages, engine.golden_disagreement) == (5, 0.2)
    warnings = capsys.readouterr().err
    assert "engine.parity_messages=5: the setting was renamed; use engine.golden_messages=5" in warnings
    assert "use ++engine.golden_disagreement=0.2" in warnings
    addresses = ['input="/log/{date}"', 'output="/labels/{date}"']
    assert load_config("nightly", [*addresses, "gate.nights=3"], NightlyConfig).gate.runs == 3
    benchmark = load_config("benchmark", ["night=[1000]", "nights=7"], BenchmarkConfig)
    assert (benchmark.run_rows, benchmark.runs) == ([1000], 7)
    warnings = capsys.readouterr().err
    assert all(f"use {current}" in warnings for current in ("gate.runs=3", "run_rows=[1000]", "runs=7"))
    # Records of existing models.
    old = [ArtifactRecord("checkpoint", {"codec": codec}, {}).output_format for codec in ("pointing", "json")]
    assert old == ["entity_first", "json"] and ArtifactRecord("svm", {}, {}).output_format == ""


def test_old_names_of_settings_work_in_yaml_files(tmp_path, capsys):
    files = {
        "engine/mine": "parity_messages: 5",
        "experiment/mine": "# @package _global_\ncodec: pointing\nengine: {NAME: 0.2}\ngate: {nights: 3}",
    }
    for name, text in files.items():
        path = tmp_path / f"{name}.yaml"
        path.parent.mkdir()
        path.write_text(text.replace("NAME", "parity_disagreement"))
    chosen = [f"hydra.searchpath=[file://{tmp_path}]", "engine=mine", "+experiment=mine"]
    config = load_config("nightly", [*chosen, 'input="/log/{date}"', 'output="/labels/{date}"'], NightlyConfig)
    assert (config.engine.golden_messages, config.engine.golden_disagreement) == (5, 0.2)
    assert config.output_format is OutputFormat.entity_first and config.gate.runs == 3
    warnings = capsys.readouterr().err
    assert "parity_messages, line 1 of a YAML file: the setting was renamed; use golden_messages" in warnings
    assert "engine.parity_disagreement, line 3 of a YAML file: the setting was renamed; use golden_disagreement" in warnings
    assert "gate.nights, line 4 of a YAML file: the setting was renamed; use runs" in warnings
    assert "codec, line 2 of a YAML file: the setting was renamed; use output_format" in warnings


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
    embedded = load_config("train", ["model=smollm2_135m"])
    assert embedded.engine.otherwise == ["gptq-w4g64", "gguf-Q4_0"]
    other = load_config("train", ["model=smollm2_135m", "model.group_size=32", "model.file_type=F16"])
    assert Lineage(other).base_record() == Lineage(embedded).base_record(), "the base is the same"


def test_a_task_asks_a_local_cluster_for_no_more_cpus_than_it_has(monkeypatch):
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 1.0})
    assert task_cpus(ClusterConfig(), 2) == 1
    assert task_cpus(ClusterConfig(mode=ClusterMode.attach), 2) == 2, "a node of that size may join"


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("output=2026_11_23", lambda config: config.output.endswith("/2026_11_23")),
        ("output=1.10", lambda config: config.output.endswith("/1.10")),
        ("output=~/labels", lambda config: config.output == os.path.expanduser("~/labels")),
        ("output=./~/labels", lambda config: config.output.endswith("/~/labels")),
        ("output=s3://shop/crème#1", lambda config: config.output == "s3://shop/crème#1"),
        ("id_column=007", lambda config: config.id_column == "007"),
        ("id_column=1e3", lambda config: config.id_column == "1e3"),
        ("message_column=true", lambda config: config.message_column == "true"),
        ("keep_columns=[yes,1.10,2026_11_23]", lambda config: config.keep_columns == ["yes", "1.10", "2026_11_23"]),
        ("data.languages=[en,no]", lambda config: config.data.languages == ["en", "no"]),
        ("models=null", lambda config: config.models is None),
        ("data.seed=1_0", lambda config: config.data.seed == 10),
    ],
)
def test_paths_and_names_are_taken_as_they_are_written(override, read):
    assert read(load_config("classify", ["input=in", "output=out", override], ClassifyConfig))


@pytest.mark.parametrize("value", ["s3://shop/dt=2026-11-23", "s3://shop/{date}", "a(1)"])
def test_a_value_that_needs_quotes_is_refused_with_them(value, command_lines):
    done = command_lines.run("classify", "input=in", f"output={value}")
    assert done.returncode == 2 and done.stderr == f"error: output='{value}': must be quoted: 'output=\"{value}\"'\n"
    quoted = load_config("classify", ["input=in", f'output="{value}"'], ClassifyConfig)
    assert quoted.output.endswith(value)


def test_labels_in_a_file_are_text(command_lines, tmp_path):
    (tmp_path / "schema").mkdir()
    labels = "[yes, no, on, off, true, null, 1.10, 2026_11_23, 12:30, 010, plain]"
    (tmp_path / "schema/mine.yaml").write_text(
        f"name: 1.10\ninstruction: Choose.\nslots:\n  - {{kind: choice, name: on, values: {labels}, ends: [no]}}\n"
    )
    done = command_lines.run("generate", "--config-dir", str(tmp_path), "schema=mine", "--cfg", "job", "--package", "schema")
    assert done.returncode == 0, done.stderr
    read = yaml.safe_load(done.stdout)
    (slot,) = read["slots"]
    assert slot["values"] == ["yes", "no", "on", "off", "true", "null", "1.10", "2026_11_23", "12:30", "010", "plain"]
    assert (read["name"], slot["name"], slot["ends"], slot["max"]) == ("1.10", "on", ["no"], 99)


@pytest.mark.parametrize(
    "override",
    ["input=in", "output=out", "output=~/out", "workspace=w", "catalog=c.csv", "models=m/models.json", "labelled.uri=l.csv",
     "data.uri=d", "train.uri=t", "train.adapter=a", "gate.gold=g.csv"],
)  # fmt: skip
def test_a_place_that_only_this_machine_knows_is_refused_on_a_cluster(override):
    placed = [
        "input=s3://shop/{date}",
        "output=/mnt/{date}",
        "workspace=s3://shop/w",
        "catalog=s3://shop/p.csv",
        "cluster=attach",
    ]
    placed = [f"{name}='{value}'" for name, value in (each.split("=") for each in placed[:-1])] + placed[-1:]
    load_config("nightly", placed, NightlyConfig)
    name, value = override.split("=")
    with pytest.raises(ConfigError, match=rf"^{name}='{value}': is relative to .* give s3://bucket/prefix, or a path from /"):
        load_config("nightly", [*placed, override], NightlyConfig)


def test_a_catalog_that_no_slot_names_is_not_asked_for_on_a_cluster():
    config = load_config("train", ["cluster=attach", "workspace=/mnt/w", "schema=labels", "catalog=here.csv"])
    assert config.catalog.endswith("here.csv"), "a relative one is refused only where it is read"


def test_what_cannot_be_written_to_is_refused_before_any_work(command_lines, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for uri in (tmp_path / "file", tmp_path / "file/below"):
        done = command_lines.run("classify", f"input={tmp_path}", f"output={uri}")
        assert done.returncode == 2 and done.stderr == f"error: output='{uri}': {tmp_path}/file is a file; name a folder\n"
    config = load_config("classify", ["input=in", f"output={tmp_path}/new/labels"], ClassifyConfig)
    assert _placed(config) is config and not (tmp_path / "new").exists()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ConfigError, match=rf"output='{tmp_path}/new/labels': {tmp_path} may not be written to"):
        _placed(config)


def test_a_variable_that_is_not_set_is_named(command_lines):
    done = command_lines.run("train", "workspace=${oc.env:NOT_SET}/w")
    assert done.returncode == 2 and done.stderr.startswith("error: workspace=''") and "NOT_SET" in done.stderr, done.stderr


def test_a_temporary_folder_that_is_too_long_for_sockets_is_named(monkeypatch, tmp_path):
    def refuse(**options):
        raise OSError("validate_socket_filename failed: AF_UNIX path length cannot exceed 107 bytes: ...")

    # Another test's cluster may run in this process.
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setenv("TMPDIR", "/long")
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    with (
        pytest.raises(ConfigError, match="^TMPDIR='/long': is too long for Ray's sockets; set RAY_TMPDIR"),
        cluster(ClusterConfig()),
    ):
        pass


PRINTS = """
import sys

import jobs.app

@jobs.app.job("train")
def main(config):
    print("crème", file=sys.stderr, flush=True)
    jobs.app.say("crème " * 20_000)

main()
"""


@pytest.mark.parametrize("output", ["ascii", "closed", "full"])
def test_nothing_fails_on_printing(output, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | ({"PYTHONIOENCODING": "ascii"} if output == "ascii" else {})
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs/train.py").write_text(PRINTS)
    command = [sys.executable, tmp_path / "jobs/train.py", f"workspace={tmp_path}"]
    reader, writer = os.pipe()
    where = {"ascii": tmp_path / "output", "closed": f"/dev/fd/{writer}", "full": "/dev/full"}[output]
    with open(where, "w") as stream:
        os.close(reader)
        done = subprocess.run(command, cwd=tmp_path, env=environment, stdout=stream, stderr=stream, timeout=120)
    os.close(writer)
    assert done.returncode == 0
    if output == "ascii":
        assert (tmp_path / "output").read_bytes().startswith(rb"cr\xe8me")


def test_a_machine_too_busy_to_start_ray_is_reported_in_one_line():
    ended = []

    def init(**options):
        raise Exception("The current node timed out during startup. This could happen because ...")

    busy = SimpleNamespace(init=init, shutdown=lambda: ended.append(True))
    with pytest.raises(IntentError, match="Ray did not start within 30 seconds: this machine is busy"):
        _start(busy, ClusterConfig())
    assert ended
