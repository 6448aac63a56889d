"""The promises of SECURITY.md about the code: no pickles, no remote code, safetensors only, and a token everywhere."""

import ast
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*(ROOT / "intent").rglob("*.py"), *(ROOT / "jobs").rglob("*.py")])
PICKLES = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
RUNS = {"eval", "exec", "os.system", "os.popen"}


def calls(tree: ast.AST) -> list[tuple[str, dict[str, ast.expr]]]:
    """Return (dotted name, keyword arguments) of every call."""
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [(ast.unparse(call.func), {word.arg: word.value for word in call.keywords if word.arg}) for call in nodes]


def breaches(tree: ast.AST) -> list[str]:
    """Return the calls and imports of a source that the promises forbid."""
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    names = [name for name in imported if name.split(".")[0] in PICKLES or name.startswith("ray.data")]
    for name, words in calls(tree):
        keywords = {word: ast.unparse(value) for word, value in words.items()}
        if name in RUNS or (name.startswith("subprocess.") and keywords.get("shell") == "True"):
            names.append(name)
        if "trust_remote_code" in keywords:
            names.append(f"{name} trusts remote code")
        if name.endswith("torch.load") and keywords.get("weights_only") != "True":
            names.append(f"{name} unpickles")
        if re.search(r"\bAutoModel\w*\.from_pretrained$", name) and keywords.get("use_safetensors") != "True":
            names.append(f"{name} may unpickle")
        if name in ("np.load", "numpy.load"):
            names.append(name)
    return names + re.findall(r"(?:Unsafe|Full)Loader|yaml\.Loader|(?:unsafe|full)_load", ast.unparse(tree))


# A benchmark's row measures Ray Data, in a process of its own, on messages that the benchmark made. It reads no file.
ALLOWED = {"peers.py": ["ray.data.llm"]}


def test_nothing_is_unpickled_and_no_code_comes_with_a_model():
    assert len(SOURCES) > 50
    assert {path.name: names for path in SOURCES if (names := breaches(ast.parse(path.read_text())))} == ALLOWED


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from ray.data import read_parquet",
        "AutoTokenizer.from_pretrained(x, trust_remote_code=True)",
        "transformers.AutoModelForCausalLM.from_pretrained(x)",
        "torch.load(x)",
        "eval(x)",
        "yaml.load(x, yaml.Loader)",
    ],
)
def test_a_breach_is_found(code):
    assert breaches(ast.parse(code))


@pytest.mark.parametrize("name", ["RAY_DATA_AUTOLOAD_PYEXTENSIONTYPE", "RAY_DATA_AUTOLOAD_CLOUDPICKLE_TENSOR_METADATA"])
def test_a_job_refuses_an_environment_in_which_ray_unpickles_data(command_lines, name, tmp_path):
    done = command_lines.run("classify", f"input={tmp_path}", f"output={tmp_path}/out", env={name: "1"})
    assert done.returncode == 2 and name in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_ray_version_does_not_run_code_from_parquet_metadata():
    import ray

    assert '"ray[default,train]>=2.56"' in (ROOT / "pyproject.toml").read_text()
    pinned = re.search(r"(?m)^ray==(\d+)\.(\d+)", (ROOT / "infra/constraints.txt").read_text())
    installed = re.match(r"(\d+)\.(\d+)", ray.__version__)
    assert all(tuple(map(int, version.groups())) >= (2, 56) for version in (pinned, installed))


def test_every_cluster_that_is_described_wants_a_token():
    kuberay = ROOT / "infra/kuberay"
    (standing,) = yaml.safe_load_all((kuberay / "base/raycluster.yaml").read_text())
    (once,) = yaml.safe_load_all((kuberay / "rayjob.yaml").read_text())
    for spec in (standing["spec"], once["spec"]["rayClusterSpec"]):
        assert spec["authOptions"]["mode"] == "token"
    aws = yaml.safe_load((ROOT / "infra/ray-up.yaml").read_text())
    assert "--env RAY_AUTH_MODE=token" in aws["docker"]["run_options"]
    assert re.search(r"(?m)^ENV .*\bRAY_AUTH_MODE=token\b", (ROOT / "infra/Dockerfile").read_text())
