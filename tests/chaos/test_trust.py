"""T19 and T20: forged models, configuration with credentials, and secrets that must not leak."""

import json
import pickle
import re
import struct
import sys
from pathlib import Path

import pytest
import runs
from scripts import run, run_command

from intent import artifacts
from intent.artifacts import ArtifactRecord
from intent.engine import load
from intent.engine.load import EngineOptions, load_classifier
from intent.errors import ConfigError, CorruptData
from intent.storage import open_store
from intent.task.prompt import Prompt
from intent.train.base import adapter_folder, write_base
from intent.train.config import ModelConfig
from tests.tiny import CART, NAMES, write_checkpoint, write_tokenizer

pytestmark = pytest.mark.chaos

HUGE = 1 << 62


class Bomb:
    def __reduce__(self):
        return open, ("canary", "w")


@pytest.fixture
def no_canary(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(tmp_path.rglob("canary*"))


def gguf_of_huge_counts(kind: str) -> bytes:
    """Return a header that declares more tensors, entries or text than fit in memory."""
    tensors, entries = (HUGE, 0) if kind == "tensors" else (0, HUGE if kind == "entries" else 1)
    length = HUGE if kind == "text" else 4
    return b"GGUF" + struct.pack("<IQQQ", 3, tensors, entries, length) + b"name" * 64


@pytest.mark.parametrize("kind", ["tensors", "entries", "text"])
def test_t19_a_gguf_of_huge_counts_is_refused_before_it_is_parsed(tmp_path, monkeypatch, kind):
    def parse(*args):
        raise AssertionError("parsed")

    monkeypatch.setattr(load, "_forward", parse)

    def build(folder: Path) -> None:
        (folder / "model.gguf").write_bytes(b"GGUF and what the record was written for")

    model = artifacts.make(str(tmp_path), ArtifactRecord("variant", {"output_format": "compact"}, {}), build)
    Path(model.files_uri, "model.gguf").write_bytes(gguf_of_huge_counts(kind))
    with pytest.raises(CorruptData, match=r"model\.gguf: SHA-256"):
        load_classifier(artifacts.fetch(model), "gguf-Q4_K_M", Prompt(CART, NAMES), EngineOptions("compact"))


@pytest.mark.parametrize("kind", ["tensors", "entries", "text"])
def test_t19_a_gguf_of_huge_counts_that_its_record_vouches_for_is_a_named_error(tmp_path, kind):
    # In a process of its own, with little memory: a parser that believes the counts would not survive it.
    write_tokenizer(tmp_path)
    (tmp_path / "model.gguf").write_bytes(gguf_of_huge_counts(kind))
    code = f"""
import resource
from pathlib import Path
from intent.engine.load import EngineOptions, load_classifier
from intent.errors import CorruptData
from intent.task.prompt import Prompt
from tests.tiny import CART, NAMES
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
try:
    load_classifier(Path({str(tmp_path)!r}), "gguf-Q4_K_M", Prompt(CART, NAMES), EngineOptions("compact"))
except CorruptData as error:
    print("refused:", error)
"""
    end, output = run_command(tmp_path, [sys.executable, "-c", code])
    assert end == 0 and re.search(r"refused: .*model\.gguf", output), output


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pkl"])
def test_t19_a_pickled_model_is_never_unpickled(tmp_path, no_canary, name):
    base = write_checkpoint(tmp_path / "base")
    (base / "model.safetensors").unlink()
    (base / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ConfigError, match=r"model\.source"):
        write_base(ModelConfig("evil", str(base)), tmp_path / "target")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_model.bin").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ConfigError, match=r"has no adapter_model\.safetensors"):
        adapter_folder(str(adapter))


def test_t19_code_that_comes_with_a_model_is_not_run(tmp_path, no_canary):
    base = write_checkpoint(tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    (base / "config.json").write_text(json.dumps(config))
    (base / "evil.py").write_text("open('canary', 'w')\nclass Config: pass\nclass Model: pass\n")
    write_base(ModelConfig("evil", str(base)), tmp_path / "target")


def test_t19_a_record_that_names_files_elsewhere_fetches_none(tmp_path, s3_root):
    model = artifacts.make(f"{s3_root}/models", ArtifactRecord("model", {}, {"for": s3_root}), lambda folder: None)
    model.record.files["../../canary"] = {"sha256": "0", "bytes": 1}
    with pytest.raises(ConfigError, match=r"without '\.\.'"):
        artifacts.fetch(model)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("trust_remote_code=true", "trust_remote_code"),
        ("storage.endpoint=http://canary:canary@127.0.0.1:9", "storage.endpoint='(hidden)'"),
    ],
    ids=["an unknown field", "credentials"],
)
def test_t20_forbidden_settings_are_refused_before_any_write(command_lines, tmp_path, override, expected):
    runs.write_log(open_store(str(tmp_path / "in")))
    before = sorted(tmp_path.rglob("*"))
    addresses = [f"input={tmp_path}/in", f"output={tmp_path}/out", f"workspace={tmp_path}/w"]
    done = command_lines.run("classify", *addresses, override)
    assert done.returncode == 2, done.stderr
    assert expected in done.stderr
    assert "canary" not in done.stdout + done.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_t20_no_credentials_reach_output_or_logs(tmp_path, s3_root):
    code, output = run(tmp_path, "secrets_kept.py", s3_root)
    assert code == 0 and "rows=100" in output, output
    assert "canary" not in output


@pytest.mark.rig
def test_t20_a_cluster_that_requires_a_token_takes_no_run_without_one(tmp_path):
    runs.write_log(open_store(str(tmp_path / "in")))
    code, output = run(tmp_path, "no_token.py")
    assert code == 0 and output.count("refused with 2") == 2, output
    assert runs.snapshot(str(tmp_path)) == {}
