"""`merge_rows` for the Numba backend: lanes are folded into one, row by row, with the row operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit

from w2v_core.contract import FloatRows, Merge
from w2v_core.kernels.checks import check_merge
from w2v_core.kernels.cpu import change_operations as change
from w2v_core.kernels.cpu import row_operations as op
from w2v_core.kernels.cpu.group_kernels import address_of
from w2v_core.kernels.cpu.machine_code import compiled


def merge_rows(base_RD: FloatRows, lanes: Sequence[FloatRows], method: Merge) -> None:
    """See `Kernels.merge_rows`. Releases the GIL."""
    check_merge(base_RD, lanes, method)
    addresses_L = np.array([lane.ctypes.data for lane in lanes], np.int64)
    changes_LD = np.zeros((len(lanes) + 1, base_RD.shape[1]), np.float32)
    _merge(base_RD, addresses_L, changes_LD, method == "adasum")


@compiled
def _merge(base_RD: Any, addresses_L: Any, changes_LD: Any, adasum: bool) -> None:
    fold_rows(address_of(base_RD), base_RD.shape[0], addresses_L, changes_LD, 4 * base_RD.shape[1], adasum)


@njit(nogil=True)
def fold_rows(base: Any, rows: Any, addresses_L: Any, changes_LD: Any, row_bytes: Any, adasum: bool) -> None:
    """Merges so many rows, which begin at the address `base` and at each lane's address. `changes_LD` is scratch memory, zero: a
    row for each lane's changes, and one more for the final factor."""
    lanes = len(addresses_L)
    if lanes == 2 and adasum:
        for r in range(rows):
            at = r * row_bytes
            change.merge_two_rows(base + at, addresses_L[0] + at, addresses_L[1] + at, row_bytes)
        return
    changes_LD[lanes, 0] = 1.0 if adasum else np.float32(1.0) / np.float32(lanes)
    changes = address_of(changes_LD)
    for r in range(rows):
        row = base + r * row_bytes
        for lane in range(lanes):
            change.subtract_rows(changes + lane * row_bytes, addresses_L[lane] + r * row_bytes, row, row_bytes)
        fold_changes(changes, lanes, row_bytes, adasum)
        if lanes > 1:
            op.add_scaled_row(changes, row, changes, changes + lanes * row_bytes, row_bytes)
        else:
            # base + (lane − base) need not be the lane's bits.
            op.copy_row(changes, addresses_L[0] + r * row_bytes, row_bytes)
        op.copy_row(row, changes, row_bytes)
        for lane in range(lanes):
            op.copy_row(addresses_L[lane] + r * row_bytes, changes, row_bytes)


@compiled
def fold_changes(changes: Any, lanes: Any, row_bytes: Any, adasum: bool) -> None:
    """Folds one row's changes of all lanes, which lie behind each other, into the first: over a fixed tree, in lane order."""
    width = int(lanes)
    while width > 1:
        for pair in range(width // 2):
            left, right = changes + 2 * pair * row_bytes, changes + (2 * pair + 1) * row_bytes
            if adasum:
                change.adasum_row(changes + pair * row_bytes, left, right, row_bytes)
            else:
                change.add_rows(changes + pair * row_bytes, left, right, row_bytes)
        if width % 2:
            op.copy_row(changes + (width // 2) * row_bytes, changes + (width - 1) * row_bytes, row_bytes)
        width = width // 2 + width % 2
