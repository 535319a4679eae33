"""Tests that take turns: each has its day, no group has two days that differ by more than a test, and all days take as long."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import PLAN
from tests.sampling import CYCLE, Turn, day_of, first_days

TURNS = st.builds(Turn, st.integers(2, 5), st.floats(0.1, 50), st.sampled_from("ab"))


@given(st.lists(TURNS, max_size=30))
def test_every_test_has_its_turn_once_in_so_many_days(tests: list[Turn]) -> None:
    assert [0 <= first < test.days for first, test in zip(first_days(tests), tests, strict=True)] == [True] * len(tests)
    assert all(CYCLE % test.days == 0 for test in tests), "else two turns would be nearer to each other at the end of a cycle"


@given(st.integers(2, 5), st.lists(st.tuples(st.floats(0.1, 50), st.sampled_from("ab")), max_size=30))
def test_of_every_group_as_many_run_on_one_day_as_on_another(days: int, tests: list[tuple[float, str]]) -> None:
    turns = [Turn(days, seconds, of) for seconds, of in tests]
    first = first_days(turns)
    for group in "ab":
        found = [sum(day == own and turn.of == group for own, turn in zip(first, turns, strict=True)) for day in range(days)]
        assert max(found) - min(found) <= 1


def test_no_day_takes_much_longer_than_another(pytestconfig: pytest.Config) -> None:
    plan = pytestconfig.stash[PLAN]
    if len({turn.of for turn, _ in plan}) < 20:
        pytest.skip("only if all tests are collected")
    assert {turn.days for turn, _ in plan} <= {2, 3, 4, 5, 10}, "what a test claims is checked within ten days"
    days = [sum(turn.seconds for turn, first in plan if day % turn.days == first) for day in range(CYCLE)]
    assert max(days) < 1.1 * sum(days) / CYCLE


def test_days_follow_each_other_across_months_and_any_other_seed_counts_as_a_day() -> None:
    assert day_of(20270301) - day_of(20270228) == 1
    assert day_of(20270228) == datetime.date(2027, 2, 28).toordinal()
    assert [day_of(seed) for seed in (7, 8)] == [7, 8]
