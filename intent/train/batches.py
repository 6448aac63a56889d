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

from intent.engine.causal import last, pad, prefix_cache, spread
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
    """Rows of one or more groups; row i belongs to `groups[of[i]]`."""

    groups: list[Group]
    rows: list[Row]
    of: list[int]


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
    """Batches of about `size` rows of like length, of as few groups as that takes; in a random order given a seed."""
    shuffle = random.Random(seed).shuffle if seed is not None else lambda items: None
    chunks: list[tuple[Group, list[Row]]] = []
    for group in groups:
        rows = list(group.rows)
        shuffle(rows)
        for low in range(0, len(rows), 8 * size):
            window = sorted(rows[low : low + 8 * size], key=lambda row: len(row.message) + len(row.target.tokens))
            chunks += [(group, window[i : i + size]) for i in range(0, len(window), size)]
    shuffle(chunks)
    batch = Batch([], [], [])
    for group, rows in chunks:
        if batch.rows and len(batch.rows) + len(rows) > size:
            yield batch
            batch = Batch([], [], [])
        batch.of.extend([len(batch.groups)] * len(rows))
        batch.groups.append(group)
        batch.rows.extend(rows)
    if batch.rows:
        yield batch


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
    ids, mask = pad([row.message + row.target.tokens[:-1] for row in batch.rows], device)
    width = max(len(row.target.tokens) for row in batch.rows)
    labels = np.full((len(batch.rows), width), IGNORED, np.int64)
    for row, line in zip(batch.rows, labels, strict=True):
        line[width - len(row.target.tokens) :] = row.target.tokens
    of = torch.tensor(batch.of, device=device)
    cache, prefix_mask = prefix_cache(model, [group.prefix for group in batch.groups], device)
    prefix_mask = prefix_mask[of]
    logits = model(
        input_ids=ids,
        attention_mask=torch.cat([prefix_mask, mask], 1),
        position_ids=(prefix_mask.sum(1, keepdim=True) + mask.cumsum(1) - 1).clamp(min=0),
        past_key_values=spread(cache, of),
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
    wrong: set[int] = set()
    for (group, state), decisions in _decisions(batch, logits.shape[1]).items():
        rows, columns, tokens = (torch.tensor(values, device=logits.device) for values in zip(*decisions, strict=True))
        allowed = torch.from_numpy(batch.groups[group].automaton.allowed(state)).to(logits.device)
        best = allowed[logits[rows, columns][:, allowed].argmax(1)]
        wrong.update(rows[best != tokens].tolist())
    return len(batch.rows) - len(wrong)


def _decisions(batch: Batch, width: int) -> dict[tuple[int, int], list[tuple[int, int, int]]]:
    """(group, state) -> (row, column of the logits, right token) of each decision taken there."""
    found: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
    for i, (row, group) in enumerate(zip(batch.rows, batch.of, strict=True)):
        first = width - len(row.target.tokens)
        for position, state in zip(row.target.decisions, row.target.states, strict=True):
            found.setdefault((group, state), []).append((i, first + position, row.target.tokens[position]))
    return found
