"""Which rows several lanes touch in a wave, and how their changes of those rows are handed over.

    mark         every lane writes its own stamp of the wave beside each row that its block touches
    find_shared  where a lane finds another's stamp, it writes beside the row that several touch it in this wave
    divide       a block's change of such a row goes to the lane's own memory and into a list, any other into the row itself
    hand_over    every thread adds the listed changes of the rows that it owns, lane by lane

Two lanes that stamp a row race, and exactly one of them wins: the other finds that out. So who wins does not matter, and
the lists are the same however many threads there are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

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
)
from w2v_core.kernels.cpu.change_operations import add_changes
from w2v_core.kernels.cpu.vector_ir import int_at, long_at, set_long, set_short, short_at
from w2v_core.reference import BLOCK, GROUPS


class Marks(NamedTuple):
    """Addresses of int32 (V, 2) for each matrix: the last stamp of a row, and the wave, counted from 1, in which several lanes
    last touched it."""

    w_in: int
    w_out: int


class Changes(NamedTuple):
    """Addresses of the lanes' changes of shared rows."""

    rows: int
    """int64 (L, entries): addresses of the rows, those of each owner together."""
    sources: int
    """int64 (L, entries): addresses of their changes."""
    ends: int
    """int64 (L, threads + 1): where the entries of each owner begin, and the last end."""
    memory: int
    """float32 (L, entries, row): the changes."""


class Listed(NamedTuple):
    """Addresses of a block's changes of shared rows as they come: words, addresses of rows and of changes, all int64."""

    words: int
    rows: int
    sources: int


@njit(nogil=True, inline="always")
def entries_of(sizes: Sizes) -> int:
    """Most changes of shared rows in a block."""
    return 2 * BLOCK + draws_of(sizes) + sizes.left + sizes.right


@njit(nogil=True)
def listed_bytes(sizes: Sizes) -> int:
    # One more than there can be: an entry is written before it is known whether it counts.
    return 24 * (entries_of(sizes) + 1)


@njit(nogil=True)
def listed_of(free: int, sizes: Sizes) -> Listed:
    entries = entries_of(sizes) + 1
    return Listed(free, free + 8 * entries, free + 16 * entries)


@njit(nogil=True)
def mark(lanes: Lanes, lane: int, wave: int, marks: Marks, sizes: Sizes) -> None:
    """Stamps the rows of a lane's block: all that its targets could reach, the targets themselves, and the noise words."""
    first, last = first_target(lanes, lane, wave), first_target(lanes, lane, wave + 1)
    if first == last:
        return
    place, noise = lanes.places + 8 * PLACES * lane, noise_of(lanes, lane, wave, sizes)
    tokens = long_at(place, TOKENS)
    for i in range(max(long_at(place, LOW), first - sizes.left), min(long_at(place, HIGH), last + sizes.right)):
        set_short(marks.w_in, 2 * int_at(tokens, i), lane)
    for i in range(first, last):
        set_short(marks.w_out, 2 * int_at(tokens, i), lane)
    for k in range(draws_of(sizes)):
        set_short(marks.w_out, 2 * int_at(noise, k), lane)


@njit(nogil=True)
def find_shared(lanes: Lanes, lane: int, wave: int, marks: Marks, sizes: Sizes) -> None:
    """Says of every row of a lane's block that has another's stamp that it is shared in this wave."""
    first, last = first_target(lanes, lane, wave), first_target(lanes, lane, wave + 1)
    if first == last:
        return
    place, noise = lanes.places + 8 * PLACES * lane, noise_of(lanes, lane, wave, sizes)
    tokens = long_at(place, TOKENS)
    for i in range(max(long_at(place, LOW), first - sizes.left), min(long_at(place, HIGH), last + sizes.right)):
        _compare(marks.w_in, 2 * int_at(tokens, i), lane, wave)
    for i in range(first, last):
        _compare(marks.w_out, 2 * int_at(tokens, i), lane, wave)
    for k in range(draws_of(sizes)):
        _compare(marks.w_out, 2 * int_at(noise, k), lane, wave)


@njit(nogil=True, inline="always")
def _compare(marks: int, cell: int, lane: int, wave: int) -> None:
    if short_at(marks, cell) != lane:
        set_short(marks, cell + 1, wave + 1)


@njit(nogil=True)
def divide(
    block: Block, moves: Moves, listed: Listed, lanes: Lanes, lane: int, wave: int, marks: Marks, changes: Changes, zero: int,
    sizes: Sizes,
) -> int:  # fmt: skip
    """Decides where each change of a block goes, and lists those of shared rows; their number."""
    count: Any = np.int64(0)
    if long_at(block.numbers, COUNT) == 0:
        return count  # type: ignore[no-any-return]
    memory = changes.memory + lane * entries_of(sizes) * sizes.row_bytes
    for at in range(BLOCK):
        word = int_at(block.words, at)
        shared = np.int64(word >= 0) & np.int64(short_at(marks.w_out, 2 * max(word, 0) + 1) == wave + 1)
        free = memory + count * sizes.row_bytes
        _direct(at, long_at(block.targets, at), shared, moves.targets_from, moves.targets_to, zero, free)
        count = _list(listed, count, word, long_at(block.targets, at), free, shared)
    # A short last block has fewer groups, and leaves the noise of the others alone.
    for k in range(min(GROUPS, long_at(block.numbers, COUNT)) * sizes.negative):
        word, free = int_at(block.noise_words, k), memory + count * sizes.row_bytes
        shared = np.int64(short_at(marks.w_out, 2 * word + 1) == wave + 1)
        _direct(k, long_at(block.noise, k), shared, moves.noise_from, moves.noise_to, zero, free)
        count = _list(listed, count, word, long_at(block.noise, k), free, shared)
    place, lead = lanes.places + 8 * PLACES * lane, long_at(block.numbers, FIRST) - sizes.left
    tokens, begin = long_at(place, TOKENS), max(long_at(place, LOW) - lead, 0)
    end = min(long_at(place, HIGH) - lead, long_at(block.numbers, COUNT) + sizes.left + sizes.right)
    for j in range(begin):
        _direct(j, zero, 0, moves.rows_from, moves.rows_to, zero, zero)
    for j in range(begin, end):
        word, free = int_at(tokens, lead + j), memory + count * sizes.row_bytes
        shared = np.int64(short_at(marks.w_in, 2 * word + 1) == wave + 1)
        _direct(j, long_at(block.rows, j), shared, moves.rows_from, moves.rows_to, zero, free)
        count = _list(listed, count, word, long_at(block.rows, j), free, shared)
    return count  # type: ignore[no-any-return]


@njit(nogil=True, inline="always")
def _direct(at: int, row: int, shared: Any, from_: int, to: int, zero: int, free: int) -> None:
    """From and to the row itself, or if it is shared from zero to free memory. Whether it is shared is anyone's guess, so
    there is no branch."""
    own = shared - 1
    set_long(from_, at, row & own | zero & ~own)
    set_long(to, at, row & own | free & ~own)


@njit(nogil=True, inline="always")
def _list(listed: Listed, count: int, word: int, row: int, source: int, shared: Any) -> Any:
    """Lists a change; it counts if the row is shared."""
    set_long(listed.words, count, word)
    set_long(listed.rows, count, row)
    set_long(listed.sources, count, source)
    return count + shared


@njit(nogil=True, inline="always")
def _owner_of(word: int, threads: int) -> int:
    """A thread for each word; all have about as many of the frequent ones as of the rare ones."""
    scattered = np.uint64(word) * np.uint64(0x9E3779B1) & np.uint64(0xFFFFFFFF)
    return np.int64(scattered * np.uint64(threads) >> np.uint64(32))  # type: ignore[return-value]


@njit(nogil=True)
def sort_by_owner(listed: Listed, count: int, changes: Changes, lane: int, sizes: Sizes) -> None:
    """Puts the listed changes in order of the threads that own their rows, else as they came."""
    threads, at_lane = sizes.threads, 8 * lane * entries_of(sizes)
    rows, sources, ends = changes.rows + at_lane, changes.sources + at_lane, changes.ends + 8 * lane * (threads + 1)
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
    # Each now stands at the end of its owner's entries, where those of the next begin.
    for owner in range(threads, 0, -1):
        set_long(ends, owner, long_at(ends, owner - 1))
    set_long(ends, 0, 0)


@njit(nogil=True)
def hand_over(changes: Changes, thread: int, sizes: Sizes) -> None:
    """Adds the changes of the rows that a thread owns, lane by lane."""
    for lane in range(sizes.lanes):
        ends = changes.ends + 8 * lane * (sizes.threads + 1)
        begin, end = long_at(ends, thread), long_at(ends, thread + 1)
        at = 8 * (lane * entries_of(sizes) + begin)
        add_changes(changes.rows + at, changes.sources + at, end - begin, sizes.row_bytes)
