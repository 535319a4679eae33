"""The merges between hosts during a training: their number, the bytes they send and the time they take. Arithmetic only.

A merge takes the longer of wire time and work, a part of the shorter, and a round trip; the threads of its strips share the
work. Copies that exchange eight bits are trained meanwhile, on the other cores. Every host sends 2 · (hosts − 1)/hosts of the
merged rows if it has one copy: its copy's rows of the other hosts' blocks, and its own block after merging. Which rows are merged
when follows from the plan of training itself (`training.plan`), counted merge by merge.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.training.meanwhile import MANY, SHORT
from pipeline.training.placement import MOST_STRIPS, pieces_of
from pipeline.training.plan import EpochPlan, choose_schedule, plan_epoch

if TYPE_CHECKING:
    from pipeline.config import Train

FRAME_SHARE = 1514 / 1448
"""Bytes on the wire per payload byte, with the headers of Ethernet, IP and TCP."""
OVERLAP_LOST = 0.25
"""The part of the shorter of wire time and work that does not overlap with the longer, because the first piece must arrive before
any can be folded (infra/benchmarks/records/hosts-2026-11-29.md)."""

LANE_S = 8e-6
"""Seconds in which no thread trains, per lane and merge on one host: the interpreter prepares what lanes train and records their
losses, .5 ms for 64 lanes (infra/benchmarks/records/lanes-2026-11-29.md)."""


@dataclass(frozen=True, kw_only=True)
class Machines:
    hosts: int
    cores: int
    """Per host."""
    gbit_s: float
    round_trip_s: float


@dataclass(frozen=True, kw_only=True)
class MergeSpeeds:
    """The cost of merges, in seconds of processor time unless stated otherwise."""

    send_s: float
    """Per byte sent and received, including packing, unpacking and encryption."""
    fold_s: float
    """Per folded row of both matrices of one copy."""
    peer_s: float
    """Fixed cost of a merge per other host."""
    message_s: float
    """Elapsed time of a byte there and back, with the waking of both ends."""
    serial: float = 0.0
    """The part of the processor time that only one thread of a process can spend at a time."""
    pass_s: float = 0.0
    """Per row of both matrices of one copy: showing it to a merge and catching up with its result, if copies are trained
    meanwhile."""


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """The traffic of all merges of a training."""

    merges: int
    rows: int
    """Rows of each matrix, over all merges."""
    sent_bytes: int
    """Bytes sent by each host."""
    seconds: float
    """What they add to the seconds of training: waiting for them, and the cores that they use meanwhile."""


@dataclass(frozen=True)
class Step:
    """A merge, and the steps of training that take place during it; with none, training waits for it."""

    rows: int
    beside: int


def sent_bytes(rows: int, row_bytes: int, hosts: int, copies_a_host: float = 1.0) -> int:
    """The bytes that each host sends, and receives, in a merge of `rows` rows; `row_bytes` travel per row of both matrices."""
    return round((copies_a_host + 1) * (hosts - 1) * rows * row_bytes / hosts)


def merged_row_bytes(train: Train, row_floats: int) -> int:
    """The bytes sent between hosts per row of both matrices."""
    return 2 * (row_floats + 4 if train.merge_bits == 8 else 4 * row_floats)


def strips_in_use(rows: int, row_floats: int, machines: Machines) -> int:
    """The number of threads per host that work on a merge with one copy per host."""
    strips = min(MOST_STRIPS, machines.cores)
    return min(strips, len(pieces_of(0, -(-rows // machines.hosts), row_floats, strips)))


def merge_seconds(
    rows: int, row_bytes: int, machines: Machines, speeds: MergeSpeeds, cores_a_host: float = 1.0, copies_a_host: float = 1.0,
    strips: int = 1, waits: bool = True,
) -> float:  # fmt: skip
    """Seconds of a merge between hosts; `row_bytes` travel per row of both matrices. `strips` threads share the work of a host
    that has as many cores. `cores_a_host` is below 1 for hosts that share a machine's cores. A merge that training waits for
    takes the seconds before and after it, too, in which rows are shown and the base is taken over."""
    sent, peers = sent_bytes(rows, row_bytes, machines.hosts, copies_a_host), machines.hosts - 1
    wire_s = sent * FRAME_SHARE * 8 / (machines.gbit_s * 1e9)
    threads = min(strips, max(1.0, cores_a_host))
    peers_s = peers * speeds.peer_s
    shared_s = merge_work_s(rows, row_bytes, machines, speeds, copies_a_host) - peers_s
    work_s = (shared_s * (1 + speeds.serial * (threads - 1)) / threads + peers_s) / min(1.0, cores_a_host)
    passed_s = _pass_s(rows, machines, speeds, copies_a_host) / min(1.0, cores_a_host) if waits else 0.0
    # Rows go one way and merged rows the other.
    return passed_s + max(wire_s, work_s) + OVERLAP_LOST * min(wire_s, work_s) + machines.round_trip_s + speeds.message_s


def merge_work_s(rows: int, row_bytes: int, machines: Machines, speeds: MergeSpeeds, copies_a_host: float = 1.0) -> float:
    """Processor seconds of a merge on each host, without showing rows to it and taking its result over."""
    sent, peers = sent_bytes(rows, row_bytes, machines.hosts, copies_a_host), machines.hosts - 1
    return sent * speeds.send_s + rows * copies_a_host * speeds.fold_s + peers * speeds.peer_s


def _pass_s(rows: int, machines: Machines, speeds: MergeSpeeds, copies_a_host: float) -> float:
    """Seconds in which all threads of a host show rows and take the result over; nothing is trained meanwhile."""
    return rows * copies_a_host * speeds.pass_s / machines.cores


def merges_of(plan: EpochPlan) -> Counter[Step]:
    """The merges of an epoch, and how many there are of each kind. It counts from merge to merge rather than step by step,
    because a long epoch has millions of steps, and in closed form while the interval is constant."""
    if plan.copies == 1:
        return Counter()
    if plan.schedule.spares:
        return Counter(_merges_of_due_rows(plan))
    # With configured intervals as if training waited, which is too long if it does not.
    return Counter({Step(rows, 0): times for rows, times in _merges_between_full_ones(plan).items()})


def _merges_of_due_rows(plan: EpochPlan) -> Iterator[Step]:
    before, ends, step = plan.epoch * plan.schedule.steps, [a_round.last - 1 for a_round in plan.rounds], 0
    under_way, began = 0, 0
    while step < plan.schedule.steps:
        # The next step at which a merge can be due: after a whole interval, or at the end of a round.
        end = ends[bisect_left(ends, step)]
        step = min(step + -(before + step + 1) % plan.interval(step), end)
        rows = plan.merged_rows(step)
        if under_way and (rows or step == end):
            yield Step(under_way, step - began)
            under_way = 0
        if rows and (step == end or not plan.schedule.beside):
            yield Step(rows, 0)
        elif rows:
            under_way, began = rows, step
        step += 1


def _merges_between_full_ones(plan: EpochPlan) -> Counter[int]:
    found: Counter[int] = Counter()
    schedule, step = plan.schedule, 0
    full = schedule.full_every_steps
    while step < schedule.steps:
        within, interval = step % full, plan.interval(step)
        if not schedule.first_doubling or interval == 1 << schedule.doublings:
            # What is left up to the next merge of all rows, or so many whole times from one such merge to the next.
            times = 1 if within else (schedule.steps - step) // full
            before, last = within // interval, (full - 1) // interval
            for tier in range(last.bit_length()):
                rows = min(plan.vocab_size, schedule.hot_rows << tier)
                found[rows] += times * (_in_tier(last, tier) - _in_tier(before, tier))
            found[plan.vocab_size] += times
            step += times * full - within
            continue
        # The next step at which a merge can be due: after a whole interval, or the last one before a merge of all rows.
        step += min(-(within + 1) % interval, full - 1 - within)
        if rows := plan.merged_rows(step):
            found[rows] += 1
        step += 1
    return found


def _in_tier(merges: int, tier: int) -> int:
    """The number of merges among 1 … `merges` whose number is divisible by 2^tier and not by 2^(tier+1)."""
    return (merges >> tier) - (merges >> (tier + 1))


def traffic_of(
    train: Train, vocab_size: int, kept_tokens: int, row_floats: int, machines: Machines, speeds: MergeSpeeds, train_s: float
) -> Traffic:
    """The merges of a whole training of `train_s` seconds, whose copies are spread evenly over the hosts."""
    copies_a_host = max(1, train.copies) / machines.hosts
    schedule = choose_schedule(train, vocab_size, kept_tokens)
    row_bytes = merged_row_bytes(train, row_floats)
    merges: Counter[Step] = Counter()
    for epoch in range(train.epochs):
        merges += merges_of(plan_epoch(train, schedule, vocab_size, epoch, kept_tokens))
    step_s = train_s / (train.epochs * schedule.steps)

    def elapsed_s(merge: Step, threads: int) -> float:
        return merge_seconds(merge.rows, row_bytes, machines, speeds, threads, copies_a_host, threads, not merge.beside)

    def added_s(merge: Step) -> float:
        if machines.hosts == 1:
            # All threads that train fold, too, without anything being handed to them.
            fold_s = merge.rows * copies_a_host * speeds.fold_s / min(machines.cores, train.lanes)
            return fold_s + train.lanes * LANE_S
        strips = strips_in_use(merge.rows, row_floats, machines)
        if not merge.beside:
            return elapsed_s(merge, strips)
        trained_s = merge.beside * step_s
        work_s = merge_work_s(merge.rows, row_bytes, machines, speeds, copies_a_host)
        return _pass_s(merge.rows, machines, speeds, copies_a_host) + min(
            beside_s(trained_s, elapsed_s(merge, threads), work_s, threads, machines.cores) for threads in range(1, strips + 1)
        )

    return Traffic(
        merges=merges.total(),
        rows=sum(merge.rows * times for merge, times in merges.items()),
        sent_bytes=sum(
            sent_bytes(merge.rows, row_bytes, machines.hosts, copies_a_host) * times for merge, times in merges.items()
        ),
        seconds=sum(times * added_s(merge) for merge, times in merges.items()),
    )


def beside_s(trained_s: float, merged_s: float, work_s: float, threads: int, cores: int) -> float:
    """The seconds that a merge adds to a stint of `trained_s` beside it (see `training.meanwhile`), if it takes `merged_s` and
    `work_s` of processor time on so many threads."""
    if merged_s < trained_s * SHORT:
        # All cores train, and while one of them does not, the others may have to wait for it.
        return merged_s
    if cores >= MANY * threads:
        return max(merged_s, trained_s * cores / (cores - threads)) - trained_s
    return max(merged_s - trained_s, work_s / cores)
