"""A sample of a worker's arithmetic: a tiny training whose bits show whether it computes like the others.

Every lane's work is a pure function, so a run's bits do not depend on which worker does it, provided that all workers round in
the same way. Another processor, another version of Numba or its compiler, or another backend may not. Such a worker is detected
when it joins: it trains a few hundred tokens with the run's own model, sizes and merge, and the digest of the result must equal
that of the others and of the checkpoint. Computing the sample loads the kernels, which takes far longer than running them and has
to be done anyway; `warm_up` does it in the background while the first stages are still running.

A GPU sums in another order every time (`cupy_kernels`), so for that backend only the device and the versions are compared.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import platform
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Train
from pipeline.errors import ServiceError, counted
from w2v_core.kernels import Kernels, Noise, Slice, Update, allocate_parameters, load_kernels
from w2v_core.sampler import mix64
from w2v_core.textbook.contexts import Batch, shard_batches
from w2v_core.textbook.trainer import train_layers

WORDS, TOKENS, REACH = 64, 768, 4
"""Sizes of the sample: vocabulary, tokens per lane (a few blocks of the kernels and part of another), window."""
_ALPHA = 0.05
_SEED = 20131
WARM_UP = "w2v-warm-up"


@dataclass(frozen=True)
class Numbers:
    """The identity of a worker's arithmetic."""

    digest: str
    """Equal exactly for workers whose samples have the same bits."""
    backend: str
    processor: str
    versions: str

    def __str__(self) -> str:
        return f"{self.backend} on {self.processor}, {self.versions}, sample {self.digest[:8]}"


@dataclass(frozen=True)
class Judgement:
    accepted: frozenset[str]
    """Digests of the workers that may train."""
    notes: tuple[str, ...]


def judge(workers: Sequence[Numbers], run: Numbers | None, *, deterministic: bool) -> Judgement:
    """Which workers may train: those that compute like the run so far (`run`), or else the largest group, the first on a tie.

    If not deterministic, all of them, with notes on the differences. Raises ServiceError if no worker computes as the run did.
    """
    counts = Counter(worker.digest for worker in workers)
    if run is None and not workers:
        return Judgement(frozenset(), ())
    wanted = run or next(worker for worker in workers if counts[worker.digest] == max(counts.values()))
    odd = {worker.digest: worker for worker in workers if worker.digest != wanted.digest}
    if not deterministic:
        notes = [
            f"workers compute differently, and train.deterministic is false: {counts[digest]} with {worker} train beside "
            f"{wanted}; another run may give other bits"
            for digest, worker in odd.items()
        ]
        return Judgement(frozenset([*counts, wanted.digest]), tuple(notes))
    if odd and counts[wanted.digest] == 0:
        kinds = "; ".join(f"{counts[digest]} with {worker}" for digest, worker in odd.items())
        raise ServiceError(
            f"the rounds before this checkpoint were computed with {wanted}, and no current worker computes like that: {kinds}. "
            "Start workers of the former kind, or set train.deterministic: false to go on with bits that another run may "
            "not repeat"
        )
    notes = [
        f"left out {counted(counts[digest], 'workers|worker that compute|computes')} differently from "
        f"the others: {worker} instead of {wanted} (train.deterministic: false would let them train)"
        for digest, worker in odd.items()
    ]
    return Judgement(frozenset([wanted.digest]), tuple(notes))


# ── the sample ───────────────────────────────────────────────────────────────────────────────────────────────────────


class KnownNumbers:
    """A worker's arithmetic, computed once for each combination of the settings that matter."""

    def __init__(self) -> None:
        self._one_at_a_time = threading.Lock()
        self._known: dict[str, Numbers] = {}

    def __len__(self) -> int:
        return len(self._known)

    def of(self, train: Train) -> Numbers:
        fields = ("engine", "backend", "model", "gradient", "negative", "vector_size", "merge", "optimizer")
        key = repr([getattr(train, field) for field in fields])
        with self._one_at_a_time:
            if key not in self._known:
                self._known[key] = numbers_of(train)
            return self._known[key]


def warm_up(
    train: Train, known: KnownNumbers, around: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
) -> threading.Thread:  # fmt: skip
    """Loads the kernels, and everything else that a round needs, in the background by computing the sample, inside `around()`.
    Errors are left to the first round, which reports them."""

    def load() -> None:
        with contextlib.suppress(Exception), around():
            known.of(train)
            for used in ("pipeline.training.admission", "pipeline.training.lanes"):
                importlib.import_module(used)

    thread = threading.Thread(target=load, name=WARM_UP, daemon=True)
    thread.start()
    return thread


def numbers_of(train: Train) -> Numbers:
    """This process's arithmetic with these settings."""
    if train.engine == "layers":
        backend, digest = "layers", _digest(_layered_sample(train))
    else:
        kernels = load_kernels(train.backend)
        backend, digest = kernels.name, _digest(_kernel_sample(train, kernels))
    packages = ("numpy", "numba", "llvmlite") if backend == "numba" else ("numpy",)
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    processor = _processor(backend)
    if backend == "cupy":
        digest = hashlib.sha256(f"{processor}, {versions}".encode()).hexdigest()
    return Numbers(digest, backend, processor, versions)


def _kernel_sample(train: Train, kernels: Kernels) -> list[NDArray[np.float32]]:
    """Both matrices after two lanes have trained their own tokens and been merged."""
    tokens_N, left_N, right_N = _stream()
    cells = mix64(_SEED + 1, np.arange(WORDS, dtype=np.uint64))
    rates_V = (np.arange(1, WORDS + 1) / np.float32(WORDS)).astype(np.float32)
    noise = Noise(cells >> np.uint64(32) << np.uint64(32) | cells % np.uint64(WORDS), rates_V)
    base = allocate_parameters(WORDS, train.vector_size)
    kernels.fill_initial(base[0], 0, train.vector_size, _SEED)
    lanes = [tuple(matrix.copy() for matrix in base) for _ in range(2)]
    for lane, (w_in_VD, w_out_VD) in enumerate(lanes):
        targets = Slice(tokens_N, left_N, right_N, lane * TOKENS, (lane + 1) * TOKENS)
        update = Update(train.model, train.gradient, train.negative, (_ALPHA, _ALPHA / 2), _SEED + lane)
        kernels.train_slice(w_in_VD, w_out_VD, targets, noise, update)
    for matrix in (0, 1):
        kernels.merge_rows(base[matrix], [lane[matrix] for lane in lanes], train.merge)
    return list(base)


def _layered_sample(train: Train) -> list[NDArray[Any]]:
    tokens_N, left_N, right_N = _stream()

    def batches(epoch: int, order: np.random.Generator) -> Iterator[Batch]:
        return shard_batches(tokens_N, left_N, right_N, REACH, 64, order)

    trained = train_layers(
        train.model, np.bincount(tokens_N, minlength=WORDS) + 1, batches, epochs=1, seed=_SEED,
        vector_size=train.vector_size, negative=train.negative, optimizer=train.optimizer, learning_rate=_ALPHA,
    )  # fmt: skip
    return [np.ascontiguousarray(trained.w_in), np.ascontiguousarray(trained.w_out)]


def _stream() -> tuple[NDArray[np.int32], NDArray[np.uint8], NDArray[np.uint8]]:
    """A stream for two lanes, with patternless words and windows of every width."""
    rows = np.arange(2 * TOKENS, dtype=np.uint64)
    tokens_N = (mix64(_SEED, rows) % np.uint64(WORDS)).astype(np.int32)
    widths_N = (mix64(_SEED + 2, rows) % np.uint64(REACH + 1)).astype(np.int64)
    left_N = np.minimum(widths_N, rows.astype(np.int64)).astype(np.uint8)
    right_N = np.minimum(widths_N, (len(rows) - 1 - rows.astype(np.int64))).astype(np.uint8)
    return tokens_N, left_N, right_N


def _digest(arrays: Sequence[NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _processor(backend: str) -> str:
    if backend == "cupy":
        import cupy

        properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
        return f"{properties['name'].decode()} (CuPy {cupy.__version__})"
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    if backend != "numba":
        return f"{name} ({platform.machine()})"
    import llvmlite.binding
    import numba

    # The target that the code was compiled for; NUMBA_CPU_NAME changes it.
    target = getattr(numba.config, "CPU_NAME", None) or llvmlite.binding.get_host_cpu_name()
    return f"{name} ({platform.machine()}, compiled for {target})"
