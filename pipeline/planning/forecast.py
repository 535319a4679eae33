"""The model of what a run will take: arithmetic on corpus, settings, machines and speeds. No clock, no file, no worker.

    train   tokens / (tokens per second of a thread · threads · their efficiency) / hosts, plus the merges
    merge   the longer of wire time and work, a part of the shorter, and the round trips

Between hosts, every host sends 2 · (hosts − 1)/hosts of the merged rows: its copy's rows of the other hosts' blocks, and its own
block after merging. Which rows are merged when follows from the plan of training itself (`training.plan`), counted merge by
merge.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipeline.stream.sizes import HELD_TOKENS, KEPT_BYTES, STREAM_BYTES
from pipeline.training.capacity import MemoryPlan, TrainingSizes, plan_memory
from pipeline.training.placement import Place
from pipeline.training.plan import EpochPlan, choose_lanes, choose_schedule, plan_epoch

if TYPE_CHECKING:
    from pipeline.config import Train

FRAME_SHARE = 1514 / 1448
"""Bytes on the wire per payload byte, with the headers of Ethernet, IP and TCP."""
OVERLAP_LOST = 0.25
"""The share of the shorter of wire time and work that does not overlap with the longer, since the first piece must arrive before
any is folded (infra/benchmarks/records/hosts-2026-11-29.md)."""
TLS_S_A_BYTE = 1.7e-9
"""Seconds per byte to encrypt and decrypt, in place of a checksum (the same record)."""


@dataclass(frozen=True, kw_only=True)
class Text:
    """The size of a corpus, as measured and estimated."""

    stored_bytes: int
    tokens: int
    """Per epoch, before subsampling."""
    sentences: int
    words: int
    distinct_words: int
    kept_tokens: int
    """Per epoch, after subsampling and without rare words."""
    token_bytes: float
    """Bytes on disk in tokens/, per token."""
    shard_bytes: float
    """Bytes on disk in shards/, per kept token."""
    word_bytes: float
    """Bytes per word, as text with its count, in vocab/ and vectors/."""


@dataclass(frozen=True, kw_only=True)
class Speeds:
    """Speeds measured on one machine, in seconds."""

    cores: int
    """Number of threads with which the stages before training were measured."""
    tokenize_s: float
    """Per token, with all cores."""
    count_s: float
    """Per distinct word of a part, one thread."""
    draw_s: float
    """Per token drawn into a stream, with all cores."""
    train_s: float
    """Per kept token, one thread, with the lanes of a copy."""
    threads_kept: float
    """Efficiency of `cores` threads on one copy, relative to as many single threads."""
    fold_s: float
    """Per byte of a copy's rows folded."""
    send_s: float
    """Processor time per byte sent and received through a network interface."""
    message_s: float
    """Round trip of a message within this machine."""
    write_s: float
    """Per byte written to disk."""
    start_s: float
    """Fixed time of a run."""
    process_bytes: int
    """Resident size of a process that has loaded everything and tokenized."""


@dataclass(frozen=True, kw_only=True)
class Machines:
    hosts: int
    cores: int
    """Per host."""
    gbit_s: float
    round_trip_s: float
    is_encrypted: bool = False


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """The traffic of all merges of a training."""

    merges: int
    rows: int
    """Rows of each matrix, over all merges."""
    sent_bytes: int
    """Bytes sent by each host."""
    seconds: float


@dataclass(frozen=True, kw_only=True)
class StageForecast:
    name: str
    seconds: float
    disk_bytes: int


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """One run on these machines."""

    machines: Machines
    lanes: int
    copies: int
    stages: tuple[StageForecast, ...]
    train_s: float
    """Training alone, without merges."""
    traffic: Traffic
    memory: MemoryPlan
    worker_bytes: int
    """Expected resident size of a worker; `memory` has its upper bounds."""

    @property
    def seconds(self) -> float:
        return sum(stage.seconds for stage in self.stages)

    @property
    def disk_bytes(self) -> int:
        return sum(stage.disk_bytes for stage in self.stages)

    @property
    def bytes_a_second(self) -> float:
        """Average rate at which a host sends while it trains."""
        return self.traffic.sent_bytes / max(1e-9, self.train_s + self.traffic.seconds)


def sent_bytes(rows: int, row_bytes: int, hosts: int) -> int:
    """The bytes that each host sends, and receives, in a merge of `rows` rows of both matrices."""
    return 2 * (hosts - 1) * rows * row_bytes // hosts


def merge_seconds(rows: int, row_bytes: int, machines: Machines, speeds: Speeds, cores_a_host: float = 1.0) -> float:
    """Seconds of a merge between hosts with one copy each. `cores_a_host` is below 1 for hosts that share a machine's cores."""
    hosts = machines.hosts
    sent = sent_bytes(rows, row_bytes, hosts)
    wire_s = sent * FRAME_SHARE * 8 / (machines.gbit_s * 1e9)
    a_byte = speeds.send_s + (TLS_S_A_BYTE if machines.is_encrypted else 0.0)
    work_s = (sent * a_byte + rows * row_bytes * speeds.fold_s + 2 * (hosts - 1) * speeds.message_s) / cores_a_host
    return max(wire_s, work_s) + OVERLAP_LOST * min(wire_s, work_s) + 2 * (machines.round_trip_s + speeds.message_s)


def merges_of(plan: EpochPlan) -> Counter[int]:
    """{rows: number of merges of so many rows} in an epoch. Counts from merge to merge rather than step by step, because a long
    epoch has millions of steps, and in closed form while the interval is constant."""
    found: Counter[int] = Counter()
    schedule, step = plan.schedule, 0
    full = schedule.full_every_steps
    while plan.copies > 1 and step < schedule.steps:
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
    """How many of the merges 1 … `merges` have a number that 2^tier divides and 2^(tier+1) does not."""
    return (merges >> tier) - (merges >> (tier + 1))


def traffic_of(train: Train, vocab_size: int, kept_tokens: int, row_bytes: int, machines: Machines, speeds: Speeds) -> Traffic:
    """The merges of a whole training with one copy per host."""
    schedule = choose_schedule(train, vocab_size, kept_tokens)
    merges: Counter[int] = Counter()
    for epoch in range(train.epochs):
        merges += merges_of(plan_epoch(train, schedule, vocab_size, epoch, kept_tokens))
    return Traffic(
        merges=merges.total(),
        rows=sum(rows * times for rows, times in merges.items()),
        sent_bytes=sum(sent_bytes(rows, row_bytes, machines.hosts) * times for rows, times in merges.items()),
        seconds=sum(merge_seconds(rows, row_bytes, machines, speeds) * times for rows, times in merges.items()),
    )


def forecast(text: Text, train: Train, row_floats: int, machines: Machines, speeds: Speeds, sizes: TrainingSizes) -> Forecast:
    """The run on these machines, with one copy of the parameters per host; `train` is as configured, its lanes and copies chosen
    here if they are not set."""
    copies = train.copies or (machines.hosts if machines.hosts > 1 else 0)
    chosen = choose_lanes(train.model_copy(update={"copies": copies}), text.kept_tokens, text.words)
    used = replace(machines, hosts=min(machines.hosts, chosen.copies))
    row_bytes = 2 * row_floats * 4
    threads = min(machines.cores, -(-chosen.lanes // used.hosts))
    train_s = train.epochs * text.kept_tokens * speeds.train_s / threads / kept_by(threads, speeds) / used.hosts
    traffic = traffic_of(chosen, text.words, text.kept_tokens, row_bytes, used, speeds)
    rounds = choose_schedule(chosen, text.words, text.kept_tokens).rounds
    lane_tokens = -(-text.kept_tokens // (chosen.lanes * rounds))
    sizes = replace(sizes, lanes=chosen.lanes, copies=chosen.copies, lane_tokens=lane_tokens)
    memory = plan_memory(sizes, places(used, chosen.copies, machines.cores))
    share = machines.hosts * machines.cores / speeds.cores
    drawing_s = (train.epochs - 1) * text.tokens * speeds.draw_s / share
    states = sizes.pair_bytes + 2 * text.words * (train.vector_size * 4 + text.word_bytes)
    token_bytes, shard_bytes = round(text.tokens * text.token_bytes), round(text.kept_tokens * text.shard_bytes)
    vector_bytes = round(text.words * (2 * train.vector_size * 4 + text.word_bytes))
    stages = (
        StageForecast(name="tokenize", seconds=text.tokens * speeds.tokenize_s / share, disk_bytes=token_bytes),
        StageForecast(
            name="vocab", seconds=text.distinct_words * speeds.count_s, disk_bytes=round(text.words * (8 + text.word_bytes))
        ),
        StageForecast(name="shards", seconds=text.tokens * speeds.draw_s / share, disk_bytes=shard_bytes),
        StageForecast(
            name="train",
            seconds=train_s + traffic.seconds + drawing_s + states * speeds.write_s,
            disk_bytes=vector_bytes,
        ),
        StageForecast(name="the rest", seconds=speeds.start_s, disk_bytes=0),
    )
    return Forecast(
        machines=used, lanes=chosen.lanes, copies=chosen.copies, stages=stages, train_s=train_s, traffic=traffic, memory=memory,
        worker_bytes=_worker_bytes(sizes, text, chosen.copies, used.hosts, speeds),
    )  # fmt: skip


def kept_by(threads: int, speeds: Speeds) -> float:
    """The efficiency of `threads` threads on one copy: as measured for the cores of this machine, the same for more, and
    interpolated for fewer."""
    if speeds.cores == 1 or threads >= speeds.cores:
        return speeds.threads_kept
    return 1 - (1 - speeds.threads_kept) * (threads - 1) / (speeds.cores - 1)


def places(machines: Machines, copies: int, cores: int) -> tuple[Place, ...]:
    """One worker per host, with all its cores."""
    bounds = [copies * host // machines.hosts for host in range(machines.hosts + 1)]
    return tuple(
        Place(
            address=f"host {host + 1}",
            host=f"host {host + 1}",
            threads=cores,
            first_copy=bounds[host],
            last_copy=bounds[host + 1],
        )
        for host in range(machines.hosts)
    )


def _worker_bytes(sizes: TrainingSizes, text: Text, copies: int, hosts: int, speeds: Speeds) -> int:
    """The expected peak of a worker's resident size: the process, the parameters, and what it holds of stream and corpus."""
    own = 1 if copies == 1 else 1 + -(-copies // hosts)
    stream, kept = text.kept_tokens * STREAM_BYTES // hosts, sizes.sentence_bytes // hosts if sizes.epochs > 2 else 0
    lanes = -(-sizes.lanes // hosts)
    held = min(stream, lanes * HELD_TOKENS * STREAM_BYTES) + min(kept, KEPT_BYTES)
    return speeds.process_bytes + own * sizes.pair_bytes + sizes.noise_bytes + 20 * sizes.vocab_size + held


def speedups(forecasts: Sequence[Forecast]) -> list[float]:
    """The speed-up of each forecast relative to the first, as a share of linear in the number of hosts."""
    first = forecasts[0]
    alone = (first.train_s + first.traffic.seconds) * first.machines.hosts
    return [alone / (each.machines.hosts * (each.train_s + each.traffic.seconds)) for each in forecasts]
