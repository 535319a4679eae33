"""`sampler.random_bits` for Numba: all compiled code draws its random numbers here. Nothing here is compiled by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from w2v_core.sampler import GAMMA, MIX_1, MIX_2

_GAMMA, _MIX_1, _MIX_2 = np.uint64(GAMMA), np.uint64(MIX_1), np.uint64(MIX_2)


@njit(nogil=True, inline="always")
def random_bits(seed: Any, counter: Any) -> Any:
    """Draw number `counter` of the stream `seed`; arguments and result are uint64."""
    z = seed + (counter + np.uint64(1)) * _GAMMA
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return z ^ (z >> np.uint64(31))
