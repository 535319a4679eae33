"""The history of training, round by round: the loss curve, and its totals for `summary.json`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline import store
from pipeline.training.policy import POLICIES, START_POLICIES
from pipeline.training.stretches import Point, points_of

if TYPE_CHECKING:
    from pipeline.training.plan import EpochPlan, Round
    from pipeline.training.tasks import RoundResult


@dataclass(frozen=True, kw_only=True)
class RoundRecord:
    """The record of one round, a row of the loss curve. Losses are means per example in float64."""

    round: int
    rounds_an_epoch: int
    epoch: int
    loss: float
    examples: int
    loss_sum: float
    alpha: float
    kept_tokens: int
    """Tokens trained in this round, over all lanes."""
    raw_tokens: float
    """The corresponding corpus tokens: raw tokens of the epoch × the round's share of the epoch's kept tokens."""
    seconds: float
    train_seconds: float
    merge_seconds: float
    merged_bytes: int
    merges: int
    points: tuple[Point, ...] = field(repr=False)
    """The curves over the stretches of the round."""


def record_round(
    plan: EpochPlan, round_plan: Round, before: Sequence[RoundRecord], results: Sequence[RoundResult], *,
    corpus_tokens: int, seconds: float,
) -> RoundRecord:  # fmt: skip
    """The record of a finished round; `before` holds the rounds before it, `corpus_tokens` is the number of raw tokens per
    epoch."""
    steps = range(round_plan.first, round_plan.last)
    losses = sorted((loss for result in results for loss in result.losses), key=lambda loss: (loss.stretch, loss.lane))
    kept = plan.round_tokens(round_plan)
    loss_sum, examples = sum(loss.loss_sum for loss in losses), sum(loss.examples for loss in losses)
    return RoundRecord(
        round=round_plan.round,
        rounds_an_epoch=plan.schedule.rounds,
        epoch=plan.epoch,
        loss=loss_sum / max(1, examples),
        loss_sum=loss_sum,
        examples=examples,
        alpha=plan.alpha(round_plan.last),
        kept_tokens=kept,
        raw_tokens=kept * (corpus_tokens / max(1, plan.kept_tokens)),
        seconds=seconds,
        train_seconds=max(result.train_seconds for result in results),
        merge_seconds=max(result.merge_seconds for result in results),
        merged_bytes=plan.merged_bytes(round_plan),
        merges=sum(plan.merged_rows(step) > 0 for step in steps),
        points=tuple(points_of(plan, round_plan, losses, kept_tokens(before))),
    )


def kept_tokens(history: Sequence[RoundRecord]) -> int:
    """The number of kept tokens trained in these rounds."""
    return sum(record.kept_tokens for record in history)


def history_of(artefact: store.Artefact | None) -> list[RoundRecord]:
    """The rounds that led to a checkpoint or to vectors; empty for None."""
    return [_parse(record) for record in artefact.manifest.totals["history"]] if artefact else []


def _parse(record: dict[str, Any]) -> RoundRecord:
    return RoundRecord(**record | {"points": tuple(Point(*point) for point in record["points"])})


def epoch_loss(history: Sequence[RoundRecord], epoch: int) -> float:
    """Mean loss per example over an epoch's rounds."""
    rounds = [record for record in history if record.epoch == epoch]
    return sum(record.loss_sum for record in rounds) / max(1, sum(record.examples for record in rounds))


def training_sections(vectors: store.Artefact, seconds: float) -> dict[str, Any]:
    """`train` and `vectors` of `summary.json`; `seconds` is the stage's time in this run, 0 if it reused its vectors."""
    history, totals, fields = history_of(vectors), vectors.manifest.totals, vectors.manifest.fields
    raw_tokens = round(sum(record.raw_tokens for record in history))
    # The stage's own time if all of it happened in this run, otherwise the time of its rounds when they ran.
    seconds = max(seconds, sum(record.seconds for record in history))
    return {
        "train": {
            "raw_tokens": raw_tokens,
            "kept_tokens": kept_tokens(history),
            "seconds": round(seconds, 4),
            "raw_tokens_per_s": round(raw_tokens / max(seconds, 1e-9)),
            "final_loss": epoch_loss(history, history[-1].epoch),
            "lanes": vectors.manifest.fields["lanes"],
            "copies": vectors.manifest.fields["copies"],
            "merged_bytes": sum(record.merged_bytes for record in history),
            "merge_seconds": round(sum(record.merge_seconds for record in history), 4),
            "memory": totals["memory"],
            "kinds": totals["kinds"],
            "policy": {name: fields[name] for name in POLICIES | START_POLICIES if name in fields},
            "rounds": [asdict(record) for record in history],
        },
        "vectors": {
            "path": str(vectors.directory),
            "sha256": vectors.part("vectors.npy").sha256,
            "shape": list(totals["shape"]),
        },
    }
