"""The manifests for KubeRay: fields, secrets by reference, and a cluster that can hold the actors."""

import shlex
import shutil
import subprocess
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from intent import errors
from intent.config import YESTERDAY, NightlyConfig
from intent.run.config import FleetConfig
from jobs.app import load_config

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "infra/kuberay"
FIELDS = yaml.safe_load(Path(__file__).with_name("kuberay.yaml").read_text())
KUBERNETES = kubernetes_validate.latest_version()


def documents(path: Path) -> list[dict]:
    return list(yaml.safe_load_all(path.read_text()))


MANIFESTS = [
    pytest.param(document, id=f"{document['kind']} {path.name}")
    for path in sorted(FOLDER.rglob("*.yaml"))
    for document in documents(path)
    if document["kind"] != "Kustomization" and path.name != "gcs.yaml"
]


def check_fields(kind: str, spec: dict) -> None:
    jsonschema.validate(spec, {"$ref": f"#/$defs/{kind}", "$defs": FIELDS["$defs"]})


def check_pods(cluster: dict) -> None:
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        pod = {"apiVersion": "v1", "kind": "PodTemplate", "template": group["template"]}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_every_field_is_one_that_kubernetes_or_kuberay_has(manifest):
    if manifest["apiVersion"] == "ray.io/v1":
        spec = manifest["spec"]
        check_fields({"RayCluster": "cluster", "RayJob": "job"}[manifest["kind"]], spec)
        check_pods(spec.get("rayClusterSpec", spec))
    else:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def cluster() -> dict:
    return documents(FOLDER / "base/raycluster.yaml")[0]["spec"]


def nightly() -> dict:
    return documents(FOLDER / "base/nightly.yaml")[0]["spec"]


def pods() -> list[dict]:
    groups = [cluster()["headGroupSpec"], *cluster()["workerGroupSpecs"], nightly()["jobTemplate"]["spec"]]
    return [group["template"]["spec"] for group in groups]


def test_a_misspelt_field_is_found():
    spec = cluster()
    spec["workerGroupSpecs"][0]["maxReplica"] = 3
    with pytest.raises(jsonschema.ValidationError, match="maxReplica"):
        check_fields("cluster", spec)
    spec = cluster()
    spec["headGroupSpec"]["template"]["spec"]["containers"][0]["imge"] = "x"
    with pytest.raises(kubernetes_validate.ValidationError, match="imge"):
        check_pods(spec)


def test_a_rayjob_has_the_spec_of_the_standing_cluster():
    assert documents(FOLDER / "rayjob.yaml")[0]["spec"]["rayClusterSpec"] == cluster()


def test_redis_is_an_option_that_names_its_password_and_does_not_hold_it():
    patch = documents(FOLDER / "redis/gcs.yaml")[0]
    assert patch["metadata"]["name"] == documents(FOLDER / "base/raycluster.yaml")[0]["metadata"]["name"]
    check_fields("cluster", cluster() | patch["spec"])
    assert "gcsFaultToleranceOptions" not in cluster()
    assert set(patch["spec"]["gcsFaultToleranceOptions"]["redisPassword"]) == {"valueFrom"}


@pytest.mark.skipif(not shutil.which("kubectl"), reason="no kubectl")
@pytest.mark.parametrize("overlay", ["base", "redis"])
def test_kustomize_builds_it(overlay):
    done = subprocess.run(["kubectl", "kustomize", FOLDER / overlay], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    built = list(yaml.safe_load_all(done.stdout))
    assert all(document["metadata"]["namespace"] == "intent" for document in built)
    (ray,) = (document["spec"] for document in built if document["kind"] == "RayCluster")
    assert ("gcsFaultToleranceOptions" in ray) == (overlay == "redis")


def test_each_group_fits_the_actors_that_its_nodes_are_for():
    fleet = FleetConfig()
    gpu, cpu = cluster()["workerGroupSpecs"]
    for group in (gpu, cpu):
        (container,) = group["template"]["spec"]["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert group["minReplicas"] == group["replicas"] == 0 < group["maxReplicas"]
    size = gpu["template"]["spec"]["containers"][0]["resources"]["requests"]
    assert int(size["nvidia.com/gpu"]) == 1 and int(size["cpu"]) >= fleet.gptq_cpus
    assert int(cpu["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"]) >= fleet.gguf_cpus
    assert cluster()["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


@pytest.mark.parametrize("source", ["nightly", "rayjob"])
def test_the_command_of_a_daily_run_requests_no_more_than_the_worker_groups_hold(source):
    if source == "nightly":
        (container,) = nightly()["jobTemplate"]["spec"]["template"]["spec"]["containers"]
        assert container["command"] == ["python", "-m", "jobs.submit", "--installed", "nightly"]
        overrides, deadline = container["args"], nightly()["jobTemplate"]["spec"]["activeDeadlineSeconds"]
    else:
        spec = documents(FOLDER / "rayjob.yaml")[0]["spec"]
        _, _, module, *overrides = shlex.split(spec["entrypoint"])
        assert module == "jobs.nightly"
        deadline = spec["activeDeadlineSeconds"]
    OverridesParser.create().parse_overrides(overrides)
    config = load_config("nightly", overrides, NightlyConfig)
    gpu, cpu = cluster()["workerGroupSpecs"]
    # The run waits for a late log. Without a marker it would be refused, and a refusal is not retried.
    assert config.arrival == "_SUCCESS"
    # jobs.submit adds the date. A RayJob that is retried after midnight must label the same date.
    assert source == "nightly" or config.date != YESTERDAY
    assert config.arrival_hours * 3600 < deadline < 24 * 3600
    assert not config.engine.variants and config.engine.otherwise
    assert config.fleet.gptq_actors == gpu["maxReplicas"]
    each = int(cpu["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"]) // config.fleet.gguf_cpus
    assert config.fleet.gguf_actors <= each * cpu["maxReplicas"]


def test_daily_runs_never_overlap_and_are_retried_only_where_that_helps():
    spec = nightly()
    assert spec["timeZone"] == "Etc/UTC" and spec["concurrencyPolicy"] == "Forbid"
    assert spec["successfulJobsHistoryLimit"] > 0 and spec["failedJobsHistoryLimit"] > 0
    job = spec["jobTemplate"]["spec"]
    (rule,) = job["podFailurePolicy"]["rules"]
    final = {errors.ConfigError, errors.ManifestLost, errors.StoreUnfit, errors.Disagreement}
    assert {error.exit_code for error in final} <= set(rule["onExitCodes"]["values"])
    assert errors.ShardsFailed.exit_code not in rule["onExitCodes"]["values"]
    assert job["backoffLimit"] > 0


def test_secrets_are_named_never_held():
    assert cluster()["authOptions"] == {"mode": "token", "secretName": "intent-token"}
    for path in FOLDER.rglob("*.yaml"):
        assert not any(document["kind"] == "Secret" for document in documents(path))
    for pod in pods():
        for entry in pod["containers"][0].get("env", []):
            if any(word in entry["name"] for word in ("TOKEN", "SECRET", "PASSWORD")):
                assert "value" not in entry and entry["valueFrom"]["secretKeyRef"]["name"]


def test_pods_are_nobody_and_gain_nothing():
    for pod in pods():
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 1000
        for container in pod["containers"]:
            assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def test_the_network_policy_selects_every_pod_of_the_cluster_and_opens_only_the_dashboard_and_metrics():
    (policy,) = documents(FOLDER / "base/network.yaml")
    label = policy["spec"]["podSelector"]["matchLabels"]
    for group in [cluster()["headGroupSpec"], *cluster()["workerGroupSpecs"]]:
        assert label.items() <= group["template"]["metadata"]["labels"].items()
    opened = [port["port"] for rule in policy["spec"]["ingress"] for port in rule.get("ports", [])]
    assert opened == [8265, 8080]
    assert [rule["from"] for rule in policy["spec"]["ingress"] if "ports" not in rule] == [
        [{"podSelector": {"matchLabels": label}}]
    ]
