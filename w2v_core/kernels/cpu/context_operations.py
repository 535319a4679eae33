"""From context rows to hidden rows and back, written as LLVM code: the two passes over a block that surround its groups.

Both walk along the block with a running sum of rows. The sum stays in registers: a row is cut into tiles of at most
`REGISTERS` vectors, and each tile walks the whole block. What a target or a row needs stands ready in arrays of
addresses, so nothing is decided on the way.

On the way each target asks for one row that is needed later, so that the wait for memory is spread over all the work: a
core can have only so many lines under way, and a burst of more would hold up everything behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from w2v_core.kernels.cpu.row_operations import ask_for_tile
from w2v_core.kernels.cpu.vector_ir import VECTOR_BYTES, Emitter, Value, operation

REGISTERS = 13
"""Vectors of a running sum: AVX2 has sixteen registers, of which three are left to work with."""
LONG_ROW_TILE = 10
"""Most vectors of a tile where a row takes several: tiles of a third of a row of 304 floats took 2 % more of training's time
than those of a quarter, and of half a row 6 % (infra/benchmarks/records/kernel-steps-2026-11-28.md)."""


@operation(10)
def sum_windows(
    e: Emitter, rows: Value, lead: Value, prefixes: Value, uppers: Value, lowers: Value, owns: Value, ahead: Value,
    targets: Value, hidden: Value, row_bytes: Value,
) -> None:  # fmt: skip
    """prefix 0 = 0; prefix j + 1 = prefix j + row j; hidden t = upper t − lower t − own t.

    All are arrays of addresses. Target t of `targets` is taken as soon as there is prefix lead + t + 1, and uppers
    and lowers are of those. `ahead` are rows to ask for, one a target.
    """

    def walk(offset: Value, wide: int) -> None:
        at = [e.builder.add(offset, e.integer(v * VECTOR_BYTES)) for v in range(wide)]

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
            ask_for_tile(e, e.load_address(ahead, target), at)
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

    All but the rates, float32, are arrays of addresses; begins and ends lie `to_changes` bytes before the changes they stand
    for. Row j is taken after target j, the rows from `targets` up to `count` after the last: nothing is added to their
    changes any more. `ahead` are rows to ask for, one a target.
    """

    def walk(offset: Value, wide: int) -> None:
        at = [e.builder.add(offset, e.integer(v * VECTOR_BYTES)) for v in range(wide)]

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
            ask_for_tile(e, e.load_address(ahead, target), at)
            for v in range(wide):
                value = e.load(gradient, at[v])
                e.store(e.builder.fadd(e.load(begin, at[v]), value), begin, at[v])
                e.store(e.builder.fsub(e.load(end, at[v]), value), end, at[v])
            following.next = move_row(target, following.state)
        with e.loop(targets, count, 1, following.state) as trailing:
            trailing.next = move_row(trailing.index, trailing.state)

    _in_registers(e, row_bytes, walk)


def _in_registers(e: Emitter, row_bytes: Value, walk: Callable[[Value, int], None]) -> None:
    """Runs walk(byte offset, vectors) for every tile of a row; the tiles are about equally wide."""
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
