"""A task that kills every worker is found and named after a few losses, and costs no other task its result."""

from __future__ import annotations

import functools
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from distributed import get_worker

from pipeline.cluster.dask_workers import DaskWorkers
from pipeline.cluster.endings import GUILTY, MANY, SUSPECT
from pipeline.cluster.opening import open_workers
from pipeline.cluster.workers import DeadlyTaskError
from pipeline.config import Cluster
from pipeline.errors import CapacityError
from tests.cluster.disturbed import PATIENCE_S, Bench, wait_until

TOKENIZER = """
import os

def factory():
    def split(lines):
        if any("deadlyword" in line for line in lines):
            os.abort()
        return [line.split() for line in lines]
    return split
"""


@pytest.fixture(scope="module")
def workers() -> Iterator[DaskWorkers]:
    with open_workers(Cluster(n_workers=2)) as opened:
        opened.members()
        yield opened


def dying_first(deaths: Path, times: int) -> Callable[[int], int]:
    """A task that kills its worker with each negative number, so many times in all."""

    def task(number: int) -> int:
        time.sleep(0.05)
        if number < 0 and len(list(deaths.glob(f"{number}.*"))) < times:
            Path(deaths, f"{number}.{os.getpid()}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return 2 * number

    return task


def test_a_task_that_kills_every_worker_is_named_after_a_few_and_all_others_are_done(
    workers: DaskWorkers, tmp_path: Path
) -> None:
    items, done = [*range(10), -1, *range(10, 30)], list[int]()
    with pytest.raises(DeadlyTaskError, match=f"lose: {GUILTY} workers in turn were lost that had only the same task") as found:
        workers.map(dying_first(tmp_path, 1000), items, label="lose", on_done=done.append)
    assert found.value.items == [-1]
    assert sorted(done) == [2 * number for number in range(30)]
    # Some losses count for the task before, of which the scheduler has not heard yet that it is done.
    assert SUSPECT + GUILTY <= len(list(tmp_path.iterdir())) <= 3 * (SUSPECT + GUILTY)


@pytest.mark.turns(2, 20)
def test_a_task_on_workers_that_are_lost_by_accident_is_repeated_until_it_is_done(workers: DaskWorkers, tmp_path: Path) -> None:
    items = [*range(5), -1, *range(5, 20)]
    assert workers.map(dying_first(tmp_path, SUSPECT + GUILTY - 1), items, label="accidents") == [2 * n for n in items]
    assert len(list(tmp_path.iterdir())) == SUSPECT + GUILTY - 1


def allow(workers: DaskWorkers, losses: int) -> None:
    """Makes the scheduler give up a task that was lost more often, with each of its keys."""
    workers.client.run_on_scheduler(lambda dask_scheduler: setattr(dask_scheduler, "allowed_failures", losses))


@pytest.mark.turns(2, 20)
@pytest.mark.parametrize("allowed", [20, 1])
def test_a_task_is_not_suspected_for_workers_that_are_ended_in_order_nor_blamed_if_the_scheduler_gives_it_up(
    workers: DaskWorkers, tmp_path: Path, allowed: int
) -> None:
    """As batch systems, autoscalers and people end them, through their nannies."""
    often = SUSPECT + 1

    def task(number: int) -> str:
        Path(tmp_path, str(os.getpid())).touch()
        while len(list(tmp_path.iterdir())) <= often:
            time.sleep(0.05)
        return str(get_worker().get_current_task())

    def end_them() -> None:
        for count in range(1, often + 1):
            wait_until(functools.partial(has_begun, count), "the task to begin")
            working = [address for address, keys in workers.client.processing().items() if keys]
            workers.client.restart_workers(working, timeout=PATIENCE_S)

    def has_begun(times: int) -> bool:
        return len(list(tmp_path.iterdir())) >= times

    allow(workers, allowed)
    try:
        with ThreadPoolExecutor(1) as pool:
            ending = pool.submit(end_them)
            (key,) = workers.map(task, [7], label="ended")
            ending.result()
        assert ("-again-" in key) == (allowed == 1), "a task that is suspected is repeated under another key"
    finally:
        allow(workers, 20)


@pytest.mark.turns(5, 20)
def test_tasks_that_a_scheduler_gives_up_because_they_waited_on_lost_workers_are_repeated(
    workers: DaskWorkers, tmp_path: Path
) -> None:
    allow(workers, 1)
    try:
        items = [*range(5), -1, -2, *range(5, 20)]
        assert workers.map(dying_first(tmp_path, 1), items, label="given up") == [2 * n for n in items]
    finally:
        allow(workers, 20)


@pytest.mark.turns(5, 40)
def test_if_all_tasks_kill_their_workers_few_workers_are_lost_before_the_run_ends(workers: DaskWorkers, tmp_path: Path) -> None:
    with pytest.raises(DeadlyTaskError, match="lost"):
        workers.map(dying_first(tmp_path, 1000), [-number for number in range(1, 101)], label="all")
    assert len(list(tmp_path.iterdir())) <= 3 * MANY * 2 * SUSPECT


@pytest.mark.turns(2, 25)
def test_workers_that_dask_ended_because_their_memory_was_full_are_told_as_that_and_no_text_is_blamed() -> None:
    def fill(number: int) -> None:
        held = []
        while True:
            held.append(b"x" * 30_000_000)
            time.sleep(0.05)

    with (
        open_workers(Cluster(n_workers=2, options={"memory_limit": "600MB"})) as few,
        pytest.raises(DeadlyTaskError, match=r"the same task to do; their memory was full") as found,
    ):
        few.map(fill, [1], label="fill")
    told = found.value.over_text("some.txt")
    assert isinstance(told, CapacityError)
    assert "give each worker more memory" in str(told)
    assert "mend" not in str(told)


@pytest.mark.turns(2, 25)
def test_text_over_which_every_worker_dies_is_named_with_its_bytes_and_the_rest_is_kept(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deadly_splitter.py").write_text(TOKENIZER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    first, second = tmp_path / "first.txt", tmp_path / "second.txt"
    first.write_text("a few words of text\n" * 6000)
    second.write_text("a few words of text\n" * 3000 + "and a deadlyword\n" + "some other words\n" * 3000)
    config = bench.config_file(
        "deadly", corpus={"inputs": [str(first), str(second)]}, tokenize={"tokenizer": "deadly_splitter:factory"}
    )
    ended = bench.finish(config)
    assert ended.code == 65, ended.err
    assert f"had only {second} from byte " in ended.err
    assert str(first) not in ended.err
    records = list((bench.directory / "deadly" / "tokens" / "parts").glob("*.json"))
    second.write_text(second.read_text().replace("deadlyword", "lively word"))
    assert len(records) >= 3
    assert bench.finish(config).summary["corpus"]["tokens"] == 6000 * 5 + 3000 * 5 + 4 + 3000 * 3
