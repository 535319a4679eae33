"""The parameters of a training run: how their rows lie in memory, and their initial values."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from w2v_core.contract import FloatRows
from w2v_core.sampler import mix64

ROW_FLOATS = 8
"""Rows are padded to whole vectors of 8 float32, one AVX register; 16 would cost 8 % more arithmetic at D = 100 and save no
cache line."""
ALIGNMENT_BYTES = 64


def padded_size(vector_size: int) -> int:
    """Floats from one row to the next: vector_size rounded up to whole vectors. Raises ValueError below 1."""
    if vector_size < 1:
        raise ValueError(f"expected vector_size >= 1, found {vector_size}")
    return -(-vector_size // ROW_FLOATS) * ROW_FLOATS


def allocate_parameters(vocab_size: int, vector_size: int) -> tuple[FloatRows, FloatRows]:
    """(w_in_VD, w_out_VD), both zero, C-contiguous and aligned to cache lines."""
    return aligned_zeros(vocab_size, padded_size(vector_size)), aligned_zeros(vocab_size, padded_size(vector_size))


def initial_parameters(vocab_size: int, vector_size: int, seed: int) -> tuple[FloatRows, FloatRows]:
    """(w_in_VD, w_out_VD): W_in uniform in [−½, ½)/D, W_out zero, as in word2vec.c.

    Value (v, d) is a function of (seed, v, d, vector_size) alone.
    """
    w_in_VD, w_out_VD = allocate_parameters(vocab_size, vector_size)
    fill_initial(w_in_VD, 0, vector_size, seed)
    return w_in_VD, w_out_VD


def fill_initial(w_in_RD: FloatRows, first_row: int, vector_size: int, seed: int) -> None:
    """See `Kernels.fill_initial`. The version for backends that have none of their own."""
    rows_at_once = max(1, (1 << 13) // vector_size)
    for first in range(0, len(w_in_RD), rows_at_once):
        rows_RD = w_in_RD[first : first + rows_at_once, :vector_size]
        rows_RD[:] = initial_rows(
            np.arange(first_row + first, first_row + first + len(rows_RD), dtype=np.uint64), vector_size, seed
        )


def initial_rows(rows_R: NDArray[np.uint64], vector_size: int, seed: int) -> FloatRows:
    """The initial values (R, vector_size) of these rows of W_in; rows · vector_size must stay below 2⁶⁴."""
    counters_RD = np.asarray(rows_R[:, None] * np.uint64(vector_size) + np.arange(vector_size, dtype=np.uint64), np.uint64)
    uniform = (mix64(seed, counters_RD) >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
    return np.asarray((uniform - np.float32(0.5)) / np.float32(vector_size), np.float32)


def aligned_zeros(rows: int, row_floats: int) -> FloatRows:
    """Zeros that begin with a cache line."""
    raw = np.zeros(rows * row_floats + ALIGNMENT_BYTES // 4, np.float32)
    first = -raw.ctypes.data % ALIGNMENT_BYTES // 4
    return raw[first : first + rows * row_floats].reshape(rows, row_floats)
