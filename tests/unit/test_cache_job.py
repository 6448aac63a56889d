"""The scope of a label by the configuration of a job; and `jobs.cache`."""

import time
from dataclasses import replace

import caches
import pytest
from caches import learn

from intent.artifacts import Artifact, ArtifactRecord
from intent.artifacts.lineage import Lineage
from intent.config import CacheJobConfig, ClassifyConfig
from intent.errors import ConfigError
from intent.label_cache import Limits, merge, node
from intent.storage import open_store
from jobs import cache as job
from jobs import caching
from jobs.app import load_config

NAME = "gguf-Q8_0"


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    (tmp_path / "node").mkdir()
    monkeypatch.setattr(node, "cache_folder", lambda: tmp_path / "node")
    monkeypatch.setenv("INTENT_CACHE_KEY", caches.SECRET.hex())


def variant(name: str = NAME, sha256: str = "1", checkpoint: str = "c", gold: bool = True, **config) -> Artifact:
    files = {"model": {"sha256": sha256}} | ({"parity.json": {"sha256": "g"}} if gold else {})
    inputs = {"checkpoint": checkpoint, "schema": "s"}
    return Artifact("nowhere", ArtifactRecord(f"variant-{name}", {"output_format": "entity_first", **config}, inputs, files))


def cache_of(tmp_path, *overrides: str, name: str = NAME, made: Artifact | None = None):
    (tmp_path / "products.csv").write_text("name\nMilk\nEggs\n")
    addresses = [f"workspace={tmp_path}/w", f"catalog={tmp_path}/products.csv", "input=in", "output=out"]
    return caching.label_cache(
        Lineage(load_config("classify", [*addresses, *overrides], ClassifyConfig)), name, made or variant()
    )


def scope_of(tmp_path, *overrides: str, **kwargs) -> str:
    return cache_of(tmp_path, *overrides, **kwargs).scope.name


@pytest.mark.parametrize(
    "other",
    [
        {"made": variant(sha256="2")},
        {"made": variant(output_format="json")},
        {"made": variant(checkpoint="d")},
        {"name": "gguf-Q4_0", "made": variant("gguf-Q4_0")},
        {"overrides": ["engine.max_message_tokens=99"]},
        {"overrides": ["schema.instruction=Otherwise."]},
        {"overrides": ["schema=labels"]},
    ],
    ids=["weights", "output_format", "checkpoint", "variant", "longest message", "prompt", "schema"],
)
def test_what_decides_a_label_decides_where_it_is_kept(tmp_path, other):
    assert scope_of(tmp_path, *other.pop("overrides", []), **other) != scope_of(tmp_path)


def test_another_product_is_another_cache(tmp_path):
    before = scope_of(tmp_path)
    (tmp_path / "more.csv").write_text("name\nMilk\nEggs\nBread\n")
    assert scope_of(tmp_path, f"catalog={tmp_path}/more.csv") != before


@pytest.mark.parametrize(
    "override",
    ["engine.abstain_below=0.9", "engine.gguf_sequences=3", "fleet.rows_per_shard=7", "cache.sample=0.5", "output=there"],
)
def test_what_decides_no_label_changes_nothing(tmp_path, override):
    assert scope_of(tmp_path, override) == scope_of(tmp_path)


def test_in_a_cascade_the_threshold_decides_which_model_answers(tmp_path):
    cascade = {"name": f"cascade-{NAME}", "made": variant(f"cascade-{NAME}")}
    assert scope_of(tmp_path, "engine.abstain_below=0.9", **cascade) != scope_of(tmp_path, **cascade)


def test_another_secret_is_another_cache(tmp_path, monkeypatch):
    before = scope_of(tmp_path)
    monkeypatch.setenv("INTENT_CACHE_KEY", "ab" * 32)
    assert scope_of(tmp_path) != before


def test_variants_of_a_checkpoint_serve_one_another_only_where_that_is_asked_for_and_checked(tmp_path):
    gptq = {"name": "gptq-w4g128", "made": variant("gptq-w4g128", sha256="3")}
    assert scope_of(tmp_path, **gptq) != scope_of(tmp_path)
    both = ["cache.variants=any"]
    assert scope_of(tmp_path, *both, **gptq) == scope_of(tmp_path, *both)
    assert scope_of(tmp_path, *both, made=variant(checkpoint="d")) != scope_of(tmp_path, *both)
    # Without a golden-set check, variants share no scope.
    unchecked = variant("gptq-w4g128", sha256="3", gold=False)
    assert scope_of(tmp_path, *both, name="gptq-w4g128", made=unchecked) != scope_of(tmp_path, *both)
    none = [*both, "engine.golden_messages=0"]
    assert scope_of(tmp_path, *none, **gptq) != scope_of(tmp_path, *none)


def test_without_a_cache_there_is_none(tmp_path):
    assert cache_of(tmp_path, "cache.enabled=false") is None


def test_a_workspace_that_takes_no_key_is_done_without(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("INTENT_CACHE_KEY")

    def refuse(*args, **kwargs):
        raise PermissionError("read-only")

    monkeypatch.setattr("intent.storage.LocalStore.put_if_absent", refuse)
    assert cache_of(tmp_path) is None
    assert "goes on without the label cache: PermissionError: read-only" in capsys.readouterr().out


def test_a_key_that_is_none_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("INTENT_CACHE_KEY", "not a key")
    with pytest.raises(ConfigError, match="INTENT_CACHE_KEY='\\(hidden\\)': give 32 to 128 hexadecimal digits"):
        cache_of(tmp_path)


# jobs.cache


def run(tmp_path, *overrides: str) -> int:
    return job.run(load_config("cache", [f"workspace={tmp_path}", *overrides], CacheJobConfig))


def test_stats_lists_the_caches(tmp_path, capsys):
    assert run(tmp_path) == 0 and "no label cache in" in capsys.readouterr().out
    cache = caches.cache(str(tmp_path), {"variant": "gguf-Q8_0", "model": "f00d"})
    learn(cache, "one", {"two milks": 2, "eggs": 3})
    cache.drop("half of them disagree")
    learn(cache, "two", {"two milks": 2})
    assert run(tmp_path) == 0
    output = capsys.readouterr().out
    assert f"{cache.scope.name}: 1 labels of 2 runs in 1 files" in output
    assert "variant gguf-Q8_0, model f00d" in output and "half of them disagree" in output and "milk" not in output


def test_the_job_verifies(tmp_path, capsys):
    cache = caches.cache(str(tmp_path))
    learn(cache, "one", {"two milks": 2})
    assert run(tmp_path, "action=verify") == 0 and "all files are intact" in capsys.readouterr().out
    cache.store.put(cache.read().files[0].key, b"ARROW1")
    assert run(tmp_path, "action=verify") == 1
    assert "SHA-256 is not the pointer's" in capsys.readouterr().out
    assert run(tmp_path, "action=prune") == 0 and run(tmp_path, "action=verify") == 0


def test_the_job_prunes_by_its_limits(tmp_path, capsys):
    cache = caches.cache(str(tmp_path))
    cache = replace(cache, limits=Limits(), now=time.time)
    learn(cache, "one", {f"message {n}": 1 for n in range(3_000)})
    assert run(tmp_path, "action=prune", "cache.gigabytes=0.00004") == 0
    assert "3,000 labels before" in capsys.readouterr().out and 0 < cache.read().bytes <= 40_000
    old = caches.cache(str(tmp_path), {"model": "old"})
    learn(old, "one", {"two milks": 2})
    assert run(tmp_path, "action=prune", f"scope={old.scope.name}") == 0 and old.read().rows == 0 < cache.read().rows


def test_the_job_deletes_one_or_all(tmp_path, capsys):
    one, other = caches.cache(str(tmp_path)), caches.cache(str(tmp_path), {"model": "other"})
    for cache in (one, other):
        learn(cache, "one", {"two milks": 2})
    assert run(tmp_path, "action=delete", f"scope={one.scope.name}") == 0
    assert not list(one.store.list()) and merge.verify(other) == [] and other.read().rows == 1
    with pytest.raises(ConfigError, match=f"scope='{one.scope.name}': there is no such scope; use one of"):
        run(tmp_path, "action=delete", f"scope={one.scope.name}")
    assert run(tmp_path, "action=delete") == 0 and not list(open_store(str(tmp_path / "cache")).list())


def test_a_key_is_not_needed_to_look_after_a_cache(tmp_path, monkeypatch):
    learn(caches.cache(str(tmp_path)), "one", {"two milks": 2})
    monkeypatch.setenv("INTENT_CACHE_KEY", "not a key")
    assert [run(tmp_path, f"action={action}") for action in ("stats", "verify", "prune", "delete")] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    "override",
    ["cache.gigabytes=0", "cache.days=0", "cache.sample=2", "cache.agreement=1"],
)
def test_a_setting_that_can_not_be_meant_is_refused(tmp_path, override):
    with pytest.raises(ConfigError, match=override.split("=")[0]):
        run(tmp_path, override)
