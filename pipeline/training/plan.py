"""The plan of training: which lane trains which tokens, with which α, and when which rows are merged.

Plain functions of plain numbers: no clock, no socket, no worker. The plan depends on the configuration, the vocabulary's
size and the planned token counts, so one worker or forty execute the same plan and reach the same bits.

    epoch   one pass over one epoch's shards; lane l owns the l-th contiguous share of the stream
    step    what every lane trains before it may meet the others again
    stint   the steps from one merge to the next, which a lane trains in one go
    merge   after a step, or after every 2nd, 4th, 8th as training gets older: rows 0 … R−1 of both matrices. R
            is the hot rows (the most frequent words), twice as many at every second merge, four times as many at every
            fourth …: a row is merged at an interval in proportion to its rank, and so, by Zipf's law, every row after
            about the same number of its own updates
    round   steps after which a worker reports. It ends with a merge of all rows, and with a checkpoint if one is due:
            a run that lost a worker goes on from the last one. The last round ends with the vectors

What hurts is how far two copies of a row drift apart, and the frequent words' rows drift fastest. Doubling tiers are
pWord2Vec's (Ji et al. 2016, "Parallelizing word2vec in shared and distributed memory"), here counted in tokens instead of
seconds. Rejected ways and figures: infra/benchmarks/records/lanes-2026-11-21.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.config import Train

REPORTS_PER_EPOCH = 20
"""Fewest steps an epoch is cut into when nothing needs merging, so that the loss curve has points."""

CHECKPOINT_TOKENS_PER_ROW = 300
"""Default kept tokens a lane between checkpoints, per vocabulary row: what a checkpoint costs grows with the rows, what is
lost without it grows with the tokens. At 200 ns a token and 2 µs a row, writing takes 3 % of the time."""

TOKENS_PER_RANK = 16
"""At first the row of rank r is merged about every TOKENS_PER_RANK · r kept tokens of all lanes together. Neither the
vocabulary's nor the corpus's size enters, because a word of rank r occurs about every 10 · r tokens in any text."""
MANY_LANES = 4
"""Fewer lanes drift apart less: two may wait twice as long (`tokens_per_rank`), and in the end 16 times as long
(`most_tokens_per_rank`). Two that wait twice as long from the start lose 8 % of the analogies in two epochs, and 16 % of a small
corpus's (infra/benchmarks/records/lanes-2026-11-28.md)."""
DOUBLING_TOKENS = 1 << 22
"""Kept tokens of all lanes after which the interval doubles for the first time, half of it with few lanes; again at twice as
many, and so on. Early on the vectors grow from nothing and each update builds on the one before, so what lanes learn apart
does not add up; later they only turn a little."""
MOST_TOKENS_PER_RANK = 512
"""Where the doubling ends with few lanes; with many of them earlier, which costs bytes and keeps the score
(infra/benchmarks/records/lanes-2026-11-21.md)."""
HOT_ROWS = 1024
"""Subsampling makes words above about this rank nearly equally frequent, so a smaller first tier gains little."""
SHORTEST_STEP = 512
"""Kept tokens a lane: about 0.1 ms of training, below which the lanes' meeting costs as much as what they train."""
MERGES_AN_EPOCH = 16
"""Fewest steps of an epoch with several lanes, however small the corpus."""

MIDDLE_AGE_TOKENS = 1 << 23
"""Kept tokens of all lanes after which training is half as old as it can get (`EpochPlan.age`)."""
RATE_LEVELS = 8
"""Exponents between 0 and `train.alpha_exponent` that training goes through, so that rates are computed a few times a run."""
SLOWDOWN_OF_MANY_LANES = 0.3
"""The part of α that from MANY_LANES lanes on goes with age: what many lanes learn apart is added up, which early on makes up
for what they do not know of each other, and later for steps that are too large (infra/decisions/0015-age.md)."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How every epoch is cut; the same for all epochs of a run."""

    steps: int
    """Steps an epoch."""
    rounds: int
    """Rounds an epoch."""
    checkpoints: int
    """Checkpoints of the whole training, spread evenly over its rounds; the last of them are the vectors."""
    full_every_steps: int
    """Every so many steps all rows are merged; the steps between merge tiers of the most frequent rows."""
    hot_rows: int
    """Rows of every merge: the smallest tier."""
    first_doubling: int = 0
    """Steps of training after which only every second step ends in a merge; after twice as many every fourth, and so on,
    `doublings` times. 0 = every step ends in a merge, always."""
    doublings: int = 0


@dataclass(frozen=True, kw_only=True)
class Stint:
    """The steps a lane trains in one go, up to the next merge."""

    first: int
    """Counted from the start of the epoch."""
    last: int
    """Behind the last step."""
    alpha_start: float
    alpha_end: float
    merged_rows: int
    """Rows of each matrix merged after it; 0 = none (one lane)."""


@dataclass(frozen=True, kw_only=True)
class Round:
    """Steps `first` … `last` − 1 of an epoch."""

    round: int
    """Counted from the start of training."""
    epoch: int
    first: int
    last: int
    checkpoint: bool
    """Whether a checkpoint follows."""
    vectors: bool
    """Whether it is the last of the training: the vectors follow."""


@dataclass(frozen=True, kw_only=True)
class EpochPlan:
    """One epoch: a few numbers from which every step follows, because a long epoch has millions of steps."""

    epoch: int
    kept_tokens: int
    vocab_size: int
    train: Train
    schedule: Schedule
    rounds: tuple[Round, ...]

    def slice(self, lane: int, first: int, last: int) -> tuple[int, int]:
        """Half-open range of positions in the epoch's stream that `lane` trains in steps first … last − 1."""
        lanes, steps = self.train.lanes, self.schedule.steps
        begin, end = (self.kept_tokens * bound // lanes for bound in (lane, lane + 1))
        length = end - begin
        return begin + length * first // steps, begin + length * last // steps

    def stints(self, a_round: Round) -> Iterator[Stint]:
        """A round's steps from merge to merge; with one lane, which never merges, one by one."""
        first = a_round.first
        while first < a_round.last:
            last = first + 1
            while self.train.lanes > 1 and last < a_round.last and not self.merged_rows(last - 1):
                last += 1
            yield Stint(
                first=first, last=last, alpha_start=self.alpha(first), alpha_end=self.alpha(last),
                merged_rows=self.merged_rows(last - 1),
            )  # fmt: skip
            first = last

    def alpha(self, step: float) -> float:
        """α at the start of a step, or within one."""
        slowdown = SLOWDOWN_OF_MANY_LANES if self.train.lanes >= MANY_LANES else 0.0
        return alpha_at(self.train, self.epoch, step / self.schedule.steps) * (1.0 - slowdown * self.age(step))

    def age(self, step: float) -> float:
        """How old training is at the start of a step, from 0 towards 1, in tokens trained: neither epochs nor their number
        matter. In the beginning the vectors grow from nothing, later they only turn a little; what is best then is not what is
        best at first."""
        trained = self.kept_tokens * (self.epoch + step / self.schedule.steps)
        return trained / (trained + MIDDLE_AGE_TOKENS)

    def alpha_exponent(self, step: int) -> float:
        """How much the words' rates differ in a step (`w2v_core.sampler.word_rates`): not at all at first, and in the end
        nearly by `train.alpha_exponent`. From the start it would cost a small corpus a quarter of its analogies: frequent
        words, which the others learn from, would take too long to grow (infra/decisions/0015-age.md)."""
        return self.train.alpha_exponent * int(RATE_LEVELS * self.age(step) + 0.5) / RATE_LEVELS

    def merged_rows(self, step: int) -> int:
        if self.train.lanes == 1:
            return 0
        since_full = (step + 1) % self.schedule.full_every_steps
        if since_full == 0:
            return self.vocab_size
        interval = self.interval(step)
        if since_full % interval:
            return 0
        merge = since_full // interval
        return min(self.vocab_size, self.schedule.hot_rows * (merge & -merge))

    def interval(self, step: int) -> int:
        """Steps between two merges around `step`: a power of two."""
        if not self.schedule.first_doubling:
            return 1
        age = (self.epoch * self.schedule.steps + step) // self.schedule.first_doubling
        return 1 << min(age.bit_length(), self.schedule.doublings)

    def round_tokens(self, a_round: Round) -> int:
        """Kept tokens that all lanes together train in a round."""
        return sum(
            stop - start for start, stop in (self.slice(lane, a_round.first, a_round.last) for lane in range(self.train.lanes))
        )

    def merged_bytes(self, a_round: Round) -> int:
        """Bytes of parameters that the lanes hand over in a round's merges: both matrices, each lane's rows once."""
        rows = sum(self.merged_rows(step) for step in range(a_round.first, a_round.last))
        return rows * self.train.lanes * 2 * self.train.vector_size * 4


def choose_schedule(train: Train, vocab_size: int, expected_tokens: float) -> Schedule:
    """The cuts that the configuration asks for, and measured defaults for what it leaves open.

    `expected_tokens` is the mean number of kept tokens of an epoch, from the vocabulary alone, so that every epoch is
    cut alike although each draws its own tokens. Intervals count tokens a lane, not merges an epoch: what hurts is how
    far two copies drift apart, so a larger corpus merges more often.
    """
    if train.engine == "layers":
        return Schedule(steps=1, rounds=1, checkpoints=train.epochs, full_every_steps=1, hot_rows=0)
    lane_tokens = max(1.0, expected_tokens / train.lanes)
    checkpoint_tokens = train.checkpoint_every or CHECKPOINT_TOKENS_PER_ROW * vocab_size
    rounds = max(1, round(lane_tokens / checkpoint_tokens))
    checkpoints = min(train.epochs * rounds, max(1, round(train.epochs * lane_tokens / checkpoint_tokens)))
    if train.lanes == 1:
        steps_a_round = max(1, round(REPORTS_PER_EPOCH / rounds))
        return Schedule(steps=rounds * steps_a_round, rounds=rounds, checkpoints=checkpoints, full_every_steps=1, hot_rows=0)
    hot_rows = default_hot_rows(train.lanes) if train.hot_rows is None else train.hot_rows
    hot_every = train.hot_merge_every or default_hot_merge_every(train.lanes, hot_rows or vocab_size, lane_tokens)
    full_every = train.merge_every or (lane_tokens / rounds if hot_rows else hot_every)
    steps_a_full = max(1, round(full_every / hot_every)) if hot_rows else 1
    steps = max(rounds, round(lane_tokens / full_every)) * steps_a_full
    grows = train.hot_merge_every is None and steps_a_full > 1
    return Schedule(
        steps=steps,
        rounds=rounds,
        checkpoints=checkpoints,
        full_every_steps=steps_a_full,
        hot_rows=min(vocab_size, hot_rows),
        first_doubling=max(1, round(doubling_tokens(train.lanes) * steps / max(1.0, expected_tokens))) if grows else 0,
        doublings=(most_tokens_per_rank(train.lanes) // tokens_per_rank(train.lanes)).bit_length() - 1,
    )


def tokens_per_rank(lanes: int) -> int:
    """TOKENS_PER_RANK from MANY_LANES lanes on, twice as many with two."""
    return TOKENS_PER_RANK * max(1, MANY_LANES // lanes)


def doubling_tokens(lanes: int) -> int:
    """DOUBLING_TOKENS from MANY_LANES lanes on, half as many with fewer."""
    return DOUBLING_TOKENS // (2 if lanes < MANY_LANES else 1)


def most_tokens_per_rank(lanes: int) -> int:
    """MOST_TOKENS_PER_RANK with few lanes, a sixteenth of it with many, half of that from 64 on: the more lanes, the smaller is
    the share of what a lane sees of the others while it trains alone."""
    return MOST_TOKENS_PER_RANK // (1 if lanes < MANY_LANES else 16 if lanes < 64 else 32)


def default_hot_rows(lanes: int) -> int:
    """Rows of the smallest tier: more than HOT_ROWS only where a step would be shorter than SHORTEST_STEP."""
    return max(HOT_ROWS, SHORTEST_STEP * lanes // TOKENS_PER_RANK)


def default_hot_merge_every(lanes: int, hot_rows: int, lane_tokens: float) -> float:
    """Kept tokens a lane between the first merges: `tokens_per_rank` a hot row over all lanes together, but no fewer than
    MERGES_AN_EPOCH merges in an epoch of `lane_tokens`."""
    return max(1.0, min(tokens_per_rank(lanes) * max(hot_rows, HOT_ROWS) / lanes, lane_tokens / MERGES_AN_EPOCH))


def plan_epoch(train: Train, schedule: Schedule, vocab_size: int, epoch: int, kept_tokens: int) -> EpochPlan:
    """The steps and rounds of one epoch over `kept_tokens` rows of its shards."""
    merges = schedule.steps // schedule.full_every_steps
    bounds = [merges * index // schedule.rounds * schedule.full_every_steps for index in range(schedule.rounds + 1)]
    first_round, all_rounds = epoch * schedule.rounds, train.epochs * schedule.rounds
    rounds = tuple(
        Round(
            round=number, epoch=epoch, first=first, last=last,
            checkpoint=_is_due(schedule.checkpoints, number, all_rounds), vectors=number == all_rounds - 1,
        )
        for number, (first, last) in enumerate(pairwise(bounds), first_round)
    )  # fmt: skip
    return EpochPlan(epoch=epoch, kept_tokens=kept_tokens, vocab_size=vocab_size, train=train, schedule=schedule, rounds=rounds)


def _is_due(checkpoints: int, a_round: int, rounds: int) -> bool:
    """Whether one of `checkpoints`, spread evenly over all rounds, follows this one; the last round has the vectors instead."""
    return a_round + 1 < rounds and (a_round + 1) * checkpoints // rounds > a_round * checkpoints // rounds


def alpha_at(train: Train, epoch: int, share: float) -> float:
    """α after `share` of epoch `epoch`: falls linearly from alpha to min_alpha over all epochs (as word2vec.c)."""
    return train.alpha - (train.alpha - train.min_alpha) * (epoch + share) / train.epochs


def assign_lanes(lanes: int, workers: int) -> list[range]:
    """Contiguous runs of lanes, one a worker, sizes differing by at most one; workers beyond the lanes get none."""
    used = min(lanes, workers)
    return [range(lanes * index // used, lanes * (index + 1) // used) for index in range(used)]
