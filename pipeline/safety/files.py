"""Opening files by names from outside: only inside their folder, never through a link, never without a size limit.

A name in a manifest, a spool or a summary is data and may point elsewhere. A file to be read may be a FIFO without a writer, an
endless device, or a link. Everything here raises OSError with a reason to show.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MAX_JSON_BYTES = 256 << 20
"""Limit for one of our own JSON files; a summary of 10,000 rounds takes 5 MB."""
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_FOLDER = _READ | os.O_DIRECTORY


def is_confined(name: object) -> bool:
    """Whether `name` can only refer to something inside a folder: relative, without `..`, `.` and empty steps."""
    if not isinstance(name, str) or "\0" in name or not all(step not in ("", ".", "..") for step in name.split("/")):
        return False
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True


def open_inside(folder: Path | int, name: str, flags: int = _READ) -> int:
    """A descriptor of the file `name` in `folder`; no step of `name` can be a link, even if names change meanwhile.

    It is a regular file unless `flags` ask for a directory. Raises OSError.
    """
    *steps, last = _steps(name)
    at = os.dup(folder) if isinstance(folder, int) else os.open(folder, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    try:
        for step in steps:
            below = os.open(step, _FOLDER, dir_fd=at)
            os.close(at)
            at = below
        found = os.open(last, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=at)
    except OSError as error:
        raise _explained(error, name) from None
    finally:
        os.close(at)
    return found if flags & os.O_DIRECTORY else regular(found, name)


def unlink_inside(folder: Path, name: str) -> None:
    """Removes `name` in `folder`, be it a file, a link or a folder, but never anything elsewhere or behind a link."""
    *steps, last = _steps(name)
    try:
        at = open_inside(folder, "/".join(steps), _FOLDER) if steps else os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return
    try:
        if stat.S_ISDIR(os.stat(last, dir_fd=at, follow_symlinks=False).st_mode):
            shutil.rmtree(last, dir_fd=at)
        else:
            os.unlink(last, dir_fd=at)
    except FileNotFoundError:
        pass
    finally:
        os.close(at)


def plain_tree(folder: Path, name: str) -> Path:
    """The path of the file or folder `name` in `folder`, for programs that take paths, after checking that everything on the way
    to it and below it is a regular file or folder. Raises OSError."""
    at = folder
    for step in _steps(name):
        at = at / step
        _require_plain(at)
    if at.is_dir():
        for below in at.rglob("*"):
            _require_plain(below)
    return at


@contextlib.contextmanager
def held_still(folder: Path, name: str) -> Iterator[Path]:
    """A path as from `plain_tree` that nobody else can change while the block runs: where others may write on the way to it or
    in it, the path of a private copy. Raises OSError."""
    path = plain_tree(folder, name)
    below = (place for place in path.rglob("*") if place.is_dir()) if path.is_dir() else ()
    if all(_is_closed(place) for place in (path, *path.absolute().parents, *below)):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="w2v-still-") as private:
        copy = Path(private) / path.name
        _copy(open_inside(folder, name, _READ | os.O_DIRECTORY if path.is_dir() else _READ), copy)
        yield copy


def _is_closed(path: Path) -> bool:
    """Whether only this user and root can replace entries of a folder; always true for a file."""
    found = os.stat(path)
    others = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX
    return not stat.S_ISDIR(found.st_mode) or (found.st_uid in (os.getuid(), 0) and not others)


def _copy(source: int, target: Path) -> None:
    """Copies an open file, or an open folder with everything in it; raises OSError for anything but files and folders."""
    if stat.S_ISREG(os.fstat(source).st_mode):
        with open(source, "rb") as file, open(target, "xb") as copy:
            shutil.copyfileobj(file, copy, 1 << 20)
        return
    try:
        target.mkdir(mode=0o700)
        for name in os.listdir(source):
            below = os.open(name, _READ, dir_fd=source)
            if not stat.S_ISDIR(os.fstat(below).st_mode):
                regular(below, name)
            _copy(below, target / name)
    finally:
        os.close(source)


def _require_plain(path: Path) -> None:
    mode = os.lstat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, f"{kind_of(mode)}, which is not followed here", str(path))


def regular(descriptor: int, name: object) -> int:
    """The descriptor, if it is of a regular file; otherwise closes it and raises OSError."""
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, f"not a regular file but {kind_of(mode)}", str(name))


def open_regular(path: str | os.PathLike[str]) -> int:
    """A descriptor to read a file named by the user: links are followed; raises OSError if it is not a regular file."""
    return regular(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), path)


def read_bounded(path: str | os.PathLike[str], limit: int) -> bytes:
    """All bytes of a regular file; raises OSError for anything else and for more than `limit` bytes."""
    with open(open_regular(path), "rb") as file:
        return _all_of(file, limit, path)


def read_inside(folder: Path, name: str, limit: int = MAX_JSON_BYTES) -> bytes:
    """All bytes of the file `name` in `folder`, as `open_inside` opens it; raises OSError."""
    with open(open_inside(folder, name), "rb") as file:
        return _all_of(file, limit, folder / name)


def read_json_object(folder: Path, name: str) -> dict[str, Any]:
    """The object in one of our JSON files; raises FileNotFoundError if there is none, ValueError for anything else."""
    try:
        return json_object(read_inside(folder, name))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(error.strerror or "cannot be read") from None


def json_object(data: bytes) -> dict[str, Any]:
    """The object that these bytes of JSON hold; raises ValueError for anything else."""
    try:
        body = json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(body, dict):
        raise ValueError(f"expected an object, found {type(body).__name__}")
    return body


def _all_of(file: Any, limit: int, path: object) -> bytes:
    data: bytes = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"larger than the limit of {limit:,} bytes for such a file", str(path))
    return data


def _steps(name: str) -> list[str]:
    if not is_confined(name):
        raise OSError(errno.EINVAL, "a name that leads out of its folder", str(name)[:200])
    return name.split("/")


def _explained(error: OSError, name: str) -> OSError:
    if error.errno == errno.ELOOP:
        return OSError(errno.ELOOP, "a symbolic link, which is not followed here", name)
    if error.errno == errno.ENXIO:  # a FIFO without a reader, or a socket
        return OSError(errno.EINVAL, "not a regular file", name)
    return error


def kind_of(mode: int) -> str:
    kinds = (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
    )
    return next((kind for is_kind, kind in kinds if is_kind(mode)), "a device")
