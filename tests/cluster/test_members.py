"""Workers that join, leave, freeze and thaw while others train: no one waits for ever, and nothing changes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.cluster.opening import open_workers
from pipeline.cluster.presence import Presence
from pipeline.cluster.workers import WorkerLostError
from pipeline.config import Cluster, Tls
from pipeline.errors import TemporaryError
from pipeline.workdir import verify_workdir
from tests.cluster.disturbed import (
    PATIENCE_S,
    Bench,
    assert_no_process_is_left,
    end_of,
    files_of,
    stopped_at,
    wait_for,
    wait_until,
)
from tests.cluster.tls_cluster import TlsCluster
from tests.sampling import sample


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[TlsCluster]:
    cluster = TlsCluster(tmp_path)
    yield cluster
    cluster.stop()


@pytest.mark.turns(10, 11)
def test_a_worker_that_joins_in_the_middle_takes_part_from_the_next_round_and_changes_nothing(
    bench: Bench, cluster: TlsCluster, tmp_path: Path
) -> None:
    config = bench.config_file("joined", before="train", cluster=cluster.section)
    cluster.start_worker("", failpoint=f"step:0.3.0=stop,{tmp_path / 'first'}")
    with cluster.client() as client, bench.w2v(config) as process:
        first = stopped_at(tmp_path / "first", process)
        cluster.start_worker("", failpoint=f"part:begins=note,{tmp_path / 'second'}")
        client.wait_for_workers(2, timeout=PATIENCE_S)
        first.resume()
        ended = end_of(process)
    assert ended.summary["vectors"]["sha256"] == bench.digest
    assert (tmp_path / "second").exists(), "the second worker never took part"


@pytest.mark.turns(10, 12)
def test_a_worker_that_is_retired_in_the_middle_of_a_round_changes_nothing(
    bench: Bench, cluster: TlsCluster, tmp_path: Path
) -> None:
    config = bench.config_file("retired", before="train", cluster=cluster.section)
    token = tmp_path / "token"
    started = [cluster.start_worker("", failpoint=f"step:0.9.1=stop,{token}") for _ in range(2)]
    with cluster.client() as client:
        client.wait_for_workers(2, timeout=PATIENCE_S)
        addresses = client.run(process_id)
    with cluster.client() as client, bench.w2v(config) as process:
        frozen = stopped_at(token, process)
        leaving = next(worker for worker in started if worker.pid != frozen.pid)
        client.retire_workers([address for address, pid in addresses.items() if pid == leaving.pid])
        frozen.resume()
        ended = end_of(process)
    assert ended.summary["vectors"]["sha256"] == bench.digest


def process_id() -> int:
    return os.getpid()


@pytest.mark.parametrize("point", sample(["step:1.3.0", "write:w_out-00000.npy"]))
@pytest.mark.turns(10, 10)
def test_a_run_ends_without_a_worker_that_is_frozen(bench: Bench, tmp_path: Path, point: str) -> None:
    name = f"frozen-{point.split(':')[0]}"
    # Longer than a busy machine keeps the other worker from its heartbeats: only the frozen one is lost.
    config = bench.config_file(name, before="train", cluster={"n_workers": 2, "silent_s": 4})
    with bench.w2v(config, failpoint=f"{point}=stop,{tmp_path / 'token'}") as process:
        frozen = stopped_at(tmp_path / "token", process)
        ended = end_of(process)
    assert ended.summary["vectors"]["sha256"] == bench.digest
    lost = r"round \d was interrupted: a worker went away or fell silent .* \(tls://[\d.:]+\); training goes on from the "
    assert len(re.findall(lost, ended.err)) == 1, ended.err
    assert not frozen.is_running()
    assert_no_process_is_left(process.pid)


@pytest.mark.parametrize("point", sample(["merge:4.1", "write:w_in-00000.npy"]))
@pytest.mark.turns(10, 12)
def test_a_worker_that_thaws_after_its_work_was_redone_changes_nothing(
    bench: Bench, cluster: TlsCluster, tmp_path: Path, point: str
) -> None:
    name = f"thawed-{point.split(':')[0]}"
    config = bench.config_file(name, before="train", cluster=cluster.section | {"silent_s": 2})
    started = [cluster.start_worker("", failpoint=f"{point}=stop,{tmp_path / 'token'}") for _ in range(2)]
    with bench.w2v(config) as process:
        frozen = stopped_at(tmp_path / "token", process)
        ended = end_of(process)
    assert ended.summary["vectors"]["sha256"] == bench.digest
    before = files_of(bench.directory / name)
    frozen.resume()
    (thawed,) = [worker for worker in started if worker.pid == frozen.pid]
    cluster.wait_until_done(thawed, workers=2)
    assert files_of(bench.directory / name) == before
    assert verify_workdir(bench.directory / name)[1] == []


@pytest.mark.turns(10, 12)
def test_a_worker_that_thaws_while_the_others_still_train_changes_nothing(
    bench: Bench, cluster: TlsCluster, tmp_path: Path
) -> None:
    config = bench.config_file("back", before="train", cluster=cluster.section | {"silent_s": 2})
    for _ in range(2):
        cluster.start_worker("", failpoint=f"write:w_in-00000.npy=stop,{tmp_path / 'token'}")
    with bench.w2v(config) as process:
        frozen = stopped_at(tmp_path / "token", process)
        wait_for(next_checkpoint(bench.directory / "back"), process)
        frozen.resume()
        ended = end_of(process)
    assert ended.summary["vectors"]["sha256"] == bench.digest


def next_checkpoint(workdir: Path) -> Path:
    """The manifest of the round that the peer of the frozen worker repeats."""
    wait_until(lambda: any((workdir / "checkpoints").glob("*/manifest.json")), "the round to be done again")
    return next((workdir / "checkpoints").glob("*/manifest.json"))


@pytest.mark.turns(5, 7)
def test_a_run_without_any_worker_ends_with_75_and_says_what_to_do(bench: Bench, cluster: TlsCluster, tmp_path: Path) -> None:
    config = bench.config_file("nobody", cluster=cluster.section | {"wait_s": 3})
    token = tmp_path / "token"
    workers = [cluster.start_worker("", failpoint=f"task:tokenize.0=stop,{token}") for _ in range(2)]
    cluster.wait_for_workers(2)
    with bench.w2v(config) as process:
        stopped_at(token, process)
        cluster.stop(workers)
        ended = end_of(process)
    assert ended.code == 75, ended.err
    assert "no worker came within 3 s (cluster.wait_s); start workers and run the same command again" in ended.err


class LastBreath:
    """A result that kills its worker when it is fetched."""

    def __reduce__(self) -> str:
        os._exit(1)


def last_breath(_: int) -> LastBreath:
    return LastBreath()


@pytest.mark.turns(5, 6)
def test_a_result_whose_worker_dies_before_it_was_fetched_is_not_waited_for_without_end(cluster: TlsCluster) -> None:
    section = Cluster(kind="address", address=cluster.address, tls=Tls(**cluster.tls), wait_s=60)
    cluster.start_worker("")
    cluster.wait_for_workers(1)
    with open_workers(section) as workers:
        with pytest.raises(WorkerLostError, match="went away or fell silent before its part of the round was done"):
            workers.together(last_breath, [1], workers.members())
        cluster.start_worker("")
        workers.wait_s = 8  # also for each answer of the scheduler
        with pytest.raises(TemporaryError, match="deadly: no worker came within 8 s"):
            workers.map(last_breath, [1], label="deadly")


def test_silence_is_counted_from_when_a_heartbeat_was_last_seen_to_change() -> None:
    presence = Presence(silent_s=30)

    def answering(now: float, **heartbeats: float) -> list[str]:
        return sorted(presence.answering({name: {"last_seen": seen} for name, seen in heartbeats.items()}, now))

    # Their clocks differ widely from ours and from each other: only changes count.
    assert answering(1000, a=5, b=9e9) == ["a", "b"]
    assert answering(1020, a=6, b=9e9) == ["a", "b"]
    assert answering(1031, a=7, b=9e9) == ["a"]
    assert answering(1032, a=8, b=9e9 + 1) == ["a", "b"]
    # If no one has looked for a long time, no worker counts as silent yet.
    assert answering(5000, a=9, b=9e9 + 2) == ["a", "b"]
    assert answering(5001, a=9) == ["a"]
    assert answering(5031, a=9, b=1) == ["b"]
