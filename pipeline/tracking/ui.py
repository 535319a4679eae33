"""MLflow's own pages over the local store, on this machine only and behind a password."""

from __future__ import annotations

import os
import secrets
import select
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType

import click

from pipeline.errors import PermissionDeniedError, ServiceError, printable
from pipeline.safety.login import USER
from pipeline.tracking.door import ENTRANCE, PASSWORD_VARIABLE
from pipeline.tracking.shipper import client_environment
from pipeline.tracking.spool import without_credentials

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 10.0


def serve_ui(uri: str, port: int = 0, start: str = "/") -> int:
    """Serves MLflow's web interface over an SQLite store on 127.0.0.1, behind a new password, until Ctrl-C or SIGTERM; returns
    the exit status.

    `port` 0 takes a free one; `start` is the page that the link opens. Raises ServiceError if there is no store yet or MLflow
    does not start.
    """
    if not uri.startswith("sqlite:///"):
        click.echo(f"The tracking server has its own interface: {printable(without_credentials(uri), 1000)}")
        return 0
    database = Path(uri.removeprefix("sqlite:///").partition("?")[0])
    if not database.exists():
        raise ServiceError(f"{database}: no tracked runs yet; start one with `w2v run`")
    if not os.access(database, os.R_OK):
        raise PermissionDeniedError(f"{database}: this user may not read it; change its rights")
    password = secrets.token_urlsafe(24)
    before = signal.signal(signal.SIGTERM, _stop)
    process = _start(uri, database, password, port, start)
    try:
        found = _wait_until_it_answers(process, port)
        click.echo(
            f"MLflow: http://127.0.0.1:{found} (user {USER}, password {password}; Ctrl-C ends it)\n"
            f"  or open http://{USER}:{password}@127.0.0.1:{found}{ENTRANCE}"
        )
        return process.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        _end(process)
        signal.signal(signal.SIGTERM, before)


def _start(uri: str, database: Path, password: str, port: int, start: str) -> subprocess.Popen[bytes]:
    """The server's process, which also ends when this one does."""
    command = [sys.executable, "-P", "-m", "pipeline.tracking.door", uri, "--port", str(port), "--start", start]
    command += ["--artifact-root", (database.parent / "mlartifacts").as_uri()]
    # Without this, MLflow 3 starts a job runner and seven more processes that outlive it for seconds.
    settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONSAFEPATH": "1", PASSWORD_VARIABLE: password}
    return subprocess.Popen(  # noqa: S603 - this Python
        command,
        env=os.environ | client_environment(dict(os.environ)) | settings,
        cwd="/",
        start_new_session=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _wait_until_it_answers(process: subprocess.Popen[bytes], port: int) -> int:
    """The server's port, which it prints once it is ready."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], START_TIMEOUT_S)
    line = process.stdout.readline() if ready else b""
    if line.strip().isdigit():
        return int(line)
    with suppress(subprocess.TimeoutExpired):
        process.wait(1)
    raise ServiceError(
        f"MLflow did not start on 127.0.0.1:{port} (exit status {process.poll()}); choose another --port, or run "
        "`mlflow server` by hand to see its output"
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the server and its children, which are in its process group."""
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(OSError):
                stream.close()
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT_S)
            return
