"""The plan covers every token exactly once, whatever the cuts, and does not depend on who executes it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import Train
from pipeline.training.plan import (
    alpha_at,
    assign_copies,
    choose_lanes,
    choose_schedule,
    copies_of,
    default_hot_rows,
    lanes_of_copy,
    plan_epoch,
)
from pipeline.training.policy import ALPHA_POLICY, LANE_POLICY, MERGE_POLICY, by_number
from w2v_core.contract import MOST_LANE_TARGETS

HOT_ROWS, MIDDLE_AGE_TOKENS, RATE_LEVELS = MERGE_POLICY.hot_rows, ALPHA_POLICY.middle_age_tokens, ALPHA_POLICY.rate_levels
DOUBLING_TOKENS = int(by_number(MERGE_POLICY.first_doubling_tokens, 32))

trains = st.builds(
    lambda lanes, copies, **settings: Train(
        lanes=lanes,
        copies=min(lanes, copies),
        **{key: value for key, value in settings.items() if 1 not in (lanes, copies) or key in ("epochs", "checkpoint_every")},
    ),
    lanes=st.integers(1, 40),
    copies=st.integers(0, 40),
    epochs=st.integers(1, 4),
    merge_every=st.none() | st.integers(500, 100_000),
    hot_rows=st.none() | st.integers(0, 3000),
    hot_merge_every=st.none() | st.integers(200, 50_000),
    checkpoint_every=st.none() | st.integers(1000, 1_000_000),
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(train=trains, vocab_size=st.integers(2, 5000), kept_tokens=st.integers(0, 60_000))
def test_every_token_of_an_epoch_is_trained_exactly_once(train: Train, vocab_size: int, kept_tokens: int) -> None:
    plan = plan_epoch(train, choose_schedule(train, vocab_size, kept_tokens), vocab_size, 0, kept_tokens)
    stints = [stint for a_round in plan.rounds for stint in plan.stints(a_round)]
    slices = [plan.slice(lane, stint.first, stint.last) for lane in range(train.lanes) for stint in stints]
    assert slices[0][0] == 0
    assert slices[-1][1] == kept_tokens
    assert all(before[1] == after[0] for before, after in pairwise(slices))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(train=trains, vocab_size=st.integers(2, 5000), kept_tokens=st.integers(0, 60_000))
def test_rounds_cover_the_steps_in_order_and_end_with_a_merge_of_all_rows(
    train: Train, vocab_size: int, kept_tokens: int
) -> None:
    schedule = choose_schedule(train, vocab_size, kept_tokens)
    for epoch in range(train.epochs):
        plan = plan_epoch(train, schedule, vocab_size, epoch, kept_tokens)
        covered = [step for a_round in plan.rounds for step in range(a_round.first, a_round.last)]
        assert covered == list(range(schedule.steps))
        assert [a_round.round for a_round in plan.rounds] == list(range(epoch * schedule.rounds, (epoch + 1) * schedule.rounds))
        for a_round in plan.rounds:
            assert a_round.first < a_round.last
            assert plan.merged_rows(a_round.last - 1) == (vocab_size if copies_of(train, vocab_size) > 1 else 0)


def test_alpha_falls_linearly_from_alpha_to_min_alpha() -> None:
    train = Train(alpha=0.05, min_alpha=0.01, epochs=4)
    assert alpha_at(train, 0, 0.0) == 0.05
    assert abs(alpha_at(train, 2, 0.0) - 0.03) < 1e-12
    assert abs(alpha_at(train, 3, 1.0) - 0.01) < 1e-12


@pytest.mark.parametrize("lanes", [3, 4])
def test_stints_hand_alpha_over_without_a_gap_and_end_with_a_merge(lanes: int) -> None:
    train = Train(epochs=3, lanes=lanes, copies=lanes, merge_every=100)
    plans = [plan_epoch(train, choose_schedule(train, 50, 4000), 50, epoch, 4000) for epoch in range(3)]
    stints = [stint for plan in plans for a_round in plan.rounds for stint in plan.stints(a_round)]
    assert stints[0].alpha_start == train.alpha
    left = 1.0 - 0.3 * 12_000 / (12_000 + MIDDLE_AGE_TOKENS) if lanes == 4 else 1.0
    assert stints[-1].alpha_end == pytest.approx(train.min_alpha * left)
    assert all(abs(before.alpha_end - after.alpha_start) < 1e-12 for before, after in pairwise(stints))
    assert all(stint.merged_rows for stint in stints)


def test_late_in_training_a_stint_is_as_many_steps_as_pass_between_merges() -> None:
    train = Train(lanes=3, epochs=8)
    schedule = choose_schedule(train, 70_000, 8_000_000)
    plan = plan_epoch(train, schedule, 70_000, 7, 8_000_000)
    lengths = [stint.last - stint.first for stint in plan.stints(plan.rounds[0])]
    assert set(lengths[:-1]) == {16}


@pytest.mark.parametrize(
    ("train", "vocab_size", "kept_tokens"),
    [
        (Train(copies=2), 3_000_000, 2 * 10**11),
        (Train(lanes=3), 200_000, 2 * 10**10),
        (Train(lanes=4, copies=2, hot_rows=0, merge_every=20_000_000), 50_000, 100_000_000),
        (Train(lanes=4, copies=2), 50_000, 10_000),
    ],
)
def test_however_long_a_stint_is_its_portions_are_short_enough_for_the_kernels(
    train: Train, vocab_size: int, kept_tokens: int
) -> None:
    chosen = choose_lanes(train, kept_tokens, vocab_size)
    last_epoch = chosen.epochs - 1
    plan = plan_epoch(chosen, choose_schedule(chosen, vocab_size, kept_tokens), vocab_size, last_epoch, kept_tokens)
    stint = max(plan.stints(plan.rounds[-1]), key=lambda stint: stint.last - stint.first)
    portions = plan.portions(stint)
    assert (len(portions) > 1) == (kept_tokens > 10_000)
    for lane in (0, 1, chosen.lanes - 1):
        slices = [plan.slice_of(lane, portion) for portion in portions]
        assert (slices[0][0], slices[-1][1]) == plan.slice(lane, stint.first, stint.last)
        assert all(before[1] == after[0] for before, after in pairwise(slices))
        assert all(0 < stop - start <= MOST_LANE_TARGETS for start, stop in slices)
    assert (portions[0].alpha_start, portions[-1].alpha_end) == (stint.alpha_start, stint.alpha_end)
    assert all(before.alpha_end == after.alpha_start > after.alpha_end for before, after in pairwise(portions))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(train=trains, vocab_size=st.integers(2, 5000), kept_tokens=st.integers(0, 60_000))
def test_checkpoints_are_spread_evenly_and_the_last_is_the_vectors(train: Train, vocab_size: int, kept_tokens: int) -> None:
    schedule = choose_schedule(train, vocab_size, kept_tokens)
    plans = [plan_epoch(train, schedule, vocab_size, epoch, kept_tokens) for epoch in range(train.epochs)]
    rounds = [a_round for plan in plans for a_round in plan.rounds]
    due = [a_round.round for a_round in rounds if a_round.checkpoint or a_round.vectors]
    gaps = [after - before for before, after in pairwise([-1, *due])]
    assert len(due) == schedule.checkpoints
    assert [a_round.round for a_round in rounds if a_round.vectors] == [due[-1]] == [train.epochs * schedule.rounds - 1]
    assert not rounds[-1].checkpoint
    assert max(gaps) - min(gaps) <= 1


def test_short_epochs_over_a_large_vocabulary_share_a_checkpoint() -> None:
    train = Train(lanes=2, epochs=5)
    assert choose_schedule(train, 70_000, 9_000_000).checkpoints == 1
    assert choose_schedule(train, 20_000, 24_000_000).checkpoints == 10


def test_a_small_vocabulary_has_no_checkpoint_every_moment() -> None:
    at_once = MERGE_POLICY.least_checkpoint_tokens
    assert choose_schedule(Train(lanes=4, copies=1), 64, 4 * at_once).rounds == 1
    assert choose_schedule(Train(lanes=4, copies=1), 64, 40 * at_once).rounds == 10
    assert choose_schedule(Train(lanes=4, copies=1), 100_000, 4 * 30_000_000 * 10).rounds == 10
    assert choose_schedule(Train(lanes=4, copies=1, checkpoint_every=20_000), 64, 4_000_000).rounds == 50


def test_between_full_merges_every_second_step_merges_twice_the_rows() -> None:
    train = Train(lanes=2, merge_every=2000, hot_rows=8, hot_merge_every=250)
    plan = plan_epoch(train, choose_schedule(train, 100, 8000), 100, 0, 8000)
    assert [plan.merged_rows(step) for step in range(plan.schedule.steps)] == [8, 16, 8, 32, 8, 16, 8, 100] * 2
    assert plan.merged_bytes(plan.rounds[0]) == 2 * (8 + 16 + 8 + 32 + 8 + 16 + 8 + 100) * 2 * 2 * train.vector_size * 4


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    lanes=st.integers(16, 256),
    vocab_size=st.integers(2, 2_000_000),
    kept_tokens=st.integers(0, 2_000_000_000),
    epoch=st.integers(0, 3),
)
def test_by_default_a_row_waits_in_proportion_to_its_rank(lanes: int, vocab_size: int, kept_tokens: int, epoch: int) -> None:
    train = Train(lanes=lanes, copies=lanes)
    plan = plan_epoch(train, choose_schedule(train, vocab_size, kept_tokens), vocab_size, epoch, kept_tokens)
    steps = plan.schedule.steps
    for rank in (0, 1000, 5000, vocab_size - 1):
        if rank < vocab_size:
            waited = longest_wait([plan.merged_rows(step) > rank for step in range(min(steps, 4096))])
            allowed = 2.2 * by_number(MERGE_POLICY.most_tokens_per_rank, lanes) * max(rank + 1, default_hot_rows(lanes))
            assert waited * kept_tokens / steps <= allowed or waited == steps


def longest_wait(merged: list[bool]) -> int:
    """Most steps in a row up to and with the one that merges."""
    longest = waited = 0
    for is_merged in merged:
        waited += 1
        longest, waited = max(longest, waited), 0 if is_merged else waited
    return longest


@pytest.mark.parametrize(("lanes", "tokens"), [(2, 32), (4, 16), (8, 16), (32, 16)])
def test_two_lanes_may_train_longer_between_merges(lanes: int, tokens: int) -> None:
    schedule = choose_schedule(Train(lanes=lanes, copies=lanes), 70_000, 9_000_000)
    assert 9_000_000 / schedule.steps == pytest.approx(tokens * HOT_ROWS, rel=0.02)


@pytest.mark.parametrize(("lanes", "intervals", "later"), [(2, [1, 2, 4, 4, 4, 4, 4], 4), (3, [1, 2, 4, 4, 8, 16, 16], 32)])
def test_the_interval_doubles_with_the_tokens_trained_without_limit_but_for_two_copies(
    lanes: int, intervals: list[int], later: int
) -> None:
    train = Train(lanes=lanes, epochs=2)
    tokens = 16 * int(by_number(MERGE_POLICY.first_doubling_tokens, lanes))
    schedule = choose_schedule(train, 70_000, tokens)
    first, second = (plan_epoch(train, schedule, 70_000, epoch, tokens) for epoch in (0, 1))
    doubling = schedule.steps // 16
    assert [first.interval(doubling * share + 5) for share in (0, 1, 2, 3, 4, 8, 15)] == intervals
    assert {second.interval(step) for step in range(schedule.steps)} == {later}
    tiers = {later - 1: HOT_ROWS, 2 * later - 1: 2 * HOT_ROWS}
    merged = [tiers.get(step, 0) for step in range(2 * later)]
    assert [second.merged_rows(step) for step in range(2 * later)] == merged


@pytest.mark.parametrize(("copies", "intervals"), [(8, [1, 2, 4, 16]), (16, [1, 2, 2, 2])])
def test_the_interval_of_many_copies_doubles_later_and_that_of_very_many_stops(copies: int, intervals: list[int]) -> None:
    train = Train(lanes=copies, copies=copies)
    plan = plan_epoch(train, choose_schedule(train, 70_000, 16 * DOUBLING_TOKENS), 70_000, 0, 16 * DOUBLING_TOKENS)
    doubling = plan.schedule.steps // 16
    assert [plan.interval(doubling * share + 5) for share in (0, 1, 2, 15)] == intervals


@pytest.mark.parametrize("checkpoint_every", [None, 400_000])
def test_copies_on_several_hosts_merge_all_rows_where_a_checkpoint_or_the_vectors_follow_and_else_those_that_are_due(
    checkpoint_every: int | None,
) -> None:
    train = choose_lanes(Train(copies=4, epochs=4, checkpoint_every=checkpoint_every), 9_000_000, 70_000)
    schedule = choose_schedule(train, 70_000, 9_000_000)
    plans = [plan_epoch(train, schedule, 70_000, epoch, 9_000_000) for epoch in range(train.epochs)]
    ends = {
        epoch * schedule.steps + a_round.last - 1
        for epoch, plan in enumerate(plans) for a_round in plan.rounds if a_round.checkpoint or a_round.vectors
    }  # fmt: skip
    merged = [plan.merged_rows(step) for plan in plans for step in range(schedule.steps)]
    assert (len(ends) > 1) == (checkpoint_every is not None)
    assert all(merged[step] == 70_000 for step in ends)
    intervals = [plan.interval(step) for plan in plans for step in range(schedule.steps)]
    for step, (rows, interval) in enumerate(zip(merged, intervals, strict=True)):
        if step not in ends:
            number, rest = divmod(step + 1, interval)
            assert rows == (0 if rest else min(70_000, HOT_ROWS * (number & -number)))


@pytest.mark.parametrize(("bits", "configured"), [(8, {}), (32, {}), (8, {"hot_merge_every": 2000})])
def test_hosts_train_beside_their_merges_but_wait_at_the_end_of_a_round(bits: Any, configured: Any) -> None:
    train = choose_lanes(Train(copies=4, epochs=4, checkpoint_every=400_000, merge_bits=bits, **configured), 9_000_000, 70_000)
    schedule = choose_schedule(train, 70_000, 9_000_000)
    for epoch in range(train.epochs):
        plan = plan_epoch(train, schedule, 70_000, epoch, 9_000_000)
        for stints in (list(plan.stints(a_round)) for a_round in plan.rounds):
            assert [stint.waits for stint in stints] == [bits == 32] * (len(stints) - 1) + [True]
            assert len(stints) > 1


def test_a_configured_interval_is_kept_with_eight_bits_too() -> None:
    train = Train(lanes=2, copies=2, merge_bits=8, merge_every=2000, hot_rows=8, hot_merge_every=250)
    plan = plan_epoch(train, choose_schedule(train, 100, 8000), 100, 0, 8000)
    assert [plan.merged_rows(step) for step in range(plan.schedule.steps)] == [8, 16, 8, 32, 8, 16, 8, 100] * 2
    assert plan.merged_bytes(plan.rounds[0]) == 2 * (8 + 16 + 8 + 32 + 8 + 16 + 8 + 100) * 2 * 2 * (train.vector_size + 4)


def test_words_rates_start_equal_and_diverge_as_tokens_are_trained() -> None:
    train = Train(lanes=1, epochs=20, alpha_exponent=0.5)
    schedule = choose_schedule(train, 70_000, MIDDLE_AGE_TOKENS)
    first, second, last = (plan_epoch(train, schedule, 70_000, epoch, MIDDLE_AGE_TOKENS) for epoch in (0, 1, 19))
    assert first.alpha_exponent(0) == 0.0
    assert second.alpha_exponent(0) == 0.25
    assert last.alpha_exponent(schedule.steps - 1) == 0.5
    every = [plan.alpha_exponent(step) for plan in (first, second, last) for step in range(schedule.steps)]
    assert every == sorted(every)
    assert len(set(every)) <= RATE_LEVELS + 1


@pytest.mark.parametrize(("copies", "left"), [(1, 1.0), (3, 1.0), (4, 0.7), (32, 0.7)])
def test_the_rate_of_many_copies_loses_three_tenths_with_age(copies: int, left: float) -> None:
    train = Train(lanes=32, copies=copies, epochs=1000)
    plans = [plan_epoch(train, choose_schedule(train, 70_000, 10**7), 70_000, epoch, 10**7) for epoch in (0, 500)]
    alone = [alpha_at(train, epoch, 0.0) for epoch in (0, 500)]
    assert [plan.alpha(0) for plan in plans] == pytest.approx([alone[0], left * alone[1]], rel=2e-3)


@pytest.mark.parametrize("epochs", [1, 5])
def test_words_rates_diverge_with_tokens_trained_however_they_are_cut_into_epochs(epochs: int) -> None:
    train = Train(lanes=1, epochs=epochs)
    tokens = 4 * MIDDLE_AGE_TOKENS // epochs
    last = plan_epoch(train, choose_schedule(train, 70_000, tokens), 70_000, epochs - 1, tokens)
    assert last.alpha_exponent(last.schedule.steps) == pytest.approx(0.8 * train.alpha_exponent, abs=0.5 / RATE_LEVELS)


@pytest.mark.parametrize(("lanes", "tokens"), [(16, 32), (32, 32), (63, 32), (64, 16), (256, 16)])
def test_the_more_copies_the_earlier_the_interval_stops_doubling(lanes: int, tokens: int) -> None:
    train = Train(lanes=lanes, copies=lanes, epochs=2)
    schedule = choose_schedule(train, 70_000, 16 * DOUBLING_TOKENS)
    last = plan_epoch(train, schedule, 70_000, 1, 16 * DOUBLING_TOKENS)
    between = last.interval(schedule.steps - 1) * 16 * DOUBLING_TOKENS / schedule.steps
    assert between == pytest.approx(tokens * default_hot_rows(lanes), rel=0.02)


def test_a_configured_interval_does_not_grow() -> None:
    train = Train(lanes=2, hot_merge_every=4000)
    plan = plan_epoch(train, choose_schedule(train, 70_000, 9_000_000), 70_000, 3, 9_000_000)
    assert {plan.interval(step) for step in range(plan.schedule.steps)} == {1}
    assert min(plan.merged_rows(step) for step in range(plan.schedule.steps)) == HOT_ROWS


def test_a_tiny_corpus_is_merged_several_times_an_epoch() -> None:
    schedule = choose_schedule(Train(lanes=8, copies=8), 300, 4000)
    assert schedule.steps == MERGE_POLICY.merges_per_epoch


def test_very_many_lanes_get_more_hot_rows_instead_of_shorter_steps() -> None:
    schedule = choose_schedule(Train(lanes=1024, copies=1024), 1_000_000, 10**9)
    assert schedule.hot_rows > HOT_ROWS
    assert 10**9 / 1024 / schedule.steps >= 0.99 * MERGE_POLICY.shortest_step


def test_without_hot_rows_every_merge_is_of_all_rows() -> None:
    train = Train(lanes=4, copies=4, hot_rows=0)
    plan = plan_epoch(train, choose_schedule(train, 5000, 1_000_000), 5000, 0, 1_000_000)
    assert plan.schedule.steps == MERGE_POLICY.merges_per_epoch
    assert {plan.merged_rows(step) for step in range(plan.schedule.steps)} == {5000}


def test_one_lane_never_merges() -> None:
    train = Train(lanes=1)
    plan = plan_epoch(train, choose_schedule(train, 100, 1000), 100, 0, 1000)
    assert {plan.merged_rows(step) for step in range(plan.schedule.steps)} == {0}


def test_more_hot_rows_than_words_means_all_words() -> None:
    train = Train(lanes=2, merge_every=1000, hot_rows=8000, hot_merge_every=250)
    assert choose_schedule(train, 100, 8000).hot_rows == 100


def test_lanes_follow_from_the_corpus_and_no_machine() -> None:
    chosen = [
        choose_lanes(Train(), tokens, 70_000) for tokens in (0, 1_100_000, 3_000_000, 9_300_000, 140_000_000, 10**9, 10**10)
    ]
    assert [(train.lanes, train.copies) for train in chosen] == [(1, 1), (1, 1), (4, 2), (8, 2), (16, 2), (32, 2), (64, 2)]


def test_large_parameters_are_not_kept_twice_unless_few_lanes_have_a_copy_each() -> None:
    train = Train(vector_size=100)
    limit = LANE_POLICY.most_bytes_copied // (2 * 4 * 100)
    assert [choose_lanes(train, 10**7, words).copies for words in (limit, limit + 1)] == [2, 1]
    assert choose_lanes(Train(lanes=3), 10**7, 10**7).copies == 3


def test_lanes_and_copies_that_are_configured_are_the_ones_trained() -> None:
    asked = [
        Train(lanes=2),
        Train(lanes=3, copies=1),
        Train(lanes=8),
        Train(lanes=64, copies=4),
        Train(copies=16),
        Train(model="skipgram"),
    ]
    chosen = [choose_lanes(train, 10**7, 70_000) for train in asked]
    assert [(train.lanes, train.copies) for train in chosen] == [(2, 2), (3, 1), (8, 2), (64, 4), (64, 16), (8, 8)]
    assert [train.merge_bits for train in chosen] == [32, 32, 32, 8, 8, 32]
    assert choose_lanes(Train(engine="layers"), 10**9, 70_000).lanes == 1


@settings(max_examples=100, deadline=None, derandomize=True)
@given(lanes=st.integers(1, 100), copies=st.integers(1, 100))
def test_every_lane_trains_one_copy_and_copies_have_about_as_many(lanes: int, copies: int) -> None:
    copies = min(lanes, copies)
    runs = [lanes_of_copy(lanes, copies, copy) for copy in range(copies)]
    assert [lane for run in runs for lane in run] == list(range(lanes))
    assert min(map(len, runs)) >= 1
    assert max(map(len, runs)) - min(map(len, runs)) <= 1


@pytest.mark.parametrize("lanes", [4, 64])
def test_lanes_of_one_copy_never_merge_and_their_stretches_stay_short(lanes: int) -> None:
    train = Train(lanes=lanes, epochs=2)
    plan = plan_epoch(train, choose_schedule(train, 1_000_000, 10**9), 1_000_000, 0, 10**9)
    stints = [stint for a_round in plan.rounds for stint in plan.stints(a_round)]
    assert {stint.merged_rows for stint in stints} == {0}
    assert max(stint.last - stint.first for stint in stints) == 1
    assert 10**9 / plan.schedule.steps <= LANE_POLICY.most_tokens_at_once


@settings(max_examples=100, deadline=None, derandomize=True)
@given(lanes=st.integers(1, 100), workers=st.integers(1, 100))
def test_copies_are_shared_out_evenly_and_in_order(lanes: int, workers: int) -> None:
    runs = assign_copies(lanes, workers)
    assert [lane for run in runs for lane in run] == list(range(lanes))
    sizes = [len(run) for run in runs]
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 1
    assert len(runs) == min(lanes, workers)
