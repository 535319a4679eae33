"""The files of a corpus opened to read, on this machine or in a bucket, and what each of them is at that moment."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, cast

from pipeline.options.storage import Storage
from pipeline.storage.addresses import is_address, parse_address
from pipeline.storage.objects import ObjectFile

KEY = "corpus.inputs"


class Stand(NamedTuple):
    """What tells a file that was written to from one that was not; of an object in a bucket, the server's word for it."""

    size: int
    mtime_ns: int
    ctime_ns: int
    mark: int | str
    """Inode, or etag."""


@contextlib.contextmanager
def open_source(path: str, storage: Storage) -> Iterator[BinaryIO]:
    """The file, to read from anywhere in it. Raises OSError, and for a bucket what `storage.failures` says."""
    if is_address(path):
        yield cast(BinaryIO, ObjectFile(parse_address(path, KEY), storage))
        return
    # O_NONBLOCK: should a FIFO have taken the file's place, opening it must not wait for a writer.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as file:
        yield cast(BinaryIO, file)


def stand_of(file: BinaryIO, *, now: bool = False) -> Stand:
    """Of an open file. `now`: a bucket is asked again, which tells whether the object was replaced since."""
    if isinstance(file, ObjectFile):
        found = file.stand_now() if now else file.stand
        return Stand(found.size, found.modified_ns, 0, found.etag)
    seen = os.fstat(file.fileno())
    return Stand(seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino)


def is_regular(file: BinaryIO) -> bool:
    return isinstance(file, ObjectFile) or stat.S_ISREG(os.fstat(file.fileno()).st_mode)
