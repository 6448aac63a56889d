"""What a node fetches is what the store holds now."""

import re
import subprocess

from intent import artifacts
from intent.artifacts import ArtifactRecord
from intent.storage import open_store

RECORD = ArtifactRecord("variant-gptq", {}, {})


def test_a_variant_made_again_with_other_bytes_is_fetched_again(root):
    """GPTQ's files differ from one making to the next, at the same fingerprint."""
    for text in ("once", "again"):
        made = artifacts.make(root, RECORD, lambda folder, text=text: (folder / "model").write_text(text) and None)
        assert (artifacts.fetch(made) / "model").read_text() == text
        open_store(made.uri).delete("record.json")


def test_the_code_is_named_by_its_commit_or_by_a_hash_of_its_sources(tmp_path):
    (package := tmp_path / "here" / "intent").mkdir(parents=True)
    (package / "a.py").write_text("1")
    first = artifacts.code_version(package)
    assert re.fullmatch(r"[\d.]+, sources [0-9a-f]{16}", first)
    (package / "a.py").write_text("2")
    artifacts.code_version.cache_clear()
    assert artifacts.code_version(package) != first
    git = ["git", "-C", str(package.parent), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], check=True)
    artifacts.code_version.cache_clear()
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
    assert artifacts.code_version(package).endswith(f", commit {head[:12]}")
    artifacts.code_version.cache_clear()
