"""Run the commands of the pages in order where no cloud account is needed, and check the others as far as possible."""

import importlib
import re
import shlex
import shutil
import subprocess
from itertools import groupby
from pathlib import Path

import pyarrow as pa
import pytest
import runs
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from servers import RayHead

from intent import artifacts
from intent.artifacts import ArtifactRecord
from intent.artifacts.lineage import Lineage
from intent.artifacts.registry import publish_models
from intent.artifacts.variant import VariantSpec
from intent.storage import StorageOptions, open_store
from jobs import submit
from jobs.app import load_config
from tests.tiny import write_checkpoint

ROOT = Path(__file__).parents[2]
RUNBOOK = ROOT / "docs/runbook.md"
# The page on upgrades compares with the labels that the runbook makes.
PAGES = [RUNBOOK, *sorted(set((ROOT / "docs").glob("*.md")) - {RUNBOOK}, reverse=True)]
OTHERS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "intent").rglob("*.md"))]
FENCE = re.compile(r"(?ms)^```(.*?)\n(.*?)^```$")
# Run; run, and ends with an exit code of its own; run where Prometheus is installed; takes long; needs an account.
KINDS = r"sh|sh fails \d+|sh promtool|sh long|sh cloud"
PROGRAMS = "python3?|make|ray|kubectl|docker|promtool|git|pip|bash|curl"
INDENTED = re.compile(rf"(?m)^(?: {{4}}|\t)\s*(?:\$ |export |\S*\b(?:{PROGRAMS}) ).*")
DATA = r"csv|json|yaml"
pytestmark = pytest.mark.slow


def blocks(page: Path, kind: str) -> list[tuple[str, str]]:
    return [(info, text) for info, text in FENCE.findall(page.read_text()) if re.fullmatch(kind, info)]


def commands(text: str) -> list[list[str]]:
    """Return the words of each command. A quoted word may span lines."""
    lines, line = [], ""
    for more in text.replace("\\\n", " ").splitlines():
        line += more
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            line += "\n"
            continue
        lines += [list(group) for joins, group in groupby(words, key="&&".__eq__) if not joins]
        line = ""
    assert not line, f"a quotation mark is not closed: {line}"
    return lines


def model(workspace: str, folder: Path, version: int) -> None:
    """Write a random model to `workspace`, under the name of a run's default variant."""
    from intent.quantize import gguf
    from intent.train.merge import copy_tokenizer

    checkpoint = write_checkpoint(folder)
    schema = Lineage(load_config("generate", [])).schema_fingerprint
    record = ArtifactRecord("variant-gguf-Q8_0", {"output_format": "compact", "version": version}, {"schema": schema})

    def build(made: Path) -> None:
        gguf.make(checkpoint, made / "model.gguf", VariantSpec.parse("gguf-Q8_0"), 1)
        copy_tokenizer(checkpoint, made)

    publish_models(workspace, {"gguf-Q8_0": artifacts.make(workspace, record, build)}, StorageOptions())


@pytest.fixture(scope="module")
def shop(s3_endpoint, tmp_path_factory):
    """Yield the environment of a user, with the bucket of the docs (log, catalog, two models) and a cluster that reaches it."""
    shop = open_store("s3://shop")
    shop.client.create_bucket(Bucket="shop")
    runs.put_table(shop, "products.parquet", pa.table({"name": ["Milk", "Eggs"]}))
    runs.write_log(open_store("s3://shop/log/dt=2026-11-23"), files=2, rows=20)
    for version, name in enumerate(("intent", "intent-next")):
        model(f"s3://shop/{name}", tmp_path_factory.mktemp(name), version)
    head = RayHead(tmp_path_factory.mktemp("head"))
    try:
        head.start()
        yield head.env | {"PYTHONPATH": str(ROOT)}
    finally:
        head.stop()


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=lambda page: page.name)
def test_every_block_says_how_it_is_checked(page):
    text = page.read_text()
    fences = FENCE.findall(text)
    assert all(re.fullmatch(f"{KINDS}|{DATA}", info) for info, _ in fences)
    assert text.count("```") == 2 * len(fences)
    assert not INDENTED.findall(FENCE.sub("", text)), "a command outside of a block: fence it"


def test_what_can_be_run_is_run(shop):
    runnable = [block for page in PAGES for block in blocks(page, r"sh|sh fails \d+")]
    assert len(runnable) >= 7
    for info, text in runnable:
        command = ["bash", "-euo", "pipefail", "-c", text]
        done = subprocess.run(command, cwd=ROOT, env=shop, capture_output=True, text=True, timeout=180)
        assert done.returncode == int(info.split()[-1] if "fails" in info else 0), f"{text}{done.stdout}{done.stderr}"
        if "date=2026-11-23" in text:
            assert "40 rows" in done.stdout, done.stdout
        if "fails" in info:
            assert "holds a run of other models" in done.stdout + done.stderr
        if "of 40 rows have the same label" in text:
            assert "of 40 rows" in done.stdout


@pytest.mark.skipif(not shutil.which("promtool"), reason="no promtool (Debian's package prometheus)")
def test_the_rules_are_checked_as_the_runbook_says():
    [(_, text)] = blocks(RUNBOOK, "sh promtool")
    done = subprocess.run(["bash", "-euc", text], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def configuration(job: str, overrides: list[str]) -> None:
    """Raise if `python -m jobs.JOB OVERRIDES` would refuse its configuration."""
    if job == "submit":
        arguments = submit.parse(overrides)
        job, overrides = arguments.job, arguments.overrides
    importlib.import_module(f"jobs.{job}")
    load_config(job, overrides, OmegaConf.get_type(ConfigStore.instance().load(f"{job}_schema.yaml").node))


def check(words: list[str]) -> None:
    """Check that the command is valid: a configured job, a Makefile target, a Python program or a variable."""
    jobs = [word.removeprefix("jobs.") for word in words if word.startswith("jobs.")]
    if jobs:
        configuration(jobs[0], words[words.index(f"jobs.{jobs[0]}") + 1 :])
    elif words[0] == "make":
        assert all(f"\n{target}:" in (ROOT / "Makefile").read_text() for target in words[1:])
    elif words[:2] == ["python", "-c"]:
        compile(words[2], "page", "exec")
    else:
        assert words[0] == "export", "is run by no test; mark the block otherwise"


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=lambda page: page.name)
def test_what_takes_long_is_a_command(page):
    for _, text in blocks(page, "sh long"):
        for words in commands(text):
            try:
                check(words)
            except Exception as error:
                pytest.fail(f"{shlex.join(words)}\n{error}")


def test_the_files_that_cloud_commands_name_are_there():
    named = [word for page in PAGES for _, text in blocks(page, "sh cloud") for words in commands(text) for word in words]
    files = [word for word in named if word.startswith("infra/")]
    assert len(files) > 5 and all((ROOT / file).exists() for file in files)
