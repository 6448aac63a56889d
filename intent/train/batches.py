"""Pack messages after shared prefixes, and compute the loss of a training step.

The messages about one catalog share the prompt's prefix. A packed row is the prefix followed by one message after another. Each
message attends to the prefix and to itself, at the positions that it would have alone. The loss equals that of unpacked
messages. It takes a fraction of their tokens and one forward pass without a cache.

The loss is the cross-entropy of each decision among the tokens that the automaton allows there, because the decoder uses the
softmax over these tokens. So only those rows of the output layer are computed that some decision of the batch allows.
"""

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from intent.dataset.example import Example
from intent.engine import output
from intent.engine.automaton import Automaton, Target
from intent.engine.calibration import Decision
from intent.task.prompt import Prompt
from intent.task.schema import IntentSchema
from intent.train.attention import PADDING, PREFIX, layout

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

TOGETHER = 48  # the most messages after one prefix, so that rows have similar widths whatever the groups' sizes
WINDOW = 256  # batches within which groups are sorted by the lengths of their prefixes


class Row(NamedTuple):
    """Hold a message's token ids, without its separator and the forced head, and its answer."""

    message: list[int]
    target: Target


@dataclass(frozen=True)
class Group:
    """Hold all rows of one catalog, and the prefix and automaton that they share."""

    prefix: list[int]
    automaton: Automaton
    rows: list[Row]


@dataclass(frozen=True)
class Batch:
    """Hold rows of one or more groups. Row i belongs to `groups[of[i]]`."""

    groups: list[Group]
    rows: list[Row]
    of: list[int]


@dataclass(frozen=True)
class Packed:
    """Hold a batch as arrays.

    ids, positions: int64 [packed rows, width], token ids and their positions.
    owners: int64 [packed rows, width], the index of the batch's row that a token belongs to, or PREFIX or PADDING.
    start, tokens, flat_index: see `attention.Layout`; tokens and flat_index are None for a GPU's kernel.
    where: int64 [decisions], the index in the flattened ids of the token that each decision follows.
    row, slot: int64 [decisions], the batch's row and the schema's slot of each decision.
    vocabulary: int64 [allowed], the token ids that some decision allows, sorted.
    choices: int64 [decisions, widest], the allowed tokens of each decision as indices of `vocabulary`, padded with -1.
    right: int64 [decisions], the index of the right one in `choices`.
    """

    ids: np.ndarray
    positions: np.ndarray
    owners: np.ndarray
    start: int
    tokens: np.ndarray | None
    flat_index: np.ndarray | None
    where: np.ndarray
    row: np.ndarray
    slot: np.ndarray
    vocabulary: np.ndarray
    choices: np.ndarray
    right: np.ndarray


def encode(
    examples: Sequence[Example],
    catalogs: Mapping[str, Sequence[str]],
    schema: IntentSchema,
    tokenizer: "Tokenizer",
    output_format: str,
) -> list[Group]:
    """Encode examples as one group per catalog, in the order of first use. `catalogs`: products' names by the catalog's id."""
    by_catalog: dict[str, list[Example]] = {}
    for example in examples:
        by_catalog.setdefault(example.catalog, []).append(example)
    return [_group(members, catalogs[key], schema, tokenizer, output_format) for key, members in by_catalog.items()]


def _group(
    members: list[Example], names: Sequence[str], schema: IntentSchema, tokenizer: "Tokenizer", output_format: str
) -> Group:
    prompt = Prompt(schema, names)
    automaton = Automaton(schema, names, tokenizer, output_format)
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
    """Yield batches of at most `size` rows of similar lengths, from as few groups as possible.

    With a seed, rows, groups and batches are shuffled. The groups of one batch then have prefixes of similar lengths.
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
    # Without noise, a group would share its batch with the same other groups in every epoch.
    lengths = [len(group.prefix) * rng.uniform(0.8, 1.2) for group, _ in chunks]
    keys = [(end // (WINDOW * size), length) for end, length in zip(ends, lengths, strict=True)]
    filled = list(_filled([chunks[i] for i in sorted(range(len(chunks)), key=keys.__getitem__)], size))
    # All workers draw the same order, so that at each step they have batches of similar lengths and none waits for long.
    order = random.Random(seed)
    for low in range(0, len(filled), WINDOW):
        window = filled[low : low + WINDOW]
        order.shuffle(window)
        yield from window


def _filled(chunks: Sequence[tuple[Group, list[Row]]], size: int) -> Iterator[Batch]:
    """Yield batches of consecutive chunks, as many as fit into `size` rows."""
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
    """Return token sequences to calibrate a quantization: a prefix and up to `messages` messages with their answers each."""
    sequences = []
    for group in groups:
        for low in range(0, len(group.rows), messages):
            rows = group.rows[low : low + messages]
            sequences.append(group.prefix + [token for row in rows for token in row.message + row.target.tokens])
    return sequences


def micro_batches(batch: Batch, tokens: int) -> list[Batch]:
    """Cut a batch into micro-batches that pack to about `tokens` tokens each, including padding.

    Packed rows of similar widths share a micro-batch, which then needs little padding. A packed row is never cut, even if it
    has more tokens.
    """
    packs = sorted(_packs(batch), key=lambda pack: _width(batch, *pack))
    micro, lines = [Batch([], [], [])], 0
    for group, members in packs:
        if lines and (lines + 1) * _width(batch, group, members) > tokens:
            micro.append(Batch([], [], []))
            lines = 0
        lines, last = lines + 1, micro[-1]
        if not last.groups or last.groups[-1] is not group:
            last.groups.append(group)
        last.of.extend([len(last.groups) - 1] * len(members))
        last.rows.extend(batch.rows[i] for i in members)
    return micro


def _width(batch: Batch, group: Group, members: Sequence[int]) -> int:
    """Return the tokens of the packed row of these members of the batch, without padding."""
    rows = (batch.rows[i] for i in members)
    return len(group.prefix) + sum(len(row.message) + len(row.target.tokens) - 1 for row in rows)


def _packs(batch: Batch) -> list[tuple[Group, list[int]]]:
    """Return for each packed row its group and the indices of at most TOGETHER of the group's rows."""
    packs: list[tuple[Group, list[int]]] = []
    for number, group in enumerate(batch.groups):
        members = [i for i, of in enumerate(batch.of) if of == number]
        packs += [(group, members[low : low + TOGETHER]) for low in range(0, len(members), TOGETHER)]
    return packs


def pack(batch: Batch, block: int | None = None) -> Packed:
    """Pack a batch into rows of one prefix and at most TOGETHER messages.

    `block`: the tokens per block of the GPU's kernel, which the width is a multiple of. None is for a CPU. Its attention needs
    the messages of every row to begin at the same column, so shorter prefixes are padded there.
    """
    packs = _packs(batch)
    fed = [row.message + row.target.tokens[:-1] for row in batch.rows]
    start = 0 if block else max(len(group.prefix) for group, _ in packs)
    needed = max(max(start, len(group.prefix)) + sum(len(fed[i]) for i in members) for group, members in packs)
    width = -(-needed // block) * block if block else needed
    ids, positions = (np.zeros((len(packs), width), np.int64) for _ in range(2))
    owners = np.full((len(packs), width), PADDING, np.int64)
    columns = np.zeros((len(fed), 2), np.int64)  # the packed row of each message, and the column of its first token
    for line, (group, members) in enumerate(packs):
        begins = len(group.prefix)
        ids[line, :begins], positions[line, :begins], owners[line, :begins] = group.prefix, range(begins), PREFIX
        column = max(start, begins)
        for i in members:
            count = len(fed[i])
            ids[line, column : column + count] = fed[i]
            positions[line, column : column + count] = range(begins, begins + count)
            owners[line, column : column + count] = i
            columns[i] = line, column
            column += count
    # The message's last token, whose logits decide the answer's first token.
    first = columns @ (width, 1) + [len(row.message) - 1 for row in batch.rows]
    tokens, flat_index = (None, None) if block else _located(columns, [len(one) for one in fed], start, width, len(packs))
    return Packed(ids, positions, owners, start, tokens, flat_index, *_decisions(batch, first))


def _located(columns: np.ndarray, counts: Sequence[int], start: int, width: int, lines: int) -> tuple[np.ndarray, np.ndarray]:
    """Return `tokens` and `flat_index` of a Layout. `columns` [messages, 2]: packed row and column. `counts`: tokens."""
    after, longest = width - start, max(counts)
    tokens, flat_index = np.zeros((len(counts), longest), np.int64), np.zeros(lines * after, np.int64)
    for i, ((line, column), count) in enumerate(zip(columns.tolist(), counts, strict=True)):
        at = line * after + column - start
        tokens[i, :count] = range(at, at + count)
        flat_index[at : at + count] = range(i * longest, i * longest + count)
    return tokens, flat_index


def _decisions(batch: Batch, first: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return `where`, `row`, `slot`, `vocabulary`, `choices` and `right` of a Packed.

    `first` [rows]: the index in the flattened ids of each message's last token.
    """
    states: dict[tuple[int, int], int] = {}
    made = []
    for i, (row, group) in enumerate(zip(batch.rows, batch.of, strict=True)):
        for position, state, choice in zip(row.target.decisions, row.target.states, row.target.choices, strict=True):
            made.append((first[i] + position, i, states.setdefault((group, state), len(states)), choice))
    where, row, state, right = np.asarray(made, np.int64).reshape(-1, 4).T
    allowed = [batch.groups[group].automaton.allowed(state) for group, state in states]
    slots = np.asarray([batch.groups[group].automaton.slot(state) for group, state in states], np.int64)
    vocabulary = np.unique(np.concatenate(allowed)).astype(np.int64) if allowed else np.zeros(0, np.int64)
    choices = np.full((len(allowed), max(map(len, allowed), default=0)), -1, np.int64)
    for line, tokens in zip(choices, allowed, strict=True):
        line[: len(tokens)] = np.searchsorted(vocabulary, tokens)
    return where, row, slots[state], vocabulary, choices[state], right


def decision_logits(model, packed: Packed) -> "torch.Tensor":
    """Return the logits of each decision's choices, float32 [decisions, widest], padded with -inf.

    The model must have the attention implementation `attention.NAME`.
    """
    import torch

    device = next(model.parameters()).device
    ids, positions, where, vocabulary, choices = (
        torch.from_numpy(a).to(device) for a in (packed.ids, packed.positions, packed.where, packed.vocabulary, packed.choices)
    )
    # The full model would compute logits for every position and token.
    decoder = model.get_decoder()
    arranged = layout(packed, device, getattr(model.config, "sliding_window", None))
    hidden = decoder(input_ids=ids, position_ids=positions, use_cache=False, layout=arranged).last_hidden_state
    logits = output.logits(model, hidden.flatten(0, 1)[where], vocabulary)
    return logits.gather(1, choices.clamp(min=0)).masked_fill(choices < 0, float("-inf"))


def loss(model, packed: Packed) -> "torch.Tensor":
    """Return the mean cross-entropy of the decisions among their allowed tokens, a scalar in nats."""
    import torch
    from torch.nn.functional import cross_entropy

    logits = decision_logits(model, packed)
    return cross_entropy(logits, torch.from_numpy(packed.right).to(logits.device))


def decisions(model, batch: Batch, packed: Packed) -> tuple[int, dict[str, list[Decision]]]:
    """Count the rows that the constrained greedy decoder would answer exactly. Returns (count, decisions by slot name).

    The decoder answers a row exactly if and only if every decision, given the right answer before it, prefers the right token
    among the allowed ones. So one forward pass decides. The margins of a decision are its allowed tokens' logits minus the
    right one's.
    """
    import torch

    with torch.inference_mode():
        logits = decision_logits(model, packed).cpu().numpy()
    right = logits[np.arange(len(logits)), packed.right]
    wrong = np.unique(packed.row[logits.argmax(1) != packed.right])
    widths = (packed.choices >= 0).sum(1)
    automata = [batch.groups[of].automaton for of in batch.of]
    by_slot: dict[str, list[Decision]] = {}
    before = -1
    for line, best, width, row, slot in zip(logits, right, widths, packed.row.tolist(), packed.slot.tolist(), strict=True):
        # Only the first decision of a row can answer nothing.
        nothing = automata[row].nothing if row != before else -1
        before = row
        by_slot.setdefault(automata[row].schema.names[slot], []).append(Decision(line[:width] - best, nothing))
    return len(batch.rows) - len(wrong), by_slot
