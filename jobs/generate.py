"""Make the data set: synthetic labeled messages, written in parallel, or your own labeled messages.

The same seed gives the same data, whatever the number of workers.
"""

import json
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from intent import artifacts
from intent.artifacts.lineage import Lineage
from intent.config import JobConfig
from intent.dataset import dataset, labelled
from intent.dataset.deduplicate import Evaluation, keys, text_keys
from intent.dataset.example import from_table, to_table
from intent.errors import ConfigError
from intent.evaluate import gold
from intent.openai import Endpoint
from intent.storage import open_store
from intent.synth import teacher
from intent.synth.card import card
from intent.synth.chart import picture
from intent.synth.config import CatalogSource, DataConfig, HeldOut
from intent.synth.corpus import BLOCK, Corpus
from intent.task.schema import INTENTS, IntentSchema, items_of
from jobs.app import Steps, cluster, job, say
from jobs.context import require_trainable
from jobs.train import make_base

# A task gets whole blocks, so that no sampled catalog is split between two tasks.
PER_TASK = 20 * BLOCK
# A corpus is exhausted if this many tasks in a row give no new message.
BARREN_TASKS = 50
CARD_EXAMPLES = 20_000
ANSWERS = "endpoint"
NONE = np.empty(0, np.int64)


def generate(lineage: Lineage, config: DataConfig) -> artifacts.Artifact:
    """Return the data set that `lineage` names, made if it does not exist."""
    record = lineage.data_record()
    if artifact := artifacts.find(artifacts.artifact_uri(lineage.config.workspace, record), lineage.options):
        return artifact
    require_trainable(lineage, lambda: _base(lineage))
    build = _bring if lineage.config.labelled.uri else _build
    return artifacts.make(lineage.config.workspace, record, lambda folder: build(lineage, config, folder), lineage.options)


def _base(lineage: Lineage) -> artifacts.Artifact | None:
    """Return the base model, or None if it cannot be loaded here. Data needs no model, and `jobs.train` raises the error."""
    try:
        return make_base(lineage)
    except ConfigError:
        return None


def _bring(lineage: Lineage, config: DataConfig, folder: Path) -> dict:
    """Write the user's own labeled messages. Raises ConfigError if too few rows are valid examples."""
    own = labelled.examples_of(lineage.labelled_files, lineage.config.labelled, lineage.schema, lineage.catalog.names)
    labelled.require_most(own, str(lineage.config.labelled.uri))
    labelled.keep_apart(own, gold.messages())
    refusals = {"refused": dict(own.refused), "unknown": {slot: sorted(values) for slot, values in own.unknown.items()}}
    if empty := [split for split, examples in own.splits.items() if not examples]:
        raise ConfigError("labelled.uri", lineage.config.labelled.uri, f"gives no {empty[0]} messages; {json.dumps(refusals)}")
    splits = {split: to_table(examples) for split, examples in own.splits.items()}
    return _publish(folder, lineage.schema, splits, {"": lineage.catalog.names}, {}) | refusals


def _build(lineage: Lineage, config: DataConfig, folder: Path) -> dict:
    catalog = lineage.catalog if config.catalogs is CatalogSource.given else None
    catalogs: dict[str, tuple[str, ...]] = {"": catalog.names} if catalog else {}
    splits: dict[str, pa.Table] = {}
    # Evaluation splits come first, so that a training message that repeats one of theirs is dropped.
    for number, split in enumerate(reversed(dataset.SPLITS)):
        by_template = config.held_out is HeldOut.templates
        seed = config.seed if by_template else config.seed * len(dataset.SPLITS) + number
        corpus = Corpus(lineage.schema, config.languages, seed, catalog, split if by_template else "all", config.phenomena)
        earlier = np.concatenate([NONE, *map(text_keys, splits.values())])
        splits[split] = _unique(corpus, split, getattr(config, split), earlier, catalogs)
    taught = _teach(lineage, splits, catalogs) if lineage.config.teacher.messages else {}
    return _publish(folder, lineage.schema, splits, catalogs, taught)


def _publish(folder: Path, schema: IntentSchema, splits: dict[str, pa.Table], catalogs: dict, taught: dict) -> dict:
    for split, table in splits.items():
        for key, data in dataset.split_files(split, table):
            (folder / key).write_bytes(data)
    used = {id for table in splits.values() for id in table["catalog"].unique().to_pylist()}
    used_catalogs = {key: names for key, names in catalogs.items() if key in used}
    dataset.write_catalogs(folder, used_catalogs)
    dataset.write_schema(folder, schema)
    evaluation = [example.message for example in from_table(splits["test"])]
    sample = from_table(splits["train"].slice(0, CARD_EXAMPLES))
    (folder / dataset.CARD).write_text(card(sample, used_catalogs, evaluation, taught=taught))
    (folder / dataset.CHART).write_text(picture(sample))
    counts = {split: table.num_rows for split, table in splits.items()} | _shares(splits["train"])
    return counts | ({"teacher": taught} if taught else {})


def _unique(corpus: Corpus, split: str, count: int, earlier: np.ndarray, catalogs: dict) -> pa.Table:
    """Return the first `count` examples that differ from each other in catalog or text, and whose text is in no gold set and no
    earlier split. `earlier`: the text keys of the earlier splits.

    Raises ConfigError if the corpus has fewer.
    """
    tables: list[pa.Table] = []
    seen: set[int] = set()
    rows = barren = 0
    with Steps(f"generate {split}", "message") as steps:
        steps.update(0, count)
        for table, hashes, more in _in_order(corpus, count, earlier):
            catalogs.update(more)
            if not corpus.catalog:
                seen.clear()
            fresh = _fresh(hashes, seen)[: count - rows]
            tables.append(table.take(pa.array(fresh, pa.int64())))
            rows += len(fresh)
            barren = 0 if fresh else barren + 1
            steps.update(rows, count)
            if rows == count:
                return pa.concat_tables(tables)
            if barren == BARREN_TASKS:
                remedy = f"only {rows:,} different messages can be generated; ask for fewer, or for more phenomena or languages"
                raise ConfigError(f"data.{split}", count, remedy)
    raise AssertionError("unreachable: the corpus has no end")


def _fresh(hashes: np.ndarray, seen: set[int]) -> list[int]:
    """Return the positions of hashes that are not in `seen`, and add them to it."""
    fresh = []
    for position, value in enumerate(hashes.tolist()):
        if value not in seen:
            seen.add(value)
            fresh.append(position)
    return fresh


def _in_order(corpus: Corpus, count: int, earlier: np.ndarray) -> Iterator[tuple[pa.Table, np.ndarray, dict]]:
    """Yield `_block` of consecutive ranges of examples, computed by Ray tasks a few blocks ahead.

    A range that suffices for `count` is computed alone, because a second process would read the lexicon for nothing.
    """
    import ray

    task = ray.remote(num_cpus=1)(_block)
    shared = ray.put((corpus, Evaluation(gold.messages()), earlier))
    ahead = max(1, min(2 * int(ray.cluster_resources().get("CPU", 1)), -(-count // PER_TASK)))
    waiting = deque(task.remote(shared, i * PER_TASK, (i + 1) * PER_TASK) for i in range(ahead))
    start = ahead
    while True:
        yield ray.get(waiting.popleft())
        waiting.append(task.remote(shared, start * PER_TASK, (start + 1) * PER_TASK))
        start += 1


def _block(shared: tuple[Corpus, Evaluation, np.ndarray], start: int, stop: int) -> tuple[pa.Table, np.ndarray, dict]:
    """Return the block's examples whose text is in no evaluation set and no earlier split, their keys, and all catalogs.

    The task computes the keys, because the driver receives the blocks of all tasks.
    """
    corpus, evaluation, earlier = shared
    table = to_table(evaluation.without(corpus.examples(start, stop)))
    table = table.filter(pa.array(~np.isin(text_keys(table), earlier)))
    return table, keys(table), corpus.catalogs(start, stop)


def _teach(lineage: Lineage, splits: dict[str, pa.Table], catalogs: dict) -> dict:
    """Add the teacher's messages for the first training examples. The workspace keeps the teacher's answers."""
    config = lineage.config.teacher
    endpoint = Endpoint(config.endpoint, open_store(f"{lineage.config.workspace}/{ANSWERS}", lineage.options))
    evaluation = [*gold.messages(), *splits["test"]["message"].to_pylist(), *splits["validation"]["message"].to_pylist()]
    written = teacher.Teacher(endpoint, config, lineage.schema, evaluation)
    with Steps("teacher") as steps:
        taught = written.write(from_table(splits["train"].slice(0, config.messages)), catalogs, steps.report)
    taught_rows, train = to_table(taught.examples), splits["train"]
    about = train.filter(pc.is_in(train["catalog"], taught_rows["catalog"].combine_chunks()))
    fresh = _fresh(keys(taught_rows), set(keys(about).tolist()))
    taught.rejected["repeats another"] += len(taught.examples) - len(fresh)
    taught.examples = [taught.examples[i] for i in fresh]
    splits["train"] = pa.concat_tables([train, taught_rows.take(pa.array(fresh, pa.int64()))])
    return teacher.report(taught, endpoint)


def _shares(table: pa.Table) -> dict:
    """Count the values of the first slot, per item if intents are lists, and the languages."""
    actions: Counter = Counter()
    lengths: Counter = Counter()
    for text, count in _counts(table, "intent").items():
        intent = json.loads(text)
        items = items_of(intent)
        lengths.update({str(len(items)): count} if INTENTS in intent else {})
        for item in items or [{"": "none"}]:
            actions[str(next(iter(item.values())))] += count
    shares = {"actions": dict(actions), "languages": _counts(table, "language")}
    return shares | ({"items": dict(sorted(lengths.items()))} if lengths else {})


def _counts(table: pa.Table, column: str) -> dict[str, int]:
    return {entry["values"]: entry["counts"] for entry in table[column].value_counts().to_pylist()}


@job("generate")
def main(config: JobConfig) -> None:
    lineage = Lineage(config)
    lineage.check()
    with cluster(config.cluster):
        artifact = generate(lineage, config.data)
    say(f"data set: {artifact.uri}\n{json.dumps(artifact.record.metrics)}")


if __name__ == "__main__":
    main()
