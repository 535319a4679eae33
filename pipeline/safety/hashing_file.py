"""A file that is hashed, and on its way to the disk, while it is still being written.

Vectors and checkpoints are large: to hash them takes half as long as to write them, and to wait for the disk as long again.
"""

from __future__ import annotations

import ctypes
import hashlib
import io
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, BinaryIO

_LARGE_BYTES = 1 << 19
"""To hash less than this is quicker than to hand it to a thread."""
_SENT_BYTES = 8 << 20
"""How much is written before the disk is asked to begin with it."""
_SYNC_FILE_RANGE_WRITE = 2  # linux/fs.h


class HashingFile(io.RawIOBase):
    """A write-only file that tracks the SHA-256 and the size of what is written through it.

    Large `bytes` are hashed in a thread of their own while they and the next ones are written. Anything else may change once
    `write` has returned, so it is hashed before. `durable`: the caller will wait for the disk, so that is asked to begin early.
    """

    def __init__(self, file: BinaryIO, *, durable: bool = False) -> None:
        self._file = file
        self._durable = durable
        self._flushed = 0
        self._sha256 = hashlib.sha256()
        self._pool: ThreadPoolExecutor | None = None
        self._hashed: Future[None] | None = None
        self._has_no_thread = False
        self.bytes = 0
        self.missing = 1
        """Bytes that the last write still had to write at its last attempt."""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self._hash(view, beside=type(data) is bytes and len(view) >= _LARGE_BYTES)
        written = 0
        while written < len(view):
            self.missing = len(view) - written
            # A nearly full disk accepts part of the bytes without an error; the error comes with the rest.
            written += self._file.write(view[written:])
        self.bytes += len(view)
        if self._durable and self.bytes - self._flushed >= _SENT_BYTES:
            _begin_to_flush(self._file.fileno(), self._flushed, self.bytes - self._flushed)
            self._flushed = self.bytes
        return len(view)

    def tell(self) -> int:
        return self.bytes

    def hexdigest(self) -> str:
        """The SHA-256 of all that has been written."""
        self._finish_hashing()
        return self._sha256.hexdigest()

    def close(self) -> None:
        """Ends the thread. The file itself is the caller's."""
        if self._pool:
            self._pool.shutdown()
            self._pool = None
        super().close()

    def _hash(self, view: memoryview, *, beside: bool) -> None:
        self._finish_hashing()
        if beside and (thread := self._thread()):
            self._hashed = thread.submit(self._sha256.update, view)
        else:
            self._sha256.update(view)

    def _finish_hashing(self) -> None:
        if self._hashed:
            self._hashed.result()
            self._hashed = None

    def _thread(self) -> ThreadPoolExecutor | None:
        if self._pool is None and not self._has_no_thread:
            pool = ThreadPoolExecutor(1, thread_name_prefix="sha256")
            try:
                pool.submit(bool)
                self._pool = pool
            except RuntimeError:  # the system allows no more
                self._has_no_thread = True
        return self._pool


def _begin_to_flush(descriptor: int, first: int, size: int) -> None:
    """Asks Linux to begin to write these bytes of a file to the disk. Waits for nothing and reports nothing: `fsync` does."""
    # Python has no other way to this function.
    flush = getattr(ctypes.CDLL(None), "sync_file_range", None) if sys.platform == "linux" else None
    if flush:
        flush(descriptor, ctypes.c_int64(first), ctypes.c_int64(size), _SYNC_FILE_RANGE_WRITE)
