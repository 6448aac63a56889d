"""Write synthetic labelled messages, in parallel; the same seed gives the same data whatever the number of workers."""

import json
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path

from intent import artifact
from intent.config import CatalogSource, DataConfig, HeldOut, JobConfig
from intent.evaluate import gold
from intent.lineage import Lineage
from intent.synth import dataset
from intent.synth.card import card
from intent.synth.corpus import Corpus
from intent.synth.example import Example
from intent.synth.quality import leaks, normal_form
from jobs.app import Steps, cluster, job, say

PER_TASK = 500
CARD_EXAMPLES = 20_000


def generate(lineage: Lineage, config: DataConfig) -> artifact.Artifact:
    """The data set that `lineage` names, made where it is not there yet."""
    record = lineage.data_record()
    if made := artifact.find(artifact.artifact_uri(lineage.config.workspace, record), lineage.options):
        return made
    return artifact.make(lineage.config.workspace, record, lambda folder: _build(lineage, config, folder), lineage.options)


def _build(lineage: Lineage, config: DataConfig, folder: Path) -> dict:
    catalog = lineage.catalog if config.catalogs is CatalogSource.given else None
    catalogs: dict[str, tuple[str, ...]] = {"": catalog.names} if catalog else {}
    seen: set[tuple[str, str]] = set()
    splits: dict[str, list[Example]] = {}
    # Evaluation messages first: a training message that nearly repeats one is the one to be dropped.
    for number, split in enumerate(reversed(dataset.SPLITS)):
        by_template = config.held_out is HeldOut.templates
        seed = config.seed if by_template else config.seed * len(dataset.SPLITS) + number
        corpus = Corpus(lineage.schema, config.languages, seed, catalog, split if by_template else "all")
        splits[split] = _unique(corpus, getattr(config, split), seen, catalogs, f"generate {split}")
        for key, data in dataset.split_files(split, splits[split]):
            (folder / key).write_bytes(data)
    used = {example.catalog for examples in splits.values() for example in examples}
    kept = {key: names for key, names in catalogs.items() if key in used}
    (folder / dataset.CATALOGS).write_text(json.dumps(kept, ensure_ascii=False))
    (folder / dataset.CARD).write_text(card(splits["train"][:CARD_EXAMPLES], kept))
    return {split: len(examples) for split, examples in splits.items()} | _shares(splits["train"])


def _unique(corpus: Corpus, count: int, seen: set, catalogs: dict, title: str) -> list[Example]:
    """The first `count` examples of the corpus that are not nearly another split's, another example's or a gold one's."""
    by_hand = [example.message for half in gold.HALVES for example in gold.load(half)[0]]
    found: list[Example] = []
    with Steps(title) as steps:
        for examples, more in _in_order(corpus, count):
            catalogs.update(more)
            leaked = {example.id for example in leaks(examples, by_hand)}
            for example in examples:
                key = (example.catalog, normal_form(example.message) or example.message)
                if key not in seen and example.id not in leaked and len(found) < count:
                    seen.add(key)
                    found.append(example)
            steps.update(len(found), count)
            if len(found) == count:
                return found
    raise AssertionError("unreachable: the corpus has no end")


def _in_order(corpus: Corpus, count: int) -> Iterator[tuple[list[Example], dict]]:
    """Blocks of examples by number, computed by Ray tasks a few blocks ahead."""
    import ray

    task = ray.remote(num_cpus=1)(_block)
    shared = ray.put(corpus)
    ahead = max(2, min(2 * int(ray.cluster_resources().get("CPU", 1)), -(-count // PER_TASK)))
    waiting = deque(task.remote(shared, i * PER_TASK, (i + 1) * PER_TASK) for i in range(ahead))
    start = ahead
    while True:
        yield ray.get(waiting.popleft())
        waiting.append(task.remote(shared, start * PER_TASK, (start + 1) * PER_TASK))
        start += 1


def _block(corpus: Corpus, start: int, stop: int) -> tuple[list[Example], dict]:
    return corpus.examples(start, stop), corpus.catalogs(start, stop)


def _shares(examples: list[Example]) -> dict:
    actions = Counter(str(next(iter(example.intent.values()))) for example in examples)
    languages = Counter(example.language for example in examples)
    return {"actions": dict(actions), "languages": dict(languages)}


@job("generate")
def main(config: JobConfig) -> None:
    lineage = Lineage(config)
    with cluster(config.cluster):
        made = generate(lineage, config.data)
    say(f"data set: {made.uri}\n{json.dumps(made.record.metrics)}")


if __name__ == "__main__":
    main()
