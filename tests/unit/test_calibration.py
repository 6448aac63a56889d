"""A fitted temperature makes confidence mean what it says, and changes no answer."""

import numpy as np
import pytest

from intent.engine import calibration
from intent.engine.automaton import Automaton
from intent.engine.decode import Walk
from intent.evaluate.metrics import calibration_error
from tests.tiny import CART, NAMES, write_tokenizer


def overconfident(draw: np.random.Generator, n: int, sharpness: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits of a model that is `sharpness` times too sure, and what turned out to be right."""
    true = draw.normal(size=(n, 5)) * 1.5
    chances = np.exp(true) / np.exp(true).sum(1, keepdims=True)
    right = np.array([draw.choice(5, p=row) for row in chances])
    return true * sharpness, right


def error(logits: np.ndarray, right: np.ndarray) -> float:
    chances = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
    return calibration_error(chances.max(1), chances.argmax(1) == right)


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_fitted_temperature_is_how_much_too_sure_the_model_was(sharpness):
    logits, right = overconfident(np.random.default_rng(1), 6000, sharpness)
    margins = logits - logits[np.arange(len(right)), right][:, None]
    temperature = calibration.fit(list(margins))
    assert temperature == pytest.approx(sharpness, rel=0.1)
    other, truth = overconfident(np.random.default_rng(2), 6000, sharpness)
    assert error(other / temperature, truth) < 0.03


def test_a_slot_never_decided_keeps_its_confidence_and_files_are_read_back(tmp_path):
    assert calibration.fit([]) == 1.0
    assert calibration.read(tmp_path, ["a"]) == [1.0]
    calibration.write(tmp_path, {"a": 2.0, "b": 1.0})
    assert calibration.read(tmp_path, ["b", "a", "c"]) == [1.0, 2.0, 1.0]


def test_temperatures_change_confidence_and_no_answer(tmp_path):
    automaton = Automaton(CART, NAMES, write_tokenizer(tmp_path), "compact")
    draw = np.random.default_rng(3)
    table = draw.normal(size=(20, 400)) * 4
    answers = []
    for temperatures in ((), (2.0, 3.0, 1.5)):
        walk, under_way = Walk(automaton, 20, temperatures), np.arange(20)
        while len(under_way):
            feeds = walk.advance(under_way, lambda rows, tokens, at=under_way: table[np.ix_(at[rows], tokens)])
            under_way = np.array([row for row, feed in zip(under_way, feeds, strict=True) if feed], int)
        answers.append([walk.prediction(row) for row in range(20)])
    assert [p.intent for p in answers[0]] == [p.intent for p in answers[1]]
    assert all(b.confidence < a.confidence for a, b in zip(*answers, strict=True))
