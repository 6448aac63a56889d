"""Calibrate a model's confidence: one temperature per slot (Guo et al., ICML 2017), stored beside its weights.

Temperatures change no answer, since the best choice stays the best. Knows logits of choices; nothing of models or messages.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

FILE = "calibration.json"
GRID = np.geomspace(0.25, 8.0, 81)


def fit(margins: Sequence[np.ndarray]) -> float:
    """Fit the temperature that maximizes the likelihood of one slot's decisions. Returns 1.0 if there are none.

    A decision is its logits minus that of the right choice, which is one of them.
    """
    if not margins:
        return 1.0
    padded = _padded(margins)
    losses = [_loss(padded, temperature) for temperature in GRID]
    return float(round(GRID[int(np.argmin(losses))], 4))


def loss(margins: Sequence[np.ndarray], temperature: float) -> float:
    """Return the mean cross-entropy of decisions, as `fit` takes them, at a temperature."""
    return _loss(_padded(margins), temperature)


def _padded(margins: Sequence[np.ndarray]) -> np.ndarray:
    padded = np.full((len(margins), max(len(margin) for margin in margins)), -np.inf)
    for row, margin in zip(padded, margins, strict=True):
        row[: len(margin)] = margin
    return padded


def _loss(padded: np.ndarray, temperature: float) -> float:
    return float(np.logaddexp.reduce(padded / temperature, axis=1).mean())


def write(folder: Path, temperatures: Mapping[str, float]) -> None:
    (folder / FILE).write_text(json.dumps({"temperatures": dict(temperatures)}, indent=1))


def read(folder: Path, slots: Sequence[str]) -> list[float]:
    """Read the temperature of each of `slots`; 1.0 where the checkpoint has none."""
    path = folder / FILE
    known = json.loads(path.read_text())["temperatures"] if path.exists() else {}
    return [known.get(name, 1.0) for name in slots]
