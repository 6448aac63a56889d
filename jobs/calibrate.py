"""Fit the temperatures of an adapter's confidences on held-out messages, and write them into its folder.

On messages like those of its training, the model is right more often than on others, so temperatures fitted there are too low.
Fit them on other messages: a half of the gold set, or messages with held-out templates and products.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from intent import artifacts
from intent.artifacts import Artifact, Files
from intent.artifacts.lineage import Lineage
from intent.config import OutputConfig
from intent.dataset import dataset
from intent.engine import calibration
from intent.errors import require
from intent.storage import StorageOptions
from intent.task.schema import IntentSchema
from jobs.app import Steps, cluster, job, say
from jobs.nodes import room
from jobs.train import train

TOGETHER = 64  # messages of a forward pass
SPLIT = "test"


def margins(
    checkpoint: Artifact, data: Artifact, schema: IntentSchema, output_format: str, options: StorageOptions, cpus: int
) -> dict[str, list[np.ndarray]]:
    """Return the margins of every decision on the test split of `data`, by slot name. See `batches.decisions`."""
    from intent.engine.load import set_threads
    from intent.engine.reference import load_reference
    from intent.task.prompt import load_tokenizer
    from intent.train import attention
    from intent.train.batches import batches, decisions, encode, pack

    set_threads(cpus)
    files, folder = Files(data, options), artifacts.fetch(checkpoint, options)
    examples = dataset.read_split(files, SPLIT)
    groups = encode(examples, dataset.read_catalogs(files), schema, load_tokenizer(folder), output_format)
    model = load_reference(folder, "cpu").float()
    model.set_attn_implementation(attention.register())
    found: dict[str, list[np.ndarray]] = {}
    for batch in batches(groups, TOGETHER):
        for slot, more in decisions(model, batch, pack(batch))[1].items():
            found.setdefault(slot, []).extend(more)
    return found


def describe(found: Mapping[str, list[np.ndarray]], temperatures: Mapping[str, float]) -> str:
    """Describe each slot in a line: its temperature, its number of decisions, and the loss without and with the temperature."""
    lines = []
    for slot, decided in found.items():
        before, after = calibration.loss(decided, 1.0), calibration.loss(decided, temperatures[slot])
        lines.append(
            f"{slot}: temperature {temperatures[slot]:g} of {len(decided):,} decisions, loss {before:.4f} -> {after:.4f}"
        )
    return "\n".join(lines)


@job("calibrate", OutputConfig)
def main(config: OutputConfig) -> None:
    import ray

    lineage = Lineage(config)
    lineage.check()
    folder = Path(config.output)
    require(folder.is_dir(), "output", config.output, "is not a folder; give the adapter's folder")
    with cluster(config.cluster):
        checkpoint, data, cpus = train(lineage), lineage.held_out(), room(config.cluster, config.train.cpus)
        with Steps("calibrate") as steps:
            steps.update(0, 0, f"decides the messages of {data.uri}")
            task = ray.remote(num_cpus=cpus)(margins)
            output_format = checkpoint.record.output_format or config.output_format.value
            found = ray.get(task.remote(checkpoint, data, lineage.schema, output_format, lineage.options, cpus))
            steps.end()
    temperatures = {slot: calibration.fit(decided) for slot, decided in found.items()}
    calibration.write(folder, temperatures)
    say(f"{folder / calibration.FILE}\n{describe(found, temperatures)}")


if __name__ == "__main__":
    main()
