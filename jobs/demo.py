"""Run the whole job on this machine: generate, train, quantize, evaluate, then classify a query log with two engines."""

import os
import random
import time
from collections.abc import Callable, Mapping

import pyarrow as pa

from intent.artifacts.lineage import Lineage
from intent.config import ClassifyConfig
from intent.dataset.dataset import parquet
from intent.evaluate.report import REPORT, render_text
from intent.progress import time_of
from intent.run.progress import Summary
from intent.storage import Store, open_store
from intent.synth.config import DataConfig
from intent.synth.corpus import Corpus
from jobs.app import cluster, job, say
from jobs.classify import classify, describe
from jobs.evaluate import evaluate, results_at
from jobs.generate import generate
from jobs.quantize import quantize
from jobs.train import describe as describe_training
from jobs.train import train

LOG_SEED = 2026
FILES, ROWS, DISTINCT = 4, 20_000, 3_000
# The least exact match that the default model should reach, and the most that quantization may lose.
LEAST, MOST_LOST = 0.9, 0.02


def write_log(store: Store, lineage: Lineage, data: DataConfig) -> None:
    """Write a realistic query log, with a few frequent messages, many rare ones, and some rows that must be rejected."""
    if store.stat(f"part-{FILES - 1}.parquet"):
        return
    corpus = Corpus(lineage.schema, data.languages, LOG_SEED, lineage.catalog)
    messages = list(dict.fromkeys(example.message for example in corpus.examples(0, 2 * DISTINCT)))[:DISTINCT]
    rng = random.Random(LOG_SEED)
    weights = [1 / (rank + 10) for rank in range(len(messages))]
    rows: list[str | None] = [*rng.choices(messages, weights, k=ROWS - len(messages)), *messages]
    rng.shuffle(rows)
    rows[17], rows[4_711], rows[12_345] = None, "", " \n "
    size = ROWS // FILES
    for number in range(FILES):
        part = range(number * size, (number + 1) * size)
        table = pa.table({"id": [f"q{i:06d}" for i in part], "message": [rows[i] for i in part]})
        store.put(f"part-{number}.parquet", parquet(table))


class Phases:
    """Run the demo's phases in turn, and print the time that each took."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.clock, self.took = clock, {}
        self.started = clock()

    def run(self, name: str, title: str, phase: Callable):
        """Run a phase and return its result."""
        say(f"\n== {title}")
        start = self.clock()
        result = phase()
        self.took[name] = self.clock() - start
        say(f"   {name} took {time_of(self.took[name])}")
        return result

    def __str__(self) -> str:
        """Return the times of all phases and the total, which includes the cluster's start."""
        each = ", ".join(f"{name} {time_of(seconds)}" for name, seconds in self.took.items())
        return f"all of it took {time_of(self.clock() - self.started)}: {each}"


def weak(results: Mapping[str, Mapping]) -> str:
    """Return a line with the variants that are less exact than expected, or ""."""
    measured = {name: (r["score"]["exact"], (r["loss"] or [None])[0]) for name, r in results.items() if "score" in r}
    compared = {name for name, (_, lost) in measured.items() if lost is not None and name != "reference"}
    weaker = [
        f"{name} ({exact:.3f})"
        for name, (exact, lost) in measured.items()
        if (lost > MOST_LOST if name in compared else exact < LEAST)
    ]
    limits = f"exact match below {LEAST:g}, or more than {MOST_LOST:g} below the checkpoint's"
    return f"LESS ACCURATE THAN EXPECTED ({limits}): {', '.join(weaker)}" if weaker else ""


def closing(config: ClassifyConfig, text: str, report: str, summary: Summary, phases: Phases) -> str:
    """Return the text at the end of the demo."""
    return f"""
{text}

{describe(summary)}

{phases}

report:   {report}
models:   {config.workspace}/models.json

What to run next:
  your own log      .venv/bin/python -m jobs.classify input=FOLDER output=FOLDER catalog=FILE engine=gguf
  your own catalog  .venv/bin/python -m jobs.train --help   (then quantize, evaluate, classify with the same catalog=FILE)
  every day         .venv/bin/python -m jobs.nightly --help"""


@job("demo", ClassifyConfig)
def main(config: ClassifyConfig) -> None:
    config.cluster.cpus = config.cluster.cpus or max(2, os.cpu_count() or 2)
    lineage, specs, phases = Lineage(config), config.quant.specs(), Phases()
    with cluster(config.cluster):
        title = f"generate {config.data.train:,} labelled messages"
        data = phases.run("generate", title, lambda: generate(lineage, config.data))
        say(f"   {data.uri}")
        title = f"fine-tune {config.model.name} with QLoRA and merge"
        checkpoint = phases.run("train", title, lambda: train(lineage))
        say(f"   {describe_training(checkpoint.record.metrics)}; {checkpoint.uri}")
        title = f"quantize to {', '.join(config.quant.variants)}"
        variants = phases.run("quantize", title, lambda: quantize(lineage, specs))
        evaluation = phases.run("evaluate", "evaluate on held-out messages", lambda: evaluate(lineage, specs))
        results = results_at(evaluation, lineage)
        text = "\n".join(line for line in (render_text(results), weak(results)) if line)
        config.output += "/" + "-".join(variant.fingerprint[:6] for variant in variants.values())

        def classify_log() -> Summary:
            write_log(open_store(config.input, lineage.options), lineage, config.data)
            return classify(config)

        title = f"classify {ROWS:,} rows of {config.input} with {' and '.join(variants)}"
        summary = phases.run("classify", title, classify_log)
    say(closing(config, text, f"{evaluation.files_uri}/{REPORT}", summary, phases))


if __name__ == "__main__":
    main()
