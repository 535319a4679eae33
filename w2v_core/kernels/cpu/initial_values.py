"""`fill_initial` for the Numba backend: the values of `w2v_core.kernels.initial`, twenty times as fast."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from w2v_core.contract import FloatRows
from w2v_core.kernels.cpu.machine_code import compiled
from w2v_core.kernels.cpu.random_numbers import random_bits

# As in `optimizer_rows`: a possible division by zero would prevent vectorisation.
_compiled = partial(compiled, error_model="numpy")


def fill_initial(w_in_RD: FloatRows, first_row: int, vector_size: int, seed: int) -> None:
    """See `Kernels.fill_initial`. Releases the GIL."""
    _fill(w_in_RD, np.uint64(first_row), np.uint64(vector_size), np.uint64(seed & (1 << 64) - 1))


@_compiled
def _fill(w_in_RD: Any, first_row: Any, vector_size: Any, seed: Any) -> None:
    for r in range(w_in_RD.shape[0]):
        first_counter = (first_row + np.uint64(r)) * vector_size
        for d in range(vector_size):
            uniform = np.float32(random_bits(seed, first_counter + np.uint64(d)) >> np.uint64(40)) * np.float32(2.0**-24)
            w_in_RD[r, d] = (uniform - np.float32(0.5)) / np.float32(vector_size)
