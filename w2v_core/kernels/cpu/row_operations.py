"""The row operations of the CPU kernels, written as LLVM code: everything whose time grows with the vector size.

A group is eight examples; `H` stands for their eight hidden rows (sums of context rows, not yet divided by their number n). All
arguments are int64: addresses, counts, and `row_bytes`, the size of a row, a multiple of 32. A row may be written twice by one
operation (a word may occur twice in a group), so each operation states the order of its reads and writes.

The target is a processor with two loads, two multiply-adds and one store per cycle: each tile below is shaped so that it needs
at most one load for each multiply-add and keeps its sums in the sixteen registers of AVX2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from w2v_core.kernels.cpu.vector_ir import I32, I64, LANES, LINE_BYTES, V8D, V8F, V8I, VECTOR_BYTES, Emitter, Value, operation

GROUP = LANES
HALF = 4
UNROLLED = 5
"""Noise rows in one iteration of a tile of gradients: the usual number of noise words."""
ALPHA, LINEAR, PRODUCT, EXPONENTS, SETTINGS_FLOATS = 0, 16, 32, 48, 64
"""Indices into the floats that `errors` reads α from and adds the loss to, and their number; see `errors`."""
V8L = ir.VectorType(I64, LANES)


def over_columns(e: Emitter, row_bytes: Value, wide: int, body: Callable[[Value, int], None]) -> None:
    """Runs body(byte offset, vectors) over a row: `wide` vectors at a time, then one by one."""
    step = wide * VECTOR_BYTES
    whole = e.builder.sub(row_bytes, e.builder.srem(row_bytes, e.integer(step)))
    with e.loop(e.integer(0), whole, step) as columns:
        body(columns.index, wide)
    if wide > 1:
        with e.loop(whole, row_bytes, VECTOR_BYTES) as columns:
            body(columns.index, 1)


def column(e: Emitter, offset: Value, vector: int) -> Value:
    return e.builder.add(offset, e.integer(vector * VECTOR_BYTES)) if vector else offset


def _row(e: Emitter, address: Value, row_bytes: Value, index: int) -> Value:
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


def ask_for_tile(e: Emitter, row: Value, at: Sequence[Value]) -> None:
    """Prefetches, for writing, the cache lines of a tile: the vectors of a row at the byte offsets `at`."""
    for offset in at[::2]:
        e.prefetch_to_write(row, offset)


def _products(count: int, with_targets: bool) -> Any:
    @operation(6)
    def products(
        e: Emitter, hidden: Value, stride: Value, target_addresses: Value, noise_addresses: Value, partials: Value,
        row_bytes: Value,
    ) -> None:  # fmt: skip
        """partials[k][u] = the eight lanes of H u · noise row k for `count` noise rows; with targets, H u · target u comes first.

        Tiles of four hidden rows by `count` (+ 1) other rows. The hidden rows are `stride` bytes apart.
        """
        noise = [e.load_address(noise_addresses, k) for k in range(count)]
        width = count + with_targets
        for half in range(0, GROUP, HALF):
            rows = [_row(e, hidden, stride, half + u) for u in range(HALF)]
            targets = [e.load_address(target_addresses, half + u) for u in range(HALF)] if with_targets else []
            with e.loop(e.integer(0), row_bytes, VECTOR_BYTES, [e.splat(0.0)] * (HALF * width)) as columns:
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


noise_products_1, noise_products_2, noise_products_3 = (_products(count, False) for count in (1, 2, 3))
products_1, products_2 = (_products(count, True) for count in (1, 2))


@operation(7)
def gradient_rows(
    e: Emitter, gradients: Value, stride: Value, target_addresses: Value, noise_addresses: Value, to_gradient: Value,
    negative: Value, row_bytes: Value,
) -> None:  # fmt: skip
    """gradient u = to_gradient[0][u] · target u + Σ over k of to_gradient[k + 1][u] · noise row k."""

    def body(offset: Value, wide: int) -> None:
        at = [column(e, offset, vector) for vector in range(wide)]
        for half in range(0, GROUP, HALF):

            def add_noise(index: Value, sums: Sequence[Value], half: int = half) -> list[Value]:
                row = e.load_address(noise_addresses, index)
                words = [e.load(row, at[v]) for v in range(wide)]
                factors = e.builder.add(to_gradient, e.builder.mul(e.builder.add(index, e.integer(1)), e.integer(VECTOR_BYTES)))
                sums = list(sums)
                for u in range(HALF):
                    factor = e.broadcast(factors, 4 * (half + u))
                    for v in range(wide):
                        sums[u * wide + v] = e.fma(factor, words[v], sums[u * wide + v])
                return sums

            first = []
            for u in range(half, half + HALF):
                factor, target = e.broadcast(to_gradient, 4 * u), e.load_address(target_addresses, u)
                first += [e.builder.fmul(factor, e.load(target, at[v])) for v in range(wide)]
            whole = e.builder.sub(negative, e.builder.srem(negative, e.integer(UNROLLED)))
            with e.loop(e.integer(0), whole, UNROLLED, first) as noise:
                for k in range(UNROLLED):
                    noise.next = add_noise(e.builder.add(noise.index, e.integer(k)), noise.next)
            with e.loop(whole, negative, 1, noise.state) as rest:
                rest.next = add_noise(rest.index, rest.state)
            for u in range(HALF):
                row = _row(e, gradients, stride, half + u)
                for v in range(wide):
                    e.store(rest.state[u * wide + v], row, at[v])

    over_columns(e, row_bytes, 3, body)


def _updates(count: int, columns_wide: int, with_targets: bool) -> Any:
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
        noise, moved = ([e.load_address(rows, k) for k in range(count)] for rows in (noise_addresses, noise_to))
        rows = [_row(e, hidden, stride, u) for u in range(GROUP)]
        to_target = e.builder.sub(to_output, e.integer(GROUP * 4))

        def body(offset: Value, wide: int) -> None:
            at = [column(e, offset, vector) for vector in range(wide)]
            for k in range(count):
                ask_for_tile(e, e.load_address(ahead, k), at)
            sums: list[Value] = []
            for u in range(GROUP):
                values = [e.load(rows[u], at[v]) for v in range(wide)]
                if with_targets:
                    factor = e.broadcast(to_target, 4 * u)
                    target, to = (e.load_address(addresses, u) for addresses in (target_addresses, targets_to))
                    for v in range(wide):
                        e.store(e.fma(factor, values[v], e.load(target, at[v])), to, at[v])
                for k in range(count):
                    factor = e.broadcast(to_output, (k * GROUP + u) * 4)
                    for v in range(wide):
                        if u:
                            sums[k * wide + v] = e.fma(factor, values[v], sums[k * wide + v])
                        else:
                            sums.append(e.builder.fmul(factor, values[v]))
            for k in range(count):
                for v in range(wide):
                    e.store(e.builder.fadd(e.load(noise[k], at[v]), sums[k * wide + v]), moved[k], at[v])

        over_columns(e, row_bytes, columns_wide, body)

    return updates


_WIDE = {1: 3, 2: 3, 3: 3, 4: 2, 5: 2}
"""Vectors in a tile of updates, by the number of its noise rows."""
updates_1, updates_2, updates_3, updates_4, updates_5 = (_updates(count, wide, True) for count, wide in _WIDE.items())
noise_updates_1, noise_updates_2, noise_updates_3, noise_updates_4, noise_updates_5 = (
    _updates(count, wide, False) for count, wide in _WIDE.items()
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
