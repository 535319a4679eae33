"""The kernels for CPUs: Numba functions over the row operations of `row_operations`; the default backend.

Three ideas make it fast (steps and figures: infra/benchmarks/records/kernel-steps-2026-11-21.md):
1. Windows by prefix sums: with W_in frozen for a block, the sum of any window is a difference of two running sums, and the
   gradients reach the context rows through a difference array, so a target costs the same at every window. The running
   sums themselves stay in registers, what is kept of them in rings as long as one window (`context_operations`).
2. Eight targets share their noise words: products and updates are small matrix products whose tiles stay in registers.
3. Nothing waits: every row is asked for a group or a block before it is used, and the asking is spread over all the work;
   errors are computed eight at a time without tables or libm, and the logarithm of the loss is taken once a slice.

Addresses go into the row operations as integers, which keep no array alive: every array whose address is used is also
named after the last use, or held by the caller.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from w2v_core.contract import FloatRows, Noise, Slice, SliceResult, Update
from w2v_core.kernels import numpy_kernels
from w2v_core.kernels.checks import check_slice, raise_bad_noise, raise_bad_span, raise_bad_word
from w2v_core.kernels.cpu import context_operations as context
from w2v_core.kernels.cpu import row_operations as op
from w2v_core.kernels.cpu.group_kernels import (
    NO_BAD_NOISE,
    Examples,
    NoiseRows,
    address_of,
    group_memory_of,
    look_up,
    loss_of,
    pick_cells,
    scratch_of,
    set_alpha,
    train_group,
)
from w2v_core.kernels.cpu.machine_code import compiled
from w2v_core.kernels.cpu.merge_kernels import merge_rows
from w2v_core.reference import BLOCK, GROUP, GROUPS, SLOTS

name = "numba"
to_device, to_host = numpy_kernels.to_device, numpy_kernels.to_host
__all__ = ["merge_rows", "name", "to_device", "to_host", "train_slice"]


def train_slice(w_in_VD: FloatRows, w_out_VD: FloatRows, targets: Slice, noise: Noise, update: Update) -> SliceResult:
    """See `Kernels.train_slice`. Releases the GIL; the first call of a model compiles or loads from Numba's cache."""
    check_slice(w_in_VD, w_out_VD, targets, noise, update)
    start, stop, vocab_size = targets.start, targets.stop, len(w_in_VD)
    stream = _read_only(targets.tokens_N), _read_only(targets.left_N), _read_only(targets.right_N)
    span = _span_of(*stream, start, stop)
    if span.bad_target >= 0:
        raise_bad_span(targets, span.bad_target)
    bad_word = _first_bad(stream[0], span.first, span.last, vocab_size)
    if bad_word >= 0:
        raise_bad_word(targets, bad_word, vocab_size)
    arrays = (w_in_VD, w_out_VD, *stream, _read_only(noise.table_T), _read_only(noise.rates_V))
    seed = np.uint64(update.seed & (1 << 64) - 1)
    if update.model == "cbow":
        exact = update.gradient == "exact"
        found = _train_cbow(*arrays, start, stop, span, exact, update.negative, update.alphas, seed)
    else:
        found = _train_skipgram(*arrays, start, stop, update.negative, update.alphas, seed)
    loss_sum, examples, bad_noise = found
    if bad_noise != NO_BAD_NOISE:
        raise_bad_noise(bad_noise, vocab_size)
    return SliceResult(loss_sum, examples)


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    """A view that cannot be written. Numba compiles, and loads, a kernel once for arrays that can and once for those that
    cannot; a mapped shard cannot and a drawn one can, and each loading takes as long as 100,000 tokens."""
    view = array.view()
    view.flags.writeable = False
    return view


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


# ── CBOW ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@compiled
def _train_cbow(
    w_in_VD: Any, w_out_VD: Any, tokens_N: Any, left_N: Any, right_N: Any, noise_table: Any, rates_V: Any,
    start: int, stop: int, span: _Span, exact: bool, negative: int, alphas: Any, seed: Any,
) -> Any:  # fmt: skip
    """(loss, examples, bad noise word): `reference.train_slice` for model cbow."""
    row_floats = w_in_VD.shape[1]
    row_bytes = row_floats * 4
    w_in, w_out = address_of(w_in_VD), address_of(w_out_VD)
    around = span.left + span.right
    # As many rows as a target's widest window reaches, and the one behind them.
    ring_rows = around + 2
    scratch = scratch_of(row_floats, 2 * ring_rows + BLOCK + GROUP, negative)
    group_memory = group_memory_of(scratch, row_bytes, negative)
    prefixes = group_memory.rest
    changes = prefixes + ring_rows * row_bytes
    # A group leaves its gradients where the hidden rows of the group before were: half the memory, and it is near.
    gradients = changes + ring_rows * row_bytes
    stride = (GROUPS + 1) * row_bytes
    hidden_B, gradients_B = np.empty(BLOCK, np.int64), np.empty(BLOCK, np.int64)
    for t in range(BLOCK):
        gradients_B[t] = gradients + t // GROUPS * stride + t % GROUPS * row_bytes
        hidden_B[t] = gradients_B[t] + row_bytes
    lowers_B, uppers_B = np.empty(BLOCK, np.int64), np.empty(BLOCK, np.int64)
    # Of every row of W_in that a block can reach: where it is, its gradient as a target, and its places in the rings.
    reach = BLOCK + around
    rows_J, next_rows_J, owns_J = np.empty(reach, np.int64), np.empty(reach, np.int64), np.empty(reach, np.int64)
    rates_J, next_rates_J = np.empty(reach, np.float32), np.empty(reach, np.float32)
    prefixes_J, changes_J = np.empty(reach + 1, np.int64), np.empty(reach + 1, np.int64)
    for j in range(reach + 1):
        prefixes_J[j] = prefixes + j % ring_rows * row_bytes
        changes_J[j] = changes + j % ring_rows * row_bytes
    # What belongs to the examples stands group after group: see `_place`.
    words_B, targets_B, rates_B = np.empty(BLOCK, np.int32), np.empty(BLOCK, np.int64), np.empty(BLOCK, np.float32)
    inverses_B, ones = np.empty(BLOCK, np.float32), np.empty(GROUP, np.float32)
    ones[:] = np.float32(1.0)
    inverse_of = np.empty(around + 1, np.float32)
    for n in range(around + 1):
        inverse_of[n] = np.float32(1.0) / np.float32(max(1, n))
    # One group more than a block has: the last group asks for the rows of the next block's first.
    draws = (GROUPS + 1) * negative
    picks, noise_words, noise = np.empty(draws, np.uint64), np.zeros(draws, np.int32), np.empty(draws, np.int64)
    noise_rates = np.zeros(draws, np.float32)
    noise[:] = w_out
    examples = 0
    pick_cells(picks, noise_table, seed, 0)
    _find_rows(rows_J, rates_J, tokens_N, rates_V, start - span.left, span, w_in, row_bytes, group_memory.zero)
    for first in range(start, stop, BLOCK):
        last = min(first + BLOCK, stop)
        count = last - first
        used = draws if last < stop else draws - negative
        bad_noise = look_up(noise_words[:used], noise, noise_rates, picks, noise_table, rates_V, w_out, row_bytes)
        if bad_noise != NO_BAD_NOISE:
            return np.nan, examples, bad_noise
        if last < stop:
            pick_cells(picks, noise_table, seed, (last - start) // BLOCK * GROUPS * negative)
        set_alpha(scratch, alphas, first, start, stop)
        _find_rows(next_rows_J, next_rates_J, tokens_N, rates_V, last - span.left, span, w_in, row_bytes, group_memory.zero)
        if first == start or count < BLOCK:
            for j in range(reach):
                is_target = span.left <= j < span.left + count
                owns_J[j] = gradients_B[j - span.left] if is_target else group_memory.zero
        if count < BLOCK:
            words_B[:] = -1
            targets_B[:] = group_memory.sink
            inverses_B[:] = np.float32(0.0)
            rates_B[:] = np.float32(0.0)
            op.zero_rows(gradients, row_bytes, BLOCK + GROUP)
        absent = _place_targets(
            _Block(words_B, targets_B, inverses_B, rates_B, lowers_B, uppers_B), tokens_N[first:last], left_N[first:last],
            right_N[first:last], rates_J, span.left, prefixes_J, inverse_of, w_out, row_bytes, group_memory.sink,
        )  # fmt: skip
        examples += count - absent
        context.sum_windows(
            address_of(rows_J), around, address_of(prefixes_J), address_of(uppers_B), address_of(lowers_B),
            address_of(rows_J) + 8 * span.left, address_of(targets_B), count, address_of(hidden_B), row_bytes,
        )  # fmt: skip
        if absent:
            _zero_absent(words_B, hidden_B[:count], row_bytes)
        for group in range(min(GROUPS, count)):
            of_group = group * GROUP
            inverses = address_of(inverses_B) + 4 * of_group
            train_group(
                group_memory,
                Examples(
                    address_of(words_B) + 4 * of_group, address_of(targets_B) + 8 * of_group, inverses,
                    inverses if exact else address_of(ones), address_of(rates_B) + 4 * of_group,
                ),
                hidden_B[group], stride, gradients_B[group],
                NoiseRows(
                    address_of(noise_words) + 4 * group * negative, address_of(noise) + 8 * group * negative,
                    address_of(noise_rates) + 4 * group * negative,
                ),
                address_of(noise) + 8 * (group + 1) * negative, negative, row_bytes,
            )  # fmt: skip
        op.zero_rows(changes, row_bytes, ring_rows)
        context.move_context(
            address_of(lowers_B), address_of(uppers_B), changes - prefixes, address_of(gradients_B),
            address_of(next_rows_J) + 8 * around, count, address_of(changes_J), address_of(owns_J), address_of(rows_J),
            address_of(rates_J), min(last + span.right, span.last) - first + span.left, row_bytes,
        )  # fmt: skip
        rows_J, next_rows_J = next_rows_J, rows_J
        rates_J, next_rates_J = next_rates_J, rates_J
    # Named once more, so that Numba keeps them to the end.
    lowers_B[0] = prefixes_J[0] + changes_J[0] + uppers_B[0] + rows_J[0] + next_rows_J[0] + owns_J[0] + targets_B[0]
    inverses_B[0] = ones[0] + words_B[0] + noise_words[0] + noise[0] + hidden_B[0] + gradients_B[0]
    inverses_B[0] = rates_B[0] + noise_rates[0] + rates_J[0] + next_rates_J[0]
    return loss_of(scratch), examples, NO_BAD_NOISE


@njit(nogil=True, inline="always")
def _place(t: int) -> int:
    """Where target t of a block stands when they stand group after group: a group's targets are GROUPS apart."""
    return t % GROUPS * GROUP + t // GROUPS


@njit(nogil=True)
def _find_rows(
    rows_J: Any, rates_J: Any, tokens_N: Any, rates_V: Any, first: int, span: _Span, w_in: int, row_bytes: int, zero: int
) -> None:
    """Addresses of the W_in rows of positions first, first + 1 … and the rates of their words; the row of zeros for positions
    outside the span."""
    begin, end = max(span.first - first, 0), min(span.last - first, rows_J.shape[0])
    for j in range(begin, end):
        word = np.int64(tokens_N[first + j])
        rows_J[j], rates_J[j] = w_in + word * row_bytes, rates_V[word]
    for j in range(begin):
        rows_J[j], rates_J[j] = zero, np.float32(0.0)
    for j in range(end, rows_J.shape[0]):
        rows_J[j], rates_J[j] = zero, np.float32(0.0)


class _Block(NamedTuple):
    """What is known of a block's targets: the parts of `Examples`, by `_place`, and in order of t the prefix sums around
    their windows."""

    words: Any
    targets: Any
    inverses: Any
    rates: Any
    lowers: Any
    uppers: Any


@njit(nogil=True)
def _place_targets(
    block: _Block, tokens: Any, left: Any, right: Any, rates_J: Any, most_left: int, prefixes_J: Any, inverse_of: Any, w_out: int,
    row_bytes: int, sink: int,
) -> int:  # fmt: skip
    """Fills in a block; the number of targets without context."""
    absent = 0
    for t in range(tokens.shape[0]):
        before, after = np.int64(left[t]), np.int64(right[t])
        block.lowers[t] = prefixes_J[t + most_left - before]
        block.uppers[t] = prefixes_J[t + most_left + after + 1]
        word, at = np.int64(tokens[t]), _place(t)
        block.inverses[at], block.rates[at] = inverse_of[before + after], rates_J[t + most_left]
        block.words[at], block.targets[at] = word, w_out + word * row_bytes
        if before + after == 0:
            block.words[at], block.targets[at] = -1, sink
            absent += 1
    return absent


@njit(nogil=True)
def _zero_absent(words_B: Any, hidden: Any, row_bytes: int) -> None:
    """A target without context has a hidden row of zeros; the difference of its sums may be one of rounding errors."""
    for t in range(hidden.shape[0]):
        if words_B[_place(t)] < 0:
            op.zero_rows(hidden[t], row_bytes, 1)


# ── skip-gram ────────────────────────────────────────────────────────────────────────────────────────────────────────


@compiled
def _train_skipgram(
    w_in_VD: Any, w_out_VD: Any, tokens_N: Any, left_N: Any, right_N: Any, noise_table: Any, rates_V: Any,
    start: int, stop: int, negative: int, alphas: Any, seed: Any,
) -> Any:  # fmt: skip
    """(loss, examples, bad noise word): `reference.train_slice` for model skipgram."""
    row_floats = w_in_VD.shape[1]
    row_bytes = row_floats * 4
    w_in, w_out = address_of(w_in_VD), address_of(w_out_VD)
    scratch = scratch_of(row_floats, 2 * GROUP, negative)
    ones = np.ones(GROUP, np.float32)
    memory = group_memory_of(scratch, row_bytes, negative)
    hidden = memory.rest
    gradients = hidden + GROUP * row_bytes
    words, targets, inputs = np.empty(GROUP, np.int32), np.empty(GROUP, np.int64), np.empty(GROUP, np.int64)
    rates, input_rates, noise_rates = ones.copy(), ones.copy(), np.empty(negative, np.float32)
    picks, noise_words, noise = np.empty(negative, np.uint64), np.empty(negative, np.int32), np.empty(negative, np.int64)
    examples = 0
    for first in range(start, stop, BLOCK):
        last = min(first + BLOCK, stop)
        set_alpha(scratch, alphas, first, start, stop)
        for group in range(min(GROUPS, last - first)):
            widest: Any = 0
            for i in range(first + group, last, GROUPS):
                widest = max(widest, np.int64(left_N[i]) + np.int64(right_N[i]))
            first_draw = ((first - start) // BLOCK * GROUPS + group) * SLOTS * negative
            for slot in range(widest):
                pick_cells(picks, noise_table, seed, first_draw + slot * negative)
                for u in range(GROUP):
                    i = first + group + u * GROUPS
                    words[u], targets[u] = -1, memory.sink
                    if i < last and slot < np.int64(left_N[i]) + np.int64(right_N[i]):
                        before = np.int64(left_N[i])
                        context = tokens_N[i - before + slot + (1 if slot >= before else 0)]
                        words[u] = tokens_N[i]
                        targets[u] = w_out + np.int64(tokens_N[i]) * row_bytes
                        inputs[u] = w_in + np.int64(context) * row_bytes
                        rates[u], input_rates[u] = rates_V[tokens_N[i]], rates_V[context]
                        op.prefetch_near(inputs[u], row_bytes)
                        op.prefetch_near(targets[u], row_bytes)
                        examples += 1
                bad_noise = look_up(noise_words, noise, noise_rates, picks, noise_table, rates_V, w_out, row_bytes)
                if bad_noise != NO_BAD_NOISE:
                    return np.nan, examples, bad_noise
                for k in range(negative):
                    op.prefetch_near(noise[k], row_bytes)
                for u in range(GROUP):
                    op.copy_row(hidden + u * row_bytes, inputs[u] if words[u] >= 0 else memory.zero, row_bytes)
                train_group(
                    memory,
                    Examples(address_of(words), address_of(targets), address_of(ones), address_of(ones), address_of(rates)),
                    hidden, row_bytes, gradients, NoiseRows(address_of(noise_words), address_of(noise), address_of(noise_rates)),
                    address_of(noise), negative, row_bytes,
                )  # fmt: skip
                for u in range(GROUP):
                    if words[u] >= 0:
                        op.add_scaled_row(
                            inputs[u], inputs[u], gradients + u * row_bytes, address_of(input_rates) + 4 * u, row_bytes
                        )
    return loss_of(scratch), examples, NO_BAD_NOISE
