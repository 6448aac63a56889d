"""Rows of the benchmark for alternatives to our engines, and their measurements."""

import subprocess
import sys
import time

import pytest

from intent.artifacts.variant import VariantSpec
from intent.benchmark import peers
from intent.benchmark.config import RowKind
from intent.benchmark.engines import plan
from intent.benchmark.meters import OUTPUT_TOKENS, Workload, measure
from intent.engine.config import Device
from intent.task.prompt import Prompt
from tests.tiny import LABELS, write_checkpoint

WORK = Workload(Prompt(LABELS), [f"where is my thing{i}" for i in range(12)], [{"label": "order_status"}] * 12)
PEERS = (RowKind.pipeline, RowKind.server, RowKind.vllm, RowKind.ray_data, RowKind.encoder)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


def rows(names, cuda, device=Device.auto):
    specs = [VariantSpec.parse(name) for name in names]
    planned = plan(specs, list(RowKind), ["compact"], [8], [2], 2, cuda, device)
    return [(row.kind, row.variant, row.device) for row in planned if row.kind in PEERS]


def test_each_peer_has_a_row_of_the_files_that_it_reads():
    assert rows(["gguf-Q8_0", "reference-float32"], cuda=False) == [
        (RowKind.server, "gguf-Q8_0", "cpu"),
        (RowKind.pipeline, "reference-float32", "cpu"),
        (RowKind.encoder, "embedding-minilm", "cpu"),
    ]
    gpu = [(kind, "reference-bfloat16", "cuda") for kind in (RowKind.pipeline, RowKind.vllm, RowKind.ray_data)]
    assert rows(["reference-bfloat16"], cuda=True, device=Device.cuda) == gpu
    assert rows(["reference-bfloat16"], cuda=False, device=Device.cuda) == gpu[1:], "rows that say that there is no GPU"


def test_what_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    monkeypatch.setattr(peers.shutil, "which", lambda name: None)
    assert peers.lacks(RowKind.vllm) == peers.lacks(RowKind.ray_data) == "the Python package vllm is not installed"
    assert "llama-server" in peers.lacks(RowKind.server)
    assert peers.lacks(RowKind.pipeline) == peers.lacks(RowKind.engine) == ""


def test_a_pipeline_generates_the_same_text_as_the_other_baselines(tmp_path):
    write_checkpoint(tmp_path)
    meter = peers.PipelineMeter(tmp_path, WORK, "float32", "cpu", batch=4)
    reading = measure(meter, 1e6, first=4)
    assert reading.messages == len(reading.latencies) == 12
    assert reading.tokens > 12 * OUTPUT_TOKENS


@pytest.mark.slow
def test_a_server_is_asked_many_things_at_once_and_ends(f16):
    if reason := peers.lacks(RowKind.server):
        pytest.skip(reason)
    meter = peers.ServerMeter(f16, WORK, threads=1, slots=4)
    reading = measure(meter, 1e6, first=4)
    meter.close()
    assert reading.messages == len(reading.latencies) == 12 and reading.tokens >= 12
    assert meter.process.poll() is not None


def test_a_server_ends_with_the_process_that_started_it(tmp_path):
    script = (
        "import subprocess, sys, os, signal\n"
        "from intent.benchmark.peers import _end_with_parent\n"
        "child = subprocess.Popen(['sleep', '60'], preexec_fn=_end_with_parent)\n"
        "print(child.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    pid = int(done.stdout)
    for _ in range(200):
        state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
        if not state or state.startswith("Z"):
            break
        time.sleep(0.05)
    assert not state or state.startswith("Z")
