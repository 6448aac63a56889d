"""Store the learned part of retrieval, which serves every catalog: the word vectors and the cells of their space."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from intent.retrieve.cells import Cells
from intent.retrieve.vectors import Vectors

FILE = "retriever.safetensors"
SHIPPED = Path(__file__).parent / "shipped"


@dataclass(frozen=True)
class Retriever:
    """Hold the vectors and their cells. They are written to one safetensors file."""

    vectors: Vectors
    cells: Cells

    def write(self, folder: Path) -> None:
        """Write the file FILE to an existing folder."""
        from safetensors.numpy import save_file

        arrays = {"table": self.vectors.table, "scales": self.vectors.scales}
        arrays |= {"centroids": self.cells.centroids, "joins": self.cells.joins}
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, str(folder / FILE))

    @classmethod
    def read(cls, folder: Path) -> "Retriever":
        """Read the file FILE in `folder`."""
        from safetensors.numpy import load_file

        arrays = load_file(str(folder / FILE))
        return cls(Vectors(arrays["table"], arrays["scales"]), Cells(arrays["centroids"], arrays["joins"]))
