"""Find the hardware of the cluster's nodes, and reserve a whole node for a measurement."""

from collections.abc import Callable
from dataclasses import dataclass

from intent import hardware
from intent.artifacts.variant import VariantSpec
from intent.engine.config import Device
from intent.hardware import CPU, GPU, Hardware
from intent.run.config import ClusterConfig, ClusterMode


@dataclass(frozen=True)
class Node:
    """A node that represents its hardware class, with all its CPUs."""

    hardware: Hardware
    node_id: str
    cpus: int


def distinct_nodes() -> list[Node]:
    """Return one node for each model of processor in the cluster: the node with the most CPUs."""
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    probe = ray.remote(num_cpus=0)(_probe)
    probes = []
    for node in nodes:
        cpus, gpus = int(node["Resources"]["CPU"]), int(node["Resources"].get("GPU", 0))
        probes.append((node["NodeID"], cpus, probe.options(scheduling_strategy=_on(node["NodeID"])).remote(cpus, gpus)))
    best: dict[tuple[str, str], Node] = {}
    for node, cpus, ref in probes:
        for kind in ray.get(ref):
            best_node = best.get((kind.kind, kind.model))
            if best_node is None or cpus > best_node.cpus:
                best[kind.kind, kind.model] = Node(kind, node, cpus)
    return list(best.values())


def fitting(candidates: list[Node], spec: VariantSpec, device: Device = Device.auto) -> list[Node]:
    """Return the nodes to measure a variant: CPUs for GGUF and linear models, for others GPUs or, if there are none, CPUs.

    The reference is measured on both, so that each variant is compared with it on the same hardware.
    """
    gpus, cpus = ([node for node in candidates if node.hardware.kind == kind] for kind in (GPU, CPU))
    if spec.only_cpus or device is Device.cpu:
        return cpus
    if device is Device.cuda:
        return gpus
    return gpus + cpus if spec.engine == "reference" else gpus or cpus


def task_cpus(config: ClusterConfig, cpus: int) -> int:
    """Return the CPUs for a task: `cpus`, but at most those of a local cluster, which no node will join."""
    import ray

    return min(cpus, int(ray.cluster_resources().get("CPU", cpus))) if config.mode is ClusterMode.local else cpus


def alone(node: Node, name: str, function: Callable):
    """Return `function` as a remote function with all CPUs of the node, in a fresh process, so that its memory peak is its
    own.

    `name`: of this measurement. It makes the environment unique, and Ray starts a new process for a new environment.
    """
    import ray

    environment = {"env_vars": {"OMP_NUM_THREADS": str(node.cpus), "INTENT_MEASURES": name}}
    options = {"num_cpus": node.cpus, "num_gpus": int(node.hardware.kind == GPU), "max_calls": 1, "max_retries": 0}
    return ray.remote(**options, runtime_env=environment, scheduling_strategy=_on(node.node_id))(function)


def _probe(cpus: int, gpus: int) -> list[Hardware]:
    return [each for each in (hardware.cpu(cpus), hardware.gpu() if gpus else None) if each]


def _on(node: str):
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=False)
