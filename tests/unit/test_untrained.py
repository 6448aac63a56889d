"""An untrained model does not depend on the catalog. classify makes a missing one, once."""

from dataclasses import replace

import pytest

from intent import artifacts
from intent.artifacts import Artifact
from intent.artifacts.lineage import Lineage, require_matching
from intent.artifacts.registry import publish_models, read_models
from intent.artifacts.variant import VariantSpec
from intent.config import ClassifyConfig
from intent.engine.config import Device
from intent.errors import ConfigError, MissingArtifact
from intent.synth.config import CatalogSource
from jobs import choice, untrained
from jobs.app import load_config
from jobs.context import require_trainable

GGUF, GPTQ = "gguf-Q8_0", "gptq-w4g128"


def lineage(folder, *more: str, products: str = "Whole Milk 1L", job: str = "classify") -> Lineage:
    catalog = folder / f"{products}.csv"
    catalog.write_text(f"name\n{products}\n")
    addresses = ["input=in", f"output={folder}/out"] if job == "classify" else []
    overrides = [*addresses, f"workspace={folder}/w", f"catalog={catalog}", *more]
    return Lineage(load_config(job, overrides, ClassifyConfig) if addresses else load_config(job, overrides))


@pytest.fixture
def jobs(monkeypatch):
    """Replace the jobs by fakes that make small files, and collect the artifacts by job."""
    made: list[str] = []
    monkeypatch.setattr(choice, "distinct_nodes", list)
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 2.0})

    def build(lineage: Lineage, record, metrics: dict) -> Artifact:
        where = artifacts.artifact_uri(lineage.config.workspace, record)
        if artifacts.find(where) is None:
            made.append(record.kind)
        return artifacts.make(lineage.config.workspace, record, lambda folder: metrics)

    def make(lineage: Lineage, specs) -> dict[str, Artifact]:
        checkpoint = lineage.checkpoint()
        figures = {"messages": checkpoint.record.metrics["messages"]}
        return {spec.name: build(lineage, lineage.variant_record(checkpoint, spec), figures) for spec in specs}

    def train(lineage: Lineage) -> Artifact:
        messages = 100 * lineage.config.train.epochs
        return build(lineage, lineage.checkpoint_record(), {"messages": messages})

    monkeypatch.setattr(untrained, "make_base", lambda lineage: build(lineage, lineage.base_record(), {}))
    monkeypatch.setattr(untrained, "train", train)
    monkeypatch.setattr(untrained, "make", make)
    return made


def current(folder) -> dict[str, str]:
    return read_models(f"{folder}/w/models.json", Lineage(load_config("train", [])).options).variants


def trained(folder, *names: str) -> None:
    """Write the artifacts of jobs.train and jobs.quantize for these variants, of a model that was trained on the catalog."""
    own = lineage(folder, "train.epochs=1")
    checkpoint = untrained.train(own)
    if names:
        made = untrained.make(own, [VariantSpec.parse(name) for name in names])
        publish_models(own.config.workspace, made, own.options, checkpoint.fingerprint)


def test_the_first_job_makes_its_models_and_a_new_catalog_makes_nothing(tmp_path, jobs, capsys):
    variants, batches = choice.serving(lineage(tmp_path), None)
    assert jobs == ["base", "checkpoint", f"variant-{GGUF}"] and batches == {}
    assert {name: variant.uri for name, variant in variants.items()} == current(tmp_path)
    output = capsys.readouterr().err
    assert "has no models yet: makes gguf-Q8_0 of gemma3-270m with the adapter shipped:gemma3-270m, without training" in output
    jobs.clear()
    assert choice.serving(lineage(tmp_path, products="Eggs"), None)[0] == variants
    assert jobs == [] and "makes" not in capsys.readouterr().err


def test_what_jobs_make_by_hand_without_training_is_the_same(tmp_path, jobs):
    own = lineage(tmp_path, "train.epochs=0", products="Eggs", job="quantize")
    untrained.make_base(own)
    untrained.train(own)
    untrained.make(own, [VariantSpec.parse(GGUF)])
    jobs.clear()
    assert list(choice.serving(lineage(tmp_path), None)[0]) == [GGUF] and jobs == []


def test_a_variant_that_is_missing_is_made_of_the_checkpoint_that_is_there(tmp_path, jobs):
    choice.serving(lineage(tmp_path), None)
    jobs.clear()
    assert list(choice.serving(lineage(tmp_path, "engine=mixed"), None)[0]) == [GPTQ, GGUF]
    assert jobs == [f"variant-{GPTQ}"] and set(current(tmp_path)) == {GGUF, GPTQ}
    assert list(choice.serving(lineage(tmp_path), None)[0]) == [GPTQ, GGUF], "what is there is used"


@pytest.mark.parametrize("more", ["engine.device=cuda", "fleet.gptq_actors=4"])
def test_a_job_that_asks_for_gpus_gets_the_variant_for_them(tmp_path, jobs, more):
    assert list(choice.serving(lineage(tmp_path, more), None)[0]) == [GPTQ, GGUF]


def test_a_second_schema_leaves_the_workspaces_models_to_the_first(tmp_path, jobs):
    carts = choice.serving(lineage(tmp_path), None)[0]
    lists = lineage(tmp_path, "schema=basket")
    variant = choice.serving(lists, None)[0]
    require_matching(variant[GGUF], lists)
    assert variant[GGUF] != carts[GGUF] and current(tmp_path)[GGUF] == carts[GGUF].uri
    jobs.clear()
    assert choice.serving(lists, None)[0] == variant and choice.serving(lineage(tmp_path), None)[0] == carts
    assert jobs == []


def test_with_a_trained_model_missing_variants_are_named_and_not_made(tmp_path, jobs):
    trained(tmp_path)
    jobs.clear()
    with pytest.raises(MissingArtifact, match=r"jobs\.quantize"):
        choice.serving(lineage(tmp_path), None)
    trained(tmp_path, GGUF)
    jobs.clear()
    assert list(choice.serving(lineage(tmp_path, "engine=gguf"), None)[0]) == [GGUF]
    for engine in ("auto", "mixed", "gptq"):
        with pytest.raises(ConfigError, match=rf"'{GPTQ}': .* has \['{GGUF}'\]; make it with python -m jobs\.quantize"):
            choice.serving(lineage(tmp_path, f"engine={engine}"), None)
    lists = lineage(tmp_path, "schema=basket", "engine=gguf")
    with pytest.raises(ConfigError, match="was trained for another schema"):
        require_matching(choice.serving(lists, None)[0][GGUF], lists)
    assert jobs == []


@pytest.mark.parametrize("more", ["train.epochs=1", "model.adapter=null", "schema=labels", "models=elsewhere/models.json"])
def test_where_training_is_needed_nothing_is_made(tmp_path, jobs, more):
    own = lineage(tmp_path, more)
    with pytest.raises(MissingArtifact, match="no models at"):
        choice.serving(own, own.config.models)
    assert jobs == []


def test_models_of_an_older_adapter_stay_until_somebody_makes_others(tmp_path, jobs):
    older = lineage(tmp_path, "model.vocabulary=full")
    choice.serving(older, None)
    jobs.clear()
    assert choice.serving(lineage(tmp_path), None)[0][GGUF].uri == current(tmp_path)[GGUF]
    with pytest.raises(ConfigError, match=r"jobs\.quantize"):
        choice.serving(lineage(tmp_path, "engine=mixed"), None)
    assert jobs == []


def test_a_variant_whose_files_were_deleted_is_made_again(tmp_path, jobs):
    variants = choice.serving(lineage(tmp_path), None)[0]
    jobs.clear()
    (tmp_path / "w" / variants[GGUF].uri.rpartition("/")[2] / "record.json").unlink()
    assert list(choice.serving(lineage(tmp_path), None)[0]) == [GGUF]
    assert jobs == [f"variant-{GGUF}"]


def records(own: Lineage, names=(GGUF, GPTQ, "gguf-Q4_0-imatrix")) -> list[str]:
    checkpoint = Artifact("", replace(own.checkpoint_record(), files={}))
    messages = own.of_messages(checkpoint)
    artifacts = [
        messages.data_record(),
        own.golden_set_record(checkpoint, Artifact("", messages.data_record())),
        own.checkpoint_record(),
    ]
    return [
        record.fingerprint for record in [*artifacts, *(own.variant_record(checkpoint, VariantSpec.parse(n)) for n in names)]
    ]


def test_without_training_no_fingerprint_depends_on_the_catalog(tmp_path):
    one = records(lineage(tmp_path))
    assert records(lineage(tmp_path, products="Eggs")) == one
    assert records(lineage(tmp_path, "data.train=5", "train.rank=4", "teacher.messages=3", "teacher.endpoint.model=x")) == one
    assert not set(records(lineage(tmp_path, "schema=basket"))) & set(one)


def test_with_training_it_does(tmp_path):
    epochs = "train.epochs=1"
    assert not set(records(lineage(tmp_path, epochs))) & set(records(lineage(tmp_path, epochs, products="Eggs")))


def test_messages_about_sampled_catalogs_are_the_same_whatever_the_jobs_own_is(tmp_path):
    sampled = "data.catalogs=sampled"
    one, other = (lineage(tmp_path, sampled, products=name).data_record() for name in ("Milk", "Eggs"))
    assert one == other != lineage(tmp_path, products="Milk").data_record()


def test_own_messages_check_a_model_that_was_not_trained_on_them(tmp_path):
    (tmp_path / "own.csv").write_text("message,label\nwhere is it,order_status\n")
    own = lineage(tmp_path, "schema=labels", f"labelled.uri={tmp_path}/own.csv", "train.epochs=0", job="quantize")
    assert own.of_messages(Artifact("", own.checkpoint_record())) is own


def test_only_a_model_that_learns_the_catalog_is_kept_from_a_long_one(tmp_path):
    own = lineage(tmp_path, "engine.max_message_tokens=1000000")
    assert own.config.data.catalogs is CatalogSource.given and own.config.engine.device is Device.auto
    require_trainable(own, lambda: pytest.fail("looked at"))
    own.config.train.epochs, looked = 1, []
    require_trainable(own, lambda: looked.append(1))
    assert looked
