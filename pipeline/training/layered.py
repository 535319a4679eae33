"""`engine: layers` on the workers: an epoch of the layered engine is one round, one checkpoint.

The textbook's layers train in one lane with exact gradients. They read the same shards as the kernels; with fixed windows
(`shards.shrink_windows: false`) only targets with a full window are used, as in the book's create_contexts_target.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline import store
from pipeline.cluster.state import WorkerState
from pipeline.config import Train
from pipeline.errors import DamagedError, DivergedError
from pipeline.stream import epoch_stream
from pipeline.training import assembly
from pipeline.training.lane_group import MATRICES
from pipeline.training.stretches import StretchLoss
from pipeline.training.tasks import RoundResult
from w2v_core.textbook.contexts import Batch, shard_batches, usable_positions
from w2v_core.textbook.trainer import LossReport, TrainerState, epoch_rate, train_layers


@dataclass(frozen=True, kw_only=True)
class EpochTask:
    """What a worker needs to train one epoch with the layers."""

    train: Train
    seed: int
    epoch: int
    window: int
    full_windows_only: bool
    ns_exponent: float
    vocab: str
    """Path of the vocabulary's table."""
    stream: epoch_stream.Source
    checkpoint_before: str | None
    checkpoint_after: str
    vectors_after: str | None
    """Directory for the vectors, which the last epoch writes instead of a checkpoint."""


def run_epoch(task: EpochTask, state: WorkerState) -> RoundResult:
    """Trains one epoch from the checkpoint before it, and writes the checkpoint after it, or the vectors after the last epoch."""
    started = time.perf_counter()
    stream, _, _ = epoch_stream.Rows(task.stream, 0, state).between(0, sum(task.stream.rows()))
    counts_V = store.numbers(store.read_table(Path(task.vocab), columns=["count"])["count"])
    points: list[tuple[int, float, int]] = []
    after: list[TrainerState] = []

    def batches(epoch: int, order: np.random.Generator) -> Iterator[Batch]:
        return shard_batches(
            stream.tokens_N, stream.left_N, stream.right_N, task.window, task.train.batch_size, order,
            full_windows_only=task.full_windows_only,
        )  # fmt: skip

    def report(progress: LossReport) -> None:
        points.append((progress.iteration, progress.loss, progress.examples))

    examples = len(usable_positions(stream.left_N, stream.right_N, task.window, full_windows_only=task.full_windows_only))
    every = max(1, examples // task.train.batch_size // 20)
    try:
        trained = train_layers(
            task.train.model, counts_V, batches,
            epochs=task.epoch + 1, seed=task.seed, vector_size=task.train.vector_size, negative=task.train.negative,
            ns_exponent=task.ns_exponent, optimizer=task.train.optimizer,
            learning_rate=epoch_rate(task.train.alpha, task.train.min_alpha, task.epoch, task.train.epochs), every=every,
            on_progress=report, after_epoch=after.append, state=read_state(task),
        )  # fmt: skip
    except FloatingPointError as error:
        raise DivergedError(f"training diverged in round {task.epoch}, lane 0 at α = {task.train.alpha:g}: {error}") from error
    files = write_state(task, after[-1])
    return RoundResult(
        0, tuple(_stretches(points, examples, trained.epoch_losses[-1])), time.perf_counter() - started, 0.0, files, ()
    )


def _stretches(points: Sequence[tuple[int, float, int]], examples: int, epoch_loss: float) -> Iterator[StretchLoss]:
    """The epoch's losses; the loss after the last report is computed from the mean over the epoch."""
    covered, loss_sum = 0, 0.0
    for stretch, (_, loss, count) in enumerate(points):
        covered, loss_sum = covered + count, loss_sum + loss * count
        yield StretchLoss(stretch, 0, loss * count, count, covered / examples)
    if covered < examples:
        yield StretchLoss(len(points), 0, epoch_loss * examples - loss_sum, examples - covered, 1.0)


def write_state(task: EpochTask, state: TrainerState) -> tuple[store.Part, ...]:
    """Writes the files of the checkpoint, or of the vectors after the last epoch, without the optimizer's state."""
    if task.vectors_after:
        return tuple(
            assembly.write_matrix(matrix, state[name], task.train.vector_size, Path(task.vectors_after))
            for matrix, name in enumerate(MATRICES)
        )
    # The optimizer's state also has scalars.
    return tuple(
        store.write_array(Path(task.checkpoint_after) / f"{name}.npy", array, rows=len(array) if array.ndim else 0)
        for name, array in sorted(state.items())
    )


def read_state(task: EpochTask) -> dict[str, NDArray[np.generic]] | None:
    """The state that the epoch starts from, with every file checked; None before the first."""
    if task.checkpoint_before is None:
        return None
    checkpoint = store.load_artefact(Path(task.checkpoint_before))
    for damage in store.find_damage(checkpoint):
        raise DamagedError(damage, str(checkpoint.directory))
    return {
        part.name.removesuffix(".npy"): np.load(store.fetched(checkpoint.directory / part.name), allow_pickle=False)
        for part in checkpoint.manifest.parts
    }
