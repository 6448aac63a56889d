"""Models are compared on the decisions of the right answers: with real engines and small random models."""

import random
from functools import partial

import numpy as np
import pyarrow as pa
import pytest

from intent.dataset.example import Example
from intent.engine import calibration
from intent.engine.automaton import END, Automaton
from intent.engine.forced import RecordedWalk
from intent.engine.load import EngineOptions, load_classifier
from intent.evaluate import divergence
from intent.evaluate.divergence import NOT_COMPARED, SCHEMA, compare, decisions_of
from intent.quantize import gguf
from intent.task.prompt import Prompt, load_tokenizer
from tests.tiny import BASKET, CART, NAMES, write_checkpoint

WORDS = "add two milk please remove eggs now three monitor the a of cart my we need no more stop".split()
CATALOGS = {"all": NAMES, "few": NAMES[:4]}
# The first is empty and the second is longer than the limit.
REJECTED = ["", "milk " * 5000]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def folders(checkpoint, f16, tmp_path_factory):
    """The folder of each variant, by name."""
    folders = {"reference": checkpoint}
    for kind in ("F16", "Q8_0", "Q4_0"):
        folder = tmp_path_factory.mktemp(kind)
        (folder / "tokenizer.json").write_bytes((checkpoint / "tokenizer.json").read_bytes())
        if kind == "F16":
            (folder / "model.gguf").write_bytes(f16.read_bytes())
        else:
            gguf.quantize(f16, folder / "model.gguf", kind, 1)
        folders[f"gguf-{kind}"] = folder
    return folders


def examples_of(schema, n: int = 40) -> list[Example]:
    rng = random.Random(3)

    def item(key: str) -> dict:
        actions = schema.slots[0].values[:2]
        return {"action": rng.choice(actions), "product": rng.choice(CATALOGS[key]), "quantity": rng.randint(1, 99)}

    examples = []
    for i in range(n):
        key = "few" if i % 3 == 0 else "all"
        message = REJECTED[i % 2] if i in (5, 6) else " ".join(rng.choices(WORDS, k=rng.randint(1, 25)))
        intent = {"intents": [item(key) for _ in range(i % 4)]} if schema is BASKET else item(key)
        if schema is CART and i % 5 == 0:
            intent = {"action": "none", "product": None, "quantity": None}
        examples.append(Example(str(i), message, intent, "en", catalog=key))
    return examples


def decisions(folders, name, examples, schema=CART, output_format="compact", batch=8) -> pa.Table:
    options = EngineOptions(output_format, device="cpu", gguf_sequences=batch, gptq_batch=batch, threads=1)

    def load(names):
        return load_classifier(folders[name], name, Prompt(schema, tuple(names)), options)

    return decisions_of(load, examples, CATALOGS)


@pytest.mark.parametrize("schema, output_format", [(CART, "json"), (CART, "entity_first"), (BASKET, "entity_first")])
def test_a_coarser_file_is_farther_from_the_unquantized_model(folders, schema, output_format):
    examples = examples_of(schema)
    of = partial(decisions, folders, examples=examples, schema=schema, output_format=output_format)
    reference = of("reference")
    assert compare(reference, of("reference")) == {"kl": 0.0, "same_choice": 1.0}
    f16, q8, q4 = (compare(reference, of(name)) for name in ("gguf-F16", "gguf-Q8_0", "gguf-Q4_0"))
    assert 0 <= f16["kl"] < q8["kl"] < q4["kl"]
    assert f16["kl"] < 1e-4 and q4["kl"] > 1e-3
    assert f16["same_choice"] > 0.98 and q4["same_choice"] < 1


@pytest.mark.parametrize("schema", [CART, BASKET])
def test_every_decision_of_every_message_that_is_not_rejected_is_there_once(folders, checkpoint, schema):
    examples = examples_of(schema)
    table = decisions(folders, "gguf-F16", examples, schema)
    tokenizer = load_tokenizer(checkpoint)
    automata = {key: Automaton(schema, names, tokenizer, "compact") for key, names in CATALOGS.items()}
    expected, allowed = [], []
    for i, example in enumerate(examples):
        target = automata[example.catalog].target(example.intent)
        if example.message not in REJECTED:
            expected += [(i, number, target.tokens[at]) for number, at in enumerate(target.decisions)]
            allowed += [len(automata[example.catalog].allowed(state)) for state in target.states]
    rows = table.to_pylist()
    assert [(row["message"], row["decision"], row["token"]) for row in rows] == expected
    assert [len(row["log_probabilities"]) for row in rows] == allowed
    assert [np.exp(row["log_probabilities"]).sum() for row in rows] == pytest.approx([1.0] * len(rows))


def test_neither_the_batch_nor_the_order_of_messages_changes_the_comparison(folders):
    examples = examples_of(CART)
    figures = []
    for given, batch in ((examples, 8), (examples, 1), (examples[::-1], 8)):
        tables = [decisions(folders, name, given, batch=batch) for name in ("reference", "gguf-Q4_0")]
        figures.append(compare(*tables))
    assert [each["kl"] for each in figures] == pytest.approx([figures[0]["kl"]] * 3, rel=0.02)
    assert [each["same_choice"] for each in figures] == pytest.approx([figures[0]["same_choice"]] * 3, abs=0.02)


def test_what_is_added_to_answering_nothing_counts_as_it_is_served(folders, checkpoint, tmp_path):
    examples = [example for example in examples_of(CART) if example.catalog == "all"]
    for path in folders["gguf-F16"].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    calibration.write(tmp_path, {"action": 3.0, "product": 0.5}, nothing=2.0)
    plain, served = (
        decisions({"gguf-F16": folder}, "gguf-F16", examples, output_format="entity_first")
        for folder in (folders["gguf-F16"], tmp_path)
    )
    nothing = Automaton(CART, NAMES, load_tokenizer(checkpoint), "entity_first").nothing
    for a, b in zip(plain.to_pylist(), served.to_pylist(), strict=True):
        logits = np.array(a["log_probabilities"])
        if a["decision"] == 0:
            logits[nothing] += 2.0
        assert b["log_probabilities"] == pytest.approx(logits - np.log(np.exp(logits).sum()), abs=1e-5)


def test_models_that_meet_other_decisions_are_not_compared(folders):
    examples = examples_of(CART, 12)
    reference = decisions(folders, "reference", examples)
    others = [
        decisions(folders, "gguf-F16", examples, output_format="json"),
        decisions(folders, "gguf-F16", [*examples[:3], *examples[4:]]),
        SCHEMA.empty_table(),
    ]
    assert [compare(reference, other) for other in others] == [NOT_COMPARED] * 3
    assert compare(SCHEMA.empty_table(), SCHEMA.empty_table()) == NOT_COMPARED


def test_messages_that_are_all_rejected_or_have_no_valid_answer_leave_no_decisions(folders):
    wrong = {"action": "add", "product": "Bread", "quantity": 1}
    intents = [examples_of(CART)[1].intent] * 2 + [wrong]
    examples = [
        Example(str(i), message, intent, "en", catalog="all")
        for i, (message, intent) in enumerate(zip([*REJECTED, "add bread"], intents, strict=True))
    ]
    assert decisions(folders, "gguf-F16", examples).num_rows == 0


def test_of_many_messages_a_spread_sample_is_walked(folders, monkeypatch):
    monkeypatch.setattr(divergence, "MOST", 4)
    table = decisions(folders, "gguf-F16", examples_of(CART))
    assert set(table["message"].to_pylist()) == {0, 10, 20, 30}


def test_a_message_that_begins_again_for_want_of_memory_has_its_decisions_once(checkpoint):
    automaton = Automaton(CART, NAMES, load_tokenizer(checkpoint), "compact")
    target = automaton.target({"action": "add", "product": "Eggs", "quantity": 42})
    walk = RecordedWalk(automaton, 1, targets=[target])
    for steps in (2, len(target.decisions)):
        walk.restart(np.array([0]))
        for _ in range(steps):
            walk.advance(np.array([0]), lambda rows, tokens: np.zeros((1, len(tokens)), np.float32))
    assert walk.states[0] == END
    assert [decided.token for decided in walk.records[0]] == [target.tokens[at] for at in target.decisions]


def test_the_divergence_is_from_the_reference_in_nats_over_all_decisions():
    def table(*chances):
        rows = [
            {"message": i, "decision": 0, "token": 7, "log_probabilities": np.log(each).tolist()}
            for i, each in enumerate(chances)
        ]
        return pa.Table.from_pylist(rows, schema=SCHEMA)

    found = compare(table([0.5, 0.5 - 1e-6], [0.2, 0.8]), table([0.25, 0.75], [0.2, 0.8]))
    assert found["kl"] == pytest.approx((0.5 * np.log(2) + 0.5 * np.log(2 / 3)) / 2, rel=1e-4)
    assert found["same_choice"] == 0.5
