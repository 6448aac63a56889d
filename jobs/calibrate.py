"""Fit an adapter's temperatures, and how readily it answers nothing, on held-out messages; write them into its folder.

On messages like those of its training, the model is right more often than on others, so temperatures fitted there are too low.
Fit them on other messages: a part of the gold set, or messages with held-out templates and products.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from intent import artifacts
from intent.artifacts import Artifact, Files
from intent.artifacts.lineage import Lineage
from intent.config import OutputConfig
from intent.dataset import dataset
from intent.engine import calibration
from intent.engine.calibration import Calibration, Decision
from intent.errors import require
from intent.storage import StorageOptions
from intent.task.schema import IntentSchema
from jobs.app import Steps, cluster, job, say
from jobs.nodes import task_cpus
from jobs.train import train

TOGETHER = 64  # messages of a forward pass
SPLIT = "test"


def decide(
    checkpoint: Artifact, data: Artifact, schema: IntentSchema, output_format: str, options: StorageOptions, cpus: int
) -> dict[str, list[Decision]]:
    """Return every decision on the test split of `data`, by slot name, as `batches.decisions` gives them."""
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
    by_slot: dict[str, list[Decision]] = {}
    for batch in batches(groups, TOGETHER):
        for slot, more in decisions(model, batch, pack(batch))[1].items():
            by_slot.setdefault(slot, []).extend(more)
    return by_slot


def fit(decided: Mapping[str, Sequence[Decision]]) -> tuple[Calibration, str]:
    """Fit the calibration. Returns it with a text that gives each slot's temperature, and its loss before and after."""
    nothing = sum(calibration.fit_nothing(decisions) for decisions in decided.values())
    temperatures, lines = [], [f"nothing: {nothing:+g} to its logit"]
    for slot, decisions in decided.items():
        margins = calibration.shifted(decisions, nothing)
        temperatures.append(calibration.fit(margins))
        before, after = calibration.loss([each.margins for each in decisions], 1.0), calibration.loss(margins, temperatures[-1])
        lines.append(
            f"{slot}: temperature {temperatures[-1]:g} of {len(decisions):,} decisions, loss {before:.4f} -> {after:.4f}"
        )
    return Calibration(temperatures, nothing), "\n".join(lines)


@job("calibrate", OutputConfig)
def main(config: OutputConfig) -> None:
    import ray

    lineage = Lineage(config)
    lineage.check()
    folder = Path(config.output)
    require(folder.is_dir(), "output", config.output, "is not a folder; give the adapter's folder")
    with cluster(config.cluster):
        checkpoint, data, cpus = train(lineage), lineage.held_out(), task_cpus(config.cluster, config.train.cpus)
        with Steps("calibrate") as steps:
            steps.update(0, 0, f"decides the messages of {data.uri}")
            task = ray.remote(num_cpus=cpus)(decide)
            output_format = checkpoint.record.output_format or config.output_format.value
            by_slot = ray.get(task.remote(checkpoint, data, lineage.schema, output_format, lineage.options, cpus))
            steps.end()
    fitted, text = fit(by_slot)
    calibration.write(folder, dict(zip(by_slot, fitted.temperatures, strict=True)), fitted.nothing)
    say(f"{folder / calibration.FILE}\n{text}")


if __name__ == "__main__":
    main()
