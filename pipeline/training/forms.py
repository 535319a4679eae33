"""The form in which copies of the parameters exchange rows at a merge: whole rows, or their changes in eight bits.

    WholeRows        float32 rows, sent directly from the parameters and received into the base
    PackedChanges    each copy's changes since the last merge, and the merged changes, one byte per number (`changes`): about a
                     quarter of the bytes, for copies on several hosts

For each piece of a block a form determines what is sent, where received bytes go, and how copies are folded. The result does not
depend on where the copies are: changes are rounded to eight bits on a single host too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.training.placement import AHEAD, MergeRole, block_of, pieces_of
from w2v_core.kernels import Kernels, Merge, aligned_zeros

Matrices = tuple[NDArray[np.float32], NDArray[np.float32]]
Spread = Callable[[Callable[[Any], None], Sequence[Any]], Any]
"""Applies a function to each of several items, in several threads (`LaneGroup.spread`)."""
SHARE_BYTES = 1 << 20
"""Least bytes of rows per thread of a fold; with fewer, handing them to a thread takes longer than folding them."""


class Form(Protocol):
    """The operations of a form. A piece is a range of rows, counted from the first row of the matrices."""

    def fold(self, kernels: Kernels, rows: slice, method: Merge) -> None:
        """Folds the changes of copies that are all in this host's memory into the base and every copy."""

    def to_send(self, owner: int, piece: slice) -> tuple[Sequence[NDArray[Any]], Callable[[], None]]:
        """The arrays that this host's copies send for a piece of an owner's block, and a function to call just before that."""

    def room(self, copies: range, number: int, piece: slice) -> Sequence[NDArray[Any]]:
        """Buffers for what copies on another host send for piece `number` of this participant's block."""

    def fold_piece(self, kernels: Kernels, number: int, piece: slice, method: Merge) -> Sequence[NDArray[Any]]:
        """Folds a piece after all its expected messages have arrived; returns the answer to all other hosts."""

    def merged_room(self, owner: int, piece: slice) -> tuple[Sequence[NDArray[Any]], Callable[[], None]]:
        """Buffers for an owner's answer, and a function to call when it has arrived."""


@dataclass
class WholeRows:
    base: Matrices
    copies: dict[int, Matrices]
    role: MergeRole
    spread: Spread
    threads: int
    foreign: tuple[dict[int, Matrices], ...] = ()
    """Buffers for pieces of this participant's block, with the rows of other hosts' copies; used in turn."""

    def __post_init__(self) -> None:
        rows, floats = pieces_of(0, *self.base[0].shape)[0].stop, self.base[0].shape[1]
        there = [copy for _, copies in self.role.agents for copy in copies]
        self.foreign = tuple(
            {copy: (aligned_zeros(rows, floats), aligned_zeros(rows, floats)) for copy in there} for _ in range(AHEAD)
        )

    def fold(self, kernels: Kernels, rows: slice, method: Merge) -> None:
        self._fold(kernels, rows_of(self.base, rows), {copy: rows_of(pair, rows) for copy, pair in self.copies.items()}, method)

    def to_send(self, owner: int, piece: slice) -> tuple[Sequence[NDArray[Any]], Callable[[], None]]:
        # Rows are sent directly from the parameters, which is safe because they do not change before the receiver has them all:
        # a copy's rows change when the owner of their block answers with the merged ones, and merged rows change in the next
        # merge, after all of them have been sent.
        return [matrix[piece] for pair in self.copies.values() for matrix in pair], nothing_to_do

    def room(self, copies: range, number: int, piece: slice) -> Sequence[NDArray[Any]]:
        return [matrix for copy in copies for matrix in self._foreign(number, piece)[copy]]

    def fold_piece(self, kernels: Kernels, number: int, piece: slice, method: Merge) -> Sequence[NDArray[Any]]:
        base = rows_of(self.base, piece)
        ours = {copy: rows_of(pair, piece) for copy, pair in self.copies.items()}
        self._fold(kernels, base, ours | self._foreign(number, piece), method)
        return base

    def merged_room(self, owner: int, piece: slice) -> tuple[Sequence[NDArray[Any]], Callable[[], None]]:
        def use() -> None:
            for pair in self.copies.values():
                for matrix in (0, 1):
                    pair[matrix][piece] = self.base[matrix][piece]

        return rows_of(self.base, piece), use

    def _foreign(self, number: int, piece: slice) -> dict[int, Matrices]:
        rows = slice(0, piece.stop - piece.start)
        return {copy: rows_of(pair, rows) for copy, pair in self.foreign[number % AHEAD].items()}

    def _fold(self, kernels: Kernels, base: Matrices, copies: Mapping[int, Matrices], method: Merge) -> None:
        in_order = [copies[copy] for copy in sorted(copies)]

        def fold(rows: slice) -> None:
            for matrix in (0, 1):
                kernels.merge_rows(base[matrix][rows], [pair[matrix][rows] for pair in in_order], method)

        self.spread(fold, shares_of(len(base[0]), base[0].shape[1], len(in_order), self.threads))


def rows_of(pair: Matrices, rows: slice) -> Matrices:
    return pair[0][rows], pair[1][rows]


def nothing_to_do() -> None:
    pass


def shares_of(rows: int, row_floats: int, copies: int, threads: int) -> list[slice]:
    """Ranges of `rows` rows, one per folding thread. Rows are independent of each other, so the division among threads does not
    affect the bits; the order of the copies does."""
    shares = max(1, min(threads, rows * 2 * 4 * row_floats * copies // SHARE_BYTES))
    return [slice(*block_of(rows, share, shares)) for share in range(shares)]
