"""From context rows to hidden rows and back: the passes over a block before and after its groups, written as LLVM code.

Both passes walk along the block with a running sum of rows. The sum stays in registers: a row is cut into tiles of at most
`REGISTERS` vectors, and each tile walks the whole block. The addresses that a target or a row needs are prepared in arrays, so
the passes contain no branches.

For each target one row that will be needed later is prefetched, which spreads the waiting for memory over all the work. A core
can have only a limited number of cache lines in flight, and a burst of requests would hold up everything behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from w2v_core.kernels.cpu.row_operations import ask_for_tile
from w2v_core.kernels.cpu.vector_ir import VECTOR_BYTES, Emitter, Value, operation

REGISTERS = 13
"""Vectors of a running sum: AVX2 has sixteen registers, and this leaves three to work with."""
LONG_ROW_TILE = 10
"""Most vectors of a tile where a row takes several. With rows of 304 floats, tiles of a third of a row made training 2 % slower
than tiles of a quarter, tiles of half a row 6 % slower (infra/benchmarks/records/kernel-steps-2026-11-28.md)."""


@operation(10)
def sum_windows(
    e: Emitter, rows: Value, lead: Value, prefixes: Value, uppers: Value, lowers: Value, owns: Value, ahead: Value,
    targets: Value, hidden: Value, row_bytes: Value,
) -> None:  # fmt: skip
    """prefix 0 = 0; prefix j + 1 = prefix j + row j; hidden t = upper t − lower t − own t.

    All arguments but the numbers `lead`, `targets` and `row_bytes` are arrays of addresses. Hidden row t is computed as soon
    as prefix lead + t + 1 exists, so uppers and lowers may refer only to prefixes up to that one. `ahead` holds the rows to
    prefetch, one for each target.
    """

    def walk(offset: Value, wide: int) -> None:
        tile = e.columns(offset, wide)
        at = [column.offset for column in tile]

        def add_row(index: Value, sums: Sequence[Value]) -> list[Value]:
            row, prefix = e.load_address(rows, index), e.load_address(prefixes, e.builder.add(index, e.integer(1)))
            sums = [e.builder.fadd(total, e.load(row, at[v])) for v, total in enumerate(sums)]
            for v, total in enumerate(sums):
                e.store(total, prefix, at[v])
            return sums

        zeros, first = [e.splat(0.0)] * wide, e.load_address(prefixes, 0)
        for v in range(wide):
            e.store(zeros[v], first, at[v])
        with e.loop(e.integer(0), lead, 1, zeros) as leading:
            leading.next = add_row(leading.index, leading.state)
        with e.loop(e.integer(0), targets, 1, leading.state) as following:
            target = following.index
            following.next = add_row(e.builder.add(lead, target), following.state)
            upper, lower, own, row = (e.load_address(addresses, target) for addresses in (uppers, lowers, owns, hidden))
            ask_for_tile(e, e.load_address(ahead, target), tile)
            for v in range(wide):
                window = e.builder.fsub(e.load(upper, at[v]), e.load(lower, at[v]))
                e.store(e.builder.fsub(window, e.load(own, at[v])), row, at[v])

    _in_registers(e, row_bytes, walk)


@operation(13)
def move_context(
    e: Emitter, begins: Value, ends: Value, to_changes: Value, gradients: Value, ahead: Value, targets: Value,
    changes: Value, owns: Value, rows: Value, rows_to: Value, rates: Value, count: Value, row_bytes: Value,
) -> None:  # fmt: skip
    """begin t += gradient t; end t −= gradient t; then, in order, total += change j; row rows_to[j] = row j + rate j ·
    (total − own j); change j = 0.

    `rates` is float32; the other arrays hold addresses. The addresses in `begins` and `ends` lie `to_changes` bytes before the
    changes they refer to. Row j is moved after target j, when nothing more is added to its change; the rows from `targets` up
    to `count` follow after the last target. `ahead` holds the rows to prefetch, one for each target.
    """

    def walk(offset: Value, wide: int) -> None:
        tile = e.columns(offset, wide)
        at = [column.offset for column in tile]

        def move_row(index: Value, sums: Sequence[Value]) -> list[Value]:
            change, own, row, to = (e.load_address(addresses, index) for addresses in (changes, owns, rows, rows_to))
            rate = e.broadcast(rates, e.builder.shl(index, e.integer(2)))
            sums = [e.builder.fadd(total, e.load(change, at[v])) for v, total in enumerate(sums)]
            for v, total in enumerate(sums):
                e.store(e.splat(0.0), change, at[v])
                moved = e.builder.fsub(total, e.load(own, at[v]))
                e.store(e.fma(rate, moved, e.load(row, at[v])), to, at[v])
            return sums

        with e.loop(e.integer(0), targets, 1, [e.splat(0.0)] * wide) as following:
            target = following.index
            begin, end = (e.builder.add(e.load_address(addresses, target), to_changes) for addresses in (begins, ends))
            gradient = e.load_address(gradients, target)
            ask_for_tile(e, e.load_address(ahead, target), tile)
            for v in range(wide):
                value = e.load(gradient, at[v])
                e.store(e.builder.fadd(e.load(begin, at[v]), value), begin, at[v])
                e.store(e.builder.fsub(e.load(end, at[v]), value), end, at[v])
            following.next = move_row(target, following.state)
        with e.loop(targets, count, 1, following.state) as trailing:
            trailing.next = move_row(trailing.index, trailing.state)

    _in_registers(e, row_bytes, walk)


def _in_registers(e: Emitter, row_bytes: Value, walk: Callable[[Value, int], None]) -> None:
    """Runs walk(byte offset, vectors) for every tile of a row; the tiles have about the same width."""
    builder, one = e.builder, e.integer(1)
    vectors = builder.sdiv(row_bytes, e.integer(VECTOR_BYTES))
    is_short = builder.icmp_signed("<=", vectors, e.integer(REGISTERS))
    most = builder.select(is_short, e.integer(REGISTERS), e.integer(LONG_ROW_TILE))
    tiles = builder.sdiv(builder.add(vectors, builder.sub(most, one)), most)
    widest = builder.sdiv(builder.add(vectors, builder.sub(tiles, one)), tiles)
    with e.loop(e.integer(0), tiles, 1, [e.integer(0)]) as tile:
        first = tile.state[0]
        left = builder.sub(vectors, first)
        wide = builder.select(builder.icmp_signed("<", left, widest), left, widest)
        offset = builder.mul(first, e.integer(VECTOR_BYTES))
        e.choose(wide, {count: partial(walk, offset, count) for count in range(1, REGISTERS + 1)})
        tile.next = [builder.add(first, wide)]
