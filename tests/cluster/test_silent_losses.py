"""Lost work that Dask itself would repeat before the driver has looked: the run says so every time, and changes no bit.

The driver is frozen meanwhile, so that it cannot see the loss as it happens.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.disturbed import Bench, end_of, stopped_at, wait_until
from tests.cluster.tls_cluster import TlsCluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[TlsCluster]:
    cluster = TlsCluster(tmp_path)
    yield cluster
    cluster.stop()


@contextlib.contextmanager
def frozen(driver: subprocess.Popen[str]) -> Iterator[None]:
    driver.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        driver.send_signal(signal.SIGCONT)


def addresses(dask_scheduler: Any) -> list[str]:
    return list(dask_scheduler.workers)


def is_working(dask_scheduler: Any) -> bool:
    return any(task.state in ("processing", "memory") for task in dask_scheduler.tasks.values())


def is_done(dask_scheduler: Any) -> bool:
    """Whether the only worker left has done all tasks."""
    return len(dask_scheduler.workers) == 1 and {task.state for task in dask_scheduler.tasks.values()} == {"memory"}


def parts_done(dask_scheduler: Any) -> list[str]:
    """The parts of rounds whose results lie on workers."""
    return [str(key) for key, task in dask_scheduler.tasks.items() if str(key).startswith("round-") and task.state == "memory"]


@pytest.mark.turns(10, 8)
def test_a_part_of_a_round_that_dask_gives_to_another_process_at_the_same_address_is_told(
    bench: Bench, cluster: TlsCluster, tmp_path: Path
) -> None:
    config = bench.config_file("same-address", before="train", cluster=cluster.section)
    token = tmp_path / "token"
    first = cluster.start_worker("", failpoint=f"step:1.2.0=stop,{token}")
    cluster.wait_for_workers(1)
    with cluster.client() as client, bench.w2v(config) as driver:
        stopped_at(token, driver)
        (address,) = client.run_on_scheduler(addresses)
        with frozen(driver):
            first.kill()
            wait_until(lambda: client.run_on_scheduler(addresses) == [], "the scheduler to notice the loss")
            cluster.start_worker("", port=address.rpartition(":")[2])
            wait_until(lambda: client.run_on_scheduler(addresses) == [address], "another worker at that address")
            wait_until(lambda: client.run_on_scheduler(is_working), "the scheduler to give it the lost part")
        ended = end_of(driver)
    assert ended.summary["vectors"]["sha256"] == bench.digest
    lost = rf"round \d was interrupted: a worker went away or fell silent .* \({address}\).*; training goes on from the "
    assert len(re.findall(lost, ended.err)) == 1, ended.err


@pytest.mark.turns(10, 8)
def test_a_part_of_a_round_that_dask_repeats_because_its_result_was_lost_is_told(
    bench: Bench, cluster: TlsCluster, tmp_path: Path
) -> None:
    config = bench.config_file("lost-result", before="train", cluster=cluster.section)
    token = tmp_path / "token"
    cluster.start_worker("", failpoint=f"step:1.2.0=stop,{token}")
    cluster.wait_for_workers(1)

    def lose(dask_scheduler: Any) -> None:
        dask_scheduler.transitions(dict.fromkeys(parts_done(dask_scheduler), "released"), "the result was lost")

    with cluster.client() as client, bench.w2v(config) as driver:
        worker = stopped_at(token, driver)
        with frozen(driver):
            worker.resume()
            wait_until(lambda: client.run_on_scheduler(parts_done) != [], "the part to be done")
            client.run_on_scheduler(lose)
        ended = end_of(driver)
    assert ended.summary["vectors"]["sha256"] == bench.digest
    lost = r"round \d was interrupted: a worker's part of the round was done, but its result was lost; training goes on from the "
    assert len(re.findall(lost, ended.err)) == 1, ended.err


@pytest.mark.turns(10, 8)
def test_tasks_that_dask_gives_to_another_worker_while_nobody_looks_are_told(
    bench: Bench, cluster: TlsCluster, tmp_path: Path
) -> None:
    config = bench.config_file("unseen", cluster=cluster.section)
    token = tmp_path / "token"
    started = [cluster.start_worker("", failpoint=f"task:tokenize.0=stop,{token}") for _ in range(2)]
    cluster.wait_for_workers(2)
    with cluster.client() as client, bench.w2v(config) as driver:
        there = client.run(os.getpid)
        lost = stopped_at(token, driver)
        with frozen(driver):
            next(worker for worker in started if worker.pid == lost.pid).kill()
            wait_until(lambda: client.run_on_scheduler(is_done), "the other worker to do the lost tasks")
        ended = end_of(driver)
    assert ended.summary["vectors"]["sha256"] == bench.digest
    address = next(address for address, process in there.items() if process == lost.pid)
    told = f"tokenize: the worker at {address} went away or fell silent; other workers repeat the lost tasks"
    assert ended.err.count(told) == 1, ended.err
