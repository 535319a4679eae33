"""The tasks of this run on a Dask cluster, and their results or errors as they end."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import queue
import uuid
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from pipeline.cluster.state import Item, Result, Task, run_task, state_of
from pipeline.failpoints import reach

if TYPE_CHECKING:
    from distributed import Client, Future
    from tornado.platform.asyncio import AsyncIOLoop

ANSWER_S = 20.0
"""Timeout of a short request to the scheduler."""
Ending: TypeAlias = "concurrent.futures.Future[Any]"


class Endings:
    """The endings of tasks in the order they come, with results fetched.

    Fetching happens during the wait: the worker that holds a result may be lost before it is fetched, so that the task must run
    again, and a blocking call for that result would wait for a worker without checking whether there is one.
    """

    def __init__(self, client: Client, futures: Iterable[Future[Any]]) -> None:
        self._client = client
        self._ended: queue.SimpleQueue[tuple[Future[Any], Ending]] = queue.SimpleQueue()
        for future in futures:
            self.add(future)

    def add(self, future: Future[Any]) -> None:
        """Includes another task."""
        loop = cast("AsyncIOLoop", self._client.loop).asyncio_loop
        ending = asyncio.run_coroutine_threadsafe(self._client.gather(future, asynchronous=True), loop)
        ending.add_done_callback(functools.partial(self._put, future))

    def _put(self, future: Future[Any], ending: Ending) -> None:
        self._ended.put((future, ending))

    def next(self, timeout_s: float) -> tuple[Future[Any], Ending] | None:
        """The next task and its ending, whose `result()` returns or raises at once; None if none comes in time."""
        try:
            return self._ended.get(timeout=timeout_s)
        except queue.Empty:
            return None


class Pieces:
    """The submitted tasks of a map: one per item, or more if a worker fell silent over one. `ticket` is the resource that workers
    must have."""

    def __init__(self, client: Client, ticket: str, task: Task[Any, Any], items: Sequence[Any], label: str) -> None:
        self._client = client
        self._task, self._items, self._label = task, items, label
        self._ticket = {ticket: 1}
        # Unique keys: a key derived from the arguments would return an earlier result without doing the work.
        self._prefix = f"{label.replace(' ', '-')}-{uuid.uuid4().hex[:8]}"
        self._futures = {self._submit(index): index for index in range(len(items))}
        self._endings = Endings(client, self._futures)
        self._open = set(self._futures.values())
        self._given: set[Any] = set()
        self._offered: set[str] = set()
        self.results: list[Any] = [None] * len(items)

    @property
    def done(self) -> bool:
        return not self._open

    def _submit(self, index: int, again: int = 0, workers: Sequence[str] | None = None) -> Future[Any]:
        return self._client.submit(
            _run_named, self._task, self._items[index], f"{self._label}.{index}", resources=self._ticket, workers=workers,
            key=f"{self._prefix}-{index}" + (f"-again-{again}" if again else ""), pure=False,
        )  # fmt: skip

    def next(self, timeout_s: float) -> tuple[Any] | None:
        """The next item's result in a tuple, once per item; raises its error. None if none comes in time."""
        ended = self._endings.next(timeout_s)
        if not ended or (index := self._futures[ended[0]]) not in self._open:
            return None
        self.results[index] = ended[1].result()
        self._open.remove(index)
        return (self.results[index],)

    def lost_in(self, message: Any) -> list[str]:
        """The worker in a list if the message says that it was lost with tasks of these (`guest.departure_plugin`)."""
        lost = message.get("lost", ()) if isinstance(message, dict) else ()
        return [message["worker"]] if any(key.startswith(self._prefix) for key in lost) else []

    def offer_to(self, able: Iterable[str]) -> None:
        """Makes the scheduler reconsider tasks that no worker could take once workers have got the ticket: by itself it does so
        only when a worker joins, which is before the worker gets its ticket."""
        if fresh := sorted(set(able) - self._offered):
            self._offered.update(fresh)

            def look_again(dask_scheduler: Any) -> None:
                for address in fresh:
                    if (worker := dask_scheduler.workers.get(address)) in dask_scheduler.running:
                        runnable = dask_scheduler.bulk_schedule_unrunnable_after_adding_worker(worker)
                        dask_scheduler.transitions(runnable, "w2v-ticket")

            client: Any = self._client
            client.sync(client._run_on_scheduler, look_again, callback_timeout=ANSWER_S)

    def give_to_others(self, silent: Collection[str], answering: Sequence[str]) -> None:
        """Resubmits the tasks of silent workers to responding ones; the first result counts, and both are equal."""
        if not silent or not answering:
            return
        lying = self._client.processing(workers=list(silent))
        keys = {key for address in lying for key in lying[address]} - self._given
        for future, index in list(self._futures.items()):
            if future.key in keys and index in self._open:
                self._given.add(future.key)
                fresh = self._submit(index, len(self._given), answering)
                self._futures[fresh] = index
                self._endings.add(fresh)

    def cancel(self) -> None:
        cancel(self._client, list(self._futures))


def _run_named(task: Task[Item, Result], item: Item, name: str) -> Result:
    from distributed import get_worker

    reach("task", name)
    return run_task(task, item, state_of(get_worker()))


def cancel(client: Client, futures: Sequence[Future[Any]]) -> None:
    if client.status == "running":  # otherwise it would search for its scheduler for half a minute
        with contextlib.suppress(Exception):  # the cluster may be gone; the error being raised matters more
            client.cancel(futures, force=True)
