"""The speed of this machine: each constant of the model, measured with the code that the run will use, in a few seconds.

Training is timed on the sample's own stream, with matrices of the size of the whole vocabulary, because cache misses matter as
much as arithmetic. Merging is timed over a loopback connection, in processor time.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.cluster.state import WorkerState
from pipeline.config import RunConfig, Train
from pipeline.exchange.attempts import Attempts
from pipeline.exchange.links import Link, Links
from pipeline.exchange.shared_memory import usable_cores
from pipeline.stream.epoch_stream import Rows, Source
from pipeline.training.plan import copies_of
from w2v_core.kernels import Kernels, Noise, Slice, Update, allocate_parameters, initial_parameters, load_kernels, padded_size
from w2v_core.sampler import noise_table, word_rates
from w2v_core.windows import Stream, keep_probability

DEVICE_S = 0.3e-9
"""Extra processor time of a network interface, compared with loopback, per byte sent and received
(infra/benchmarks/records/hosts-2026-11-29.md)."""
ENOUGH_S = 0.5
"""How long a measurement is repeated."""
MOST_BYTES = 512 << 20
"""Upper bound of the parameters made for timing: far more than any cache holds."""
LINK_BYTES = 8 << 20
_WRITE_BYTES = 64 << 20


@dataclass(frozen=True)
class Ground:
    """The data that training is timed on."""

    kernels: Kernels
    copies: tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...]
    """Copies of the parameters: as many as training has, but at most one per core of this machine."""
    stream: Stream
    noise: Noise
    train: Train


def training_ground(config: RunConfig, train: Train, source: Stream, counts: NDArray[np.int64], sample: float) -> Ground:
    """Matrices for words with these counts, and the sample's stream with its words mapped to their ranks. `train` has its lanes
    chosen; `sample` is the subsampling threshold."""
    row_bytes = 2 * padded_size(train.vector_size) * 4
    copies = min(copies_of(train, len(counts)), usable_cores())
    words = min(len(counts), MOST_BYTES // row_bytes // copies)
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


def seconds_a_token(ground: Ground, threads: int) -> float:
    """Seconds per token of training with `threads` threads: one thread on one copy, or several divided among all copies."""
    train, stream = ground.train, ground.stream
    lanes = max(1, train.lanes // max(1, train.copies))
    length = len(stream.tokens_N) // lanes
    window = int(max(stream.left_N.max(), stream.right_N.max()))
    # No targets at the very ends, whose context may lie outside the stream.
    ranges = [(max(window, lane * length), min((lane + 1) * length, len(stream.tokens_N) - window)) for lane in range(lanes)]
    update = Update(train.model, train.gradient, train.negative, (train.alpha, train.alpha), 1)
    copies = ground.copies[: min(threads, len(ground.copies))]

    def train_some(share: int) -> int:
        slices = [Slice(stream.tokens_N, stream.left_N, stream.right_N, first, first + (last - first) // share)
                  for first, last in ranges]  # fmt: skip

        def train_copy(parameters: tuple[NDArray[np.float32], NDArray[np.float32]]) -> None:
            if lanes == 1:
                ground.kernels.train_slice(*parameters, slices[0], ground.noise, update)
            else:
                ground.kernels.train_lanes(*parameters, slices, ground.noise, update, threads // len(copies))

        list(pool.map(train_copy, copies))
        return len(copies) * sum(each.stop - each.start for each in slices)

    with ThreadPoolExecutor(len(copies)) as pool:
        train_some(16)
        return _rate(lambda: train_some(4))


def seconds_a_folded_byte(train: Train) -> float:
    """Seconds of merging per byte of a copy's rows, measured with two copies of a thousand rows. Forty times as many rows took
    the same per byte (infra/benchmarks/records/hosts-2026-11-29.md)."""
    kernels, rows = load_kernels(train.backend), 1024
    base = allocate_parameters(rows, train.vector_size)[0]
    copies = [allocate_parameters(rows, train.vector_size)[0] for _ in range(2)]
    for number, copy in enumerate(copies):
        copy += np.random.default_rng(number).normal(0, 1e-3, copy.shape).astype(np.float32)

    def fold() -> int:
        kernels.merge_rows(base, copies, train.merge)
        return 2 * base.nbytes

    fold()
    return _rate(fold, 0.1)


def connection_with_itself() -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection over this machine's loopback device."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    return ours, theirs


def seconds_of_sending(ours: socket.socket, theirs: socket.socket) -> tuple[float, float]:
    """(processor seconds per byte sent and received, seconds of a round trip of a message) over the connection with these ends,
    which is then closed."""
    with ours, theirs:
        for end in (ours, theirs):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ends = [Links({0: Link(end, "this machine")}, 10.0, Attempts()) for end in (ours, theirs)]
        sizes, arrays = {"small": 64, "large": LINK_BYTES}, {}
        for name, size in sizes.items():
            arrays[name] = [(np.ones(size // 4, np.float32), np.empty(size // 4, np.float32)) for _ in ends]

        def swap(name: str, times: int) -> None:
            def at(number: int) -> None:
                out, into = arrays[name][number]
                for _ in range(times):
                    ends[number].send(0, (1, "rows"), [out])
                    ends[number].expect(0, (1, "rows"), [into])
                    ends[number].receive_all()
                    ends[number].flush()
                    # Half of what arrives in a merge is merged rows, which are also copied into the trained copy.
                    half = len(into) // 2
                    out[:half] = into[:half]

            other = threading.Thread(target=at, args=(1,))
            other.start()
            at(0)
            other.join()

        swap("large", 2)
        began = time.process_time()
        swap("large", 8)
        a_byte = (time.process_time() - began) / (2 * 8 * LINK_BYTES)
        began = time.perf_counter()
        swap("small", 300)
        return a_byte, (time.perf_counter() - began) / 300


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
