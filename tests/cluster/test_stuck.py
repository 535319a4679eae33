"""Workers that are paused for good, and a machine that stands still: nothing waits for ever, and nothing is lost."""

from __future__ import annotations

import builtins
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dask.system import CPU_COUNT
from distributed.system import MEMORY_LIMIT

from pipeline.cluster.opening import open_workers
from pipeline.cluster.presence import Presence
from pipeline.config import Cluster, Tls
from tests.cluster.disturbed import Bench, end_of, session_members, stopped_at
from tests.cluster.tls_cluster import TlsCluster

KEPT_BYTES = 450 << 20
"""With what a worker needs for itself, more than that at which it pauses, and less than that at which its nanny ends it."""
PAUSES_BYTES = 500 << 20


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[TlsCluster]:
    cluster = TlsCluster(tmp_path)
    yield cluster
    cluster.stop()


def keeps_memory_once(token: Path) -> Any:
    """A task of which one, the first 0, leaves its worker's memory full, as a leak in a library would."""

    def task(number: int) -> tuple[int, int]:
        if number == 0 and not token.exists():
            token.touch()
            builtins.kept = bytearray(b"1") * KEPT_BYTES  # type: ignore[attr-defined]
        time.sleep(0.15)
        return number, os.getpid()

    return task


@pytest.mark.turns(2, 12)
def test_a_worker_whose_memory_stays_full_is_started_again_and_what_waited_on_it_is_done(tmp_path: Path) -> None:
    notes = list[str]()
    limit = {"memory_limit": PAUSES_BYTES / 0.8}
    with open_workers(Cluster(n_workers=2, silent_s=2, options=limit), on_note=notes.append) as workers:
        workers.members()
        done = workers.map(keeps_memory_once(tmp_path / "token"), range(60), label="keep")
        assert [number for number, _ in done] == [*range(60)]
        assert any("does nothing since its memory is full, and is started again" in note for note in notes), notes
        assert len(workers.map(lambda _: time.sleep(0.3), range(8), label="after")) == 8
        assert len(workers.members()) == 2


@pytest.mark.turns(5, 12)
def test_what_waits_on_a_paused_worker_of_others_is_done_by_another_and_the_worker_left_alone(
    cluster: TlsCluster, tmp_path: Path
) -> None:
    share = str(PAUSES_BYTES / (MEMORY_LIMIT / CPU_COUNT))
    started = [cluster.start_worker("", DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE=share) for _ in range(2)]
    cluster.wait_for_workers(2)
    section = Cluster(kind="address", address=cluster.address, tls=Tls(**cluster.tls), wait_s=60, silent_s=2)
    with open_workers(section) as workers:
        done = workers.map(keeps_memory_once(tmp_path / "token"), range(60), label="keep")
        assert [number for number, _ in done] == [*range(60)]
        assert len(workers.members()) == 1
    assert all(process.poll() is None for process in started)


def test_a_worker_is_stuck_if_it_was_paused_without_working_for_long() -> None:
    presence = Presence(silent_s=30)

    def stuck(now: float, **workers: tuple[str, int]) -> list[str]:
        records = {
            name: {"last_seen": now, "status": status, "metrics": {"task_counts": {"executing": executing}}}
            for name, (status, executing) in workers.items()
        }
        assert presence.answering(records, now).keys() == records.keys()
        return sorted(presence.stuck)

    assert stuck(1000, a=("paused", 0), b=("paused", 1), c=("running", 0)) == []
    assert stuck(1020, a=("paused", 0), b=("paused", 0), c=("running", 0)) == []
    assert stuck(1031, a=("paused", 0), b=("paused", 0), c=("running", 0)) == ["a"]
    assert stuck(1051, a=("running", 1), b=("paused", 0), c=("running", 0)) == ["b"]
    assert stuck(1060, a=("paused", 0)) == []
    # Nobody has looked for long.
    assert stuck(5000, a=("paused", 0)) == []


def test_time_in_which_nobody_looked_is_no_silence() -> None:
    presence = Presence(silent_s=30)

    def answering(now: float) -> bool:
        return bool(presence.answering({"a": {"last_seen": 7}}, now))

    assert answering(1000)
    assert answering(1100), "this process stood still, and the scheduler in it has not read the heartbeats yet"
    assert answering(1120)
    assert not answering(1131)


@pytest.mark.turns(10, 90)
def test_a_run_that_is_stopped_for_longer_than_a_minute_loses_no_worker(bench: Bench, tmp_path: Path) -> None:
    config = bench.config_file("asleep", before="train", cluster={"n_workers": 2})
    with bench.w2v(config, failpoint=f"step:1.3.0=stop,{tmp_path / 'token'}") as process:
        stopped_at(tmp_path / "token", process)
        os.killpg(process.pid, signal.SIGSTOP)
        time.sleep(62)  # the scheduler's limit was 60 s
        before = session_members(process.pid)
        os.killpg(process.pid, signal.SIGCONT)
        ended = end_of(process)
    assert len(before) >= 3
    assert ended.summary["vectors"]["sha256"] == bench.digest
    assert "fell silent" not in ended.err
