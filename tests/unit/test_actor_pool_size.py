"""The number of actors of a cluster, and their CPUs and GPUs."""

from pathlib import Path

import pytest
import ray

from intent.artifacts import Artifact, ArtifactRecord
from intent.artifacts.lineage import Lineage
from intent.artifacts.variant import VariantSpec
from intent.config import ClassifyConfig
from intent.engine.config import Device
from intent.errors import ConfigError
from intent.hardware import CPU, GPU, Hardware
from intent.run.actor_pool import EngineSpec, fitting_actors
from intent.run.shard import shard_rows
from jobs.app import load_config
from jobs.classify import engines
from jobs.nodes import Node, fitting

GROCERY = Path(__file__).parents[2] / "conf/catalogs/grocery.csv"


@pytest.fixture
def specs(monkeypatch):
    """Return the engines of a configuration on a cluster."""

    def of(resources: dict, *overrides: str) -> list[EngineSpec]:
        monkeypatch.setattr(ray, "cluster_resources", lambda: resources)
        addresses = ["input=/in", "output=/out", "workspace=/w", f"catalog={GROCERY}"]
        lineage = Lineage(load_config("classify", [*addresses, "engine=mixed", *overrides], ClassifyConfig))
        record = ArtifactRecord("variant", {"output_format": "compact"}, {"schema": lineage.schema_fingerprint})
        return engines(lineage, {name: Artifact("nowhere", record) for name in lineage.config.engine.variants})

    return of


@pytest.fixture
def shapes(specs):
    """Return (actors, CPUs, GPUs) by kind of engine."""
    return lambda *given: {spec.kind: (spec.actors, spec.cpus, spec.gpus) for spec in specs(*given)}


def test_actors_take_the_resources_of_the_cluster(shapes):
    assert shapes({"CPU": 16, "GPU": 2}) == {"gptq": (2, 1, 1), "gguf": (8, 1, 0)}
    assert shapes({"CPU": 4, "GPU": 2}, "engine.device=cpu") == {"gptq": (2, 1, 0), "gguf": (2, 1, 0)}
    assert shapes({"CPU": 4}) == {"gptq": (2, 1, 0), "gguf": (2, 1, 0)}


def test_a_cluster_without_workers_gets_the_configured_requests(shapes):
    asked = ("engine.device=cuda", "fleet.gptq_actors=8", "fleet.gguf_actors=64")
    assert shapes({}, "cluster=attach", *asked) == {"gptq": (8, 1, 1), "gguf": (64, 1, 0)}
    assert shapes({}, "cluster=attach", "engine.device=cuda")["gptq"] == (1, 1, 1)
    assert shapes({"CPU": 2}, "cluster=attach", "fleet.gguf_cpus=8")["gguf"] == (1, 8, 0)


def test_a_local_cluster_which_no_node_will_join_is_asked_for_no_more_than_it_has(shapes):
    assert shapes({"CPU": 2}, "fleet.gguf_cpus=8", "fleet.gptq_cpus=8") == {"gptq": (1, 2, 0), "gguf": (1, 2, 0)}
    with pytest.raises(ConfigError, match="engine.device='cuda': there is no GPU; use auto"):
        shapes({"CPU": 2}, "engine.device=cuda")
    assert shapes({"CPU": 2}, "engine=gguf", "engine.device=cuda") == {"gguf": (2, 1, 0)}, "it asks for no GPU"


def test_the_reference_is_measured_on_both_kinds_of_processor_and_others_where_they_run():
    xeon, t4 = Node(Hardware(CPU, "Xeon", 2), "a", 2), Node(Hardware(GPU, "T4", 1), "b", 2)

    def where(name: str, device: Device = Device.auto) -> list[str]:
        return [place.hardware.model for place in fitting([xeon, t4], VariantSpec.parse(name), device)]

    assert where("reference-float16") == ["T4", "Xeon"]
    assert (where("gptq-w4g64"), where("base"), where("gguf-Q8_0"), where("svm")) == (["T4"], ["T4"], ["Xeon"], ["Xeon"])
    assert where("gptq-w4g64", Device.cpu) == where("reference", Device.cpu) == ["Xeon"]
    assert fitting([xeon], VariantSpec.parse("gptq-w4g64"), Device.cuda) == []


def test_shards_are_sized_by_the_slowest_kind_of_engine(specs):
    def rows(resources: dict, *overrides: str) -> int:
        return shard_rows(min(spec.rate for spec in specs(resources, *overrides)))

    assert rows({"CPU": 16, "GPU": 2}) == rows({"CPU": 4}) == 256
    assert rows({"CPU": 16}, "fleet.gguf_cpus=8", "fleet.gptq_cpus=8") == 1_920
    assert rows({"CPU": 16, "GPU": 2}, "engine=gptq") == 15_000
    assert rows({"CPU": 4}, "engine.variants=[svm]") == 20_000


def test_actors_that_join_a_run_fit_and_are_of_each_kind_in_turn():
    gptq, gguf = EngineSpec("gptq", "gptq", list, cpus=1, gpus=1), EngineSpec("gguf", "gguf", list, cpus=2)
    assert fitting_actors({"CPU": 8.0, "GPU": 1.0}, [gptq, gguf]) == [gptq, gguf, gguf, gguf]
    assert fitting_actors({"CPU": 1.0, "GPU": 4.0, "memory": 9e9}, [gguf]) == []
    assert fitting_actors({}, [gptq, gguf]) == fitting_actors({"CPU": 4.0}, []) == []


def test_resources_are_reserved_for_a_starting_actor_unless_it_cannot_fit():
    gptq, gguf = EngineSpec("gptq", "gptq", list, cpus=1, gpus=1), EngineSpec("gguf", "gguf", list, cpus=2)
    assert fitting_actors({"CPU": 4.0}, [gguf], coming=[gguf]) == [gguf]
    assert fitting_actors({"CPU": 4.0}, [gguf], coming=[gptq]) == [gguf, gguf], "no GPU: it waits for a node of its own"
