"""State that a worker keeps between tasks: `WorkerState` owns all of it and is passed to the tasks that need it.

    exchange.attempts.Attempts          the lost attempts at a round
    stream.mapped_files.HashedFiles     the files whose bytes it has hashed
    stream.sampling.KeptStreams         sentences, and pieces of the next epoch
    training.arithmetic.KnownNumbers    the fingerprint of its arithmetic
    training.lanes.HeldLanes            the lanes it trains, with their parameters
    stages.shards.KeptVocabulary        the vocabulary for drawing shards

All of it may be lost at any time: it saves work and decides nothing. Every class is defined beside the code that uses it, so this
module knows none of them. No other state in `pipeline` outlives a task in a module-level variable; a test checks that.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeAlias, TypeVar, cast, runtime_checkable

if TYPE_CHECKING:
    from distributed import Worker

Kept = TypeVar("Kept")
Item = TypeVar("Item")
Result = TypeVar("Result")

_ATTRIBUTE = "w2v_state"


@runtime_checkable
class Releasable(Protocol):
    def release(self) -> None: ...


class WorkerState:
    """One object of each requested class, created on first request."""

    def __init__(self) -> None:
        self._kept: dict[type[Any], Any] = {}
        self._lock = threading.Lock()

    def of(self, kind: type[Kept]) -> Kept:
        """This worker's `kind`; the same object every time."""
        with self._lock:
            if kind not in self._kept:
                self._kept[kind] = kind()
            return cast(Kept, self._kept[kind])

    def release(self, but: type[Any] | None = None) -> None:
        """Releases large objects: every object that has a `release` method, except the one of class `but`; and what Arrow keeps
        of the memory that it no longer uses."""
        for kind, kept in list(self._kept.items()):
            if isinstance(kept, Releasable) and kind is not but:
                kept.release()
        if arrow := sys.modules.get("pyarrow"):
            arrow.default_memory_pool().release_unused()


@dataclass(frozen=True)
class WithState(Generic[Item, Result]):
    """A task that also receives its worker's state; any other function of an item is a task without state."""

    function: Callable[[Item, WorkerState], Result]


Task: TypeAlias = Callable[[Item], Result] | WithState[Item, Result]


def run_task(task: Task[Item, Result], item: Item, state: WorkerState) -> Result:
    """The task's result for the item."""
    return task.function(item, state) if isinstance(task, WithState) else task(item)


def state_of(worker: Worker) -> WorkerState:
    """The state of a Dask worker, which lives as long as the worker, across runs."""
    return cast(WorkerState, vars(worker).setdefault(_ATTRIBUTE, WorkerState()))
