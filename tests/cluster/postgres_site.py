"""A real PostgreSQL server for one test: on loopback, with a password, in a temporary folder."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2

from tests.debian import program
from tests.ports import free_port

UP_S = 90
_BINARIES = "/usr/lib/postgresql/*/bin"
_CARELESS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "shared_buffers": "16MB"}
"""Enough for a server that lives for one test."""


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """The address, including the password, of an empty database; skips the test if PostgreSQL is not available."""
    initdb, server = (program(name, "postgresql", _BINARIES) for name in ("initdb", "postgres"))
    root = Path(tempfile.mkdtemp(prefix="w2v-postgres."))
    password, port = secrets.token_urlsafe(12), free_port()
    (root / "password").write_text(password)
    as_its_user: list[str] = []
    if os.geteuid() == 0:  # which PostgreSQL refuses to run as
        owner = pwd.getpwnam("postgres")
        as_its_user = ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]
        for path in (root, root / "password"):
            os.chown(path, owner.pw_uid, owner.pw_gid)
    data = ["-D", str(root / "data")]
    make = [initdb, *data, "--username=w2v", f"--pwfile={root / 'password'}", "--auth=scram-sha-256", "--encoding=UTF8"]
    serve = [server, *data, "-p", str(port), "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={root}"]
    serve += [word for name, value in _CARELESS.items() for word in ("-c", f"{name}={value}")]
    running = None
    try:
        with (root / "log").open("wb") as log:
            subprocess.run([*as_its_user, *make, "--no-sync"], check=True, stdout=log, stderr=log, cwd=root, timeout=UP_S)
            running = subprocess.Popen([*as_its_user, *serve], stdout=log, stderr=log, cwd=root)
        with contextlib.closing(_connected(password, port, root / "log")) as connection:
            connection.autocommit = True
            connection.cursor().execute("CREATE DATABASE mlflow")
        yield f"postgresql+psycopg2://w2v:{password}@127.0.0.1:{port}/mlflow"
    finally:
        if running is not None:
            running.terminate()
            running.wait(20)
        shutil.rmtree(root, ignore_errors=True)


def _connected(password: str, port: int, log: Path) -> Any:
    deadline = time.monotonic() + UP_S
    while True:
        try:
            return psycopg2.connect(host="127.0.0.1", port=port, user="w2v", password=password, dbname="postgres")
        except psycopg2.OperationalError as error:
            if time.monotonic() > deadline:
                raise AssertionError(f"PostgreSQL did not come up: {log.read_text(errors='replace')}") from error
            time.sleep(0.1)
