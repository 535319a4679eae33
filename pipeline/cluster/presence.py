"""Which workers a scheduler knows, which of them respond and which have fallen silent, judged by their heartbeats alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distributed import Client


def registered(client: Client) -> dict[str, dict[str, Any]]:
    """The scheduler's records of its workers, by address.

    `Client.scheduler_info` sometimes returns none at all: it reads a copy that the client overwrites every two seconds with
    one that has only the number of workers."""
    scheduler: Any = client.scheduler
    workers: dict[str, dict[str, Any]] = client.sync(scheduler.identity, n_workers=-1)["workers"]
    return workers


class Presence:
    """Tracks which workers respond, by their heartbeats.

    A worker is silent if its last heartbeat has not changed for `silent_s` on this process's own clock: other machines' clocks
    may differ, and time in which this process did not check must not count. A silent worker may be frozen, cut off or dead; if
    it comes back, whatever it still writes has the same bytes that others wrote in its place.
    """

    def __init__(self, silent_s: float) -> None:
        self._silent_s = silent_s
        self._seen: dict[str, tuple[float, float]] = {}

    def answering(self, workers: Mapping[str, Mapping[str, Any]], now: float) -> dict[str, Mapping[str, Any]]:
        """The scheduler's workers by address, without silent ones. `now` is in monotonic seconds."""
        for address, worker in workers.items():
            if address not in self._seen or self._seen[address][0] != worker["last_seen"]:
                self._seen[address] = (worker["last_seen"], now)
        self._seen = {address: seen for address, seen in self._seen.items() if address in workers}
        return {address: worker for address, worker in workers.items() if now - self._seen[address][1] <= self._silent_s}
