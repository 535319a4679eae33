"""The loss of a round, stretch by stretch: the same points whether they are reported during the round or after it.

A long round has many more steps than a curve needs points. So every lane sums its losses over stretches of the round, which are
fixed by the plan; a stretch that all lanes have trained is a point of the curve.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pipeline.training.plan import EpochPlan, Round, Stint

FEWEST_STRETCHES = 20
"""Minimum number of stretches per round, if it has that many steps."""
STRETCH_TOKENS = 1 << 22
"""Kept tokens per lane for one point of a long round's curve: about a second of training."""


@dataclass(frozen=True)
class StretchLoss:
    """The summed loss of one lane over one stretch."""

    stretch: int
    """Counted from the start of the round."""
    lane: int
    loss_sum: float
    examples: int
    share: float
    """The share of the round that is trained when the stretch ends, up to 1."""


class Point(NamedTuple):
    """A point of the curves. Values that older runs did not record are None."""

    kept_tokens: int
    """Tokens trained since the start of training."""
    loss: float
    """Mean per example over the stretch."""
    alpha: float | None = None
    spread: float | None = None
    """Standard deviation of the lanes' losses; None with one lane."""


@dataclass
class Stretches:
    """Sums one worker's losses, always in the order of the steps."""

    round: Round
    count: int
    sums: dict[tuple[int, int], StretchLoss] = field(default_factory=dict)
    told: int = 0
    """Number of stretches that `finished` has returned."""
    current: int = 0

    def add(self, stint: Stint, losses: Iterable[tuple[int, float, int]]) -> None:
        """`losses`: (lane, sum, examples) of a stint; stints come in order."""
        steps = self.round.last - self.round.first
        stretch, share = (stint.first - self.round.first) * self.count // steps, (stint.last - self.round.first) / steps
        for lane, loss_sum, examples in losses:
            before = self.sums.get((stretch, lane))
            if before:
                loss_sum, examples = before.loss_sum + loss_sum, before.examples + examples
            self.sums[stretch, lane] = StretchLoss(stretch, lane, loss_sum, examples, share)
        self.current = (stint.last - self.round.first) * self.count // steps

    def finished(self) -> list[StretchLoss]:
        """The finished stretches that have not been returned before."""
        first, self.told = self.told, self.current
        return [loss for loss in self.sums.values() if first <= loss.stretch < self.current]


def open_stretches(plan: EpochPlan, a_round: Round) -> Stretches:
    """Empty sums for the stretches of a round, which are the same in every worker."""
    lane_tokens = plan.round_tokens(a_round) // plan.train.lanes
    return Stretches(a_round, min(a_round.last - a_round.first, max(FEWEST_STRETCHES, lane_tokens // STRETCH_TOKENS)))


def points_of(plan: EpochPlan, a_round: Round, losses: Sequence[StretchLoss], before: int) -> list[Point]:
    """One point per stretch in `losses`, which must cover all its lanes; `before` is the number of tokens before the round."""
    stretches: dict[int, list[StretchLoss]] = {}
    for loss in sorted(losses, key=lambda loss: (loss.stretch, loss.lane)):
        stretches.setdefault(loss.stretch, []).append(loss)
    kept, points = plan.round_tokens(a_round), []
    for lanes in stretches.values():
        examples, share = sum(loss.examples for loss in lanes), max(loss.share for loss in lanes)
        if examples:
            points.append(
                Point(
                    kept_tokens=before + round(kept * share),
                    loss=sum(loss.loss_sum for loss in lanes) / examples,
                    alpha=plan.alpha(a_round.first + (a_round.last - a_round.first) * share),
                    spread=_spread([loss.loss_sum / loss.examples for loss in lanes if loss.examples]),
                )
            )
    return points


def _spread(losses: Sequence[float]) -> float | None:
    if len(losses) < 2:
        return None
    mean = sum(losses) / len(losses)
    return math.sqrt(sum((loss - mean) ** 2 for loss in losses) / len(losses))
