"""The live view of a running round: workers report their losses about once a second, and their load less often.

The points of the loss curve reported early are equal to those in the round's final record (`stretches`), so only the remaining
ones need to be added then. Speed and load are momentary, and no result depends on them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.cluster import messages
from pipeline.cluster.messages import Listener
from pipeline.cluster.room import resident_bytes
from pipeline.training.plan import EpochPlan, Round, Stint
from pipeline.training.stretches import Point, Stretches, StretchLoss, open_stretches, points_of

TELL_S = 1.0
LOAD_S = 5.0
"""Seconds between two reports of a worker's load, each of which becomes four points in MLflow."""


# ── in a worker ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Teller:
    """Reports one worker's share of a running round. All methods return within microseconds, except for one message a second."""

    group_key: str
    plan: EpochPlan
    round: Round
    participant: int
    lanes: int
    """Number of this worker's lanes."""
    tell_every_s: float = TELL_S
    stretches: Stretches = field(init=False)
    _told_at: float = field(default_factory=time.perf_counter)
    _load: _Meter = field(init=False)

    def __post_init__(self) -> None:
        self.stretches = open_stretches(self.plan, self.round)
        self._load = _Meter()

    def trained(self, stint: Stint, losses: Sequence[tuple[int, float, int]], train_s: float, merge_s: float) -> None:
        """Records a finished stint; `train_s` and `merge_s` are those of the round so far."""
        self.stretches.add(stint, losses)
        now = time.perf_counter()
        if now - self._told_at >= self.tell_every_s or stint.last == self.round.last:
            self._told_at = now
            self._tell(stint, train_s, merge_s, now)

    def _tell(self, stint: Stint, train_s: float, merge_s: float, now: float) -> None:
        share = (stint.last - self.round.first) / (self.round.last - self.round.first)
        finished = self.stretches.finished()
        messages.tell(
            {
                "group": self.group_key,
                "round": self.round.round,
                "participant": self.participant,
                "lanes": self.lanes,
                "share": share,
                "losses": [list(asdict(loss).values()) for loss in finished],
                "train_s": train_s,
                "merge_s": merge_s,
                "load": self._load.read(now, stint.last == self.round.last),
            }
        )


class _Meter:
    """This process's processor time and memory."""

    def __init__(self) -> None:
        self._cpu_s, self._wall = time.process_time(), time.perf_counter()

    def read(self, now: float, last: bool) -> dict[str, float] | None:
        """The load since the last reading; None if that is less than LOAD_S ago."""
        passed = now - self._wall
        if passed < LOAD_S and not last:
            return None
        cpu_s = time.process_time()
        found = {
            "cpu_percent": 100 * (cpu_s - self._cpu_s) / max(passed, 1e-9),
            "memory_bytes": resident_bytes(),
        }
        self._cpu_s, self._wall = cpu_s, now
        if "cupy" in sys.modules:
            free, total = sys.modules["cupy"].cuda.runtime.memGetInfo()
            found["gpu_memory_bytes"] = total - free
        return found


# ── in the driver ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Load:
    """The load of one worker."""

    worker: int
    """Its number among those of the round."""
    cpu_percent: float
    """Percent of one core."""
    memory_bytes: int
    tokens_per_s: float
    """Kept tokens per second of its lanes, over the round so far."""
    waiting_share: float
    """Share of the round so far that was spent on merging and on waiting for others."""
    gpu_memory_bytes: int | None = None
    """Memory in use on its GPU, by all processes; None if CuPy is not loaded."""


@dataclass(frozen=True)
class Live:
    """News about a running round."""

    epoch: int
    kept_tokens: int
    """Tokens trained by all lanes since the start of training, at least."""
    points: tuple[Point, ...]
    raw_tokens_per_s: float
    """Over the round so far."""
    merge_seconds: float
    """Merge time of this round so far, of the worker that waited longest."""
    loads: tuple[Load, ...]


def hear_round(
    group_key: str, plan: EpochPlan, a_round: Round, before: int, corpus_tokens: int, on_live: Callable[[Live], None]
) -> Listener:
    """The listener for messages of a round that begins now, after `before` kept tokens; `corpus_tokens` is the number of raw
    tokens per epoch."""
    so_far = RoundSoFar(group_key, plan, a_round, before, corpus_tokens / max(1, plan.kept_tokens), time.monotonic())

    def hear(message: dict[str, Any]) -> None:
        if live := so_far.add(message, time.monotonic()):
            on_live(live)

    return hear


@dataclass
class RoundSoFar:
    """The driver's view of a running round; messages from other attempts are ignored."""

    group_key: str
    plan: EpochPlan
    round: Round
    before: int
    """Kept tokens trained before it."""
    raw_a_kept: float
    """Raw tokens per kept token."""
    started: float
    """On the same clock as `now` in `add`."""
    _losses: dict[int, list[StretchLoss]] = field(default_factory=dict)
    _lanes: dict[int, tuple[int, float]] = field(default_factory=dict)
    """{worker: (its lanes, the share of the round that they have trained)}."""
    _merge_s: dict[int, float] = field(default_factory=dict)

    def add(self, message: dict[str, Any], now: float) -> Live | None:
        """The news in the message; None if there is none, or if the message belongs to another round or attempt."""
        if message.get("group") != self.group_key or message.get("round") != self.round.round:
            return None
        who, seconds = message["participant"], max(now - self.started, 1e-9)
        self._lanes[who], self._merge_s[who] = (message["lanes"], message["share"]), message["merge_s"]
        share = sum(lanes * done for lanes, done in self._lanes.values()) / self.plan.train.lanes
        points = self._complete([StretchLoss(*row) for row in message["losses"]])
        kept = self.plan.round_tokens(self.round)
        loads: tuple[Load, ...] = ()
        if message["load"]:
            own_s = max(message["train_s"] + message["merge_s"], 1e-9)
            tokens_per_s = message["share"] * kept * message["lanes"] / self.plan.train.lanes / own_s
            loads = (Load(who, tokens_per_s=tokens_per_s, waiting_share=max(0.0, message["merge_s"]) / own_s, **message["load"]),)
        if not points and not loads:
            return None
        return Live(
            epoch=self.plan.epoch, kept_tokens=self.before + round(kept * share), points=tuple(points),
            raw_tokens_per_s=self.raw_a_kept * kept * share / seconds, merge_seconds=max(self._merge_s.values()), loads=loads,
        )  # fmt: skip

    def _complete(self, losses: Sequence[StretchLoss]) -> list[Point]:
        """The points of the stretches that these losses complete, in order and without gaps."""
        for loss in losses:
            self._losses.setdefault(loss.stretch, []).append(loss)
        ready: list[StretchLoss] = []
        for stretch in sorted(self._losses):
            if len(self._losses[stretch]) < self.plan.train.lanes:
                break
            ready += self._losses.pop(stretch)
        return points_of(self.plan, self.round, ready, self.before)
