"""Which rows several lanes touch in a wave, and how their changes to those rows are combined.

    mark         every lane writes its own stamp into the mark of each row that its block touches
    find_shared  where a lane finds another lane's stamp, it notes in the mark that the row is shared in this wave
    divide       a block's change to a shared row goes to the lane's own memory and into a list; other changes go to the row
    hand_over    every thread adds the listed changes to the rows that it owns, lane by lane

When several lanes stamp the same row, one stamp remains, and all other lanes find one that is not theirs. It does not matter
which one remains: the lists are the same for any number of threads.

Whether a row is shared cannot be predicted, and a mispredicted branch costs more than it would save: nothing here branches on it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from w2v_core.kernels.cpu import row_operations as op
from w2v_core.kernels.cpu.block_kernels import (
    COUNT,
    FIRST,
    HIGH,
    LOW,
    PLACES,
    TOKENS,
    Block,
    Lanes,
    Moves,
    Sizes,
    draws_of,
    first_target,
    noise_of,
    reach_of,
)
from w2v_core.kernels.cpu.change_operations import add_changes
from w2v_core.kernels.cpu.vector_ir import VECTOR_BYTES, int_at, long_at, set_long, set_short, short_at
from w2v_core.reference import BLOCK, GROUPS

MARKED = 2
"""Marks per word: one for its row of W_in and one for its row of W_out, side by side, because targets are context rows too."""


class Marks(NamedTuple):
    """Addresses of the first word's marks; those of the next word are `MARKED` marks further on. A mark is two uint16: the lane
    that stamped the row last, and the number of the latest wave in which several lanes touched it. Waves are numbered on
    from call to call: the first one is `before` + 1."""

    w_in: int
    w_out: int
    before: int


class Changes(NamedTuple):
    """Addresses of the lanes' changes to shared rows."""

    rows: int
    """int64 (L, entries): addresses of the rows, grouped by owner."""
    sources: int
    """int64 (L, entries): addresses of their changes."""
    ends: int
    """int64 (L, threads + 1): the index at which each owner's entries begin, and the end of the last ones."""
    memory: int
    """float32 (L, entries, row): the changes."""


class Listed(NamedTuple):
    """Addresses of four int64 arrays about a block's shared rows, in order of their changes: their places in the block, their
    words, the addresses of the rows and of the changes."""

    places: int
    words: int
    rows: int
    sources: int


@njit(nogil=True, inline="always")
def entries_of(sizes: Sizes) -> int:
    """Most changes to shared rows in a block."""
    return 2 * BLOCK + draws_of(sizes) + sizes.left + sizes.right


@njit(nogil=True)
def listed_bytes(sizes: Sizes) -> int:
    # One entry more than there can be: an entry is written before it is known whether it counts.
    return 32 * (entries_of(sizes) + 1)


@njit(nogil=True)
def listed_of(free: int, sizes: Sizes) -> Listed:
    room = 8 * (entries_of(sizes) + 1)
    return Listed(free, free + room, free + 2 * room, free + 3 * room)


@njit(nogil=True)
def nowhere_in(listed: Listed, sizes: Sizes) -> int:
    """Address of a dummy mark, which belongs to no row."""
    return listed.sources + 8 * entries_of(sizes)


# ── which lanes touch a row ──────────────────────────────────────────────────────────────────────────────────────────


@njit(nogil=True)
def mark(lanes: Lanes, lane: int, wave: int, marks: Marks, sizes: Sizes) -> None:
    """Stamps the rows of a lane's block: all context rows within reach of its targets, the targets and the noise words."""
    first, last = first_target(lanes, lane, wave), first_target(lanes, lane, wave + 1)
    if first == last:
        return
    place, noise = lanes.places + 8 * PLACES * lane, noise_of(lanes, lane, wave, sizes)
    tokens = long_at(place, TOKENS)
    for i in range(max(long_at(place, LOW), first - sizes.left), min(long_at(place, HIGH), last + sizes.right)):
        set_short(marks.w_in, 2 * MARKED * int_at(tokens, i), lane)
    for i in range(first, last):
        set_short(marks.w_out, 2 * MARKED * int_at(tokens, i), lane)
    for k in range(draws_of(sizes)):
        set_short(marks.w_out, 2 * MARKED * int_at(noise, k), lane)


@njit(nogil=True)
def find_shared(lanes: Lanes, lane: int, wave: int, marks: Marks, none: int, sizes: Sizes) -> None:
    """Notes for each row of a lane's block with another lane's stamp that it is shared in this wave. `none`: a dummy mark."""
    first, last = first_target(lanes, lane, wave), first_target(lanes, lane, wave + 1)
    if first == last:
        return
    place, noise = lanes.places + 8 * PLACES * lane, noise_of(lanes, lane, wave, sizes)
    tokens, number = long_at(place, TOKENS), marks.before + wave + 1
    for i in range(max(long_at(place, LOW), first - sizes.left), min(long_at(place, HIGH), last + sizes.right)):
        _compare(marks.w_in + 4 * MARKED * int_at(tokens, i), lane, number, none)
    for i in range(first, last):
        _compare(marks.w_out + 4 * MARKED * int_at(tokens, i), lane, number, none)
    for k in range(draws_of(sizes)):
        _compare(marks.w_out + 4 * MARKED * int_at(noise, k), lane, number, none)


@njit(nogil=True, inline="always")
def _compare(mark_: int, lane: int, number: int, none: int) -> None:
    own = -np.int64(short_at(mark_, 0) == lane)
    set_short(mark_ & ~own | none & own, 1, number)


# ── where changes go ─────────────────────────────────────────────────────────────────────────────────────────────────


@njit(nogil=True)
def divide(
    block: Block, moves: Moves, listed: Listed, lanes: Lanes, lane: int, wave: int, marks: Marks, changes: Changes, zero: int,
    sizes: Sizes,
) -> int:  # fmt: skip
    """Decides where each change of a block goes and lists the changes to shared rows; returns their number."""
    count: Any = np.int64(0)
    if long_at(block.numbers, COUNT) == 0:
        return count  # type: ignore[no-any-return]
    number = marks.before + wave + 1
    memory = changes.memory + lane * entries_of(sizes) * sizes.row_bytes
    _copy_longs(moves.targets_from, moves.targets_to, block.targets, BLOCK)
    for at in range(BLOCK):
        word = int_at(block.words, at)
        shared = np.int64(word >= 0) & np.int64(short_at(marks.w_out, 2 * MARKED * max(word, 0) + 1) == number)
        count = _list(listed, count, at, word, shared)
    targets: Any = count
    _take_in(listed, 0, targets, moves.targets_from, moves.targets_to, zero, memory, sizes)
    _copy_longs(moves.noise_from, moves.noise_to, block.noise, draws_of(sizes))
    # A short last block has fewer groups and does not touch the noise rows of the others.
    for k in range(min(GROUPS, long_at(block.numbers, COUNT)) * sizes.negative):
        word = int_at(block.noise_words, k)
        count = _list(listed, count, k, word, np.int64(short_at(marks.w_out, 2 * MARKED * word + 1) == number))
    noise: Any = count
    _take_in(listed, targets, noise, moves.noise_from, moves.noise_to, zero, memory, sizes)
    place, lead = lanes.places + 8 * PLACES * lane, long_at(block.numbers, FIRST) - sizes.left
    tokens, begin = long_at(place, TOKENS), max(long_at(place, LOW) - lead, 0)
    end = min(long_at(place, HIGH) - lead, long_at(block.numbers, COUNT) + sizes.left + sizes.right)
    _copy_longs(moves.rows_from, moves.rows_to, block.rows, reach_of(sizes))
    for j in range(begin, end):
        word = int_at(tokens, lead + j)
        count = _list(listed, count, j, word, np.int64(short_at(marks.w_in, 2 * MARKED * word + 1) == number))
    _take_in(listed, noise, count, moves.rows_from, moves.rows_to, zero, memory, sizes)
    return count  # type: ignore[no-any-return]


@njit(nogil=True, inline="always")
def _copy_longs(a: int, b: int, source: int, count: int) -> None:
    """a = b = source, in whole vectors: up to three numbers more than `count` are written, so there must be room for them."""
    copied = (8 * count + VECTOR_BYTES - 1) // VECTOR_BYTES * VECTOR_BYTES
    op.copy_row(a, source, copied)
    op.copy_row(b, source, copied)


@njit(nogil=True, inline="always")
def _list(listed: Listed, count: int, at: int, word: int, shared: Any) -> Any:
    """Writes a change into the list; it counts only if the row is shared. Returns the new count."""
    set_long(listed.places, count, at)
    set_long(listed.words, count, word)
    return count + shared


@njit(nogil=True, inline="always")
def _take_in(listed: Listed, begin: int, end: int, from_: int, to: int, zero: int, memory: int, sizes: Sizes) -> None:
    """Redirects listed changes from their rows to the lane's memory, where they are added to zero."""
    for n in range(begin, end):
        at, free = long_at(listed.places, n), memory + n * sizes.row_bytes
        set_long(listed.rows, n, long_at(to, at))
        set_long(listed.sources, n, free)
        set_long(from_, at, zero)
        set_long(to, at, free)


@njit(nogil=True, inline="always")
def _owner_of(word: int, threads: int) -> int:
    """The thread that owns a word's rows; frequent and rare words alike are spread evenly over the threads."""
    scattered = np.uint64(word) * np.uint64(0x9E3779B1) & np.uint64(0xFFFFFFFF)
    return np.int64(scattered * np.uint64(threads) >> np.uint64(32))  # type: ignore[return-value]


@njit(nogil=True)
def sort_by_owner(listed: Listed, count: int, changes: Changes, lane: int, sizes: Sizes) -> None:
    """Sorts the listed changes by the threads that own their rows, otherwise in the order in which they were listed."""
    threads, at_lane = sizes.threads, 8 * lane * entries_of(sizes)
    rows, sources, ends = changes.rows + at_lane, changes.sources + at_lane, changes.ends + 8 * lane * (threads + 1)
    if threads == 1:
        for n in range(count):
            set_long(rows, n, long_at(listed.rows, n))
            set_long(sources, n, long_at(listed.sources, n))
        set_long(ends, 1, count)
        return
    for owner in range(threads + 1):
        set_long(ends, owner, 0)
    for n in range(count):
        owner = _owner_of(long_at(listed.words, n), threads)
        set_long(ends, owner, long_at(ends, owner) + 1)
    total: Any = np.int64(0)
    for owner in range(threads + 1):
        found = long_at(ends, owner)
        set_long(ends, owner, total)
        total += found
    for n in range(count):
        owner = _owner_of(long_at(listed.words, n), threads)
        at = long_at(ends, owner)
        set_long(rows, at, long_at(listed.rows, n))
        set_long(sources, at, long_at(listed.sources, n))
        set_long(ends, owner, at + 1)
    # Each number is now the end of its owner's entries, which is where the next owner's begin.
    for owner in range(threads, 0, -1):
        set_long(ends, owner, long_at(ends, owner - 1))
    set_long(ends, 0, 0)


@njit(nogil=True)
def hand_over(changes: Changes, thread: int, sizes: Sizes) -> None:
    """Adds the listed changes to the rows that a thread owns, lane by lane."""
    for lane in range(sizes.lanes):
        ends = changes.ends + 8 * lane * (sizes.threads + 1)
        begin, end = long_at(ends, thread), long_at(ends, thread + 1)
        at = 8 * (lane * entries_of(sizes) + begin)
        add_changes(changes.rows + at, changes.sources + at, end - begin, sizes.row_bytes)
