"""From context rows to hidden rows and back: the passes over a block before and after its groups, written as LLVM code.

Both passes walk along the block with a running sum of rows. The sum stays in registers: a row is cut into tiles, and each tile
walks the whole block. The addresses that a target or a row needs are prepared in arrays.

Nothing is prefetched here: these passes load and store as much as a core can. What they need later is asked for while groups are
trained, see `product_operations`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from w2v_core.kernels.cpu.vector_ir import LANES, VECTOR_BYTES, WIDEST, Column, Emitter, Value, operation

SHORT = 13
"""Most vectors of eight in a tile that fit, as a running sum, into the sixteen registers of AVX2 and leave three to work with."""
LONG_ROW_TILE = 10
"""Most vectors of a tile there where a row takes several. With rows of 304 floats, tiles of a third of a row made training 2 %
slower than tiles of a quarter, tiles of half a row 6 % slower (infra/benchmarks/records/kernel-steps-2026-11-28.md)."""
WIDE_TILE = 38
"""Most vectors of eight in a tile of sixteen lanes, where there are 32 registers: a whole row up to D = 304. Two tiles instead of
one took a tenth longer (infra/benchmarks/records/kernel-steps-2026-11-30.md). Above SHORT only even numbers are compiled."""


def sums_of_windows_in(lanes: int) -> Any:
    """`sum_windows` in vectors of so many lanes: 8 or 16, with the same bits."""

    @operation(9)
    def sum_windows(
        e: Emitter, rows: Value, lead: Value, prefixes: Value, uppers: Value, lowers: Value, owns: Value, targets: Value,
        hidden: Value, row_bytes: Value,
    ) -> None:  # fmt: skip
        """prefix 0 = 0; prefix j + 1 = prefix j + row j; hidden t = upper t − lower t − own t.

        All arguments but the numbers `lead`, `targets` and `row_bytes` are arrays of addresses. Hidden row t is computed as soon
        as prefix lead + t + 1 exists, so uppers and lowers may refer only to prefixes up to that one.
        """
        e = Emitter(e.builder, lanes)

        def walk(at: list[Column]) -> None:
            def add_row(index: Value, sums: Sequence[Value]) -> list[Value]:
                row, prefix = e.load_address(rows, index), e.load_address(prefixes, e.builder.add(index, e.integer(1)))
                sums = [e.builder.fadd(total, e.load_column(row, place)) for total, place in zip(sums, at, strict=True)]
                for total, place in zip(sums, at, strict=True):
                    e.store_column(total, prefix, place)
                return sums

            zeros, first = [e.splat(0.0)] * len(at), e.load_address(prefixes, 0)
            for zero, place in zip(zeros, at, strict=True):
                e.store_column(zero, first, place)
            with e.loop(e.integer(0), lead, 1, zeros) as leading:
                leading.next = add_row(leading.index, leading.state)
            with e.loop(e.integer(0), targets, 1, leading.state) as following:
                target = following.index
                following.next = add_row(e.builder.add(lead, target), following.state)
                upper, lower, own, row = (e.load_address(addresses, target) for addresses in (uppers, lowers, owns, hidden))
                for place in at:
                    window = e.builder.fsub(e.load_column(upper, place), e.load_column(lower, place))
                    e.store_column(e.builder.fsub(window, e.load_column(own, place)), row, place)

        _in_registers(e, row_bytes, walk)

    return sum_windows


def moves_of_context_in(lanes: int) -> Any:
    """`move_context` in vectors of so many lanes: 8 or 16, with the same bits."""

    @operation(10)
    def move_context(
        e: Emitter, first_edges: Value, next_edges: Value, gradients: Value, signs: Value, owns: Value, rows: Value,
        rows_to: Value, rates: Value, count: Value, row_bytes: Value,
    ) -> None:  # fmt: skip
        """For j < `count`, in order: sign · gradient of every edge at j is added to the total; row rows_to[j] = row j + rate j ·
        (total − own j).

        An edge is where a target's window begins, where the target's gradient is added, or the place behind its end, where it is
        subtracted. The edges at j are first_edges[j], next_edges[that] … until 0; `gradients` and `signs` are indexed by edge.
        `signs` and `rates` are float32, both kinds of edges int64, all other arguments but the numbers arrays of addresses of
        rows.
        """
        e = Emitter(e.builder, lanes)

        def walk(at: list[Column]) -> None:
            with e.loop(e.integer(0), count, 1, [e.splat(0.0)] * len(at)) as position:
                j = position.index
                # How many edges there are is hard to predict, but it is known long before the sums are.
                with e.chain(e.load_address(first_edges, j), next_edges, position.state) as edge:
                    sign = e.broadcast(signs, e.builder.shl(edge.index, e.integer(2)))
                    gradient = e.load_address(gradients, edge.index)
                    edge.next = [
                        e.fma(sign, e.load_column(gradient, place), total) for place, total in zip(at, edge.state, strict=True)
                    ]
                position.next = edge.state
                own, row, to = (e.load_address(addresses, j) for addresses in (owns, rows, rows_to))
                rate = e.broadcast(rates, e.builder.shl(j, e.integer(2)))
                for place, total in zip(at, edge.state, strict=True):
                    moved = e.builder.fsub(total, e.load_column(own, place))
                    e.store_column(e.fma(rate, moved, e.load_column(row, place)), to, place)

        _in_registers(e, row_bytes, walk)

    return move_context


def _in_registers(e: Emitter, row_bytes: Value, walk: Callable[[list[Column]], None]) -> None:
    """Runs walk(columns) for every tile of a row; the tiles have about the same width."""
    builder, one, eights = e.builder, e.integer(1), e.builder.sdiv(row_bytes, e.integer(VECTOR_BYTES))
    is_wide = e.lanes > LANES
    fits = builder.icmp_signed("<=", eights, e.integer(SHORT))
    if is_wide:
        is_even = builder.icmp_signed("==", builder.and_(eights, one), e.integer(0))
        most = builder.select(builder.or_(fits, is_even), e.integer(WIDE_TILE), e.integer(SHORT))
    else:
        most = builder.select(fits, e.integer(SHORT), e.integer(LONG_ROW_TILE))
    tiles = builder.sdiv(builder.add(eights, builder.sub(most, one)), most)
    widest = builder.sdiv(builder.add(eights, builder.sub(tiles, one)), tiles)
    if is_wide:
        widest = builder.and_(builder.add(widest, one), e.integer(-2))
    widths = [*range(1, SHORT + 1), *(range(SHORT + 1, WIDE_TILE + 1, 2) if is_wide else ())]
    with e.loop(e.integer(0), tiles, 1, [e.integer(0)]) as tile:
        first = tile.state[0]
        left = builder.sub(eights, first)
        width = builder.select(builder.icmp_signed("<", left, widest), left, widest)
        offset = builder.mul(first, e.integer(VECTOR_BYTES))
        e.choose(width, {count: partial(_walk_tile, e, walk, offset, count) for count in widths})
        tile.next = [builder.add(first, width)]


def _walk_tile(e: Emitter, walk: Callable[[list[Column]], None], offset: Value, count: int) -> None:
    walk(e.columns(offset, count))


sum_windows, move_context = sums_of_windows_in(WIDEST), moves_of_context_in(WIDEST)
