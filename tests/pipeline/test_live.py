"""What is reported during a round: the points that its record will have, whichever worker reports them and in any order."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cluster.messages import heard_by, tell
from pipeline.config import Train
from pipeline.training.history import record_round
from pipeline.training.live import Live, RoundSoFar, Teller
from pipeline.training.plan import EpochPlan, Round, assign_copies, choose_schedule, plan_epoch
from pipeline.training.tasks import RoundResult


def run_round(plan: EpochPlan, a_round: Round, workers: int, told_every_stint: bool) -> tuple[list[RoundResult], list[Any]]:
    """The final results of the workers of a round, and the messages that they sent before."""
    results, messages = [], []
    for participant, lanes in enumerate(assign_copies(plan.train.lanes, workers)):
        teller = Teller("group", plan, a_round, participant, len(lanes))
        teller.tell_every_s = 0.0 if told_every_stint else teller.tell_every_s
        with heard_by(messages.append):
            for stint in plan.stints(a_round):
                losses = [(lane, float(np.sin(stint.first + lane) + 5), 100 + lane) for lane in lanes]
                teller.trained(stint, losses, 1.0, 0.5)
        results.append(RoundResult(participant, tuple(teller.stretches.sums.values()), 1.0, 0.5, (), ()))
    return results, messages


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    lanes=st.integers(1, 9), workers=st.integers(1, 5), kept=st.integers(200, 60_000), every=st.integers(300, 50_000),
    seed=st.integers(0, 99), told_every_stint=st.booleans(),
)  # fmt: skip
def test_the_points_told_live_are_those_of_the_rounds_record(
    lanes: int, workers: int, kept: int, every: int, seed: int, told_every_stint: bool
) -> None:
    train = Train(lanes=lanes, hot_merge_every=every)
    plan = plan_epoch(train, choose_schedule(train, 400, kept), 400, 0, kept)
    a_round = plan.rounds[0]
    results, messages = run_round(plan, a_round, workers, told_every_stint)
    # The messages of one worker arrive in order, those of different workers in any order.
    random.Random(seed).shuffle(order := [message["participant"] for message in messages])
    queues = {who: [message for message in messages if message["participant"] == who] for who in set(order)}
    so_far, points = RoundSoFar("group", plan, a_round, 1000, 2.0, 0.0), []
    for who in order:
        live = so_far.add(queues[who].pop(0), now=1.0)
        points += live.points if live else ()
    record = record_round(plan, a_round, [], results, corpus_tokens=2 * kept, seconds=1.0)
    shifted = [point._replace(kept_tokens=point.kept_tokens + 1000) for point in record.points]
    assert points == shifted
    assert record.points[-1].kept_tokens == record.kept_tokens
    assert [point.kept_tokens for point in points] == sorted({point.kept_tokens for point in points})
    assert all((point.spread is None) == (lanes == 1) for point in points)


def test_messages_of_another_attempt_or_round_change_nothing() -> None:
    train = Train(lanes=1)
    plan = plan_epoch(train, choose_schedule(train, 400, 9000), 400, 0, 9000)
    _, messages = run_round(plan, plan.rounds[0], 1, told_every_stint=True)
    assert isinstance(RoundSoFar("group", plan, plan.rounds[0], 0, 1.0, 0.0).add(messages[0], 1.0), Live)
    assert RoundSoFar("another", plan, plan.rounds[0], 0, 1.0, 0.0).add(messages[0], 1.0) is None
    assert RoundSoFar("group", plan, plan.rounds[-1], 0, 1.0, 0.0).add(messages[0] | {"round": 7}, 1.0) is None


def test_a_workers_load_is_its_own_share_and_what_it_waited() -> None:
    train = Train(lanes=2)
    plan = plan_epoch(train, choose_schedule(train, 400, 8000), 400, 0, 8000)
    so_far = RoundSoFar("group", plan, plan.rounds[0], 0, 1.0, 0.0)
    message = {"group": "group", "round": 0, "participant": 1, "lanes": 1, "share": 0.5, "losses": [], "train_s": 3.0,
               "merge_s": 1.0, "load": {"cpu_percent": 98.0, "memory_bytes": 5}}  # fmt: skip
    live = so_far.add(message, now=4.0)
    assert live
    (load,) = live.loads
    kept = plan.round_tokens(plan.rounds[0])
    assert (load.worker, load.waiting_share, load.tokens_per_s, load.gpu_memory_bytes) == (1, 0.25, kept * 0.5 / 2 / 4, None)
    assert live.raw_tokens_per_s == kept * 0.25 / 4


def test_a_task_may_send_messages_that_nobody_listens_to() -> None:
    tell({"a": 1})
    heard: list[Any] = []
    with heard_by(heard.append):
        tell({"a": 2})
    tell({"a": 3})
    assert heard == [{"a": 2}]
