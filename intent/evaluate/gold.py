"""Read the gold set: messages written and labeled by hand, in two halves and a larger part for practice.

The half "measure" must not influence any decision about the generator or a model. `gold/README.md` has the full rule.
"""

import json
from importlib.resources import files
from pathlib import Path

from intent.artifacts import Artifact, ArtifactRecord, make
from intent.dataset import dataset
from intent.dataset.example import Example, to_table
from intent.errors import ConfigError
from intent.storage import StorageOptions, sha256
from intent.synth.card import card
from intent.task.schema import INTENTS

HALVES = ("guide", "measure")
PRACTICE = "practice"
PARTS = (*HALVES, PRACTICE)
FOLDER = files("intent.evaluate") / "gold"
NONE = "none"


def load(part: str, lists: bool = False) -> tuple[list[Example], dict[str, tuple[str, ...]]]:
    """Return the examples of `part`, one of PARTS, and, by catalog id, the product names that they refer to.

    `lists`: label them as a schema that repeats does, each with a list, and include messages that ask for several things.
    Raises ConfigError for any other part.
    """
    if part not in PARTS:
        raise ConfigError("gold", part, f"use one of {list(PARTS)}")
    catalogs = json.loads((FOLDER / _catalogs(part)).read_text(encoding="utf-8"))
    examples = [_example(row, lists) for name in _files(part, lists) for row in _rows(name)]
    return examples, {id: tuple(names) for id, names in catalogs.items()}


def publish(part: str, workspace: str, options: StorageOptions, lists: bool = False) -> Artifact:
    """Publish a part as a data set in `workspace`. Its messages are the split `test`; it has no other split.

    Raises ConfigError for any other part.
    """
    examples, catalogs = load(part, lists)

    def build(folder: Path) -> dict:
        for key, data in dataset.split_files("test", to_table(examples)):
            (folder / key).write_bytes(data)
        dataset.write_catalogs(folder, catalogs)
        (folder / dataset.CARD).write_text(card(examples, catalogs, title=f"Gold set, the part {part}"))
        return {"test": len(examples)}

    inputs = {name: sha256((FOLDER / name).read_bytes()) for name in (*_files(part, lists), _catalogs(part))}
    return make(workspace, ArtifactRecord(f"gold-{part}", {"part": part}, inputs), build, options)


def messages() -> list[str]:
    """Return the messages of all parts, including lists, to keep them out of training."""
    return [example.message for part in PARTS for example in load(part, lists=True)[0]]


def _files(part: str, lists: bool) -> tuple[str, ...]:
    return (f"{part}.jsonl", f"{part}-lists.jsonl") if lists else (f"{part}.jsonl",)


def _catalogs(part: str) -> str:
    return "practice-catalogs.json" if part == PRACTICE else "catalogs.json"


def _rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (FOLDER / name).read_text(encoding="utf-8").strip().split("\n")]


def _example(row: dict, lists: bool) -> Example:
    """Return a row's example. `lists`: label it with the row's list, or with a list of its one intent if it has no list."""
    one, several = row.pop("intent", None), row.pop(INTENTS, None)
    if lists:
        several = several if several is not None else [] if one["action"] == NONE else [one]
    return Example(
        **{**row, "phenomena": tuple(row["phenomena"])}, intent={INTENTS: several} if lists else one, generator="hand"
    )
