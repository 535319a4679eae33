"""A worker's copies are trained by its threads, including the calling one."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator

import numpy as np
import pytest

from pipeline.exchange.attempts import Attempts
from pipeline.training.lane_group import LaneGroup, open_group
from pipeline.training.placement import Place


@pytest.fixture(params=[1, 2, 3])
def group(request: pytest.FixtureRequest) -> Iterator[LaneGroup]:
    """Three copies on one worker with this many threads."""
    places = (Place(address="here", host="one", threads=request.param, first_copy=0, last_copy=3),)
    opened = open_group("spread", places, 0, (4, 8), 10.0, Attempts())
    yield opened
    opened.close()


def test_work_is_done_by_all_threads_and_comes_back_in_order(group: LaneGroup) -> None:
    together, seen = threading.Barrier(group.threads), set()

    def work(item: int) -> int:
        if item < group.threads:
            together.wait(10)
        seen.add(threading.current_thread())
        return item * item

    assert group.spread(work, range(5)) == [0, 1, 4, 9, 16]
    assert len(seen) == group.threads
    assert threading.current_thread() in seen
    assert group.spread(work, []) == []


def test_an_error_is_raised_when_no_thread_works_on_the_parameters_any_more(group: LaneGroup) -> None:
    together, ended = threading.Barrier(group.threads), []

    def work(item: int) -> None:
        if item >= group.threads:
            return
        together.wait(10)
        if item == 0:
            raise ValueError("the first")
        threading.Event().wait(0.05)
        ended.append(item)

    with pytest.raises(ValueError, match="the first"):
        group.spread(work, range(3))
    assert len(ended) == group.threads - 1


def test_the_memory_of_copies_is_given_back_before_the_vectors_are_written(group: LaneGroup) -> None:
    group.base[0][:] = 1
    memory = [weakref.ref(matrix.base) for pair in group.copies.values() for matrix in pair]
    assert len(memory) == 6
    assert all(of() is not None for of in memory)
    group.free_copies()
    assert [of() for of in memory] == [None] * 6
    np.testing.assert_array_equal(group.base[0], 1)
