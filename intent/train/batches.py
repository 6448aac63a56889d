"""Messages behind shared prefixes: what a training step computes.

The messages about one catalog share the prompt's prefix: a packed row is the prefix once and then message after message,
each of which sees the prefix and itself, at the positions it would have alone. The loss is the unpacked one's, at a
fraction of its tokens, in one forward pass without a cache.
"""

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from intent.engine.decode import Automaton, Target
from intent.prompt import Prompt
from intent.schema import IntentSchema
from intent.synth.example import Example
from intent.train.attention import PADDING, PREFIX, layout

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

TOGETHER = 48  # messages behind one prefix: rows of like width, whatever the groups' sizes
WINDOW = 16  # batches whose groups are brought into the order of their prefixes' lengths


class Row(NamedTuple):
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


@dataclass(frozen=True)
class Packed:
    """Arrays [packed rows, width] of token ids, positions and owners (PREFIX, PADDING or the number of the batch's row),
    what `attention.Layout` says of them, and, by row of the batch, where in the flattened ids the logits of its answer's
    tokens come.
    """

    ids: np.ndarray
    positions: np.ndarray
    owners: np.ndarray
    start: int
    tokens: np.ndarray
    places: np.ndarray
    answers: list[range]


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
    targets: dict[tuple, Target] = {}
    rows = []
    for message, example in zip(messages, members, strict=True):
        answer = tuple(schema.values(example.intent))
        if answer not in targets:
            targets[answer] = automaton.target(example.intent)
        rows.append(Row(message, targets[answer]))
    return Group(prompt.prefix_ids(tokenizer), automaton, rows)


def batches(groups: Sequence[Group], size: int, seed: int | None = None) -> Iterator[Batch]:
    """Batches of about `size` rows of like length, of as few groups as that takes; in a random order given a seed.

    Then groups of one batch have prefixes of like length, among those of a window of batches.
    """
    rng = random.Random(seed)
    shuffle = rng.shuffle if seed is not None else lambda items: None
    chunks: list[tuple[Group, list[Row]]] = []
    for group in groups:
        rows = list(group.rows)
        shuffle(rows)
        for low in range(0, len(rows), 8 * size):
            window = sorted(rows[low : low + 8 * size], key=lambda row: len(row.message) + len(row.target.tokens))
            chunks += [(group, window[i : i + size]) for i in range(0, len(window), size)]
    shuffle(chunks)
    if seed is None or len(groups) == 1:
        yield from _filled(chunks, size)
        return
    ends = itertools.accumulate(len(rows) for _, rows in chunks)
    # About the same length: a few groups would else meet the same others in every epoch.
    lengths = [len(group.prefix) * rng.uniform(0.8, 1.2) for group, _ in chunks]
    keys = [(end // (WINDOW * size), length) for end, length in zip(ends, lengths, strict=True)]
    found = list(_filled([chunks[i] for i in sorted(range(len(chunks)), key=keys.__getitem__)], size))
    for low in range(0, len(found), WINDOW):
        window = found[low : low + WINDOW]
        shuffle(window)
        yield from window


def _filled(chunks: Sequence[tuple[Group, list[Row]]], size: int) -> Iterator[Batch]:
    """One chunk after the other, as many to a batch as fit into `size` rows."""
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


def pack(batch: Batch, multiple: int = 1) -> Packed:
    """The batch as rows of one prefix each and up to TOGETHER messages behind it; a group of more has several.

    Rows are as wide as a multiple of `multiple`.
    """
    packs: list[tuple[Group, list[int]]] = []
    for number, group in enumerate(batch.groups):
        members = [i for i, of in enumerate(batch.of) if of == number]
        packs += [(group, members[low : low + TOGETHER]) for low in range(0, len(members), TOGETHER)]
    fed = [row.message + row.target.tokens[:-1] for row in batch.rows]
    start = max(len(group.prefix) for group, _ in packs)
    needed = start + max(sum(len(fed[i]) for i in members) for _, members in packs)
    width, longest = -(-needed // multiple) * multiple, max(map(len, fed))
    behind = width - start
    ids, positions = (np.zeros((len(packs), width), np.int64) for _ in range(2))
    owners = np.full((len(packs), width), PADDING, np.int64)
    tokens, places = np.zeros((len(fed), longest), np.int64), np.zeros(len(packs) * behind, np.int64)
    answers = [range(0)] * len(fed)
    for line, (group, members) in enumerate(packs):
        begins = len(group.prefix)
        ids[line, :begins], positions[line, :begins], owners[line, :begins] = group.prefix, range(begins), PREFIX
        column = start
        for i in members:
            count, first = len(fed[i]), line * behind + column - start
            ids[line, column : column + count] = fed[i]
            positions[line, column : column + count] = range(begins, begins + count)
            owners[line, column : column + count] = i
            tokens[i, :count] = range(first, first + count)
            places[first : first + count] = range(i * longest, i * longest + count)
            stop = line * width + column + count
            answers[i] = range(stop - len(batch.rows[i].target.tokens), stop)
            column += count
    return Packed(ids, positions, owners, start, tokens, places, answers)


def answer_logits(model, packed: Packed) -> tuple["torch.Tensor", list[int]]:
    """(logits [answer tokens, vocabulary] of all rows, one after the other, and where each row's begin).

    The model's attention is `attention.NAME`.
    """
    import torch

    device = next(model.parameters()).device
    ids, positions = torch.from_numpy(packed.ids).to(device), torch.from_numpy(packed.positions).to(device)
    # The decoder alone: logits of what is no answer are never computed.
    decoder = model.get_decoder()
    hidden = decoder(input_ids=ids, position_ids=positions, use_cache=False, layout=layout(packed, device)).last_hidden_state
    where = torch.tensor([column for columns in packed.answers for column in columns], device=device)
    logits = model.get_output_embeddings()(hidden.flatten(0, 1)[where])
    return logits, np.cumsum([0, *(len(columns) for columns in packed.answers)])[:-1].tolist()


def loss(model, batch: Batch, packed: Packed) -> "torch.Tensor":
    """Mean cross-entropy over the answers' tokens."""
    import torch
    from torch.nn.functional import cross_entropy

    logits, _ = answer_logits(model, packed)
    labels = torch.tensor([token for row in batch.rows for token in row.target.tokens], device=logits.device)
    return cross_entropy(logits.float(), labels)


def decisions(model, batch: Batch, packed: Packed) -> tuple[int, dict[int, list[np.ndarray]]]:
    """How many rows the constrained greedy decoder would answer exactly, and, by slot, each decision's `margins`.

    It answers so if and only if every decision, with the right answer up to it, prefers the right token among the allowed
    ones; so one forward pass tells. Margins are the allowed tokens' logits minus the right one's.
    """
    import torch

    with torch.inference_mode():
        logits, first = answer_logits(model, packed)
    wrong: set[int] = set()
    margins: dict[int, list[np.ndarray]] = {}
    for (group, state), taken in _decisions(batch, first).items():
        rows, at, tokens = (torch.tensor(values, device=logits.device) for values in zip(*taken, strict=True))
        automaton = batch.groups[group].automaton
        allowed = torch.from_numpy(automaton.allowed(state)).to(logits.device)
        among = logits[at][:, allowed].float()
        wrong.update(rows[allowed[among.argmax(1)] != tokens].tolist())
        right = (allowed == tokens[:, None]).int().argmax(1, keepdim=True)
        margins.setdefault(automaton.slot(state), []).extend((among - among.gather(1, right)).cpu().numpy())
    return len(batch.rows) - len(wrong), margins


def _decisions(batch: Batch, first: Sequence[int]) -> dict[tuple[int, int], list[tuple[int, int, int]]]:
    """(group, state) -> (row, where its logits are, right token) of each decision taken there."""
    found: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
    for i, (row, group) in enumerate(zip(batch.rows, batch.of, strict=True)):
        for position, state in zip(row.target.decisions, row.target.states, strict=True):
            found.setdefault((group, state), []).append((i, first[i] + position, row.target.tokens[position]))
    return found
