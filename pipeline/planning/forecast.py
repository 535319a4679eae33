"""What a run will take: arithmetic over what is known of corpus, settings, machines and speeds. No clock, no file, no worker.

    train   tokens / (tokens a second of a thread · threads · what so many threads keep of it) / hosts, and the merges
    merge   the longer of wire and work, a part of the shorter, and the way there and back

Between hosts every host sends 2 · (hosts − 1)/hosts of the merged rows: its copy's rows of the others' blocks, and its own block
merged. Which rows are merged when is the plan of training itself (`training.plan`), counted merge by merge.
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
"""What Ethernet, IP and TCP add to what is sent."""
OVERLAP_LOST = 0.25
"""Of the shorter of wire and work, what does not happen during the longer: the first piece must be there before any is folded
(infra/benchmarks/records/hosts-2026-11-29.md)."""
TLS_S_A_BYTE = 1.7e-9
"""Encrypting and decrypting, in place of a checksum (the same record)."""


@dataclass(frozen=True, kw_only=True)
class Text:
    """A corpus, as far as it was seen and estimated."""

    stored_bytes: int
    tokens: int
    """Of an epoch, before subsampling."""
    sentences: int
    words: int
    distinct_words: int
    kept_tokens: int
    """What subsampling and the vocabulary leave of them."""
    token_bytes: float
    """On disk in tokens/, a token."""
    shard_bytes: float
    """On disk in shards/, a kept token."""
    word_bytes: float
    """Of a word as text, with its count, in vocab/ and vectors/."""


@dataclass(frozen=True, kw_only=True)
class Speeds:
    """Measured on one machine; seconds."""

    cores: int
    """Threads that the stages before training were measured with."""
    tokenize_s: float
    """A token, with all cores."""
    count_s: float
    """A distinct word of a part, one thread."""
    draw_s: float
    """A token drawn into a stream, with all cores."""
    train_s: float
    """A kept token, one thread, with the lanes of a copy."""
    threads_kept: float
    """Of the speed of so many single threads, what `cores` threads on one copy reach."""
    fold_s: float
    """A byte of a copy's rows folded."""
    send_s: float
    """Processor time of a byte that is sent and one that is received, through a network interface."""
    message_s: float
    """A message there and an answer back, within this machine."""
    write_s: float
    """A byte written to disk."""
    start_s: float
    """Of a run, whatever it does."""
    process_bytes: int
    """Resident size of a process that has all loaded and has tokenized."""


@dataclass(frozen=True, kw_only=True)
class Machines:
    hosts: int
    cores: int
    """Of a host."""
    gbit_s: float
    round_trip_s: float
    is_encrypted: bool = False


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """All merges of a training."""

    merges: int
    rows: int
    """Of each matrix, over all merges."""
    sent_bytes: int
    """By a host."""
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
    """What is expected; `memory` is what it will not exceed."""

    @property
    def seconds(self) -> float:
        return sum(stage.seconds for stage in self.stages)

    @property
    def disk_bytes(self) -> int:
        return sum(stage.disk_bytes for stage in self.stages)

    @property
    def bytes_a_second(self) -> float:
        """That a host sends while it trains, on average."""
        return self.traffic.sent_bytes / max(1e-9, self.train_s + self.traffic.seconds)


def sent_bytes(rows: int, row_bytes: int, hosts: int) -> int:
    """That each host sends, and receives, in a merge of so many rows of both matrices."""
    return 2 * (hosts - 1) * rows * row_bytes // hosts


def merge_seconds(rows: int, row_bytes: int, machines: Machines, speeds: Speeds, cores_a_host: float = 1.0) -> float:
    """Seconds of a merge between hosts with a copy each. `cores_a_host` below 1: hosts that share a machine's cores."""
    hosts = machines.hosts
    sent = sent_bytes(rows, row_bytes, hosts)
    wire_s = sent * FRAME_SHARE * 8 / (machines.gbit_s * 1e9)
    a_byte = speeds.send_s + (TLS_S_A_BYTE if machines.is_encrypted else 0.0)
    work_s = (sent * a_byte + rows * row_bytes * speeds.fold_s + 2 * (hosts - 1) * speeds.message_s) / cores_a_host
    return max(wire_s, work_s) + OVERLAP_LOST * min(wire_s, work_s) + 2 * (machines.round_trip_s + speeds.message_s)


def merges_of(plan: EpochPlan) -> Counter[int]:
    """How many merges of an epoch are of how many rows: from merge to merge, because a long epoch has millions of steps, and at
    once where the interval between them stays."""
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
        # The next step at which a merge can be due: behind a whole interval, or the last before all rows are merged.
        step += min(-(within + 1) % interval, full - 1 - within)
        if rows := plan.merged_rows(step):
            found[rows] += 1
        step += 1
    return found


def _in_tier(merges: int, tier: int) -> int:
    """Of the merges 1, 2, 3 …, those whose number 2^tier divides and 2^(tier+1) does not."""
    return (merges >> tier) - (merges >> (tier + 1))


def traffic_of(train: Train, vocab_size: int, kept_tokens: int, row_bytes: int, machines: Machines, speeds: Speeds) -> Traffic:
    """The merges of a whole training with a copy a host."""
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
    """The run on these machines, a copy of the parameters a host; `train` as configured, its lanes and copies open or not."""
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
    """What `threads` on one copy keep of their speed alone: what was measured for as many as this machine has, for more the same,
    for fewer in between."""
    if speeds.cores == 1 or threads >= speeds.cores:
        return speeds.threads_kept
    return 1 - (1 - speeds.threads_kept) * (threads - 1) / (speeds.cores - 1)


def places(machines: Machines, copies: int, cores: int) -> tuple[Place, ...]:
    """A worker a host, with all its cores."""
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
    """What a worker's resident size is expected to be at its largest: the process, parameters, and what it holds of stream and
    corpus."""
    own = 1 if copies == 1 else 1 + -(-copies // hosts)
    stream, kept = text.kept_tokens * STREAM_BYTES // hosts, sizes.sentence_bytes // hosts if sizes.epochs > 2 else 0
    lanes = -(-sizes.lanes // hosts)
    held = min(stream, lanes * HELD_TOKENS * STREAM_BYTES) + min(kept, KEPT_BYTES)
    return speeds.process_bytes + own * sizes.pair_bytes + sizes.noise_bytes + 20 * sizes.vocab_size + held


def speedups(forecasts: Sequence[Forecast]) -> list[float]:
    """Of the training on the first machines in hosts, how much of linear each of the others reaches."""
    first = forecasts[0]
    alone = (first.train_s + first.traffic.seconds) * first.machines.hosts
    return [alone / (each.machines.hosts * (each.train_s + each.traffic.seconds)) for each in forecasts]
