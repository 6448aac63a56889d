"""Training with a shared prefix equals training on whole prompts, with fewer tokens."""

from dataclasses import replace

import pytest

from intent.dataset.example import Example
from intent.engine.reference import load_reference
from intent.task.prompt import load_tokenizer
from intent.train import attention
from intent.train.batches import batches, decisions, encode, loss, micro_batches, pack
from tests.tiny import BASKET, CART, NAMES, write_checkpoint, write_gemma

INTENTS = [
    ("add two eggs", {"action": "add", "product": "Eggs", "quantity": 2}),
    ("please remove the big milk from my cart, the whole one", {"action": "remove", "product": "Whole Milk 2L", "quantity": 1}),
    ("hello", {"action": "none", "product": None, "quantity": None}),
    ("12 packs of eggs", {"action": "add", "product": "Eggs 12 pack", "quantity": 12}),
]
ITEMS = [intent for _, intent in INTENTS if intent["action"] != "none"]
LISTS = [
    Example(str(i), message, intent, "en")
    for i, (message, intent) in enumerate(
        [
            ("two eggs, no big milk, and twelve packs", {"intents": ITEMS}),
            ("12 packs of eggs", {"intents": ITEMS[2:]}),
            ("hello", {"intents": []}),
            ("two eggs, the milk out, 12 packs and 3 skimmed", {"intents": [*ITEMS, ITEMS[0] | {"product": "Crème brûlée"}]}),
        ]
    )
]
EXAMPLES = [Example(str(i), message, intent, "en") for i, (message, intent) in enumerate(INTENTS)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def kinds(checkpoint, tmp_path_factory):
    """One checkpoint with full attention, and one with sliding windows far shorter than a prompt."""
    return {"llama": checkpoint, "gemma": write_gemma(tmp_path_factory.mktemp("windowed"))}


def whole_prompts(model, batch):
    """Return the mean over decisions of -log(the decoder's probability of the right answer), one prompt at a time."""
    import torch

    losses, tokens = [], 0
    for row, of in zip(batch.rows, batch.of, strict=True):
        group, target = batch.groups[of], row.target
        ids = torch.tensor([group.prefix + row.message + target.tokens[:-1]])
        logits = model(input_ids=ids).logits[0, -len(target.tokens) :]
        for position, state in zip(target.decisions, target.states, strict=True):
            allowed = group.automaton.allowed(state)
            chances = logits[position, torch.from_numpy(allowed).long()].softmax(0)
            losses.append(-chances[list(allowed).index(target.tokens[position])].log())
        tokens += ids.numel()
    return torch.stack(losses).mean(), tokens


CASES = [("llama", output_format, CART) for output_format in ("json", "compact", "entity_first")] + [("gemma", "json", CART)]
CASES += [
    ("gemma", "compact", CART),
    ("gemma", "entity_first", CART),
    ("llama", "json", BASKET),
    ("llama", "compact", BASKET),
    ("gemma", "entity_first", BASKET),
]


@pytest.mark.parametrize(("kind", "output_format", "schema"), CASES)
def test_the_loss_and_its_gradient_match_the_served_probabilities_of_whole_prompts(kinds, kind, output_format, schema):
    checkpoint = kinds[kind]
    model = load_reference(checkpoint, "cpu").float().train()
    given = EXAMPLES if schema is CART else LISTS
    twice = [replace(e, catalog=catalog) for e in given * 2 for catalog in ("all", "some")]
    catalogs = {"all": NAMES, "some": [name for name in NAMES if "Skimmed" not in name]}
    groups = encode(twice, catalogs, schema, load_tokenizer(checkpoint), output_format)
    (batch,) = batches(groups, 16)
    ordinary = model.config._attn_implementation
    model.set_attn_implementation(attention.register())
    packed = loss(model, pack(batch))
    packed.backward()
    gradient = model.model.layers[0].self_attn.q_proj.weight.grad.clone()
    model.zero_grad()
    model.set_attn_implementation(ordinary)

    expected, whole = whole_prompts(model, batch)
    expected.backward()
    assert packed.item() == pytest.approx(expected.item(), abs=1e-4)
    assert torch_close(gradient, model.model.layers[0].self_attn.q_proj.weight.grad)
    assert pack(batch).ids.size < 0.6 * whole


def torch_close(a, b) -> bool:
    import torch

    return torch.allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("schema", [CART, replace(BASKET, repeat=2)], ids=["cart", "basket"])
def test_exact_counts_the_examples_that_the_decoder_gets_right(checkpoint, schema):
    from intent.engine.automaton import Automaton
    from intent.engine.batch import BatchClassifier
    from intent.engine.causal import CausalForward
    from intent.task.prompt import Prompt

    model, tokenizer = load_reference(checkpoint, "cpu"), load_tokenizer(checkpoint)
    prompt, automaton = Prompt(schema, NAMES), Automaton(schema, NAMES, tokenizer, "compact")
    forward = CausalForward(model, prompt.prefix_ids(tokenizer), 352, 8)
    engine = BatchClassifier("r", forward, tokenizer, prompt, automaton, 256)
    texts = [f"{word} {name}" for word in ("add", "remove", "three", "hello") for name in NAMES]
    answers = [prediction.intent for prediction in engine.classify(texts)]
    if schema.repeat > 1:
        # Repeated items are labelled once, so training has no such target.
        kept = [i for i, answer in enumerate(answers) if len(answer["intents"]) == 2]
        texts, answers = [texts[i] for i in kept], [answers[i] for i in kept]
        assert len(kept) > 8
    # Half of the examples have the model's own labels, half have other ones.
    other = {"action": "add", "product": "Eggs", "quantity": 37}
    other = other if schema.repeat == 1 else {"intents": [other]}
    examples = [Example(str(i), t, a if i % 2 else other, "en") for i, (t, a) in enumerate(zip(texts, answers, strict=True))]
    groups = encode(examples, {"": NAMES}, schema, tokenizer, "compact")
    model.set_attn_implementation(attention.register())
    assert sum(decisions(model, batch, pack(batch))[0] for batch in batches(groups, 8)) == len(texts) // 2


@pytest.mark.parametrize("kind", ["llama", "gemma"])
def test_the_kernel_of_gpus_sees_the_same_pairs(kinds, kind, monkeypatch):
    import torch
    from torch.nn.attention.flex_attention import flex_attention

    model, tokenizer = load_reference(kinds[kind], "cpu").float(), load_tokenizer(kinds[kind])
    catalogs = {"all": NAMES, "some": [name for name in NAMES if "Skimmed" not in name]}
    examples = [replace(e, catalog=catalog) for e in EXAMPLES[-1:] * 9 + EXAMPLES[:1] * 4 for catalog in catalogs]
    (batch,) = batches(encode(examples, catalogs, CART, tokenizer, "entity_first"), 64)
    model.set_attn_implementation(attention.register())
    with torch.no_grad():
        expected = loss(model, pack(batch))
        # The kernel runs only on GPUs. torch computes the same without it.
        monkeypatch.setattr(attention, "fused", lambda device: True)
        monkeypatch.setattr(attention, "flex", flex_attention)
        assert loss(model, pack(batch, attention.block("cpu"))).item() == pytest.approx(expected.item(), abs=1e-4)


def test_batches_depend_on_the_seed_alone_and_lose_no_row(checkpoint):
    groups = encode(EXAMPLES * 5, {"": NAMES}, CART, load_tokenizer(checkpoint), "compact")
    first, again, other = ([b.rows for b in batches(groups, 3, seed)] for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert sorted(len(row.message) for rows in first for row in rows) == sorted(len(row.message) for row in groups[0].rows)


def test_workers_have_batches_of_similar_lengths_at_the_same_step(checkpoint):
    tokenizer = load_tokenizer(checkpoint)
    few, many = (
        [
            group
            for n, count in zip((1, 2, 4, 8), counts, strict=True)
            for group in encode(
                [EXAMPLES[0]] * count, {"": [*NAMES, *(f"Soap {i}" for i in range(20 * n))]}, CART, tokenizer, "compact"
            )
        ]
        for counts in ([8, 8, 8, 8], [7, 8, 6, 8])
    )
    prefixes = [[[len(group.prefix) for group in batch.groups] for batch in batches(groups, 8, 3)] for groups in (few, many)]
    assert prefixes[0] == prefixes[1] != sorted(prefixes[0])


def test_a_batch_is_cut_into_passes_that_lose_no_row_and_fit(checkpoint):
    tokenizer = load_tokenizer(checkpoint)
    catalogs = [NAMES[: n + 1] for n in range(1, len(NAMES))]
    groups = [group for names in catalogs for group in encode([EXAMPLES[2]] * 5, {"": names}, CART, tokenizer, "compact")]
    (batch,) = batches(groups, 1000)
    alone = max(pack(part).ids.size for part in micro_batches(batch, 1))
    for tokens in (1, 2 * alone, 1 << 20):
        parts = micro_batches(batch, tokens)
        assert sum(len(part.rows) for part in parts) == len(batch.rows)
        pairs = [(id(part.groups[of]), row) for part in parts for row, of in zip(part.rows, part.of, strict=True)]
        assert sorted(pairs) == sorted((id(batch.groups[of]), row) for row, of in zip(batch.rows, batch.of, strict=True))
        assert all(pack(part).ids.size <= max(tokens, alone) for part in parts)
    assert len(micro_batches(batch, 1)) == len(groups) and len(micro_batches(batch, 1 << 20)) == 1
