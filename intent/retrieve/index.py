"""A catalog cut into shelves of like products, and the nearest products to a message.

A shelf has at most CORE products of its own and up to BORDER of its neighbours' that are much like one of them, so that
near-duplicates are seen together. Where the catalog changes, only the shelves change whose own products or neighbours do.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from intent.retrieve.cells import Cells, means, nearest
from intent.retrieve.retriever import Retriever

# docs/catalogs.md has the arithmetic of these.
CORE, BORDER = 160, 40
# Neighbours of each product that are looked at, and how alike two must be to be seen together.
NEIGHBOURS, ALIKE = 6, 0.7
# Of the graph of neighbours: links of a product, and products that are looked at.
LINKS, LOOKED_AT = 16, 64
# Products that a cut within a cell is learnt from, and the least share of them that one half may have.
SAMPLE, SLIGHT = 512, 0.02
# Products whose neighbours are found at once.
TOGETHER = 1 << 15
NAMES, MEMBERS, NEAREST = "names.parquet", "members.parquet", "nearest.faiss"


@dataclass
class Index:
    """`names`: of the products, in the catalog's order. `shelf`: int32 [products], of which each is a product of its own.

    `members`, `edges`: the numbers of the products that shelf i asks about, in order, are members[edges[i]:edges[i + 1]].
    `nearest`: a faiss index of the products' vectors.
    """

    retriever: Retriever
    names: pa.Array
    shelf: np.ndarray
    members: np.ndarray
    edges: np.ndarray
    nearest: object

    @classmethod
    def build(cls, names: Sequence[str], retriever: Retriever, core: int = CORE, border: int = BORDER) -> "Index":
        made = retriever.vectors.embed(names)
        cores = list(cut(names, made, retriever.cells, core))
        shelf = np.empty(len(names), np.int32)
        for number, inside in enumerate(cores):
            shelf[inside] = number
        index = _searchable(made)
        near = _borders(made, shelf, index, border)
        both = [np.sort(np.concatenate([inside, near.get(number, inside[:0])])) for number, inside in enumerate(cores)]
        edges = np.cumsum([0, *map(len, both)])
        return cls(retriever, pa.array(names, pa.string()), shelf, np.concatenate(both).astype(np.int32), edges, index)

    def write(self, folder: Path) -> None:
        import faiss

        self.retriever.write(folder)
        pq.write_table(pa.table({"name": self.names, "shelf": self.shelf}), folder / NAMES, write_page_checksum=True)
        sizes = np.repeat(np.arange(len(self)), np.diff(self.edges)).astype(np.int32)
        pq.write_table(pa.table({"shelf": sizes, "product": self.members}), folder / MEMBERS, write_page_checksum=True)
        faiss.write_index(self.nearest, str(folder / NEAREST))

    @classmethod
    def read(cls, folder: Path) -> "Index":
        """The index in `folder`, which must have been checked against its record. Its vectors are mapped, not copied."""
        import faiss

        named = pq.ParquetFile(folder / NAMES).read()
        members = pq.ParquetFile(folder / MEMBERS).read()
        nearest = faiss.read_index(str(folder / NEAREST), faiss.IO_FLAG_MMAP_IFC)
        counts = np.bincount(members["shelf"].to_numpy())
        rest = members["product"].to_numpy(), np.cumsum([0, *counts]), nearest
        return cls(Retriever.read(folder), named["name"].combine_chunks(), named["shelf"].to_numpy(), *rest)

    def __len__(self) -> int:
        """How many shelves there are."""
        return len(self.edges) - 1

    def catalog(self, shelf: int) -> tuple[str, ...]:
        """The names that a shelf's prompt lists, in the catalog's order."""
        return tuple(self.names.take(pa.array(self._inside(shelf))).to_pylist())

    @cached_property
    def longest_names(self) -> tuple[str, ...]:
        """Names of which one has the most tokens, most likely: what an answer needs room for."""
        lengths = pc.binary_length(self.names).to_numpy()
        return tuple(self.names.take(pa.array(np.argsort(-lengths, kind="stable")[:64])).to_pylist())

    @cached_property
    def keys(self) -> list[str]:
        """Of each shelf, a hash of the names that it asks about."""
        return [hashlib.sha256("\n".join(self.catalog(shelf)).encode()).hexdigest()[:16] for shelf in range(len(self))]

    def holds(self, shelf: int, product: int) -> bool:
        inside = self._inside(shelf)
        at = np.searchsorted(inside, product)
        return at < len(inside) and inside[at] == product

    def search(self, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """(cosines, product numbers) [queries, count] of the nearest products, best first; -1 where there are fewer."""
        return self.nearest.search(queries, count)

    def _inside(self, shelf: int) -> np.ndarray:
        return self.members[self.edges[shelf] : self.edges[shelf + 1]]


def cut(names: Sequence[str], vectors: np.ndarray, cells: Cells, most: int) -> Iterator[np.ndarray]:
    """The numbers of each shelf's own products, at most `most`, like shelves behind one another.

    A shelf is as large a branch of the tree of cells as holds no more. A cell that holds more is cut by what its own products
    are like, of which those with the lowest hashes are looked at: one that comes or goes is seldom among them.
    """
    digests = np.array([int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) for name in names], np.uint64)
    cell = cells.of(vectors)
    order = np.lexsort((digests, cell))
    edges = np.searchsorted(cell[order], np.arange(len(cells.centroids) + 1))
    counts = [*np.diff(edges)]
    for one, other in cells.joins:
        counts.append(counts[one] + counts[other])
    work = [len(counts) - 1]
    while work:
        node = work.pop()
        if counts[node] > most and node >= len(cells.centroids):
            work += reversed(cells.joins[node - len(cells.centroids)].tolist())
        elif counts[node]:
            inside = np.concatenate([order[edges[leaf] : edges[leaf + 1]] for leaf in _leaves(node, cells)])
            yield from _halved(inside, vectors, most)


def _leaves(node: int, cells: Cells) -> Iterator[int]:
    work = [node]
    while work:
        node = work.pop()
        if node < len(cells.centroids):
            yield node
        else:
            work += reversed(cells.joins[node - len(cells.centroids)].tolist())


def _halved(inside: np.ndarray, vectors: np.ndarray, most: int) -> Iterator[np.ndarray]:
    """`inside`, which lies in the order of hashes, in parts of at most `most` products."""
    work = [inside]
    while work:
        inside = work.pop()
        if len(inside) <= most:
            yield inside
            continue
        here = vectors[inside]
        beyond = nearest(here, means(here[:SAMPLE], 2)) == 1
        if not SLIGHT <= beyond.mean() <= 1 - SLIGHT:
            # As like as can be: names that only what is no word tells apart.
            beyond = np.arange(len(inside)) >= len(inside) // 2
        work += [inside[beyond], inside[~beyond]]


def _searchable(vectors: np.ndarray):
    """The faiss index of all products: a graph of neighbours (HNSW, Malkov and Yashunin, arXiv 1603.09320), in eight bits."""
    import faiss

    bits = faiss.ScalarQuantizer.QT_8bit
    index = faiss.IndexHNSWSQ(vectors.shape[1], bits, LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = index.hnsw.efSearch = LOOKED_AT
    index.train(vectors)
    for at in range(0, len(vectors), TOGETHER):
        index.add(vectors[at : at + TOGETHER])
    return index


def _borders(vectors: np.ndarray, shelf: np.ndarray, index, border: int) -> dict[int, np.ndarray]:
    """By shelf, the products of others that are most like one of its own."""
    rows = [np.zeros((0, 3))]
    for at in range(0, len(vectors), TOGETHER):
        alike, found = index.search(vectors[at : at + TOGETHER], NEIGHBOURS)
        own = np.repeat(shelf[at : at + TOGETHER, None], NEIGHBOURS, axis=1)
        other = (found >= 0) & (shelf[found] != own) & (alike >= ALIKE)
        rows.append(np.stack([own[other], found[other], alike[other]], axis=1))
    own, product, alike = np.concatenate(rows).T
    order = np.lexsort((product, -alike, own))
    near: dict[int, dict[int, None]] = {}
    for number, candidate in zip(own[order].astype(int), product[order].astype(int), strict=True):
        kept = near.setdefault(number, {})
        if len(kept) < border:
            kept[candidate] = None
    return {number: np.fromiter(kept, np.int64) for number, kept in near.items()}
