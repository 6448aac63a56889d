"""Calibrate a model: one temperature per slot (Guo et al., ICML 2017), and how readily it answers nothing.

Temperatures change no answer, since the best choice stays the best. The second corrects a prior (Saerens et al., Neural
Computation 2002): a model that meets words unlike those of its training answers nothing too often. It is added to the logit of
answering nothing, so it can change answers. Both are stored beside the weights. Knows logits of choices; nothing of models or
messages.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

FILE = "calibration.json"
GRID = np.geomspace(0.25, 8.0, 81)
OFFSETS = np.linspace(-4.0, 4.0, 81)


class Decision(NamedTuple):
    """A decision's logits minus that of the right choice, and which choice answers nothing (-1: none)."""

    margins: np.ndarray
    nothing: int = -1


class Calibration(NamedTuple):
    """A model's temperature by slot, and what is added to the logit of answering nothing."""

    temperatures: list[float]
    nothing: float = 0.0


def fit(margins: Sequence[np.ndarray]) -> float:
    """Fit the temperature that maximizes the likelihood of one slot's decisions. Returns 1.0 if there are none.

    `margins`: for each decision, the logits of its choices minus the logit of the right one.
    """
    if not margins:
        return 1.0
    padded = _padded(margins)
    losses = [_loss(padded, temperature) for temperature in GRID]
    return float(round(GRID[int(np.argmin(losses))], 4))


def fit_nothing(decisions: Sequence[Decision]) -> float:
    """Fit what to add to the logit of answering nothing, on one slot's decisions. Returns 0.0 if none of them can."""
    if not any(decision.nothing >= 0 for decision in decisions):
        return 0.0
    losses = {}
    for offset in OFFSETS:
        padded = _padded(shifted(decisions, offset))
        losses[offset] = min(_loss(padded, temperature) for temperature in GRID)
    return float(round(min(losses, key=losses.__getitem__), 4))


def shifted(decisions: Sequence[Decision], offset: float) -> list[np.ndarray]:
    """Return the margins with `offset` added to the logits of answering nothing."""
    shifted_margins = []
    for margins, nothing in decisions:
        if nothing >= 0:
            logits = margins.copy()
            logits[nothing] += offset
            # The right choice is the one with a margin of 0. If that is nothing itself, all others fall behind it.
            margins = logits - (offset if margins[nothing] == 0 else 0.0)
        shifted_margins.append(margins)
    return shifted_margins


def loss(margins: Sequence[np.ndarray], temperature: float) -> float:
    """Return the mean cross-entropy of decisions at a temperature. `margins`: see `fit`."""
    return _loss(_padded(margins), temperature)


def _padded(margins: Sequence[np.ndarray]) -> np.ndarray:
    # Column by column, because NumPy adds up long columns faster than short rows.
    padded = np.full((len(margins), max(len(margin) for margin in margins)), -np.inf, order="F")
    for row, margin in zip(padded, margins, strict=True):
        row[: len(margin)] = margin
    return padded


def _loss(padded: np.ndarray, temperature: float) -> float:
    # This equals np.logaddexp.reduce and takes a fraction of its time. Without the highest logit, no power overflows.
    highest = padded.max(axis=1, keepdims=True)
    sums = np.exp((padded - highest) / temperature).sum(axis=1)
    return float((highest[:, 0] / temperature + np.log(sums)).mean())


def write(folder: Path, temperatures: Mapping[str, float], nothing: float = 0.0) -> None:
    (folder / FILE).write_text(json.dumps({"temperatures": dict(temperatures), "nothing": nothing}, indent=1))


def read(folder: Path, slots: Sequence[str]) -> Calibration:
    """Read the calibration of a checkpoint. A slot without a temperature has 1.0."""
    path = folder / FILE
    fields = json.loads(path.read_text()) if path.exists() else {}
    temperatures = fields.get("temperatures", {})
    return Calibration([temperatures.get(name, 1.0) for name in slots], fields.get("nothing", 0.0))
