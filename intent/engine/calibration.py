"""Calibrate a model's confidence: one temperature per slot (Guo et al., ICML 2017), stored beside its weights.

A temperature never changes the best choice, so it changes confidences but no answer. Knows logits of choices; nothing of models
or messages.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

FILE = "calibration.json"
GRID = np.geomspace(0.25, 8.0, 81)


def fit(margins: Sequence[np.ndarray]) -> float:
    """Fit the temperature that maximizes the likelihood of one slot's decisions. Returns 1.0 if there are none.

    `margins`: for each decision, the logits of its choices minus the logit of the right one.
    """
    if not margins:
        return 1.0
    padded = _padded(margins)
    losses = [_loss(padded, temperature) for temperature in GRID]
    return float(round(GRID[int(np.argmin(losses))], 4))


def loss(margins: Sequence[np.ndarray], temperature: float) -> float:
    """Return the mean cross-entropy of decisions at a temperature. `margins`: see `fit`."""
    return _loss(_padded(margins), temperature)


def _padded(margins: Sequence[np.ndarray]) -> np.ndarray:
    padded = np.full((len(margins), max(len(margin) for margin in margins)), -np.inf)
    for row, margin in zip(padded, margins, strict=True):
        row[: len(margin)] = margin
    return padded


def _loss(padded: np.ndarray, temperature: float) -> float:
    return float(np.logaddexp.reduce(padded / temperature, axis=1).mean())


def write(folder: Path, temperatures: Mapping[str, float]) -> None:
    """Write the temperature of each slot into a checkpoint's folder."""
    (folder / FILE).write_text(json.dumps({"temperatures": dict(temperatures)}, indent=1))


def read(folder: Path, slots: Sequence[str]) -> list[float]:
    """Read the temperature of each of `slots`; 1.0 where the checkpoint has none."""
    path = folder / FILE
    known = json.loads(path.read_text())["temperatures"] if path.exists() else {}
    return [known.get(name, 1.0) for name in slots]
