"""Every job refuses a catalog that is too long for the model, before any work."""

import pytest
import ray

from intent import artifacts
from intent.artifacts import ArtifactRecord
from intent.artifacts.lineage import Lineage
from intent.artifacts.registry import publish_models
from intent.artifacts.variant import VariantSpec
from intent.config import ClassifyConfig
from intent.engine.context import Context
from intent.errors import ConfigError
from intent.storage import StorageOptions
from intent.synth.config import CatalogSource
from intent.task.prompt import Prompt
from jobs.app import load_config
from jobs.choice import serving
from jobs.context import _context, require_fitting, require_trainable
from jobs.generate import generate
from jobs.quantize import quantize
from jobs.train import train
from tests.tiny import CART, NAMES, write_tokenizer

TOO_LONG = r"^catalog='\d+ tokens': with 352 for a message and its answer they are more than the model's context of 8192"


@pytest.fixture
def lineage(tmp_path) -> Lineage:
    """Return the lineage of a complete workspace, for a catalog of 1,500 products and a context of 8,192 tokens."""
    (tmp_path / "long.csv").write_text("name\n" + "".join(f"Whole Milk Number {i} of the Farm\n" for i in range(1500)))
    overrides = [f"workspace={tmp_path}/w", f"catalog={tmp_path}/long.csv", "engine=gguf", "input=in", "output=out"]
    overrides += ["model=smollm2_135m", "train.epochs=1", "shelves_above=2000"]
    lineage = Lineage(load_config("classify", overrides, ClassifyConfig))

    def build(folder):
        write_tokenizer(folder)
        (folder / "config.json").write_text('{"max_position_embeddings": 8192}')

    def build_variant(folder):
        write_tokenizer(folder)
        return {"context": 8192}

    where = lineage.config.workspace
    artifacts.make(where, lineage.base_record(), build)
    checkpoint = artifacts.make(where, lineage.checkpoint_record(), build)
    variant = artifacts.make(where, lineage.variant_record(checkpoint, VariantSpec.parse("gguf-Q4_0")), build_variant)
    publish_models(where, {"gguf-Q4_0": variant}, StorageOptions())
    return lineage


def test_every_job_refuses_it_before_any_work(lineage, monkeypatch):
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    monkeypatch.setattr(ray, "remote", lambda *_, **__: pytest.fail("a job began to work"))
    with pytest.raises(ConfigError, match=TOO_LONG) as refused:
        generate(lineage, lineage.config.data)
    assert refused.value.exit_code == 2
    with pytest.raises(ConfigError, match=TOO_LONG):
        quantize(lineage, [VariantSpec.parse("gguf-Q8_0")])
    with pytest.raises(ConfigError, match=TOO_LONG):
        serving(lineage, None)
    artifacts.make(lineage.config.workspace, lineage.data_record(), lambda folder: None)
    lineage.config.train.seed += 1
    with pytest.raises(ConfigError, match=TOO_LONG):
        train(lineage)


def test_sampled_catalogs_are_short_whatever_the_jobs_own_is(lineage):
    base = lineage.base()
    with pytest.raises(ConfigError, match=TOO_LONG):
        require_trainable(lineage, lambda: base)
    lineage.config.data.catalogs = CatalogSource.sampled
    require_trainable(lineage, lambda: base)


def test_a_catalog_of_shelves_fits_any_model_and_is_not_trained_on_whole(lineage):
    lineage.config.shelves_above = 1000
    require_fitting(lineage, [lineage.base()])
    with pytest.raises(ConfigError, match="^data.catalogs='given': the catalog has 1,500 products.*data.catalogs=sampled"):
        generate(lineage, lineage.config.data)
    lineage.config.data.catalogs = CatalogSource.sampled
    require_trainable(lineage, lambda: pytest.fail("a model was looked at"))


def test_what_is_too_long_is_named(tmp_path):
    context, prompt = Context(write_tokenizer(tmp_path), 1024), Prompt(CART, NAMES)
    context.check(prompt, "json", 256)
    Context(context.tokenizer, None).check(prompt, "json", 100_000)
    with pytest.raises(ConfigError, match=r"^engine.max_message_tokens=900: .*use at most \d+$") as refused:
        context.check(prompt, "json", 900)
    context.check(prompt, "json", int(str(refused.value).split()[-1]))
    long = Prompt(CART, ("Milk", "very " * 900 + "long"))
    with pytest.raises(ConfigError, match="^catalog=.*shorter names"):
        context.check(long, "json", 256)


def test_a_model_without_a_prompt_has_no_context(lineage):
    svm = artifacts.make(lineage.config.workspace, ArtifactRecord("variant-svm", {}, {}), lambda folder: None)
    assert _context(lineage, svm) is None
    require_fitting(lineage, [svm])
