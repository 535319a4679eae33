"""The plan of training: which lane trains which tokens, with which α, and when which rows are merged.

Plain functions of plain numbers: no clock, no socket, no worker. The plan depends on the configuration, the vocabulary's
size and the planned token counts, so one worker or forty execute the same plan and reach the same bits.

    epoch   one pass over one epoch's shards; lane l owns the l-th contiguous share of the stream
    copy    of the parameters: trained by an equal share of the lanes, in waves (`Kernels.train_lanes`)
    step    the tokens that every copy is trained on before it may be merged with the others again
    stint   the steps from one merge to the next; with one copy, a single step
    portion  of a stint, trained in one call of the kernels: all of it, unless it is too long for them and for memory
    merge   after a step, or after every 2nd, 4th, 8th as training gets older: rows 0 … R−1 of both matrices. R
            is the hot rows (the most frequent words), twice as many at every second merge, four times as many at every
            fourth …: a row is merged at an interval in proportion to its rank, and so, by Zipf's law, every row after
            about the same number of its own updates
    round   a number of steps, after which workers report. It ends with a merge of all rows, and with a checkpoint if one
            is due: a run that lost a worker goes on from the last one. The last round ends with the vectors

Quality suffers when copies of a row drift apart, and the rows of frequent words drift fastest. Doubling tiers are from pWord2Vec
(Ji et al. 2016, "Parallelizing word2vec in shared and distributed memory"), here counted in tokens instead of seconds. Rejected
alternatives and figures: infra/benchmarks/records/lanes-2026-11-21.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

from pipeline.training.policy import (
    ALPHA_POLICY,
    LANE_POLICY,
    MERGE_POLICY,
    AlphaPolicy,
    LanePolicy,
    MergePolicy,
    by_number,
)
from w2v_core.contract import MOST_LANE_TARGETS

if TYPE_CHECKING:
    from pipeline.config import Train


ENDLESS = 62
"""A number of doublings that no training reaches."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How every epoch is cut; the same for all epochs of a run."""

    steps: int
    """Steps per epoch."""
    rounds: int
    """Rounds per epoch."""
    checkpoints: int
    """Checkpoints of the whole training, spread evenly over its rounds; the last of them is the vectors."""
    full_every_steps: int
    """All rows are merged every this many steps; in between, tiers of the most frequent rows are."""
    hot_rows: int
    """Rows in the smallest tier, which are part of every merge."""
    first_doubling: int = 0
    """Steps of training after which only every second step ends in a merge; after twice as many every fourth, and so on,
    `doublings` times. 0 = every step always ends in a merge."""
    doublings: int = 0
    spares: bool = False
    """Whether all rows are merged only before a checkpoint or the final vectors. Tiers are then counted across epochs, and the
    end of an epoch merges only rows that are due. Used for copies on several hosts (infra/decisions/0028-eight-bits.md)."""
    beside: bool = False
    """Whether a merge takes place while the next stint is trained, except at the end of a round."""


@dataclass(frozen=True, kw_only=True)
class Stint:
    """The steps that a lane trains up to the next merge."""

    first: int
    """Counted from the start of the epoch."""
    last: int
    """Exclusive."""
    alpha_start: float
    alpha_end: float
    merged_rows: int
    """Rows of each matrix merged after it; 0 = none (one copy)."""
    waits: bool = True
    """Whether that merge ends before the next stint begins, instead of after it."""


@dataclass(frozen=True, kw_only=True)
class Portion:
    """What the lanes of a copy train in one call."""

    stint: Stint
    number: int
    """Counted from the start of the stint."""
    portions: int
    """Number of portions of the stint."""
    alpha_start: float
    alpha_end: float


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
    """Whether it is the last round of training, so that the vectors follow."""


@dataclass(frozen=True, kw_only=True)
class EpochPlan:
    """One epoch, as a few numbers from which every step follows, since a long epoch has millions of steps."""

    epoch: int
    kept_tokens: int
    vocab_size: int
    train: Train
    schedule: Schedule
    policy: AlphaPolicy = ALPHA_POLICY
    trained_before: int = 0
    """Kept tokens that the vectors to continue from (`start`) were trained on; they count towards the age of training."""
    begins: float | None = None
    """Where the epoch begins on the way from alpha to min_alpha, in epochs of average length; None if all are equally long."""
    length: float = 1.0
    """Its length, in epochs of average length."""

    @cached_property
    def rounds(self) -> tuple[Round, ...]:
        schedule = self.schedule
        merges = schedule.steps // schedule.full_every_steps
        bounds = [merges * index // schedule.rounds * schedule.full_every_steps for index in range(schedule.rounds + 1)]
        first_round, all_rounds = self.epoch * schedule.rounds, self.train.epochs * schedule.rounds
        return tuple(
            Round(
                round=number, epoch=self.epoch, first=first, last=last,
                checkpoint=_is_due(schedule.checkpoints, number, all_rounds), vectors=number == all_rounds - 1,
            )
            for number, (first, last) in enumerate(pairwise(bounds), first_round)
        )  # fmt: skip

    def slice(self, lane: int, first: int, last: int) -> tuple[int, int]:
        """The half-open range of positions in the epoch's stream that `lane` trains in steps first … last − 1."""
        lanes, steps = self.train.lanes, self.schedule.steps
        begin, end = (self.kept_tokens * bound // lanes for bound in (lane, lane + 1))
        length = end - begin
        return begin + length * first // steps, begin + length * last // steps

    @property
    def copies(self) -> int:
        return copies_of(self.train, self.vocab_size)

    def stints(self, a_round: Round) -> Iterator[Stint]:
        """A round's stints; with one copy, which is never merged, its single steps."""
        first = a_round.first
        while first < a_round.last:
            last = first + 1
            while self.copies > 1 and last < a_round.last and not self.merged_rows(last - 1):
                last += 1
            yield Stint(
                first=first, last=last, alpha_start=self.alpha(first), alpha_end=self.alpha(last),
                merged_rows=self.merged_rows(last - 1), waits=not self.schedule.beside or last == a_round.last,
            )  # fmt: skip
            first = last

    def portions(self, stint: Stint) -> list[Portion]:
        """The portions of a stint, of at most MOST_LANE_TARGETS tokens per lane each. Intervals between merges have no limit."""
        steps = stint.last - stint.first
        longest = -(-self.kept_tokens // self.train.lanes) * steps // self.schedule.steps + 1
        portions = -(-longest // MOST_LANE_TARGETS)
        alphas = [
            stint.alpha_start,
            *(self.alpha(stint.first + steps * n / portions) for n in range(1, portions)),
            stint.alpha_end,
        ]
        return [
            Portion(stint=stint, number=number, portions=portions, alpha_start=start, alpha_end=end)
            for number, (start, end) in enumerate(pairwise(alphas))
        ]

    def slice_of(self, lane: int, portion: Portion) -> tuple[int, int]:
        """The range of positions that `lane` trains in a portion of a stint."""
        begin, end = self.slice(lane, portion.stint.first, portion.stint.last)
        if portion.portions == 1:
            return begin, end
        first, last = (begin + (end - begin) * number // portion.portions for number in (portion.number, portion.number + 1))
        return first, last

    def alpha(self, step: float) -> float:
        """α at the start of a step, or within one."""
        slowdown = by_number(self.policy.slowdown, self.copies)
        begins = self.epoch if self.begins is None else self.begins
        share = step / self.schedule.steps * self.length
        return alpha_at(self.train, begins, share) * (1.0 - slowdown * self.age(step))

    def age(self, step: float) -> float:
        """The age of training at the start of a step, from 0 towards 1, as a function of the tokens trained, whatever the number
        of epochs. At first vectors grow from nothing, later they only turn a little, and the best settings differ."""
        trained = self.trained_before + self.kept_tokens * (self.epoch + step / self.schedule.steps)
        return trained / (trained + self.policy.middle_age_tokens)

    def alpha_exponent(self, step: int) -> float:
        """The exponent of the words' rates in a step (`w2v_core.sampler.word_rates`): 0 at first, and in the end nearly
        `train.alpha_exponent`. Used from the start, it would cost a small corpus a quarter of its analogies, since frequent
        words, from which the others learn, would take too long to grow (infra/decisions/0015-age.md)."""
        levels = self.policy.rate_levels
        return self.train.alpha_exponent * int(levels * self.age(step) + 0.5) / levels

    def merged_rows(self, step: int) -> int:
        if self.copies == 1:
            return 0
        if self.schedule.spares:
            since_full = self.epoch * self.schedule.steps + step + 1
            is_full = step in self._ends
        else:
            since_full = (step + 1) % self.schedule.full_every_steps
            is_full = since_full == 0
        if is_full:
            return self.vocab_size
        interval = self.interval(step)
        if since_full % interval:
            return 0
        merge = since_full // interval
        return min(self.vocab_size, self.schedule.hot_rows * (merge & -merge))

    @cached_property
    def _ends(self) -> frozenset[int]:
        """The steps after which a checkpoint or the final vectors are written."""
        return frozenset(a_round.last - 1 for a_round in self.rounds if a_round.checkpoint or a_round.vectors)

    def interval(self, step: int) -> int:
        """Steps between two merges around `step`: a power of two."""
        if not self.schedule.first_doubling:
            return 1
        before = self.trained_before * self.schedule.steps // max(1, self.kept_tokens)
        age = (before + self.epoch * self.schedule.steps + step) // self.schedule.first_doubling
        return 1 << min(age.bit_length(), self.schedule.doublings)

    def round_tokens(self, a_round: Round) -> int:
        """The number of kept tokens that all lanes together train in a round."""
        return sum(
            stop - start for start, stop in (self.slice(lane, a_round.first, a_round.last) for lane in range(self.train.lanes))
        )

    def merged_bytes(self, a_round: Round) -> int:
        """The bytes that copies contribute to a round's merges: both matrices, each copy's rows once."""
        rows = sum(self.merged_rows(step) for step in range(a_round.first, a_round.last))
        size = self.train.vector_size
        return rows * self.copies * 2 * (size + 4 if self.train.merge_bits == 8 else 4 * size)


def choose_lanes(train: Train, kept_tokens: int, vocab_size: int, policy: LanePolicy = LANE_POLICY) -> Train:
    """`train` with its lanes and copies; those that the configuration leaves open are chosen by the kept tokens per epoch and the
    size of the vocabulary. If copies are configured, each gets lanes for its share of the tokens and for the cores of a host."""
    copies = max(1, train.copies)
    fits_lanes = train.engine == "kernels" and not train.lanes
    share = kept_tokens if copies == 1 else policy.lanes_of_a_share * kept_tokens // copies
    of_a_copy = 1 if train.copies and train.model == "skipgram" else int(by_number(policy.lanes_by_tokens, share))
    lanes = copies * of_a_copy if fits_lanes else train.lanes or 1
    bits = train.merge_bits or (8 if train.copies > 1 else 32)
    chosen = train.model_copy(update={"lanes": lanes, "merge_bits": bits})
    return chosen.model_copy(update={"copies": copies_of(chosen, vocab_size, policy)})


def copies_of(train: Train, vocab_size: int, policy: LanePolicy = LANE_POLICY) -> int:
    """The number of copies of the parameters in a training with these lanes."""
    if train.copies or train.lanes < policy.lanes_of_a_wave or train.model == "skipgram":
        return train.copies or train.lanes
    return policy.copies if 2 * 4 * vocab_size * train.vector_size <= policy.most_bytes_copied else 1


def lanes_of_copy(lanes: int, copies: int, copy: int) -> range:
    """The lanes that train a copy: contiguous, and equally many for every copy, give or take one."""
    return range(lanes * copy // copies, lanes * (copy + 1) // copies)


def choose_schedule(train: Train, vocab_size: int, expected_tokens: float, policy: MergePolicy = MERGE_POLICY) -> Schedule:
    """The schedule that the configuration asks for, completed by the policy.

    `expected_tokens` is the expected number of kept tokens per epoch, from the vocabulary alone, so that every epoch is cut in
    the same way although each draws its own tokens. Intervals count tokens per copy, not merges per epoch: quality depends on how
    far copies drift apart, so a larger corpus merges more often.
    """
    if train.engine == "layers":
        return Schedule(steps=1, rounds=1, checkpoints=train.epochs, full_every_steps=1, hot_rows=0)
    lane_tokens = max(1.0, expected_tokens / train.lanes)
    chosen_tokens = max(policy.checkpoint_tokens_per_row * vocab_size, policy.least_checkpoint_tokens)
    checkpoint_tokens = train.checkpoint_every or chosen_tokens
    rounds = max(1, round(lane_tokens / checkpoint_tokens))
    checkpoints = min(train.epochs * rounds, max(1, round(train.epochs * lane_tokens / checkpoint_tokens)))
    copies = copies_of(train, vocab_size)
    if copies == 1:
        # For a single lane steps only give the loss curve points; with several lanes they also bound what is trained in one go.
        at_once = expected_tokens / (LANE_POLICY.most_tokens_at_once if train.lanes > 1 else max(1.0, expected_tokens))
        steps = rounds * max(1, round(policy.reports_per_epoch / rounds), -int(-at_once // rounds))
        return Schedule(steps=steps, rounds=rounds, checkpoints=checkpoints, full_every_steps=1, hot_rows=0)
    copy_tokens = max(1.0, expected_tokens / copies)
    hot_rows = default_hot_rows(copies, policy) if train.hot_rows is None else train.hot_rows
    spares = train.merge_bits == 8 and train.hot_merge_every is None and train.merge_every is None
    stretch = max(1.0, train.epochs * expected_tokens / policy.long_training_tokens) if spares else 1.0
    hot_every = train.hot_merge_every or default_hot_merge_every(copies, hot_rows or vocab_size, copy_tokens, policy, stretch)
    full_every = train.merge_every or (copy_tokens / rounds if hot_rows else hot_every)
    steps_a_full = max(1, round(full_every / hot_every)) if hot_rows else 1
    steps = max(rounds, round(copy_tokens / full_every)) * steps_a_full
    grows = train.hot_merge_every is None and steps_a_full > 1
    doubling_tokens = by_number(policy.first_doubling_apart if spares else policy.first_doubling_tokens, copies)
    first_doubling = stretch * doubling_tokens * steps / max(1.0, expected_tokens)
    return Schedule(
        steps=steps,
        rounds=rounds,
        checkpoints=checkpoints,
        full_every_steps=steps_a_full,
        hot_rows=min(vocab_size, hot_rows),
        first_doubling=max(1, round(first_doubling)) if grows else 0,
        doublings=ENDLESS if spares else doublings(copies, train.lanes, policy),
        spares=grows and spares,
        beside=train.merge_bits == 8 and policy.trains_beside_merges,
    )


def doublings(copies: int, lanes: int, policy: MergePolicy) -> int:
    """How often the interval between merges doubles on its way from the first tokens per rank to the most."""
    first, most = by_number(policy.tokens_per_rank, copies), by_number(policy.most_tokens_per_rank, copies)
    if copies == 2:
        most = by_number(policy.most_tokens_per_rank_of_two, lanes)
    return int(most // first).bit_length() - 1


def default_hot_rows(copies: int, policy: MergePolicy = MERGE_POLICY) -> int:
    """The rows of the smallest tier: the policy's, or more if a step would otherwise be shorter than the shortest allowed."""
    return max(policy.hot_rows, int(policy.shortest_step * copies // by_number(policy.tokens_per_rank, copies)))


def default_hot_merge_every(
    copies: int, hot_rows: int, copy_tokens: float, policy: MergePolicy = MERGE_POLICY, stretch: float = 1.0
) -> float:
    """Kept tokens per copy between the first merges: the policy's tokens per rank for every hot row, summed over all copies,
    times `stretch`, but with at least the policy's number of merges in an epoch of `copy_tokens`."""
    of_ranks = stretch * by_number(policy.tokens_per_rank, copies) * max(hot_rows, policy.hot_rows) / copies
    return max(1.0, min(of_ranks, copy_tokens / policy.merges_per_epoch))


def plan_epoch(
    train: Train, schedule: Schedule, vocab_size: int, epoch: int, kept_tokens: int, trained_before: int = 0,
    lengths: Sequence[float] = (),
) -> EpochPlan:  # fmt: skip
    """The steps and rounds of one epoch over `kept_tokens` rows of its shards; `trained_before` is as in EpochPlan; `lengths`
    are the shares of the text that the epochs take, if they differ."""
    if lengths:
        schedule = shortened(schedule, lengths[epoch])
    scale = train.epochs / sum(lengths) if lengths else 1.0
    return EpochPlan(
        epoch=epoch, kept_tokens=kept_tokens, vocab_size=vocab_size, train=train, schedule=schedule,
        trained_before=trained_before, begins=sum(lengths[:epoch]) * scale if lengths else None,
        length=lengths[epoch] * scale if lengths else 1.0,
    )  # fmt: skip


def shortened(schedule: Schedule, length: float) -> Schedule:
    """The schedule of an epoch that takes only part of the text: fewer steps, so that each keeps its number of tokens, but at
    least one merge of all rows per round."""
    merges = max(schedule.rounds, round(length * schedule.steps / schedule.full_every_steps))
    return replace(schedule, steps=merges * schedule.full_every_steps)


def _is_due(checkpoints: int, a_round: int, rounds: int) -> bool:
    """Whether one of `checkpoints`, spread evenly over all rounds, follows this one; after the last round come the vectors."""
    return a_round + 1 < rounds and (a_round + 1) * checkpoints // rounds > a_round * checkpoints // rounds


def alpha_at(train: Train, epoch: float, share: float) -> float:
    """α after `share` of epoch `epoch`: falls linearly from alpha to min_alpha over all epochs, as in word2vec.c."""
    return train.alpha - (train.alpha - train.min_alpha) * (epoch + share) / train.epochs


def assign_copies(copies: int, workers: int) -> list[range]:
    """Contiguous runs of copies, one per worker, sizes differing by at most one; workers in excess of the copies get none."""
    used = min(copies, workers)
    return [range(copies * index // used, copies * (index + 1) // used) for index in range(used)]
