"""The plan covers every token exactly once, whatever the cuts, and never asks who executes it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import Train
from pipeline.rounds import alpha_at, assign_lanes, choose_schedule, plan_epoch

trains = st.builds(
    Train,
    lanes=st.integers(1, 40),
    epochs=st.integers(1, 4),
    merge_every=st.none() | st.integers(500, 100_000),
    hot_rows=st.none() | st.integers(0, 3000),
    hot_merge_every=st.none() | st.integers(200, 50_000),
    checkpoint_every=st.none() | st.integers(300, 1_000_000),
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(train=trains, vocab_size=st.integers(2, 5000), kept_tokens=st.integers(0, 60_000))
def test_every_token_of_an_epoch_is_trained_exactly_once(train: Train, vocab_size: int, kept_tokens: int) -> None:
    plan = plan_epoch(train, choose_schedule(train, vocab_size, kept_tokens), vocab_size, 0, kept_tokens)
    slices = [plan.slice(lane, step) for lane in range(train.lanes) for step in range(plan.schedule.steps)]
    assert slices[0][0] == 0
    assert slices[-1][1] == kept_tokens
    assert all(before[1] == after[0] for before, after in zip(slices, slices[1:], strict=False))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(train=trains, vocab_size=st.integers(2, 5000), kept_tokens=st.integers(0, 60_000))
def test_rounds_cover_the_steps_in_order_and_end_with_a_merge_of_all_rows(train: Train, vocab_size: int, kept_tokens: int) -> None:
    schedule = choose_schedule(train, vocab_size, kept_tokens)
    for epoch in range(train.epochs):
        plan = plan_epoch(train, schedule, vocab_size, epoch, kept_tokens)
        covered = [step for a_round in plan.rounds for step in range(a_round.first, a_round.last)]
        assert covered == list(range(schedule.steps))
        assert [a_round.round for a_round in plan.rounds] == list(range(epoch * schedule.rounds, (epoch + 1) * schedule.rounds))
        for a_round in plan.rounds:
            assert a_round.first < a_round.last
            assert plan.merged_rows(a_round.last - 1) == (vocab_size if train.lanes > 1 else 0)


def test_alpha_falls_linearly_from_alpha_to_min_alpha() -> None:
    train = Train(alpha=0.05, min_alpha=0.01, epochs=4)
    assert alpha_at(train, 0, 0.0) == 0.05
    assert abs(alpha_at(train, 2, 0.0) - 0.03) < 1e-12
    assert abs(alpha_at(train, 3, 1.0) - 0.01) < 1e-12


def test_steps_hand_alpha_over_without_a_gap() -> None:
    train = Train(epochs=3, lanes=4, merge_every=100)
    plans = [plan_epoch(train, choose_schedule(train, 50, 4000), 50, epoch, 4000) for epoch in range(3)]
    steps = [plan.step(step) for plan in plans for step in range(plan.schedule.steps)]
    assert steps[0].alpha_start == train.alpha
    assert all(abs(before.alpha_end - after.alpha_start) < 1e-12 for before, after in zip(steps, steps[1:], strict=False))


def test_hot_rows_are_merged_between_full_merges() -> None:
    train = Train(lanes=2, merge_every=1000, hot_rows=8, hot_merge_every=250)
    plan = plan_epoch(train, choose_schedule(train, 100, 8000), 100, 0, 8000)
    assert [plan.merged_rows(step) for step in range(plan.schedule.steps)] == [8, 8, 8, 100] * 4
    assert plan.merged_bytes(plan.rounds[0]) == 4 * (3 * 8 + 100) * 2 * 2 * train.vector_size * 4


def test_one_lane_never_merges() -> None:
    train = Train(lanes=1, hot_rows=8, hot_merge_every=10, merge_every=10)
    plan = plan_epoch(train, choose_schedule(train, 100, 1000), 100, 0, 1000)
    assert {plan.merged_rows(step) for step in range(plan.schedule.steps)} == {0}


def test_more_hot_rows_than_words_means_all_words() -> None:
    train = Train(lanes=2, merge_every=1000, hot_rows=8000, hot_merge_every=250)
    assert choose_schedule(train, 100, 8000).hot_rows == 100


@settings(max_examples=100, deadline=None, derandomize=True)
@given(lanes=st.integers(1, 100), workers=st.integers(1, 100))
def test_lanes_are_shared_out_evenly_and_in_order(lanes: int, workers: int) -> None:
    runs = assign_lanes(lanes, workers)
    assert [lane for run in runs for lane in run] == list(range(lanes))
    sizes = [len(run) for run in runs]
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 1
    assert len(runs) == min(lanes, workers)
