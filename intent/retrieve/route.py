"""Select the shelves that a message is asked about: one, two or none.

The whole message and each of its parts are searched. A part is a run of content words. So a product is found in a long story,
and "not the tea, the coffee" finds both products.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from intent.retrieve.index import Index
from intent.retrieve.vectors import BATCH

NOWHERE = -1
# The number of products to find for each part of a message.
NEAREST = 12
# A second shelf is asked if its best score is at most this much lower than the first shelf's.
MARGIN = 0.21
# A message whose best score is lower is asked about nothing.
NOTHING = 0.4


@dataclass(frozen=True)
class Asks:
    """List the questions: message `rows[i]` is asked about shelf `shelves[i]`, or about nothing if that is NOWHERE.

    `rows`, `shelves`: int64 [asks]. `first`: bool [asks], whether it is the message's best shelf. A message has one or two
    asks, which follow one another.
    """

    rows: np.ndarray
    shelves: np.ndarray
    first: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)


def route(index: Index, messages: Sequence[str], margin: float = MARGIN, nothing: float | None = NOTHING) -> Asks:
    """Select the shelves for each message. They depend on the message alone, not on the others.

    `margin`: the most that a second shelf's score may be lower than the first's. `nothing`: the score below which a message is
    asked about nothing; None asks every message about some shelf. A score is a cosine weighted as in `Vectors.parts`.
    """
    batches = [_route(index, messages[at : at + BATCH], margin, nothing) for at in range(0, len(messages), BATCH)]
    rows = [asks.rows + number * BATCH for number, asks in enumerate(batches)]
    empty = np.zeros(0, np.int64)
    columns = [(rows, empty), ([a.shelves for a in batches], empty), ([a.first for a in batches], empty.astype(bool))]
    return Asks(*(np.concatenate([*parts, none]) for parts, none in columns))


def _route(index: Index, messages: Sequence[str], margin: float, nothing: float | None) -> Asks:
    queries, weights, owners = index.retriever.vectors.parts(messages)
    cosines, nearest = index.search(queries, min(NEAREST, len(index.names)))
    scores = np.where(nearest >= 0, cosines * weights[:, None], -1.0).ravel()
    shelves = index.shelf[nearest].ravel()
    rows = np.repeat(owners, nearest.shape[1])
    order = np.lexsort((shelves, -scores, rows))
    rows, shelves, scores, products = rows[order], shelves[order], scores[order], nearest.ravel()[order]
    best = np.full(len(messages), NOWHERE, np.int64)
    best_score = np.full(len(messages), -1.0)
    firsts = np.flatnonzero(np.diff(rows, prepend=-1))
    best[rows[firsts]], best_score[rows[firsts]] = shelves[firsts], scores[firsts]
    if nothing is None:
        best[best == NOWHERE] = 0
    else:
        best[best_score < nothing] = NOWHERE
    other = (best[rows] != NOWHERE) & (shelves != best[rows]) & (scores >= best_score[rows] - margin)
    # The first shelf's prompt already lists the products that it borrows.
    other[other] = [not index.holds(best[row], product) for row, product in zip(rows[other], products[other], strict=True)]
    rows, shelves = rows[other], shelves[other]
    seconds = np.flatnonzero(np.diff(rows, prepend=-1))
    every = np.arange(len(messages))
    both = np.concatenate([every, rows[seconds]]), np.concatenate([best, shelves[seconds].astype(np.int64)])
    first = np.arange(len(both[0])) < len(messages)
    order = np.lexsort((~first, both[0]))
    return Asks(both[0][order], both[1][order], first[order])
