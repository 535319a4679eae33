"""The speed of this machine: each constant of the model, measured with the code that the run will use, in a few seconds.

Training is timed on the sample's own stream, with matrices of the size of the whole vocabulary, because cache misses matter as
much as arithmetic. `merging` measures the cost of merges.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.cluster.state import WorkerState
from pipeline.config import RunConfig, Train
from pipeline.exchange.host import usable_cores
from pipeline.stream.epoch_stream import Rows, Source
from pipeline.training.plan import copies_of
from w2v_core.kernels import Kernels, Noise, Slice, Update, Workroom, initial_parameters, load_kernels, padded_size
from w2v_core.sampler import noise_table, word_rates
from w2v_core.windows import Stream, keep_probability

DEVICE_S = 0.3e-9
"""Extra processor time of a network interface, compared with loopback, per byte sent and received
(infra/benchmarks/records/hosts-2026-11-29.md)."""
ENOUGH_S = 0.5
"""How long a measurement is repeated."""
MOST_BYTES = 512 << 20
"""Upper bound of the parameters made for timing: far more than any cache holds."""
_WRITE_BYTES = 64 << 20
_SOME, _BATCHES = 1 << 16, 60


LEAST_TOKENS = 1 << 16
"""A shorter stream is repeated until it has as many tokens, or two per lane: one call must train for longer than it takes."""


@dataclass(frozen=True)
class Ground:
    """The data that training is timed on."""

    kernels: Kernels
    copies: tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...]
    """Copies of the parameters: as many as training has, but at most one per core of this machine."""
    stream: Stream
    noise: Noise
    train: Train


def most_words(train: Train) -> int:
    """The number of words from which on matrices of more words would take no more time per token."""
    return MOST_BYTES // (2 * padded_size(train.vector_size) * 4)


def training_ground(config: RunConfig, train: Train, source: Stream, counts: NDArray[np.int64], sample: float) -> Ground:
    """Matrices for words with these counts, and the sample's stream with its words mapped to their ranks. `train` has its lanes
    chosen; `sample` is the subsampling threshold."""
    copies = min(copies_of(train, len(counts)), usable_cores())
    words = min(len(counts), most_words(train) // copies)
    counts = counts[:words]
    known = int(source.tokens_N.max()) + 1
    # Frequent words keep their rank; rare ones are spread over the ranks of words that the sample lacks.
    places = np.arange(known, dtype=np.float64)
    frequent = min(1000, known, words)
    if words > known > frequent:
        stretched = np.log(words / frequent) / np.log(known / frequent)
        places[frequent:] = frequent * (places[frequent:] / frequent) ** stretched
    ids = np.minimum(places, words - 1).astype(np.int32)[source.tokens_N]
    kernels = load_kernels(train.backend)
    rates = word_rates(counts, keep_probability(counts, sample), train.alpha_exponent)
    noise = Noise(kernels.to_device(noise_table(counts, config.vocab.ns_exponent)), kernels.to_device(rates))
    made = tuple(initial_parameters(words, train.vector_size, config.run.seed) for _ in range(copies))
    return Ground(kernels, made, Stream(ids, source.left_N, source.right_N), noise, train)


def first_stream(source: Source, most: int = 1 << 22) -> Stream:
    """The beginning of an epoch's stream, contiguous in memory."""
    rows = Rows(source, 0, WorkerState())
    ends = (0, min(most, sum(source.rows())))
    rows.hold([ends])
    return rows.between(*ends)[0]


def repeated(stream: Stream, least: int) -> Stream:
    """A stream of at least this many tokens: the same sentences again and again, whose windows end where they end."""
    times = -(-least // max(1, len(stream.tokens_N)))
    return Stream(np.tile(stream.tokens_N, times), np.tile(stream.left_N, times), np.tile(stream.right_N, times))


def seconds_a_token(ground: Ground, threads: int) -> float:
    """Seconds per token of training with `threads` threads: one thread on one copy, or several divided among all copies."""
    train, stream = ground.train, ground.stream
    lanes = max(1, train.lanes // max(1, train.copies))
    window = int(max(stream.left_N.max(), stream.right_N.max()))
    # No targets at the very ends, whose context may lie outside the stream.
    bounds = [min(max(window, len(stream.tokens_N) * lane // lanes), len(stream.tokens_N) - window) for lane in range(lanes + 1)]
    update = Update(train.model, train.gradient, train.negative, (train.alpha, train.alpha), 1)
    copies = [(parameters, Workroom()) for parameters in ground.copies[: min(threads, len(ground.copies))]]

    def train_some(share: int) -> int:
        slices = [Slice(stream.tokens_N, stream.left_N, stream.right_N, first, last - (last - first) * (share - 1) // share)
                  for first, last in pairwise(bounds)]  # fmt: skip

        def train_copy(copy: tuple[tuple[NDArray[np.float32], NDArray[np.float32]], Workroom]) -> None:
            parameters, room = copy
            if lanes == 1:
                ground.kernels.train_slice(*parameters, slices[0], ground.noise, update)
            else:
                ground.kernels.train_lanes(*parameters, slices, ground.noise, update, threads // len(copies), room)

        list(pool.map(train_copy, copies))
        return len(copies) * sum(each.stop - each.start for each in slices)

    with ThreadPoolExecutor(len(copies)) as pool, contextlib.ExitStack() as rooms:
        for _, room in copies:
            rooms.enter_context(contextlib.closing(room))
        train_some(16)
        return _rate(lambda: train_some(4))


def seconds_a_layered_token(config: RunConfig, stream: Stream, counts: NDArray[np.int64]) -> float:
    """Seconds per kept token of training with the textbook's layers, measured with some batches over the whole vocabulary."""
    from w2v_core.textbook.contexts import Batch, shard_batches
    from w2v_core.textbook.trainer import train_layers

    train, window = config.train, config.shards.window
    begun, sizes = list[float](), list[int]()
    known = int(stream.tokens_N.max()) + 1
    tokens, left, right = (column[:_SOME].copy() for column in (stream.tokens_N, stream.left_N, stream.right_N))
    # The context of the first and last targets may lie outside.
    left[:window], right[-window:] = 0, 0

    def batches(epoch: int, order: np.random.Generator) -> Iterator[Batch]:
        full_windows_only = not config.shards.shrink_windows
        made = shard_batches(tokens, left, right, window, train.batch_size, order, full_windows_only=full_windows_only)
        for batch in islice(made, _BATCHES):
            begun.append(time.perf_counter())
            sizes.append(len(batch[1]))
            yield batch

    train_layers(
        train.model, np.resize(counts, max(known, len(counts))), batches, epochs=1, seed=config.run.seed,
        vector_size=train.vector_size, negative=train.negative, optimizer=train.optimizer,
    )  # fmt: skip
    begun.append(time.perf_counter())
    # The first batch pays for what is set up once, and after the last one the parameters are copied.
    first = min(1, len(sizes) - 1)
    last = max(first + 1, len(sizes) - 1)
    return (begun[last] - begun[first]) / sum(sizes[first:last])


def seconds_a_written_byte(folder: Path) -> float:
    """Seconds per byte of writing a file, including fsync."""
    path, block = folder / "written", bytes(_WRITE_BYTES)
    began = time.perf_counter()
    with path.open("wb") as file:
        file.write(block)
        file.flush()
        os.fsync(file.fileno())
    taken = time.perf_counter() - began
    path.unlink()
    return taken / _WRITE_BYTES


def _rate(work: Callable[[], int], enough_s: float = ENOUGH_S) -> float:
    """Seconds per unit of work, `work()` returning the units done: the median of several calls."""
    found: list[float] = []
    began = time.perf_counter()
    while len(found) < 3 or time.perf_counter() - began < enough_s:
        started = time.perf_counter()
        done = work()
        found.append((time.perf_counter() - started) / done)
    return float(np.median(found))
