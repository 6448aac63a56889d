"""Learn the vectors from pairs of a message and a product's name.

The loss is InfoNCE (van den Oord et al., arXiv 1807.03748) in both directions: it moves a message toward its product's name and
away from the other names of the batch. Training takes minutes on CPUs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from intent.retrieve.cells import Cells
from intent.retrieve.retriever import Retriever
from intent.retrieve.vectors import Vectors, grams, words


@dataclass(frozen=True)
class Recipe:
    """Set the training parameters.

    `buckets`, `width`: the shape of the table of n-gram vectors. `cells`: the number of k-means cells. `batch`: pairs per step.
    `learning_rate`: the maximum of a one-cycle schedule. `temperature`: of the softmax over a batch.
    """

    buckets: int = 114_000
    width: int = 64
    cells: int = 2048
    epochs: int = 2
    batch: int = 2048
    learning_rate: float = 2e-2
    temperature: float = 0.06
    seed: int = 7


def learn(
    pairs: Sequence[tuple[str, str]], recipe: Recipe = Recipe(), tell: Callable[[int, int, float], None] | None = None
) -> Retriever:
    """Learn a retriever from pairs (message, product's name). Leaves out the last incomplete batch of each epoch.

    `tell`: called after each step with the step, the total number of steps and the loss.
    """
    import torch
    from torch.nn.functional import cross_entropy, embedding_bag, normalize

    generator = np.random.default_rng(recipe.seed)
    torch.manual_seed(recipe.seed)
    table = torch.nn.Parameter(torch.randn(recipe.buckets, recipe.width) * 0.1)
    optimizer = torch.optim.Adam([table], lr=recipe.learning_rate, betas=(0.9, 0.99))
    steps = recipe.epochs * (len(pairs) // recipe.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=max(1, steps), pct_start=0.1)
    bags = _Bags(recipe.buckets)
    messages, names = (bags.of([pair[side] for pair in pairs]) for side in (0, 1))
    numbers: dict[str, int] = {}
    which = torch.tensor([numbers.setdefault(name, len(numbers)) for _, name in pairs])

    def embed(side: "_Packed", rows: np.ndarray) -> torch.Tensor:
        ids, offsets, weights = (torch.from_numpy(part) for part in side.take(rows))
        return normalize(embedding_bag(ids, table, offsets, mode="sum", per_sample_weights=weights))

    done = 0
    for _ in range(recipe.epochs):
        order = generator.permutation(len(pairs))
        for at in range(0, len(pairs) - recipe.batch + 1, recipe.batch):
            rows = order[at : at + recipe.batch]
            scores = embed(messages, rows) @ embed(names, rows).T / recipe.temperature
            # Another pair with the same name is not a negative.
            same = which[rows][:, None] == which[rows][None, :]
            scores = scores.masked_fill(same & ~torch.eye(len(rows), dtype=torch.bool), -1e4)
            target = torch.arange(len(rows))
            loss = (cross_entropy(scores, target) + cross_entropy(scores.T, target)) / 2
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            done += 1
            if tell:
                tell(done, steps, loss.item())
    vectors = Vectors.of(_scaled(table.detach().numpy(), list(numbers)))
    return Retriever(vectors, Cells.grow(vectors.embed(list(numbers)), min(recipe.cells, len(numbers))))


def _scaled(table: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Scale the table so that the vectors of the words of `names` have a mean length of 1."""
    return table / Vectors.of(table).word_lengths(names).mean()


@dataclass(frozen=True)
class _Packed:
    """Hold the n-grams of texts in flat arrays: `ids` and `weights` [n-grams].

    `edges` [texts + 1]: text i has the n-grams edges[i] to edges[i + 1].
    """

    ids: np.ndarray
    weights: np.ndarray
    edges: np.ndarray

    def take(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (ids, offsets, weights) of the texts `rows`, as `embedding_bag` takes them."""
        counts = self.edges[rows + 1] - self.edges[rows]
        offsets = np.cumsum(counts) - counts
        indices = np.arange(counts.sum()) + np.repeat(self.edges[rows] - offsets, counts)
        return self.ids[indices].astype(np.int64), offsets, self.weights[indices]


class _Bags:
    """Turn texts into bags of n-grams. The weights of a word's n-grams add up to 1, so that long words do not count more."""

    def __init__(self, buckets: int):
        self.buckets, self.bag_of = buckets, {}

    def of(self, texts: Sequence[str]) -> _Packed:
        ids, weights, edges = [], [], [0]
        for text in texts:
            for word in words(text):
                if word not in self.bag_of:
                    ngrams = np.fromiter(grams(word, self.buckets), np.int32)
                    self.bag_of[word] = (ngrams, np.full(len(ngrams), 1 / len(ngrams), np.float32))
                ngrams, weight = self.bag_of[word]
                ids.append(ngrams)
                weights.append(weight)
            edges.append(len(ids))
        lengths = np.cumsum([0, *map(len, ids)])
        return _Packed(np.concatenate(ids), np.concatenate(weights), lengths[np.asarray(edges)])
