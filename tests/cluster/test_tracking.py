"""Tracking against the real thing: MLflow's own SQLite store, a real `mlflow server`, real kills.

Two stubs appear, and both stand for a broken server: one that accepts and never answers, one that answers an error.
"""

from __future__ import annotations

import datetime
import fcntl
import http.server
import json
import logging
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pipeline.config import Tracking
from pipeline.delivery import Refused, connect, create_database, explain, open_experiment
from pipeline.errors import PermissionDeniedError, ServiceError
from pipeline.shipping import EXIT_DRAINED, EXIT_LEFT_OVER, EXIT_REFUSED, Owner, Shipper, client_environment
from pipeline.spool import Spool, spools
from pipeline.tracking import FLUSH_TIMEOUT_S, Dataset, Tracker, open_tracker, serve_ui, sync
from w2v_core.vectors import WordVectors

pytestmark = pytest.mark.filterwarnings("default")  # MLflow and SQLAlchemy warn about themselves at import

DIGEST = "0123456789abcdef" * 4


_CREATE = "import sys, pathlib; from pipeline.delivery import create_database as c; c(pathlib.Path(sys.argv[1]))"


@pytest.fixture(scope="session")
def two_creations(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[int, bytes]]]:
    """(database, (exit status, stderr) of each of the two processes that made it at the same time)."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    command = [sys.executable, "-W", "ignore", "-c", _CREATE, str(path)]
    environment = os.environ | client_environment(dict(os.environ))
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, env=environment) for _ in range(2)]
    results = [(process.communicate()[1], process.returncode) for process in both]
    return path, [(status, stderr) for stderr, status in results]


@pytest.fixture(scope="session")
def migrated_database(two_creations: tuple[Path, list[tuple[int, bytes]]]) -> Path:
    """An empty MLflow database: migrating one takes seconds, copying it does not."""
    return two_creations[0]


@pytest.fixture
def workdir(tmp_path: Path, migrated_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workdir with a ready database beside it, where the default URI looks."""
    for name, value in client_environment(dict(os.environ)).items():
        monkeypatch.setenv(name, value)
    shutil.copy(migrated_database, tmp_path / "mlflow.db")
    directory = tmp_path / "run"
    directory.mkdir()
    return directory


def client_of(workdir: Path) -> Any:
    from mlflow import MlflowClient

    uri = f"sqlite:///{workdir.parent / 'mlflow.db'}"
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def all_runs(client: Any) -> list[Any]:
    from mlflow.entities import ViewType

    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(ids, run_view_type=ViewType.ALL))


def steps_of(client: Any, run_id: str, name: str = "train/loss") -> list[int]:
    return [point.step for point in client.get_metric_history(run_id, name)]


def assert_each_once(found: list[int], expected: range) -> None:
    counts = Counter(found)
    doubled = sorted(step for step, count in counts.items() if count > 1)
    missing = sorted(set(expected) - set(counts))
    if doubled or missing or set(counts) - set(expected):
        raise AssertionError(f"missing {missing}, doubled {doubled}, unexpected {sorted(set(counts) - set(expected))}")


def wait_for(condition: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not reached in {timeout_s} s")
        time.sleep(0.05)


def tracker_of(workdir: Path, uri: str | None = None, required: bool = False) -> Tracker:
    return open_tracker(
        Tracking(uri=uri, experiment="word2vec", required=required), workdir, run_name="test", config_digest=DIGEST
    )


def ship_here(spool: Spool, linger_s: float = 0.0) -> int:
    """Drains a spool in this process, as the shipper does after its driver is gone."""
    target = spool.target()
    assert target is not None
    return Shipper(spool, target, Owner(os.getppid(), released=True), linger_s, spool.progress()).work()


def only_spool(workdir: Path) -> Spool:
    (spool,) = spools(workdir)
    return spool


def save_vectors(directory: Path) -> npt.NDArray[np.float32]:
    matrix = np.asarray(np.arange(12).reshape(4, 3) / 7, dtype=np.float32)
    WordVectors(["the", "king", "que\nen", "왕"], matrix).save(directory)
    return matrix


# ── the SQLite store ─────────────────────────────────────────────────────────────────────────────────────────────────


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
    state = tracker.finish("FINISHED", timeout_s=60)

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
    assert model.predict(["que\nen", "absent", "왕"]) == [matrix[2].astype(float).tolist(), [], matrix[3].astype(float).tolist()]
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


def test_another_corpus_is_another_run_and_a_run_that_never_started_is_none(workdir: Path, told: Spool) -> None:
    def open_without_shipper() -> Tracker:
        tracker = tracker_of(workdir)
        tracker._finished = True
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
from pipeline.tracking import open_tracker
tracker = open_tracker(Tracking(), Path(sys.argv[1]), run_name="test", config_digest=sys.argv[2])
tracker.start({"train.epochs": 5}, {})
for step in range(1, 21):
    tracker.log(step, {"train/loss": 1 / step})
print("logged", flush=True)
time.sleep(600)
"""


def test_a_killed_driver_leaves_its_points_and_its_rerun_continues_the_same_run(workdir: Path) -> None:
    driver = subprocess.Popen([sys.executable, "-c", _DRIVER, str(workdir), DIGEST], stdout=subprocess.PIPE)
    assert driver.stdout is not None
    with driver.stdout:
        assert driver.stdout.readline() == b"logged\n"
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    spool = only_spool(workdir)
    wait_for(lambda: spool.progress().offset == spool.size() and not spool.has_shipper(), 40)
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
    state = rerun.finish("FINISHED", timeout_s=60)

    assert state.complete, state.message
    (run,) = all_runs(client)
    assert run.info.run_id == state.run_id
    assert run.info.status == "FINISHED"
    assert_each_once(steps_of(client, run.info.run_id), range(1, 31))


@pytest.fixture
def told(workdir: Path, migrated_database: Path) -> Spool:
    """A spool with 30 points that no shipper has touched."""
    tracker = tracker_of(workdir)
    tracker._finished = True  # keeps the shipper from being started: these tests ship by hand
    tracker.start({"train.epochs": 5}, {"kind": "test"}, Dataset("corpus", DIGEST, "corpus.txt"))
    for step in range(1, 31):
        tracker.log(step, {"train/loss": 1 / step})
    tracker.writer.close()
    return tracker.spool


def test_shipping_everything_twice_doubles_nothing(workdir: Path, told: Spool) -> None:
    assert ship_here(told) == EXIT_DRAINED
    (told.directory / "progress.json").unlink()
    (told.directory / "run.json").unlink()
    assert ship_here(told) == EXIT_DRAINED
    client = client_of(workdir)
    (run,) = all_runs(client)
    assert_each_once(steps_of(client, run.info.run_id), range(1, 31))
    assert len(run.inputs.dataset_inputs) == 1


def test_sync_delivers_what_was_left_over_but_leaves_a_spool_alone_that_is_being_shipped(workdir: Path, told: Spool) -> None:
    with open(told.lock, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        begun = time.monotonic()
        (state,) = sync(workdir)
        assert time.monotonic() - begun < 1
    assert not state.complete
    assert "are still to be delivered" in str(state.message)
    (state,) = sync(workdir)
    assert state.complete, state.message
    assert_each_once(steps_of(client_of(workdir), str(state.run_id)), range(1, 31))


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
    two_creations: tuple[Path, list[tuple[int, bytes]]],
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


# ── servers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_server(root: Path, port: int) -> subprocess.Popen[bytes]:
    """A real MLflow server on loopback over the database in `root`, in a process group of its own."""
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{root / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(root / "served"), "--host", "127.0.0.1", "--port", str(port), "-w", "1"]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    log = open(root / f"server-{time.monotonic_ns()}.log", "wb")  # noqa: SIM115 - handed to the process
    with log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)


def kill_server(server: subprocess.Popen[bytes]) -> None:
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()


@pytest.mark.slow
def test_no_point_is_missing_or_doubled_after_a_server_that_came_late_and_was_killed_in_the_middle(
    workdir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    tracker = tracker_of(workdir, f"http://127.0.0.1:{port}")
    slowest_s = 0.0

    def log(steps: range) -> None:
        nonlocal slowest_s
        for step in steps:
            begun = time.monotonic()
            tracker.log(step, {"train/loss": 1 / step})
            slowest_s = max(slowest_s, time.monotonic() - begun)
            time.sleep(0.002)

    tracker.start({"train.epochs": 5}, {}, Dataset("corpus", DIGEST, "corpus.txt"))
    log(range(1, 101))
    server = start_server(workdir.parent, port)
    try:
        wait_for(lambda: tracker.spool.progress().state == "retrying" or tracker.spool.progress().offset > 0, 40)
        tracker._watched_at = 0.0
        log(range(101, 201))
        wait_for(lambda: tracker.spool.progress().offset > 0, 60)
        log(range(201, 301))
        wait_for(lambda: tracker.spool.progress().offset == tracker.spool.size(), 20)
        log(range(301, 1001))
        kill_server(server)
        log(range(1001, 1501))
        server = start_server(workdir.parent, port)
        log(range(1501, 2001))
        tracker.artifact(workdir / "tracking", "late")
        state = tracker.finish("FINISHED", timeout_s=60)
        assert state.complete, state.message
    finally:
        kill_server(server)
    client = client_of(workdir)
    (run,) = all_runs(client)
    assert (run.info.run_id, run.info.status) == (state.run_id, "FINISHED")
    assert_each_once([point.step for point in client.get_metric_history(run.info.run_id, "train/loss")], range(1, 2001))
    assert slowest_s < 0.5
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) <= 1


def test_a_server_that_never_answers_delays_the_end_by_the_timeout_and_no_more(workdir: Path) -> None:
    assert FLUSH_TIMEOUT_S == 15
    with socket.socket() as hanging:
        hanging.bind(("127.0.0.1", 0))
        hanging.listen(64)
        uri = f"http://127.0.0.1:{hanging.getsockname()[1]}"
        begun = time.monotonic()
        tracker = tracker_of(workdir, uri)
        tracker.start({"train.epochs": 5}, {})
        for step in range(1, 501):
            tracker.log(step, {"train/loss": 1 / step})
        assert time.monotonic() - begun < 2
        begun = time.monotonic()
        state = tracker.finish("FINISHED", timeout_s=6)
        assert time.monotonic() - begun < 8
        assert not state.complete
        assert state.run_id is None
        assert tracker.process is not None
        assert tracker.process.poll() is not None, "no shipper is left behind with a server that does not answer"


_UI = "import sys; from pipeline.ui import serve_ui; sys.exit(serve_ui(sys.argv[1]))"


@pytest.mark.slow
def test_the_ui_answers_this_machine_only_and_ctrl_c_leaves_no_process(workdir: Path) -> None:
    uri = f"sqlite:///{workdir.parent / 'mlflow.db'}"
    process = subprocess.Popen([sys.executable, "-u", "-c", _UI, uri], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        line = process.stdout.readline()
        address = line.split()[1]
        assert address.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(f"{address}/health") as answer:
            assert answer.read() == b"OK"
        foreign = urllib.request.Request(f"{address}/ajax-api/2.0/mlflow/experiments/search?max_results=1")
        foreign.add_header("Host", "evil.example")
        with pytest.raises(urllib.error.HTTPError, match="403") as caught:
            urllib.request.urlopen(foreign)
        caught.value.close()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=5).close()


def test_the_ui_without_a_store_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="no tracked runs yet; start one with `w2v run`"):
        serve_ui(f"sqlite:///{tmp_path / 'mlflow.db'}")


class _Answers(http.server.BaseHTTPRequestHandler):
    status = 401

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(self.status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"no")

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def answering(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a server that answers everything with one status."""
    handler = type("Answers", (_Answers,), {"status": request.param})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("answering", [401], indirect=True)
def test_wrong_credentials_are_told_once_and_the_run_goes_on(
    workdir: Path, answering: str, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = tracker_of(workdir, answering)
    tracker.start({"train.epochs": 5}, {})
    wait_for(lambda: tracker.spool.progress().state == "refused", 40)
    for step in range(1, 4):
        tracker._watched_at = 0.0
        tracker.log(step, {"train/loss": 1 / step})
    state = tracker.finish("FINISHED")
    assert not state.complete
    assert "refuses these credentials" in str(state.message)
    assert "MLFLOW_TRACKING_USERNAME" in str(state.message)
    (record,) = caplog.records
    assert "the run goes on" in record.getMessage()


@pytest.mark.parametrize("answering", [403], indirect=True)
def test_required_tracking_with_wrong_credentials_stops_before_any_work(workdir: Path, answering: str) -> None:
    with pytest.raises(PermissionDeniedError, match=r"refuses these credentials.*nothing was started") as caught:
        tracker_of(workdir, answering, required=True)
    assert caught.value.exit_code == 77


def test_required_tracking_that_cannot_be_reached_stops_before_any_work(workdir: Path) -> None:
    with pytest.raises(ServiceError, match=r"does not answer.*nothing was started") as caught:
        tracker_of(workdir, f"http://127.0.0.1:{free_port()}", required=True)
    assert caught.value.exit_code == 69


@pytest.mark.parametrize("answering", [404, 429, 500, 503, 507], indirect=True)
def test_errors_a_server_recovers_from_are_tried_again(workdir: Path, answering: str) -> None:
    tracker = tracker_of(workdir, answering)
    tracker._finished = True
    tracker.start({"train.epochs": 5}, {})
    tracker.writer.close()
    assert ship_here(tracker.spool, linger_s=-1) == EXIT_LEFT_OVER
    assert tracker.spool.progress().state == "retrying"
    assert tracker.spool.progress().offset == 0


def test_a_server_whose_certificate_is_not_trusted_is_refused_with_what_to_do(workdir: Path, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*write_certificate(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        tracker = tracker_of(workdir, f"https://127.0.0.1:{server.server_port}")
        tracker._finished = True
        tracker.start({"train.epochs": 5}, {})
        tracker.writer.close()
        try:
            assert ship_here(tracker.spool) == EXIT_REFUSED
        finally:
            server.shutdown()
            thread.join()
    assert tracker.spool.progress().denied
    assert "TLS certificate is not trusted; set MLFLOW_TRACKING_SERVER_CERT_PATH" in str(tracker.state().message)


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for localhost and its key, which nobody trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now).not_valid_after(now + datetime.timedelta(hours=1))
    pem = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(pem))
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(private)
    return folder / "cert.pem", folder / "key.pem"


def test_a_deleted_experiment_is_refused_with_what_to_do(workdir: Path, told: Spool) -> None:
    target = told.target()
    assert target is not None
    client = connect(target)
    client.delete_experiment(open_experiment(client, target))
    with pytest.raises(Refused, match=r"experiment 'word2vec' is deleted in MLflow; restore it"):
        open_experiment(client, target)
    assert isinstance(explain(Refused("x"), target.uri), Refused)
