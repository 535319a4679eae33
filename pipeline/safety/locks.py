"""Locks on files: held by one process, freed by the kernel with it, and out of reach of other users."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import BusyError, explain_os_error, printable

WORKDIR_LOCK = ".lock"
_SHOWN_BYTES = 200


class HeldError(Exception):
    """Somebody else holds the lock; the message is what they wrote into it."""


def open_lock(path: Path) -> int:
    """A descriptor of the lock file, made if need be; nothing in it is changed. Raises OSError.

    Mode 0600: flock needs no more than a readable file, so who may read a lock can hold it for ever. A link, a FIFO, a
    stranger's file or one that has a second name is refused: what is written into a lock would be written somewhere else.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        lock = os.open(path, flags, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise PermissionError(errno.EPERM, "a symbolic link in the place of a lock file; remove it", str(path)) from None
        raise
    found, owners = os.fstat(lock), (os.geteuid(), os.stat(path.parent).st_uid)
    if not stat.S_ISREG(found.st_mode) or found.st_uid not in owners or found.st_nlink > 1:
        os.close(lock)
        raise PermissionError(errno.EPERM, "not a lock file of this user or of the folder's owner; remove it", str(path))
    if found.st_mode & 0o077:
        os.fchmod(lock, 0o600)
    return lock


@contextlib.contextmanager
def held(path: Path, note: str | None = None, *, wait: bool = False) -> Iterator[None]:
    """Holds the lock for as long as the block lasts; `note` is written into it, for those who find it held.

    Raises HeldError (unless `wait`) and OSError.
    """
    lock = open_lock(path)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise HeldError(os.pread(lock, _SHOWN_BYTES, 0).decode(errors="replace").strip() or "unknown") from None
        if note is not None:
            os.ftruncate(lock, 0)
            os.pwrite(lock, note.encode(), 0)
        yield
    finally:
        os.close(lock)


def holder(path: Path) -> str | None:
    """What the holder of a lock wrote into it; None when nobody holds it. Changes nothing, makes no file. Raises OSError."""
    if not os.path.lexists(path):
        return None
    try:
        with held(path):
            return None
    except HeldError as error:
        return str(error)


@contextlib.contextmanager
def lock(workdir: Path) -> Iterator[None]:
    """Holds the workdir for this process; raises BusyError naming the holder. The kernel frees it with the process."""
    path = workdir / WORKDIR_LOCK
    with contextlib.ExitStack() as stack:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            stack.enter_context(held(path, f"pid {os.getpid()} on {socket.gethostname()}"))
        except HeldError as error:
            raise BusyError(f"{busy(workdir, str(error))}; wait for it or choose another run.workdir") from None
        except OSError as error:
            raise explain_os_error(error, path) from error
        yield


def busy(workdir: Path, holder: str) -> str:
    """What a person is told of a workdir that `holder` holds."""
    return f"{workdir}: another run is working here ({printable(holder)})"
