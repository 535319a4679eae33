"""From context rows to hidden rows and back: the passes over a block before and after its groups, written as LLVM code.

Both passes walk along the block with a running sum of rows. The sum stays in registers: a row is cut into tiles of at most
`REGISTERS` vectors, and each tile walks the whole block. The addresses that a target or a row needs are prepared in arrays.

Nothing is prefetched here: these passes load and store as much as a core can. What they need later is asked for while groups are
trained, see `product_operations`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from w2v_core.kernels.cpu.vector_ir import VECTOR_BYTES, Emitter, Value, operation

REGISTERS = 13
"""Vectors of a running sum: AVX2 has sixteen registers, and this leaves three to work with."""
LONG_ROW_TILE = 10
"""Most vectors of a tile where a row takes several. With rows of 304 floats, tiles of a third of a row made training 2 % slower
than tiles of a quarter, tiles of half a row 6 % slower (infra/benchmarks/records/kernel-steps-2026-11-28.md)."""


@operation(9)
def sum_windows(
    e: Emitter, rows: Value, lead: Value, prefixes: Value, uppers: Value, lowers: Value, owns: Value, targets: Value,
    hidden: Value, row_bytes: Value,
) -> None:  # fmt: skip
    """prefix 0 = 0; prefix j + 1 = prefix j + row j; hidden t = upper t − lower t − own t.

    All arguments but the numbers `lead`, `targets` and `row_bytes` are arrays of addresses. Hidden row t is computed as soon
    as prefix lead + t + 1 exists, so uppers and lowers may refer only to prefixes up to that one.
    """

    def walk(offset: Value, wide: int) -> None:
        at = [column.offset for column in e.columns(offset, wide)]

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
            for v in range(wide):
                window = e.builder.fsub(e.load(upper, at[v]), e.load(lower, at[v]))
                e.store(e.builder.fsub(window, e.load(own, at[v])), row, at[v])

    _in_registers(e, row_bytes, walk)


@operation(11)
def move_context(
    e: Emitter, first_edges: Value, next_edges: Value, gradients: Value, signs: Value, total_row: Value, owns: Value,
    rows: Value, rows_to: Value, rates: Value, count: Value, row_bytes: Value,
) -> None:  # fmt: skip
    """For j < `count`, in order: change = Σ of sign · gradient over the edges at j; total += change; row rows_to[j] = row j +
    rate j · (total − own j).

    An edge is where a target's window begins, where the target's gradient is added, or the place behind its end, where it is
    subtracted. The edges at j are first_edges[j], next_edges[that] … until 0; `gradients` and `signs` are indexed by edge.
    `signs` and `rates` are float32, both kinds of edges int64, all other arguments but the numbers addresses of rows: arrays
    of them, or one. `total_row` is memory to work in: the change alone fills the registers.
    """

    def walk(offset: Value, wide: int) -> None:
        at = [column.offset for column in e.columns(offset, wide)]
        zeros = [e.splat(0.0)] * wide
        for v in range(wide):
            e.store(zeros[v], total_row, at[v])
        with e.loop(e.integer(0), count, 1) as position:
            j = position.index
            # How many edges there are is hard to predict, but it is known long before the sums are.
            with e.chain(e.load_address(first_edges, j), next_edges, zeros) as edge:
                sign, gradient = (
                    e.broadcast(signs, e.builder.shl(edge.index, e.integer(2))),
                    e.load_address(gradients, edge.index),
                )
                edge.next = [e.fma(sign, e.load(gradient, at[v]), change) for v, change in enumerate(edge.state)]
            own, row, to = (e.load_address(addresses, j) for addresses in (owns, rows, rows_to))
            rate = e.broadcast(rates, e.builder.shl(j, e.integer(2)))
            for v, change in enumerate(edge.state):
                total = e.builder.fadd(e.load(total_row, at[v]), change)
                e.store(total, total_row, at[v])
                moved = e.builder.fsub(total, e.load(own, at[v]))
                e.store(e.fma(rate, moved, e.load(row, at[v])), to, at[v])

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
