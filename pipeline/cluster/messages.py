"""Messages from tasks to the driver while they run: small plain data, now and then.

Nothing depends on a message: one that is lost, late or from an abandoned attempt changes no result. On a Dask worker it is sent
as a Dask event over the connection to the scheduler; in the driver's own process it is a function call.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distributed import Client

Listener = Callable[[Any], None]


def ignore(message: Any) -> None:
    """A listener that drops every message."""


class _Channel(threading.local):
    tell: Listener = staticmethod(ignore)


_channel = _Channel()
"""The channel of the task that runs in this thread."""


def tell(message: Any) -> None:
    """Sends a message that msgpack can serialise to the driver of the task that runs in this thread, if it listens."""
    _channel.tell(message)


@contextlib.contextmanager
def heard_by(listener: Listener) -> Iterator[None]:
    """Delivers the messages sent by `tell` inside the block to `listener`."""
    before = _channel.tell
    _channel.tell = listener
    try:
        yield
    finally:
        _channel.tell = before


@contextlib.contextmanager
def listening(client: Client, listeners: Mapping[str, Listener]) -> Iterator[None]:
    """Within it, each of the listeners is called, in the client's own thread, with what workers say under its topic."""
    for topic, listener in listeners.items():
        client.subscribe_topic(topic, lambda event, listener=listener: listener(event[1]))
    try:
        yield
    finally:
        with contextlib.suppress(Exception):  # the connection may be gone
            for topic in listeners:
                client.unsubscribe_topic(topic)


class Mailbox:
    """The driver's end on a cluster: messages arrive in the client's own thread and are passed on in the caller's thread."""

    def __init__(self, client: Client, topic: str) -> None:
        self._client = client
        self._topic = topic
        self._messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._subscribed = False

    def hand_over_to(self, listener: Listener) -> Callable[[], None]:
        """A function that passes to `listener` the messages that have arrived since its last call."""
        if not self._subscribed:
            self._subscribed = True
            self._client.subscribe_topic(self._topic, lambda event: self._messages.put(event[1]))

        def hand_over() -> None:
            with contextlib.suppress(queue.Empty):
                while True:
                    listener(self._messages.get_nowait())

        return hand_over
