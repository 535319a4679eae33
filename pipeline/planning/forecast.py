"""The model of what a run will take: arithmetic on corpus, settings, machines and speeds. No clock, no file, no worker.

Training takes tokens / (tokens per second of a thread · threads · their efficiency) / hosts, plus the merges (`merges`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipeline.planning.merges import Machines, MergeSpeeds, Traffic, traffic_of
from pipeline.stream.sizes import HELD_TOKENS, KEPT_BYTES, STREAM_BYTES
from pipeline.training.capacity import MemoryPlan, TrainingSizes, plan_memory
from pipeline.training.placement import Place
from pipeline.training.plan import choose_lanes, choose_schedule

if TYPE_CHECKING:
    from pipeline.config import Train


MOST_DRAW_S = 1e-8
"""Most processor time per token to draw a later epoch, which writes no files: .25 s for four epochs of 17 M tokens
(infra/benchmarks/records/plan-2026-11-29.md)."""


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
    merging: MergeSpeeds
    write_s: float
    """Per byte written to disk."""
    start_s: float
    """Fixed time of a run."""
    process_bytes: int
    """Resident size of a process that has loaded everything and tokenized."""


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
    pairs: int
    """Pairs of matrices that a worker holds: the base, its copies, and their rows in a merge if they are trained meanwhile."""

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


def forecast(text: Text, train: Train, row_floats: int, machines: Machines, speeds: Speeds, sizes: TrainingSizes) -> Forecast:
    """The run on these machines, with one copy of the parameters per host; `train` is as configured, its lanes and copies chosen
    here if they are not set."""
    chosen = lanes_on(machines.hosts, train, text)
    used = replace(machines, hosts=min(machines.hosts, chosen.copies))
    threads = min(machines.cores, -(-chosen.lanes // used.hosts))
    train_s = train.epochs * text.kept_tokens * speeds.train_s / threads / kept_by(threads, speeds) / used.hosts
    traffic = traffic_of(chosen, text.words, text.kept_tokens, row_floats, used, speeds.merging, train_s)
    schedule = choose_schedule(chosen, text.words, text.kept_tokens)
    lane_tokens = -(-text.kept_tokens // (chosen.lanes * schedule.rounds))
    sizes = replace(sizes, lanes=chosen.lanes, copies=chosen.copies, merge_bits=chosen.merge_bits or 32, lane_tokens=lane_tokens)
    memory = plan_memory(sizes, places(used, chosen.copies, machines.cores))
    own = -(-chosen.copies // used.hosts)
    pairs = 1 if chosen.copies == 1 else 1 + own * (2 if sizes.merge_bits == 8 else 1)
    share = machines.hosts * machines.cores / speeds.cores
    drawing_s = (train.epochs - 1) * text.tokens * min(speeds.draw_s, MOST_DRAW_S) / share
    token_bytes, shard_bytes = round(text.tokens * text.token_bytes), round(text.kept_tokens * text.shard_bytes)
    vector_bytes = round(text.words * (2 * train.vector_size * 4 + text.word_bytes))
    # The last checkpoint is the vectors.
    written_bytes = (schedule.checkpoints - 1) * sizes.pair_bytes * (1 + sizes.moments) + vector_bytes
    stages = (
        StageForecast(name="tokenize", seconds=text.tokens * speeds.tokenize_s / share, disk_bytes=token_bytes),
        StageForecast(
            name="vocab", seconds=text.distinct_words * speeds.count_s, disk_bytes=round(text.words * (8 + text.word_bytes))
        ),
        StageForecast(name="shards", seconds=text.tokens * speeds.draw_s / share, disk_bytes=shard_bytes),
        StageForecast(
            name="train",
            seconds=train_s + traffic.seconds + drawing_s + written_bytes * speeds.write_s,
            disk_bytes=vector_bytes,
        ),
        StageForecast(name="the rest", seconds=speeds.start_s, disk_bytes=0),
    )
    return Forecast(
        machines=used, lanes=chosen.lanes, copies=chosen.copies, stages=stages, train_s=train_s, traffic=traffic, memory=memory,
        worker_bytes=_worker_bytes(sizes, text, pairs, used.hosts, speeds), pairs=pairs,
    )  # fmt: skip


def lanes_on(hosts: int, train: Train, text: Text) -> Train:
    """`train` with the lanes and copies of a training on so many hosts. Fewer copies than hosts, because lanes or copies are
    configured, leave hosts without work in training."""
    copies = train.copies
    if not copies and hosts > 1 and train.engine == "kernels" and train.model == "cbow":
        copies = min(hosts, train.lanes or hosts)
    return choose_lanes(train.model_copy(update={"copies": copies}), text.kept_tokens, text.words)


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


def _worker_bytes(sizes: TrainingSizes, text: Text, pairs: int, hosts: int, speeds: Speeds) -> int:
    """The expected peak of a worker's resident size: the process, the parameters, and what it holds of stream and corpus."""
    # The next epoch is drawn while this one is trained.
    stream = text.kept_tokens * STREAM_BYTES * min(2, sizes.epochs) // hosts
    kept = sizes.sentence_bytes // hosts if sizes.epochs > 2 else 0
    lanes = -(-sizes.lanes // hosts)
    held = min(stream, lanes * HELD_TOKENS * STREAM_BYTES) + min(kept, KEPT_BYTES)
    return speeds.process_bytes + pairs * sizes.pair_bytes + sizes.noise_bytes + 20 * sizes.vocab_size + held


def speedups(forecasts: Sequence[Forecast]) -> list[float]:
    """The speed-up of each forecast relative to the first, as a share of linear in the number of hosts."""
    first = forecasts[0]
    alone = (first.train_s + first.traffic.seconds) * first.machines.hosts
    return [alone / (each.machines.hosts * (each.train_s + each.traffic.seconds)) for each in forecasts]
