"""A fitted temperature makes confidences match accuracy, and changes no answer."""

import numpy as np
import pytest

from intent.engine import Prediction, calibration
from intent.engine.automaton import UNDECIDED, Automaton
from intent.engine.decode import Walk
from intent.evaluate.metrics import calibration_error
from intent.task.schema import INTENTS, Choice, IntentSchema
from tests.tiny import BASKET, CART, NAMES, write_tokenizer


def overconfident(draw: np.random.Generator, n: int, sharpness: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the logits of a model that is `sharpness` times too confident, and the right answers."""
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
    assert calibration.read(tmp_path, ["a"]) == ([1.0], 0.0)
    calibration.write(tmp_path, {"a": 2.0, "b": 1.0}, nothing=-0.5)
    assert calibration.read(tmp_path, ["b", "a", "c"]) == ([1.0, 2.0, 1.0], -0.5)
    (tmp_path / calibration.FILE).write_text('{"temperatures": {"a": 2.0}}')
    assert calibration.read(tmp_path, ["a"]) == ([2.0], 0.0), "older files say nothing of it"


@pytest.mark.parametrize("bias", [-1.5, 0.0, 2.0])
def test_what_makes_a_model_answer_nothing_too_often_is_taken_off(bias):
    """The model prefers the fourth choice, nothing, by `bias` more than it should."""
    logits, right = overconfident(np.random.default_rng(4), 6000, 1.0)
    logits[:, 3] += bias
    margins = logits - logits[np.arange(len(right)), right][:, None]
    first = [calibration.Decision(line, 3) for line in margins[:5000]]
    later = [calibration.Decision(line) for line in margins[5000:]]
    assert calibration.fit_nothing(first) == pytest.approx(-bias, abs=0.2)
    moved = calibration.shifted([*first, *later], -bias)
    assert all(line.min() <= 0 <= line.max() and 0 in line for line in moved)
    assert calibration.loss(moved[:5000], 1.0) <= calibration.loss(margins[:5000], 1.0)
    assert np.array_equal(moved[5000:], margins[5000:])
    assert calibration.fit_nothing(later) == 0.0


def test_only_the_first_decision_of_a_message_is_shifted(tmp_path):
    """With a large offset every message answers nothing; in a list only the first item's decision is moved."""
    tokenizer = write_tokenizer(tmp_path)
    for schema in (CART, BASKET):
        for output_format in ("json", "compact", "entity_first"):
            automaton = Automaton(schema, NAMES, tokenizer, output_format)
            assert automaton.nothing >= 0
            answers = [_answers(automaton, nothing) for nothing in (0.0, 60.0, -60.0)]
            nothing = {INTENTS: []} if schema is BASKET else schema.intent(["none"])
            assert all(p.intent == nothing for p in answers[1])
            assert not any(p.intent == nothing for p in answers[2])
            if schema is BASKET:
                # Lists end as they would, so an offset does not make them run on.
                assert any(len(p.intent[INTENTS]) < schema.repeat for p in answers[2])
    labels = IntentSchema("labels", "Label.", (Choice("label", ("a", "b", "none"), ("none",)),))
    assert Automaton(labels, [], tokenizer, "compact").nothing >= 0
    plain = IntentSchema("labels", "Label.", (Choice("label", ("a", "b")),))
    assert Automaton(plain, [], tokenizer, "compact").nothing == UNDECIDED


def _answers(automaton: Automaton, nothing: float) -> list[Prediction]:
    table = np.random.default_rng(3).normal(size=(20, 400)) * 4
    walk, under_way = Walk(automaton, 20, (), nothing), np.arange(20)
    while len(under_way):
        feeds = walk.advance(under_way, lambda rows, tokens, at=under_way: table[np.ix_(at[rows], tokens)])
        under_way = np.array([row for row, feed in zip(under_way, feeds, strict=True) if feed], int)
    return [walk.prediction(row) for row in range(20)]


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
