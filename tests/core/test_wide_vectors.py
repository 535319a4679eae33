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

from w2v_core.kernels.cpu import context_operations as context
from w2v_core.kernels.cpu import product_operations as products
from w2v_core.kernels.cpu import row_operations as op

GROUP, WORDS = 8, 11
ROW_FLOATS = [8, 16, 24, 56, 104, 304]
"""Less than a vector of sixteen, whole ones, whole ones and a half, several tiles."""
LONG_ROWS = [*ROW_FLOATS, 120, 312, 512]
"""More eights than fit into one tile of sixteen lanes, an odd number of them, and fewer, but odd."""


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


def rows_at(array: NDArray[np.float32]) -> NDArray[np.int64]:
    return np.array([address(row) for row in array], np.int64)


def test_sums_of_windows_have_the_same_bits_in_sixteen_lanes_and_are_the_sums() -> None:
    def sums_by(operation: Any) -> Callable[[int, int, int, int, int, int], None]:
        @njit
        def compute(rows: int, prefixes: int, uppers: int, lowers: int, hidden: int, row_bytes: int) -> None:
            operation(rows, 4, prefixes, uppers, lowers, rows + 8 * 2, 6, hidden, row_bytes)

        return compute

    narrow, wide = sums_by(context.sums_of_windows_in(8)), sums_by(context.sums_of_windows_in(16))
    first, behind = np.array([0, 1, 2, 1, 4, 5]), np.array([5, 4, 6, 8, 7, 10])
    for row_floats in LONG_ROWS:
        words = np.random.default_rng(row_floats).normal(size=(10, row_floats)).astype(np.float32)
        found = []
        for compute in (narrow, wide):
            prefixes, hidden = np.full((11, row_floats), 7, np.float32), np.full((6, row_floats), 7, np.float32)
            sums, rows, to = rows_at(prefixes), rows_at(words), rows_at(hidden)
            uppers, lowers = sums[np.minimum(behind, np.arange(6) + 5)].copy(), sums[first].copy()
            compute(address(rows), address(sums), address(uppers), address(lowers), address(to), 4 * row_floats)
            found.append(hidden)
        assert found[0].tobytes() == found[1].tobytes(), row_floats
        for target, (begin, end) in enumerate(zip(first, np.minimum(behind, np.arange(6) + 5), strict=True)):
            expected = words[begin:end].sum(axis=0, dtype=np.float64) - words[target + 2]
            np.testing.assert_allclose(found[1][target], expected, atol=1e-5, err_msg=f"{row_floats}, {target}")


def test_context_rows_move_by_the_same_bits_in_sixteen_lanes_and_by_the_gradients_around_them() -> None:
    def moves_by(operation: Any) -> Callable[..., None]:
        @njit
        def compute(
            first: int, following: int, gradients: int, signs: int, owns: int, rows: int, to: int, rates: int, row_bytes: int
        ) -> None:
            operation(first, following, gradients, signs, owns, rows, to, rates, 5, row_bytes)

        return compute

    narrow, wide = moves_by(context.moves_of_context_in(8)), moves_by(context.moves_of_context_in(16))
    # Two windows: rows 0 … 3 and 1 … 4. Edges by number, 0 being none: 1 and 2 begin and end the first, 3 and 4 the second.
    first_edges, next_edges = np.array([1, 3, 0, 0, 2], np.int64), np.zeros(5, np.int64)
    signs, rates = np.array([0, 1, -1, 1, -1], np.float32), np.array([0.5, 1, 2, 1, 0.25], np.float32)
    inside = np.array([[1, 1, 1, 1, 0], [0, 1, 1, 1, 1]])
    for row_floats in LONG_ROWS:
        draws = np.random.default_rng(row_floats)
        words, changes, own = (draws.normal(size=(size, row_floats)).astype(np.float32) for size in (5, 2, 5))
        gradients = rows_at(changes)[[0, 0, 0, 1, 1]].copy()
        found = []
        for compute in (narrow, wide):
            moved = np.zeros_like(words)
            owns, rows, to = rows_at(own), rows_at(words), rows_at(moved)
            arrays = (first_edges, next_edges, gradients, signs, owns, rows, to, rates)
            compute(*map(address, arrays), 4 * row_floats)
            found.append(moved)
        assert found[0].tobytes() == found[1].tobytes(), row_floats
        expected = words + rates[:, None] * (inside.T @ changes.astype(np.float64) - own)
        np.testing.assert_allclose(found[1], expected, atol=1e-5, err_msg=str(row_floats))
