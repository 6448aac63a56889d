"""Cluster the vector space into cells, and the cells into a binary tree.

The cells are learned with the vectors and are the same for every catalog. So a product's cell depends on its name alone: adding
or removing another product does not move it.
"""

from dataclasses import dataclass

import numpy as np

ROUNDS, SEED = 20, 7


@dataclass(frozen=True)
class Cells:
    """Hold the cells and their tree.

    `centroids`: float16 [cells, width]. `joins`: int32 [cells - 1, 2], the children of each inner node of the tree. Nodes below
    `cells` are the cells themselves, and node `cells + i` has the children `joins[i]`.
    """

    centroids: np.ndarray
    joins: np.ndarray

    @classmethod
    def grow(cls, vectors: np.ndarray, cells: int) -> "Cells":
        """Cluster float32 `vectors` [n, width] with spherical k-means, and the centroids with Ward's method (Ward, 1963)."""
        from scipy.cluster.hierarchy import linkage

        centroids = means(vectors, cells)
        return cls(centroids.astype(np.float16), linkage(centroids, "ward")[:, :2].astype(np.int32))

    def of(self, vectors: np.ndarray) -> np.ndarray:
        """Return each vector's cell, int64 [n]."""
        return nearest(vectors, self.centroids.astype(np.float32))


def means(vectors: np.ndarray, count: int) -> np.ndarray:
    """Run spherical k-means. Returns the centroids, float32 [count, width]."""
    import faiss

    settings = {"niter": ROUNDS, "seed": SEED, "spherical": True, "min_points_per_centroid": 1}
    clustering = faiss.Kmeans(vectors.shape[1], count, **settings)
    clustering.train(np.ascontiguousarray(vectors))
    assert clustering.centroids is not None, "training sets the centroids"
    return clustering.centroids


def nearest(vectors: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Return the index of the centroid with the largest inner product with each vector, int64 [n]."""
    import faiss

    index = faiss.IndexFlatIP(centroids.shape[1])
    index.add(centroids)
    return index.search(np.ascontiguousarray(vectors), 1)[1][:, 0]
