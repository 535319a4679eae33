"""The products of a group's hidden rows with its targets and noise rows, written as LLVM code.

Each product is left as eight partial sums, which `row_operations.errors` adds up over a fixed tree. A vector of sixteen lanes
holds the eight of one product and the eight of another, so no sum gets another order: the bits are the same whether the
processor computes eight lanes at once or sixteen.

These passes compute more than they load, so the rows of W_in that the next block needs are prefetched here, into the second
level: the first is full, and they wait there for a whole block.
"""

from __future__ import annotations

from typing import Any

from w2v_core.kernels.cpu.row_operations import GROUP, HALF, row_at
from w2v_core.kernels.cpu.vector_ir import LANES, VECTOR_BYTES, Emitter, Value, operation


def products_of(count: int, with_targets: bool) -> Any:
    """In vectors of eight."""

    @operation(7)
    def products(
        e: Emitter, hidden: Value, stride: Value, target_addresses: Value, noise_addresses: Value, partials: Value,
        ahead: Value, row_bytes: Value,
    ) -> None:  # fmt: skip
        """partials[k][u] = the eight lanes of H u · noise row k for `count` noise rows; with targets, H u · target u comes first.

        Tiles of four hidden rows by `count` (+ 1) other rows. The hidden rows are `stride` bytes apart. With targets, the eight
        rows whose addresses are at `ahead` are prefetched.
        """
        noise = [e.load_address(noise_addresses, k) for k in range(count)]
        width = count + with_targets
        for half in range(0, GROUP, HALF):
            rows = [row_at(e, hidden, stride, half + u) for u in range(HALF)]
            targets = [e.load_address(target_addresses, half + u) for u in range(HALF)] if with_targets else []
            coming = [e.load_address(ahead, half + u) for u in range(HALF)] if with_targets else []
            with e.loop(e.integer(0), row_bytes, VECTOR_BYTES, [e.splat(0.0)] * (HALF * width)) as columns:
                for row in coming:
                    e.prefetch(row, columns.index, 2)
                words = [e.load(row, columns.index) for row in noise]
                columns.next = []
                for u in range(HALF):
                    value = e.load(rows[u], columns.index)
                    own = [e.load(targets[u], columns.index)] if with_targets else []
                    sums = columns.state[u * width : (u + 1) * width]
                    columns.next += [e.fma(value, word, total) for word, total in zip(own + words, sums, strict=True)]
            for u in range(HALF):
                for k in range(width):
                    e.store(columns.state[u * width + k], partials, (k * GROUP + half + u) * VECTOR_BYTES)

    return products


def paired_products_of(count: int, with_targets: bool) -> Any:
    """In vectors of sixteen."""

    @operation(7)
    def products(
        e: Emitter, hidden: Value, stride: Value, target_addresses: Value, noise_addresses: Value, partials: Value,
        ahead: Value, row_bytes: Value,
    ) -> None:  # fmt: skip
        """As `products_of`. One tile of eight hidden rows, two in a vector, by `count` (+ 1) other rows."""
        wide = Emitter(e.builder, 2 * LANES)
        noise = [e.load_address(noise_addresses, k) for k in range(count)]
        rows = [row_at(e, hidden, stride, u) for u in range(GROUP)]
        targets = [e.load_address(target_addresses, u) for u in range(GROUP)] if with_targets else []
        coming = [e.load_address(ahead, u) for u in range(GROUP)] if with_targets else []
        with e.loop(e.integer(0), row_bytes, VECTOR_BYTES, [wide.splat(0.0)] * (HALF * (count + with_targets))) as columns:
            for row in coming:
                e.prefetch(row, columns.index, 2)

            def pairs_of(some: list[Value]) -> list[Value]:
                values = [e.load(row, columns.index) for row in some]
                return [wide.beside(one, other) for one, other in zip(values[::2], values[1::2], strict=True)]

            values, factors = pairs_of(rows), pairs_of(targets)
            for row in noise:
                factors += pairs_of([row, row]) * HALF
            columns.next = [
                wide.fma(values[place % HALF], factor, total)
                for place, (factor, total) in enumerate(zip(factors, columns.state, strict=True))
            ]
        for place, total in enumerate(columns.state):
            e.store(total, partials, place * 2 * VECTOR_BYTES)

    return products


products_1, products_2 = (products_of(count, True) for count in (1, 2))
noise_products_1, noise_products_2, noise_products_3 = (products_of(count, False) for count in (1, 2, 3))
paired_1, paired_2, paired_3, paired_4, paired_5 = (paired_products_of(count, True) for count in range(1, 6))
noise_paired_1, noise_paired_2, noise_paired_3, noise_paired_4, noise_paired_5 = (
    paired_products_of(count, False) for count in range(1, 6)
)
