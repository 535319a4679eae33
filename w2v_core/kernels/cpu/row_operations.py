"""The row operations of the CPU kernels, written as LLVM code: everything whose time grows with the vector size.

A group is eight examples; `H` stands for their eight hidden rows (sums of context rows, not yet divided by their number n). All
arguments are int64: addresses, counts, and `row_bytes`, the size of a row, a multiple of 32. A row may be written twice by one
operation (a word may occur twice in a group), so each operation states the order of its reads and writes.

The target is a processor with two loads, two multiply-adds and one store per cycle: each tile below is shaped so that it needs
at most one load for each multiply-add and keeps its sums in the sixteen registers of AVX2. Where the processor computes sixteen
lanes at once (`vector_ir.WIDEST`), the same tiles are twice as wide; no number comes out differently.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from llvmlite import ir

from w2v_core.kernels.cpu.vector_ir import (
    I32,
    I64,
    LANES,
    LINE_BYTES,
    V8D,
    V8F,
    V8I,
    VECTOR_BYTES,
    WIDEST,
    Column,
    Emitter,
    Value,
    operation,
)

GROUP = LANES
HALF = 4
UNROLLED = 5
"""Noise rows in one iteration of a tile of gradients: the usual number of noise words."""
ALPHA, LINEAR, PRODUCT, EXPONENTS, SETTINGS_FLOATS = 0, 16, 32, 48, 64
"""Indices into the floats that `errors` reads α from and adds the loss to, and their number; see `errors`."""
V8L = ir.VectorType(I64, LANES)


def over_columns(e: Emitter, row_bytes: Value, most: int, body: Callable[[list[Column]], None]) -> None:
    """Runs body(columns) for all columns of a row, in tiles of `most` vectors of the emitter's lanes. The last tile may be
    smaller than that, or half a vector larger: half a vector by itself would take as long as a whole one."""
    builder, each = e.builder, e.lanes // LANES
    tile, eights = each * most, builder.sdiv(row_bytes, e.integer(VECTOR_BYTES))
    tiles = builder.sdiv(builder.sub(eights, e.integer(each)), e.integer(tile))
    end = builder.mul(tiles, e.integer(tile * VECTOR_BYTES))
    with e.loop(e.integer(0), end, tile * VECTOR_BYTES) as columns:
        body(e.columns(columns.index, tile))
    rest = builder.sub(eights, builder.mul(tiles, e.integer(tile)))
    e.choose(rest, {count: partial(body, e.columns(end, count)) for count in range(1, tile + each)})


def row_at(e: Emitter, address: Value, row_bytes: Value, index: int) -> Value:
    """The address of row `index` of rows that begin at an address."""
    return e.builder.add(address, e.builder.mul(row_bytes, e.integer(index))) if index else address


@operation(3)
def zero_rows(e: Emitter, target: Value, row_bytes: Value, rows: Value) -> None:
    """target = 0, `rows` rows."""
    with e.loop(e.integer(0), e.builder.mul(row_bytes, rows), VECTOR_BYTES) as columns:
        e.store(e.splat(0.0), target, columns.index)


@operation(3)
def copy_row(e: Emitter, target: Value, source: Value, row_bytes: Value) -> None:
    """target = source."""
    with e.loop(e.integer(0), row_bytes, VECTOR_BYTES) as columns:
        e.store(e.load(source, columns.index), target, columns.index)


@operation(5)
def add_scaled_row(e: Emitter, target: Value, a: Value, b: Value, factor: Value, row_bytes: Value) -> None:
    """target = a + factor · b, with the product and the sum rounded separately; `factor` is the address of a float32."""
    scale = e.broadcast(factor)
    with e.loop(e.integer(0), row_bytes, VECTOR_BYTES) as columns:
        product = e.builder.fmul(scale, e.load(b, columns.index))
        e.store(e.builder.fadd(e.load(a, columns.index), product), target, columns.index)


def _prefetch(level: int) -> Any:
    @operation(2)
    def prefetch_row(e: Emitter, address: Value, row_bytes: Value) -> None:
        """Prefetches the cache lines of a row, which may start at any vector."""
        with e.loop(e.integer(0), row_bytes, LINE_BYTES) as columns:
            e.prefetch(address, columns.index, level)

    return prefetch_row


prefetch_near, prefetch_far = _prefetch(3), _prefetch(2)


def ask_for_tile(e: Emitter, row: Value, at: Sequence[Column]) -> None:
    """Prefetches, for writing, the cache lines of a row's columns `at`."""
    for place in at[:: LINE_BYTES // (4 * e.lanes)]:
        e.prefetch_to_write(row, place.offset)


def gradients_in(lanes: int) -> Any:
    """`gradient_rows` in vectors of so many lanes: 8 or 16, with the same bits."""

    @operation(8)
    def gradient_rows(
        e: Emitter, gradients: Value, stride: Value, target_addresses: Value, noise_addresses: Value, to_gradient: Value,
        negative: Value, ahead: Value, row_bytes: Value,
    ) -> None:  # fmt: skip
        """gradient u = to_gradient[0][u] · target u + Σ over k of to_gradient[k + 1][u] · noise row k. The eight rows whose
        addresses are at `ahead` are prefetched, a tile's columns with each tile."""
        e = Emitter(e.builder, lanes)

        def body(at: list[Column]) -> None:
            for u in range(GROUP):
                ask_for_tile(e, e.load_address(ahead, u), at)
            for half in range(0, GROUP, HALF):
                _gradients_of_tile(e, at, gradients, stride, target_addresses, noise_addresses, to_gradient, negative, half)

        over_columns(e, row_bytes, 3, body)

    return gradient_rows


def _gradients_of_tile(
    e: Emitter, at: list[Column], gradients: Value, stride: Value, target_addresses: Value, noise_addresses: Value,
    to_gradient: Value, negative: Value, first_row: int,
) -> None:  # fmt: skip
    wide = len(at)

    def add_noise(index: Value, sums: Sequence[Value]) -> list[Value]:
        row = e.load_address(noise_addresses, index)
        words = [e.load_column(row, place) for place in at]
        factors = e.builder.add(to_gradient, e.builder.mul(e.builder.add(index, e.integer(1)), e.integer(VECTOR_BYTES)))
        sums = list(sums)
        for u in range(HALF):
            factor = e.broadcast(factors, 4 * (first_row + u))
            for v in range(wide):
                sums[u * wide + v] = e.fma(factor, words[v], sums[u * wide + v])
        return sums

    first = []
    for u in range(first_row, first_row + HALF):
        factor, target = e.broadcast(to_gradient, 4 * u), e.load_address(target_addresses, u)
        first += [e.builder.fmul(factor, e.load_column(target, place)) for place in at]
    whole = e.builder.sub(negative, e.builder.srem(negative, e.integer(UNROLLED)))
    with e.loop(e.integer(0), whole, UNROLLED, first) as noise:
        for k in range(UNROLLED):
            noise.next = add_noise(e.builder.add(noise.index, e.integer(k)), noise.next)
    with e.loop(whole, negative, 1, noise.state) as rest:
        rest.next = add_noise(rest.index, rest.state)
    for u in range(HALF):
        row = row_at(e, gradients, stride, first_row + u)
        for v, place in enumerate(at):
            e.store_column(rest.state[u * wide + v], row, place)


gradient_rows = gradients_in(WIDEST)


def updates_in(lanes: int, count: int, with_targets: bool) -> Any:
    """The updates of `count` noise rows, of the targets too if wanted, in vectors of 8 or 16 lanes, with the same bits."""

    @operation(9)
    def updates(
        e: Emitter, hidden: Value, stride: Value, target_addresses: Value, targets_to: Value, noise_addresses: Value,
        noise_to: Value, to_output: Value, ahead: Value, row_bytes: Value,
    ) -> None:  # fmt: skip
        """Row noise_to[k] = noise row k + Σ over u of to_output[k][u] · H u, for `count` rows in order; a row may occur twice.

        With targets, row targets_to[u] = target u + to_output[−1][u] · H u comes first, in order of u. The `count` rows whose
        addresses are at `ahead` are prefetched, a tile's columns with each tile: all at once they would fill the queue of
        memory requests that everything else has to pass through.
        """
        e = Emitter(e.builder, lanes)
        noise, moved = ([e.load_address(rows, k) for k in range(count)] for rows in (noise_addresses, noise_to))
        rows = [row_at(e, hidden, stride, u) for u in range(GROUP)]
        to_target = e.builder.sub(to_output, e.integer(GROUP * 4))

        def body(at: list[Column]) -> None:
            for k in range(count):
                ask_for_tile(e, e.load_address(ahead, k), at)
            sums: list[list[Value]] = [[]] * count
            for u in range(GROUP):
                values = [e.load_column(rows[u], place) for place in at]
                if with_targets:
                    factor = e.broadcast(to_target, 4 * u)
                    target, to = (e.load_address(addresses, u) for addresses in (target_addresses, targets_to))
                    for value, place in zip(values, at, strict=True):
                        e.store_column(e.fma(factor, value, e.load_column(target, place)), to, place)
                for k in range(count):
                    factor = e.broadcast(to_output, (k * GROUP + u) * 4)
                    if u:
                        sums[k] = [e.fma(factor, value, total) for value, total in zip(values, sums[k], strict=True)]
                    else:
                        sums[k] = [e.builder.fmul(factor, value) for value in values]
            for k in range(count):
                for total, place in zip(sums[k], at, strict=True):
                    e.store_column(e.builder.fadd(e.load_column(noise[k], place), total), moved[k], place)

        # Sums of five rows by three vectors do not fit into the sixteen registers of AVX2; AVX-512 has 32.
        over_columns(e, row_bytes, 2 if count > 3 and lanes == LANES else 3, body)

    return updates


updates_1, updates_2, updates_3, updates_4, updates_5 = (updates_in(WIDEST, count, True) for count in range(1, 6))
noise_updates_1, noise_updates_2, noise_updates_3, noise_updates_4, noise_updates_5 = (
    updates_in(WIDEST, count, False) for count in range(1, 6)
)


# ── errors: eight logits at a time, one lane for each example ────────────────────────────────────────────────────────

_LOG2_E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
"""ln 2 in two parts, the first with few enough bits that n·high is exact (Cody and Waite 1980)."""
_ROUNDER = 12582912.0
"""1.5·2**23: adding it to |x| < 2**22 rounds x to a whole number, which is then found in the lowest bits."""
_EXP_TERMS = (1.0, 1.0, 0.5, 1 / 6, 1 / 24, 1 / 120, 1 / 720)


def _exp_of_minus(e: Emitter, x: Value) -> Value:
    """e**−|x| with a relative error of 2e-7, down to e**−87; NaN for NaN. A Taylor polynomial on |r| <= ln 2 / 2, times 2**n."""
    builder = e.builder
    y = builder.fneg(e.call("llvm.fabs", x))
    # An ordered comparison is false for NaN, so NaN passes through.
    y = builder.select(builder.fcmp_ordered("<", y, e.splat(-87.0)), e.splat(-87.0), y)
    shifted = e.fma(y, e.splat(_LOG2_E), e.splat(_ROUNDER))
    whole = builder.fsub(shifted, e.splat(_ROUNDER))
    rest = e.fma(whole, e.splat(-_LN2_LOW), e.fma(whole, e.splat(-_LN2_HIGH), y))
    # Pairs of terms first (Estrin's scheme): every step that has to wait for the one before it costs four cycles.
    square = builder.fmul(rest, rest)
    pairs = [e.fma(e.splat(high), rest, e.splat(low)) for low, high in zip(_EXP_TERMS[0:6:2], _EXP_TERMS[1:6:2], strict=True)]
    upper = e.fma(e.fma(e.splat(_EXP_TERMS[6]), square, pairs[2]), square, pairs[1])
    power = e.fma(upper, square, pairs[0])
    exponent = builder.shl(builder.bitcast(shifted, V8I), e.splat_int(23))
    return builder.bitcast(builder.add(builder.bitcast(power, V8I), exponent), V8F)


def _lane_sums(e: Emitter, partials: Value) -> Value:
    """Lane u = the sum of the eight lanes of partial u, in the order of a fixed tree, the same on every processor.

    Where one of the two vectors to be added can keep its lanes in place, it is made by a blend, which is cheaper than a shuffle.
    """
    builder = e.builder
    rows = [e.load(partials, u * VECTOR_BYTES) for u in range(GROUP)]
    # First two rows per vector: lanes 0 + 2 and 1 + 3 of each half; then four rows: the sums of each half; then all eight.
    rows = [
        builder.fadd(e.shuffle(a, b, [0, 1, 10, 11, 4, 5, 14, 15]), e.shuffle(a, b, [2, 3, 8, 9, 6, 7, 12, 13]))
        for a, b in zip(rows[::2], rows[1::2], strict=True)
    ]
    low, high = (
        builder.fadd(e.shuffle(a, b, [0, 2, 8, 10, 4, 6, 12, 14]), e.shuffle(a, b, [1, 3, 9, 11, 5, 7, 13, 15]))
        for a, b in zip(rows[::2], rows[1::2], strict=True)
    )
    return builder.fadd(e.shuffle(low, high, [0, 1, 2, 3, 12, 13, 14, 15]), e.shuffle(low, high, [4, 5, 6, 7, 8, 9, 10, 11]))


@operation(11)
def errors(
    e: Emitter, partials: Value, words: Value, noise_ids: Value, inverses: Value, scales: Value, rates: Value,
    noise_rates: Value, settings: Value, to_gradient: Value, to_output: Value, negative: Value,
) -> None:  # fmt: skip
    """Turns partial products into steps: to_gradient[k][u] and to_output[k][u] for the target (k = 0) and each noise word.

    `words` int32 (8,), −1 for an absent example; `inverses` float32 (8,), 1/n; `scales` float32 (8,), the factors of the
    gradients; `rates` float32 (8,) and `noise_rates` float32 (K,), the factors of the steps of the words' rows. `settings`
    holds α (ALPHA, float32) and the loss so far in eight lanes: LINEAR float64 + log(PRODUCT float64 · 2**EXPONENTS int64).
    Absent examples, and noise words equal to the target, get steps of 0 and add nothing to the loss.
    """
    inverse, scale = e.load(inverses), e.load(scales)
    alpha = e.broadcast(settings, 4 * ALPHA)
    targets = e.load(words, 0, V8I)
    present = e.builder.icmp_signed(">=", targets, e.splat_int(0))
    zero = e.integer(0)

    def row(index: Value, counted: Value, rate: Value, positive: bool, linear: Value, product: Value) -> list[Value]:
        sums = _lane_sums(e, e.builder.add(partials, e.builder.mul(index, e.integer(GROUP * VECTOR_BYTES))))
        logit = e.builder.fmul(sums, inverse)
        sigma, above, factor = _error(e, logit, positive)
        step = e.builder.fmul(sigma, alpha if positive else e.builder.fneg(alpha))
        step = e.builder.select(counted, step, e.splat(0.0))
        offset = e.builder.mul(index, e.integer(VECTOR_BYTES))
        e.store(e.builder.fmul(step, scale), to_gradient, offset)
        e.store(e.builder.fmul(e.builder.fmul(step, inverse), rate), to_output, offset)
        linear = e.builder.fadd(linear, e.builder.select(counted, above, e.splat(0.0)))
        return [linear, e.builder.fmul(product, e.builder.select(counted, factor, e.splat(1.0)))]

    begun = row(zero, present, e.load(rates), True, e.splat(0.0), e.splat(1.0))
    with e.loop(zero, negative, 1, begun) as noise:
        at = e.builder.mul(noise.index, e.integer(4))
        word, rate = e.broadcast(noise_ids, at, I32), e.broadcast(noise_rates, at)
        counted = e.builder.and_(present, e.builder.icmp_signed("!=", targets, word))
        noise.next = row(e.builder.add(noise.index, e.integer(1)), counted, rate, False, *noise.state)
    _add_loss(e, settings, *noise.state)


def _error(e: Emitter, logit: Value, positive: bool) -> tuple[Value, Value, Value]:
    """(σ(∓x), max(∓x, 0), 1 + e**−|x|), the upper sign for the target; the loss is the second plus the log of the third."""
    builder = e.builder
    small = _exp_of_minus(e, logit)
    factor = builder.fadd(e.splat(1.0), small)
    # With t = e**−|x|: σ(x) = 1/(1+t) for x >= 0, t/(1+t) below. NaN selects the 1, and the divisor makes the result NaN.
    over = builder.fcmp_ordered(">=" if positive else "<", logit, e.splat(0.0))
    sigma = builder.fdiv(builder.select(over, small, e.splat(1.0)), factor)
    # (|x| ∓ x)/2 is that maximum; for infinite x it is NaN or infinite, which makes divergence visible.
    size = e.call("llvm.fabs", logit)
    above = builder.fmul(builder.fsub(size, logit) if positive else builder.fadd(size, logit), e.splat(0.5))
    return sigma, above, factor


_MANTISSA = (1 << 52) - 1
_ONE = 1023 << 52


def _add_loss(e: Emitter, settings: Value, linear: Value, factor: Value) -> None:
    """Adds to the linear part, and multiplies the product Π(1 + t), whose mantissa and exponent are kept apart.

    That way the logarithm is taken only once per slice; each factor adds a relative error of 1e-16 to the product.
    """
    builder = e.builder

    def splat(value: int) -> Value:
        return ir.Constant(V8L, [ir.Constant(I64, value)] * LANES)

    e.store(builder.fadd(e.load(settings, 4 * LINEAR, V8D), builder.fpext(linear, V8D)), settings, 4 * LINEAR)
    product = builder.fmul(e.load(settings, 4 * PRODUCT, V8D), builder.fpext(factor, V8D))
    bits = builder.bitcast(product, V8L)
    exponents = builder.add(e.load(settings, 4 * EXPONENTS, V8L), builder.lshr(bits, splat(52)))
    e.store(builder.sub(exponents, splat(1023)), settings, 4 * EXPONENTS)
    e.store(builder.bitcast(builder.or_(builder.and_(bits, splat(_MANTISSA)), splat(_ONE)), V8D), settings, 4 * PRODUCT)
