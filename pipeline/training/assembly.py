"""Writing vectors/: the workers write the matrices they hold after the last round, the driver adds the words.

With a million words of 300 dimensions a matrix has 1.2 GB, which the driver never holds. Rows are stripped of their padding,
checked to be finite, hashed and written in one pass, a block at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import store
from pipeline.errors import DataError
from pipeline.training.lane_group import MATRICES
from w2v_core.vectors import files

CONTEXT = "context.npy"
"""The file of W_out, which a later training that continues from these vectors also needs."""
FILES = (files.MATRIX, CONTEXT)
"""The files of W_in and W_out."""


class FiniteRows:
    """The first `vector_size` columns of a matrix, read by slices of rows; implements `files.RowSource`. Raises DataError for a
    slice with non-finite numbers."""

    dtype = np.dtype(np.float32)

    def __init__(self, matrix: NDArray[np.float32], vector_size: int, name: str) -> None:
        self._matrix = matrix
        self._name = name
        self.shape = (len(matrix), vector_size)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> NDArray[np.float32]:
        found = self._matrix[rows, : self.shape[1]]
        if not np.isfinite(found).all():
            raise DataError(
                f"training ended with numbers in {self._name} that are not finite; run again with a lower train.alpha"
            )
        return found


def write_matrix(index: int, matrix: NDArray[np.float32], vector_size: int, directory: Path) -> store.Part:
    """Writes one of the two matrices into vectors/ and returns its Part; `matrix` may have padding. Raises DataError for
    non-finite numbers, and then leaves no file."""

    def write(file: Any) -> None:
        for chunk in files.npy_chunks(FiniteRows(matrix, vector_size, MATRICES[index])):
            file.write(chunk)

    return store.write_file(directory / FILES[index], write, rows=len(matrix))


def add_words(
    directory: Path, matrices: Sequence[store.Part], vector_size: int, words: Sequence[str], counts: NDArray[np.int64]
) -> list[store.Part]:
    """The parts of vectors/: the existing matrices, and the other files that `WordVectors.load` reads, written here."""
    w_in = next(part for part in matrices if part.name == files.MATRIX)
    matrix = files.Written(w_in.name, w_in.bytes, w_in.sha256)
    try:
        written = files.save_words(directory, words, matrix, vector_size, counts)
    except OSError as error:
        raise store.explain_os_error(error, directory) from error
    return [*matrices, *(store.Part(name=file.name, bytes=file.bytes, sha256=file.sha256, rows=len(words)) for file in written)]
