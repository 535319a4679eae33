"""The exchange between processes on one host: shared memory and a barrier.

Hot merges come every few milliseconds, more often than a Dask round trip (10 ms) allows, so the exchange has its own path inside
long round tasks. Copies that several workers of one host train lie in shared memory, where any of them can read and write the
rows of any copy, and only arrivals at a merge remain to be exchanged: one byte to a hub over a Unix socket and one byte back.
When a process dies, its socket closes, so its peers notice at once instead of waiting. The driver tells them about a process that
never came at all (`attempts`).

The memory and the socket are in a folder that only this user can enter, removed as soon as all processes have opened them. If
the process that made it is killed before that, the next group on this host removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import select
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import TemporaryError
from pipeline.exchange.attempts import ATTENTION_S, Attempts, PeerLostError
from pipeline.exchange.host import usable_cores
from pipeline.exchange.huge_pages import map_shared, reserve

_CONNECT_PAUSE_S = 0.005
SPIN_S = 0.0005
"""How long a participant polls before it goes to sleep: longer than lanes usually lag behind each other."""


# ── meeting on one host ──────────────────────────────────────────────────────────────────────────────────────────────


def nothing_to_do() -> bool:
    return False


class Barrier(Protocol):
    """`wait()` returns once every participant has called it, and raises PeerLostError if one no longer can. While it waits, it
    calls `meanwhile` as long as that returns True, meaning that it did some work; each call must be short, or the others wait.
    After `allow(s)` it waits so many seconds longer than its patience, because others may train more slowly."""

    def wait(self, meanwhile: Callable[[], bool] = nothing_to_do) -> None: ...

    def allow(self, seconds: float) -> None: ...

    def close(self) -> None: ...


class NoBarrier:
    """The barrier of one participant."""

    def wait(self, meanwhile: Callable[[], bool] = nothing_to_do) -> None:
        return

    def allow(self, seconds: float) -> None:
        return

    def close(self) -> None:
        return


class SocketBarrier:
    """Participant 0 is the hub: it collects one byte from each other participant, then answers all of them.

    A participant without other work polls for SPIN_S before it goes to sleep: lanes do equal work, so the others are rarely far
    behind, and waking up takes longer than most waits. With more participants than cores it sleeps at once.
    """

    def __init__(
        self, sockets: list[socket.socket], is_hub: bool, participants: int, patience_s: float, attempts: Attempts
    ) -> None:
        self._sockets = sockets
        self._is_hub = is_hub
        self._attempts = attempts
        self._has_core = participants <= usable_cores()
        self._patience_s, self._allowance_s = patience_s, 0.0
        for peer in sockets:
            peer.setblocking(False)

    def allow(self, seconds: float) -> None:
        self._allowance_s = seconds

    def wait(self, meanwhile: Callable[[], bool] = nothing_to_do) -> None:
        if not self._has_core:
            meanwhile = nothing_to_do
        try:
            if self._is_hub:
                self._receive_all(meanwhile)
                self._send_all()
            else:
                self._send_all()
                self._receive_all(meanwhile)
        except OSError as error:
            raise PeerLostError(f"the connection to a lane's worker broke ({error.strerror})") from None

    def _receive_all(self, meanwhile: Callable[[], bool]) -> None:
        for peer in self._sockets:
            if self._receive(peer, meanwhile) != b".":
                raise PeerLostError("a lane's worker went away in the middle of a round")

    def _receive(self, peer: socket.socket, meanwhile: Callable[[], bool]) -> bytes:
        began = idle_since = time.perf_counter()
        while True:
            try:
                return peer.recv(1)
            except BlockingIOError:
                if meanwhile():
                    idle_since = time.perf_counter()
                    continue
                now = time.perf_counter()
                if (self._has_core and now - idle_since < SPIN_S) or _readable(peer, ATTENTION_S):
                    continue
                self._attempts.raise_if_lost()
                if now - began > self._patience_s + self._allowance_s:
                    raise PeerLostError("a lane's worker did not reach the merge in time; it is taken for lost") from None

    def _send_all(self) -> None:
        # At most one byte is in flight on a connection, so there is always room for it.
        for peer in self._sockets:
            peer.sendall(b".")

    def close(self) -> None:
        for peer in self._sockets:
            peer.close()


def _readable(peer: socket.socket, timeout_s: float) -> bool:
    """Whether something can be read before the timeout. (`select.select` takes no descriptors from 1,024 on.)"""
    poll = select.poll()
    poll.register(peer, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))


def meet(directory: Path, participant: int, participants: int, patience_s: float, attempts: Attempts) -> Barrier:
    """The barrier of `participants` processes on this host that all call this with the same private directory."""
    if participants == 1:
        return NoBarrier()
    address = _socket_address(directory)
    deadline = time.monotonic() + patience_s
    if participant == 0:
        sockets = _accept_all(address, participants - 1, deadline, attempts)
    else:
        sockets = [_connect(address, deadline, attempts)]
    return SocketBarrier(sockets, participant == 0, participants, patience_s, attempts)


def _socket_address(directory: Path) -> str:
    # A Unix socket's path is limited to 107 bytes; the path of the shared folder is short by construction.
    return str(directory / "hub")


def _accept_all(address: str, count: int, deadline: float, attempts: Attempts) -> list[socket.socket]:
    peers: list[socket.socket] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(address)
        listener.listen(count)
        listener.settimeout(ATTENTION_S)
        try:
            while len(peers) < count:
                attempts.raise_if_lost()
                if time.monotonic() > deadline:
                    raise PeerLostError(f"only {len(peers) + 1} of {count + 1} workers came to the round")
                with contextlib.suppress(TimeoutError):
                    peers.append(listener.accept()[0])
        except PeerLostError:
            for peer in peers:
                peer.close()
            raise
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(address)
    return peers


def _connect(address: str, deadline: float, attempts: Attempts) -> socket.socket:
    while True:
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            peer.connect(address)
            return peer
        except (FileNotFoundError, ConnectionRefusedError):
            peer.close()
            attempts.raise_if_lost()
            if time.monotonic() > deadline:
                raise PeerLostError("the first worker of the round did not show up") from None
            time.sleep(_CONNECT_PAUSE_S)


PLACES = (Path("/dev/shm"), Path(tempfile.gettempdir()))  # noqa: S108 - a 0700 folder is made inside


@dataclass(frozen=True)
class MeetingPlace:
    """The private folder of the processes of one group."""

    path: Path
    lock: int | None
    """In the process that made it, a descriptor whose lock shows that this process is alive; None in the others."""

    def close(self) -> None:
        """Removes the folder if this process made it; processes that have opened its files keep them."""
        if self.lock is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self.lock)


def open_meeting_place(group_key: str, bytes_needed: int, first: bool, patience_s: float, attempts: Attempts) -> MeetingPlace:
    """The folder of the processes of one group. The first participant makes it, and closes it once all have arrived; the others
    wait for it.

    It is in memory (/dev/shm) if there is room, otherwise in the folder for temporary files, which works too, through the page
    cache.
    """
    name = f"{_prefix()}{hashlib.sha256(group_key.encode()).hexdigest()[:16]}"
    if first:
        remove_deserted_places()
        for place in PLACES:
            if place.is_dir() and os.access(place, os.W_OK) and shutil.disk_usage(place).free > bytes_needed:
                return _make_place(place / name)
        raise TemporaryError(
            f"sharing parameters needs {bytes_needed:,} bytes in {' or '.join(map(str, PLACES))}, and neither has them; "
            "make room there or use fewer workers on this host"
        )
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        attempts.raise_if_lost()
        for place in PLACES:
            if (place / name).is_dir():
                return MeetingPlace(_checked(place / name), None)
        time.sleep(_CONNECT_PAUSE_S)
    raise PeerLostError("the first worker of the round did not show up")


def remove_deserted_places() -> None:
    """Removes the folders of groups whose first participant was killed before removing them, recognised by their free locks. They
    may hold all copies of the parameters. Other folders, whose names only begin or end like theirs, are left alone."""
    # As `open_meeting_place` and `_make_place` name them.
    made_here = re.compile(rf"{_prefix()}[0-9a-f]{{16}}|\.{_prefix()}[0-9a-z_]{{8}}")
    for path in (found for place in PLACES for found in place.glob(f"*{_prefix()}*") if made_here.fullmatch(found.name)):
        with contextlib.suppress(OSError):  # another process is removing it, or it belongs to another user
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_private(os.fstat(descriptor)):
                    shutil.rmtree(path)
            finally:
                os.close(descriptor)


def _prefix() -> str:
    return f"w2v-{os.getuid()}-"


def _make_place(directory: Path) -> MeetingPlace:
    """The new folder, locked; made under another name first, so that nobody finds it before it is locked."""
    while True:
        made = Path(tempfile.mkdtemp(prefix=f".{_prefix()}", dir=directory.parent))
        with contextlib.suppress(FileNotFoundError):  # removed as deserted just before it was locked
            descriptor = os.open(made, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                made.rename(directory)
            except BaseException:
                os.close(descriptor)
                raise
            return MeetingPlace(directory, descriptor)


def _checked(directory: Path) -> Path:
    try:
        found = directory.stat()
    except FileNotFoundError:
        raise PeerLostError(f"{directory} went away before all workers of the round had met there") from None
    if not _is_private(found):
        raise TemporaryError(f"{directory}: expected a folder of this user that nobody else can enter; remove it")
    return directory


def _is_private(found: os.stat_result) -> bool:
    return found.st_uid == os.getuid() and not found.st_mode & 0o077


def make_shared_array(path: Path, shape: tuple[int, int], *, huge: bool = True) -> NDArray[np.float32]:
    """A float32 array of zeros in a new file that other processes can open, with `huge` in huge pages if available
    (`huge_pages`). Raises TemporaryError if there is no room."""
    size = _bytes_of(shape)
    with _opened(path, os.O_CREAT) as descriptor:
        try:
            reserve(descriptor, size, huge=huge)
        except OSError as error:
            raise TemporaryError(f"{path}: cannot reserve {size:,} bytes of shared memory ({error.strerror})") from error
    return open_shared_array(path, shape)


def open_shared_array(path: Path, shape: tuple[int, int]) -> NDArray[np.float32]:
    """The array that another process made in this file."""
    with _opened(path, 0) as descriptor:
        return np.frombuffer(map_shared(descriptor, _bytes_of(shape)), np.float32, count=shape[0] * shape[1]).reshape(shape)


def _bytes_of(shape: tuple[int, int]) -> int:
    return max(1, shape[0] * shape[1] * 4)


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | flags, 0o600)
    except FileNotFoundError:
        # The process that made it gave up, or the file was cleaned up: another attempt will help.
        raise PeerLostError(f"{path.parent} went away before all workers of the round had met there") from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)
