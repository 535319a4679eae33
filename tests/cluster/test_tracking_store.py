"""Tracking in MLflow's own SQLite store: complete curves, each point once, whoever is killed."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.tracking.delivery import Refused, connect, explain, open_experiment
from pipeline.tracking.empty_database import create_database
from pipeline.tracking.shipper import EXIT_DRAINED
from pipeline.tracking.spool import Spool, spool_state
from pipeline.tracking.tracker import Dataset, Tracker, sync
from tests.cluster.tracked import (
    DIGEST,
    all_runs,
    assert_each_once,
    client_of,
    only_spool,
    save_vectors,
    ship_here,
    steps_of,
    tracker_of,
    wait_for,
)

pytestmark = pytest.mark.filterwarnings("default")  # MLflow and SQLAlchemy warn about themselves at import


@pytest.mark.turns(5, 3, of="tracking")
def test_a_finished_run_shows_its_curve_params_dataset_and_files_in_mlflow(workdir: Path) -> None:
    matrix = save_vectors(workdir / "vectors")
    canary = "s3cret-canary"
    tracker = tracker_of(workdir)
    tracker.start(
        {"train.alpha": 0.05, "corpus.inputs": f"https://me:{canary}@host/corpus.txt?token={canary}"},
        {"w2v.version": "0.1.0"},
        Dataset("corpus", "f" * 64, f"https://me:{canary}@host/corpus.txt"),
    )
    for step in range(1, 41):
        tracker.log(step, {"train/loss": 5.0 / step, "train/alpha": 0.05 - 0.001 * step})
    tracker.log(41, {"train/loss": float("inf"), "train/alpha": 0.009})
    tracker.artifact(workdir / "vectors", "vectors")
    tracker.register("word2vec", workdir / "vectors")
    state = tracker.finish("FINISHED", timeout_s=150)

    assert state.complete, state.message
    client = client_of(workdir)
    (run,) = all_runs(client)
    assert run.info.run_id == state.run_id
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "test"
    curve = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in curve] == [(step, 5.0 / step) for step in range(1, 41)]
    assert run.data.tags["diverged"] == "train/loss is inf at step 41"
    assert run.data.params == {"train.alpha": "0.05", "corpus.inputs": "https://host/corpus.txt"}
    (dataset,) = run.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("corpus", "f" * 36)
    files = {item.path for item in client.list_artifacts(run.info.run_id, "vectors")}
    assert files == {"vectors/meta.json", "vectors/vectors.npy", "vectors/words.txt"}
    assert str(run.info.artifact_uri).startswith((workdir.parent / "mlartifacts").as_uri())

    import mlflow

    version = client.get_model_version_by_alias("word2vec", "challenger")
    assert version.run_id == state.run_id
    model = mlflow.pyfunc.load_model(version.source)
    answers = model.predict(["que\nen", "absent", "왕"], params={"ask": "vector"})
    expected = [matrix[2].astype(float).tolist(), [], matrix[3].astype(float).tolist()]
    assert [(answer["vector"], answer["known"]) for answer in answers] == list(zip(expected, [True, False, True], strict=True))
    written = [path.read_bytes() for path in workdir.parent.rglob("*") if path.is_file()]
    assert not any(canary.encode() in content for content in written)
    assert not list(workdir.parent.rglob("*.pkl"))

    again = tracker_of(workdir)
    again.start({"train.alpha": 0.05}, {"w2v.version": "0.1.0"})
    again.log(40, {"train/loss": 5.0 / 40})
    again.artifact(workdir / "vectors", "vectors")
    again.register("word2vec", workdir / "vectors")
    assert again.finish("FINISHED") == state
    assert again.process is None, "a run that repeats what is known must not even start a shipper"


@pytest.mark.turns(5, 3, of="tracking")
def test_a_shipper_made_ready_ships_what_comes_and_leaves_no_run_if_nothing_does(workdir: Path) -> None:
    idle = tracker_of(workdir)
    idle.make_ready()
    assert idle.finish("FAILED").run_id is None
    assert idle.process is not None
    assert idle.process.poll() is not None
    assert all_runs(client_of(workdir)) == []

    busy = tracker_of(workdir)
    busy.make_ready()
    busy.start({"train.alpha": 0.05}, {}, Dataset("corpus", DIGEST, "corpus.txt"))
    busy.log(1, {"train/loss": 2.0})
    assert busy.finish("FINISHED", timeout_s=150).complete
    assert [run.info.status for run in all_runs(client_of(workdir))] == ["FINISHED"]


def test_another_corpus_is_another_run_and_a_run_that_never_started_is_none(workdir: Path, told: Spool) -> None:
    def open_without_shipper() -> Tracker:
        tracker = tracker_of(workdir)
        tracker.ships = False
        return tracker

    tracker = open_without_shipper()
    tracker.start({"train.epochs": 5}, {"kind": "test"}, Dataset("corpus", "9" * 64, "corpus.txt"))
    tracker.log(1, {"train/loss": 0.5})
    tracker.writer.close()
    assert tracker.spool != told
    again = open_without_shipper()
    again.start({"train.epochs": 5}, {"kind": "test"}, Dataset("corpus", "9" * 64, "corpus.txt"))
    again.writer.close()
    assert again.spool == tracker.spool
    size = told.size()
    failed = tracker_of(workdir)
    assert failed.process is None
    ship_here(told)
    failed.finish("FAILED")
    assert told.size() == size
    ship_here(tracker.spool)
    client = client_of(workdir)
    assert {run.info.run_id for run in all_runs(client)} == {told.run_id(), tracker.spool.run_id()}
    assert_each_once(steps_of(client, str(told.run_id())), range(1, 31))
    assert_each_once(steps_of(client, str(tracker.spool.run_id())), range(1, 2))


_DRIVER = """
import sys, time
from pathlib import Path
from pipeline.config import Tracking
from pipeline.tracking.tracker import open_tracker
tracker = open_tracker(Tracking(), Path(sys.argv[1]), run_name="test", config_digest=sys.argv[2])
tracker.start({"train.epochs": 5}, {})
for step in range(1, 21):
    tracker.log(step, {"train/loss": 1 / step})
print("logged", flush=True)
time.sleep(600)
"""


@pytest.mark.turns(5, 4, of="tracking")
def test_a_killed_driver_leaves_its_points_and_its_rerun_continues_the_same_run(workdir: Path) -> None:
    driver = subprocess.Popen([sys.executable, "-c", _DRIVER, str(workdir), DIGEST], stdout=subprocess.PIPE)
    assert driver.stdout is not None
    with driver.stdout:
        assert driver.stdout.readline() == b"logged\n"
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    spool = only_spool(workdir)
    wait_for(lambda: spool.progress().offset == spool.size() and not spool.has_shipper(), 90)
    client = client_of(workdir)
    (run,) = all_runs(client)
    assert run.info.status == "KILLED", "the orphaned shipper delivers what is there and ends the run"
    assert_each_once(steps_of(client, run.info.run_id), range(1, 21))

    rerun = tracker_of(workdir)
    rerun.start({"train.epochs": 5}, {})
    assert rerun.process is None, "nothing new was said, so nothing was started"
    for step in range(11, 31):  # from the checkpoint of round 10
        rerun.log(step, {"train/loss": 1 / step})
    assert rerun.process is not None
    os.kill(rerun.process.pid, signal.SIGKILL)
    rerun.process.wait()
    state = rerun.finish("FINISHED", timeout_s=150)

    assert state.complete, state.message
    (run,) = all_runs(client)
    assert run.info.run_id == state.run_id
    assert run.info.status == "FINISHED"
    assert_each_once(steps_of(client, run.info.run_id), range(1, 31))


def test_shipping_everything_twice_doubles_nothing(workdir: Path, told: Spool) -> None:
    assert ship_here(told) == EXIT_DRAINED
    (told.directory / "progress.json").unlink()
    (told.directory / "run.json").unlink()
    assert ship_here(told) == EXIT_DRAINED
    client = client_of(workdir)
    (run,) = all_runs(client)
    assert_each_once(steps_of(client, run.info.run_id), range(1, 31))
    assert len(run.inputs.dataset_inputs) == 1


@pytest.mark.turns(5, 2, of="tracking")
def test_sync_delivers_what_was_left_over_but_leaves_a_spool_alone_that_is_being_shipped(workdir: Path, told: Spool) -> None:
    with open(told.lock, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        begun = time.monotonic()
        (state,) = sync(workdir)
        assert time.monotonic() - begun < 30, "it does not wait for the one that ships, which has 60 s"
    assert not state.complete
    assert "not all of the run has reached" in str(state.message)
    (state,) = sync(workdir)
    assert state.complete, state.message
    assert_each_once(steps_of(client_of(workdir), str(state.run_id)), range(1, 31))


def test_a_run_delivers_what_earlier_runs_of_the_workdir_left_over_too(workdir: Path, told: Spool) -> None:
    """The next night's text is other text, so nobody would come back to the spool of a night on which MLflow was away."""
    foreign = tracker_of(workdir, uri="http://127.0.0.1:9")
    foreign.ships = False
    foreign.start({}, {}, Dataset("corpus", DIGEST, "corpus.txt"))
    foreign.finish("FINISHED")
    next_night = tracker_of(workdir)
    next_night.start({"train.epochs": 5}, {}, Dataset("corpus", "9" * 64, "corpus.txt"))
    next_night.log(1, {"train/loss": 0.5})
    assert next_night.finish("FINISHED", timeout_s=150).complete
    assert spool_state(told).complete
    assert_each_once(steps_of(client_of(workdir), str(told.run_id())), range(1, 31))
    assert not spool_state(foreign.spool).complete, "it goes to another MLflow"


def test_a_run_deleted_in_mlflow_is_told_again_into_a_new_one(workdir: Path, told: Spool) -> None:
    assert ship_here(told) == EXIT_DRAINED
    client = client_of(workdir)
    first = told.run_id()
    client.delete_run(first)
    assert ship_here(told) == EXIT_DRAINED
    assert told.run_id() != first
    assert_each_once(steps_of(client, str(told.run_id())), range(1, 31))


def test_what_mlflow_will_never_take_is_counted_and_the_rest_arrives(workdir: Path, told: Spool) -> None:
    with open(told.events, "ab") as file:
        for event in (
            {"type": "artifact", "time": 1, "path": "gone.bin", "folder": ""},
            {"type": "metrics", "time": 1, "step": 1, "values": {"bad[name]": 1.0}},
            {"type": "metrics", "time": 1, "step": 31, "values": {"train/loss": 1.0}},
        ):
            file.write(json.dumps(event).encode() + b"\n")
    assert ship_here(told) == EXIT_DRAINED
    assert told.progress().skipped == 2
    assert_each_once(steps_of(client_of(workdir), str(told.run_id())), range(1, 32))
    (state,) = sync(workdir)
    assert not state.complete
    assert "2 events were refused by MLflow" in str(state.message)


def test_two_processes_that_make_one_new_database_at_a_time_both_succeed(
    two_creations: tuple[Path, list[list[Any]]],
) -> None:
    path, results = two_creations
    assert [status for status, _ in results] == [0, 0], results
    assert [file.name for file in sorted(path.parent.iterdir())] == ["mlflow.db", "mlflow.db.lock"]


def test_a_database_that_another_process_is_making_is_waited_for_and_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    with open(tmp_path / "mlflow.db.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = threading.Thread(target=create_database, args=(path,))
        waiting.start()
        time.sleep(0.3)
        path.write_bytes(b"theirs")
    waiting.join()
    assert path.read_bytes() == b"theirs"


def test_a_deleted_experiment_is_refused_with_what_to_do(workdir: Path, told: Spool) -> None:
    target = told.target()
    assert target is not None
    client = connect(target)
    client.delete_experiment(open_experiment(client, target))
    with pytest.raises(Refused, match=r"experiment 'word2vec' is deleted in MLflow; restore it"):
        open_experiment(client, target)
    assert isinstance(explain(Refused("x"), target.uri), Refused)


@pytest.mark.turns(5, 4, of="tracking")
def test_a_shipper_gets_ready_without_what_only_a_whole_mlflow_needs(tmp_path: Path) -> None:
    code = """
import sys
from pipeline.tracking import delivery, shipper, spool
shipper.leave_out_unneeded()
delivery.make_ready(spool.Target(sys.argv[1], "experiment", "run", "0", "0", 0, None))
names = ("mlflow.store.tracking.sqlalchemy_store", *shipper.LEFT_OUT, "fastapi.routing", "starlette")
print(*(name for name in names if sys.modules.get(name)))
"""
    command = [sys.executable, "-P", "-c", code, f"sqlite:///{tmp_path}/mlflow.db"]
    assert subprocess.check_output(command, text=True).split() == ["mlflow.store.tracking.sqlalchemy_store"]


@pytest.mark.turns(5, 4, of="tracking")
def test_an_mlflow_that_cannot_do_without_what_was_left_out_is_started_again_whole(workdir: Path) -> None:
    tracker = tracker_of(workdir)
    tracker.ships = False
    tracker.start({"train.alpha": 0.05}, {}, Dataset("corpus", DIGEST, "corpus.txt"))
    tracker.log(1, {"train/loss": 5.0})
    tracker.writer.close()
    code = """
import sys
from pipeline.tracking import shipper
shipper.LEFT_OUT = (*shipper.LEFT_OUT, "mlflow.gateway")
shipper.leave_out_unneeded()
sys.exit(shipper.main())
"""
    arguments = [str(only_spool(workdir).directory), "--driver-pid", str(os.getpid()), "--linger-s", "10"]
    done = subprocess.run([sys.executable, "-P", "-c", code, *arguments], stdin=subprocess.DEVNULL, timeout=200, check=False)
    assert done.returncode == EXIT_DRAINED
    client = client_of(workdir)
    (run,) = all_runs(client)
    assert steps_of(client, run.info.run_id) == [1]


def test_a_run_during_which_the_clock_was_set_back_ends_no_earlier_than_it_began(workdir: Path) -> None:
    tracker = tracker_of(workdir)
    tracker.ships = False
    tracker.start({"train.epochs": 5}, {})
    tracker.writer.append({"type": "finish", "time": 1_000, "status": "FINISHED"}, 0.0)
    tracker.writer.close()
    assert ship_here(tracker.spool) == 0
    run = client_of(workdir).get_run(str(tracker.spool.run_id()))
    assert run.info.status == "FINISHED"
    assert run.info.end_time == run.info.start_time
