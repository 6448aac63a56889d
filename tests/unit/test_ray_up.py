"""The cluster file for `ray up`, read as Ray reads it."""

from copy import deepcopy
from pathlib import Path

import pytest
import yaml
from jsonschema import ValidationError
from ray.autoscaler._private.aws.config import _configure_security_group
from ray.autoscaler._private.util import prepare_config, validate_config

from intent.run.config import FleetConfig

ROOT = Path(__file__).parents[2]


@pytest.fixture
def cluster() -> dict:
    return prepare_config(yaml.safe_load((ROOT / "infra/ray-up.yaml").read_text()))


def test_ray_accepts_it_and_nothing_that_it_does_not_know(cluster):
    assert validate_config(cluster) is None
    with pytest.raises(ValidationError, match="idle_minutes"):
        validate_config({**cluster, "idle_minutes": 5})


def test_workers_are_spot_and_scale_from_none_and_the_head_is_neither(cluster):
    types = cluster["available_node_types"]
    head = types.pop(cluster["head_node_type"])
    assert "InstanceMarketOptions" not in head["node_config"]
    assert set(types) == {"gpu", "cpu"}
    for worker in types.values():
        assert worker["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
        assert worker["min_workers"] == 0 < worker["max_workers"]
    assert sum(worker["max_workers"] for worker in types.values()) == cluster["max_workers"]
    assert 0 < cluster["idle_timeout_minutes"] <= 10


def test_an_actor_of_the_fleet_fits_a_node_of_its_kind(cluster):
    fleet, types = FleetConfig(), cluster["available_node_types"]
    assert types["gpu"]["resources"]["GPU"] >= 1 and types["gpu"]["resources"]["CPU"] >= fleet.gptq_cpus
    assert types["cpu"]["resources"]["CPU"] >= fleet.gguf_cpus
    assert types["head"]["resources"]["CPU"] == 0


def test_the_store_is_reached_by_role_and_the_cluster_only_with_a_token(cluster):
    for node in cluster["available_node_types"].values():
        assert node["node_config"]["IamInstanceProfile"]["Name"]
        assert node["node_config"]["MetadataOptions"]["HttpTokens"] == "required"
    assert "--env RAY_AUTH_MODE=token" in cluster["docker"]["run_options"]
    assert cluster["file_mounts"] == {"/home/ray/.ray/auth_token": "~/.ray/auth_token"}
    start = cluster["head_start_ray_commands"][-1]
    assert "--dashboard-host=127.0.0.1" in start and "token" not in start


def test_nobody_outside_reaches_a_node(cluster):
    """Ray admits SSH from everywhere to a security group that it creates."""
    assert cluster["provider"]["use_internal_ips"]
    for node in cluster["available_node_types"].values():
        assert node["node_config"]["SecurityGroupIds"] and node["node_config"]["SubnetIds"]
    assert _configure_security_group(deepcopy(cluster)) == cluster


def test_each_node_has_a_named_image_and_resources_for_our_actors(cluster):
    """Ray's default image is Ubuntu 18.04, and its disk may be smaller than our image."""
    for node in cluster["available_node_types"].values():
        assert node["node_config"]["ImageId"].startswith("ami-")
        [disk] = node["node_config"]["BlockDeviceMappings"]
        assert disk["Ebs"]["VolumeSize"] >= 100


def test_the_heads_machine_sees_where_ray_lists_its_nodes_for_prometheus(cluster):
    assert "--volume /tmp/ray:/tmp/ray" in cluster["docker"]["head_run_options"]
    assert cluster["initialization_commands"] == ["mkdir -p /tmp/ray"]
