"""Row operations that combine the changes of several lanes, written as LLVM code; those of training are in `row_operations`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from llvmlite import ir

from w2v_core.kernels.cpu.row_operations import ask_for_tile, over_columns
from w2v_core.kernels.cpu.vector_ir import I32, LANES, VECTOR_BYTES, WIDEST, Column, Emitter, Value, operation


@operation(4)
def add_changes(e: Emitter, rows: Value, changes: Value, count: Value, row_bytes: Value) -> None:
    """row i += change i, in order; a row may occur twice. `rows` and `changes` are arrays of addresses. The rows that come
    `_LATER` entries further on are prefetched."""
    builder, wide = e.builder, Emitter(e.builder, WIDEST)
    with e.loop(e.integer(0), count, 1) as each:
        later = builder.add(each.index, e.integer(_LATER))
        later = builder.select(builder.icmp_signed("<", later, count), later, each.index)
        row, change, *asked = (e.load_address(of, i) for i in (each.index, later) for of in (rows, changes))

        def body(at: list[Column], row: Value = row, change: Value = change, asked: Sequence[Value] = asked) -> None:
            for row_later in asked:
                ask_for_tile(wide, row_later, at)
            for place in at:
                total = builder.fadd(wide.load_column(row, place), wide.load_column(change, place))
                wide.store_column(total, row, place)

        over_columns(wide, row_bytes, 4, body)


_LATER = 12


@operation(4)
def add_rows(e: Emitter, target: Value, a: Value, b: Value, row_bytes: Value) -> None:
    """target = a + b."""
    with e.loop(e.integer(0), row_bytes, VECTOR_BYTES) as columns:
        e.store(e.builder.fadd(e.load(a, columns.index), e.load(b, columns.index)), target, columns.index)


@operation(4)
def subtract_rows(e: Emitter, target: Value, a: Value, b: Value, row_bytes: Value) -> None:
    """target = a − b."""
    with e.loop(e.integer(0), row_bytes, VECTOR_BYTES) as columns:
        e.store(e.builder.fsub(e.load(a, columns.index), e.load(b, columns.index)), target, columns.index)


@operation(4)
def adasum_row(e: Emitter, target: Value, left: Value, right: Value, row_bytes: Value) -> None:
    """target = the Adasum of two changes: see `_adasum`."""

    def changes(at: Value) -> tuple[Value, Value]:
        return e.load(left, at), e.load(right, at)

    with _adasum(e, changes, row_bytes) as (at, total):
        e.store(total, target, at)


@operation(4)
def merge_two_rows(e: Emitter, base: Value, left: Value, right: Value, row_bytes: Value) -> None:
    """base = left = right = base + the Adasum of left − base and right − base: a merge of two lanes in two passes, with the
    same bits as the separate steps."""

    def changes(at: Value) -> tuple[Value, Value]:
        before = e.load(base, at)
        return e.builder.fsub(e.load(left, at), before), e.builder.fsub(e.load(right, at), before)

    with _adasum(e, changes, row_bytes) as (at, total):
        merged = e.builder.fadd(e.load(base, at), total)
        for row in (base, left, right):
            e.store(merged, row, at)


@contextmanager
def _adasum(e: Emitter, changes: Callable[[Value], tuple[Value, Value]], row_bytes: Value) -> Iterator[tuple[Value, Value]]:
    """A loop that yields (offset, (1 − c·l·r/‖l‖²)·l + (1 − c·l·r/‖r‖²)·r) for l, r = changes(offset), with c = ½ where
    l·r >= 0, else 1 (see `numpy_kernels`). A factor is 1 where its squared norm is below `_NO_CHANGE`: such changes are far
    too small to show in float32 parameters, and their squared norm may underflow."""
    builder = e.builder
    with e.loop(e.integer(0), row_bytes, VECTOR_BYTES, [e.splat(0.0)] * 3) as columns:
        a, b = changes(columns.index)
        columns.next = [e.fma(x, y, total) for (x, y), total in zip(((a, a), (b, b), (a, b)), columns.state, strict=True)]
    norms = [e.repeat(_sum_of_lanes(e, total)) for total in columns.state]
    # An ordered comparison is false for NaN, so NaN is kept, here and below.
    opposed = builder.fcmp_ordered("<", norms[2], e.splat(0.0))
    both = builder.select(opposed, norms[2], builder.fmul(norms[2], e.splat(0.5)))
    factors = []
    for norm in norms[:2]:
        factor = builder.fsub(e.splat(1.0), builder.fdiv(both, norm))
        factors.append(builder.select(builder.fcmp_ordered("<", norm, e.splat(_NO_CHANGE)), e.splat(1.0), factor))
    with e.loop(e.integer(0), row_bytes, VECTOR_BYTES) as columns:
        a, b = changes(columns.index)
        yield columns.index, e.fma(factors[1], b, builder.fmul(factors[0], a))


_NO_CHANGE = 1e-30
"""Squared norm of a change."""


def _sum_of_lanes(e: Emitter, vector: Value) -> Value:
    """The sum of the eight lanes, in the order of a fixed tree."""
    lanes = [e.builder.extract_element(vector, ir.Constant(I32, lane)) for lane in range(LANES)]
    while len(lanes) > 1:
        lanes = [e.builder.fadd(a, b) for a, b in zip(lanes[::2], lanes[1::2], strict=True)]
    return lanes[0]
