"""The tasks of this run on a Dask cluster, and their results or errors as they end."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import queue
import uuid
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from pipeline.cluster.state import Item, Result, Task, run_task, state_of
from pipeline.cluster.workers import DeadlyTaskError
from pipeline.failpoints import reach

if TYPE_CHECKING:
    from distributed import Client, Future
    from tornado.platform.asyncio import AsyncIOLoop

ANSWER_S = 20.0
"""Timeout of a short request to the scheduler."""
SUSPECT = 3
"""A task that so many workers were working on when they were lost is set aside, and repeated when the others are done."""
GUILTY = 3
"""A task that is lost so many times with a worker that had nothing else to do for this run is not repeated any more."""
MANY = 2
"""With so many suspects for each worker the other tasks wait for them: perhaps they would all be lost."""
ENDED_FULL = "worker-restart-memory"
"""Dask's topic for workers that their nannies ended because their memory was full."""
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
        import asyncio

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
    must have.

    A task whose item kills its worker would be repeated until no worker is left, and what waits on the same worker seems as
    guilty. So tasks that were lost several times are set aside and, when the others are done, repeated with a worker for each.
    """

    def __init__(self, client: Client, ticket: str, task: Task[Any, Any], items: Sequence[Any], label: str) -> None:
        self._client = client
        self._task, self._items, self._label = task, items, label
        self._ticket = {ticket: 1}
        # Unique keys: a key derived from the arguments would return an earlier result without doing the work.
        self._prefix = f"{label.replace(' ', '-')}-{uuid.uuid4().hex[:8]}"
        self._futures: dict[Future[Any], int] = {}
        """The tasks whose endings count, and their items."""
        self._tasks: list[list[Future[Any]]] = [[] for _ in items]
        """The same by item."""
        self._endings = Endings(client, ())
        self._submissions: Counter[int] = Counter()
        """How often each item was submitted: repeated tasks need keys of their own."""
        for index in range(len(items)):
            self._begin(index)
        self._open = set(range(len(items)))
        self._given: set[Any] = set()
        self._offered: set[str] = set()
        self._losses: Counter[int] = Counter()
        """How often each item was being worked on, or alone on its worker, when that was lost."""
        self._suspects: list[int] = []
        self._alone: set[int] = set()
        """The suspects that are being repeated."""
        self._held: set[int] = set()
        """Items that wait for the suspects."""
        self.guilty: list[int] = []
        self._died: dict[int, set[str]] = {}
        """The workers that were lost while they were working on an item."""
        self.results: list[Any] = [None] * len(items)

    @property
    def done(self) -> bool:
        """Whether all items are done, or those that are not never will be."""
        return not self._open or bool(self.guilty and self._held)

    def _begin(self, index: int, workers: Sequence[str] | None = None) -> None:
        again = self._submissions[index]
        self._submissions[index] += 1
        future = self._client.submit(
            _run_named, self._task, self._items[index], f"{self._label}.{index}", resources=self._ticket, workers=workers,
            key=f"{self._prefix}-{index}" + (f"-again-{again}" if again else ""), pure=False,
        )  # fmt: skip
        self._futures[future] = index
        self._tasks[index].append(future)
        self._endings.add(future)

    def next(self, timeout_s: float) -> tuple[Any] | None:
        """The next item's result in a tuple, once per item; raises its error. None if none comes in time."""
        from distributed import KilledWorker

        ended = self._endings.next(timeout_s)
        if not ended or (index := self._futures.get(ended[0])) not in self._open:
            return None
        try:
            self.results[index] = ended[1].result()
        except KilledWorker:
            # Another's scheduler may give up a task after four losses, also one that was only waiting for its turn, or whose
            # workers were ended in order.
            self._suspect(index, 1 if index in self._alone else GUILTY)
            if index in self._alone:
                self._forget([index])
                self._begin(index)
            return None
        self._open.remove(index)
        self._alone.discard(index)
        # Dask would compute it again if its worker was lost.
        self._forget([index])
        return (self.results[index],)

    def lost_in(self, message: Any) -> list[str]:
        """The worker in a list if the message says that it was lost with tasks of these (`guest.departure_plugin`)."""
        if not isinstance(message, dict):
            return []
        lost = [key for key in message.get("lost", ()) if key.startswith(self._prefix)]
        begun = {key for key in message.get("begun", ()) if key.startswith(self._prefix)}
        for index in sorted({index for future, index in self._futures.items() if future.key in begun} & self._open):
            self._died.setdefault(index, set()).add(message["worker"])
            if index not in self._alone or len(lost) == 1:
                self._suspect(index)
        return [message["worker"]] if lost else []

    def deadly(self, ended_full: AbstractSet[str]) -> DeadlyTaskError:
        """The error about the guilty items; `ended_full` are the workers that their nannies have ended for their memory."""
        is_memory = all(not ended_full.isdisjoint(self._died.get(index, ())) for index in self.guilty)
        why = "; their memory was full" if is_memory else "; check their logs (memory?)"
        text = f"{self._label}: {GUILTY} workers in turn were lost that had only the same task to do{why}"
        return DeadlyTaskError(
            f"{text}; run the same command again, it continues", [self._items[i] for i in self.guilty], is_memory
        )

    def _suspect(self, index: int, losses: int = 1) -> None:
        self._losses[index] += losses
        if self._losses[index] < (GUILTY if index in self._alone else SUSPECT):
            return
        cancel(self._client, self._forget([index]))
        if index in self._alone:
            self._alone.remove(index)
            self._open.remove(index)
            self.guilty.append(index)
        else:
            self._suspects.append(index)

    def repeat_suspects(self, workers: int) -> None:
        """Begins with the next suspects, at most one for each worker, once nothing else is under way; after the last of them,
        with what has waited for them."""
        if self._alone or not workers or not (self._suspects or self._held):
            return
        others = self._open - self._held - set(self._suspects)
        if others and len(self._suspects) >= MANY * workers:
            cancel(self._client, self._forget(others))
            self._held |= others
        elif others:
            return
        if self._suspects:
            self._alone, self._suspects = set(self._suspects[:workers]), self._suspects[workers:]
            self._begin_anew(self._alone)
        else:
            self._begin_anew(self._held)
            self._held = set()

    def _begin_anew(self, indices: Iterable[int]) -> None:
        for index in sorted(indices):
            self._losses[index] = 0
            self._begin(index)

    def _forget(self, indices: Collection[int]) -> list[Future[Any]]:
        """The tasks of these items, whose endings no longer count."""
        theirs = [future for index in indices for future in self._tasks[index]]
        for index in indices:
            self._tasks[index] = []
        for future in theirs:
            del self._futures[future]
        return theirs

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
                self._begin(index, answering)

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
