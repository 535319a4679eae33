"""The parts that both models of the Numba backend share: noise words, scratch memory, and the training of a group.

A group is eight examples that share their noise words. Nothing here is compiled by itself; it is inlined into the kernels of
`numba_kernels` and `copies_kernels`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from w2v_core.kernels.cpu import product_operations as products
from w2v_core.kernels.cpu import row_operations as op
from w2v_core.kernels.cpu.random_numbers import random_bits
from w2v_core.kernels.cpu.vector_ir import LANES, WIDEST, set_int
from w2v_core.reference import GROUP

_LINE_FLOATS = 16
_LOW = np.uint64((1 << 32) - 1)

# ── noise ────────────────────────────────────────────────────────────────────────────────────────────────────────────

NO_BAD_NOISE = 1 << 40
"""Returned where no bad noise word was drawn: it does not fit into an int32, so it is no word of a noise table."""


@njit(nogil=True)
def pick_cells(picks: Any, noise_table: Any, seed: Any, first_draw: int) -> None:
    """Writes cell << 32 | low bits for the draws first_draw, first_draw + 1 … and prefetches the cells' cache lines."""
    table, cells = address_of(noise_table), np.uint64(noise_table.shape[0])
    for j in range(picks.shape[0]):
        bits = random_bits(seed, np.uint64(first_draw + j))
        cell = (bits >> np.uint64(32)) * cells >> np.uint64(32)
        picks[j] = cell << np.uint64(32) | bits & _LOW
        op.prefetch_far(table + 8 * np.int64(cell), 8)


@njit(nogil=True)
def look_up(words: int, picks: Any, noise_table: Any, vocab_size: int) -> int:
    """Writes the picked noise words, int32, from the address `words` on; returns the first word id outside the vocabulary, where
    writing stops, or NO_BAD_NOISE."""
    for j in range(picks.shape[0]):
        own = picks[j] >> np.uint64(32)
        cell = noise_table[own]
        word = np.int64(np.int32(own if picks[j] & _LOW < cell >> np.uint64(32) else cell & _LOW))
        if word < 0 or word >= vocab_size:
            return word  # type: ignore[return-value]
        set_int(words, j, word)
    return NO_BAD_NOISE


# ── scratch memory ───────────────────────────────────────────────────────────────────────────────────────────────────


class GroupMemory(NamedTuple):
    """The addresses from which the row operations of a group read their numbers, and at which they leave their results."""

    settings: int
    partials: int
    to_gradient: int
    to_output: int
    zero: int
    """A row of zeros; only zeros are ever written to it."""
    sink: int
    """The output row of absent examples: only zeros are added to it, and it is never used."""
    rest: int
    """The first address behind all of the above."""


@njit(nogil=True, inline="always")
def address_of(array: Any) -> int:
    return np.int64(array.ctypes.data)  # type: ignore[return-value]


@njit(nogil=True, inline="always")
def pitch_of(row_bytes: int) -> int:
    """Bytes from one row of scratch memory to the next: whole cache lines, so that no vector lies across two, and an odd number
    of them, so that the same columns of several rows do not compete for one set of a cache."""
    return ((row_bytes + 63) // 64 | 1) * 64


@njit(nogil=True, inline="always")
def scratch_of(row_floats: int, rows: int, negative: int) -> Any:
    """float32 zeros aligned to a cache line: the layout of `group_memory_of`, followed by `rows` rows, a pitch apart."""
    floats = op.SETTINGS_FLOATS + (negative + 1) * GROUP * (GROUP + 2) + (2 + rows) * (pitch_of(4 * row_floats) // 4)
    raw = np.zeros(floats + _LINE_FLOATS, np.float32)
    first = (-address_of(raw) % 64) // 4
    scratch = raw[first : first + floats]
    scratch[op.PRODUCT : op.PRODUCT + 2 * GROUP].view(np.float64)[:] = 1.0
    return scratch


@njit(nogil=True, inline="always")
def group_memory_of(scratch: Any, row_bytes: int, negative: int) -> GroupMemory:
    settings = address_of(scratch)
    partials = settings + op.SETTINGS_FLOATS * 4
    to_gradient = partials + (negative + 1) * GROUP * GROUP * 4
    to_output = to_gradient + (negative + 1) * GROUP * 4
    zero = to_output + (negative + 1) * GROUP * 4
    return GroupMemory(
        settings, partials, to_gradient, to_output, zero, zero + pitch_of(row_bytes), zero + 2 * pitch_of(row_bytes)
    )


@njit(nogil=True, inline="always")
def set_alpha(scratch: Any, alphas: Any, first: int, start: int, stop: int) -> None:
    scratch[op.ALPHA] = np.float32(alphas[0] + (alphas[1] - alphas[0]) * ((first - start) / (stop - start)))


@njit(nogil=True, inline="always")
def loss_of(scratch: Any) -> float:
    """The loss summed so far, float64: the linear parts plus the logarithms of the products."""
    linear = scratch[op.LINEAR : op.LINEAR + 2 * GROUP].view(np.float64)
    product = scratch[op.PRODUCT : op.PRODUCT + 2 * GROUP].view(np.float64)
    exponents = scratch[op.EXPONENTS : op.EXPONENTS + 2 * GROUP].view(np.int64)
    loss = 0.0
    for lane in range(GROUP):
        loss += linear[lane] + np.log(product[lane]) + exponents[lane] * np.log(2.0)
    return loss


# ── one group: eight examples against their targets and K noise words ────────────────────────────────────────────────


class Examples(NamedTuple):
    """The eight examples of a group, as addresses of arrays: `words` int32; `targets` the addresses of their W_out rows;
    `targets_from` and `targets_to` the addresses to whose rows changes are added and at which the sums are written (the W_out
    rows themselves, unless other lanes need those unchanged); `inverses` 1/n, `scales` the factors of the gradient and `rates`
    the words' rates, all float32. An absent example has word −1 and the row `GroupMemory.sink`."""

    words: int
    targets: int
    targets_from: int
    targets_to: int
    inverses: int
    scales: int
    rates: int


class NoiseRows(NamedTuple):
    """The K noise words of a group, as addresses of arrays like those of `Examples`: words int32, addresses of the W_out rows,
    where changes are added and where the sums are written, rates float32."""

    words: int
    rows: int
    rows_from: int
    rows_to: int
    rates: int


class Coming(NamedTuple):
    """What is needed soon, and prefetched meanwhile: addresses of arrays of rows' addresses. Asking for rows evenly while a group
    is trained hides the waiting for memory; a burst of requests would hold up everything behind it."""

    rows: int
    """Eight rows of the next block."""
    targets: int
    """The next group's eight targets."""
    noise: int
    """The next group's K noise rows."""


@njit(nogil=True, inline="always")
def _products_of_eight(
    hidden: int, stride: int, targets: int, noise: int, partials: int, ahead: int, negative: int, row_bytes: int
) -> None:
    k = min(negative, 2)
    if k == 2:
        products.products_2(hidden, stride, targets, noise, partials, ahead, row_bytes)
    else:
        products.products_1(hidden, stride, targets, noise, partials, ahead, row_bytes)
    while k < negative:
        at = partials + (k + 1) * GROUP * GROUP * 4
        # Tiles of three; four left are two tiles of two.
        if negative - k >= 3 and negative - k != 4:
            products.noise_products_3(hidden, stride, 0, noise + 8 * k, at, 0, row_bytes)
            k += 3
        elif negative - k >= 2:
            products.noise_products_2(hidden, stride, 0, noise + 8 * k, at, 0, row_bytes)
            k += 2
        else:
            products.noise_products_1(hidden, stride, 0, noise + 8 * k, at, 0, row_bytes)
            k += 1


@njit(nogil=True, inline="always")
def _products_of_sixteen(
    hidden: int, stride: int, targets: int, noise: int, partials: int, ahead: int, negative: int, row_bytes: int
) -> None:
    k = min(negative, 5)
    if k == 5:
        products.paired_5(hidden, stride, targets, noise, partials, ahead, row_bytes)
    elif k == 4:
        products.paired_4(hidden, stride, targets, noise, partials, ahead, row_bytes)
    elif k == 3:
        products.paired_3(hidden, stride, targets, noise, partials, ahead, row_bytes)
    elif k == 2:
        products.paired_2(hidden, stride, targets, noise, partials, ahead, row_bytes)
    else:
        products.paired_1(hidden, stride, targets, noise, partials, ahead, row_bytes)
    while k < negative:
        at, left = partials + (k + 1) * GROUP * GROUP * 4, negative - k
        if left >= 5:
            products.noise_paired_5(hidden, stride, 0, noise + 8 * k, at, 0, row_bytes)
        elif left == 4:
            products.noise_paired_4(hidden, stride, 0, noise + 8 * k, at, 0, row_bytes)
        elif left == 3:
            products.noise_paired_3(hidden, stride, 0, noise + 8 * k, at, 0, row_bytes)
        elif left == 2:
            products.noise_paired_2(hidden, stride, 0, noise + 8 * k, at, 0, row_bytes)
        else:
            products.noise_paired_1(hidden, stride, 0, noise + 8 * k, at, 0, row_bytes)
        k += min(left, 5)


_products = _products_of_sixteen if WIDEST > LANES else _products_of_eight


@njit(nogil=True)
def train_group(
    group: GroupMemory, examples: Examples, hidden: int, stride: int, gradients: int, noise_of: NoiseRows, ahead: Coming,
    negative: int, row_bytes: int,
) -> None:  # fmt: skip
    """Trains W_out and writes −α·gradient of the hidden rows to `gradients`; rows of both are `stride` bytes apart."""
    partials, targets, noise = group.partials, examples.targets, noise_of.rows
    _products(hidden, stride, targets, noise, partials, ahead.rows, negative, row_bytes)
    op.errors(
        partials, examples.words, noise_of.words, examples.inverses, examples.scales, examples.rates, noise_of.rates,
        group.settings, group.to_gradient, group.to_output, negative,
    )  # fmt: skip
    op.gradient_rows(gradients, stride, targets, noise, group.to_gradient, negative, ahead.targets, row_bytes)
    _update_output(hidden, stride, examples, noise_of, group.to_output + GROUP * 4, ahead.noise, negative, row_bytes)


@njit(nogil=True, inline="always")
def _update_output(
    hidden: int, stride: int, examples: Examples, noise_of: NoiseRows, to_output: int, ahead: int, negative: int, row_bytes: int
) -> None:
    """Updates the targets together with the first noise rows, then the remaining noise rows, five at a time."""
    targets, to, noise, noise_to = examples.targets_from, examples.targets_to, noise_of.rows_from, noise_of.rows_to
    k = min(negative, 5)
    if k == 5:
        op.updates_5(hidden, stride, targets, to, noise, noise_to, to_output, ahead, row_bytes)
    elif k == 4:
        op.updates_4(hidden, stride, targets, to, noise, noise_to, to_output, ahead, row_bytes)
    elif k == 3:
        op.updates_3(hidden, stride, targets, to, noise, noise_to, to_output, ahead, row_bytes)
    elif k == 2:
        op.updates_2(hidden, stride, targets, to, noise, noise_to, to_output, ahead, row_bytes)
    else:
        op.updates_1(hidden, stride, targets, to, noise, noise_to, to_output, ahead, row_bytes)
    while k < negative:
        of_k, left = to_output + k * GROUP * 4, negative - k
        if left >= 5:
            op.noise_updates_5(hidden, stride, 0, 0, noise + 8 * k, noise_to + 8 * k, of_k, ahead + 8 * k, row_bytes)
        elif left == 4:
            op.noise_updates_4(hidden, stride, 0, 0, noise + 8 * k, noise_to + 8 * k, of_k, ahead + 8 * k, row_bytes)
        elif left == 3:
            op.noise_updates_3(hidden, stride, 0, 0, noise + 8 * k, noise_to + 8 * k, of_k, ahead + 8 * k, row_bytes)
        elif left == 2:
            op.noise_updates_2(hidden, stride, 0, 0, noise + 8 * k, noise_to + 8 * k, of_k, ahead + 8 * k, row_bytes)
        else:
            op.noise_updates_1(hidden, stride, 0, 0, noise + 8 * k, noise_to + 8 * k, of_k, ahead + 8 * k, row_bytes)
        k += min(left, 5)
