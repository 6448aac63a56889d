"""The space of vectors cut into cells of like things, and a tree of the cells, the same for every catalog.

They belong to the vectors. So the cell of a product is decided by the product alone: another one that comes or goes moves none.
"""

from dataclasses import dataclass

import numpy as np

ROUNDS, SEED = 20, 7


@dataclass(frozen=True)
class Cells:
    """`centroids`: float16 [cells, width]. `joins`: int32 [cells - 1, 2]; node `cells + i` of the tree joins those of row i.

    Nodes below `cells` are the cells themselves.
    """

    centroids: np.ndarray
    joins: np.ndarray

    @classmethod
    def grow(cls, vectors: np.ndarray, cells: int) -> "Cells":
        """By k-means of float32 `vectors` [n, width], joined by Ward's method."""
        from scipy.cluster.hierarchy import linkage

        centroids = means(vectors, cells)
        return cls(centroids.astype(np.float16), linkage(centroids, "ward")[:, :2].astype(np.int32))

    def of(self, vectors: np.ndarray) -> np.ndarray:
        """int64 [n]: each vector's cell."""
        return nearest(vectors, self.centroids.astype(np.float32))


def means(vectors: np.ndarray, count: int) -> np.ndarray:
    """float32 [count, width]: the centroids of a spherical k-means."""
    import faiss

    settings = {"niter": ROUNDS, "seed": SEED, "spherical": True, "min_points_per_centroid": 1}
    clustering = faiss.Kmeans(vectors.shape[1], count, **settings)
    clustering.train(np.ascontiguousarray(vectors))
    return clustering.centroids


def nearest(vectors: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """int64 [n]: which of the centroids is most like each vector."""
    import faiss

    index = faiss.IndexFlatIP(centroids.shape[1])
    index.add(centroids)
    return index.search(np.ascontiguousarray(vectors), 1)[1][:, 0]
