"""A run is a guest on a shared scheduler: it shares, leaves others alone, and leaves nothing behind when it is over."""

from __future__ import annotations

import ctypes
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.cluster.guest import TRAINING, Guest, arrival_plugin, departure_plugin
from pipeline.cluster.opening import open_workers
from pipeline.cluster.presence import registered
from pipeline.cluster.state import state_of
from pipeline.config import Cluster, Tls
from pipeline.errors import ServiceError, TemporaryError
from pipeline.training.lanes import HeldLanes
from tests.cluster.disturbed import Bench, end_of, stopped_at, wait_until
from tests.cluster.shared import guests, share
from tests.cluster.tls_cluster import TlsCluster

pytestmark = pytest.mark.slow
FORGOTTEN_S = 25
"""How long after the death of a driver, at most, an idle worker still holds something of its run. Dask itself would take back its
lease after 30 s."""


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.turns(10, 12)
def test_two_runs_and_somebody_elses_work_on_one_scheduler_end_as_if_alone(
    cluster: TlsCluster, bench: Bench, threads: int
) -> None:
    for _ in range(2):
        cluster.start_worker("", threads=threads)
    cluster.wait_for_workers(2)
    found = share(cluster, bench, [f"guest-{threads}-{name}" for name in "ab"], [bench.seed] * 2)
    assert found.digests == [bench.digest] * 2
    assert found.lost == []
    assert found.left == [], "nothing of the runs is left on the scheduler"


def hold_the_interpreter(seconds: int) -> int:
    """So busy that no heartbeat gets through: the worker looks frozen."""
    import os

    ctypes.PyDLL(None).sleep(seconds)
    return os.getpid()


@pytest.mark.turns(10, 8)
def test_a_worker_that_is_silent_over_somebody_elses_task_is_left_alone_and_its_share_done_by_others(
    cluster: TlsCluster, bench: Bench
) -> None:
    started = [cluster.start_worker("a"), cluster.start_worker("b")]
    cluster.wait_for_workers(2)
    config = bench.config_file("silent", before="tokenize", cluster=cluster.section | {"silent_s": 1})
    with cluster.client() as stranger:
        (busy, *_) = sorted(registered(stranger))
        kept = stranger.submit(str.upper, "kept", workers=[busy])
        assert kept.result() == "KEPT"
        task = stranger.submit(hold_the_interpreter, 12, workers=[busy], pure=False)
        ended = bench.finish(config)
        assert ended.summary["vectors"]["sha256"] == bench.digest
        assert task.result(timeout=60) in [process.pid for process in started], "it was not restarted"
        assert kept.result() == "KEPT"
    assert all(process.poll() is None for process in started)


@pytest.mark.turns(10, 10)
def test_workers_forget_a_run_whose_driver_was_killed_and_the_next_may_train_at_once(
    cluster: TlsCluster, bench: Bench, tmp_path: Path
) -> None:
    for _ in range(2):
        cluster.start_worker("", threads=2)
    cluster.wait_for_workers(2)
    config = bench.config_file("orphaned", before="train", cluster=cluster.section)
    with bench.w2v(config, failpoint=f"round:1.0=kill,{tmp_path / 'token'}") as driver:
        driver.communicate()
    assert driver.returncode == -signal.SIGKILL
    began = time.monotonic()
    with cluster.client() as client:
        wait_until(lambda: guests(client) == [] and not any(client.run(_holds_lanes).values()), "the run to be forgotten")
        wait_until(lambda: client.run_on_scheduler(_trainings) == 0, "its lease to be taken back")
    assert time.monotonic() - began < FORGOTTEN_S
    bench.assert_same(config)


@pytest.mark.turns(10, 50)
def test_a_driver_that_was_frozen_until_another_run_trained_waits_for_its_turn_anew(
    cluster: TlsCluster, bench: Bench, tmp_path: Path
) -> None:
    for _ in range(2):
        cluster.start_worker("")
    cluster.wait_for_workers(2)
    configs = [bench.config_file(f"turn-{name}", before="train", cluster=cluster.section) for name in "ab"]
    tokens = [tmp_path / name for name in "ab"]
    with bench.w2v(configs[0], failpoint=f"round:1.0=stop,{tokens[0]}") as first:
        frozen = stopped_at(tokens[0], first)
        with bench.w2v(configs[1], failpoint=f"round:1.0=stop,{tokens[1]}") as second:
            training = stopped_at(tokens[1], second)
            frozen.resume()
            time.sleep(3)
            training.resume()
            ended = [end_of(first), end_of(second)]
    assert [one.summary["vectors"]["sha256"] for one in ended] == [bench.digest] * 2
    assert "heard nothing of this run for so long that another may train now" in ended[0].err
    assert "another may train now" not in ended[1].err


@pytest.mark.turns(10, 30)
def test_a_run_whose_scheduler_was_started_anew_meanwhile_says_so_and_continues_when_it_is_run_again(
    bench: Bench, tmp_path: Path
) -> None:
    cluster = TlsCluster(tmp_path)
    try:
        for _ in range(2):
            cluster.start_worker("")
        cluster.wait_for_workers(2)
        config = bench.config_file("anew", before="train", cluster=cluster.section)
        with bench.w2v(config, failpoint=f"round:1.0=stop,{tmp_path / 'token'}") as driver:
            frozen = stopped_at(tmp_path / "token", driver)
            cluster.restart_scheduler()
            for _ in range(2):
                cluster.start_worker("")
            frozen.resume()
            ended = end_of(driver)
        assert ended.code == TemporaryError.exit_code, ended.err
        assert "run the same command again, it continues" in ended.err
        bench.assert_continues(config)
    finally:
        cluster.stop()


def _trainings(dask_scheduler: Any) -> int:
    return int(dask_scheduler.extensions["semaphores"].get_value(TRAINING))


def _holds_lanes(dask_worker: Any) -> bool:
    return state_of(dask_worker).of(HeldLanes).group is not None


@pytest.fixture
def other(tmp_path: Path) -> dict[str, str]:
    """The environment of a worker that has another version of this program."""
    root = Path(__file__).parents[2]
    for package in ("pipeline", "w2v_core"):
        shutil.copytree(root / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "pipeline" / "errors.py").open("a") as file:
        file.write("# another version\n")
    return {"PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": "1"}


@pytest.mark.turns(5, 6)
def test_a_late_worker_of_another_version_gets_no_work_and_is_named(
    cluster: TlsCluster, bench: Bench, other: dict[str, str]
) -> None:
    notes: list[str] = []
    section = Cluster(kind="address", address=cluster.address, tls=Tls(**cluster.tls), wait_s=60)
    with open_workers(section, on_note=notes.append) as workers:
        cluster.start_worker("", **other)
        cluster.start_worker("")
        cluster.wait_for_workers(2)
        assert bench.train("late", workers) == bench.digest
        assert len(workers.members()) == 1
    (note,) = notes
    assert note.startswith("left out 1 worker that cannot take part: tls://127.0.0.1:")
    assert "has other source files of this program" in note


@pytest.mark.turns(5, 6)
def test_a_run_whose_only_workers_came_late_and_cannot_take_part_names_them(cluster: TlsCluster, other: dict[str, str]) -> None:
    notes: list[str] = []
    section = Cluster(kind="address", address=cluster.address, tls=Tls(**cluster.tls), wait_s=60)
    with open_workers(section, on_note=notes.append) as workers:
        cluster.start_worker("", **other)
        cluster.wait_for_workers(1)
        workers.wait_s = 2
        named = r"upper: no worker there can take part \(1 worker\): tls://\S+ has other source files of this program"
        with pytest.raises(ServiceError, match=named):
            workers.map(str.upper, ["words"], label="upper")
    assert [note.partition(":")[0] for note in notes] == ["left out 1 worker that cannot take part"]


def without(folder: Path) -> list[str]:
    """The beginning of the command for a worker that sees another, empty folder there."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("no mount namespace may be made here (unshare -m)")
    return ["unshare", "-m", "sh", "-c", f'mount -t tmpfs none "{folder}" && exec "$@"', "sh"]


@pytest.mark.turns(5, 7)
def test_a_worker_that_does_not_see_the_corpus_is_refused_by_name_before_it_gets_work_and_may_train(
    cluster: TlsCluster, bench: Bench
) -> None:
    section = cluster.section | {"wait_s": 60}
    cluster.start_worker("", through=without(bench.directory / "corpus"))
    cluster.wait_for_workers(1)
    refused = bench.finish(bench.config_file("no-corpus", cluster=section))
    named = r"1 of the workers cannot take part: tls://\S+ cannot read \S+ of the corpus \(No such file or directory\)"
    assert refused.code == 69
    assert re.search(named, refused.err), refused.err
    bench.assert_same(bench.config_file("tokenized", before="vocab", cluster=section))


@pytest.mark.turns(5, 7)
def test_a_late_worker_that_does_not_see_the_corpus_is_left_out_and_named(cluster: TlsCluster, bench: Bench) -> None:
    config = bench.config_file("late-blind", cluster=cluster.section | {"wait_s": 60})
    hidden = without(bench.directory / "corpus")
    with bench.w2v(config) as driver, cluster.client() as client:
        wait_until(lambda: guests(client) != [], "the run to wait for workers")
        cluster.start_worker("", through=hidden)
        cluster.start_worker("")
        ended = end_of(driver)
    assert ended.summary["vectors"]["sha256"] == bench.digest
    (note,) = [note for note in ended.summary["notes"] if note.startswith("left out")]
    assert re.search(r"left out 1 worker that cannot take part: tls://\S+ cannot read \S+ of the corpus", note)


@pytest.mark.turns(5, 7)
def test_a_worker_that_is_busy_with_somebody_elses_task_is_not_waited_for(
    cluster: TlsCluster, bench: Bench, tmp_path: Path
) -> None:
    cluster.start_worker("a")
    cluster.start_worker("b")
    cluster.wait_for_workers(2)
    config, released = bench.config_file("busy", before="train", cluster=cluster.section), tmp_path / "released"
    with cluster.client() as stranger:
        (busy, *_) = sorted(registered(stranger))
        task = stranger.submit(until_there, str(released), workers=[busy], pure=False)
        summary = bench.assert_same(config)
        assert not task.done()
        released.touch()
        assert task.result(timeout=60) == "done"
    assert f"{busy} is busy with others' tasks; the round begins without it, and it joins a later one" in summary["notes"]


def until_there(path: str) -> str:
    import time
    from pathlib import Path

    while not Path(path).exists():
        time.sleep(0.05)
    return "done"


@pytest.mark.turns(5, 5)
def test_a_worker_that_does_not_see_the_workdir_is_refused_by_name(cluster: TlsCluster, bench: Bench, tmp_path: Path) -> None:
    cluster.start_worker("", through=without(tmp_path))
    cluster.wait_for_workers(1)
    section = Cluster(kind="address", address=cluster.address, tls=Tls(**cluster.tls), wait_s=60)
    with (
        pytest.raises(
            ServiceError, match=r"1 of the workers cannot take part: tls://\S+ does not see what the driver wrote to .*workdir"
        ),
        open_workers(section, shared=tmp_path),
    ):
        pass


def test_schedulers_and_workers_without_this_program_can_load_what_runs_give_to_them() -> None:
    import cloudpickle

    guest = Guest("run", "0123456789ab", None)
    plugins = cloudpickle.dumps([arrival_plugin(guest, []), departure_plugin(guest, "client")])
    code = (
        "import sys, pickle; sys.modules['pipeline'] = sys.modules['w2v_core'] = None\n"
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name in ('pipeline', 'w2v_core') else find(name, *a)\n"
        "arrival, departure = pickle.load(sys.stdin.buffer)\n"
        "print(departure.name, arrival.why_not())"
    )
    done = subprocess.run([sys.executable, "-c", code], input=plugins, capture_output=True, check=True)
    refusal = "has other source files of this program (none) than the driver (0123456789ab)"
    assert done.stdout.decode().strip() == f"{guest.departure} {refusal}"
    assert pickle.loads(plugins)[0].name == "w2v-run"


@pytest.mark.turns(5, 7)
def test_paused_workers_are_waited_for_as_long_as_for_none_and_a_run_goes_on_without_them(
    cluster: TlsCluster, bench: Bench
) -> None:
    # The share of its memory at which a worker pauses: less than an idle worker uses.
    cluster.start_worker("a", DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE="0.0001")
    cluster.wait_for_workers(1)
    with cluster.client() as client:
        wait_until(lambda: _states(client) == ["paused"], "the worker to pause")
    section = Cluster(kind="address", address=cluster.address, tls=Tls(**cluster.tls), wait_s=60)
    with open_workers(section) as workers:
        workers.wait_s = 2
        with pytest.raises(TemporaryError, match=r"1 worker is there, paused because its memory is full \(tls://"):
            workers.map(str.upper, ["words"], label="upper")
        with pytest.raises(TemporaryError, match=r"looking for workers: 1 worker is there, paused"):
            workers.members()
    cluster.start_worker("b")
    with cluster.client() as client:
        wait_until(lambda: sorted(_states(client)) == ["paused", "running"], "another worker to come")
    bench.assert_same(bench.config_file("paused", before="shards", cluster=cluster.section))


def _states(client: Any) -> list[str]:
    return [worker["status"] for worker in registered(client).values()]
