"""Tests that take turns: each has its day, and no day is without one."""

from __future__ import annotations

import datetime

from hypothesis import given
from hypothesis import strategies as st

from tests.sampling import their_turn

DAYS = [int((datetime.date(2027, 2, 20) + datetime.timedelta(day)).strftime("%Y%m%d")) for day in range(30)]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=9))
def test_every_test_has_its_turn_in_so_many_days_and_every_day_has_a_test(turns: list[int]) -> None:
    days = [their_turn(turns, day) for day in DAYS]
    if len(set(turns)) == 1:
        assert all(any(day) for day in days)
    for index, most in enumerate(turns):
        for first in range(len(days) - most):
            assert any(day[index] for day in days[first : first + most])


def test_a_seed_that_is_no_date_counts_as_a_day() -> None:
    assert [their_turn([2, 2], seed) for seed in (7, 8)] == [[False, True], [True, False]]
