"""The gold set: messages written by hand, in two halves. Their rule is in `gold/README.md`: the measure half only measures."""

import json
from importlib.resources import files
from pathlib import Path

from intent.artifacts import Artifact, ArtifactRecord, make
from intent.errors import ConfigError
from intent.storage import StorageOptions, sha256
from intent.synth import dataset
from intent.synth.card import card
from intent.synth.example import Example, to_table

HALVES = ("guide", "measure")
FOLDER = files("intent.evaluate") / "gold"


def load(half: str) -> tuple[list[Example], dict[str, tuple[str, ...]]]:
    """The examples of `half` ("guide" or "measure") and, by catalog id, the product names that they refer to.

    Raises ConfigError for any other half.
    """
    if half not in HALVES:
        raise ConfigError("gold", half, f"use one of {list(HALVES)}")
    lines = (FOLDER / f"{half}.jsonl").read_text(encoding="utf-8").strip().split("\n")
    catalogs = json.loads((FOLDER / "catalogs.json").read_text(encoding="utf-8"))
    return [_example(json.loads(line)) for line in lines], {id: tuple(names) for id, names in catalogs.items()}


def publish(half: str, workspace: str, options: StorageOptions) -> Artifact:
    """The half as a data set in `workspace`, to be measured on; its messages are the split `test`, and it has no other."""
    examples, catalogs = load(half)

    def build(folder: Path) -> dict:
        for key, data in dataset.split_files("test", to_table(examples)):
            (folder / key).write_bytes(data)
        (folder / dataset.CATALOGS).write_text(json.dumps(catalogs, ensure_ascii=False))
        (folder / dataset.CARD).write_text(card(examples, catalogs, title=f"Gold set, the half that {half}s"))
        return {"test": len(examples)}

    names = (f"{half}.jsonl", "catalogs.json")
    inputs = {name: sha256((FOLDER / name).read_bytes()) for name in names}
    return make(workspace, ArtifactRecord(f"gold-{half}", {"half": half}, inputs), build, options)


def messages() -> list[str]:
    """The messages of both halves, for keeping them out of training."""
    return [example.message for half in HALVES for example in load(half)[0]]


def _example(row: dict) -> Example:
    return Example(**{**row, "phenomena": tuple(row["phenomena"])}, generator="hand")
