"""Which workers a scheduler knows, which of them respond, and which are silent or stuck, judged by their heartbeats."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping, Sequence
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

    A worker is stuck if for as long it has been paused, since its memory is full, without working on anything: memory that was
    not freed when its last task ended stays full, and the tasks that it was given never begin.
    """

    def __init__(self, silent_s: float) -> None:
        self._silent_s = silent_s
        self._seen: dict[str, tuple[float, float]] = {}
        self._idle: dict[str, float] = {}
        """Since when workers have been paused without working."""
        self._checked = 0.0

    def answering(self, workers: Mapping[str, Mapping[str, Any]], now: float) -> dict[str, Mapping[str, Any]]:
        """The scheduler's workers by address, without silent ones. `now` is in monotonic seconds."""
        if now - self._checked > self._silent_s:
            # This process may have been frozen, and what it was sent meanwhile is still on its way to the scheduler in it.
            self._seen = {address: (seen, now) for address, (seen, _) in self._seen.items()}
            self._idle = {}
        self._checked = now
        for address, worker in workers.items():
            if address not in self._seen or self._seen[address][0] != worker["last_seen"]:
                self._seen[address] = (worker["last_seen"], now)
        self._seen = {address: seen for address, seen in self._seen.items() if address in workers}
        idle = {address for address, worker in workers.items() if worker.get("status") == "paused" and not _works(worker)}
        self._idle = {address: self._idle.get(address, now) for address in idle}
        return {address: worker for address, worker in workers.items() if now - self._seen[address][1] <= self._silent_s}

    @property
    def stuck(self) -> set[str]:
        """The workers that were stuck when this process last checked."""
        return {address for address, since in self._idle.items() if self._checked - since > self._silent_s}


def _works(worker: Mapping[str, Any]) -> bool:
    counts = worker["metrics"].get("task_counts", {})
    return any(counts.get(state) for state in ("executing", "long-running"))


def restart(client: Client, workers: Sequence[str]) -> None:
    """Makes the scheduler give the tasks of these workers to others and nannies replace the workers, as it would by itself after
    worker-ttl, which is five minutes by default."""

    async def on_scheduler(dask_scheduler: Any) -> None:
        await dask_scheduler.restart_workers(workers, wait_for_workers=False, stimulus_id="w2v-silent")

    def tell() -> None:
        with contextlib.suppress(Exception):  # worker-ttl will do it then
            client.run_on_scheduler(on_scheduler)

    # In a thread, because killing a frozen process takes several seconds.
    threading.Thread(target=tell, name="restart", daemon=True).start()
