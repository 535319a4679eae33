"""Ports for the servers that tests start: each is given to one test only.

A port that the system chooses may be chosen again, for another server or for one end of any connection, before the test's own
server listens on it. So these are below the ports from which systems choose, and a lock on a file keeps each for the process
that asked, until that ends.
"""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from pathlib import Path

_FIRST, _COUNT = 20_000, 8_000
"""Below 32,768, from where Linux chooses; other systems choose from higher ones."""


def free_port(host: str = "127.0.0.1") -> int:
    """A port on which nobody listens, and which no other test is given as long as this process lives."""
    folder = Path(tempfile.gettempdir()) / f"w2v-test-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    for port in range(_FIRST, _FIRST + _COUNT):
        lock = os.open(folder / str(port), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.bind((host, port))
            with socket.socket() as probe:  # a server may listen on all addresses, and another test's has one of them already
                probe.bind(("", port))
        except OSError:
            os.close(lock)
            continue
        return port  # the lock is held until this process ends
    raise AssertionError(f"all {_COUNT} ports from {_FIRST} on are taken")
