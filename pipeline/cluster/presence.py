"""Which workers of a cluster answer, and which have fallen silent: told from their heartbeats alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Presence:
    """Which workers answer, told from their heartbeats.

    A worker is silent when its last heartbeat has not changed for `silent_s`, on this process's own clock: other machines'
    clocks may differ, and a worker must not be judged by a time when nobody looked. A silent one may be frozen, cut off or
    dead; if it comes back, what it still writes is what was written without it.
    """

    def __init__(self, silent_s: float) -> None:
        self._silent_s = silent_s
        self._seen: dict[str, tuple[float, float]] = {}

    def answering(self, workers: Mapping[str, Mapping[str, Any]], now: float) -> dict[str, Mapping[str, Any]]:
        """Of the scheduler's workers by address, those that are not silent. `now` is in monotonic seconds."""
        for address, worker in workers.items():
            if address not in self._seen or self._seen[address][0] != worker["last_seen"]:
                self._seen[address] = (worker["last_seen"], now)
        self._seen = {address: seen for address, seen in self._seen.items() if address in workers}
        return {address: worker for address, worker in workers.items() if now - self._seen[address][1] <= self._silent_s}
