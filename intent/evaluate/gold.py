"""The gold set: messages written by hand, in two halves. Their rule is in `gold/README.md`: the measure half only measures."""

import json
from importlib.resources import files

from intent.errors import ConfigError
from intent.synth.example import Example

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


def messages() -> list[str]:
    """The messages of both halves, for keeping them out of training."""
    return [example.message for half in HALVES for example in load(half)[0]]


def _example(row: dict) -> Example:
    return Example(**{**row, "phenomena": tuple(row["phenomena"])}, generator="hand")
