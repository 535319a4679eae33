"""What a task says to the driver while it works: small plain data, now and then.

Nothing depends on a message: one that is lost, late or from an attempt that was given up changes no result. On a Dask worker
it goes as one of Dask's events over the connection to the scheduler; in the driver's own process it is a call.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distributed import Client

Listener = Callable[[Any], None]


def ignore(message: Any) -> None:
    """A listener that drops every message."""


class _Channel(threading.local):
    tell: Listener = staticmethod(ignore)


_channel = _Channel()
"""Of the task that runs in this thread."""


def tell(message: Any) -> None:
    """Sends what msgpack can hold to whoever started the task that runs in this thread; nowhere if nobody listens."""
    _channel.tell(message)


@contextlib.contextmanager
def heard_by(listener: Listener) -> Iterator[None]:
    """What the tasks inside `tell` goes to `listener`."""
    before = _channel.tell
    _channel.tell = listener
    try:
        yield
    finally:
        _channel.tell = before


class Mailbox:
    """The driver's end, on a cluster: messages come in the client's own thread and are handed over in the one that asks."""

    def __init__(self, client: Client, topic: str) -> None:
        self._client = client
        self._topic = topic
        self._messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._subscribed = False

    def hand_over_to(self, listener: Listener) -> Callable[[], None]:
        """A function that gives `listener` what has come since it was last called."""
        if not self._subscribed:
            self._subscribed = True
            self._client.subscribe_topic(self._topic, lambda event: self._messages.put(event[1]))

        def hand_over() -> None:
            with contextlib.suppress(queue.Empty):
                while True:
                    listener(self._messages.get_nowait())

        return hand_over
