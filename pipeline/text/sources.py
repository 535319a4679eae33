"""The files of a corpus, opened for reading on this machine or in a bucket, and the size and times of each at that moment."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple, cast

from pipeline.errors import PipelineError, printable
from pipeline.options.storage import Storage
from pipeline.storage.addresses import is_address, parse_address
from pipeline.storage.objects import ObjectFile

KEY = "corpus.inputs"


class Stand(NamedTuple):
    """What changes when a file is written to: size, times and inode, or for an object in a bucket what its server reports."""

    size: int
    mtime_ns: int
    ctime_ns: int
    mark: int | str
    """Inode of a file, ETag of an object."""


@contextlib.contextmanager
def open_source(path: str, storage: Storage) -> Iterator[BinaryIO]:
    """The file, opened for reading and seekable. Raises OSError, and for a bucket the errors of `storage.failures`."""
    if is_address(path):
        yield cast(BinaryIO, ObjectFile(parse_address(path, KEY), storage))
        return
    # O_NONBLOCK: should a FIFO have taken the file's place, opening it must not wait for a writer.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as file:
        yield cast(BinaryIO, file)


def stand_of(file: BinaryIO, *, now: bool = False) -> Stand:
    """The stand of an open file. With `now`, the bucket is queried again, which shows whether the object has been replaced."""
    if isinstance(file, ObjectFile):
        found = file.stand_now() if now else file.stand
        return Stand(found.size, found.modified_ns, 0, found.etag)
    seen = os.fstat(file.fileno())
    return Stand(seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino)


def is_regular(file: BinaryIO) -> bool:
    return isinstance(file, ObjectFile) or stat.S_ISREG(os.fstat(file.fileno()).st_mode)


def why_unseen(asked: tuple[Sequence[tuple[str, int]], Storage]) -> str | None:
    """Why this machine cannot read these files (path, bytes) of a corpus; None if it can."""
    files, storage = asked
    for path, size in files:
        try:
            with open_source(path, storage) as file:
                found = stand_of(file).size
        except (PipelineError, OSError) as error:
            return f"cannot read {printable(path, 300)} of the corpus ({getattr(error, 'strerror', None) or error})"
        if found != size:
            return f"sees another {printable(path, 300)} than the driver ({found:,} bytes, planned {size:,})"
    return None
