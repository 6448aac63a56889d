"""Every decodable path is a valid intent, every valid intent is decodable: for random schemas, catalogs, tokenizers."""

import json
import sys
import tempfile
import tracemalloc
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intent.catalog import ascii_digits
from intent.engine import Status
from intent.engine.decode import END, Automaton, Walk, answer_text, decide
from intent.schema import Choice, Count, Entity, IntentSchema
from tests.tiny import CART, NAMES, write_tokenizer

TEXT = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=12)
WORD = TEXT.map(lambda text: " ".join(text.split())).filter(bool)


@cache
def tokenizer(vocabulary: int):
    with tempfile.TemporaryDirectory() as folder:
        return write_tokenizer(Path(folder), vocabulary=vocabulary)


@st.composite
def schemas(draw) -> IntentSchema:
    slots = []
    for i in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["choice", "entity", "count"]))
        if kind == "choice":
            values = tuple(draw(st.lists(WORD, min_size=1, max_size=5, unique=True)))
            ends = tuple(draw(st.lists(st.sampled_from(values), max_size=2, unique=True)))
            slots.append(Choice(f"s{i}", values, ends))
        elif kind == "entity":
            slots.append(Entity(f"s{i}"))
        else:
            low = draw(st.integers(0, 20))
            high = low + draw(st.integers(0, 120))
            slots.append(Count(f"s{i}", low, high, low))
    return IntentSchema("random", "Say what it means.", tuple(slots))


@st.composite
def cases(draw):
    schema = draw(schemas())
    catalog = tuple(draw(st.lists(WORD, min_size=1, max_size=12, unique_by=ascii_digits)))
    values = []
    for slot in schema.slots:
        values.append(draw(st.sampled_from(list(slot.domain(catalog)))))
        if values[-1] in slot.ends:
            break
    vocabulary, codec = draw(st.sampled_from([260, 300, 400])), draw(st.sampled_from(["json", "compact", "pointing"]))
    return schema, catalog, schema.intent(values), vocabulary, codec


@settings(max_examples=150, deadline=None)
@given(cases())
def test_every_valid_intent_is_decodable(case):
    schema, catalog, intent, vocabulary, codec = case
    automaton = Automaton(schema, catalog, tokenizer(vocabulary), codec)
    target = automaton.target(intent)
    walk = Walk(automaton, 1)
    for position in target.decisions:
        wanted = target.tokens[position]
        walk.advance(np.array([0]), lambda rows, tokens, wanted=wanted: np.where(tokens == wanted, 9.0, 0.0)[None, :])
    assert walk.states[0] == END
    assert walk.prediction(0).intent == intent
    if codec == "json":
        text = tokenizer(vocabulary).decode(target.tokens, skip_special_tokens=False)
        names = [slot.name for slot in schema.slots if isinstance(slot, Entity) and intent[slot.name] is not None]
        written = intent | {name: ascii_digits(intent[name]) for name in names}
        assert json.loads(text) == written
        assert text == answer_text(schema, written) + "\n"


@settings(max_examples=150, deadline=None)
@given(cases(), st.integers(0, 2**32 - 1))
def test_every_decodable_path_is_a_valid_intent(case, seed):
    schema, catalog, _, vocabulary, codec = case
    automaton = Automaton(schema, catalog, tokenizer(vocabulary), codec)
    rng = np.random.default_rng(seed)
    walk = Walk(automaton, 4)
    fed = [list(automaton.head) for _ in range(4)]
    steps = 0
    while (rows := np.flatnonzero(walk.states != END)).size:
        feeds = walk.advance(rows, lambda rows, tokens: rng.normal(size=(len(rows), len(tokens))))
        for row, feed in zip(rows, feeds, strict=True):
            fed[row] += feed
        steps += 1
        assert steps < 500
    for row in range(4):
        prediction = walk.prediction(row)
        assert schema.check(prediction.intent, catalog) == prediction.intent
        assert 0 < prediction.confidence <= 1
        # What was fed is what a model is trained on, up to the last decision.
        assert automaton.target(prediction.intent).tokens[: len(fed[row])] == fed[row]


def test_confidence_is_the_softmax_over_what_is_allowed():
    choice, chance = decide(np.array([[0.0, np.log(3.0)], [5.0, -np.inf]]))
    assert choice.tolist() == [1, 0]
    assert chance == pytest.approx([0.75, 1.0])


def test_an_answer_under_the_threshold_is_abstained_without_a_guess():
    automaton = Automaton(CART, NAMES, tokenizer(400), "compact")
    walk = Walk(automaton, 1)
    while walk.states[0] != END:
        walk.advance(np.array([0]), lambda rows, tokens: np.zeros((1, len(tokens))))
    assert walk.prediction(0).status is Status.OK
    abstained = walk.prediction(0, abstain_below=0.9)
    assert abstained.status is Status.ABSTAINED
    assert set(abstained.intent.values()) == {None}


def test_compact_has_a_decision_at_every_token():
    automaton = Automaton(CART, NAMES, tokenizer(400), "compact")
    for name in NAMES:
        target = automaton.target({"action": "add", "product": name, "quantity": 7})
        assert target.decisions == list(range(len(target.tokens)))


def test_a_long_name_takes_room_of_messages_only_where_it_is_written():
    names = [*NAMES, "x" * 300]
    longest = {codec: Automaton(CART, names, tokenizer(400), codec).longest for codec in ("json", "compact", "pointing")}
    assert longest["json"] > 200 and longest["compact"] < 30 and longest["pointing"] < 30


def test_pointing_decides_first_which_product_if_any():
    automaton = Automaton(CART, NAMES, tokenizer(400), "pointing")
    spoken = [tokenizer(400).encode(f" {name}", add_special_tokens=False).ids for name in NAMES]
    nothing = automaton.target({"action": "none", "product": None, "quantity": None})
    assert {*automaton.allowed(automaton.start).tolist()} == {ids[0] for ids in spoken} | {nothing.tokens[0]}
    assert len(nothing.tokens) == 1
    walk = Walk(automaton, 1)
    walk.advance(np.array([0]), lambda rows, tokens: np.where(tokens == nothing.tokens[0], 3.0, 0.0)[None, :])
    said = walk.prediction(0)
    assert said.intent == {"action": "none", "product": None, "quantity": None}
    # That nothing is pointed at is what the action's confidence says.
    assert said.slots == (said.confidence, 1.0, 1.0) and 0.5 < said.confidence < 1


def test_pointing_is_compact_where_nothing_ends_or_nothing_is_pointed_at():
    choice, entity = Choice("action", ("add", "remove")), Entity("product")
    for slots in ((choice, entity), (Choice("topic", ("a", "b", "none"), ("none",)),), (entity, choice)):
        schema = IntentSchema("plain", "Say what it means.", slots)
        compact, pointing = (Automaton(schema, NAMES, tokenizer(400), codec) for codec in ("compact", "pointing"))
        assert pointing.order == compact.order


def lines_run(work) -> int:
    """How many lines of Python a call runs: its work, however busy the machine is."""
    count = 0

    def trace(frame, event, arg):
        nonlocal count
        count += event == "line"
        return trace

    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(None)
    return count


def test_the_work_for_a_catalog_grows_as_it_does_and_ten_thousand_products_take_fifty_megabytes():
    rng = np.random.default_rng(0)
    words = ["Acme", "Bolt", "Milk", "Shoe", "Lamp", "Pro", "Max", "Red", "XL", "500g"]
    names = [f"{' '.join(rng.choice(words, 3))} {i}" for i in range(10_000)]
    for codec in ("json", "compact", "pointing"):
        tenth, whole = (lines_run(partial(Automaton, CART, names[:n], tokenizer(400), codec)) for n in (1_000, 10_000))
        assert whole < 15 * tenth < 15 * 200_000, "a catalog ten times as long takes about ten times as much"
        tracemalloc.start()
        kept = Automaton(CART, names, tokenizer(400), codec)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 50e6
        assert kept.target({"action": "add", "product": names[9_999], "quantity": 1}).tokens
