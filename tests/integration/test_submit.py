"""The command line that users script against: on a mini-cluster, and by `ray job submit` on a running cluster."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
import runs
from servers import RayHead

from intent import artifacts
from intent.artifacts import ArtifactRecord
from intent.artifacts.lineage import Lineage
from intent.artifacts.registry import publish_models
from intent.artifacts.variant import VariantSpec
from intent.dataset import dataset
from intent.storage import StorageOptions, open_store
from jobs.app import load_config
from tests.tiny import write_checkpoint

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """A workspace with one GGUF variant of a random model."""
    from intent.quantize import gguf
    from intent.train.merge import copy_tokenizer

    workspace, checkpoint = tmp_path_factory.mktemp("models"), write_checkpoint(tmp_path_factory.mktemp("tiny"))
    schema = Lineage(load_config("generate", [])).schema_fingerprint
    record = ArtifactRecord("variant-gguf-Q8_0", {"output_format": "compact"}, {"schema": schema})

    def build(folder: Path) -> None:
        gguf.make(checkpoint, folder / "model.gguf", VariantSpec.parse("gguf-Q8_0"), 1)
        copy_tokenizer(checkpoint, folder)

    publish_models(str(workspace), {"gguf-Q8_0": artifacts.make(str(workspace), record, build)}, StorageOptions())
    return workspace


@pytest.fixture
def folder(tmp_path) -> Path:
    table = pa.table({"query": ["a", "b", "c", "d"], "text": ["add milk", "no eggs", None, "hello"], "store": [1, 2, 3, 4]})
    open_store(str(tmp_path / "in")).put("log.parquet", dataset.parquet(table))
    (tmp_path / "mine.csv").write_text("name\nMilk\nEggs\n")
    return tmp_path


def arguments(models: Path, folder: Path) -> list[str]:
    return [
        f"input={folder}/in",
        f"output={folder}/out",
        f"catalog={folder}/mine.csv",
        "engine=gguf",
        "engine.variants=[gguf-Q8_0]",
        f"workspace={models}",
        "id_column=query",
        "message_column=text",
        "keep_columns=[store]",
    ]


def check(folder: Path) -> None:
    runs.check_run(str(folder), id_column="query")
    rows = runs.read(open_store(f"{folder}/out"), "labelled/").sort_by("id").to_pylist()
    assert [(row["id"], row["store"]) for row in rows] == [("a", 1), ("b", 2), ("d", 4)]
    assert all(row["product"] in ("Milk", "Eggs", None) and row["variant"] == "gguf-Q8_0" for row in rows)
    assert runs.read(open_store(f"{folder}/out"), "rejected/").to_pylist() == [{"id": "c", "reason": "null message"}]


def run(*command: str, **more) -> subprocess.CompletedProcess:
    return subprocess.run([*command], cwd=ROOT, capture_output=True, text=True, timeout=180, **more)


def test_classify_on_a_mini_cluster(models, folder):
    classify = [sys.executable, "-m", "jobs.classify", *arguments(models, folder)]
    done = run(*classify)
    assert done.returncode == 0, done.stderr
    check(folder)
    again = run(*classify)
    assert again.returncode == 0
    assert "already done: 4 rows" in again.stdout


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    head = RayHead(tmp_path_factory.mktemp("head"))
    try:
        head.start()
        yield head
    finally:
        head.stop()


@pytest.fixture
def head(started) -> dict[str, str]:
    """The environment that reaches a running cluster with token authentication."""
    return started.env


def submit(*arguments: str, env: dict) -> subprocess.CompletedProcess:
    return run(sys.executable, "-m", "jobs.submit", *arguments, env=env)


def test_every_follower_of_a_cluster_job_exits_with_its_code(models, folder, head):
    classify = [sys.executable, "-m", "jobs.submit", "classify", *arguments(models, folder)]
    pipes = {"cwd": ROOT, "env": head, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(classify, **pipes) as first:
        job_id = next(line for line in first.stderr if line.startswith("job ")).split()[-1]
        with subprocess.Popen(classify, **pipes) as second:
            job_line = next(line for line in second.stderr if line.startswith("job "))
            assert job_line == f"job {job_id} is under way with this command: following it\n"
            first.send_signal(signal.SIGTERM)
            assert f"the job keeps running; to stop it: ray job stop {job_id}" in first.communicate(timeout=60)[1]
            output, complaints = second.communicate(timeout=180)
    assert '"message": "shard done"' in output, "the job's records are lost on their way"
    assert (first.returncode, second.returncode) == (130, 0), output + complaints
    assert output.count("4 rows = ") == 1
    check(folder)


def test_an_error_on_a_cluster_is_a_record_and_the_exit_code_comes_through(models, folder, head):
    done = submit("classify", *arguments(models, folder), f"input={folder}/nowhere", env=head)
    assert done.returncode == 2, done.stdout + done.stderr
    [record] = [json.loads(line) for line in done.stdout.splitlines() if '"ERROR"' in line]
    assert f"input='{folder}/nowhere'" in record["message"] and record["exit_code"] == 2


def test_labels_are_not_left_in_a_folder_that_the_cluster_deletes(models, folder, head):
    done = submit("classify", *arguments(models, folder), "output=my-labels", env=head)
    assert done.returncode == 2 and "output='my-labels': is relative" in done.stdout + done.stderr


def test_rays_own_submission_runs_a_job_as_the_readme_says(models, folder, head):
    job = ["--working-dir", ".", "--", "python", "-m", "jobs.classify", "cluster=attach", *arguments(models, folder)]
    done = run("ray", "job", "submit", *job, env=head)
    assert done.returncode == 0, done.stdout + done.stderr
    check(folder)


def test_the_images_health_check_passes_with_the_token_and_only_with_it(started, head):
    # As the image's HEALTHCHECK: a head that does not answer in time is not healthy.
    command = ["timeout", "15", "ray", "health-check", "--address", started.address]
    assert run(*command, env=head).returncode == 0
    assert run(*command, env=head | {"RAY_AUTH_TOKEN": "0" * 64}).returncode != 0


@pytest.mark.parametrize("token", [None, "0" * 64])
def test_without_the_clusters_token_nothing_is_run(models, folder, head, tmp_path, token):
    env = {name: value for name, value in head.items() if not name.startswith("RAY_AUTH")} | {"HOME": str(tmp_path)}
    if token:
        env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    done = submit("classify", *arguments(models, folder), env=env)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "expects another token" in done.stderr and "Traceback" not in done.stderr
    assert Path(head["RAY_AUTH_TOKEN_PATH"]).read_text() not in done.stdout + done.stderr
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("fleet.rows_per_shrad=5", "Key 'rows_per_shrad' not in 'FleetConfig'"),
        ("fleet.rows_per_shard=many", "Value 'many' of type 'str' could not be converted to Integer"),
        ("fleet.rows_per_shard=0", "error: fleet.rows_per_shard=0: use at least 1"),
        ("engine.variants=[gguf-Q9]", "engine.variants='gguf-Q9': use gptq-w"),
        ("catalog=nowhere.csv", "/nowhere.csv': no such file"),
        ("schema=nothing", "Available options in 'schema'"),
        ("output_format=xml", "Invalid value 'xml', expected one of [json, compact, entity_first]"),
    ],
)
def test_a_refused_configuration_exits_with_2_before_any_work(command_lines, models, folder, override, expected):
    before = [*sorted(folder.rglob("*")), *sorted(models.rglob("*"))]
    where = [*arguments(models, folder)[:2], f"workspace={models}"]
    done = command_lines.run("classify", *where, "engine=gguf", override)
    assert done.returncode == 2, done.stdout + done.stderr
    assert expected in done.stderr
    assert [*sorted(folder.rglob("*")), *sorted(models.rglob("*"))] == before


@pytest.mark.parametrize("name", ["generate", "train", "quantize", "evaluate", "classify", "nightly", "demo"])
def test_help_describes_the_job_and_its_usage(command_lines, name):
    done = command_lines.run(name, "--help")
    assert done.returncode == 0
    assert f"python -m jobs.{name}" in done.stdout
    assert "Exit codes" in done.stdout
    if name == "classify":
        assert done.stdout.index("\ninput: ???") < done.stdout.index("\nworkspace: "), "the job's own values come first"
