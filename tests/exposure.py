"""What others can see of a run: where it listens, what `ps` shows of it, what its files contain."""

from __future__ import annotations

import contextlib
import ipaddress
from pathlib import Path

import psutil


def tree_of(pid: int) -> list[psutil.Process]:
    """A process and all its descendants."""
    top = psutil.Process(pid)
    return [top, *top.children(recursive=True)]


def listening(pid: int) -> list[tuple[str, int]]:
    """(address, port) of every TCP port on which a process or one of its descendants listens."""
    found = []
    for process in tree_of(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            found += [tuple(one.laddr) for one in process.net_connections("tcp") if one.status == psutil.CONN_LISTEN]
    return found


def beyond_loopback(pid: int) -> list[tuple[str, int]]:
    """Those ports on which other machines can reach it."""
    return [(host, port) for host, port in listening(pid) if not ipaddress.ip_address(host).is_loopback]


def shown_by_ps(secret: str) -> list[str]:
    """The command lines of processes on this machine that contain the secret."""
    lines = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            lines.append(" ".join(process.cmdline()))
    return [line for line in lines if secret in line]


def files_with(secret: str, *folders: Path) -> list[Path]:
    """The files below the folders that contain the secret."""
    paths = [path for folder in folders for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return [path for path in paths if secret.encode() in path.read_bytes()]
