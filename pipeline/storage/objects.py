"""Objects in a bucket: stat, list, read in ranges, put whole, remove; every request is retried (`failures.patiently`)."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any

from pipeline.errors import DataError, InputError, ServiceError
from pipeline.options.storage import Storage
from pipeline.safety.files import MAX_JSON_BYTES
from pipeline.storage.addresses import Address
from pipeline.storage.failures import no_bucket, patiently
from pipeline.storage.filesystems import endpoint_of, file_system

FIRST_RANGE_BYTES, LONGEST_RANGE_BYTES = 1 << 18, 1 << 22
"""Size of the first request at a position, and the largest when reading on: looking at a few bytes costs little, and reading the
whole object takes few requests."""
_COPY_BYTES = 1 << 22
_UNREAD = "Failed to flush response stream"
_UNLIKELY = (0xFF, 0xFE)
"""Bytes that never occur in UTF-8, so a second request is rare."""
ANSWER_S = 10.0
"""How long the first request to a bucket is retried."""


@dataclass(frozen=True)
class ObjectStand:
    """The state of an object at one moment."""

    size: int
    etag: str
    """Changes with the content; empty if the server sends none."""
    modified_ns: int


@dataclass(frozen=True)
class ListedObject:
    """An entry of a listing."""

    key: str
    size: int
    modified_ns: int


def require_bucket(address: Address, storage: Storage) -> None:
    """Raises InputError if there is no such bucket, and the errors of `failures` if it cannot be reached, within ANSWER_S."""
    from pyarrow import fs

    system = file_system(address, storage)
    info = patiently(lambda: system.get_file_info(address.bucket), address, storage, patience_s=ANSWER_S)
    if info.type == fs.FileType.NotFound:
        raise no_bucket(address, storage)


def exists(address: Address, storage: Storage) -> bool:
    """Whether there is an object with exactly this key."""
    return size_of(address, storage) is not None


def size_of(address: Address, storage: Storage) -> int | None:
    """The object's size in bytes, None if there is none."""
    from pyarrow import fs

    system = file_system(address, storage)
    info = patiently(lambda: system.get_file_info(address.path), address, storage)
    return int(info.size) if info.type == fs.FileType.File else None


def listing(address: Address, storage: Storage) -> Iterator[ListedObject]:
    """Every object below the address, which is taken as a folder, sorted by key; empty if there are none.

    Keys are untrusted: `a/../../b`, `a//b` and a key that is also a folder may be among them. Objects elsewhere are left out.
    """
    from pyarrow import fs

    system = file_system(address, storage)
    selector = fs.FileSelector(address.path, recursive=True, allow_not_found=True)
    infos = patiently(lambda: system.get_file_info(selector), address, storage, is_long=True)
    try:
        found = [(str(info.path)[len(address.bucket) + 1 :], info) for info in infos if info.type == fs.FileType.File]
    except UnicodeDecodeError:
        raise InputError(f"{address}: the server lists keys that are not valid UTF-8; rename these objects") from None
    for key, info in sorted(found, key=lambda pair: pair[0]):
        if key.startswith(f"{address.key}/") or not address.key:
            yield ListedObject(key, int(info.size), int(info.mtime_ns or 0))


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class ObjectGoneError(DataError):
    """An object was removed while it was read."""


class ObjectFile(io.RawIOBase):
    """An object as a readable file, fetched in ranges that grow with sequential reads. `stand` is its state when it was opened,
    `stand_now` its current one. Raises FileNotFoundError on opening, DataError if the object shrinks or disappears later."""

    FAR_BYTES = LONGEST_RANGE_BYTES
    """For places closer together than this, one request that includes the bytes between them is faster than two."""

    def __init__(self, address: Address, storage: Storage) -> None:
        self.address, self._storage = address, storage
        self._source, self.stand = patiently(self._open, address, storage)
        self._place = 0
        self._window, self._window_start = b"", 0
        self._range_bytes = FIRST_RANGE_BYTES

    def _open(self) -> tuple[Any, ObjectStand]:
        source = file_system(self.address, self._storage).open_input_file(self.address.path)
        facts = {_text(name).lower(): _text(value) for name, value in (source.metadata() or {}).items()}
        modified_ns = 0
        with contextlib.suppress(ValueError, KeyError):
            modified_ns = _nanoseconds(facts["last-modified"])
        return source, ObjectStand(source.size(), facts.get("etag", facts.get("generation", "")), modified_ns)

    def stand_now(self) -> ObjectStand:
        """The object's current state, queried from the server."""
        return patiently(self._open, self.address, self._storage)[1]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self.stand.size}[whence]
        self._place = max(0, start + offset)
        return self._place

    def read(self, size: int | None = -1) -> bytes:
        rest = max(0, self.stand.size - self._place)
        missing = rest if size is None or size < 0 else min(size, rest)
        pieces = []
        while missing:
            piece = self._piece(missing)
            pieces.append(piece)
            missing -= len(piece)
            self._place += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return self.read()

    def _piece(self, size: int) -> bytes:
        """Between 1 and `size` bytes from the current position."""
        inside = self._place - self._window_start
        if not 0 <= inside < len(self._window):
            read_on = self._window and inside == len(self._window)
            self._range_bytes = min(2 * self._range_bytes, LONGEST_RANGE_BYTES) if read_on else FIRST_RANGE_BYTES
            asked_for = max(self._range_bytes, min(size, LONGEST_RANGE_BYTES))
            length = min(asked_for, self.stand.size - self._place)
            self._window = self._range(self._place, length)
            self._window_start, inside = self._place, 0
        return self._window[inside : inside + size]

    def _range(self, start: int, length: int) -> bytes:
        """The bytes of a range. pyarrow reports a complete read even if the server's answer was too short, and leaves the rest of
        the buffer as it was. So the buffer's last byte is set before the request; if it is unchanged afterwards, a second request
        with another value tells whether it was really read."""
        for unlikely in _UNLIKELY:
            data = patiently(partial(self._fetch, start, length, unlikely), self.address, self._storage)
            if data[-1] != unlikely:
                return data
        if (now := self.stand_now().size) != self.stand.size:
            raise self._changed(f"it has {now:,} bytes now, {self.stand.size:,} before")
        raise ServiceError(
            f"{self.address}: of {length:,} bytes from byte {start:,} on {endpoint_of(self.address, self._storage)} sends fewer, "
            "but reports all of them; check proxies in between, then run the same command again"
        )

    def _fetch(self, start: int, length: int, last: int) -> bytes:
        buffer = bytearray(length)
        buffer[-1] = last
        try:
            self._source.seek(start)
            got = self._source.readinto(buffer)
        except FileNotFoundError:
            raise self._gone() from None
        except OSError as error:
            # The reason that a server gives may be longer than the range, and then pyarrow does not read it.
            if _UNREAD in str(error):
                try:
                    self._open()
                except FileNotFoundError:
                    raise self._gone() from None
            raise
        if got != length:
            raise self._changed(f"it ended at byte {start + got:,} of {self.stand.size:,}")
        return bytes(buffer)

    def _gone(self) -> ObjectGoneError:
        return ObjectGoneError(str(self._changed("it is gone")))

    def _changed(self, how: str) -> DataError:
        return DataError(f"{self.address}: changed while it was read ({how}); run again when nothing writes to it")


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _nanoseconds(text: str) -> int:
    """Nanoseconds since 1970 of an HTTP or ISO date."""
    import datetime

    if text[:3].isalpha():
        return int(parsedate_to_datetime(text).timestamp()) * 10**9
    return int(datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()) * 10**9


def read_object(address: Address, storage: Storage) -> bytes:
    """All bytes of a small object. Raises FileNotFoundError, and InputError for a large one."""
    with ObjectFile(address, storage) as file:
        if file.stand.size > MAX_JSON_BYTES:
            raise InputError(
                f"{address}: {file.stand.size:,} bytes, and no more than {MAX_JSON_BYTES:,} are read of such an object; see who "
                "put it"
            )
        try:
            return file.read()
        except ObjectGoneError:
            raise FileNotFoundError(2, "No such object any more", str(address)) from None


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def put_object(address: Address, data: bytes, storage: Storage) -> None:
    """Stores these bytes as the object, atomically: readers see the previous content or all of the new one."""

    def put() -> None:
        with file_system(address, storage).open_output_stream(address.path, compression=None) as sink:
            sink.write(data)

    patiently(put, address, storage)


def put_file(address: Address, path: str | os.PathLike[str], storage: Storage) -> None:
    """Stores a file's bytes as the object, sent in pieces."""

    def put() -> None:
        system = file_system(address, storage)
        with open(path, "rb", buffering=0) as source, system.open_output_stream(address.path, compression=None) as sink:
            while piece := source.read(_COPY_BYTES):
                sink.write(piece)

    patiently(put, address, storage, is_long=True)


def remove_object(address: Address, storage: Storage) -> None:
    """Removes the object if it exists."""

    def remove() -> None:
        with contextlib.suppress(FileNotFoundError):
            file_system(address, storage).delete_file(address.path)

    patiently(remove, address, storage)


def remove_folder(address: Address, storage: Storage) -> None:
    """Removes every object below the address."""

    def remove() -> None:
        with contextlib.suppress(FileNotFoundError):
            file_system(address, storage).delete_dir(address.path)

    patiently(remove, address, storage, is_long=True)
