"""MLflow's own pages over the local store, for this machine only."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

import click

from pipeline.errors import ServiceError
from pipeline.tracking.shipper import client_environment
from pipeline.tracking.spool import without_credentials

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 10.0


def serve_ui(uri: str, port: int = 0) -> int:
    """Runs MLflow's web interface over an SQLite store on 127.0.0.1 until Ctrl-C or SIGTERM; returns the exit status.

    `port` 0 takes a free one. Raises ServiceError when there is no store yet, or when MLflow does not start.
    """
    if not uri.startswith("sqlite:///"):
        click.echo(f"The tracking server has its own interface: {without_credentials(uri)}")
        return 0
    database = Path(uri.removeprefix("sqlite:///").partition("?")[0])
    if not database.exists():
        raise ServiceError(f"{database}: no tracked runs yet; start one with `w2v run`")
    port = port or _free_port()
    command = [sys.executable, "-P", "-m", "mlflow", "server", "--backend-store-uri", uri, "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--default-artifact-root", (database.parent / "mlartifacts").as_uri()]
    # Without this, MLflow 3 starts a job runner and seven more processes that outlive it for seconds.
    environment = os.environ | client_environment(dict(os.environ)) | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    before = signal.signal(signal.SIGTERM, _stop)
    process = subprocess.Popen(  # noqa: S603 - this Python
        command,
        env=environment,
        cwd=database.parent,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_until_it_answers(process, port)
        click.echo(f"MLflow: http://127.0.0.1:{port} (Ctrl-C ends it)")
        return process.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        _end(process)
        signal.signal(signal.SIGTERM, before)


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_it_answers(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.2)
    raise ServiceError(
        f"MLflow did not start on 127.0.0.1:{port} (exit status {process.poll()}); choose another --port, or run "
        "`mlflow server` by hand to see its output"
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the server and its own children, which live in its process group."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT_S)
            return
