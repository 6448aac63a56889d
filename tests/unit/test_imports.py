"""The layers: jobs use intent, intent uses libraries; Hydra and Ray stay where they belong; the driver stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RAY_MODULES = {
    "intent/run/actor_pool.py",
    "intent/run/survey.py",
    "intent/run/metrics.py",
    "intent/benchmark/fan_out.py",
    "intent/benchmark/label_cache.py",
    "intent/train/runner.py",
    "intent/benchmark/peers.py",
}
DRIVERS = ["generate", "train", "quantize", "evaluate", "sweep", "classify", "nightly"]
HEAVY = {"torch", "transformers", "llama_cpp", "peft", "bitsandbytes", "gptqmodel"}


def imported(path: Path, top_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_only else ast.walk(tree)
    packages = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            packages |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            packages.add(node.module.split(".")[0])
    return packages


@pytest.mark.parametrize("path", sorted((ROOT / "intent").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_library_keeps_its_layers(path):
    assert not {"jobs", "hydra"} & imported(path)
    if str(path.relative_to(ROOT)) not in RAY_MODULES:
        assert "ray" not in imported(path)
    assert not HEAVY & imported(path, top_only=True)


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def dependencies(path: Path, modules: set[str]) -> set[str]:
    """Return the project's modules that a module imports, also inside of functions, but not for type checkers alone."""
    tree = ast.parse(path.read_text())
    unseen = {id(inner) for node in ast.walk(tree) if _for_types(node) for inner in ast.walk(node)}
    targets = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and id(node) not in unseen:
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            targets |= {name if name in modules else node.module for name in whole} & modules
    return targets - {module_name(path)}


def _for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def test_no_modules_import_each_other_in_a_circle():
    paths = {module_name(path): path for folder in ("intent", "jobs") for path in (ROOT / folder).rglob("*.py")}
    left = {name: dependencies(path, set(paths)) for name, path in paths.items()}
    while free := [name for name, needs in left.items() if not needs & left.keys()]:
        for name in free:
            del left[name]
    assert not left, "these modules import each other, or are imported by such: " + ", ".join(sorted(left))


def test_the_driver_stays_light():
    # What one imports is there for the next ones, too: none of it is heavy, or the first that is light no more is named.
    code = f"import sys\nfor job in {DRIVERS}: __import__(f'jobs.{{job}}'); print(job, *({HEAVY} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == DRIVERS
