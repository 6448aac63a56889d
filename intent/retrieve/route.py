"""From a message to the one or two shelves that it is asked about, or to none.

A message is looked up whole and by its parts: runs of words that say something, between those that say little. So a product is
found in a long story, and of "not the tea, the coffee" both are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from intent.retrieve.index import Index
from intent.retrieve.vectors import PIECE

NOWHERE = -1
# Products that are looked at for each part of a message.
NEAREST = 12
# A second shelf is asked where its best product is this much less like the message than the first one's, or less.
MARGIN = 0.15
# A message is asked about nothing where no product is as like it as this.
NOTHING = 0.4


@dataclass(frozen=True)
class Asks:
    """What is to be asked: message `rows[i]` about shelf `shelves[i]`, or about NOWHERE. `first`: of the message's shelves.

    Each message has one or two, which follow one another.
    """

    rows: np.ndarray
    shelves: np.ndarray
    first: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)


def route(index: Index, messages: Sequence[str], margin: float = MARGIN, nothing: float | None = NOTHING) -> Asks:
    """The asks of `messages`, each of which is decided by the message alone. `nothing` None: each is asked about some shelf."""
    pieces = [_route(index, messages[at : at + PIECE], margin, nothing) for at in range(0, len(messages), PIECE)]
    rows = [piece.rows + number * PIECE for number, piece in enumerate(pieces)]
    empty = np.zeros(0, np.int64)
    whole = [(rows, empty), ([p.shelves for p in pieces], empty), ([p.first for p in pieces], empty.astype(bool))]
    return Asks(*(np.concatenate([*parts, none]) for parts, none in whole))


def _route(index: Index, messages: Sequence[str], margin: float, nothing: float | None) -> Asks:
    queries, weights, owners = index.retriever.vectors.parts(messages)
    alike, found = index.search(queries, min(NEAREST, len(index.names)))
    scores = np.where(found >= 0, alike * weights[:, None], -1.0).ravel()
    shelves = index.shelf[found].ravel()
    rows = np.repeat(owners, found.shape[1])
    order = np.lexsort((shelves, -scores, rows))
    rows, shelves, scores, products = rows[order], shelves[order], scores[order], found.ravel()[order]
    best = np.full(len(messages), NOWHERE, np.int64)
    height = np.full(len(messages), -1.0)
    firsts = np.flatnonzero(np.diff(rows, prepend=-1))
    best[rows[firsts]], height[rows[firsts]] = shelves[firsts], scores[firsts]
    if nothing is None:
        best[best == NOWHERE] = 0
    else:
        best[height < nothing] = NOWHERE
    other = (best[rows] != NOWHERE) & (shelves != best[rows]) & (scores >= height[rows] - margin)
    # What the first shelf borrows, it is asked about already.
    other[other] = [not index.holds(best[row], product) for row, product in zip(rows[other], products[other], strict=True)]
    rows, shelves = rows[other], shelves[other]
    seconds = np.flatnonzero(np.diff(rows, prepend=-1))
    every = np.arange(len(messages))
    both = np.concatenate([every, rows[seconds]]), np.concatenate([best, shelves[seconds].astype(np.int64)])
    first = np.arange(len(both[0])) < len(messages)
    order = np.lexsort((~first, both[0]))
    return Asks(both[0][order], both[1][order], first[order])
