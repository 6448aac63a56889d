"""Cut a catalog into shelves of similar products, and search the products nearest to a message.

A shelf has at most CORE products of its own. It also borrows up to BORDER products of neighboring shelves that are very similar
to one of its own, so that one prompt lists near-duplicates together. If the catalog changes, only those shelves change whose
own or borrowed products change.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from intent.retrieve.cells import Cells, means, nearest
from intent.retrieve.retriever import Retriever

if TYPE_CHECKING:
    import faiss

# docs/benchmarks.md, "Tokens and time", derives these from the cost of prompts.
CORE, BORDER = 160, 40
# A shelf can borrow from the NEIGHBORS nearest products of each of its own, if their cosine is at least SIMILAR.
NEIGHBORS, SIMILAR = 6, 0.7
# HNSW's M (links per product) and ef (size of the candidate list).
LINKS, CANDIDATES = 16, 64
# A cell is split by the k-means of SAMPLE products. A half with a smaller share than LEAST_SHARE is not a useful split.
SAMPLE, LEAST_SHARE = 512, 0.02
# Products that are added or searched in one call, which bounds the memory.
BATCH = 1 << 15
NAMES, MEMBERS, NEAREST = "names.parquet", "members.parquet", "nearest.faiss"


@dataclass
class Index:
    """Hold a catalog's shelves and the search index of its products.

    `names` [products]: in the catalog's order; a product's number is its index here. `shelf`: int32 [products], the shelf that
    each product belongs to. `members`, `edges`: members[edges[i]:edges[i + 1]] are the numbers of shelf i's own and borrowed
    products, in order. `nearest`: a faiss index of the products' vectors.
    """

    retriever: Retriever
    names: pa.Array
    shelf: np.ndarray
    members: np.ndarray
    edges: np.ndarray
    nearest: "faiss.Index"

    @classmethod
    def build(cls, names: Sequence[str], retriever: Retriever, core: int = CORE, border: int = BORDER) -> "Index":
        """Build the index. A shelf gets at most `core` products of its own and borrows at most `border`."""
        vectors = retriever.vectors.embed(names)
        cores = list(cut(names, vectors, retriever.cells, core))
        shelf = np.empty(len(names), np.int32)
        for number, own in enumerate(cores):
            shelf[own] = number
        index = _search_index(vectors)
        borders = _borders(vectors, shelf, index, border)
        members = [np.sort(np.concatenate([own, borders.get(number, own[:0])])) for number, own in enumerate(cores)]
        edges = np.cumsum([0, *map(len, members)])
        return cls(retriever, pa.array(names, pa.string()), shelf, np.concatenate(members).astype(np.int32), edges, index)

    def write(self, folder: Path) -> None:
        """Write the index and its retriever to an existing folder."""
        import faiss

        self.retriever.write(folder)
        pq.write_table(pa.table({"name": self.names, "shelf": self.shelf}), folder / NAMES, write_page_checksum=True)
        shelves = np.repeat(np.arange(len(self)), np.diff(self.edges)).astype(np.int32)
        pq.write_table(pa.table({"shelf": shelves, "product": self.members}), folder / MEMBERS, write_page_checksum=True)
        faiss.write_index(self.nearest, str(folder / NEAREST))

    @classmethod
    def read(cls, folder: Path) -> "Index":
        """Read the index in `folder`, which must have been checked against its record. The vectors stay memory-mapped."""
        import faiss

        products = pq.ParquetFile(folder / NAMES).read()
        members = pq.ParquetFile(folder / MEMBERS).read()
        nearest = faiss.read_index(str(folder / NEAREST), faiss.IO_FLAG_MMAP_IFC)
        counts = np.bincount(members["shelf"].to_numpy())
        rest = members["product"].to_numpy(), np.cumsum([0, *counts]), nearest
        return cls(Retriever.read(folder), products["name"].combine_chunks(), products["shelf"].to_numpy(), *rest)

    def __len__(self) -> int:
        """Return the number of shelves."""
        return len(self.edges) - 1

    def catalog(self, shelf: int) -> tuple[str, ...]:
        """Return the names that a shelf's prompt lists, in the catalog's order."""
        return tuple(self.names.take(pa.array(self._inside(shelf))).to_pylist())

    @cached_property
    def longest_names(self) -> tuple[str, ...]:
        """Return the 64 names with the most bytes. Very likely, one of them has the most tokens, which an answer must fit."""
        lengths = pc.binary_length(self.names).to_numpy()
        return tuple(self.names.take(pa.array(np.argsort(-lengths, kind="stable")[:64])).to_pylist())

    @cached_property
    def keys(self) -> list[str]:
        """Return for each shelf a hash of the names that its prompt lists."""
        return [hashlib.sha256("\n".join(self.catalog(shelf)).encode()).hexdigest()[:16] for shelf in range(len(self))]

    def holds(self, shelf: int, product: int) -> bool:
        """Return whether the product is one of the shelf's own or borrowed products."""
        members = self._inside(shelf)
        at = np.searchsorted(members, product)
        return bool(at < len(members) and members[at] == product)

    def search(self, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Find the nearest products, best first. Returns (cosines, product numbers), each [queries, count].

        `queries`: float32 [queries, width], of length 1. A number is -1 if fewer products were found.
        """
        return self.nearest.search(queries, count)

    def _inside(self, shelf: int) -> np.ndarray:
        return self.members[self.edges[shelf] : self.edges[shelf + 1]]


def cut(names: Sequence[str], vectors: np.ndarray, cells: Cells, most: int) -> Iterator[np.ndarray]:
    """Yield the numbers of each shelf's own products, at most `most`. Similar shelves follow one another.

    A shelf is the largest subtree of cells with at most `most` products. A cell with more products is split by k-means of those
    products whose names have the lowest hashes. An added or removed product is seldom among them, so the split seldom changes.
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
            products = np.concatenate([order[edges[leaf] : edges[leaf + 1]] for leaf in _leaves(node, cells)])
            yield from _split(products, vectors, most)


def _leaves(node: int, cells: Cells) -> Iterator[int]:
    work = [node]
    while work:
        node = work.pop()
        if node < len(cells.centroids):
            yield node
        else:
            work += reversed(cells.joins[node - len(cells.centroids)].tolist())


def _split(products: np.ndarray, vectors: np.ndarray, most: int) -> Iterator[np.ndarray]:
    """Split `products`, which are in the order of their hashes, into parts of at most `most`."""
    work = [products]
    while work:
        part = work.pop()
        if len(part) <= most:
            yield part
            continue
        embedded = vectors[part]
        upper = nearest(embedded, means(embedded[:SAMPLE], 2)) == 1
        if not LEAST_SHARE <= upper.mean() <= 1 - LEAST_SHARE:
            # The vectors are nearly equal, e.g. of names that differ in punctuation only.
            upper = np.arange(len(part)) >= len(part) // 2
        work += [part[upper], part[~upper]]


def _search_index(vectors: np.ndarray) -> "faiss.IndexHNSWSQ":
    """Build a faiss HNSW index (Malkov and Yashunin, arXiv 1603.09320) of all products, with eight bits per dimension."""
    import faiss

    bits = faiss.ScalarQuantizer.QT_8bit
    # faiss's own stub declares the kind of quantizer as a ScalarQuantizer, and the constructor takes only the number.
    index = faiss.IndexHNSWSQ(vectors.shape[1], bits, LINKS, faiss.METRIC_INNER_PRODUCT)  # type: ignore[arg-type]
    index.hnsw.efConstruction = index.hnsw.efSearch = CANDIDATES
    index.train(vectors)
    for at in range(0, len(vectors), BATCH):
        index.add(vectors[at : at + BATCH])
    return index


def _borders(vectors: np.ndarray, shelf: np.ndarray, index: "faiss.Index", border: int) -> dict[int, np.ndarray]:
    """Select for each shelf at most `border` products of other shelves, those most similar to one of its own."""
    rows = [np.zeros((0, 3))]
    for at in range(0, len(vectors), BATCH):
        cosines, neighbors = index.search(vectors[at : at + BATCH], NEIGHBORS)
        own = np.repeat(shelf[at : at + BATCH, None], NEIGHBORS, axis=1)
        other = (neighbors >= 0) & (shelf[neighbors] != own) & (cosines >= SIMILAR)
        rows.append(np.stack([own[other], neighbors[other], cosines[other]], axis=1))
    own, product, cosine = np.concatenate(rows).T
    order = np.lexsort((product, -cosine, own))
    borders: dict[int, dict[int, None]] = {}
    for number, candidate in zip(own[order].astype(int), product[order].astype(int), strict=True):
        members = borders.setdefault(number, {})
        if len(members) < border:
            members[candidate] = None
    return {number: np.fromiter(members, np.int64) for number, members in borders.items()}
