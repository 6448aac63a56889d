"""All engines give the same labels with a small random model, whatever the other messages of the batch."""

import random
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import shelves

from intent.benchmark.meters import GoldWalk
from intent.benchmark.shapes import SHAPES
from intent.engine import Prediction, Status
from intent.engine.automaton import Automaton
from intent.engine.batch import BatchClassifier
from intent.engine.causal import CausalForward, fitting
from intent.engine.gguf import GgufForward
from intent.engine.golden_set import GoldenSet
from intent.engine.load import EngineOptions, load_classifier
from intent.engine.reference import load_reference
from intent.engine.shelved import Shelved
from intent.errors import ConfigError, CorruptData, Disagreement
from intent.quantize import gguf
from intent.task.prompt import Prompt, load_tokenizer
from intent.task.schema import to_json
from tests.tiny import BASKET, CART, LABELS, NAMES, write_checkpoint

WORDS = "add two milk please remove eggs now three monitor the a of cart my we need no more stop".split()
PROMPT = Prompt(CART, NAMES)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def messages():
    # The random model is undecided about none of these. In a tie, the rounding of the batch would decide.
    rng = random.Random(7)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, 25))) for _ in range(80)]


def classifier(
    kind: str, checkpoint, f16, output_format: str, max_num_seqs: int = 8, prompt: Prompt = PROMPT
) -> BatchClassifier:
    tokenizer = load_tokenizer(checkpoint)
    prefix = prompt.prefix_ids(tokenizer)
    if kind == "gguf":
        forward = GgufForward(f16, prefix, max_num_seqs, 352, threads=1)
    else:
        forward = CausalForward(load_reference(checkpoint, "cpu"), prefix, 352, max_num_seqs)
    return BatchClassifier(kind, forward, tokenizer, prompt, Automaton(prompt.schema, NAMES, tokenizer, output_format), 256)


def labels(predictions) -> list[str]:
    return [to_json(prediction.intent) for prediction in predictions]


@pytest.mark.parametrize("output_format", ["json", "compact", "entity_first"])
def test_gguf_and_reference_label_alike(checkpoint, f16, messages, output_format):
    ours = classifier("gguf", checkpoint, f16, output_format).classify(messages)
    theirs = classifier("reference", checkpoint, f16, output_format).classify(messages)
    assert len(set(labels(theirs))) > 5, "a test of one label shows nothing"
    assert labels(ours) == labels(theirs)
    assert [p.confidence for p in ours] == pytest.approx([p.confidence for p in theirs], rel=0.02)


@pytest.mark.parametrize("kind", ["gguf", "reference"])
def test_a_label_does_not_depend_on_the_rest_of_the_batch(checkpoint, f16, messages, kind):
    engine = classifier(kind, checkpoint, f16, "compact")
    alone = [label for message in messages for label in labels(engine.classify([message]))]
    order = list(range(len(messages)))
    random.Random(1).shuffle(order)
    shuffled = labels(engine.classify([messages[i] for i in order]))
    assert labels(engine.classify(messages)) == alone
    assert [shuffled[order.index(i)] for i in range(len(messages))] == alone


def test_every_engine_labels_a_catalog_on_shelves_alike_in_any_batch(checkpoint, f16):
    index, messages = shelves.index(), [f"please add one {name}" for name in shelves.NAMES[::4]] + ["?!"]
    answers = {}
    for kind in ("gguf", "reference"):
        classifier_ = Shelved(classifier(kind, checkpoint, f16, "entity_first"), index, CART)
        answers[kind] = classifier_.classify(messages)
        assert labels(classifier_.classify(messages[::-1]))[::-1] == labels(answers[kind])
        assert labels(classifier_.classify(messages[-3:])) == labels(answers[kind])[-3:]
    assert labels(answers["gguf"]) == labels(answers["reference"])
    assert len(set(labels(answers["gguf"]))) > 5
    assert all(CART.check(prediction.intent, shelves.NAMES) == prediction.intent for prediction in answers["gguf"])


LISTS = Prompt(BASKET, NAMES)


@pytest.mark.parametrize("output_format", ["json", "entity_first"])
def test_every_engine_labels_lists_alike_in_any_batch(checkpoint, f16, messages, output_format):
    messages = messages[:30]
    ours, theirs = (classifier(kind, checkpoint, f16, output_format, prompt=LISTS) for kind in ("gguf", "reference"))
    predictions = theirs.classify(messages)
    assert len({len(p.intent["intents"]) for p in predictions}) > 1 and len(set(labels(predictions))) > 5
    again = ours.classify(messages)
    # A list has many decisions of a random model, and some are near a tie.
    assert sum(a == b for a, b in zip(labels(again), labels(predictions), strict=True)) > 0.9 * len(messages)
    for prediction in predictions:
        assert BASKET.check(prediction.intent, NAMES) == prediction.intent
        assert len(prediction.slots) == len(prediction.intent["intents"])
        assert prediction.confidence <= np.prod(prediction.slots) * (1 + 1e-9)
    alone = [label for message in messages[:10] for label in labels(ours.classify([message]))]
    assert sum(a == b for a, b in zip(labels(again), alone, strict=False)) >= 9


@pytest.mark.parametrize("kind", ["gguf", "reference"])
def test_a_list_of_one_item_is_one_pass_and_one_token_more(checkpoint, f16, kind):
    """For the same item, a message costs the same plus one decision that the list ends."""
    item = {"action": "add", "product": "Eggs", "quantity": 2}
    costs = {}
    for prompt, intent in ((PROMPT, item), (LISTS, {"intents": [item]})):
        engine = classifier(kind, checkpoint, f16, "entity_first", prompt=prompt)
        targets = [engine.automaton.target(intent)]
        engine.walk = lambda automaton, rows, targets=targets: GoldWalk(automaton, 1, targets=targets)
        passes, extend = [], engine.forward.extend
        engine.forward.extend = lambda *args, extend=extend, passes=passes: (passes.append(args), extend(*args))[1]
        before = engine.tokens_computed
        [prediction] = engine.classify(["two eggs please"])
        assert prediction.intent == intent
        costs[prompt.schema.name] = (len(passes), engine.tokens_computed - before)
    assert costs["basket"] == (costs["cart"][0] + 1, costs["cart"][1] + 1)


def test_lists_have_as_many_messages_together_as_single_intents(variant, checkpoint, messages):
    """The KV cache is larger for lists, so that no message waits for free sequences or is classified separately as too long."""
    for kind, folder in (("gguf-F16", variant), ("reference", checkpoint)):
        together = []
        for prompt in (PROMPT, LISTS):
            options = EngineOptions("entity_first", gguf_sequences=8, gptq_batch=8, threads=1)
            engine = load_classifier(folder, kind, prompt, options)
            # The toy's tokens are letters. A real message of typical length has as many tokens as these.
            needs = [engine._need(ids) for ids in prompt.message_ids(engine.tokenizer, [text[:20] for text in messages])]
            usual = [need <= engine.forward.usual for need in needs]
            fit = [sum(needs[low : low + 8]) <= engine.forward.capacity for low in range(0, len(needs), 8)]
            together.append((engine.forward.max_num_seqs, usual, fit))
        assert together[0] == together[1]
        assert {p.status for p in engine.classify(messages[:12])} == {Status.OK}


def test_lists_that_begin_again_for_want_of_memory_lose_nothing(checkpoint, f16, messages, monkeypatch):
    import torch

    engine = classifier("reference", checkpoint, f16, "entity_first", max_num_seqs=8, prompt=LISTS)
    expected = labels(engine.classify(messages[:24]))
    decoder, calls = engine.forward.model.get_decoder(), []
    forward = decoder.forward

    def scarce(behind, **kwargs):
        calls.append(len(behind.used))
        if len(calls) == 6:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(behind=behind, **kwargs)

    monkeypatch.setattr(decoder, "forward", scarce)
    again = labels(engine.classify(messages[:24]))
    assert sum(a == b for a, b in zip(again, expected, strict=True)) >= 23


def test_what_messages_begin_with_is_computed_once(checkpoint, f16):
    engine = classifier("gguf", checkpoint, f16, "compact")
    alike = [f"please remove two of the {word}" for word in ("eggs", "milk", "cart", "monitor", "eggs now")]
    alone, apart = [], 0
    for message in alike:
        before = engine.tokens_computed
        alone += engine.classify([message])
        apart += engine.tokens_computed - before
    before = engine.tokens_computed
    together = engine.classify(alike)
    lengths = [len(ids) for ids in PROMPT.message_ids(engine.tokenizer, ["please remove two of the"])]
    assert apart - (engine.tokens_computed - before) >= 4 * (lengths[0] - 1)
    assert labels(together) == labels(alone)
    assert [p.confidence for p in together] == pytest.approx([p.confidence for p in alone], rel=0.02)


@pytest.mark.parametrize("kind", ["gguf", "reference"])
def test_a_message_that_is_too_long_is_rejected_and_its_neighbours_are_not_touched(checkpoint, f16, messages, kind):
    engine = classifier(kind, checkpoint, f16, "compact")
    given = [messages[0], "milk " * 5000, "", messages[1]]
    mixed = engine.classify(given)
    assert [p.message for p in mixed] == given
    assert [p.status for p in mixed] == [Status.OK, Status.REJECTED, Status.REJECTED, Status.OK]
    assert "over the limit of 256" in mixed[1].reason
    assert mixed[2].reason == "empty message"
    assert labels([mixed[0], mixed[3]]) == labels(engine.classify(messages[:2]))


def test_a_message_longer_than_a_usual_batch_is_labelled_where_the_limit_allows_it(checkpoint, f16):
    tokenizer = load_tokenizer(checkpoint)
    forward = GgufForward(f16, PROMPT.prefix_ids(tokenizer), 4, 1100, threads=1)
    engine = BatchClassifier("gguf", forward, tokenizer, PROMPT, Automaton(CART, NAMES, tokenizer, "compact"), 1000)
    long, short = engine.classify(["add two eggs please now " * 60, "add two eggs"])
    assert long.status is short.status is Status.OK
    assert len(PROMPT.message_ids(tokenizer, ["add two eggs please now " * 60])[0]) > 512


def test_a_prompt_beyond_the_models_context_is_refused_by_every_engine(checkpoint, f16):
    for start in (
        lambda p: GgufForward(f16, p, 4, 352, threads=1),
        lambda p: CausalForward(load_reference(checkpoint, "cpu"), p, 352),
    ):
        with pytest.raises(
            ConfigError, match="catalog='8000 tokens': with 352 .* the model's context of 8192; use fewer products"
        ):
            start([5] * 8000)


def test_a_limit_of_a_message_beyond_the_models_context_is_not_blamed_on_the_catalog(checkpoint, f16):
    for start in (
        lambda p: GgufForward(f16, p, 4, 8192 + 96, threads=1),
        lambda p: CausalForward(load_reference(checkpoint, "cpu"), p, 8192 + 96),
    ):
        with pytest.raises(ConfigError, match=r"engine.max_message_tokens=8192: the prompt has 60 tokens.*use at most 8036"):
            start([5] * 60)


def test_more_messages_together_than_llama_cpp_decodes_are_refused_by_its_limit(f16):
    with pytest.raises(ConfigError, match="engine.gguf_sequences=256: llama.cpp decodes at most 255"):
        GgufForward(f16, [5, 6], 256, 352, threads=1)


@pytest.mark.parametrize("kind", ["gguf-F16", "reference"])
def test_a_long_name_does_not_reduce_max_model_len_for_messages(variant, checkpoint, kind, messages):
    long = Prompt(CART, ("Milk", " ".join(f"word{i}" for i in range(200))))
    assert Automaton(CART, long.catalog, load_tokenizer(checkpoint), "json").longest > 352
    folder = variant if kind == "gguf-F16" else checkpoint
    for asked in (0, 8) if kind == "gguf-F16" else (0,):
        options = EngineOptions("json", gguf_sequences=2, threads=1, golden_messages=asked, golden_disagreement=0.99)
        engine = load_classifier(folder, kind, long, options)
        assert {p.status for p in engine.classify(messages[:3])} == {Status.OK}


def test_long_messages_wait_when_the_kv_cache_cannot_hold_all(checkpoint, f16, messages):
    engine = classifier("gguf", checkpoint, f16, "json")
    long = [" ".join([message] * 4)[:400] for message in messages[:12]]
    assert sum(len(ids) for ids in PROMPT.message_ids(engine.tokenizer, long)) > engine.forward.capacity
    alone = [label for message in long for label in labels(engine.classify([message]))]
    assert labels(engine.classify(long)) == alone


def test_out_of_memory_halves_the_batch_and_loses_nothing(checkpoint, f16, messages, monkeypatch):
    import torch

    engine = classifier("reference", checkpoint, f16, "compact", max_num_seqs=16)
    expected = labels(engine.classify(messages))
    decoder, seen = engine.forward.model.get_decoder(), []
    forward = decoder.forward

    def scarce(behind, **kwargs):
        seen.append(len(behind.used))
        if len(behind.used) > 5 or len(seen) == 9:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(behind=behind, **kwargs)

    monkeypatch.setattr(decoder, "forward", scarce)
    assert labels(engine.classify(messages)) == expected
    assert seen[:3] == [16, 8, 4] and max(seen[9:]) == 2, "halved again where memory was short in the middle of answers"

    monkeypatch.setattr(decoder, "forward", lambda **kwargs: scarce(SimpleNamespace(used=[0] * 9)))
    with pytest.raises(MemoryError):
        engine.classify(messages)


def test_the_batch_size_of_a_gpu_fits_its_free_memory():
    from transformers import LlamaConfig

    llama = LlamaConfig(**SHAPES["llama32_1b"])
    small, large = fitting(8 * 2**30, llama, 352, 300), fitting(16 * 2**30, llama, 352, 300)
    assert 16 <= small <= large // 2 + 1
    assert fitting(8 * 2**30, llama, 704, 300) < small
    assert fitting(0, llama, 352, 300) == 1 and fitting(2**45, llama, 352, 300) == 4096


def test_text_that_looks_like_a_special_token_stays_text(checkpoint):
    tokenizer = load_tokenizer(checkpoint)
    (ids,) = PROMPT.message_ids(tokenizer, ["add <eos> milk"])
    assert tokenizer.token_to_id("<eos>") not in ids
    assert tokenizer.decode(ids) == "add <eos> milk\n"


def test_reference_logits_are_those_of_the_whole_prompt_at_once(checkpoint):
    import torch

    tokenizer = load_tokenizer(checkpoint)
    model = load_reference(checkpoint, "cpu")
    prefix = PROMPT.prefix_ids(tokenizer)
    sequences = PROMPT.message_ids(tokenizer, ["add milk", "please remove the eggs from my cart now"])
    forward = CausalForward(model, prefix, 352, 2)
    every = np.arange(model.config.vocab_size)
    forward.extend(list(enumerate(sequences)), every)
    forward.extend([(0, [5, 6, 7]), (1, [8])], every)
    take = forward.extend([(1, [9])], every)
    with torch.inference_mode():
        whole = model(input_ids=torch.tensor([prefix + sequences[1] + [8, 9]])).logits[0, -1].numpy()
    assert take(np.array([0]), np.arange(len(whole)))[0] == pytest.approx(whole, abs=1e-3)


def test_a_label_schema_runs_through_the_same_engine(checkpoint, f16):
    tokenizer = load_tokenizer(checkpoint)
    prompt = Prompt(LABELS)
    forward = GgufForward(f16, prompt.prefix_ids(tokenizer), 4, 352, threads=1)
    engine = BatchClassifier("x", forward, tokenizer, prompt, Automaton(LABELS, (), tokenizer, "compact"), 256)
    predictions = engine.classify(["where is my order", "send it back"])
    assert all(LABELS.check(prediction.intent) for prediction in predictions)


def test_a_file_that_is_no_gguf_is_a_named_error(checkpoint, tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + b"\xff" * 64)
    (tmp_path / "tokenizer.json").write_bytes((checkpoint / "tokenizer.json").read_bytes())
    with pytest.raises(CorruptData, match="model.gguf"):
        load_classifier(tmp_path, "gguf-Q4_K_M", PROMPT, EngineOptions("compact"))


@pytest.fixture(scope="module")
def variant(checkpoint, f16, tmp_path_factory):
    """Return a variant's folder as jobs.quantize leaves it."""
    folder = tmp_path_factory.mktemp("variant")
    (folder / "model.gguf").write_bytes(f16.read_bytes())
    (folder / "tokenizer.json").write_bytes((checkpoint / "tokenizer.json").read_bytes())
    reference = classifier("reference", checkpoint, f16, "compact")
    rng = random.Random(9)
    messages = [" ".join(rng.choices(WORDS, k=rng.randint(2, 12))) for _ in range(32)]
    GoldenSet.of(reference, PROMPT, messages).write(folder)
    return folder


OTHER = Prompt(CART, ("Red Paint", "Blue Paint", "Brush"))
CHECKED = EngineOptions("compact", gguf_sequences=8, threads=1, golden_messages=32)


def test_an_engine_that_agrees_with_the_golden_set_starts_with_the_runs_own_catalog(variant, messages):
    checked = load_classifier(variant, "gguf-F16", OTHER, CHECKED)
    unchecked = load_classifier(variant, "gguf-F16", OTHER, replace(CHECKED, golden_messages=0))
    assert labels(checked.classify(messages)) == labels(unchecked.classify(messages))
    assert {p.intent["product"] for p in checked.classify(messages)} <= {*OTHER.catalog, None}


def test_other_weights_than_the_reference_had_are_refused(variant, tmp_path):
    for name in ("tokenizer.json", "parity.json"):
        (tmp_path / name).write_bytes((variant / name).read_bytes())
    gguf.write_f16(write_checkpoint(tmp_path / "other", seed=5), tmp_path / "model.gguf")
    with pytest.raises(
        Disagreement, match=r"gguf-F16: \d+ of 32 golden-set messages .*golden_disagreement=0.1.*#\d+ \{"
    ) as refused:
        load_classifier(tmp_path, "gguf-F16", PROMPT, CHECKED)
    assert refused.value.exit_code == 6
    assert not any(message in str(refused.value) for message in GoldenSet.read(variant).messages)


def test_a_kernel_that_computes_something_else_is_refused(variant, monkeypatch):
    extend = GgufForward.extend

    def broken(self, feeds, tokens, lane):
        take = extend(self, feeds, tokens, lane)
        return lambda rows, tokens: take(rows, tokens) * -1

    monkeypatch.setattr(GgufForward, "extend", broken)
    with pytest.raises(Disagreement):
        load_classifier(variant, "gguf-F16", PROMPT, CHECKED)


def test_a_list_in_another_order_is_no_disagreement():
    items = [{"action": "add", "product": name, "quantity": 1} for name in NAMES[:2]]
    gold = GoldenSet(NAMES, ["milk of both kinds"], [{"intents": items}])
    for answer, agrees in ((items[::-1], True), (items[:1], False), ([], False)):
        prediction = Prediction({"intents": answer}, 0.9, message="milk of both kinds")
        engine = SimpleNamespace(variant="gguf-F16", classify=lambda messages, prediction=prediction: [prediction])
        if agrees:
            gold.check(engine, 1, 0.0)
        else:
            with pytest.raises(Disagreement, match="1 of 1 golden-set messages"):
                gold.check(engine, 1, 0.0)
