"""One block of CBOW: 128 targets of one lane, from locating their rows to changing them.

Nothing here is compiled by itself; it is inlined into `copies_kernels`. All data is passed by address, see `vector_ir`. A thread
keeps its rows in one array (`workspace_rows`) and its addresses and numbers in another (`thread_bytes`). Data of a block's
examples is stored group after group: see `place_of`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from w2v_core.kernels.cpu import context_operations as context
from w2v_core.kernels.cpu import row_operations as op
from w2v_core.kernels.cpu.group_kernels import Coming, Examples, GroupMemory, NoiseRows, pitch_of, train_group
from w2v_core.kernels.cpu.vector_ir import byte_at, int_at, long_at, set_float, set_int, set_long
from w2v_core.reference import BLOCK, GROUP, GROUPS

TOKENS, LEFT, RIGHT, LOW, HIGH, START, STOP, PLACES = range(8)
"""Fields of a lane, int64: the addresses of its stream's columns, the rows [LOW, HIGH) that are read, and the targets
[START, STOP) that are trained."""


class Sizes(NamedTuple):
    """What is the same for all lanes and threads of a call."""

    left: int
    """Most context rows before a target, over all lanes."""
    right: int
    lanes: int
    threads: int
    waves: int
    negative: int
    row_bytes: int
    exact: bool
    """Whether the gradient is that of the mean; otherwise it is word2vec's."""
    alphas: tuple[float, float]


class Words(NamedTuple):
    """Addresses of the per-word data."""

    w_in: int
    w_out: int
    rates: int
    """float32 (V,)."""


class Lanes(NamedTuple):
    """Addresses of the per-lane data."""

    places: int
    """int64 (L, PLACES)."""
    noise_words: int
    """int32 (2, L, draws): the noise words of even and of odd waves."""
    settings: int
    """float32 (L, SETTINGS_FLOATS): α and the loss, see `row_operations.errors`."""
    examples: int
    """int64 (L,)."""


class Block(NamedTuple):
    """Addresses of a block's data. `numbers`: first target, number of targets, number of targets without context (int64). For
    the examples and for the noise words: the words (int32), the addresses of their rows (int64), 1/n and the rates (float32).
    `lowers`, `uppers`: addresses of the prefix sums at both ends of each target's window, by t. `rows`, `row_rates`: addresses
    and rates of the rows of W_in, starting `Sizes.left` rows before the first target. `first_edges`: the first edge at each
    position, in the order of the targets, `next_edges`: the one after each edge (int64)."""

    numbers: int
    words: int
    targets: int
    inverses: int
    rates: int
    lowers: int
    uppers: int
    rows: int
    row_rates: int
    noise_words: int
    noise: int
    noise_rates: int
    first_edges: int
    next_edges: int


FIRST, COUNT, ABSENT = range(3)
EDGES = 2 * BLOCK + 1
"""The windows' edges, see `context_operations.move_context`: 0 is none, 2t + 1 where target t's window begins, 2t + 2 behind
its end."""


class Moves(NamedTuple):
    """Addresses of two arrays of addresses for each kind of row: `…_from`, the rows to which changes are added, and `…_to`, the
    places where the sums are written."""

    targets_from: int
    targets_to: int
    noise_from: int
    noise_to: int
    rows_from: int
    rows_to: int


class Workspace(NamedTuple):
    """The memory in which a thread trains one block after another. Each field is the address of an array."""

    group: GroupMemory
    prefixes: int
    """Addresses of the prefix sums, by position. They lie in a ring with one row more than the widest window."""
    edge_gradients: int
    """Addresses of gradient rows, by edge."""
    edge_signs: int
    """float32, by edge: 1 where a gradient is added, −1 where it is subtracted."""
    gradients: int
    """Addresses of the targets' gradient rows, by t."""
    hidden: int
    """Addresses of the targets' hidden rows, by t."""
    owns: int
    """Addresses of each row's gradient as a target, by position; a row of zeros for rows that are no targets of the block."""
    inverse_of: int
    """float32 1/n by n."""
    ones: int


@njit(nogil=True, inline="always")
def reach_of(sizes: Sizes) -> int:
    """Most rows of W_in that a block can reach."""
    return BLOCK + sizes.left + sizes.right


@njit(nogil=True, inline="always")
def draws_of(sizes: Sizes) -> int:
    """Noise words drawn for a block."""
    return GROUPS * sizes.negative


@njit(nogil=True, inline="always")
def workspace_rows(sizes: Sizes) -> int:
    """Rows of the workspace in addition to those of `GroupMemory`."""
    return sizes.left + sizes.right + 2 + BLOCK + GROUP


@njit(nogil=True)
def workspace_of(group: GroupMemory, free: int, sizes: Sizes) -> Any:
    """(workspace, address of the free memory behind it): rows are laid out from `group.rest`, addresses from `free`."""
    pitch, around = pitch_of(sizes.row_bytes), sizes.left + sizes.right
    ring_rows, reach = around + 2, reach_of(sizes)
    prefix_rows = group.rest
    # A group writes its gradients where the previous group's hidden rows were: half the memory, and already in cache.
    gradient_rows = prefix_rows + ring_rows * pitch
    prefixes, edge_gradients = free, free + 8 * (reach + 1)
    edge_signs = edge_gradients + 8 * EDGES
    gradients, hidden = edge_signs + 8 * EDGES, edge_signs + 8 * (EDGES + BLOCK)
    owns = hidden + 8 * BLOCK
    inverse_of = owns + 8 * reach
    ones = inverse_of + 8 * (around + 1)
    for t in range(BLOCK):
        row = gradient_rows + (t // GROUPS * (GROUPS + 1) + t % GROUPS) * pitch
        set_long(gradients, t, row)
        set_long(hidden, t, row + pitch)
        for end in range(2):
            set_long(edge_gradients, 2 * t + 1 + end, row)
            set_float(edge_signs, 2 * t + 1 + end, np.float32(1 - 2 * end))
    for j in range(reach + 1):
        set_long(prefixes, j, prefix_rows + j % ring_rows * pitch)
    for j in range(reach):
        set_long(owns, j, group.zero)
    for n in range(around + 1):
        set_float(inverse_of, n, np.float32(1.0) / np.float32(max(1, n)))
    for u in range(GROUP):
        set_float(ones, u, np.float32(1.0))
    return (
        Workspace(group, prefixes, edge_gradients, edge_signs, gradients, hidden, owns, inverse_of, ones),
        ones + 8 * GROUP,
    )


@njit(nogil=True)
def block_of(free: int, sizes: Sizes) -> Any:
    """(block, address of the free memory behind it). Every number gets 8 bytes, even those that need only 4."""
    reach, draws = reach_of(sizes), draws_of(sizes)
    examples, rows, noise = free + 8 * GROUP, free + 8 * (GROUP + 6 * BLOCK), free + 8 * (GROUP + 6 * BLOCK + 2 * reach)
    block = Block(
        free, examples, examples + 8 * BLOCK, examples + 16 * BLOCK, examples + 24 * BLOCK, examples + 32 * BLOCK,
        examples + 40 * BLOCK, rows, rows + 8 * reach, noise, noise + 8 * draws, noise + 16 * draws,
        noise + 24 * draws, noise + 24 * draws + 8 * reach,
    )  # fmt: skip
    return block, noise + 24 * draws + 8 * (reach + EDGES)


@njit(nogil=True)
def moves_of(free: int, sizes: Sizes) -> Any:
    """(moves, address of the free memory behind it). Each array has room for the three extra addresses that copying by whole
    vectors may write (`sharing.divide`)."""
    reach, draws = reach_of(sizes) + 3, draws_of(sizes)
    noise, rows = free + 16 * BLOCK, free + 16 * (BLOCK + draws)
    return Moves(free, free + 8 * BLOCK, noise, noise + 8 * draws, rows, rows + 8 * reach), rows + 16 * reach


@njit(nogil=True)
def thread_bytes(sizes: Sizes) -> int:
    """Bytes of two blocks, the moves and a workspace, without the workspace's rows."""
    reach, draws = reach_of(sizes), draws_of(sizes)
    blocks = 2 * (GROUP + 6 * BLOCK + 3 * reach + EDGES + 3 * draws)
    return 8 * (blocks + 2 * (BLOCK + draws + reach + 3) + 3 * (reach + 1) + 2 * EDGES + 2 * BLOCK + GROUP)


@njit(nogil=True, inline="always")
def place_of(t: int) -> int:
    """The place of target t when targets are stored group after group; in the stream, a group's targets are GROUPS apart."""
    return t % GROUPS * GROUP + t // GROUPS


@njit(nogil=True, inline="always")
def first_target(lanes: Lanes, lane: int, wave: int) -> int:
    """The first target that a lane trains in a wave; its STOP once it has trained them all."""
    place = lanes.places + 8 * PLACES * lane
    return min(long_at(place, START) + wave * BLOCK, long_at(place, STOP))  # type: ignore[no-any-return]


@njit(nogil=True, inline="always")
def noise_of(lanes: Lanes, lane: int, wave: int, sizes: Sizes) -> int:
    """The address of the noise words of a lane's block in a wave."""
    return lanes.noise_words + 4 * draws_of(sizes) * ((wave & 1) * sizes.lanes + lane)


@njit(nogil=True)
def locate(block: Block, lanes: Lanes, lane: int, wave: int, words: Words, sizes: Sizes, own: Workspace) -> None:
    """Fills in a lane's block of a wave; its noise words must have been drawn."""
    place, row_bytes = lanes.places + 8 * PLACES * lane, sizes.row_bytes
    first, last = first_target(lanes, lane, wave), first_target(lanes, lane, wave + 1)
    set_long(block.numbers, FIRST, first)
    set_long(block.numbers, COUNT, last - first)
    if first == last:
        return
    tokens, lead, reach = long_at(place, TOKENS), first - sizes.left, reach_of(sizes)
    begin, end = max(long_at(place, LOW) - lead, 0), min(long_at(place, HIGH) - lead, reach)
    for j in range(begin, end):
        word = int_at(tokens, lead + j)
        set_long(block.rows, j, words.w_in + word * row_bytes)
        set_int(block.row_rates, j, int_at(words.rates, word))
    for j in range(reach):
        if j < begin or j >= end:
            set_long(block.rows, j, own.group.zero)
            set_int(block.row_rates, j, 0)
    if last - first < BLOCK:
        for at in range(BLOCK):
            set_int(block.words, at, -1)
            set_long(block.targets, at, own.group.sink)
            set_int(block.inverses, at, 0)
            set_int(block.rates, at, 0)
    _find_edges(block, place, first, last - first, sizes)
    set_long(block.numbers, ABSENT, _locate_targets(block, place, first, last - first, words.w_out, sizes, own))
    noise = noise_of(lanes, lane, wave, sizes)
    for k in range(draws_of(sizes)):
        word = int_at(noise, k)
        set_int(block.noise_words, k, word)
        set_long(block.noise, k, words.w_out + word * row_bytes)
        set_int(block.noise_rates, k, int_at(words.rates, word))


@njit(nogil=True)
def _locate_targets(block: Block, place: int, first: int, count: int, w_out: int, sizes: Sizes, own: Workspace) -> int:
    """Fills in the targets' part of a block; returns the number of targets without context."""
    tokens, left, right = long_at(place, TOKENS), long_at(place, LEFT), long_at(place, RIGHT)
    absent: Any = np.int64(0)
    for t in range(count):
        before, after, word = byte_at(left, first + t), byte_at(right, first + t), int_at(tokens, first + t)
        set_long(block.lowers, t, long_at(own.prefixes, t + sizes.left - before))
        set_long(block.uppers, t, long_at(own.prefixes, t + sizes.left + after + 1))
        at = place_of(t)
        is_absent = before + after == 0
        set_int(block.inverses, at, int_at(own.inverse_of, before + after))
        set_int(block.rates, at, int_at(block.row_rates, t + sizes.left))
        set_int(block.words, at, -1 if is_absent else word)
        set_long(block.targets, at, own.group.sink if is_absent else w_out + word * sizes.row_bytes)
        absent += is_absent
    return absent  # type: ignore[no-any-return]


@njit(nogil=True)
def _find_edges(block: Block, place: int, first: int, count: int, sizes: Sizes) -> None:
    """Fills in a block's edges. From the last target to the first, each edge is put before the others at its position; where a
    window begins is never behind its target, and behind its end always is, so all edges at a position are in order."""
    left, right, reach = long_at(place, LEFT), long_at(place, RIGHT), reach_of(sizes)
    for j in range(reach):
        set_long(block.first_edges, j, 0)
    for t in range(count - 1, -1, -1):
        begin, end = t + sizes.left - byte_at(left, first + t), t + sizes.left + byte_at(right, first + t) + 1
        set_long(block.next_edges, 2 * t + 1, long_at(block.first_edges, begin))
        set_long(block.first_edges, begin, 2 * t + 1)
        if end < reach:
            set_long(block.next_edges, 2 * t + 2, long_at(block.first_edges, end))
            set_long(block.first_edges, end, 2 * t + 2)


@njit(nogil=True)
def train_block(now: Block, following: Block, moves: Moves, lanes: Lanes, lane: int, sizes: Sizes, own: Workspace) -> None:
    """Trains a block, adds its loss and examples to the lane's, and prefetches the rows of the following block."""
    first, count, absent = long_at(now.numbers, FIRST), long_at(now.numbers, COUNT), long_at(now.numbers, ABSENT)
    place, settings = lanes.places + 8 * PLACES * lane, lanes.settings + 4 * op.SETTINGS_FLOATS * lane
    row_bytes, around = sizes.row_bytes, sizes.left + sizes.right
    if count == 0:
        return
    _set_alpha(settings, sizes.alphas, first, long_at(place, START), long_at(place, STOP))
    set_long(lanes.examples, lane, long_at(lanes.examples, lane) + count - absent)
    for t in range(BLOCK):
        set_long(own.owns, sizes.left + t, long_at(own.gradients, t) if t < count else own.group.zero)
    if count < BLOCK:
        op.zero_rows(long_at(own.gradients, 0), pitch_of(row_bytes), BLOCK + GROUP)
    context.sum_windows(
        now.rows, around, own.prefixes, now.uppers, now.lowers, now.rows + 8 * sizes.left, count, own.hidden, row_bytes
    )
    if absent:
        # The hidden row of a target without context is zero; the difference of its sums may be a rounding error.
        for t in range(count):
            if int_at(now.words, place_of(t)) < 0:
                op.zero_rows(long_at(own.hidden, t), row_bytes, 1)
    _train_groups(now, following, moves, settings, count, sizes, own)
    context.move_context(
        now.first_edges, now.next_edges, own.edge_gradients, own.edge_signs, own.owns, moves.rows_from, moves.rows_to,
        now.row_rates, min(first + count + sizes.right, long_at(place, HIGH)) - first + sizes.left, row_bytes,
    )  # fmt: skip


@njit(nogil=True, inline="always")
def _set_alpha(settings: int, alphas: Any, first: int, start: int, stop: int) -> None:
    set_float(settings, op.ALPHA, np.float32(alphas[0] + (alphas[1] - alphas[0]) * ((first - start) / (stop - start))))


@njit(nogil=True)
def _train_groups(now: Block, following: Block, moves: Moves, settings: int, count: int, sizes: Sizes, own: Workspace) -> None:
    row_bytes, negative, shared = sizes.row_bytes, sizes.negative, own.group
    memory = GroupMemory(settings, shared.partials, shared.to_gradient, shared.to_output, shared.zero, shared.sink, shared.rest)
    for group in range(min(GROUPS, count)):
        at, of_noise, is_last = group * GROUP, group * negative, group + 1 == GROUPS
        inverses = now.inverses + 4 * at
        train_group(
            memory,
            Examples(
                now.words + 4 * at, now.targets + 8 * at, moves.targets_from + 8 * at, moves.targets_to + 8 * at, inverses,
                inverses if sizes.exact else own.ones, now.rates + 4 * at,
            ),
            long_at(own.hidden, group), (GROUPS + 1) * pitch_of(row_bytes), long_at(own.gradients, group),
            NoiseRows(
                now.noise_words + 4 * of_noise, now.noise + 8 * of_noise, moves.noise_from + 8 * of_noise,
                moves.noise_to + 8 * of_noise, now.noise_rates + 4 * of_noise,
            ),
            Coming(
                following.rows + 8 * (sizes.left + sizes.right + at),
                following.targets if is_last else now.targets + 8 * (at + GROUP),
                following.noise if is_last else now.noise + 8 * (of_noise + negative),
            ),
            negative, row_bytes,
        )  # fmt: skip
