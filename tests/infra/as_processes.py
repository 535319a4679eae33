"""The commands of containers, run as processes on this machine: only their paths and host names are replaced."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.cluster.disturbed import environment_with, wait_until


def localized(words: Sequence[str], places: Mapping[str, str]) -> list[str]:
    """A command with each path of the image and each host name replaced by its counterpart here."""
    found = list(words)
    for there, here in places.items():
        found = [word.replace(there, here) for word in found]
    return found


def environment(**variables: str) -> dict[str, str]:
    """The environment of the tests, with the programs of this virtual environment first."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return environment_with() | {"PATH": path} | variables


def run_to_end(words: Sequence[str], folder: Path) -> str:
    """The output of the command; raises if it fails."""
    done = subprocess.run(words, env=environment(), cwd=folder, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextlib.contextmanager
def serving(*commands: Sequence[str], folder: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The processes of commands that run until they are killed."""
    running: list[subprocess.Popen[bytes]] = []
    try:
        with (folder / "log").open("ab") as log:
            for words in commands:
                running.append(
                    subprocess.Popen(words, env=environment(), stdout=log, stderr=log, cwd=folder, start_new_session=True)
                )
        yield running
    finally:
        for process in running:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)


def wait_for_scheduler(host: str, port: str) -> None:
    """Waits until something listens there, as the health checks of the services do."""

    def is_there() -> bool:
        with contextlib.suppress(OSError), contextlib.closing(socket.create_connection((host, int(port)), timeout=1)):
            return True
        return False

    wait_until(is_there, f"a scheduler at {host}:{port}")
