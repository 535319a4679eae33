"""How much memory, shared memory and disk a training needs, known before it starts.

    plan    = plan_memory(sizes, place_copies(chosen, copies))   from sizes alone, without any worker
    room    = cluster.room.measure_room()                        on every worker, once its kernels are loaded
    explain_shortfalls(plan, rooms, driver)                      one line per limit that is too low, with the numbers

All lanes of a copy share its two matrices. With several copies, a host also needs the base, their last merged state, and, if they
are trained during merges, the rows that each had when the merge began. If several workers of a host train, these lie in shared
memory, or else the copies themselves, and a worker's resident size counts the shared pages it touches: the base, its own copies,
and the rows of other copies that it folds. This resident size is compared with Dask's limits. Smaller needs are included too.
Sizes are upper bounds, and close ones (tests/pipeline/test_memory.py compares them).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.cluster.room import WORKING_BYTES, DriverRoom, Room
from pipeline.errors import CapacityError, amount, counted
from pipeline.stream.sizes import HELD_TOKENS, KEPT_BYTES, LOADERS, PART_BYTES, PIECE_TOKENS, STREAM_BYTES
from pipeline.training.placement import AHEAD, PIECE_BYTES, MergeRole, Place, merge_role, participants_by_host, strips_of

WORD_BYTES = 330
"""Driver memory per word of the vocabulary: its text, held in two tables, its entry in a dictionary, count and norm."""
DRIVER_BYTES = 96 << 20
ANALOGY_BLOCK = 512
"""Words whose cosines with all others are held at a time (`evaluate_analogies`), twice while they are combined."""
CHECKPOINTS_AT_ONCE = 3
"""Two are kept, and a third is written before the older one is removed."""
STATES_OF_LAYERS = 3
"""States of the layered engine at its peak: its own, the copy it returns, and the one it started from."""

MOST_CHANGES_OF_A_BLOCK = 128 + 128 + 2 * 255 + 16 * 64
"""Most rows that a block of a wave can touch, with the widest windows and the most noise words."""
IN_PROCESS = "in-process"
"""The address of a run's own process where it trains without workers (`cluster.workers.InProcess`)."""
HEADER_BYTES = 128
"""Bytes before the numbers in a file of NumPy's."""
MARK_BYTES = 8
"""Bytes of marks per word: two 16-bit numbers for each matrix."""

Contributors = tuple[tuple[str, int], ...]
"""((what, bytes), …)"""


@dataclass(frozen=True, kw_only=True)
class TrainingSizes:
    """The sizes that decide how much a training needs."""

    vocab_size: int
    vector_size: int
    row_floats: int
    """vector_size padded to whole SIMD vectors."""
    lanes: int
    copies: int
    lane_tokens: int
    """Kept tokens that a lane trains in a round."""
    epoch_tokens: int
    """Kept tokens per epoch."""
    epochs: int
    window: int
    noise_bytes: int
    sentence_bytes: int = 0
    """Bytes of the corpus as word ids, with its parts' words. A worker keeps its parts of it between epochs within KEPT_BYTES; a
    single part can be all of it."""
    analogy_words: int = 0
    """Number of words among which analogies are evaluated after training; 0 = no analogies."""
    merge_bits: int = 32
    """Bits per number that copies exchange."""
    layers: bool = False
    """The layered engine: one worker, optimizer state, the whole epoch in memory."""
    moments: int = 0
    """Matrices per parameter matrix in the state of the layered engine's optimizer."""

    @property
    def pair_bytes(self) -> int:
        """Bytes of both matrices, padded."""
        return 2 * self.vocab_size * self.row_floats * 4


@dataclass(frozen=True)
class WorkerNeed:
    """What one worker will need in addition to its current use."""

    address: str
    host: str
    private: Contributors
    touched: Contributors
    """Shared memory and mapped files of the host that count towards this worker's resident size."""

    @property
    def private_bytes(self) -> int:
        return sum(size for _, size in self.private)

    @property
    def resident_bytes(self) -> int:
        return self.private_bytes + sum(size for _, size in self.touched)


@dataclass(frozen=True)
class HostNeed:
    host: str
    address: str
    """Of its first worker: hosts have no names for people."""
    workers: int
    private_bytes: int
    """Private bytes of all its workers."""
    shared_bytes: int

    @property
    def bytes(self) -> int:
        return self.private_bytes + self.shared_bytes


@dataclass(frozen=True)
class MemoryPlan:
    """The needs of a training in bytes, in addition to what the processes use before it."""

    workers: tuple[WorkerNeed, ...]
    hosts: tuple[HostNeed, ...]
    driver: Contributors
    disk: Contributors
    file_bytes: int
    """Size of the largest file that a worker writes, in shared memory or on disk."""

    @property
    def largest_worker(self) -> WorkerNeed:
        return max(self.workers, key=lambda worker: worker.resident_bytes)

    @property
    def disk_bytes(self) -> int:
        return sum(size for _, size in self.disk)

    @property
    def driver_bytes(self) -> int:
        return sum(size for _, size in self.driver)


def plan_memory(sizes: TrainingSizes, places: Sequence[Place]) -> MemoryPlan:
    """The needs of the workers in their places, of their hosts, of the driver and of the workdir's disk."""
    workers = tuple(_worker_need(sizes, places, participant) for participant in range(len(places)))
    hosts = tuple(_host_need(sizes, places, workers, host) for host in participants_by_host(places))
    return MemoryPlan(workers, hosts, _driver_need(sizes), _disk_need(sizes), HEADER_BYTES + sizes.pair_bytes // 2)


def _worker_need(sizes: TrainingSizes, places: Sequence[Place], participant: int) -> WorkerNeed:
    place = places[participant]
    if sizes.layers:
        return WorkerNeed(place.address, place.host, _layers_need(sizes), ())
    role = merge_role(places, participant)
    own, lanes_a_copy = len(place.copies), -(-sizes.lanes // sizes.copies)
    own_lanes = own * lanes_a_copy
    # A lane's slice begins and ends within a piece, of which at most every token is kept.
    slice_tokens = min(HELD_TOKENS, sizes.lane_tokens) + 2 * sizes.window
    slice_bytes = min(slice_tokens + 2 * PIECE_TOKENS, sizes.epoch_tokens) * STREAM_BYTES
    kept = sizes.sentence_bytes * (sizes.epochs > 2) + sizes.epoch_tokens * STREAM_BYTES * (sizes.epochs > 1)
    private = [
        ("noise table, counts and rates", sizes.noise_bytes + 20 * sizes.vocab_size),
        ("working memory", WORKING_BYTES),
        ("the corpus, kept for the next epoch", min(KEPT_BYTES, kept)),
    ]
    if sizes.epochs > 1:
        private.append((f"a later epoch's stream for {counted(own_lanes, 'lanes|lane')}", own_lanes * slice_bytes))
        # One thread's part is part of the working memory.
        loaders = min(LOADERS, place.threads) - 1
        private.append((f"parts that {loaders + 1} threads draw from", loaders * min(PART_BYTES, sizes.sentence_bytes)))
    if lanes_a_copy > 1:
        # A lane leaves at most one change for every row that its block touches; marks record who touched which row.
        changes = own_lanes * MOST_CHANGES_OF_A_BLOCK * 4 * sizes.row_floats + own * MARK_BYTES * sizes.vocab_size
        private.append((f"changes of {counted(own_lanes, 'lanes|lane')} in a wave", changes))
    if role.agents or (sizes.merge_bits < 32 and sizes.copies > 1):
        foreign = counted(sizes.copies - len(role.copies), "copies|copy")
        private.append((f"rows of {foreign} on other hosts in a merge", _merge_bytes(sizes, role, places)))
    if sizes.merge_bits < 32 and sizes.copies > 1:
        private.append((f"rows of {counted(own, 'copies|copy')} when a merge began", own * sizes.pair_bytes))
    # The first epoch's shards are memory-mapped: pages of the file cache, which the host reclaims when it needs them.
    mapped = (f"mapped shards of {counted(own_lanes, 'lanes|lane')}", own_lanes * slice_bytes)
    copies = [("the base", sizes.pair_bytes)]
    if sizes.copies > 1:
        copies.append((f"parameters of {counted(own, 'copies|copy')}", own * sizes.pair_bytes))
    if len(role.host) == 1:
        return WorkerNeed(place.address, place.host, _largest_first([*private, *copies]), (mapped,))
    # A worker folds one block of rows; merges of fewer rows have other blocks, so over all merges at most twice as many rows.
    folded = min(1.0, 2 / len(places)) * (len(role.copies) - own) * sizes.pair_bytes
    touched = [mapped, *copies, ("other copies' rows that it folds", round(folded))]
    return WorkerNeed(place.address, place.host, _largest_first(private), _largest_first(touched))


def _merge_bytes(sizes: TrainingSizes, role: MergeRole, places: Sequence[Place]) -> int:
    """The bytes of a participant's buffers for rows of copies on other hosts and, with eight bits, for the rows of its host."""
    foreign = sizes.copies - len(role.copies)
    # Every strip has buffers of its own.
    piece = strips_of(places) * min(PIECE_BYTES, sizes.pair_bytes)
    if sizes.merge_bits == 32:
        return foreign * AHEAD * piece
    # An answer is kept until the slowest peer has read it: in the worst case until the whole block has been folded.
    here = len(role.copies) + len(role.owners) * (len(role.copies) + 1)
    packed = (foreign * AHEAD + here) * piece + sizes.pair_bytes // len(places)
    return round(packed * (sizes.row_floats + 4) / (4 * sizes.row_floats))


def _layers_need(sizes: TrainingSizes) -> Contributors:
    state_bytes = 2 * sizes.vocab_size * sizes.vector_size * 4 * (1 + sizes.moments)
    return _largest_first(
        [
            ("parameters and the optimizer's state, three times", STATES_OF_LAYERS * state_bytes),
            ("an epoch's shards", 2 * sizes.epoch_tokens * STREAM_BYTES),
            ("order of the examples", 3 * sizes.epoch_tokens * 8),
            ("working memory", WORKING_BYTES),
        ]
    )


def _host_need(sizes: TrainingSizes, places: Sequence[Place], workers: Sequence[WorkerNeed], host: range) -> HostNeed:
    copies = sum(len(places[participant].copies) for participant in host)
    shared = (1 + copies) * sizes.pair_bytes if len(host) > 1 else 0
    private = sum(workers[participant].private_bytes for participant in host)
    first = places[host.start]
    return HostNeed(first.host, first.address, len(host), private, shared)


def _driver_need(sizes: TrainingSizes) -> Contributors:
    # Matrices are never in the driver's memory: workers write them block by block, and the driver maps them. Only the evaluation
    # copies rows: unit vectors of the words that can be answers, and their cosines with a block of words.
    analogies = min(sizes.analogy_words, sizes.vocab_size) * (sizes.vector_size + 2 * ANALOGY_BLOCK) * 4
    return _largest_first(
        [("the vocabulary", sizes.vocab_size * WORD_BYTES), ("analogies", analogies), ("working memory", DRIVER_BYTES)]
    )


def _disk_need(sizes: TrainingSizes) -> Contributors:
    """Disk space at its peak, while a checkpoint or the vectors are written. The first epoch's shards exist already."""
    states = 1 + sizes.moments if sizes.layers else 1
    checkpoint = sizes.pair_bytes * states
    vectors = 2 * sizes.vocab_size * sizes.vector_size * 4 + sizes.vocab_size * WORD_BYTES // 4
    return (("checkpoints", max(CHECKPOINTS_AT_ONCE * checkpoint, (CHECKPOINTS_AT_ONCE - 1) * checkpoint + vectors)),)


def _largest_first(needs: Sequence[tuple[str, int]]) -> Contributors:
    return tuple(sorted(((what, size) for what, size in needs if size), key=lambda need: -need[1]))


# ── limits ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def check_room(plan: MemoryPlan, rooms: Mapping[str, Room], driver: DriverRoom) -> None:
    """Raises CapacityError with every limit that is too low, the largest needs, and what to do."""
    found = explain_shortfalls(plan, rooms, driver)
    if found:
        raise CapacityError("\n".join(["this training does not fit, so it was not started:", *(f"  {line}" for line in found)]))


def explain_shortfalls(plan: MemoryPlan, rooms: Mapping[str, Room], driver: DriverRoom) -> list[str]:
    """One line per limit that the plan exceeds; `rooms` by worker address."""
    found = [line for worker in plan.workers for line in _worker_shortfall(worker, rooms[worker.address])]
    for host in plan.hosts:
        there = [rooms[worker.address] for worker in plan.workers if worker.host == host.host]
        found += _host_shortfall(host, there)
    limited = [(room.file, address) for address, room in rooms.items() if room.file is not None and room.file < plan.file_bytes]
    if limited:
        limit, address = min(limited)
        found.append(
            f"{'this process' if address == IN_PROCESS else f'worker {address}'} may write files of up to {amount(limit)}, but a "
            f"matrix has {amount(plan.file_bytes)}: raise the limit (ulimit -f), or lower train.vector_size or vocab.max_size"
        )
    if driver.memory is not None and plan.driver_bytes > driver.memory:
        found.append(
            f"the driver needs {amount(plan.driver_bytes)} ({_named(plan.driver)}), but its host has {amount(driver.memory)}: "
            "lower vocab.max_size or evaluate.restrict_vocab, or start it on a larger machine"
        )
    if plan.disk_bytes > driver.disk:
        found.append(
            f"{driver.workdir}: training needs {amount(plan.disk_bytes)} of disk ({_named(plan.disk)}), "
            f"{amount(driver.disk)} are free: make space or choose another run.workdir"
        )
    return found


def _worker_shortfall(worker: WorkerNeed, room: Room) -> list[str]:
    needed = room.used + worker.resident_bytes
    if room.limit is None or needed <= room.limit:
        return []
    needs = _largest_first([*worker.private, *worker.touched, ("in use already", room.used)])
    return [
        f"worker {worker.address} needs {amount(needed)} ({_named(needs)}), but {room.limit_name} is {amount(room.limit)}: "
        "raise its memory limit (cluster.options memory_limit, or --memory-limit of dask worker), use more workers so that "
        "each has fewer lanes, or lower train.lanes, train.vector_size or vocab.max_size"
    ]


def _host_shortfall(host: HostNeed, rooms: Sequence[Room]) -> list[str]:
    found = []
    who = f"the {counted(host.workers, 'workers|worker')} on the host of {host.address} together need"
    if host.workers == 1:
        who = "this process needs" if host.address == IN_PROCESS else f"worker {host.address} needs"
    # Measured one after the other; lanes of this run that exist already can only lower the measurements.
    free = max((room.host for room in rooms if room.host is not None), default=None)
    if free is not None and host.bytes > free:
        found.append(
            f"{who} {amount(host.bytes)} ({amount(host.shared_bytes)} shared, {amount(host.private_bytes)} of their "
            f"own), but the host or container has {amount(free)}: add hosts or memory, or lower train.lanes, "
            "train.vector_size or vocab.max_size"
        )
    shared = max(rooms, key=lambda room: room.shared)
    if host.shared_bytes > shared.shared:
        found.append(
            f"{who} shared memory for parameters of {amount(host.shared_bytes)}, but {shared.shared_place} has "
            f"{amount(shared.shared)} free: "
            "enlarge it (docker run --shm-size, an emptyDir with medium: Memory), or start one worker per host with more threads"
        )
    return found


def _named(needs: Contributors, most: int = 3) -> str:
    shown = ", ".join(f"{what} {amount(size)}" for what, size in needs[:most])
    return shown + (" …" if len(needs) > most else "")


# ── in words and numbers ─────────────────────────────────────────────────────────────────────────────────────────────


def describe(plan: MemoryPlan, rooms: Mapping[str, Room], present: int) -> str:
    """The plan as one line. `present`: how many workers there are, of which those of the plan train."""
    worker, trains = plan.largest_worker, len(plan.workers)
    room = rooms[worker.address]
    limit = f" of {amount(room.limit)}" if room.limit is not None else ""
    shared = max(host.shared_bytes for host in plan.hosts)
    who = f"{trains} of {present} workers" if trains < present else counted(trains, "workers|worker")
    each = " each" if trains > 1 else ""
    parts = [f"{who} with up to {amount(room.used + worker.resident_bytes)}{limit}{each}"]
    if shared:
        parts.append(f"{amount(shared)} of it shared on a host")
    parts.append(f"driver {amount(plan.driver_bytes)}")
    parts.append(f"disk {amount(plan.disk_bytes)}")
    return f"memory: {', '.join(parts)} ({_named(_largest_first([*worker.private, *worker.touched]), 2)})"


def summarise(plan: MemoryPlan, rooms: Mapping[str, Room]) -> dict[str, Any]:
    """The plan as plain data, for summary.json; all in bytes."""
    worker = plan.largest_worker
    return {
        "workers": len(plan.workers),
        "hosts": len(plan.hosts),
        "worker_bytes": rooms[worker.address].used + worker.resident_bytes,
        "worker_limit_bytes": rooms[worker.address].limit,
        "worker_needs": dict([*worker.private, *worker.touched, ("in use before", rooms[worker.address].used)]),
        "shared_bytes_a_host": max(host.shared_bytes for host in plan.hosts),
        "driver_bytes": plan.driver_bytes,
        "disk_bytes": plan.disk_bytes,
    }
