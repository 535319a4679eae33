"""File locks: held by one process, released by the kernel when it ends, and out of reach of other users."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import BusyError, ConfigError, StorageError, explain_os_error, printable

WORKDIR_LOCK = ".lock"
SENTENCES_LOCK = ".sentences-lock"
"""Held by a program that has written the sentences it trains on, until its run has ended."""
SHIPPER_LOCK = "shipper.lock"
"""In the folder of a tracking spool: held by the process that delivers it, which may go on after its run has ended."""
_SHOWN_BYTES = 200
_PAUSE_S = 0.002


class HeldError(Exception):
    """Another process holds the lock; the message is its note."""


def open_lock(path: Path) -> int:
    """A descriptor of the lock file, created if needed, its content unchanged. Raises OSError.

    Mode 0600: flock needs only a readable file, so anybody who can read a lock could hold it forever. A link, a FIFO, another
    user's file or one with a second name is refused, because a note written into the lock would end up elsewhere.
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
    """Holds the lock while the block runs; `note` is written into it, for processes that find it held.

    Raises HeldError (unless `wait`) and OSError.
    """
    lock = open_lock(path)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX) if wait else _take(lock)
        except BlockingIOError:
            raise HeldError(_note_in(lock)) from None
        if note is not None:
            _write(lock, note)
        yield
    finally:
        os.close(lock)


def _take(lock: int) -> None:
    """Takes a free lock; raises BlockingIOError if somebody holds it. Who only asks (`holder`) is waited for."""
    while True:
        with contextlib.suppress(BlockingIOError):
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(lock, fcntl.LOCK_UN)
        time.sleep(_PAUSE_S)


def holder(path: Path) -> str | None:
    """The note of a lock's holder; None if nobody holds it. Changes nothing and creates no file. Raises OSError.

    There is no way to ask about a lock without taking it, so it is shared for a moment with all who ask.
    """
    if not os.path.lexists(path):
        return None
    lock = open_lock(path)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _note_in(lock)
    finally:
        os.close(lock)
    return None


def _note_in(lock: int) -> str:
    return os.pread(lock, _SHOWN_BYTES, 0).decode(errors="replace").strip() or "unknown"


def _write(lock: int, note: str) -> None:
    """Writes the note, always as many bytes and in one piece, so that a reader never sees half of it."""
    os.pwrite(lock, note.encode()[:_SHOWN_BYTES].ljust(_SHOWN_BYTES), 0)


def refuse_file(workdir: Path) -> None:
    """Raises ConfigError for a workdir that is a file."""
    if workdir.exists() and not workdir.is_dir():
        raise ConfigError(f"run.workdir: {workdir} is a file, and a run needs a folder")


@contextlib.contextmanager
def lock(workdir: Path, name: str = WORKDIR_LOCK) -> Iterator[None]:
    """Holds the workdir for this process; raises BusyError naming the holder. The kernel releases it when the process ends."""
    path = workdir / name
    with contextlib.ExitStack() as stack:
        refuse_file(workdir)
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            stack.enter_context(held(path, _who()))
        except HeldError as error:
            raise BusyError(f"{busy(workdir, str(error))}; wait for it or choose another run.workdir") from None
        except (FileExistsError, NotADirectoryError):
            raise ConfigError(f"run.workdir: {workdir} cannot be a folder: a file or a link to nowhere is in its place") from None
        except OSError as error:
            raise explain_os_error(error, path) from error
        yield


def require_held(workdir: Path) -> None:
    """For the holder of a workdir: raises StorageError if the lock there is no longer its own. Whoever moved the folder moved the
    lock, too, so another run could begin where this one would go on writing; and there are file systems whose locks hold
    nobody off, some of those on a network."""
    try:
        with open(workdir / WORKDIR_LOCK, "rb") as lock:
            note = _note_in(lock.fileno())
    except OSError:
        note = ""
    if _is_own(note):
        return
    if re.match(r"pid \d+ on ", note):
        raise StorageError(
            f"{workdir}: another run ({printable(note)}) works there, though this one holds its lock: it was moved or replaced, "
            "or its file system does not lock; this run writes nothing more. Choose a run.workdir on another file system, or see "
            "to it that only one run works there, and run the same command again, it continues"
        )
    raise StorageError(
        f"{workdir}: was moved, removed or replaced while this run was working there, so it writes nothing more; move it "
        "back and run the same command again, it continues"
    )


def worker_in(workdir: Path) -> str | None:
    """The note of who works in a workdir; None if nobody does, or if this user may not ask."""
    with contextlib.suppress(OSError):
        return holder(workdir / WORKDIR_LOCK)
    return None


def tell(workdir: Path, doing: str) -> None:
    """Adds what this process, which holds the workdir, does from now on to the note that others are shown."""
    # No run ends because this cannot be written, for example on a full disk.
    with contextlib.suppress(OSError):
        lock = open_lock(workdir / WORKDIR_LOCK)
        try:
            if _is_own(_note_in(lock)):
                _write(lock, f"{_who()}, {doing} since {time.strftime('%Y-%m-%d %H:%M %Z')}")
        finally:
            os.close(lock)


def _is_own(note: str) -> bool:
    return re.match(rf"{re.escape(_who())}(,|$)", note) is not None


def _who() -> str:
    return f"pid {os.getpid()} on {socket.gethostname()}"


def busy(workdir: Path | str, holder: str) -> str:
    """The message about a workdir held by `holder`."""
    return f"{workdir}: another run is working here ({printable(holder)})"
