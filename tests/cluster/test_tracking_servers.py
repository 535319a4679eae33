"""Tracking to servers: a real `mlflow server` that starts late and is killed, and servers that hang or refuse.

There are two stubs, both for broken servers: one accepts connections and never answers, the other answers with errors.
"""

from __future__ import annotations

import base64
import datetime
import http.server
import logging
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pipeline.errors import PermissionDeniedError, ServiceError
from pipeline.tracking.delivery import make_ready
from pipeline.tracking.shipper import ALONE_S, EXIT_LEFT_OVER, EXIT_REFUSED, FIRST_BACKOFF_S, REQUEST_TIMEOUT_S, Owner, Shipper
from pipeline.tracking.spool import Delivered
from pipeline.tracking.tracker import FLUSH_TIMEOUT_S, Dataset, serve_ui
from tests.cluster.tracked import DIGEST, all_runs, assert_each_once, client_of, ship_here, tracker_of, wait_for
from tests.exposure import beyond_loopback, listening, shown_by_ps
from tests.ports import free_port

pytestmark = pytest.mark.filterwarnings("default")  # MLflow and SQLAlchemy warn about themselves at import


def start_server(root: Path, port: int, host: str = "127.0.0.1", through: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    """A real MLflow server on the database in `root`, in a process group of its own. Its command begins with `through`."""
    command = [*through, sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{root / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(root / "served"), "--host", host, "--port", str(port), "-w", "1"]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    log = open(root / f"server-{time.monotonic_ns()}.log", "wb")  # noqa: SIM115 - handed to the process
    with log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)


def kill_server(server: subprocess.Popen[bytes]) -> None:
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()


@pytest.mark.slow
@pytest.mark.turns(10, 42, of="tracking")
def test_no_point_is_missing_or_doubled_after_a_server_that_came_late_and_was_killed_in_the_middle(
    workdir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    tracker = tracker_of(workdir, f"http://127.0.0.1:{port}")
    tracker.linger_s = 60.0
    seconds: list[float] = []

    def log(steps: range) -> None:
        for step in steps:
            begun = time.monotonic()
            tracker.log(step, {"train/loss": 1 / step})
            seconds.append(time.monotonic() - begun)
            time.sleep(0.002)

    tracker.start({"train.epochs": 5}, {}, Dataset("corpus", DIGEST, "corpus.txt"))
    log(range(1, 101))
    server = start_server(workdir.parent, port)
    try:
        wait_for(lambda: tracker.spool.progress().state == "retrying" or tracker.spool.progress().offset > 0, 90)
        tracker.watch_every_s = 0.0
        log(range(101, 201))
        wait_for(lambda: tracker.spool.progress().offset > 0, 90)
        log(range(201, 301))
        wait_for(lambda: tracker.spool.progress().offset == tracker.spool.size(), 90)
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
    seconds.sort()
    assert seconds[len(seconds) * 99 // 100] < 0.5
    assert seconds[-1] < REQUEST_TIMEOUT_S, "none waits for an answer, although a busy machine holds up one or another"
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) <= 1


@pytest.mark.turns(3, 1.5, of="tracking")
def test_a_server_that_never_answers_delays_the_end_by_the_timeout_and_no_more(workdir: Path) -> None:
    assert FLUSH_TIMEOUT_S <= 10, "a run may be 15 s slower in all"
    with socket.socket() as hanging:
        hanging.bind(("127.0.0.1", 0))
        hanging.listen(64)
        uri = f"http://127.0.0.1:{hanging.getsockname()[1]}"
        begun = time.monotonic()
        tracker = tracker_of(workdir, uri)
        tracker.linger_s = 90.0  # what it would take if nobody ended it
        tracker.start({"train.epochs": 5}, {})
        for step in range(1, 501):
            tracker.log(step, {"train/loss": 1 / step})
        assert time.monotonic() - begun < REQUEST_TIMEOUT_S
        begun = time.monotonic()
        state = tracker.finish("FINISHED", timeout_s=6)
        assert time.monotonic() - begun < 30
        assert not state.complete
        assert state.run_id is None
        assert tracker.process is not None
        assert tracker.process.poll() is not None, "no shipper is left behind with a server that does not answer"


def test_a_server_that_was_away_all_along_gets_one_more_try_once_the_run_is_over(workdir: Path) -> None:
    tracker = tracker_of(workdir, f"http://127.0.0.1:{free_port()}")
    tracker.ships = False
    tracker.start({"train.epochs": 5}, {})
    tracker.writer.close()
    target = tracker.spool.target()
    assert target is not None
    make_ready(target)
    over = Owner(os.getppid(), released=True)
    for away_s, paused in ((FLUSH_TIMEOUT_S + 1, False), (FLUSH_TIMEOUT_S - 2, True)):
        since = time.monotonic() - away_s
        shipper = Shipper(tracker.spool, target, over, FLUSH_TIMEOUT_S, tracker.spool.progress(), success_at=since)
        assert shipper.work() == EXIT_LEFT_OVER
        assert (shipper.backoff_s > FIRST_BACKOFF_S) == paused, "what was away for less is tried until it is as much"
        assert FLUSH_TIMEOUT_S < time.monotonic() - since < FLUSH_TIMEOUT_S + 10
    assert "does not answer" in str(tracker.state().message)
    assert "the next run or `w2v sync` delivers the rest" in str(tracker.state().message)


def test_a_shipper_that_nobody_waits_for_is_patient() -> None:
    assert Owner(os.getppid(), released=True).patience_s(FLUSH_TIMEOUT_S) == FLUSH_TIMEOUT_S
    assert Owner(0, released=True).patience_s(FLUSH_TIMEOUT_S) == ALONE_S


# Ctrl-C as in a terminal: where a shell started the tests in the background, they and their children ignore it.
_UI = """
import signal, sys
from pipeline.tracking.ui import serve_ui
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(serve_ui(sys.argv[1]))
"""


def ask(address: str, path: str, **headers: str) -> int:
    """The status of the answer."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address + path, headers=headers)) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return int(error.code)


@pytest.mark.slow
@pytest.mark.turns(10, 9, of="tracking")
def test_the_ui_answers_who_has_the_password_and_ctrl_c_leaves_no_process(workdir: Path) -> None:
    uri = f"sqlite:///{workdir.parent / 'mlflow.db'}"
    for name in ("uvicorn", "mlflow", "signal"):
        (workdir.parent / f"{name}.py").write_text(f"open({str(workdir / 'imported')!r}, 'w')")
    process = subprocess.Popen([sys.executable, "-u", "-c", _UI, uri], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        line = process.stdout.readline()
        address, password = line.split()[1], line.partition("password ")[2].partition(";")[0]
        assert address.startswith("http://127.0.0.1:")
        assert ("127.0.0.1", int(address.rpartition(":")[2])) in listening(process.pid)
        assert beyond_loopback(process.pid) == []
        assert shown_by_ps(password) == []
        login = "Basic " + base64.b64encode(f"w2v:{password}".encode()).decode()
        search = "/ajax-api/2.0/mlflow/experiments/search?max_results=1"
        for path in (
            "/",
            "/health",
            search,
            "/get-artifact?path=x&run_uuid=y",
            "/static-files/index.html",
            "/docs",
            "/openapi.json",
        ):
            assert ask(address, path) == 401, path
        for path in ("/", "/health", search, "/enter"):
            assert ask(address, path, Authorization=login) == 200, path
        assert ask(address, search, Authorization=login, Host="evil.example") == 403
        assert ask(address, search, Authorization=login, Origin="http://127.0.0.1:1") == 403
        process.send_signal(signal.SIGINT)
        assert process.wait(90) == 0
    assert not (workdir / "imported").exists(), "code beside the database"
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
    """The address of a server that answers every request with the same status."""
    handler = type("Answers", (_Answers,), {"status": request.param})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("answering", [401], indirect=True)
@pytest.mark.turns(3, 1.5, of="tracking")
def test_wrong_credentials_are_reported_once_and_the_run_continues(
    workdir: Path, answering: str, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = tracker_of(workdir, answering)
    tracker.start({"train.epochs": 5}, {})
    wait_for(lambda: tracker.spool.progress().state == "refused", 90)
    for step in range(1, 4):
        tracker.watch_every_s = 0.0
        tracker.log(step, {"train/loss": 1 / step})
    state = tracker.finish("FINISHED")
    assert not state.complete
    assert "refuses these credentials" in str(state.message)
    assert "MLFLOW_TRACKING_USERNAME" in str(state.message)
    (record,) = caplog.records
    assert "the run goes on" in record.getMessage()


@pytest.mark.parametrize("answering", [403], indirect=True)
@pytest.mark.turns(3, 1.5, of="tracking")
def test_required_tracking_with_wrong_credentials_stops_before_any_work(workdir: Path, answering: str) -> None:
    with pytest.raises(PermissionDeniedError, match=r"refuses these credentials.*nothing was started") as caught:
        tracker_of(workdir, answering, required=True)
    assert caught.value.exit_code == 77


@pytest.mark.turns(3, 1.5, of="tracking")
def test_required_tracking_that_cannot_be_reached_stops_before_any_work(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.tracking.tracker.FAILING_S", 1.0)
    with pytest.raises(ServiceError, match=r"does not answer \(Connection refused\); .*nothing was started") as caught:
        tracker_of(workdir, f"http://127.0.0.1:{free_port()}", required=True)
    assert caught.value.exit_code == 69


def test_required_tracking_that_failed_once_and_then_works_stops_nothing(workdir: Path) -> None:
    tracker = tracker_of(workdir)
    tracker.process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)  # in the place of the shipper
    states = [Delivered(state=state, message="busy", pid=tracker.process.pid) for state in ("retrying", "shipping")]
    tracker.spool.write_progress(states[0])
    later = threading.Timer(0.5, tracker.spool.write_progress, states[1:])
    later.start()
    tracker.wait_until_reached(60)
    later.join()
    tracker.finish("FAILED")


@pytest.mark.parametrize("answering", [404, 429, 500, 503, 507], indirect=True)
def test_errors_a_server_recovers_from_are_tried_again(workdir: Path, answering: str) -> None:
    tracker = tracker_of(workdir, answering)
    tracker.ships = False
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
        tracker.ships = False
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
