"""What a worker is told to do in a round, and what it tells when it has done it: plain data that is sent to and fro."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline import store
from pipeline.config import Train
from pipeline.stream import epoch_stream, sampling
from pipeline.training.placement import Place
from pipeline.training.plan import EpochPlan, Round
from pipeline.training.stretches import StretchLoss


@dataclass(frozen=True, kw_only=True)
class RoundTask:
    """What one worker needs to run its lanes for one round."""

    group_key: str
    """Identifies the group of workers and their copies; another attempt or another group has another key."""
    participant: int
    places: tuple[Place, ...]
    """Every participant's worker, host and copies."""
    train: Train
    seed: int
    plan: EpochPlan
    round: Round
    vocab_size: int
    window: int
    stream: epoch_stream.Source
    """The epoch's stream."""
    noise_table: str
    words: str
    """Path of the vocabulary's table."""
    checkpoint_before: str | None
    """Directory of the last checkpoint; None = the initial parameters."""
    checkpoint_round: int
    """The round after which that checkpoint was taken; −1 = none yet."""
    checkpoint_after: str | None
    """Directory for the state at the end of the round; None = it stays in memory."""
    vectors_after: str | None
    """Directory for the vectors after the last round of training, when nothing is kept for another round."""
    patience_s: float
    start_from: str | None = None
    """Directory of the vectors whose rows are the initial parameters (`start`)."""
    ahead: tuple[sampling.Share, ...] = ()
    """This worker's shares of the next epoch, drawn while it waits for others at merges and after its lanes have finished."""


@dataclass(frozen=True)
class RoundResult:
    participant: int
    losses: tuple[StretchLoss, ...]
    train_seconds: float
    merge_seconds: float
    """Time spent on folding and on waiting for others, minus the time of drawing the next epoch meanwhile."""
    files: tuple[store.Part, ...]
    """Files of the checkpoint, or of the vectors, written by this worker."""
    ahead: tuple[tuple[int, ...], ...]
    """Numbers of rows of the pieces of each share in the task's `ahead`."""
