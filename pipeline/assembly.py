"""A checkpoint's blocks as the two matrices of vectors/, block by block: the driver never holds a matrix.

A million words of 300 numbers are 1.2 GB a matrix. Blocks are checked to be what was written, mapped, cut to their width
without padding, checked to be finite and written where they belong, in one pass: what is written before damage is found
is part of no artefact.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import store
from pipeline.errors import DamagedError, DataError
from pipeline.lanes import MATRICES
from w2v_core import vector_files

CONTEXT = "context.npy"
"""W_out: what a later training that continues from these vectors needs besides them."""


class CheckpointMatrix:
    """One matrix of a checkpoint, float32 (V, vector_size), read by slices of rows; satisfies `vector_files.Rows`.

    A file is compared with its SHA-256 before the first slice of it is read, and mapped only while a slice is copied, so
    what was read does not stay in this process's memory. Raises DamagedError for a file that is not what was written, and
    DataError for a slice with numbers that are not finite.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, checkpoint: store.Artefact, matrix: str, vector_size: int) -> None:
        parts = sorted(checkpoint.manifest.parts, key=lambda part: part.name)
        self._directory = checkpoint.directory
        self._parts = [part for part in parts if part.name == f"{matrix}.npy" or part.name.startswith(f"{matrix}-")]
        self._checked: set[str] = set()
        self._first_rows = np.cumsum([0, *(part.rows for part in self._parts)])
        self._name = matrix
        self.shape = (int(self._first_rows[-1]), vector_size)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> NDArray[np.float32]:
        first, last, _ = rows.indices(len(self))
        found = np.empty((max(0, last - first), self.shape[1]), np.float32)
        for part, begin, end in zip(self._parts, self._first_rows, self._first_rows[1:], strict=False):
            low, high = max(first, int(begin)), min(last, int(end))
            if low < high:
                found[low - first : high - first] = self._map(part)[low - begin : high - begin, : self.shape[1]]
        if not np.isfinite(found).all():
            raise DataError(
                f"training ended with numbers in {self._name} that are not finite; run again with a lower train.alpha"
            )
        return found

    def _map(self, part: store.Part) -> NDArray[np.float32]:
        if part.name not in self._checked:
            if damage := store.check_part(self._directory, part):
                raise DamagedError(f"{damage}; run again to go on from the checkpoint before", str(self._directory))
            self._checked.add(part.name)
        mapped: NDArray[np.float32] = np.load(self._directory / part.name, mmap_mode="r", allow_pickle=False)
        return mapped


def write_vectors(
    checkpoint: store.Artefact, vector_size: int, words: Sequence[str], counts: NDArray[np.int64], directory: Path
) -> list[store.Part]:
    """The parts of vectors/: what `WordVectors.load` reads, and W_out. Raises what `CheckpointMatrix` does."""
    w_in, w_out = (CheckpointMatrix(checkpoint, matrix, vector_size) for matrix in MATRICES)
    # Both at a time: most of it is hashing and waiting for the disk.
    with ThreadPoolExecutor(max_workers=1) as pool:
        context = pool.submit(_write_context, w_out, directory)
        return [*_write_w_in(w_in, words, counts, directory), context.result()]


def _write_w_in(w_in: CheckpointMatrix, words: Sequence[str], counts: NDArray[np.int64], directory: Path) -> list[store.Part]:
    try:
        written = vector_files.save(directory, words, w_in, counts)
    except OSError as error:
        raise store.explain_os_error(error, directory) from error
    return [store.Part(name=file.path.name, bytes=file.bytes, sha256=file.sha256, rows=len(w_in)) for file in written]


def _write_context(w_out: CheckpointMatrix, directory: Path) -> store.Part:
    def write(file: Any) -> None:
        for chunk in vector_files.npy_chunks(w_out):
            file.write(chunk)

    return store.write_file(directory / CONTEXT, write, rows=len(w_out))
