"""Lost attempts at a round, so that no worker goes on waiting for one that will not come.

When a worker dies, its connections close, and the workers connected to it notice at once. A worker that waits for a peer it is
not yet connected to cannot notice; so the driver sends every worker the names of the lost attempt's tasks.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterable, Iterator

from pipeline.errors import TemporaryError

ATTENTION_S = 0.2
"""How often a waiting worker checks whether its attempt was abandoned."""


class PeerLostError(TemporaryError):
    """A process of the round died or did not answer in time; the round is run again from its checkpoint."""


class Attempts:
    """The lost attempts that a worker knows of, and the attempt that each of its threads takes part in."""

    def __init__(self) -> None:
        self._lost: deque[str] = deque(maxlen=1000)
        self._begun: deque[str] = deque(maxlen=1000)
        self._own = threading.local()

    @contextlib.contextmanager
    def part_of(self, name: str) -> Iterator[None]:
        """Makes waits of this thread inside the block end soon after `abandon([name])`. Raises PeerLostError the second time:
        what is trained again must be a new attempt, or nobody would be told of the lost one."""
        if name in self._begun:
            raise PeerLostError("a worker's part of the round was done, but its result was lost")
        self._begun.append(name)
        with self.helping(name):
            yield

    @contextlib.contextmanager
    def helping(self, name: str | None) -> Iterator[None]:
        """Makes this thread take part in an attempt that another thread has begun."""
        before, self._own.name = self.own, name
        try:
            yield
        finally:
            self._own.name = before

    @property
    def own(self) -> str | None:
        """The attempt that this thread takes part in."""
        return getattr(self._own, "name", None)

    def abandon(self, names: Iterable[str]) -> None:
        """Marks attempts as lost, which ends all waiting for their workers."""
        self._lost.extend(names)

    def raise_if_lost(self) -> None:
        """Raises PeerLostError if the attempt that this thread takes part in is lost."""
        if self.own in self._lost:
            raise PeerLostError("another worker of the round was lost before all had met")
