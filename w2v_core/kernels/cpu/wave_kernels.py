"""CBOW in waves: in each wave every lane trains one block of its own slice, all on one copy of the parameters.

`reference.train_lanes` defines a wave: a row that only one lane touches moves at once, as if the lane were alone; a row that
several lanes touch stays unchanged until all blocks are trained, and then gets their changes, lane by lane. So the result
depends on the lanes and not on the threads that train them, and only the changes to shared rows are copied. With one lane no
row is shared, and this is `train_slice`.

    every thread, for its lanes     train the block, list the changes to shared rows, mark what the next block touches
    barrier
    every thread                    add the listed changes to the rows that it owns; find what the next blocks share
    barrier

Nothing here is compiled by itself; it is inlined into `copies_kernels`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from w2v_core.kernels.cpu import barrier, sharing
from w2v_core.kernels.cpu.block_kernels import (
    Block,
    Lanes,
    Moves,
    Sizes,
    Words,
    block_of,
    draws_of,
    locate,
    moves_of,
    noise_of,
    thread_bytes,
    train_block,
    workspace_of,
    workspace_rows,
)
from w2v_core.kernels.cpu.group_kernels import (
    NO_BAD_NOISE,
    address_of,
    group_memory_of,
    look_up,
    loss_of,
    pick_cells,
    scratch_of,
)
from w2v_core.kernels.cpu.sharing import Changes, Marks


class Outcome(NamedTuple):
    """The result of every lane."""

    losses_L: Any
    bad_noise_L: Any
    """A word outside the vocabulary that was drawn, else NO_BAD_NOISE."""


@njit(nogil=True, inline="always")
def train_waves(
    thread: int, meeting: int, row_floats: int, noise_table: Any, rates_V: Any, seeds_L: Any, settings_L: Any, words: Words,
    lanes: Lanes, sizes: Sizes, marks: Marks, changes: Changes, outcome: Outcome,
) -> None:  # fmt: skip
    """Trains one thread's part of all waves; returns early when another thread has given up. `meeting`: address of the barrier of
    this copy's threads."""
    several = sizes.lanes > 1
    first_lane, last_lane = sizes.lanes * thread // sizes.threads, sizes.lanes * (thread + 1) // sizes.threads
    scratch = scratch_of(row_floats, workspace_rows(sizes), sizes.negative)
    memory = np.zeros(thread_bytes(sizes) + sharing.listed_bytes(sizes), np.uint8)
    own, free = workspace_of(group_memory_of(scratch, sizes.row_bytes, sizes.negative), address_of(memory), sizes)
    now, free = block_of(free, sizes)
    following, free = block_of(free, sizes)
    moves, free = moves_of(free, sizes)
    listed = sharing.listed_of(free, sizes)
    picks = np.empty(draws_of(sizes), np.uint64)
    pick_cells(picks, noise_table, seeds_L[first_lane], 0)
    for wave in range(-1, sizes.waves):
        for lane in range(first_lane, last_lane):
            now, following = following, now
            _make_ready(
                following, first_lane, last_lane, lane, wave, picks, noise_table, rates_V.shape[0], seeds_L, words, lanes, sizes,
                marks, own, outcome,
            )  # fmt: skip
            if wave < 0:
                continue
            if several:
                count = sharing.divide(now, moves, listed, lanes, lane, wave, marks, changes, own.group.zero, sizes)
                sharing.sort_by_owner(listed, count, changes, lane, sizes)
            else:
                moves = Moves(now.targets, now.targets, now.noise, now.noise, now.rows, now.rows)
            train_block(now, following, moves, lanes, lane, sizes, own)
        if several:
            if not barrier.wait(meeting, sizes.threads):
                return
            if wave >= 0:
                sharing.hand_over(changes, thread, sizes)
            for lane in range(first_lane, last_lane):
                sharing.find_shared(lanes, lane, wave + 1, marks, sharing.nowhere_in(listed, sizes), sizes)
            if not barrier.wait(meeting, sizes.threads):
                return
    for lane in range(first_lane, last_lane):
        outcome.losses_L[lane] = loss_of(settings_L[lane])
    # Mentioned once more so that Numba keeps them alive to the end.
    scratch[0] = memory[0]


@njit(nogil=True)
def _make_ready(
    following: Block, first_lane: int, last_lane: int, lane: int, wave: int, picks: Any, noise_table: Any, vocab_size: int,
    seeds_L: Any, words: Words, lanes: Lanes, sizes: Sizes, marks: Marks, own: Any, outcome: Outcome,
) -> None:  # fmt: skip
    """Draws the noise of a lane's block of the next wave, marks its rows, and locates the block that the thread trains next."""
    is_last = lane + 1 == last_lane
    if wave + 1 < sizes.waves:
        # The cells of the noise table were picked one call earlier, so that they are in the cache by now.
        bad_noise = look_up(noise_of(lanes, lane, wave + 1, sizes), picks, noise_table, vocab_size)
        if bad_noise != NO_BAD_NOISE:
            outcome.bad_noise_L[lane] = bad_noise
        after, of_wave = (first_lane, wave + 2) if is_last else (lane + 1, wave + 1)
        pick_cells(picks, noise_table, seeds_L[after], of_wave * draws_of(sizes))
        if sizes.lanes > 1:
            sharing.mark(lanes, lane, wave + 1, marks, sizes)
    if is_last and wave + 1 < sizes.waves:
        locate(following, lanes, first_lane, wave + 1, words, sizes, own)
    elif not is_last and wave >= 0:
        locate(following, lanes, lane + 1, wave, words, sizes, own)
