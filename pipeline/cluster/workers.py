"""Where tasks run: `Workers` is the only interface of stages to Dask.

`dask_workers.DaskWorkers` runs tasks on a cluster (`cluster.opening` opens one), `InProcess(threads)` in this process, for small
work. A task is a pure function of paths and plain data that writes files and returns a small record, so it may run anywhere,
twice, or again after a worker has died.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.cluster.messages import Listener, heard_by, ignore
from pipeline.cluster.state import Item, Result, Task, WorkerState, run_task
from pipeline.errors import CapacityError, DataError, PipelineError, TemporaryError
from pipeline.exchange.host import host_key


class WorkerLostError(TemporaryError):
    """A worker was lost while its task ran; the task can be run again."""


class DeadlyTaskError(TemporaryError):
    """Workers were lost, one after the other, that had nothing to do for this run but one task of `Workers.map`. All other tasks
    are done, unless many of them seemed to do the same."""

    def __init__(self, message: str, items: Sequence[object], is_memory: bool = False) -> None:
        super().__init__(message)
        self.items = items
        """What the tasks were given."""
        self.is_memory = is_memory
        """Whether Dask ended workers over each of them because their memory was full."""

    def over_text(self, places: str) -> PipelineError:
        """What to report where the tasks tokenized the text at `places`."""
        lost = f"tokenize: workers were lost, one after the other, that had only {places} to do"
        if self.is_memory:
            return CapacityError(
                f"{lost}: Dask ended them because their memory was full. All other parts are kept; give each worker more memory "
                "(fewer workers with cluster.n_workers, a higher memory_limit in cluster.options), or lower corpus.block_bytes, "
                "and run the same command again"
            )
        return DataError(
            f"{lost}; their logs say how. All other parts are kept; if their memory was full, give each worker more or lower "
            "corpus.block_bytes; if the tokenizer or a library crashed, mend or remove this text; then run the same command again"
        )


@dataclass(frozen=True)
class Member:
    """A worker that can take part in a round."""

    address: str
    host: str
    """Host key, equal for workers that can share memory."""
    threads: int
    process: str = ""
    """Dask's name for the worker's process: another process may come to the same address later."""


class Workers(Protocol):
    """Runs tasks; results are returned in the order of the items, whatever order they finish in.

    Implementations repeat these signatures in full, so that the type checker compares them and readers see the parameters.
    """

    def map(
        self,
        task: Task[Item, Result],
        items: Sequence[Item],
        *,
        label: str,
        on_done: Callable[[Result], None] | None = None,
    ) -> list[Result]:
        """`[task(item) for item in items]`. `on_done` is called with each result as it arrives, for progress. A task's
        PipelineError is raised here; tasks lost with a worker are run again, but not forever (DeadlyTaskError)."""
        ...

    def members(self) -> list[Member]:
        """The current workers, in a fixed order; raises TemporaryError if none comes in time."""
        ...

    def together(
        self,
        task: Task[Item, Result],
        items: Sequence[Item],
        members: Sequence[Member],
        on_message: Listener | None = None,
    ) -> list[Result]:
        """Runs one item on each member at the same time. Raises WorkerLostError if a member is lost, otherwise the first error of
        a task that is not merely a consequence of another's. `on_message` is called, in this thread, with the messages that tasks
        send by `tell` meanwhile (`cluster.messages`)."""
        ...


class InProcess:
    """Runs the tasks in threads of this process: the same results without a cluster."""

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
            # With one thread, the tasks run in the calling thread, where errors keep their whole traceback.
            ended = map(run, items) if threads <= 1 else pool.map(run, items)
            results: list[Result] = []
            for result in ended:
                results.append(result)
                if on_done:
                    on_done(result)
            return results
        finally:
            # After an error or Ctrl-C, tasks that have not begun are dropped.
            pool.shutdown(wait=False, cancel_futures=True)

    def members(self) -> list[Member]:
        return [Member("in-process", host_key(), self._threads)]

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
