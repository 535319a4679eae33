"""CBOW in waves: in each wave every lane trains one block of its own slice, all on one copy of the parameters.

`reference.train_lanes` defines a wave: a row that only one lane touches moves at once, as if the lane were alone; a row that
several lanes touch stays unchanged until all blocks are trained, and then gets their changes, lane by lane. So the result
depends on the lanes and not on the threads that train them, and only the changes to shared rows are copied. With one lane no
row is shared, and this is `train_slice`.

    every thread, for its lanes     train the block, list the changes to shared rows, mark what the next block touches
    barrier
    every thread                    add the listed changes to the rows that it owns; find what the next blocks share
    barrier
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from w2v_core.contract import FloatRows, Noise, SliceResult, Update, Workroom
from w2v_core.kernels.checks import raise_bad_noise
from w2v_core.kernels.cpu import barrier, sharing
from w2v_core.kernels.cpu import row_operations as op
from w2v_core.kernels.cpu.block_kernels import (
    START,
    STOP,
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
from w2v_core.kernels.cpu.machine_code import compiled
from w2v_core.kernels.cpu.sharing import Changes, Marks
from w2v_core.reference import BLOCK, GROUP, GROUPS


class Outcome(NamedTuple):
    """The result of every lane."""

    losses_L: Any
    bad_noise_L: Any
    """A word outside the vocabulary that was drawn, else NO_BAD_NOISE."""


@compiled
def run_thread(
    thread: int, meeting: Any, row_floats: int, noise_table: Any, rates_V: Any, seeds_L: Any, settings_L: Any, words: Words,
    lanes: Lanes, sizes: Sizes, marks: Marks, changes: Changes, outcome: Outcome,
) -> None:  # fmt: skip
    """Trains one thread's part of all waves; returns early when another thread has given up."""
    several, here = sizes.lanes > 1, address_of(meeting)
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
            if not barrier.wait(here, sizes.threads):
                return
            if wave >= 0:
                sharing.hand_over(changes, thread, sizes)
            for lane in range(first_lane, last_lane):
                sharing.find_shared(lanes, lane, wave + 1, marks, sharing.nowhere_in(listed, sizes), sizes)
            if not barrier.wait(here, sizes.threads):
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


# ── from arrays to addresses ─────────────────────────────────────────────────────────────────────────────────────────

MOST_WAVES = (1 << 16) - 1
"""Waves that a mark can tell apart, from the first one on."""


class _Kept:
    """What a `Workroom` keeps: marks, room for changes, threads. Waves are numbered on from call to call, because the marks of a
    large vocabulary take longer to clear than a short call to train."""

    def __init__(self, words: int, sizes: Sizes) -> None:
        self.made_for = words, sizes
        # `sharing.entries_of`, which would have to be compiled for this one call. With one lane nothing is shared.
        lanes, entries = sizes.lanes, 2 * BLOCK + GROUPS * sizes.negative + sizes.left + sizes.right if sizes.lanes > 1 else 0
        self.marks = np.zeros((words if entries else 0, sharing.MARKED, 2), np.uint16)
        self.listed = np.empty((2, lanes, entries), np.int64)
        # From a cache line on: with vectors across two lines, 32 lanes took a tenth longer.
        raw = np.empty(lanes * entries * sizes.row_bytes // 4 + 16, np.float32)
        self.changes = raw[-_address(raw) % 64 // 4 :]
        self.pool = ThreadPoolExecutor(sizes.threads - 1, thread_name_prefix="wave") if sizes.threads > 1 else None
        self._waves = 0

    def close(self) -> None:
        if self.pool:
            self.pool.shutdown()

    def count(self, waves: int) -> int:
        """Adds to the waves; returns the number of those before."""
        if self._waves + waves > MOST_WAVES:
            self.marks.fill(0)
            self._waves = 0
        self._waves += waves
        return self._waves - waves


def _kept_in(room: Workroom, words: int, sizes: Sizes) -> _Kept:
    sizes = sizes._replace(waves=0, alphas=(0.0, 0.0))  # these two may differ from call to call
    if room.kept is None or room.kept.made_for != (words, sizes):
        room.close()
        room.kept = _Kept(words, sizes)
    kept: _Kept = room.kept
    return kept


def train(
    w_in_VD: FloatRows, w_out_VD: FloatRows, places: NDArray[np.int64], left: int, right: int, seeds_L: NDArray[np.uint64],
    noise: Noise, update: Update, threads: int, room: Workroom,
) -> list[SliceResult]:  # fmt: skip
    """`reference.train_lanes` for model cbow, on at most `threads` threads; lanes as `stream_rows.places_of` describes them. The
    arguments must have been checked."""
    count, row_floats = len(places), w_in_VD.shape[1]
    longest = int((places[:, STOP] - places[:, START]).max())
    sizes = Sizes(
        left, right, count, min(threads, count), -(-longest // BLOCK), update.negative, 4 * row_floats,
        update.gradient == "exact", update.alphas,
    )  # fmt: skip
    kept = _kept_in(room, len(w_in_VD), sizes)
    settings = np.zeros((count, op.SETTINGS_FLOATS), np.float32)
    settings[:, op.PRODUCT : op.PRODUCT + 2 * GROUP].view(np.float64)[:] = 1.0
    noise_words, examples = np.zeros((2, count, GROUPS * sizes.negative), np.int32), np.zeros(count, np.int64)
    ends = np.zeros((count, sizes.threads + 1), np.int64)
    outcome = Outcome(np.zeros(count), np.full(count, NO_BAD_NOISE, np.int64))
    meeting = barrier.new_barrier()
    rest = (
        row_floats, noise.table_T, noise.rates_V, seeds_L, settings,
        Words(_address(w_in_VD), _address(w_out_VD), _address(noise.rates_V)),
        Lanes(_address(places), _address(noise_words), _address(settings), _address(examples)), sizes,
        Marks(_address(kept.marks), _address(kept.marks) + 4, kept.count(sizes.waves)),
        Changes(_address(kept.listed[0]), _address(kept.listed[1]), _address(ends), _address(kept.changes)), outcome,
    )  # fmt: skip

    def run(thread: int) -> None:
        try:
            run_thread(thread, meeting, *rest)
        except BaseException:
            barrier.give_up(meeting)
            raise

    others = [kept.pool.submit(run, thread) for thread in range(1, sizes.threads)] if kept.pool else []
    try:
        run(0)
    finally:
        wait(others)
    for other in others:
        other.result()
    for lane in range(count):
        if outcome.bad_noise_L[lane] != NO_BAD_NOISE:
            raise_bad_noise(int(outcome.bad_noise_L[lane]), len(w_in_VD))
    return [SliceResult(*found) for found in zip(outcome.losses_L.tolist(), examples.tolist(), strict=True)]


def _address(array: NDArray[Any]) -> int:
    return int(array.ctypes.data)
