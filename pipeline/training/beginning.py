"""The initial rows of a training that continues from other vectors, as workers read them (`start` finds the vectors).

They are a function of (the other vectors, vocabulary, seed) alone. A new word's numbers are drawn by its hash, so that neither
its rank nor the other words matter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline import store
from pipeline.training.assembly import CONTEXT
from pipeline.training.policy import START_POLICY, StartPolicy
from w2v_core.kernels.initial import initial_rows
from w2v_core.sampler import stream_seed
from w2v_core.vectors import files

if TYPE_CHECKING:
    import pyarrow as pa

_SEED_PATH = 3
_HASH_BITS = 50
"""Bits of a word's hash, which gives the position of its random numbers: times `vector_size` it stays below 2⁶³."""
_ROWS_AT_ONCE = 1 << 12
"""Rows of a matrix gathered at a time: few enough to stay in the cache until they are stored."""


class Beginning:
    """The rows that training starts with, read from the parent by word, whatever their rank there."""

    def __init__(self, parent: str, vocab: Path, vector_size: int, seed: int, policy: StartPolicy = START_POLICY) -> None:
        """`parent` is the folder of the vectors; `vocab` is the table of the words to train."""
        # Few trainings continue from others, and this takes longer to import than everything else of a round.
        from w2v_core.vectors import WordVectors

        store.bring_folder(Path(parent))
        self._words = store.read_table(vocab, columns=["word"])["word"].combine_chunks()
        self._found_V = _rows_of(self._words, WordVectors.load(parent).words)
        self._sources = [_matrix_of(parent, matrix) for matrix in (0, 1)]
        self._vector_size, self._seed, self._kept_length = vector_size, seed, np.float32(policy.kept_length)

    def fill(self, matrix: int, rows_RD: NDArray[np.float32], first: int) -> None:
        """Writes rows `first` … of W_in (0) or W_out (1) to `rows_RD`, which must be zero; the division into calls does not
        change the numbers."""
        for begin in range(0, len(rows_RD), _ROWS_AT_ONCE):
            some_RD = rows_RD[begin : begin + _ROWS_AT_ONCE]
            found_R = self._found_V[first + begin :][: len(some_RD)]
            known_R = np.flatnonzero(found_R >= 0)
            if (source := self._sources[matrix]) is not None:
                some_RD[known_R, : self._vector_size] = self._kept_length * source[found_R[known_R]]
            if matrix == 0 and len(known_R) < len(found_R):
                words = self._words.slice(first + begin, len(some_RD)).to_pylist()
                fill_by_word(some_RD, words, np.flatnonzero(found_R < 0), self._vector_size, self._seed)


def _rows_of(words: pa.Array, parent_words: Sequence[str]) -> NDArray[np.int64]:
    """The parent's row of each word; −1 if it has none."""
    rows = {word: row for row, word in enumerate(parent_words)}
    return np.array([rows.get(word, -1) for word in words.to_pylist()], np.int64)


def fill_by_word(
    rows_RD: NDArray[np.float32], words: Sequence[str], chosen: NDArray[np.intp], vector_size: int, seed: int
) -> None:
    """Writes the initial W_in rows of the chosen words: a function of (seed, word) alone, distributed as in `fill_initial`."""
    rows_R = np.array([_hash_of(words[row]) for row in chosen], np.uint64)
    rows_RD[chosen, :vector_size] = initial_rows(rows_R, vector_size, stream_seed(seed, _SEED_PATH, 0))


def _hash_of(word: str) -> int:
    digest = hashlib.sha256(word.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "little") >> (64 - _HASH_BITS)


def _matrix_of(directory: str, matrix: int) -> NDArray[np.float32] | None:
    """W_in or W_out of the parent, memory-mapped; None for vectors without W_out, whose rows then start at zero."""
    path = store.fetched(Path(directory) / (files.MATRIX, CONTEXT)[matrix])
    found: NDArray[np.float32] | None = np.load(path, mmap_mode="r", allow_pickle=False) if path.exists() else None
    return found
