"""Every decodable path is a valid intent, every valid intent is decodable: for random schemas, catalogs, tokenizers."""

import itertools
import json
import sys
import tempfile
import tracemalloc
from dataclasses import replace
from functools import cache, partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intent.engine import Status
from intent.engine.automaton import END, Automaton, Ended, answer_text
from intent.engine.decode import Walk, decide
from intent.task.catalog import ascii_digits
from intent.task.schema import Choice, Count, Entity, IntentSchema, items_of
from tests.tiny import BASKET, CART, LABELS, NAMES, write_tokenizer

TEXT = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=12)
WORD = TEXT.map(lambda text: " ".join(text.split())).filter(bool)


@cache
def tokenizer(vocabulary: int):
    with tempfile.TemporaryDirectory() as folder:
        return write_tokenizer(Path(folder), vocabulary=vocabulary)


@st.composite
def schemas(draw) -> IntentSchema:
    slots, repeat = [], draw(st.sampled_from([1, 1, 2, 4]))
    for i in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["choice", "entity", "count"]))
        if kind == "choice":
            values = tuple(draw(st.lists(WORD, min_size=1, max_size=5, unique=True)))
            ends = tuple(draw(st.lists(st.sampled_from(values), max_size=2 if repeat == 1 else 0, unique=True)))
            slots.append(Choice(f"s{i}", values, ends))
        elif kind == "entity":
            slots.append(Entity(f"s{i}"))
        else:
            low = draw(st.integers(0, 20))
            high = low + draw(st.integers(0, 120))
            slots.append(Count(f"s{i}", low, high, low))
    return IntentSchema("random", "Say what it means.", tuple(slots), repeat)


@st.composite
def cases(draw):
    schema = draw(schemas())
    catalog = tuple(draw(st.lists(WORD, min_size=1, max_size=12, unique_by=ascii_digits)))
    values = []
    for slot in schema.slots * (1 if schema.repeat == 1 else draw(st.integers(0, schema.repeat))):
        values.append(draw(st.sampled_from(list(slot.domain(catalog)))))
        if values[-1] in slot.ends:
            break
    vocabulary, output_format = (
        draw(st.sampled_from([260, 300, 400])),
        draw(st.sampled_from(["json", "compact", "entity_first"])),
    )
    return schema, catalog, schema.check(schema.intent(values), catalog), vocabulary, output_format


@settings(max_examples=150, deadline=None)
@given(cases())
def test_every_valid_intent_is_decodable(case):
    schema, catalog, intent, vocabulary, output_format = case
    automaton = Automaton(schema, catalog, tokenizer(vocabulary), output_format)
    target = automaton.target(intent)
    walk = Walk(automaton, 1)
    for position in target.decisions:
        wanted = target.tokens[position]
        walk.advance(np.array([0]), lambda rows, tokens, wanted=wanted: np.where(tokens == wanted, 9.0, 0.0)[None, :])
    assert walk.states[0] == END
    assert walk.prediction(0).intent == intent
    if output_format == "json":
        text = tokenizer(vocabulary).decode(target.tokens, skip_special_tokens=False)
        names = [slot.name for slot in schema.slots if isinstance(slot, Entity)]
        items = [item | {n: ascii_digits(item[n]) for n in names if item[n] is not None} for item in items_of(intent)]
        written = items[0] if schema.repeat == 1 else {"intents": items}
        # The first slot of an item also encodes the empty list.
        assert json.loads(text) == (written if items else {"intents": [{schema.names[0]: "none"}]})
        assert text == answer_text(schema, written) + "\n"


def intent_of(walk: Walk, row: int) -> dict:
    """Return a list as decided, including repeated items."""
    width = len(walk.automaton.schema.slots)
    end = {"entity_first": walk.automaton.order[0]}.get(walk.automaton.output_format, 0)
    items = []
    for chosen in walk.values[row].reshape(-1, width).tolist():
        item = walk.automaton.item(chosen)
        if isinstance(item[walk.automaton.schema.names[end]], Ended) or len(items) == walk._column[row] // width:
            break
        items.append(item)
    return {"intents": items}


@settings(max_examples=150, deadline=None)
@given(cases(), st.integers(0, 2**32 - 1))
def test_every_decodable_path_is_a_valid_intent(case, seed):
    schema, catalog, _, vocabulary, output_format = case
    automaton = Automaton(schema, catalog, tokenizer(vocabulary), output_format)
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
        if walk.values.shape[1] > len(schema.slots) and prediction.intent != intent_of(walk, row):
            # Repeated items were merged.
            continue
        # The fed tokens equal the training target up to the last decision.
        assert automaton.target(prediction.intent).tokens[: len(fed[row])] == fed[row]


def test_confidence_is_the_softmax_over_allowed_tokens():
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


def test_a_long_name_reduces_message_length_only_where_the_answer_contains_it():
    names = [*NAMES, "x" * 300]
    longest = {
        output_format: Automaton(CART, names, tokenizer(400), output_format).longest
        for output_format in ("json", "compact", "entity_first")
    }
    assert longest["json"] > 200 and longest["compact"] < 30 and longest["entity_first"] < 30


def test_pointing_decides_first_which_product_if_any():
    automaton = Automaton(CART, NAMES, tokenizer(400), "entity_first")
    spoken = [tokenizer(400).encode(f" {name}", add_special_tokens=False).ids for name in NAMES]
    nothing = automaton.target({"action": "none", "product": None, "quantity": None})
    assert {*automaton.allowed(automaton.start).tolist()} == {ids[0] for ids in spoken} | {nothing.tokens[0]}
    assert len(nothing.tokens) == 1
    walk = Walk(automaton, 1)
    walk.advance(np.array([0]), lambda rows, tokens: np.where(tokens == nothing.tokens[0], 3.0, 0.0)[None, :])
    prediction = walk.prediction(0)
    assert prediction.intent == {"action": "none", "product": None, "quantity": None}
    # The action's confidence is the probability that there is no product.
    assert prediction.slots == (prediction.confidence, 1.0, 1.0) and 0.5 < prediction.confidence < 1


def test_pointing_is_compact_where_nothing_ends_or_nothing_is_pointed_at():
    choice, entity = Choice("action", ("add", "remove")), Entity("product")
    for slots in ((choice, entity), (Choice("topic", ("a", "b", "none"), ("none",)),), (entity, choice)):
        schema = IntentSchema("plain", "Say what it means.", slots)
        compact, entity_first = (
            Automaton(schema, NAMES, tokenizer(400), output_format) for output_format in ("compact", "entity_first")
        )
        assert entity_first.order == compact.order


OUTPUT_FORMATS = ("json", "compact", "entity_first")


def basket(*items: tuple[str, str, int]) -> dict:
    return {"intents": [dict(zip(("action", "product", "quantity"), item, strict=True)) for item in items]}


def led(automaton: Automaton, choices, margins=()) -> Walk:
    """Return a walk that makes these choices in order. Each is preferred by its margin, or by 9 if no margin is left."""
    walk, margins = Walk(automaton, 1), iter(margins)
    for choice in choices:
        assert walk.states[0] != END
        margin = next(margins, 9.0)
        walk.advance(
            np.array([0]), lambda rows, tokens, c=choice, m=margin: np.where(np.arange(len(tokens)) == c, m, 0.0)[None]
        )
    return walk


@pytest.mark.parametrize(
    "schema, output_format, digest",
    [
        (CART, "json", "8aede498d67745ca"),
        (CART, "compact", "e81fbfc5be97d490"),
        (CART, "entity_first", "8df63bf8691fad69"),
        (LABELS, "json", "c5bd7ebb3a0f3370"),
        (LABELS, "compact", "db292095218ba091"),
    ],
)
def test_an_automaton_of_one_intent_has_the_same_tokens_as_before_lists(schema, output_format, digest):
    automaton = Automaton(schema, NAMES, tokenizer(257), output_format)
    states = [
        [*([int(token), *automaton.edge(state, i)] for i, token in enumerate(automaton.allowed(state))), automaton.slot(state)]
        for state in range(len(automaton._slot))
    ]
    whole = json.dumps([automaton.head, automaton.start, automaton.longest, states])
    assert sha256(whole.encode()).hexdigest()[:16] == digest
    assert automaton.again is None and Walk(automaton, 2).values.shape == (2, len(schema.slots))


@pytest.mark.parametrize("output_format", OUTPUT_FORMATS)
def test_a_list_of_one_item_costs_at_most_one_decision_and_one_token_more(output_format):
    cart, lists = (Automaton(schema, NAMES, tokenizer(400), output_format) for schema in (CART, BASKET))
    for name in NAMES:
        for action, quantity in (("add", 1), ("remove", 12), ("add", 99)):
            one = cart.target({"action": action, "product": name, "quantity": quantity})
            item = lists.target(basket((action, name, quantity)))
            assert len(item.decisions) == len(one.decisions) + 1
            # Plus the forced brackets of a JSON list.
            forced = len(lists.head) - len(cart.head) if output_format == "json" else 0
            assert item.decisions[-1] <= one.decisions[-1] + 1 + forced + (2 if output_format == "json" else 0)
    nothing = cart.target({"action": "none", "product": None, "quantity": None})
    assert len(lists.target(basket()).decisions) == len(nothing.decisions) == 1


@pytest.mark.parametrize("output_format", OUTPUT_FORMATS)
def test_each_further_item_costs_one_answer_and_nothing_is_decided_after_the_last(output_format):
    lists = Automaton(BASKET, NAMES, tokenizer(400), output_format)
    items = [("add", name, 2) for name in NAMES[:4]]
    costs = [len(lists.target(basket(*items[:n])).decisions) for n in range(5)]
    alone = [len(lists.target(basket(item)).decisions) - 1 for item in items]
    apart = 1 if output_format == "json" else 0  # `, {` and then the action
    assert costs[1] == alone[0] + 1
    assert [b - a for a, b in itertools.pairwise(costs[1:])] == [alone[1] + apart, alone[2] + apart, alone[3] + apart - 1]
    target = lists.target(basket(*items))
    walk = led(lists, target.choices)
    assert walk.states[0] == END and walk.prediction(0).intent == basket(*items)
    assert lists.longest >= len(target.tokens)


def test_a_list_is_walked_in_the_states_of_one_item():
    """The automaton holds the catalog as often for many items as for one."""
    four, eight = (Automaton(replace(BASKET, repeat=n), NAMES, tokenizer(400), "entity_first") for n in (4, 8))
    one = Automaton(CART, NAMES, tokenizer(400), "entity_first")
    assert len(four._slot) == len(eight._slot) == len(one._slot)


def test_each_item_has_its_confidence_and_the_whole_has_the_end_too():
    automaton = Automaton(BASKET, NAMES, tokenizer(400), "entity_first")
    target = automaton.target(basket(("add", "Eggs", 2), ("remove", "Whole Milk 1L", 1)))
    end = len(target.decisions) - 1
    walk = led(automaton, target.choices, [np.log(3.0)] * end)
    before = walk.confidences[0].reshape(4, 3).prod(axis=1)
    prediction = led(automaton, target.choices, [np.log(3.0)] * end + [0.0]).prediction(0)
    options = len(automaton.allowed(automaton.again))
    assert prediction.slots == pytest.approx(before[:2].tolist())
    # The end of the list was as likely as any other option.
    assert prediction.confidence == pytest.approx(before[0] * before[1] / options)
    nothing = led(automaton, automaton.target(basket()).choices, [np.log(3.0)]).prediction(0)
    assert nothing.intent == {"intents": []} and nothing.slots == ()
    assert nothing.confidence == pytest.approx(3 / (3 + options - 1))


def test_the_end_of_a_list_has_the_temperature_of_the_slot_that_it_is_decided_with():
    automaton = Automaton(BASKET, NAMES, tokenizer(400), "entity_first")
    [end] = automaton.target(basket()).choices
    options = len(automaton.allowed(automaton.start))
    for temperature in (1.0, 2.0):
        walk = Walk(automaton, 1, [7.0, temperature, 7.0])
        walk.advance(np.array([0]), lambda rows, tokens: np.where(np.arange(len(tokens)) == end, np.log(4.0), 0.0)[None])
        best = 4.0 ** (1 / temperature)
        assert walk.prediction(0).confidence == pytest.approx(best / (best + options - 1))


def test_repeated_items_are_summed_and_their_confidences_multiplied():
    automaton = Automaton(BASKET, NAMES, tokenizer(400), "entity_first")
    once = [automaton.target(basket(("add", "Eggs", n))).choices for n in (2, 98)]
    walk = led(automaton, [*once[0][:-1], *once[1]])
    each = walk.confidences[0].reshape(4, 3).prod(axis=1)
    prediction = walk.prediction(0)
    assert prediction.intent == basket(("add", "Eggs", 99))
    assert prediction.slots == pytest.approx((each[0] * each[1],))


def test_a_list_that_is_too_long_is_no_target():
    with pytest.raises(ValueError, match="5 items: the schema 'basket' has at most 4"):
        Automaton(BASKET, NAMES, tokenizer(400), "entity_first").target(basket(*[("add", name, 1) for name in NAMES[:5]]))


def test_a_list_under_the_threshold_is_abstained_as_a_whole():
    automaton = Automaton(BASKET, NAMES, tokenizer(400), "entity_first")
    walk = led(automaton, automaton.target(basket(("add", "Eggs", 2))).choices, [0.1] * 9)
    abstained = walk.prediction(0, abstain_below=0.9)
    assert abstained.status is Status.ABSTAINED and abstained.intent == {"intents": None}


def test_a_walk_that_is_reset_has_no_items():
    automaton = Automaton(BASKET, NAMES, tokenizer(400), "compact")
    choices = automaton.target(basket(("add", "Eggs", 2), ("add", "Whole Milk 1L", 1))).choices
    walk = led(automaton, choices[:-2])
    walk.restart(np.array([0]))
    for choice in automaton.target(basket(("remove", "Eggs", 3))).choices:
        walk.advance(np.array([0]), lambda rows, tokens, c=choice: np.where(np.arange(len(tokens)) == c, 9.0, 0.0)[None])
    assert walk.prediction(0).intent == basket(("remove", "Eggs", 3))


def lines_run(work) -> int:
    """Return the number of Python lines that a call runs, which does not depend on the machine's load."""
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
    for output_format in ("json", "compact", "entity_first"):
        tenth, whole = (lines_run(partial(Automaton, CART, names[:n], tokenizer(400), output_format)) for n in (1_000, 10_000))
        assert whole < 15 * tenth < 15 * 200_000, "a catalog ten times as long takes about ten times as much"
        tracemalloc.start()
        kept = Automaton(CART, names, tokenizer(400), output_format)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 50e6
        assert kept.target({"action": "add", "product": names[9_999], "quantity": 1}).tokens
