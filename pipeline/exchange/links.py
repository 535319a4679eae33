"""Messages of rows between the workers of a round, sent from and received into existing memory.

A link is one connection between two workers. The plan of a merge determines the messages on it, so both ends know what comes
next: the sender passes the parameters themselves, the receiver says into which memory a peer's next message goes, and nothing is
allocated, copied or decoded between the socket and the rows. The one thread that merges serves all links of a worker: it writes
and reads whatever is ready and sleeps when nothing is. There is no event loop and no second thread to wake up.

    header    of what follows: phase, number of the merge, bytes, checksum
    rows      raw float32

Rows carry a checksum if the connection has no strong one: TLS detects damage anyway, but TCP's 16-bit checksum is weak, and
training would silently go on with damaged parameters. The checksum is the sum of all 64-bit words: it detects all damage within
one word, and random damage to several words except once in 2⁶⁴. A CRC-32 took a fifth of the processor time of a large merge.

Nothing is written to a peer that does not read, and nothing unexpected is read, so memory stays bounded without counting
messages.

A participant that has finished sends a goodbye and leaves, which is an error only for a peer that still needs something from it.
A connection that breaks without a goodbye, as with a dying process, ends the group at once.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.exchange.attempts import ATTENTION_S, Attempts, PeerLostError

Tag = tuple[int, str]
"""(number of the merge in the group, phase): identifies a message of a link."""
PHASES = ("goodbye", "hello", "rows", "merged")
_HEADER = struct.Struct("<BQQQ")
_TURN_BYTES = 1 << 20
"""Bytes written to or read from one peer before it is the next one's turn."""
_JOINED_BYTES = 1 << 16
"""With TLS the first bytes of a message are written as one piece: a piece is at least one record, one system call and one packet,
and these take longer than anything else about a small message."""
_CLOSE_S = 5.0
_NOT_READY = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


@dataclass
class _Message:
    """Rows to be sent or received."""

    tag: Tag
    arrays: Sequence[memoryview]
    ready: Callable[[], None]
    """Called before its first byte is sent, or after its last byte has arrived and its checksum has been verified."""

    @property
    def bytes(self) -> int:
        return sum(array.nbytes for array in self.arrays)

    def checksum(self) -> int:
        words = (np.frombuffer(array, np.uint64) for array in self.arrays)
        return sum(int(np.add.reduce(array)) for array in words) % (1 << 64)

    def header(self, is_checked: bool) -> memoryview:
        number, phase = self.tag
        return memoryview(_HEADER.pack(PHASES.index(phase), number, self.bytes, self.checksum() if is_checked else 0))


def message_of(tag: Tag, arrays: Iterable[NDArray[Any]], ready: Callable[[], None] = lambda: None) -> _Message:
    """A message of these arrays, each of whole 64-bit words."""
    return _Message(tag, [array.data.cast("B") for array in arrays if array.nbytes], ready)


@dataclass
class Link:
    """One connection, with non-blocking reads and writes."""

    socket: socket.socket
    name: str
    """Name of the participant at the other end, for messages."""
    outgoing: deque[_Message] = field(default_factory=deque)
    expected: deque[_Message] = field(default_factory=deque)
    received: deque[Tag] = field(default_factory=deque)
    """Expected messages that have arrived and have not been taken by `Links.receive` yet."""
    has_left: bool = False
    _writing: deque[memoryview] = field(default_factory=deque)
    """The rest of the first outgoing message."""
    _reading: deque[memoryview] = field(default_factory=deque)
    """The memory still to be filled of the header or the first expected message."""
    _header: bytearray = field(default_factory=lambda: bytearray(_HEADER.size))
    _next: tuple[Tag, int, int] | None = None
    """Tag, bytes and checksum of the message whose header has been read."""

    def __post_init__(self) -> None:
        self.socket.setblocking(False)
        self._is_checked = not isinstance(self.socket, ssl.SSLSocket)
        self._reading.append(memoryview(self._header))

    @property
    def events(self) -> int:
        """The events to poll for: always the header of the next message, so that a peer that leaves is noticed."""
        reads = not self.has_left and (self._next is None or bool(self.expected))
        return (select.POLLIN if reads else 0) | (select.POLLOUT if self.outgoing else 0)

    def work(self) -> bool:
        """Writes and reads what is ready; returns whether there was anything. Raises PeerLostError if the peer is gone."""
        try:
            wrote = bool(self.outgoing) and self._write()
            return (not self.has_left and self._read()) or wrote
        except _NOT_READY:
            return False
        except (OSError, ValueError) as error:
            raise self._broken(error) from None

    def _write(self) -> bool:
        left = _TURN_BYTES
        while self.outgoing and left > 0:
            if not self._writing:
                message = self.outgoing[0]
                message.ready()
                pieces = [message.header(self._is_checked), *message.arrays]
                self._writing.extend(pieces if self._is_checked else _joined(pieces, _JOINED_BYTES))
            try:
                sent = self._send()
            except _NOT_READY:
                break
            left -= sent
            _advance(self._writing, sent)
            if not self._writing:
                self.outgoing.popleft()
        return left < _TURN_BYTES

    def _send(self) -> int:
        # TLS takes one piece of memory at a time.
        return self.socket.sendmsg(list(self._writing)) if self._is_checked else self.socket.send(self._writing[0])

    def _read(self) -> bool:
        left, messages = _TURN_BYTES, 0
        while left > 0 and not self.has_left:
            if not self._reading and not self._begin():
                break
            left -= self._fill()
            if self._reading:
                break
            self._finish()
            messages += 1
        return left < _TURN_BYTES or messages > 0

    def _fill(self) -> int:
        """Reads what is there, up to the end of the header or message; returns the bytes read."""
        filled, receive = 0, self.socket.recv_into
        while self._reading:
            piece, got = self._reading[0], 0
            try:
                # With TLS one record at a time.
                while got < piece.nbytes:
                    if not (more := receive(piece[got:])):
                        raise ConnectionError("it was closed at the other end")
                    got += more
            except _NOT_READY:
                self._reading[0] = piece[got:]
                return filled + got
            self._reading.popleft()
            filled += got
        return filled

    def _begin(self) -> bool:
        """Whether the message whose header has arrived is expected; if so, prepares to read it into its memory."""
        if not self.expected or self._next is None:
            return False
        tag, size, _ = self._next
        wanted = self.expected[0]
        if (tag, size) != (wanted.tag, wanted.bytes):
            raise PeerLostError(
                f"expected {wanted.tag} with {wanted.bytes:,} bytes from {self.name}, found {tag} with {size:,}; "
                "the workers are out of step"
            )
        self._reading.extend(wanted.arrays)
        return True

    def _finish(self) -> None:
        if self._next is None:
            phase, number, size, checksum = _HEADER.unpack(self._header)
            if phase >= len(PHASES):
                raise ValueError("what arrived is not a header of rows")
            self._next = (number, PHASES[phase]), size, checksum
            self.has_left = phase == 0
            return
        message = self.expected.popleft()
        if self._is_checked and message.checksum() != self._next[2]:
            raise ValueError(f"{message.bytes:,} bytes of rows arrived damaged")
        message.ready()
        self.received.append(message.tag)
        self._next = None
        self._reading.append(memoryview(self._header))

    def _broken(self, error: Exception) -> PeerLostError:
        return PeerLostError(f"the link to {self.name} broke ({error})")

    def say_goodbye(self) -> None:
        """Sends a goodbye, so that the peer does not take the end of the connection for a loss. Reads what it has sent meanwhile,
        because closing a socket with unread data resets the connection and could discard the goodbye."""
        with contextlib.suppress(OSError, ValueError, PeerLostError):
            self.socket.send(message_of((0, "goodbye"), ()).header(False))
            self.work()


def keep_open(connection: socket.socket, seconds: float) -> None:
    """Keeps a connection whose peer reads nothing for so long: it may still be training, which does not mean that it is dead.
    Linux ends a connection whose receive window is full for TCP_USER_TIMEOUT although the peer answers (since 5.11)."""
    if hasattr(socket, "TCP_USER_TIMEOUT") and connection.family in (socket.AF_INET, socket.AF_INET6):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, min(int(seconds * 1000), (1 << 31) - 1))


def _joined(pieces: Sequence[memoryview], most: int) -> list[memoryview]:
    """The first `most` bytes as one piece, and the rest."""
    left, beginning, rest = most, [], []
    for piece in pieces:
        beginning.append(piece[:left])
        rest.append(piece[left:])
        left = max(0, left - piece.nbytes)
    return [memoryview(b"".join(beginning)), *filter(None, rest)]


def _advance(pieces: deque[memoryview], done: int) -> None:
    while pieces and done >= pieces[0].nbytes:
        done -= pieces.popleft().nbytes
    if done:
        pieces[0] = pieces[0][done:]


class Links:
    """One participant's links to the others of its group."""

    def __init__(self, links: Mapping[int, Link], patience_s: float, attempts: Attempts) -> None:
        self._links = dict(links)
        self._patience_s, self._allowance_s = patience_s, 0.0
        self.attempts = attempts
        self._is_lost = self._is_given_up = False

    def allow(self, seconds: float) -> None:
        """From now on waits so much longer than its patience, because peers may train more slowly."""
        self._allowance_s = seconds
        for link in self._links.values():
            keep_open(link.socket, self._patience_s + seconds)

    def to(self, peer: int) -> Link:
        """The link to a peer."""
        return self._links[peer]

    def send(self, peer: int, tag: Tag, arrays: Iterable[NDArray[Any]], fill: Callable[[], None] = lambda: None) -> None:
        """Queues a message. The arrays must not change before `flush`, or before the peer has answered: they are sent later,
        without a copy. `fill` is called just before that, after all earlier messages to the peer have been sent, and may write
        to the arrays, so several messages can use the same memory."""
        self._links[peer].outgoing.append(message_of(tag, arrays, fill))

    def expect(self, peer: int, tag: Tag, arrays: Iterable[NDArray[Any]], use: Callable[[], None] = lambda: None) -> None:
        """Declares that the peer's next message, after those already expected, has this tag and goes into these arrays. `use` is
        called as soon as it has arrived, before more is read from the peer, so several messages can use the same memory."""
        self._links[peer].expected.append(message_of(tag, arrays, use))

    def receive(self, peer: int) -> None:
        """Waits for a peer's first expected message that has not been taken yet. Raises PeerLostError if any peer is lost."""
        link = self._links[peer]

        def wanted() -> str:
            return "merge {}, {}".format(*link.expected[0].tag)

        def is_there() -> bool:
            if link.has_left and not link.received:
                raise PeerLostError(f"{link.name} left the round before it sent {wanted()}")
            return bool(link.received)

        self._wait(is_there, lambda: f"{link.name} ({wanted()})")
        link.received.popleft()

    def receive_all(self) -> None:
        """Waits for all expected messages."""
        for peer, link in self._links.items():
            while link.expected or link.received:
                self.receive(peer)

    def flush(self) -> None:
        """Waits until everything queued has been sent, so that its memory may change."""

        def slow() -> list[Link]:
            return [link for link in self._links.values() if link.outgoing]

        def is_sent() -> bool:
            for link in slow():
                if link.has_left:
                    raise PeerLostError(f"{link.name} left the round before it was sent all of a merge")
            return not slow()

        self._wait(is_sent, lambda: ", ".join(f"{link.name}, which reads nothing" for link in slow()))

    def give_up(self) -> None:
        """Ends another thread's waiting within ATTENTION_S."""
        self._is_given_up = True

    def close(self) -> None:
        """Leaves the group after sending what is queued. After a loss the connections are dropped instead."""
        if not self._is_lost:
            self._patience_s, self._allowance_s = min(self._patience_s, _CLOSE_S), 0.0
            with contextlib.suppress(PeerLostError):
                self.flush()
                for link in self._links.values():
                    link.say_goodbye()

    def _wait(self, is_done: Callable[[], bool], what: Callable[[], str]) -> None:
        try:
            moved = time.monotonic()
            while not is_done():
                if any([link.work() for link in self._links.values()]):  # a list: all of them
                    moved = time.monotonic()
                    continue
                self.attempts.raise_if_lost()
                if self._is_given_up:
                    raise PeerLostError("this worker gave up the merge")
                waited, most = time.monotonic() - moved, self._patience_s + self._allowance_s
                if waited > most:
                    raise PeerLostError(f"waited {most:.4g} s for {what()}, which did not come; its worker is taken for lost")
                self._sleep()
        except BaseException:
            self._is_lost = True
            raise

    def _sleep(self) -> None:
        """Sleeps until something can be read or written, for ATTENTION_S at most."""
        poll = select.poll()
        for link in self._links.values():
            if (events := link.events) and (descriptor := link.socket.fileno()) >= 0:
                poll.register(descriptor, events)
        poll.poll(min(ATTENTION_S, self._patience_s) * 1000)
