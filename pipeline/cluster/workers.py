"""Where tasks run: `Workers` is all that the stages know of Dask.

`dask_workers.DaskWorkers` runs them on a cluster (`cluster.opening` opens one), `InProcess(threads)` here, for small work. A
task is a pure function over paths and plain data that writes files and returns a small record, so it may run anywhere,
twice, or again after a death.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.cluster.messages import Listener, heard_by, ignore
from pipeline.cluster.state import Item, Result, Task, WorkerState, run_task
from pipeline.errors import TemporaryError
from pipeline.exchange import shared_memory


class WorkerLostError(TemporaryError):
    """A worker went away while its task ran; what the task does can be done again."""


@dataclass(frozen=True)
class Member:
    """A worker that can take part in a round."""

    address: str
    host: str
    """Equal for workers that can share memory."""
    threads: int


class Workers(Protocol):
    """Runs tasks; results come back in the order of the items, whatever order they finish in.

    Whoever implements it writes these signatures out again: then the type checker compares every implementation with them, and a
    reader of one sees what it takes.
    """

    def map(
        self,
        task: Task[Item, Result],
        items: Sequence[Item],
        *,
        label: str,
        on_done: Callable[[Result], None] | None = None,
    ) -> list[Result]:
        """`[task(item) for item in items]`. `on_done` sees each result as it arrives, for progress. A task's
        PipelineError is raised here; tasks lost with a worker are run again."""
        ...

    def members(self) -> list[Member]:
        """The workers there are now, in a fixed order; raises TemporaryError when none comes in time."""
        ...

    def together(
        self,
        task: Task[Item, Result],
        items: Sequence[Item],
        members: Sequence[Member],
        on_message: Listener | None = None,
    ) -> list[Result]:
        """Runs one item on each member at the same time. Raises WorkerLostError when a member is lost, else the first
        error of a task that is not merely the echo of another's. `on_message` is called, in this thread, with what the tasks
        `tell` meanwhile (`cluster.messages`)."""
        ...


class InProcess:
    """The tasks run here, in so many threads: the same results without a cluster."""

    def __init__(self, threads: int = 1, state: WorkerState | None = None) -> None:
        self._threads = threads
        self._state = state or WorkerState()

    def map(
        self,
        task: Task[Item, Result],
        items: Sequence[Item],
        *,
        label: str,
        on_done: Callable[[Result], None] | None = None,
    ) -> list[Result]:
        threads = min(self._threads, len(items))
        pool = concurrent.futures.ThreadPoolExecutor(max(1, threads), thread_name_prefix=label.replace(" ", "-"))

        def run(item: Item) -> Result:
            return run_task(task, item, self._state)

        try:
            # With one thread the tasks are done in the thread that asks, where an error has its whole story.
            ended = map(run, items) if threads <= 1 else pool.map(run, items)
            results: list[Result] = []
            for result in ended:
                results.append(result)
                if on_done:
                    on_done(result)
            return results
        finally:
            # After an error or Ctrl-C nobody waits for what is not begun yet.
            pool.shutdown(wait=False, cancel_futures=True)

    def members(self) -> list[Member]:
        return [Member("in-process", shared_memory.host_key(), self._threads)]

    def together(
        self,
        task: Task[Item, Result],
        items: Sequence[Item],
        members: Sequence[Member],
        on_message: Listener | None = None,
    ) -> list[Result]:
        (item,) = items
        with heard_by(on_message or ignore):
            return [run_task(task, item, self._state)]
