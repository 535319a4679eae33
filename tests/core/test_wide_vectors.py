"""Vectors of sixteen lanes compute the bits of vectors of eight: workers of both kinds of processor train one model.

LLVM turns either into what the processor at hand has, so both are run whatever it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numba import njit
from numpy.typing import NDArray

from w2v_core.kernels.cpu import product_operations as products
from w2v_core.kernels.cpu import row_operations as op

GROUP, WORDS = 8, 11
ROW_FLOATS = [8, 16, 24, 56, 104, 304]
"""Less than a vector of sixteen, whole ones, whole ones and a half, several tiles."""


class Memory:
    """Random rows of a group, the same for the same `row_floats`, and what the operations write."""

    def __init__(self, row_floats: int) -> None:
        draws = np.random.default_rng(row_floats)
        self.row_bytes = 4 * row_floats
        self.words = draws.normal(size=(WORDS, row_floats)).astype(np.float32)
        self.hidden = draws.normal(size=(GROUP, row_floats)).astype(np.float32)
        self.steps = draws.normal(size=(WORDS, GROUP)).astype(np.float32)
        self.gradients = np.zeros((GROUP, row_floats), np.float32)
        self.partials = np.zeros((WORDS, GROUP, GROUP), np.float32)
        # A word twice among the targets, one that is noise as well, and the same noise twice.
        self.targets, self.noise = (self._rows(chosen) for chosen in ([0, 1, 1, 2, 3, 4, 0, 5], [6, 5, 7, 6, 8]))

    def _rows(self, chosen: list[int]) -> NDArray[np.int64]:
        return np.array([self.words.ctypes.data + self.row_bytes * word for word in chosen], np.int64)

    @property
    def bits(self) -> list[bytes]:
        return [array.tobytes() for array in (self.words, self.gradients, self.partials)]


def address(array: NDArray[Any]) -> int:
    return int(array.ctypes.data)


def same_bits(narrow: Callable[[Memory], None], wide: Callable[[Memory], None]) -> None:
    for row_floats in ROW_FLOATS:
        one, other = Memory(row_floats), Memory(row_floats)
        before = one.bits
        narrow(one)
        wide(other)
        assert one.bits == other.bits != before, row_floats


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("with_targets", [True, False])
def test_products_have_the_same_bits_in_sixteen_lanes(count: int, with_targets: bool) -> None:
    def products_by(operation: Any) -> Callable[[Memory], None]:
        @njit
        def compute(hidden: int, stride: int, targets: int, noise: int, partials: int) -> None:
            operation(hidden, stride, targets, noise, partials, targets, stride)

        return lambda memory: compute(
            address(memory.hidden), memory.row_bytes, address(memory.targets), address(memory.noise), address(memory.partials)
        )

    same_bits(
        products_by(products.products_of(count, with_targets)), products_by(products.paired_products_of(count, with_targets))
    )


@pytest.mark.turns(3, 1.5)
def test_gradients_have_the_same_bits_in_sixteen_lanes() -> None:
    def gradients_by(operation: Any) -> Callable[[Memory], None]:
        @njit
        def compute(gradients: int, stride: int, targets: int, noise: int, steps: int) -> None:
            operation(gradients, stride, targets, noise, steps, 5, targets, stride)

        return lambda memory: compute(
            address(memory.gradients), memory.row_bytes, address(memory.targets), address(memory.noise), address(memory.steps)
        )

    same_bits(gradients_by(op.gradients_in(8)), gradients_by(op.gradients_in(16)))


@pytest.mark.parametrize("count", [3, 5])
@pytest.mark.turns(3, 1)
def test_updates_have_the_same_bits_in_sixteen_lanes(count: int) -> None:
    def updates_by(operation: Any) -> Callable[[Memory], None]:
        @njit
        def compute(hidden: int, stride: int, targets: int, noise: int, steps: int) -> None:
            operation(hidden, stride, targets, targets, noise, noise, steps, noise, stride)

        return lambda memory: compute(
            address(memory.hidden), memory.row_bytes, address(memory.targets), address(memory.noise), address(memory.steps[1:])
        )

    same_bits(updates_by(op.updates_in(8, count, True)), updates_by(op.updates_in(16, count, True)))
