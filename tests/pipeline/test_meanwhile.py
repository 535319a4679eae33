"""A merge beside training gets as many threads as it needs, and what it raises is raised where training waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from pipeline.training.meanwhile import MANY, Meanwhile, spread_over


@pytest.fixture
def background() -> Iterator[Meanwhile]:
    opened = Meanwhile(4)
    yield opened
    opened.close()


def test_what_the_work_raises_is_raised_at_its_end(background: Meanwhile) -> None:
    def fail() -> None:
        raise ValueError("lost")

    background.begin(fail)
    with pytest.raises(ValueError, match="lost"):
        background.end(lambda: False)
    assert not background.is_under_way


def test_what_can_be_done_meanwhile_is_done_until_the_work_has_ended(background: Meanwhile) -> None:
    go_on, calls = threading.Event(), []

    def meanwhile() -> bool:
        calls.append(None)
        if len(calls) == 3:
            go_on.set()
        return True

    background.begin(lambda: go_on.wait(10) and None)
    background.end(meanwhile)
    assert len(calls) >= 3


def test_work_that_goes_on_after_an_interrupt_is_still_known(background: Meanwhile) -> None:
    go_on = threading.Event()

    def interrupted() -> bool:
        raise KeyboardInterrupt

    background.begin(lambda: go_on.wait(10) and None)
    with pytest.raises(KeyboardInterrupt):
        background.end(interrupted)
    assert background.is_under_way
    go_on.set()
    background.end(lambda: False)
    assert not background.is_under_way


def test_items_are_spread_over_as_many_threads_as_the_merge_has(background: Meanwhile) -> None:
    background.threads = 3
    together, seen = threading.Barrier(3), set()

    def work(item: int) -> int:
        together.wait(10)
        seen.add(threading.current_thread())
        return item

    found: list[int] = []
    background.begin(lambda: found.extend(background.spread(work, range(3))))
    background.end(lambda: False)
    assert found == [0, 1, 2]
    assert len(seen) == 3
    assert background.processor_s() > 0
    assert background.processor_s() == 0


def test_if_a_helper_cannot_be_started_no_other_goes_on_after_the_error() -> None:
    begun, ended = threading.Event(), []

    def work(item: int) -> None:
        begun.set()
        threading.Event().wait(0.1)
        ended.append(item)

    with ThreadPoolExecutor(1) as pool:

        def submit(some: Callable[[], None]) -> Future[None]:
            if begun.wait(0):
                raise RuntimeError("can't start new thread")
            helper = pool.submit(some)
            begun.wait(10)
            return helper

        with pytest.raises(RuntimeError, match="can't start"):
            spread_over(submit, 3, work, range(10))
        assert ended == [0]
    assert ended == [0]


@pytest.mark.parametrize(
    ("trained_s", "merged_s", "threads"),
    [(1.0, 1.05, 2), (1.0, 1.5, 4), (1.0, 0.2, 1), (1.0, 0.5, 2), (1.0, 0.01, 1)],
)
def test_a_merge_that_is_waited_for_gets_more_threads_and_a_short_one_fewer(
    background: Meanwhile, trained_s: float, merged_s: float, threads: int
) -> None:
    background.threads = 2
    background.took(trained_s, merged_s)
    assert background.threads == threads


def test_cores_are_left_to_a_merge_that_is_under_way_where_there_are_many_and_it_is_not_short(background: Meanwhile) -> None:
    assert background.spared(32) == 0
    go_on = threading.Event()
    background.begin(lambda: go_on.wait(10) and None)
    assert [background.spared(cores) for cores in (2, MANY - 1, MANY, 32)] == [0, 0, 1, 1]
    go_on.set()
    background.end(lambda: False)
    go_on.clear()
    background.took(1.0, 0.01)
    background.begin(lambda: go_on.wait(10) and None)
    assert background.spared(32) == 0
    go_on.set()
