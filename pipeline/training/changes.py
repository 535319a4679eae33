"""The exchange between copies on several hosts: their changes since the last merge, one byte per number.

Changes are rounded to eight bits in both directions (`w2v_core.kernels.cpu.change_bytes`): each copy's changes on the way to the
owner of the rows, and the merged changes on the way back. The owner also rounds its own copies' changes and applies the rounded
changes that it sends, so every base changes by the same amounts, on one host as on several.

`copies` are the rows that the copies had when the merge began. They are only read: their owners add to the trained rows what the
base has gained over them (`lane_group.take_over`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.training.forms import Matrices, Spread, shares_of
from pipeline.training.placement import AHEAD, MergeRole, pieces_of
from w2v_core.kernels import Kernels, Merge
from w2v_core.kernels.cpu.change_bytes import add_changes, merge_changes, pack_changes, packed_row_bytes

Packed = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""The changes of both matrices, as flat arrays of whole 64-bit words."""


def packed_bytes(rows: int, row_floats: int) -> int:
    """The bytes of `rows` packed rows of a matrix, rounded up to whole 64-bit words."""
    return -(-rows * packed_row_bytes(row_floats) // 8) * 8


@dataclass
class PackedChanges:
    """See `forms.Form`."""

    base: Matrices
    copies: dict[int, Matrices]
    role: MergeRole
    spread: Spread
    threads: int
    _foreign: tuple[dict[int, Packed], ...] = ()
    """Buffers for pieces of this participant's block, with the changes of other hosts' copies; used in turn."""
    _own: dict[int, Packed] = field(default_factory=dict)
    """The piece being folded, of this host's copies."""
    _outgoing: dict[int, dict[int, Packed]] = field(default_factory=dict)
    """The piece being sent, by owner and copy."""
    _incoming: dict[int, Packed] = field(default_factory=dict)
    """The piece being received, by owner."""

    def __post_init__(self) -> None:
        rows = pieces_of(0, *self.base[0].shape)[0].stop
        self._foreign = tuple(
            {copy: self._packed(rows) for _, copies in self.role.agents for copy in copies} for _ in range(AHEAD)
        )
        self._own = {copy: self._packed(rows) for copy in self.copies}
        self._outgoing = {owner: {copy: self._packed(rows) for copy in self.copies} for owner in self.role.owners}
        self._incoming = {owner: self._packed(rows) for owner in self.role.owners}

    def fold(self, kernels: Kernels, rows: slice, method: Merge) -> None:
        for piece in pieces_of(rows.start, rows.stop, self.base[0].shape[1]):
            self._fold(piece, {}, None, method)

    def to_send(self, owner: int, piece: slice) -> tuple[Sequence[NDArray[Any]], Callable[[], None]]:
        held = {copy: self._part(packed, piece) for copy, packed in self._outgoing[owner].items()}

        def fill() -> None:
            for copy, packed in held.items():
                self._pack(copy, packed, piece, slice(0, piece.stop - piece.start))

        return [flat for packed in held.values() for flat in packed], fill

    def room(self, copies: range, number: int, piece: slice) -> Sequence[NDArray[Any]]:
        return [flat for copy in copies for flat in self._part(self._foreign[number % AHEAD][copy], piece)]

    def fold_piece(self, kernels: Kernels, number: int, piece: slice, method: Merge) -> Sequence[NDArray[Any]]:
        answer = self._packed(piece.stop - piece.start)
        self._fold(piece, self._foreign[number % AHEAD], answer, method)
        return answer

    def merged_room(self, owner: int, piece: slice) -> tuple[Sequence[NDArray[Any]], Callable[[], None]]:
        packed = self._part(self._incoming[owner], piece)

        def use() -> None:
            for matrix in (0, 1):
                add_changes(self.base[matrix][piece], self._rows(packed[matrix], piece))

        return packed, use

    def _fold(self, piece: slice, foreign: Mapping[int, Packed], answer: Packed | None, method: Merge) -> None:
        """Folds the changes of a piece; `answer`, if given, receives the merged changes too."""

        copies = dict(sorted((self._own | dict(foreign)).items()))

        def fold(share: slice) -> None:
            rows = slice(piece.start + share.start, piece.start + share.stop)
            for copy, packed in self._own.items():
                self._pack(copy, packed, piece, share)
            for matrix in (0, 1):
                changes = [self._rows(packed[matrix], piece)[share] for packed in copies.values()]
                to = None if answer is None else self._rows(answer[matrix], piece)[share]
                merge_changes(self.base[matrix][rows], changes, to, method)

        self.spread(fold, shares_of(piece.stop - piece.start, self.base[0].shape[1], len(copies), self.threads))

    def _pack(self, copy: int, packed: Packed, piece: slice, share: slice) -> None:
        """Packs a copy's changes of a share of a piece."""
        rows = slice(piece.start + share.start, piece.start + share.stop)
        for matrix in (0, 1):
            pack_changes(self._rows(packed[matrix], piece)[share], self.copies[copy][matrix][rows], self.base[matrix][rows])

    def _packed(self, rows: int) -> Packed:
        size = packed_bytes(rows, self.base[0].shape[1])
        # Zeros, because the checksum includes the padding of the last word.
        return np.zeros(size, np.uint8), np.zeros(size, np.uint8)

    def _part(self, packed: Packed, piece: slice) -> Packed:
        size = packed_bytes(piece.stop - piece.start, self.base[0].shape[1])
        return packed[0][:size], packed[1][:size]

    def _rows(self, flat: NDArray[np.uint8], piece: slice) -> NDArray[np.uint8]:
        rows, size = piece.stop - piece.start, packed_row_bytes(self.base[0].shape[1])
        return flat[: rows * size].reshape(rows, size)
