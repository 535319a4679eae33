"""The merges between hosts during a training: their number, the bytes they send and the time they take. Arithmetic only.

A merge takes the longer of wire time and work, a part of the shorter, and a round trip; the threads of its strips share the
work. Every host sends 2 · (hosts − 1)/hosts of the merged rows if it has one copy: its copy's rows of the other hosts' blocks,
and its own block after merging. Which rows are merged when follows from the plan of training itself (`training.plan`), counted
merge by merge.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.training.placement import MOST_STRIPS, pieces_of
from pipeline.training.plan import EpochPlan, choose_schedule, plan_epoch

if TYPE_CHECKING:
    from pipeline.config import Train

FRAME_SHARE = 1514 / 1448
"""Bytes on the wire per payload byte, with the headers of Ethernet, IP and TCP."""
OVERLAP_LOST = 0.25
"""The part of the shorter of wire time and work that does not overlap with the longer, because the first piece must arrive before
any can be folded (infra/benchmarks/records/hosts-2026-11-29.md)."""


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


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """The traffic of all merges of a training."""

    merges: int
    rows: int
    """Rows of each matrix, over all merges."""
    sent_bytes: int
    """Bytes sent by each host."""
    seconds: float


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
    strips: int = 1,
) -> float:  # fmt: skip
    """Seconds of a merge between hosts; `row_bytes` travel per row of both matrices. `strips` threads share the work of a host
    that has as many cores. `cores_a_host` is below 1 for hosts that share a machine's cores."""
    sent, peers = sent_bytes(rows, row_bytes, machines.hosts, copies_a_host), machines.hosts - 1
    wire_s = sent * FRAME_SHARE * 8 / (machines.gbit_s * 1e9)
    threads = min(strips, max(1.0, cores_a_host))
    shared_s = (sent * speeds.send_s + rows * copies_a_host * speeds.fold_s) * (1 + speeds.serial * (threads - 1)) / threads
    work_s = (shared_s + peers * speeds.peer_s) / min(1.0, cores_a_host)
    # Rows go one way and merged rows the other.
    return max(wire_s, work_s) + OVERLAP_LOST * min(wire_s, work_s) + machines.round_trip_s + speeds.message_s


def merges_of(plan: EpochPlan) -> Counter[int]:
    """{rows: number of merges of that many rows} in an epoch. It counts from merge to merge rather than step by step, because a
    long epoch has millions of steps, and in closed form while the interval is constant."""
    if plan.copies == 1:
        return Counter()
    return _merges_of_due_rows(plan) if plan.schedule.spares else _merges_between_full_ones(plan)


def _merges_of_due_rows(plan: EpochPlan) -> Counter[int]:
    found: Counter[int] = Counter()
    before, ends, step = plan.epoch * plan.schedule.steps, [a_round.last - 1 for a_round in plan.rounds], 0
    while step < plan.schedule.steps:
        # The next step at which a merge can be due: after a whole interval, or at the end of a round.
        step = min(step + -(before + step + 1) % plan.interval(step), ends[bisect_left(ends, step)])
        if rows := plan.merged_rows(step):
            found[rows] += 1
        step += 1
    return found


def _merges_between_full_ones(plan: EpochPlan) -> Counter[int]:
    found: Counter[int] = Counter()
    schedule, step = plan.schedule, 0
    full = schedule.full_every_steps
    while step < schedule.steps:
        within, interval = step % full, plan.interval(step)
        if not schedule.first_doubling or interval == 1 << schedule.doublings:
            before, last = within // interval, (full - 1) // interval
            for tier in range(last.bit_length()):
                rows = min(plan.vocab_size, schedule.hot_rows << tier)
                found[rows] += _in_tier(last, tier) - _in_tier(before, tier)
            found[plan.vocab_size] += 1
            step += full - within
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
    train: Train, vocab_size: int, kept_tokens: int, row_floats: int, machines: Machines, speeds: MergeSpeeds
) -> Traffic:
    """The merges of a whole training whose copies are spread evenly over the hosts."""
    copies_a_host = max(1, train.copies) / machines.hosts
    schedule = choose_schedule(train, vocab_size, kept_tokens)
    row_bytes = merged_row_bytes(train, row_floats)
    merges: Counter[int] = Counter()
    for epoch in range(train.epochs):
        merges += merges_of(plan_epoch(train, schedule, vocab_size, epoch, kept_tokens))
    return Traffic(
        merges=merges.total(),
        rows=sum(rows * times for rows, times in merges.items()),
        sent_bytes=sum(sent_bytes(rows, row_bytes, machines.hosts, copies_a_host) * times for rows, times in merges.items()),
        seconds=sum(
            times
            * merge_seconds(
                rows, row_bytes, machines, speeds, machines.cores, copies_a_host, strips_in_use(rows, row_floats, machines)
            )
            for rows, times in merges.items()
        ),
    )
