"""Changes of rows in eight bits, for sending between hosts: one float32 scale per row, and one signed byte per number.

The scale is a 127th of the row's largest absolute change. Rounding is off by at most half a scale, equally often up and down,
which is small beside the noise of stochastic gradients. A row with a value that is not finite gets the scale NaN and arrives as
NaN, so a training that diverges does so on every host.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numpy.typing import NDArray

from w2v_core.contract import FloatRows, Merge
from w2v_core.kernels.cpu.change_operations import add_rows, subtract_rows
from w2v_core.kernels.cpu.machine_code import compiled
from w2v_core.kernels.cpu.merge_kernels import fold_changes
from w2v_core.kernels.cpu.vector_ir import F32, I8, I32, LANES, V8F, V8I, VECTOR_BYTES, Emitter, Value, operation

PackedRows = NDArray[np.uint8]
SCALE_BYTES = 4
LEVELS = 127.0
V8B = ir.VectorType(I8, LANES)


def packed_row_bytes(row_floats: int) -> int:
    """The bytes of a packed row of `row_floats` floats."""
    return SCALE_BYTES + row_floats


def pack_changes(packed_RB: PackedRows, rows_RD: FloatRows, base_RD: FloatRows) -> None:
    """Writes rows − base into `packed_RB`. Releases the GIL."""
    _check(packed_RB, base_RD)
    _pack(packed_RB, rows_RD, base_RD, np.empty(base_RD.shape[1], np.float32))


def add_changes(base_RD: FloatRows, packed_RB: PackedRows) -> None:
    """Adds the packed changes to the base. Releases the GIL."""
    _check(packed_RB, base_RD)
    _add(base_RD, packed_RB, np.empty(base_RD.shape[1], np.float32))


def merge_changes(base_RD: FloatRows, copies: Sequence[PackedRows], answer_RB: PackedRows | None, method: Merge) -> None:
    """Folds the packed changes of copies as `Kernels.merge_rows` does, and rounds the merged changes to eight bits again. They
    are added to the base, and written to `answer_RB` if given. Releases the GIL."""
    row_floats = base_RD.shape[1]
    for copy in copies:
        _check(copy, base_RD)
    # One packed row, where no answer is needed.
    scratch_RB = np.empty((1, packed_row_bytes(row_floats)), np.uint8)
    changes_LD = np.zeros((len(copies) + 1, row_floats), np.float32)
    packed = np.array([_address(copy) for copy in copies], np.int64)
    _merge(base_RD, packed, changes_LD, scratch_RB, 0 if answer_RB is None else _address(answer_RB), method == "adasum")


def catch_up(rows_RD: FloatRows, base_RD: FloatRows, shown_RD: FloatRows) -> None:
    """rows += base − shown. Releases the GIL."""
    _catch_up(rows_RD, base_RD, shown_RD, np.empty(base_RD.shape[1], np.float32))


def _check(packed_RB: PackedRows, rows_RD: FloatRows) -> None:
    expected = (len(rows_RD), packed_row_bytes(rows_RD.shape[1]))
    if packed_RB.shape != expected:
        raise ValueError(f"expected packed changes of shape {expected}, found {packed_RB.shape}")


def _address(rows: PackedRows) -> int:
    return int(rows.__array_interface__["data"][0])


@compiled
def _pack(packed_RB: Any, rows_RD: Any, base_RD: Any, change_D: Any) -> None:
    row_bytes, packed_bytes = base_RD.shape[1] * 4, packed_RB.shape[1]
    change = np.int64(change_D.ctypes.data)
    packed, rows, base = np.int64(packed_RB.ctypes.data), np.int64(rows_RD.ctypes.data), np.int64(base_RD.ctypes.data)
    for r in range(base_RD.shape[0]):
        subtract_rows(change, rows + r * row_bytes, base + r * row_bytes, row_bytes)
        pack_row(packed + r * packed_bytes, change, row_bytes)


@compiled
def _add(base_RD: Any, packed_RB: Any, change_D: Any) -> None:
    row_bytes, packed_bytes = base_RD.shape[1] * 4, packed_RB.shape[1]
    change = np.int64(change_D.ctypes.data)
    packed, base = np.int64(packed_RB.ctypes.data), np.int64(base_RD.ctypes.data)
    for r in range(base_RD.shape[0]):
        row = base + r * row_bytes
        unpack_row(change, packed + r * packed_bytes, row_bytes)
        add_rows(row, row, change, row_bytes)


@compiled
def _merge(base_RD: Any, packed_L: Any, changes_LD: Any, scratch_RB: Any, answer: Any, adasum: bool) -> None:
    """`changes_LD` as `merge_kernels.fold_changes` takes it."""
    copies, row_floats = len(packed_L), base_RD.shape[1]
    row_bytes, packed_bytes = row_floats * 4, scratch_RB.shape[1]
    base, scratch, changes = np.int64(base_RD.ctypes.data), np.int64(scratch_RB.ctypes.data), np.int64(changes_LD.ctypes.data)
    for r in range(base_RD.shape[0]):
        row = base + r * row_bytes
        for copy in range(copies):
            unpack_row(changes + copy * row_bytes, packed_L[copy] + r * packed_bytes, row_bytes)
        fold_changes(changes, copies, row_bytes, adasum)
        if not adasum:
            for d in range(row_floats):
                changes_LD[0, d] *= np.float32(1.0) / np.float32(copies)
        to = answer + r * packed_bytes if answer else scratch
        pack_row(to, changes, row_bytes)
        unpack_row(changes, to, row_bytes)
        add_rows(row, row, changes, row_bytes)


@compiled
def _catch_up(rows_RD: Any, base_RD: Any, shown_RD: Any, change_D: Any) -> None:
    row_bytes, change = base_RD.shape[1] * 4, np.int64(change_D.ctypes.data)
    rows, base, shown = np.int64(rows_RD.ctypes.data), np.int64(base_RD.ctypes.data), np.int64(shown_RD.ctypes.data)
    for r in range(base_RD.shape[0]):
        row = rows + r * row_bytes
        subtract_rows(change, base + r * row_bytes, shown + r * row_bytes, row_bytes)
        add_rows(row, row, change, row_bytes)


@operation(3)
def pack_row(e: Emitter, packed: Value, changes: Value, row_bytes: Value) -> None:
    """packed = changes, rounded to eight bits."""
    builder = e.builder
    with e.loop(e.integer(0), row_bytes, VECTOR_BYTES, [e.splat_int(0)]) as columns:
        # Absolute values compare like their bits, and those that are not finite are the largest.
        size = builder.and_(e.load(changes, columns.index, V8I), e.splat_int(0x7FFFFFFF))
        columns.next = [_larger(e, size, columns.state[0])]
    largest = builder.bitcast(_largest(e, columns.state[0]), F32)
    # Zero times a finite number is zero, times anything else NaN.
    taint = builder.fmul(largest, ir.Constant(F32, 0.0))
    scale = builder.fadd(builder.fdiv(largest, ir.Constant(F32, LEVELS)), taint)
    builder.store(scale, e.pointer(packed), align=4)
    moved = builder.fcmp_ordered(">", largest, ir.Constant(F32, 0.0))
    inverse = e.repeat(builder.select(moved, builder.fdiv(ir.Constant(F32, LEVELS), largest), ir.Constant(F32, 0.0)))
    with e.loop(e.integer(0), row_bytes, VECTOR_BYTES) as columns:
        nearest = e.call("llvm.rint", builder.fmul(e.load(changes, columns.index), inverse))
        # Converting NaN to an integer is undefined; such a row is lost anyway, but its bytes should be the same everywhere.
        number = builder.select(builder.fcmp_ordered("<=", e.call("llvm.fabs", nearest), e.splat(LEVELS)), nearest, e.splat(0.0))
        e.store(builder.trunc(builder.fptosi(number, V8I), V8B), packed, _place(e, columns.index))


@operation(3)
def unpack_row(e: Emitter, changes: Value, packed: Value, row_bytes: Value) -> None:
    """changes = packed, as floats."""
    scale = e.broadcast(packed)
    with e.loop(e.integer(0), row_bytes, VECTOR_BYTES) as columns:
        found = e.builder.sitofp(e.load(packed, _place(e, columns.index), V8B), V8F)
        e.store(e.builder.fmul(found, scale), changes, columns.index)


def _place(e: Emitter, offset: Value) -> Value:
    """The offset in a packed row of the numbers at an offset in a row of floats."""
    return e.builder.add(e.builder.lshr(offset, e.integer(2)), e.integer(SCALE_BYTES))


def _larger(e: Emitter, a: Value, b: Value) -> Value:
    return e.builder.select(e.builder.icmp_unsigned(">", a, b), a, b)


def _largest(e: Emitter, vector: Value) -> Value:
    """The largest of eight lanes."""
    lanes = [e.builder.extract_element(vector, ir.Constant(I32, lane)) for lane in range(LANES)]
    while len(lanes) > 1:
        lanes = [_larger(e, a, b) for a, b in zip(lanes[::2], lanes[1::2], strict=True)]
    return lanes[0]
