"""The stints of a round on one worker: what its copies are trained on between two merges.

    one by one     the copies are trained, each in a thread or several, and then merge with all copies of other workers
    together       where all copies are here and the kernels merge them, too (`Kernels.train_copies`): many stints in one call,
                   because between two merges many cores train for about a millisecond, as long as the interpreter needs to give
                   them their work

The bits are the same.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline import failpoints, store
from pipeline.cluster.state import WorkerState
from pipeline.config import Train
from pipeline.errors import DivergedError
from pipeline.exchange.shared_memory import nothing_to_do
from pipeline.failpoints import reach
from pipeline.stream import epoch_stream, sampling
from pipeline.stream.sizes import HELD_TOKENS
from pipeline.training.lane_group import LaneGroup
from pipeline.training.live import Teller
from pipeline.training.plan import Portion, Stint, lanes_of_copy
from pipeline.training.residency import Residency
from pipeline.training.stretches import StretchLoss
from pipeline.training.tasks import RoundTask
from w2v_core.kernels import MOST_LANE_TARGETS, Kernels, LocalTraining, Noise, Slice, SliceResult, Update
from w2v_core.sampler import stream_seed, word_rates

SEED_PATH = 2
STINTS_TOGETHER = 1 << 10
"""Most stints in one call: with few words they are short, and each takes memory for every lane."""
Losses = list[tuple[int, float, int]]
"""(lane, sum of losses, examples) of a stint."""


@dataclass
class HeldWords:
    """What training needs of the vocabulary."""

    noise_table: NDArray[np.uint64]
    counts_V: NDArray[np.int64]
    keep_V: NDArray[np.float64]
    last: tuple[float, NDArray[np.float32]] | None = None
    """(exponent, rates) of the last call, often the same in the next round."""

    def rates(self, exponent: float) -> NDArray[np.float32]:
        if self.last is None or self.last[0] != exponent:
            self.last = exponent, word_rates(self.counts_V, self.keep_V, exponent)
        return self.last[1]


def read_words(noise_table: str, words: str) -> HeldWords:
    """The words of a vocabulary, from its noise table and its table of words."""
    table = store.read_table(Path(words), columns=("count", "keep_probability"))
    columns = (store.numbers(table[column]) for column in ("count", "keep_probability"))
    return HeldWords(np.load(store.fetched(Path(noise_table)), allow_pickle=False), *columns)


def trains_together(train: Train, kernels: Kernels) -> bool:
    """Whether a process trains all copies that merge within it in one call. (A failpoint fires at a step or a merge, so each must
    be reached by itself.)"""
    together = train.engine == "kernels" and train.model == "cbow" and train.merge_bits in (None, 32)
    return together and kernels.train_copies is not None and not failpoints.are_armed()


class RoundStints:
    """Trains this worker's copies in a round."""

    def __init__(
        self, task: RoundTask, group: LaneGroup, kernels: Kernels, resident: Residency, state: WorkerState, words: HeldWords,
        ahead: sampling.Ahead,
    ) -> None:  # fmt: skip
        self._task, self._plan, self._group, self._kernels, self._resident = task, task.plan, group, kernels, resident
        self._state, self._words, self._ahead = state, words, ahead
        self._rows, self._held = epoch_stream.Rows(task.stream, task.window, state), task.round.first
        self._lanes = {copy: list(lanes_of_copy(task.train.lanes, task.plan.copies, copy)) for copy in group.own}
        self._table_T = kernels.to_device(words.noise_table)
        self._noise, self._exponent = Noise(self._table_T, np.empty(0, np.float32)), -1.0
        self._train_s = self._merge_s = 0.0
        fits = resident.merges_in_place and len(group.own) > 1 and trains_together(task.train, kernels)
        self._together = kernels.train_copies if fits else None

    def train(self) -> tuple[tuple[StretchLoss, ...], float, float]:
        """(losses, seconds of training, seconds of merging) of the round."""
        task, group = self._task, self._group
        teller = Teller(task.group_key, self._plan, task.round, task.participant, sum(map(len, self._lanes.values())))
        group.background.processor_s()
        for stints in self._batches():
            losses = self._train_together(stints) if self._goes_together(stints[-1]) else [self._train_alone(stints[0])]
            for stint, of_stint in zip(stints, losses, strict=True):
                teller.trained(stint, of_stint, self._train_s, self._merge_s - self._ahead.seconds)
        group.meanwhile = nothing_to_do
        return tuple(teller.stretches.sums.values()), self._train_s, self._merge_s - self._ahead.seconds

    def _batches(self) -> Iterator[list[Stint]]:
        """The stints of each call."""
        batch: list[Stint] = []
        for stint in self._plan.stints(self._task.round):
            if batch and not (self._goes_together(stint) and self._fits(stint, batch)):
                yield batch
                batch = []
            batch.append(stint)
        yield batch

    def _lane_tokens(self, steps: int) -> int:
        """Most tokens of a lane in so many steps."""
        return -(-self._plan.kept_tokens // self._task.train.lanes) * steps // self._plan.schedule.steps + 1

    @property
    def _threads(self) -> int:
        """The threads of the next call that trains copies together."""
        return min(self._group.threads, self._group.cores.threads * len(self._group.own))

    def _goes_together(self, stint: Stint) -> bool:
        return self._together is not None and self._lane_tokens(stint.last - stint.first) <= MOST_LANE_TARGETS

    def _fits(self, stint: Stint, batch: Sequence[Stint]) -> bool:
        """Whether a stint can be trained in one call with those of a batch."""
        tokens = self._lane_tokens(stint.last - batch[0].first)
        return (
            len(batch) < STINTS_TOGETHER
            and self._plan.alpha_exponent(stint.first) == self._plan.alpha_exponent(batch[0].first)
            and tokens <= MOST_LANE_TARGETS
            and tokens * self._task.train.lanes <= self._group.cores.tokens * self._threads
        )

    # ── what is needed before a call ─────────────────────────────────────────────────────────────────────────────────

    def _hold(self, first: int, last: int) -> None:
        """Loads the rows of steps first … last − 1, and of many more."""
        if last > self._held:
            # The same number of steps in every worker, so that all lanes load at the same time.
            lanes, plan = self._task.train.lanes, self._plan
            steps = max(1, HELD_TOKENS * lanes * plan.schedule.steps // max(1, plan.kept_tokens))
            self._held = min(self._task.round.last, max(last, first + steps))
            ranges = [plan.slice(lane, first, self._held) for own in self._lanes.values() for lane in own]
            self._rows.hold(ranges, self._group.spread_loading)
            self._forget_drawn()

    def _forget_drawn(self) -> None:
        """Once the lanes have loaded everything that was drawn of this epoch, the next one is drawn while this worker waits."""
        if self._task.ahead and self._held == self._task.round.last and self._group.meanwhile is nothing_to_do:
            self._state.of(sampling.KeptStreams).forget_drawn()
            self._group.meanwhile = self._ahead.draw_some

    def _set_noise(self, step: int) -> None:
        if self._plan.alpha_exponent(step) != self._exponent:
            self._exponent = self._plan.alpha_exponent(step)
            self._noise = Noise(self._table_T, self._kernels.to_device(self._words.rates(self._exponent)))

    def _update(self, alphas: tuple[float, float], *path: int) -> Update:
        train = self._task.train
        seed = stream_seed(self._task.seed, SEED_PATH, 1, self._plan.epoch, *path)
        return Update(train.model, train.gradient, train.negative, alphas, seed)

    def _slice(self, start: int, stop: int) -> Slice:
        stream, first, last = self._rows.between(start, stop)
        return Slice(stream.tokens_N, stream.left_N, stream.right_N, first, last)

    def _losses(self, lanes: Sequence[int], results: Sequence[SliceResult], stint: Stint, alpha: float) -> Losses:
        for lane, result in zip(lanes, results, strict=True):
            if not math.isfinite(result.loss_sum):
                raise DivergedError(
                    f"training diverged in round {self._task.round.round}, epoch {self._plan.epoch}, step {stint.first}, "
                    f"lane {lane} at α = {alpha:.6g}: the loss is not finite. The last checkpoint is kept; "
                    "run again with a lower train.alpha"
                )
        return [(lane, result.loss_sum, result.examples) for lane, result in zip(lanes, results, strict=True)]

    # ── many stints in one call ──────────────────────────────────────────────────────────────────────────────────────

    def _train_together(self, stints: Sequence[Stint]) -> list[Losses]:
        assert self._together
        group, resident, plan = self._group, self._resident, self._plan
        first, last = stints[0].first, stints[-1].last
        self._hold(first, last)
        self._set_noise(first)
        started = time.perf_counter()
        steps, copies = [first, *(stint.last for stint in stints)], []
        for copy, lanes in self._lanes.items():
            bounds = [[plan.slice(lane, first, step)[1] for lane in lanes] for step in steps]
            slices = [self._slice(start, stop) for start, stop in zip(bounds[0], bounds[-1], strict=True)]
            bounds_SL = np.array(bounds, np.int64) + np.array([each.start for each in slices], np.int64) - bounds[0]
            updates = [self._update((stint.alpha_start, stint.alpha_end), stint.first, copy) for stint in stints]
            copies.append(LocalTraining(*resident.copies[copy], slices, bounds_SL, updates))
        merged_rows = [stint.merged_rows for stint in stints]
        group.cores.begin()
        results, merging_s = self._together(
            group.base, copies, merged_rows, self._noise, self._task.train.merge,
            self._threads, resident.room,
        )  # fmt: skip
        group.cores.end(len(copies))
        group.merges += sum(rows > 0 for rows in merged_rows)
        self._train_s += time.perf_counter() - started - merging_s
        self._merge_s += merging_s
        return [
            [
                loss
                for lanes, found in zip(self._lanes.values(), of_stint, strict=True)
                for loss in self._losses(lanes, found, stint, stint.alpha_start)
            ]
            for stint, of_stint in zip(stints, results, strict=True)
        ]

    # ── one stint ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _train_alone(self, stint: Stint) -> Losses:
        group = self._group
        losses, seconds = Losses(), 0.0
        for portion in self._plan.portions(stint):
            if portion.portions > 1:
                self._held = stint.last
                ranges = [self._plan.slice_of(lane, portion) for own in self._lanes.values() for lane in own]
                self._rows.hold(ranges, group.spread_loading)
                if portion.number + 1 == portion.portions:
                    self._forget_drawn()
            else:
                self._hold(stint.first, stint.last)
            started = time.perf_counter()
            self._set_noise(stint.first)
            group.cores.begin()
            spared = group.background.spared(group.cores.threads) // len(group.own)
            of_copies = group.spread(
                lambda copy, portion=portion, threads=group.cores.threads - spared: self._train_copy(  # type: ignore[misc]
                    copy, portion, threads
                ),
                group.own,
            )
            group.cores.end(len(group.own), spared, group.background.processor_s())
            losses += [loss for of_copy in of_copies for loss in of_copy]
            seconds += time.perf_counter() - started
        trained = time.perf_counter()
        if stint.merged_rows:
            group.wait_for_slower(seconds)
            self._resident.merge(stint.merged_rows, self._task.train.merge, waits=stint.waits)
        elif stint.waits:
            self._resident.end_merge()
        self._train_s += seconds
        self._merge_s += time.perf_counter() - trained
        return losses

    def _train_copy(self, copy: int, portion: Portion, threads: int) -> Losses:
        stint, lanes, slices = portion.stint, self._lanes[copy], []
        for lane in lanes:
            reach("step", f"{self._plan.epoch}.{stint.first}.{lane}")
            slices.append(self._slice(*self._plan.slice_of(lane, portion)))
        later = [portion.number] if portion.number else []
        update = self._update((portion.alpha_start, portion.alpha_end), stint.first, copy, *later)
        parameters, kernels = self._resident.copies[copy], self._kernels
        if len(slices) == 1:
            results = [kernels.train_slice(*parameters, slices[0], self._noise, update)]
        else:
            results = kernels.train_lanes(*parameters, slices, self._noise, update, threads, self._resident.rooms[copy])
        return self._losses(lanes, results, stint, portion.alpha_start)
