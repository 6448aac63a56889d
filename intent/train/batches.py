"""Messages behind one shared prefix: the forward pass that training and serving share.

All messages of a batch refer to one catalog, so they share the prompt's prefix. It is computed once per batch, with its
gradient, and every message extends that one cache: the loss is the unpacked one's, at the tokens of one prefix and the
messages alone (a block-causal mask without the blocks that would be masked).
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from intent.engine.causal import last, left_pad, prefix_cache, spread
from intent.engine.decode import Automaton, Target
from intent.prompt import Prompt
from intent.schema import IntentSchema
from intent.synth.example import Example

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

IGNORED = -100


@dataclass(frozen=True)
class Row:
    """A message's token ids with its separator and forced head excluded, and the answer."""

    message: list[int]
    target: Target


@dataclass(frozen=True)
class Group:
    """All rows of one catalog, with what they share."""

    prefix: list[int]
    automaton: Automaton
    rows: list[Row]


@dataclass(frozen=True)
class Batch:
    prefix: list[int]
    automaton: Automaton
    rows: list[Row]


def encode(
    examples: Sequence[Example],
    catalogs: Mapping[str, Sequence[str]],
    schema: IntentSchema,
    tokenizer: "Tokenizer",
    codec: str,
) -> list[Group]:
    """One group a catalog, in the order of first use. `catalogs`: id -> names."""
    by_catalog: dict[str, list[Example]] = {}
    for example in examples:
        by_catalog.setdefault(example.catalog, []).append(example)
    return [_group(members, catalogs[key], schema, tokenizer, codec) for key, members in by_catalog.items()]


def _group(members: list[Example], names: Sequence[str], schema: IntentSchema, tokenizer: "Tokenizer", codec: str) -> Group:
    prompt = Prompt(schema, names)
    automaton = Automaton(schema, names, tokenizer, codec)
    messages = prompt.message_ids(tokenizer, [example.message for example in members])
    targets = [automaton.target(example.intent) for example in members]
    rows = [Row(message, target) for message, target in zip(messages, targets, strict=True)]
    return Group(prompt.prefix_ids(tokenizer), automaton, rows)


def batches(groups: Sequence[Group], size: int, seed: int | None = None) -> Iterator[Batch]:
    """Batches of up to `size` rows of one group and of like length; in a random order where a seed is given."""
    shuffle = random.Random(seed).shuffle if seed is not None else lambda items: None
    found = []
    for group in groups:
        rows = list(group.rows)
        shuffle(rows)
        for low in range(0, len(rows), 8 * size):
            window = sorted(rows[low : low + 8 * size], key=lambda row: len(row.message) + len(row.target.tokens))
            found += [Batch(group.prefix, group.automaton, window[i : i + size]) for i in range(0, len(window), size)]
    shuffle(found)
    yield from found


def calibration_sequences(groups: Sequence[Group], messages: int = 16) -> list[list[int]]:
    """Token sequences for calibration: a prefix and then `messages` messages with their answers, one after the other."""
    sequences = []
    for group in groups:
        for low in range(0, len(group.rows), messages):
            rows = group.rows[low : low + messages]
            sequences.append(group.prefix + [token for row in rows for token in row.message + row.target.tokens])
    return sequences


def answer_logits(model, batch: Batch) -> tuple["torch.Tensor", "torch.Tensor"]:
    """(logits [rows, answer tokens, vocabulary], labels [rows, answer tokens]), aligned at the end, padded with IGNORED."""
    import torch

    device = next(model.parameters()).device
    ids, mask = left_pad([row.message + row.target.tokens[:-1] for row in batch.rows], device)
    width = max(len(row.target.tokens) for row in batch.rows)
    labels = np.full((len(batch.rows), width), IGNORED, np.int64)
    for row, line in zip(batch.rows, labels, strict=True):
        line[width - len(row.target.tokens) :] = row.target.tokens
    prefix = torch.ones(len(batch.rows), len(batch.prefix), dtype=mask.dtype, device=device)
    logits = model(
        input_ids=ids,
        attention_mask=torch.cat([prefix, mask], 1),
        position_ids=(len(batch.prefix) + mask.cumsum(1) - 1).clamp(min=0),
        past_key_values=spread(prefix_cache(model, batch.prefix, device), len(batch.rows)),
        use_cache=True,
        logits_to_keep=last(ids, width),
    ).logits
    return logits, torch.from_numpy(labels).to(device)


def loss(model, batch: Batch) -> "torch.Tensor":
    """Mean cross-entropy over the answers' tokens."""
    from torch.nn.functional import cross_entropy

    logits, labels = answer_logits(model, batch)
    return cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED)


def exact(model, batch: Batch) -> int:
    """How many rows the constrained greedy decoder would answer exactly.

    It does so if and only if every decision, with the right answer up to it, prefers the right token among the allowed
    ones; so one forward pass tells.
    """
    import torch

    with torch.inference_mode():
        logits, _ = answer_logits(model, batch)
    return sum(_right(row, line, batch.automaton) for row, line in zip(batch.rows, logits.float().cpu().numpy(), strict=True))


def _right(row: Row, logits: np.ndarray, automaton: Automaton) -> bool:
    first = len(logits) - len(row.target.tokens)
    for position, state in zip(row.target.decisions, row.target.states, strict=True):
        allowed = automaton.allowed(state)
        if allowed[logits[first + position][allowed].argmax()] != row.target.tokens[position]:
            return False
    return True
