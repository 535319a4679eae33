"""The kernels for CPUs: Numba functions over the row operations of `row_operations`; the default backend.

Three ideas make it fast (measured in infra/benchmarks/records/kernel-steps-2026-11-21.md):
1. Windows by prefix sums: with W_in frozen for a block, the sum of any window is a difference of two running sums, and the
   gradients reach the context rows through a difference array, so a target costs the same at every window.
2. Eight targets share their noise words: products and updates are small matrix products whose tiles stay in registers.
3. Nothing waits: rows are asked for a group or a block before they are used, errors are computed eight at a time without
   tables or libm, and the logarithm of the loss is taken once a slice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from w2v_core.kernels import (
    FloatRows,
    Gradient,
    Merge,
    Model,
    SliceResult,
    check_slice,
    raise_bad_noise,
    raise_bad_span,
    raise_bad_word,
)
from w2v_core.kernels import row_operations as op
from w2v_core.kernels.numpy_kernels import check_merge, mark_touched
from w2v_core.reference import BLOCK, GROUP, GROUPS, SLOTS

name = "numba"

_DONE, _BAD_SPAN, _BAD_WORD, _BAD_NOISE = 0, 1, 2, 3
_LINE_FLOATS = 16
_SETTINGS_FLOATS = 80



def train_slice(
    w_in_VD: FloatRows, w_out_VD: FloatRows,
    tokens_N: NDArray[np.int32], left_N: NDArray[np.uint8], right_N: NDArray[np.uint8],
    start: int, stop: int, noise_table: NDArray[np.int32], *,
    model: Model, gradient: Gradient, negative: int, alpha_start: float, alpha_end: float, seed: int,
) -> SliceResult:  # fmt: skip
    """See `Kernels.train_slice`. Releases the GIL; the first call of a model compiles or loads from Numba's cache."""
    check_slice(
        w_in_VD, w_out_VD, tokens_N, left_N, right_N, start, stop, noise_table,
        model=model, gradient=gradient, negative=negative, alpha_start=alpha_start, alpha_end=alpha_end,
    )  # fmt: skip
    vocab_size = len(w_in_VD)
    problem, where, span = _check_stream(tokens_N, left_N, right_N, start, stop, vocab_size)
    if problem == _BAD_SPAN:
        raise_bad_span(tokens_N, left_N, right_N, where)
    if problem == _BAD_WORD:
        raise_bad_word(tokens_N, where, vocab_size)
    train = _train_cbow if model == "cbow" else _train_skipgram
    loss_sum, examples, problem, where = train(
        w_in_VD, w_out_VD, tokens_N, left_N, right_N, start, stop, span, noise_table,
        gradient == "exact", negative, alpha_start, alpha_end, np.uint64(seed & (1 << 64) - 1),
    )  # fmt: skip
    if problem == _BAD_NOISE:
        raise_bad_noise(where, vocab_size)
    return SliceResult(loss_sum, examples)


@njit(nogil=True, cache=True)
def _check_stream(tokens_N: Any, left_N: Any, right_N: Any, start: int, stop: int, vocab_size: int) -> Any:
    """(problem, position, span) with span = (most rows before a target, most rows after, first row read, last row read + 1)."""
    most_left, most_right, first, last = 0, 0, start, stop
    for i in range(start, stop):
        left, right = np.int64(left_N[i]), np.int64(right_N[i])
        if i - left < 0 or i + right >= tokens_N.shape[0]:
            return _BAD_SPAN, i, (0, 0, 0, 0)
        most_left, most_right = max(most_left, left), max(most_right, right)
        first, last = min(first, i - left), max(last, i + right + 1)
    for i in range(first, last):
        if tokens_N[i] < 0 or tokens_N[i] >= vocab_size:
            return _BAD_WORD, i, (0, 0, 0, 0)
    return _DONE, 0, (most_left, most_right, first, last)


@njit(nogil=True, inline="always")
def _draw(noise_table: Any, seed: Any, counter: int) -> Any:
    z = seed + (np.uint64(counter) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    # The table's length is a power of two: the high bits times the length are the top bits themselves.
    return noise_table[np.int64(((z >> np.uint64(32)) * np.uint64(noise_table.shape[0])) >> np.uint64(32))]


@njit(nogil=True, inline="always")
def _floats(count: int) -> Any:
    """float32 (count,), zero, starting on a cache line."""
    raw = np.zeros(count + _LINE_FLOATS, np.float32)
    first = (-np.int64(raw.ctypes.data) % 64) // 4
    return raw[first : first + count]


@njit(nogil=True, inline="always")
def _address(array: Any) -> int:
    return np.int64(array.ctypes.data)


@njit(nogil=True, inline="always")
def _reset_settings(settings: Any) -> None:
    """The float block of `row_operations.errors` (1/n and scale of eight examples, α, the loss so far), zero, with loss 0."""
    settings[40:56].view(np.float64)[:] = 1.0


@njit(nogil=True, inline="always")
def _loss_of(settings: Any) -> float:
    """The loss summed in `settings`, float64: linear parts + log of the products."""
    linear, product, exponents = settings[24:40].view(np.float64), settings[40:56].view(np.float64), settings[56:72].view(np.int64)
    loss = 0.0
    for lane in range(GROUP):
        loss += linear[lane] + np.log(product[lane]) + exponents[lane] * np.log(2.0)
    return loss


@njit(nogil=True, inline="always")
def _products(hidden: int, stride: int, targets: int, noise: int, partials: int, negative: int, row_bytes: int) -> None:
    k = 1 if negative == 1 else 2
    if k == 1:
        op.products_1(hidden, stride, targets, noise, partials, row_bytes)
    else:
        op.products_2(hidden, stride, targets, noise, partials, row_bytes)
    while k < negative:
        rest = negative - k
        at = partials + (k + 1) * 256
        if rest >= 3 and rest != 4:
            op.noise_products_3(hidden, stride, 0, noise + 8 * k, at, row_bytes)
            k += 3
        elif rest >= 2:
            op.noise_products_2(hidden, stride, 0, noise + 8 * k, at, row_bytes)
            k += 2
        else:
            op.noise_products_1(hidden, stride, 0, noise + 8 * k, at, row_bytes)
            k += 1


@njit(nogil=True, inline="always")
def _noise_updates(hidden: int, stride: int, noise: int, to_output: int, negative: int, row_bytes: int) -> None:
    k = 0
    while k < negative:
        rest = negative - k
        at = to_output + (k + 1) * 32
        if rest >= 5:
            op.noise_updates_5(hidden, stride, noise + 8 * k, at, row_bytes)
            k += 5
        elif rest == 4:
            op.noise_updates_4(hidden, stride, noise + 8 * k, at, row_bytes)
            k += 4
        elif rest == 3:
            op.noise_updates_3(hidden, stride, noise + 8 * k, at, row_bytes)
            k += 3
        elif rest == 2:
            op.noise_updates_2(hidden, stride, noise + 8 * k, at, row_bytes)
            k += 2
        else:
            op.noise_updates_1(hidden, stride, noise + 8 * k, at, row_bytes)
            k += 1


@njit(nogil=True, cache=True)
def _train_cbow(
    w_in_VD: Any, w_out_VD: Any, tokens_N: Any, left_N: Any, right_N: Any, start: int, stop: int, span: Any, noise_table: Any,
    exact: bool, negative: int, alpha_start: float, alpha_end: float, seed: Any,
) -> Any:  # fmt: skip
    vocab_size, row_floats = w_in_VD.shape
    row_bytes = row_floats * 4
    w_in, w_out = _address(w_in_VD), _address(w_out_VD)
    reach_left, reach_right, first_row, last_row = span
    # Both running sums live in rings just long enough for one window, so they stay in the first-level cache.
    ring_rows = reach_left + reach_right + 2
    most_rows = BLOCK + reach_left + reach_right + 1
    scratch = _floats(_SETTINGS_FLOATS + (negative + 1) * GROUP * 10 + (2 * ring_rows + 2 * BLOCK + 4) * row_floats)
    settings_floats = scratch[:_SETTINGS_FLOATS]
    _reset_settings(settings_floats)
    settings = _address(scratch)
    partials = settings + _SETTINGS_FLOATS * 4
    to_gradient = partials + (negative + 1) * GROUP * 32
    to_output = to_gradient + (negative + 1) * GROUP * 4
    zero_row = to_output + (negative + 1) * GROUP * 4
    sink, running, ring = zero_row + row_bytes, zero_row + 2 * row_bytes, zero_row + 3 * row_bytes
    changes = ring_rows * row_bytes
    gradients = ring + 2 * ring_rows * row_bytes
    hidden = gradients + BLOCK * row_bytes
    ring_at = np.empty(most_rows + 1, np.int64)
    for j in range(most_rows + 1):
        ring_at[j] = ring + j % ring_rows * row_bytes
    stride = GROUPS * row_bytes
    words = np.empty(GROUP, np.int32)
    targets = np.empty(GROUP, np.int64)
    noise_ids = np.empty((GROUPS + 1) * negative, np.int32)
    noise = np.empty((GROUPS + 1) * negative, np.int64)
    examples = 0

    for first in range(start, stop, BLOCK):
        last = min(first + BLOCK, stop)
        settings_floats[16] = np.float32(alpha_start + (alpha_end - alpha_start) * ((first - start) / (stop - start)))
        block_draw = (first - start) // BLOCK * GROUPS * negative
        for j in range((GROUPS + 1) * negative):
            word = _draw(noise_table, seed, block_draw + j)
            if word < 0 or word >= vocab_size:
                return np.nan, examples, _BAD_NOISE, np.int64(word)
            noise_ids[j] = word
            noise[j] = w_out + np.int64(word) * row_bytes

        halo = max(first - reach_left, first_row)
        halo_end = min(last + reach_right, last_row)
        j = halo
        op.zero_rows(ring_at[0], row_bytes, 1)
        for i in range(first, last):
            upper = i + np.int64(right_N[i]) + 1
            while j < upper:
                op.add_rows(ring_at[j + 1 - halo], ring_at[j - halo], w_in + np.int64(tokens_N[j]) * row_bytes, row_bytes)
                j += 1
            op.window_row(
                hidden + (i - first) * row_bytes, ring_at[upper - halo], ring_at[i - np.int64(left_N[i]) - halo],
                w_in + np.int64(tokens_N[i]) * row_bytes, row_bytes,
            )  # fmt: skip

        # The next block's rows are asked for during this one, those of the next group during this group.
        ahead = last
        ahead_end = min(last + BLOCK + reach_right, last_row)
        for group in range(GROUPS):
            if first + group >= last:
                break
            for u in range(GROUP):
                i = first + group + u * GROUPS
                n = np.int64(left_N[i]) + np.int64(right_N[i]) if i < last else 0
                if n > 0:
                    word = tokens_N[i]
                    words[u] = word
                    targets[u] = w_out + np.int64(word) * row_bytes
                    inverse = np.float32(1.0) / np.float32(n)
                    settings_floats[u] = inverse
                    settings_floats[8 + u] = inverse if exact else np.float32(1.0)
                    examples += 1
                else:
                    words[u] = -1
                    targets[u] = sink
                    settings_floats[u] = np.float32(1.0)
                    settings_floats[8 + u] = np.float32(1.0)
                    op.zero_rows(hidden + (i - first) * row_bytes, row_bytes, 1)
                if i + 1 < stop:
                    op.prefetch_near(w_out + np.int64(tokens_N[i + 1]) * row_bytes, row_bytes)
                if ahead < ahead_end:
                    op.prefetch_far(w_in + np.int64(tokens_N[ahead]) * row_bytes, row_bytes)
                    ahead += 1
            for k in range((group + 1) * negative, (group + 2) * negative):
                op.prefetch_near(noise[k], row_bytes)
            group_noise = _address(noise) + group * negative * 8
            group_hidden = hidden + group * row_bytes
            _products(group_hidden, stride, _address(targets), group_noise, partials, negative, row_bytes)
            op.errors(
                partials, _address(words), _address(noise_ids) + group * negative * 4, settings, to_gradient, to_output, negative
            )
            op.gradient_rows(
                gradients + group * row_bytes, group_hidden, stride, _address(targets), group_noise,
                to_gradient, to_output, negative, row_bytes,
            )  # fmt: skip
            _noise_updates(group_hidden, stride, group_noise, to_output, negative, row_bytes)

        op.zero_rows(running, row_bytes, 1)
        op.zero_rows(ring + changes, row_bytes, ring_rows)
        j = halo
        for i in range(first, last):
            # No later window begins before i − reach_left, so the rows before that are complete.
            while j < i - reach_left:
                own = gradients + (j - first) * row_bytes if j >= first else zero_row
                op.move_row(running, ring_at[j - halo] + changes, own, w_in + np.int64(tokens_N[j]) * row_bytes, row_bytes)
                j += 1
            op.scatter_row(
                ring_at[i - np.int64(left_N[i]) - halo] + changes, ring_at[i + np.int64(right_N[i]) + 1 - halo] + changes,
                gradients + (i - first) * row_bytes, row_bytes,
            )  # fmt: skip
        while j < halo_end:
            own = gradients + (j - first) * row_bytes if j >= first and j < last else zero_row
            op.move_row(running, ring_at[j - halo] + changes, own, w_in + np.int64(tokens_N[j]) * row_bytes, row_bytes)
            j += 1
    return _loss_of(settings_floats), examples, _DONE, 0


@njit(nogil=True, cache=True)
def _train_skipgram(
    w_in_VD: Any, w_out_VD: Any, tokens_N: Any, left_N: Any, right_N: Any, start: int, stop: int, span: Any, noise_table: Any,
    exact: bool, negative: int, alpha_start: float, alpha_end: float, seed: Any,
) -> Any:  # fmt: skip
    vocab_size, row_floats = w_in_VD.shape
    row_bytes = row_floats * 4
    w_in, w_out = _address(w_in_VD), _address(w_out_VD)
    scratch = _floats(_SETTINGS_FLOATS + (negative + 1) * GROUP * 10 + (2 * GROUP + 2) * row_floats)
    settings_floats = scratch[:_SETTINGS_FLOATS]
    _reset_settings(settings_floats)
    settings_floats[:16] = np.float32(1.0)
    settings = _address(scratch)
    partials = settings + _SETTINGS_FLOATS * 4
    to_gradient = partials + (negative + 1) * GROUP * 32
    to_output = to_gradient + (negative + 1) * GROUP * 4
    zero_row = to_output + (negative + 1) * GROUP * 4
    sink, hidden = zero_row + row_bytes, zero_row + 2 * row_bytes
    gradients = hidden + GROUP * row_bytes
    words = np.empty(GROUP, np.int32)
    targets = np.empty(GROUP, np.int64)
    inputs = np.empty(GROUP, np.int64)
    noise_ids = np.empty(negative, np.int32)
    noise = np.empty(negative, np.int64)
    examples = 0

    for first in range(start, stop, BLOCK):
        last = min(first + BLOCK, stop)
        settings_floats[16] = np.float32(alpha_start + (alpha_end - alpha_start) * ((first - start) / (stop - start)))
        for group in range(GROUPS):
            widest = 0
            for i in range(first + group, last, GROUPS):
                widest = max(widest, np.int64(left_N[i]) + np.int64(right_N[i]))
            for slot in range(widest):
                draw = ((((first - start) // BLOCK) * GROUPS + group) * SLOTS + slot) * negative
                for k in range(negative):
                    word = _draw(noise_table, seed, draw + k)
                    if word < 0 or word >= vocab_size:
                        return np.nan, examples, _BAD_NOISE, np.int64(word)
                    noise_ids[k] = word
                    noise[k] = w_out + np.int64(word) * row_bytes
                    op.prefetch_near(noise[k], row_bytes)
                for u in range(GROUP):
                    i = first + group + u * GROUPS
                    if i < last and slot < np.int64(left_N[i]) + np.int64(right_N[i]):
                        before = np.int64(left_N[i])
                        position = i - before + slot + (1 if slot >= before else 0)
                        words[u] = tokens_N[i]
                        targets[u] = w_out + np.int64(tokens_N[i]) * row_bytes
                        inputs[u] = w_in + np.int64(tokens_N[position]) * row_bytes
                        op.copy_row(hidden + u * row_bytes, inputs[u], row_bytes)
                        examples += 1
                    else:
                        words[u] = -1
                        targets[u] = sink
                        op.zero_rows(hidden + u * row_bytes, row_bytes, 1)
                _products(hidden, row_bytes, _address(targets), _address(noise), partials, negative, row_bytes)
                op.errors(partials, _address(words), _address(noise_ids), settings, to_gradient, to_output, negative)
                op.gradient_rows(gradients, hidden, row_bytes, _address(targets), _address(noise), to_gradient, to_output, negative, row_bytes)
                _noise_updates(hidden, row_bytes, _address(noise), to_output, negative, row_bytes)
                for u in range(GROUP):
                    if words[u] >= 0:
                        op.add_rows(inputs[u], inputs[u], gradients + u * row_bytes, row_bytes)
    return _loss_of(settings_floats), examples, _DONE, 0


def merge_rows(base_RD: FloatRows, lanes: Sequence[FloatRows], method: Merge) -> None:
    """See `Kernels.merge_rows`. Releases the GIL."""
    check_merge(base_RD, lanes, method)
    addresses_L = np.array([lane.ctypes.data for lane in lanes], np.int64)
    _merge(base_RD, addresses_L, method == "adasum")


@njit(nogil=True, cache=True)
def _merge(base_RD: Any, addresses_L: Any, adasum: bool) -> None:
    lanes = addresses_L.shape[0]
    row_bytes = base_RD.shape[1] * 4
    base = _address(base_RD)
    scratch = _floats((lanes + 1) * base_RD.shape[1])
    changes = _address(scratch)
    scale = np.float32(1.0) if adasum else np.float32(1.0) / np.float32(lanes)
    for r in range(base_RD.shape[0]):
        row = base + r * row_bytes
        for lane in range(lanes):
            op.subtract_rows(changes + lane * row_bytes, addresses_L[lane] + r * row_bytes, row, row_bytes)
        width = lanes
        while width > 1:
            for pair in range(width // 2):
                left, right = changes + 2 * pair * row_bytes, changes + (2 * pair + 1) * row_bytes
                if adasum:
                    op.adasum_row(changes + pair * row_bytes, left, right, row_bytes)
                else:
                    op.add_rows(changes + pair * row_bytes, left, right, row_bytes)
            if width % 2:
                op.copy_row(changes + (width // 2) * row_bytes, changes + (width - 1) * row_bytes, row_bytes)
            width = (width + 1) // 2
        scratch[lanes * base_RD.shape[1]] = scale
        if lanes > 1:
            op.add_scaled_row(changes, row, changes, changes + lanes * row_bytes, row_bytes)
        else:
            # base + (lane − base) need not be the lane's bits.
            op.copy_row(changes, addresses_L[0] + r * row_bytes, row_bytes)
        op.copy_row(row, changes, row_bytes)
        for lane in range(lanes):
            op.copy_row(addresses_L[lane] + r * row_bytes, changes, row_bytes)
