"""Scratch folders: private to a run, closed to others, removed at its end."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import PermissionDeniedError, explain_os_error

PREFIX = "w2v-scratch-"
_LOCK = ".lock"
_UNLOCKED_S = 3600.0
"""A folder this old without a lock file was left by a process that died before it wrote one."""


@contextlib.contextmanager
def private_scratch(parent: str | None = None) -> Iterator[Path]:
    """A new folder of mode 0700 in `parent` (None: the directory for temporary files), removed at the end with its content.

    Dask's own scratch folder has a predictable name and is put on the import path, so whoever creates it first gets their code
    imported. Folders left by this user's killed runs are removed first.
    """
    where = Path(parent or tempfile.gettempdir())
    _refuse_open_parent(where)
    _remove_left_over(where)
    folder, lock = _locked_folder(where)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _locked_folder(where: Path) -> tuple[Path, int]:
    """A new folder, and the descriptor of its lock file, which is held."""
    while True:
        try:
            folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=where))
        except OSError as error:
            raise explain_os_error(error, where) from None
        try:
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            told = explain_os_error(error, where)  # before the folder gives back its inode
            folder.rmdir()
            raise told from None
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.fstat(lock).st_nlink:
            return folder, lock
        os.close(lock)  # another run took it for left over before it was locked


def _refuse_open_parent(where: Path) -> None:
    """Raises PermissionDeniedError if others could replace our folder by theirs."""
    try:
        found = os.stat(where)
    except OSError as error:
        raise PermissionDeniedError(f"{where}: no folder for scratch files ({error.strerror}); set TMPDIR to one") from None
    anybody = found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX
    if found.st_uid not in (os.getuid(), 0) or anybody:
        raise PermissionDeniedError(
            f"{where}: scratch files would lie in a folder whose entries others can replace (owner {found.st_uid}, mode "
            f"{stat.S_IMODE(found.st_mode):o}); set TMPDIR to a folder of your own"
        )


def _remove_left_over(where: Path) -> None:
    """Removes this user's scratch folders whose lock nobody holds."""
    for path in where.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            found = os.lstat(path)
            if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid():
                _remove_if_abandoned(path, found)


def _remove_if_abandoned(path: Path, found: os.stat_result) -> None:
    try:
        lock = os.open(path / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        if time.time() - found.st_mtime > _UNLOCKED_S:
            shutil.rmtree(path, ignore_errors=True)
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path, ignore_errors=True)  # under its lock, for which the run that has just made it may be waiting
    finally:
        os.close(lock)
