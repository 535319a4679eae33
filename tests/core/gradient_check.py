"""Two-sided finite differences: the oracle of every backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

STEP = 1e-6
"""Two-sided differences are off by STEP²/6 · third derivative plus rounding of about 1e-16 / STEP = 1e-10."""


def assert_gradient(loss: Callable[[], float], array: Any, analytic: Any, tolerance: float = 2e-8) -> None:
    """Raises if `analytic` differs from the measured derivative of `loss` by any element of float64 `array`."""
    assert array.dtype == np.float64, "finite differences need float64"
    assert analytic.shape == array.shape
    measured = np.empty_like(array)
    for place in np.ndindex(array.shape):
        kept = array[place]
        array[place] = kept + STEP
        above = loss()
        array[place] = kept - STEP
        below = loss()
        array[place] = kept
        measured[place] = (above - below) / (2 * STEP)
    np.testing.assert_allclose(analytic, measured, rtol=0, atol=tolerance)
    assert np.abs(measured).max() > 100 * tolerance, "nothing to compare: the derivative is zero everywhere"
