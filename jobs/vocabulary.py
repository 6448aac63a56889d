"""List the tokens of the model's vocabulary that generated messages and their catalogs need, for `model.vocabulary`."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from intent import artifacts
from intent.artifacts import Files
from intent.artifacts.lineage import Lineage
from intent.config import OutputConfig
from intent.dataset import dataset
from intent.task.prompt import Prompt, load_tokenizer
from intent.train import vocabulary
from jobs.app import Steps, cluster, job, say
from jobs.generate import generate
from jobs.train import make_base

TOGETHER = 1_000


def texts(lineage: Lineage) -> Iterator[str]:
    """Yield every message of the data set, the prompt of every catalog, and every product's name as in an answer."""
    files = Files(lineage.data(), lineage.options)
    for names in dataset.read_catalogs(files).values():
        yield Prompt(lineage.schema, names).prefix
        yield from (f" {name}" for name in names)
    for split in dataset.SPLITS:
        for key in dataset.split_keys(files, split):
            yield from (example.message for example in dataset.read_file(files, key))


def used(lineage: Lineage, folder: Path) -> set[str]:
    """Return the tokens of all texts, by the tokenizer in `folder`."""
    tokenizer, used = load_tokenizer(folder), set()
    total = lineage.data().record.metrics["train"] // TOGETHER + 1
    with Steps("vocabulary", "piece") as steps:
        waiting = texts(lineage)
        for done, some in enumerate(iter(lambda: list(islice(waiting, TOGETHER)), [])):
            for entry in tokenizer.encode_batch(some, add_special_tokens=False):
                used.update(entry.tokens)
            steps.update(done, max(done, total), f"{len(used):,} tokens")
    return used


@job("vocabulary", OutputConfig)
def main(config: OutputConfig) -> None:
    # The list is chosen from the whole vocabulary, so ignore the configured one.
    config.model.vocabulary, config.model.adapter = vocabulary.FULL, None
    lineage = Lineage(config)
    lineage.check()
    with cluster(config.cluster):
        generate(lineage, config.data)
        folder = artifacts.fetch(make_base(lineage), lineage.options)
        spec = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        tokens = vocabulary.needed(spec, used(lineage, folder))
    vocabulary.write(Path(config.output), tokens)
    trimmed = len(vocabulary.trim(spec, tokens)[1])
    say(f"{config.output}: {len(tokens):,} tokens listed; of {len(spec['model']['vocab']):,} the model keeps {trimmed:,}")


if __name__ == "__main__":
    main()
