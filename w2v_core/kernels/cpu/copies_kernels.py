"""Copies of the parameters that are trained stretch after stretch and merged in between, all in compiled code.

    every thread, for its lanes     look through the rows of all stretches
    barrier of all threads
    every thread                    train its lanes of a stretch in waves (`wave_kernels`), with the threads of the same copy
    barrier of all threads
    every thread                    fold its part of the rows that are merged
    barrier of all threads          … and on to the next stretch

Between two merges 32 cores train for about a millisecond. Giving work to as many threads, one after another under the lock of
the interpreter, takes as long, so it is done once for many stretches. One stretch of one copy is `train_lanes`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from w2v_core.contract import FloatRows, LocalTraining, Noise, SliceResult, Workroom
from w2v_core.kernels.checks import MOST_WAVES, raise_bad_noise
from w2v_core.kernels.cpu import barrier, sharing, stream_rows
from w2v_core.kernels.cpu import row_operations as op
from w2v_core.kernels.cpu.block_kernels import PLACES, START, STOP, Lanes, Sizes, Words
from w2v_core.kernels.cpu.group_kernels import NO_BAD_NOISE, address_of
from w2v_core.kernels.cpu.machine_code import compiled_apart
from w2v_core.kernels.cpu.merge_kernels import fold_rows
from w2v_core.kernels.cpu.sharing import Changes, Marks
from w2v_core.kernels.cpu.stream_rows import address
from w2v_core.kernels.cpu.wave_kernels import Outcome, train_waves
from w2v_core.reference import BLOCK, GROUP, GROUPS

W_IN, W_OUT, MARKS, LISTED, SOURCES, ENDS, CHANGES, NOISE, ADDRESSES = range(9)
"""Addresses of a copy's data: its matrices, the marks of its rows, its lanes' changes (`sharing`), their noise words."""


class Crew(NamedTuple):
    """The division of work: `groups` groups of `a_group` threads; a group trains one copy, or several, one after another."""

    groups: int
    a_group: int


class Inputs(NamedTuple):
    """What does not change: S stretches of C copies with up to L lanes each."""

    noise_table: Any
    rates_V: Any
    seeds_SCL: Any
    alphas_SC2: Any
    lanes_C: Any
    """int64: the lanes of each copy."""
    of_copies: Any
    """int64 (C, ADDRESSES)."""
    waves_SC: Any
    """int64: the waves that each copy has trained before each stretch, see `sharing.Marks`."""
    bases_2: Any
    """int64: addresses of the matrices that copies are merged into."""
    merged_rows_S: Any
    row_floats: int
    negative: int
    exact: bool
    adasum: bool


class Results(NamedTuple):
    """Filled in. Places are those of lane l of copy c in stretch s, in order of s, then c, then l."""

    places: Any
    """int64 (S·C·L, PLACES)."""
    found: Any
    """int64 (S·C·L, FOUND)."""
    settings_SCL: Any
    """float32 (S, C, L, SETTINGS_FLOATS)."""
    examples_SCL: Any
    losses_SCL: Any
    bad_noise_SCL: Any
    clock: Any
    """int64 (2, 2): room for two readings of the clock."""
    merging_ns: Any
    """int64 (1,): how long the first thread has merged, and waited to merge."""


@compiled_apart
def run_thread(thread: int, meetings: Any, crew: Crew, given: Inputs, results: Results) -> None:
    """One thread's part; returns early when another thread has given up, or when a word or a span is bad. `meetings`: a barrier
    for all threads, and one for each copy."""
    copies, here, threads = len(given.lanes_C), address_of(meetings[0]), crew.groups * crew.a_group
    group, number = thread // crew.a_group, thread % crew.a_group
    first_copy, last_copy = copies * group // crew.groups, copies * (group + 1) // crew.groups
    for copy in range(first_copy, last_copy):
        _look_through(copy, number, min(crew.a_group, given.lanes_C[copy]), given, results)
    if not barrier.wait(here, threads) or _is_bad(results.found):
        return
    changes_CD = np.zeros((copies + 1, given.row_floats), np.float32)
    for stretch in range(len(given.merged_rows_S)):
        for copy in range(first_copy, last_copy):
            used = min(crew.a_group, given.lanes_C[copy])
            if number < used:
                _train(copy, stretch, number, used, address_of(meetings[copy + 1]), given, results)
        if given.merged_rows_S[stretch] and not _merge(here, thread, threads, stretch, given, changes_CD, results):
            return


@njit(nogil=True, inline="always")
def _look_through(copy: int, number: int, threads: int, given: Inputs, results: Results) -> None:
    """Looks through the rows of a thread's lanes in all stretches. Threads that a copy has no lanes for have none."""
    stretches, copies, most_lanes = given.seeds_SCL.shape
    lanes = given.lanes_C[copy]
    first, last = lanes * min(number, threads) // threads, lanes * min(number + 1, threads) // threads
    for stretch in range(stretches):
        at = (stretch * copies + copy) * most_lanes
        stream_rows.look_through(results.places, at + first, at + last, given.rates_V.shape[0], results.found)


@njit(nogil=True, inline="always")
def _merge(here: int, thread: int, threads: int, stretch: int, given: Inputs, changes_CD: Any, results: Results) -> bool:
    """Folds a thread's part of the rows of both matrices, once all threads are `here`, and lets them go on together."""
    if thread == 0:
        barrier.read_clock(address_of(results.clock[0]))
    if not barrier.wait(here, threads):
        return False
    rows, copies = given.merged_rows_S[stretch], len(given.lanes_C)
    first, last = rows * thread // threads, rows * (thread + 1) // threads
    skipped, addresses_C = 4 * given.row_floats * first, np.empty(copies, np.int64)
    for matrix in range(2):
        for copy in range(copies):
            addresses_C[copy] = given.of_copies[copy, W_IN + matrix] + skipped
        base = given.bases_2[matrix] + skipped
        fold_rows(base, last - first, addresses_C, changes_CD, 4 * given.row_floats, given.adasum)
    if not barrier.wait(here, threads):
        return False
    if thread == 0:
        barrier.read_clock(address_of(results.clock[1]))
        passed = results.clock[1] - results.clock[0]
        results.merging_ns[0] += passed[0] * 1_000_000_000 + passed[1]
    return True


@njit(nogil=True, inline="always")
def _train(copy: int, stretch: int, number: int, threads: int, meeting: int, given: Inputs, results: Results) -> None:
    """A thread's part of a copy's stretch, see `train_waves`."""
    copies, most_lanes = given.seeds_SCL.shape[1:]
    lanes, at = given.lanes_C[copy], (stretch * copies + copy) * most_lanes
    left: Any = np.int64(0)
    right: Any = np.int64(0)
    longest: Any = np.int64(0)
    for place in range(at, at + lanes):
        left = max(left, results.found[place, stream_rows.BEFORE])
        right = max(right, results.found[place, stream_rows.AFTER])
        longest = max(longest, results.places[place, STOP] - results.places[place, START])
    alphas = given.alphas_SC2[stretch, copy]
    sizes = Sizes(
        left, right, lanes, threads, (longest + BLOCK - 1) // BLOCK, given.negative, 4 * given.row_floats, given.exact,
        (alphas[0], alphas[1]),
    )  # fmt: skip
    own, settings_L = given.of_copies[copy], results.settings_SCL[stretch, copy]
    train_waves(
        number, meeting, given.row_floats, given.noise_table, given.rates_V, given.seeds_SCL[stretch, copy], settings_L,
        Words(own[W_IN], own[W_OUT], address_of(given.rates_V)),
        Lanes(
            address_of(results.places) + 8 * PLACES * at, own[NOISE], address_of(settings_L),
            address_of(results.examples_SCL[stretch, copy]),
        ),
        sizes, Marks(own[MARKS], own[MARKS] + 4, given.waves_SC[stretch, copy]),
        Changes(own[LISTED], own[SOURCES], own[ENDS], own[CHANGES]),
        Outcome(results.losses_SCL[stretch, copy], results.bad_noise_SCL[stretch, copy]),
    )  # fmt: skip


@njit(nogil=True)
def _is_bad(found: Any) -> bool:
    for place in range(found.shape[0]):
        if found[place, stream_rows.BAD_TARGET] >= 0 or found[place, stream_rows.BAD_WORD] >= 0:
            return True
    return False


# ── from arrays to addresses ─────────────────────────────────────────────────────────────────────────────────────────

_MOST_REACH = 2 * 255
"""Most context rows before and after a target: spans are bytes."""


class _OfCopy:
    """What a `Workroom` keeps for a copy: marks, and room for changes. Waves are numbered on from call to call, because the marks
    of a large vocabulary take longer to clear than a short call to train."""

    def __init__(self, words: int, lanes: int, negative: int, row_floats: int, threads: int) -> None:
        # `sharing.entries_of` for the widest reach: how far spans reach is not known yet, and what is not used has no memory.
        # With one lane nothing is shared.
        entries = 2 * BLOCK + GROUPS * negative + _MOST_REACH if lanes > 1 else 0
        marks = np.zeros((words if entries else 0, sharing.MARKED, 2), np.uint16)
        listed, sources = np.empty((2, lanes, entries), np.int64)
        ends = np.zeros((lanes, threads + 1), np.int64)
        # From a cache line on: with vectors across two lines, 32 lanes took a tenth longer.
        raw = np.empty(lanes * entries * row_floats + 16, np.float32)
        changes = raw[-address(raw) % 64 // 4 :]
        self._arrays = marks, listed, sources, ends, changes, np.zeros((2, lanes, GROUPS * negative), np.int32)
        self.addresses = [address(array) for array in self._arrays]
        self._waves = 0

    def count(self, waves: Sequence[int]) -> list[int]:
        """Adds to the waves; returns the number of those before each stretch."""
        if self._waves + sum(waves) > MOST_WAVES:
            self._arrays[0].fill(0)
            self._waves = 0
        before = [self._waves]
        for some in waves:
            before.append(before[-1] + some)
        self._waves = before.pop()
        return before


class _Kept:
    """What a `Workroom` keeps: something for every copy, and the threads."""

    def __init__(self, words: int, lanes_C: tuple[int, ...], negative: int, row_floats: int, crew: Crew) -> None:
        self.made_for = words, lanes_C, negative, row_floats, crew
        self.copies = [_OfCopy(words, lanes, negative, row_floats, min(lanes, crew.a_group)) for lanes in lanes_C]
        others = crew.groups * crew.a_group - 1
        self.pool = ThreadPoolExecutor(others, thread_name_prefix="wave") if others else None

    def close(self) -> None:
        if self.pool:
            self.pool.shutdown()


def _kept_in(room: Workroom, *made_for: Any) -> _Kept:
    if room.kept is None or room.kept.made_for != made_for:
        room.close()
        room.kept = _Kept(*made_for)
    kept: _Kept = room.kept
    return kept


Seeds = Sequence[Sequence[int]]
"""The seed of every lane in each stretch."""


def train(
    bases: Sequence[FloatRows], copies: Sequence[LocalTraining], seeds: Sequence[Seeds], merged_rows: Sequence[int], noise: Noise,
    adasum: bool, threads: int, room: Workroom,
) -> tuple[list[list[list[SliceResult]]], float]:  # fmt: skip
    """`Kernels.train_copies` for model cbow, on at most `threads` threads. The arguments must have been checked, words and spans
    excepted."""
    lanes_C = tuple(len(copy.lanes) for copy in copies)
    crew = Crew(min(threads, len(copies)), min(max(1, threads // len(copies)), max(lanes_C)))
    kept = _kept_in(room, len(copies[0].w_in_VD), lanes_C, copies[0].updates[0].negative, copies[0].w_in_VD.shape[1], crew)
    places = _places_of(copies, len(merged_rows))
    given, results = _given(bases, copies, seeds, merged_rows, noise, adasum, kept, places), _nothing_yet(places)
    try:
        _run(kept, crew, given, results)
    except BaseException:
        # Ends what may still wait for a thread of the pool: it has addresses of arrays that the caller will not keep.
        room.close()
        raise
    _raise_what_is_bad(copies, results)
    losses, examples = results.losses_SCL.tolist(), results.examples_SCL.tolist()
    found = [
        [list(map(SliceResult, *of_copy))[:lanes] for *of_copy, lanes in zip(*of_stretch, lanes_C, strict=True)]
        for of_stretch in zip(losses, examples, strict=True)
    ]
    return found, int(results.merging_ns[0]) * 1e-9


def _places_of(copies: Sequence[LocalTraining], stretches: int) -> NDArray[np.int64]:
    """int64 (S, C, L, PLACES): the place of every lane in each stretch; zeros where a copy has fewer lanes than others."""
    places = np.zeros((stretches, len(copies), max(len(copy.lanes) for copy in copies), PLACES), np.int64)
    for number, copy in enumerate(copies):
        own = places[:, number, : len(copy.lanes)]
        own[:] = [stream_rows.place_of(targets) for targets in copy.lanes]
        own[..., START], own[..., STOP] = copy.bounds_SL[:-1], copy.bounds_SL[1:]
    return places


def _given(
    bases: Sequence[FloatRows], copies: Sequence[LocalTraining], seeds: Sequence[Seeds], merged_rows: Sequence[int], noise: Noise,
    adasum: bool, kept: _Kept, places: NDArray[np.int64],
) -> Inputs:  # fmt: skip
    """Counts the waves in `kept`. The caller must keep all arrays, of which some are passed by address."""
    update, row_floats = copies[0].updates[0], copies[0].w_in_VD.shape[1]
    seeds_SCL = np.zeros(places.shape[:3], np.uint64)
    for number, (copy, seeds_SL) in enumerate(zip(copies, seeds, strict=True)):
        seeds_SCL[:, number, : len(copy.lanes)] = seeds_SL
    waves_SC = -(-(places[..., STOP] - places[..., START]).max(axis=2) // BLOCK)
    before_CS = [of_copy.count(waves_SC[:, number].tolist()) for number, of_copy in enumerate(kept.copies)]
    addresses = [
        [address(copy.w_in_VD), address(copy.w_out_VD), *of_copy.addresses]
        for copy, of_copy in zip(copies, kept.copies, strict=True)
    ]
    return Inputs(
        noise.table_T, noise.rates_V, seeds_SCL,
        np.array([[copy.updates[stretch].alphas for copy in copies] for stretch in range(len(merged_rows))], np.float64),
        np.array([len(copy.lanes) for copy in copies], np.int64), np.array(addresses, np.int64),
        np.array(before_CS, np.int64).T.copy(), np.array([address(base) for base in bases], np.int64),
        np.array(merged_rows, np.int64), row_floats, update.negative, update.gradient == "exact", adasum,
    )  # fmt: skip


def _nothing_yet(places: NDArray[np.int64]) -> Results:
    """The results of a call that begins with these places, which it narrows."""
    shape = places.shape[:3]
    settings = np.zeros((*shape, op.SETTINGS_FLOATS), np.float32)
    settings[..., op.PRODUCT : op.PRODUCT + 2 * GROUP].view(np.float64)[:] = 1.0
    places = places.reshape(-1, PLACES)
    return Results(
        places, stream_rows.nothing_found(len(places)), settings, np.zeros(shape, np.int64), np.zeros(shape),
        np.full(shape, NO_BAD_NOISE, np.int64), np.zeros((2, 2), np.int64), np.zeros(1, np.int64),
    )  # fmt: skip


def _run(kept: _Kept, crew: Crew, given: Inputs, results: Results) -> None:
    """All threads' parts. After an error in one of them, or where one cannot be started, none waits for another."""
    meetings = np.stack([barrier.new_barrier() for _ in range(len(given.lanes_C) + 1)])

    def run(thread: int) -> None:
        with _giving_up(meetings):
            run_thread(thread, meetings, crew, given, results)

    others: list[Future[None]] = []
    try:
        with _giving_up(meetings):
            if kept.pool:
                for thread in range(1, crew.groups * crew.a_group):
                    others.append(kept.pool.submit(run, thread))
            run_thread(0, meetings, crew, given, results)
    finally:
        wait(others)
    for other in others:
        other.result()


@contextlib.contextmanager
def _giving_up(meetings: NDArray[np.int64]) -> Iterator[None]:
    """After an error inside, no thread waits at a barrier any more."""
    try:
        yield
    except BaseException:
        for meeting in meetings:
            barrier.give_up(meeting)
        raise


def _raise_what_is_bad(copies: Sequence[LocalTraining], results: Results) -> None:
    """Raises ValueError for the first bad span, word or noise word."""
    words = len(copies[0].w_in_VD)
    if (results.found[:, [stream_rows.BAD_TARGET, stream_rows.BAD_WORD]] >= 0).any():
        stretches, _, lanes = results.examples_SCL.shape
        # A copy with fewer lanes than others has places without any.
        slices = [copy.lanes[min(lane, len(copy.lanes) - 1)] for copy in copies for lane in range(lanes)]
        stream_rows.raise_what_is_bad(slices * stretches, words, results.found)
    for bad_noise in results.bad_noise_SCL[results.bad_noise_SCL != NO_BAD_NOISE].tolist():
        raise_bad_noise(bad_noise, words)
