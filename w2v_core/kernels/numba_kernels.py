"""The kernels for CPUs: Numba functions over the row operations of `row_operations`; the default backend.

Three ideas make it fast (steps and figures: infra/benchmarks/records/kernel-steps-2026-11-21.md):
1. Windows by prefix sums: with W_in frozen for a block, the sum of any window is a difference of two running sums, and the
   gradients reach the context rows through a difference array, so a target costs the same at every window. Both running
   sums live in rings as long as one window, which stay in the first-level cache.
2. Eight targets share their noise words: products and updates are small matrix products whose tiles stay in registers.
3. Nothing waits: rows are asked for a group or a block before they are used, errors are computed eight at a time without
   tables or libm, and the logarithm of the loss is taken once a slice.

Addresses go into the row operations as integers, which keep no array alive: every array whose address is used is also
named after the last use, or held by the caller.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from w2v_core.kernels import (
    FloatRows,
    Gradient,
    Model,
    SliceResult,
    check_slice,
    numpy_kernels,
    raise_bad_noise,
    raise_bad_span,
    raise_bad_word,
)
from w2v_core.kernels import row_operations as op
from w2v_core.kernels.merge_kernels import merge_rows
from w2v_core.reference import BLOCK, GROUP, GROUPS, SLOTS

name = "numba"
mark_touched = numpy_kernels.mark_touched
to_device, to_host = numpy_kernels.to_device, numpy_kernels.to_host
__all__ = ["mark_touched", "merge_rows", "name", "to_device", "to_host", "train_slice"]

_LINE_FLOATS = 16
_SPLITMIX = tuple(np.uint64(constant) for constant in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


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
    span = _span_of(tokens_N, left_N, right_N, start, stop)
    if span.bad_target >= 0:
        raise_bad_span(tokens_N, left_N, right_N, span.bad_target)
    bad_word = _first_bad(tokens_N, span.first, span.last, len(w_in_VD))
    if bad_word >= 0:
        raise_bad_word(tokens_N, bad_word, len(w_in_VD))
    arrays = (w_in_VD, w_out_VD, tokens_N, left_N, right_N, noise_table)
    alphas, stream = (alpha_start, alpha_end), np.uint64(seed & (1 << 64) - 1)
    if model == "cbow":
        loss_sum, examples, bad_noise = _train_cbow(*arrays, start, stop, span, gradient == "exact", negative, alphas, stream)
    else:
        loss_sum, examples, bad_noise = _train_skipgram(*arrays, start, stop, negative, alphas, stream)
    if bad_noise != _NO_BAD_NOISE:
        raise_bad_noise(bad_noise, len(w_in_VD))
    return SliceResult(loss_sum, examples)


# ── the stream: which rows a slice reads ─────────────────────────────────────────────────────────────────────────────


class _Span(NamedTuple):
    bad_target: int
    """A target whose context leaves the stream, or −1."""
    left: int
    """Most context rows before a target."""
    right: int
    first: int
    """First row read."""
    last: int
    """Last row read, + 1."""


@njit(nogil=True, cache=True)
def _span_of(tokens_N: Any, left_N: Any, right_N: Any, start: int, stop: int) -> Any:
    """The `_Span` of a slice; its rows are not checked yet."""
    rows = np.int64(tokens_N.shape[0])
    most_left: Any = np.int64(0)
    most_right: Any = np.int64(0)
    first: Any = np.int64(start)
    last: Any = np.int64(stop)
    # No way out of the loop, so that it can be vectorised; a bad span is looked for only if there is one.
    for i in range(start, stop):
        left, right = np.int64(left_N[i]), np.int64(right_N[i])
        most_left, most_right = max(most_left, left), max(most_right, right)
        first, last = min(first, i - left), max(last, i + right + 1)
    if first < 0 or last > rows:
        for i in range(start, stop):
            if i - np.int64(left_N[i]) < 0 or i + np.int64(right_N[i]) >= rows:
                return _Span(i, most_left, most_right, first, last)
    return _Span(-1, most_left, most_right, first, last)


@njit(nogil=True, cache=True)
def _first_bad(tokens_N: Any, first: int, last: int, vocab_size: int) -> int:
    """The first position in [first, last) whose word id is not one of the vocabulary, or −1."""
    smallest, largest = np.int32(0), np.int32(0)
    for i in range(first, last):
        smallest, largest = min(smallest, tokens_N[i]), max(largest, tokens_N[i])
    if smallest < 0 or largest >= vocab_size:
        for i in range(first, last):
            if tokens_N[i] < 0 or tokens_N[i] >= vocab_size:
                return i
    return -1


# ── noise ────────────────────────────────────────────────────────────────────────────────────────────────────────────

_NO_BAD_NOISE = 1 << 40
"""No int32, so no entry of a noise table."""


@njit(nogil=True, inline="always")
def _slot(noise_table: Any, seed: Any, draw: int) -> int:
    """The slot of the noise table that a draw of a stream picks: the top bits of SplitMix64 (`w2v_core.sampler`)."""
    z = seed + (np.uint64(draw) + np.uint64(1)) * _SPLITMIX[0]
    z = (z ^ (z >> np.uint64(30))) * _SPLITMIX[1]
    z = (z ^ (z >> np.uint64(27))) * _SPLITMIX[2]
    z = z ^ (z >> np.uint64(31))
    # The length is a power of two, so the high word times the length has the top bits of z in its own high word.
    return np.int64(((z >> np.uint64(32)) * np.uint64(noise_table.shape[0])) >> np.uint64(32))  # type: ignore[return-value]


@njit(nogil=True)
def _pick_slots(slots: Any, noise_table: Any, seed: Any, first_draw: int) -> None:
    """Writes the slots of the draws first_draw, first_draw + 1 … and asks for their cache lines: the table is large."""
    table = _address(noise_table)
    for j in range(slots.shape[0]):
        slots[j] = _slot(noise_table, seed, first_draw + j)
        op.prefetch_far(table + 4 * slots[j], 4)


@njit(nogil=True)
def _look_up(words: Any, addresses: Any, slots: Any, noise_table: Any, w_out: int, vocab_size: int, row_bytes: int) -> int:
    """Noise words and the addresses of their rows, for as many as `words` holds; the bad word id, if one is drawn."""
    for j in range(words.shape[0]):
        word = noise_table[slots[j]]
        if word < 0 or word >= vocab_size:
            return np.int64(word)  # type: ignore[return-value]
        words[j] = word
        addresses[j] = w_out + np.int64(word) * row_bytes
    return _NO_BAD_NOISE


# ── scratch memory ───────────────────────────────────────────────────────────────────────────────────────────────────


class _Group(NamedTuple):
    """Where the row operations of a group find and leave their numbers: addresses, and the distances of rows in bytes."""

    settings: int
    partials: int
    to_gradient: int
    to_output: int
    zero: int
    """A row of zeros, never written."""
    sink: int
    """The output row of absent examples: written with zeros times zeros, never used."""
    rest: int
    """Behind the last of the above."""


@njit(nogil=True, inline="always")
def _address(array: Any) -> int:
    return np.int64(array.ctypes.data)  # type: ignore[return-value]


@njit(nogil=True, inline="always")
def _scratch(row_floats: int, rows: int, negative: int) -> Any:
    """float32 zeros that start on a cache line: `_group_of` says what lies where, then `rows` rows."""
    floats = op.SETTINGS_FLOATS + (negative + 1) * GROUP * (GROUP + 2) + (2 + rows) * row_floats
    raw = np.zeros(floats + _LINE_FLOATS, np.float32)
    first = (-_address(raw) % 64) // 4
    scratch = raw[first : first + floats]
    scratch[op.PRODUCT : op.PRODUCT + 2 * GROUP].view(np.float64)[:] = 1.0
    return scratch


@njit(nogil=True, inline="always")
def _group_of(scratch: Any, row_bytes: int, negative: int) -> _Group:
    settings = _address(scratch)
    partials = settings + op.SETTINGS_FLOATS * 4
    to_gradient = partials + (negative + 1) * GROUP * GROUP * 4
    to_output = to_gradient + (negative + 1) * GROUP * 4
    zero = to_output + (negative + 1) * GROUP * 4
    return _Group(settings, partials, to_gradient, to_output, zero, zero + row_bytes, zero + 2 * row_bytes)


@njit(nogil=True, inline="always")
def _set_alpha(scratch: Any, alphas: Any, first: int, start: int, stop: int) -> None:
    scratch[op.ALPHA] = np.float32(alphas[0] + (alphas[1] - alphas[0]) * ((first - start) / (stop - start)))


@njit(nogil=True, inline="always")
def _loss_of(scratch: Any) -> float:
    """The loss summed so far, float64: linear parts + log of the products."""
    linear = scratch[op.LINEAR : op.LINEAR + 2 * GROUP].view(np.float64)
    product = scratch[op.PRODUCT : op.PRODUCT + 2 * GROUP].view(np.float64)
    exponents = scratch[op.EXPONENTS : op.EXPONENTS + 2 * GROUP].view(np.int64)
    loss = 0.0
    for lane in range(GROUP):
        loss += linear[lane] + np.log(product[lane]) + exponents[lane] * np.log(2.0)
    return loss


# ── one group: eight examples against their targets and K noise words ────────────────────────────────────────────────


@njit(nogil=True)
def _train_group(
    group: _Group, hidden: int, stride: int, gradients: int, words: int, targets: int, noise_words: int, noise: int,
    negative: int, row_bytes: int,
) -> None:  # fmt: skip
    """Trains W_out and leaves −α·gradient of the hidden rows in `gradients`; both kinds of row are `stride` bytes apart."""
    partials = group.partials
    k = min(negative, 2)
    if k == 2:
        op.products_2(hidden, stride, targets, noise, partials, row_bytes)
    else:
        op.products_1(hidden, stride, targets, noise, partials, row_bytes)
    while k < negative:
        at = partials + (k + 1) * GROUP * GROUP * 4
        # Tiles of three; four left are two tiles of two.
        if negative - k >= 3 and negative - k != 4:
            op.noise_products_3(hidden, stride, 0, noise + 8 * k, at, row_bytes)
            k += 3
        elif negative - k >= 2:
            op.noise_products_2(hidden, stride, 0, noise + 8 * k, at, row_bytes)
            k += 2
        else:
            op.noise_products_1(hidden, stride, 0, noise + 8 * k, at, row_bytes)
            k += 1
    op.errors(partials, words, noise_words, group.settings, group.to_gradient, group.to_output, negative)
    op.gradient_rows(gradients, hidden, stride, targets, noise, group.to_gradient, group.to_output, negative, row_bytes)
    _update_noise(hidden, stride, noise, group.to_output + GROUP * 4, negative, row_bytes)


@njit(nogil=True, inline="always")
def _update_noise(hidden: int, stride: int, noise: int, to_output: int, negative: int, row_bytes: int) -> None:
    k = 0
    while k < negative:
        at = to_output + k * GROUP * 4
        if negative - k >= 5:
            op.noise_updates_5(hidden, stride, noise + 8 * k, at, row_bytes)
            k += 5
        elif negative - k == 4:
            op.noise_updates_4(hidden, stride, noise + 8 * k, at, row_bytes)
            k += 4
        elif negative - k == 3:
            op.noise_updates_3(hidden, stride, noise + 8 * k, at, row_bytes)
            k += 3
        elif negative - k == 2:
            op.noise_updates_2(hidden, stride, noise + 8 * k, at, row_bytes)
            k += 2
        else:
            op.noise_updates_1(hidden, stride, noise + 8 * k, at, row_bytes)
            k += 1


# ── CBOW ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@njit(nogil=True, cache=True)
def _train_cbow(
    w_in_VD: Any, w_out_VD: Any, tokens_N: Any, left_N: Any, right_N: Any, noise_table: Any,
    start: int, stop: int, span: _Span, exact: bool, negative: int, alphas: Any, seed: Any,
) -> Any:  # fmt: skip
    """(loss, examples, bad noise word): `reference.train_slice` for model cbow."""
    vocab_size, row_floats = w_in_VD.shape
    row_bytes = row_floats * 4
    w_in, w_out = _address(w_in_VD), _address(w_out_VD)
    # One window and the row being added, and one more of each sum because rows are taken in pairs.
    ring_rows = span.left + span.right + 4
    scratch = _scratch(row_floats, 2 * ring_rows + 2 * BLOCK + 1, negative)
    group_memory = _group_of(scratch, row_bytes, negative)
    prefixes = group_memory.rest
    changes = prefixes + ring_rows * row_bytes
    hidden = changes + ring_rows * row_bytes
    gradients = hidden + BLOCK * row_bytes
    running = gradients + BLOCK * row_bytes
    ring_J = np.arange(BLOCK + span.left + span.right + 4) % ring_rows * row_bytes
    words, targets = np.empty(GROUP, np.int32), np.empty(GROUP, np.int64)
    # One group more than a block has: the last group asks for the rows of the next block's first.
    draws = (GROUPS + 1) * negative
    slots, noise_words, noise = np.empty(draws, np.int64), np.zeros(draws, np.int32), np.empty(draws, np.int64)
    noise[:] = w_out
    examples = 0
    _pick_slots(slots, noise_table, seed, 0)
    for first in range(start, stop, BLOCK):
        last = min(first + BLOCK, stop)
        used = draws if last < stop else draws - negative
        bad_noise = _look_up(noise_words[:used], noise, slots, noise_table, w_out, vocab_size, row_bytes)
        if bad_noise != _NO_BAD_NOISE:
            return np.nan, examples, bad_noise
        if last < stop:
            _pick_slots(slots, noise_table, seed, (last - start) // BLOCK * GROUPS * negative)
        _set_alpha(scratch, alphas, first, start, stop)
        halo, halo_end = max(first - span.left, span.first), min(last + span.right, span.last)
        _sum_windows(
            tokens_N, left_N, right_N, first, last, halo, halo_end, span.right, w_in, prefixes, ring_J, hidden, row_bytes
        )
        # The rows of the next block are asked for during this one, those of the next group during this group.
        ahead, ahead_end = last, min(last + BLOCK + span.right, span.last)
        for group in range(min(GROUPS, last - first)):
            for u in range(GROUP):
                i = first + group + u * GROUPS
                context = np.int64(left_N[i]) + np.int64(right_N[i]) if i < last else 0
                if context:
                    words[u] = tokens_N[i]
                    targets[u] = w_out + np.int64(tokens_N[i]) * row_bytes
                    scratch[op.INVERSE + u] = np.float32(1.0) / np.float32(context)
                    scratch[op.SCALE + u] = scratch[op.INVERSE + u] if exact else np.float32(1.0)
                    examples += 1
                else:
                    words[u] = -1
                    targets[u] = group_memory.sink
                    op.copy_row(hidden + (group + u * GROUPS) * row_bytes, group_memory.zero, row_bytes)
                if i + 1 < stop:
                    op.prefetch_near(w_out + np.int64(tokens_N[i + 1]) * row_bytes, row_bytes)
                if ahead < ahead_end:
                    op.prefetch_far(w_in + np.int64(tokens_N[ahead]) * row_bytes, row_bytes)
                    ahead += 1
            for k in range((group + 1) * negative, (group + 2) * negative):
                op.prefetch_near(noise[k], row_bytes)
            _train_group(
                group_memory, hidden + group * row_bytes, GROUPS * row_bytes, gradients + group * row_bytes,
                _address(words), _address(targets), _address(noise_words) + group * negative * 4,
                _address(noise) + group * negative * 8, negative, row_bytes,
            )  # fmt: skip
        op.zero_rows(running, row_bytes, 1)
        op.zero_rows(changes, row_bytes, ring_rows)
        _move_context(
            tokens_N, left_N, right_N, first, last, halo, halo_end, span.left, w_in, changes, ring_J, gradients, running,
            group_memory.zero, row_bytes,
        )  # fmt: skip
    return _loss_of(scratch), examples, _NO_BAD_NOISE


@njit(nogil=True)
def _sum_windows(
    tokens_N: Any, left_N: Any, right_N: Any, first: int, last: int, halo: int, halo_end: int, most_right: int, w_in: int,
    prefixes: int, ring_J: Any, hidden: int, row_bytes: int,
) -> None:  # fmt: skip
    """Hidden row of every target of a block: the sum of its context rows of W_in, as a difference of two prefix sums."""
    op.zero_rows(prefixes, row_bytes, 1)
    j = halo
    for i in range(first, last):
        # As far as the widest window reaches, not only this one: so the loop turns alike for every target, and a processor
        # that guesses how often it turns is right.
        sums_end = min(i + most_right + 1, halo_end)
        while j < sums_end:
            row = w_in + np.int64(tokens_N[j]) * row_bytes
            before, after = prefixes + ring_J[j - halo], prefixes + ring_J[j + 1 - halo]
            if j + 1 < halo_end:
                next_row = w_in + np.int64(tokens_N[j + 1]) * row_bytes
                op.add_two_rows(prefixes + ring_J[j + 2 - halo], after, before, row, next_row, row_bytes)
            else:
                op.add_rows(after, before, row, row_bytes)
            j += 2
        end = i + np.int64(right_N[i]) + 1
        upper, lower = prefixes + ring_J[end - halo], prefixes + ring_J[i - np.int64(left_N[i]) - halo]
        op.window_row(hidden + (i - first) * row_bytes, upper, lower, w_in + np.int64(tokens_N[i]) * row_bytes, row_bytes)


@njit(nogil=True)
def _move_context(
    tokens_N: Any, left_N: Any, right_N: Any, first: int, last: int, halo: int, halo_end: int, most_left: int, w_in: int,
    changes: int, ring_J: Any, gradients: int, running: int, zero: int, row_bytes: int,
) -> None:  # fmt: skip
    """Adds to every context row of W_in the gradients of all windows it is in, less its own as a target."""
    j = halo
    for i in range(first, last):
        begin = changes + ring_J[i - np.int64(left_N[i]) - halo]
        end = changes + ring_J[i + np.int64(right_N[i]) + 1 - halo]
        op.scatter_row(begin, end, gradients + (i - first) * row_bytes, row_bytes)
        # No window of a later target begins before i + 1 − most_left: the sums of the rows before that are complete.
        while j + 1 < i + 1 - most_left:
            own = gradients + (j - first) * row_bytes if j >= first else zero
            next_own = gradients + (j + 1 - first) * row_bytes if j + 1 >= first else zero
            op.move_two_rows(
                running, changes + ring_J[j - halo], own, w_in + np.int64(tokens_N[j]) * row_bytes,
                changes + ring_J[j + 1 - halo], next_own, w_in + np.int64(tokens_N[j + 1]) * row_bytes, row_bytes,
            )  # fmt: skip
            j += 2
    while j < halo_end:
        own = gradients + (j - first) * row_bytes if first <= j < last else zero
        op.move_row(running, changes + ring_J[j - halo], own, w_in + np.int64(tokens_N[j]) * row_bytes, row_bytes)
        j += 1


# ── skip-gram ────────────────────────────────────────────────────────────────────────────────────────────────────────


@njit(nogil=True, cache=True)
def _train_skipgram(
    w_in_VD: Any, w_out_VD: Any, tokens_N: Any, left_N: Any, right_N: Any, noise_table: Any,
    start: int, stop: int, negative: int, alphas: Any, seed: Any,
) -> Any:  # fmt: skip
    """(loss, examples, bad noise word): `reference.train_slice` for model skipgram."""
    vocab_size, row_floats = w_in_VD.shape
    row_bytes = row_floats * 4
    w_in, w_out = _address(w_in_VD), _address(w_out_VD)
    scratch = _scratch(row_floats, 2 * GROUP, negative)
    scratch[op.INVERSE : op.INVERSE + GROUP] = np.float32(1.0)
    scratch[op.SCALE : op.SCALE + GROUP] = np.float32(1.0)
    memory = _group_of(scratch, row_bytes, negative)
    hidden = memory.rest
    gradients = hidden + GROUP * row_bytes
    words, targets, inputs = np.empty(GROUP, np.int32), np.empty(GROUP, np.int64), np.empty(GROUP, np.int64)
    slots, noise_words, noise = np.empty(negative, np.int64), np.empty(negative, np.int32), np.empty(negative, np.int64)
    examples = 0
    for first in range(start, stop, BLOCK):
        last = min(first + BLOCK, stop)
        _set_alpha(scratch, alphas, first, start, stop)
        for group in range(min(GROUPS, last - first)):
            widest: Any = 0
            for i in range(first + group, last, GROUPS):
                widest = max(widest, np.int64(left_N[i]) + np.int64(right_N[i]))
            first_draw = ((first - start) // BLOCK * GROUPS + group) * SLOTS * negative
            for slot in range(widest):
                _pick_slots(slots, noise_table, seed, first_draw + slot * negative)
                for u in range(GROUP):
                    i = first + group + u * GROUPS
                    words[u], targets[u] = -1, memory.sink
                    if i < last and slot < np.int64(left_N[i]) + np.int64(right_N[i]):
                        before = np.int64(left_N[i])
                        context = tokens_N[i - before + slot + (1 if slot >= before else 0)]
                        words[u] = tokens_N[i]
                        targets[u] = w_out + np.int64(tokens_N[i]) * row_bytes
                        inputs[u] = w_in + np.int64(context) * row_bytes
                        op.prefetch_near(inputs[u], row_bytes)
                        op.prefetch_near(targets[u], row_bytes)
                        examples += 1
                bad_noise = _look_up(noise_words, noise, slots, noise_table, w_out, vocab_size, row_bytes)
                if bad_noise != _NO_BAD_NOISE:
                    return np.nan, examples, bad_noise
                for k in range(negative):
                    op.prefetch_near(noise[k], row_bytes)
                for u in range(GROUP):
                    op.copy_row(hidden + u * row_bytes, inputs[u] if words[u] >= 0 else memory.zero, row_bytes)
                _train_group(
                    memory, hidden, row_bytes, gradients, _address(words), _address(targets), _address(noise_words),
                    _address(noise), negative, row_bytes,
                )  # fmt: skip
                for u in range(GROUP):
                    if words[u] >= 0:
                        op.add_rows(inputs[u], inputs[u], gradients + u * row_bytes, row_bytes)
    return _loss_of(scratch), examples, _NO_BAD_NOISE
