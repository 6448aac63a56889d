"""What is learnt once and serves every catalog: the vectors of words and the cells of their space, in one file."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from intent.retrieve.cells import Cells
from intent.retrieve.vectors import Vectors

FILE = "retriever.safetensors"
SHIPPED = Path(__file__).parent / "shipped"


@dataclass(frozen=True)
class Retriever:
    vectors: Vectors
    cells: Cells

    def write(self, folder: Path) -> None:
        from safetensors.numpy import save_file

        numbers = {"table": self.vectors.table, "scales": self.vectors.scales}
        numbers |= {"centroids": self.cells.centroids, "joins": self.cells.joins}
        save_file({name: np.ascontiguousarray(array) for name, array in numbers.items()}, str(folder / FILE))

    @classmethod
    def read(cls, folder: Path) -> "Retriever":
        from safetensors.numpy import load_file

        numbers = load_file(str(folder / FILE))
        return cls(Vectors(numbers["table"], numbers["scales"]), Cells(numbers["centroids"], numbers["joins"]))
