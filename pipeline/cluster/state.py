"""What one worker keeps from task to task: `WorkerState`, the one owner of it, handed to the tasks that ask for it.

    exchange.attempts.Attempts          which attempts at a round are lost
    stream.mapped_files.HashedFiles     files whose bytes it has hashed
    stream.sampling.KeptStreams         sentences, and pieces of the next epoch
    training.arithmetic.KnownNumbers    how it computes
    training.lanes.HeldLanes            the lanes it trains, with their parameters
    training.start.ParentWords          the words of the vectors that training goes on from
    stages.shards.KeptVocabulary        the words that parts are made into shards with

All of it may be gone at any time: it saves work and decides nothing. Every class stands beside the code that uses it, so this
file knows none of them. Nothing else in `pipeline` outlives a task in a variable of a module; a test looks.
"""

from __future__ import annotations

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
    """One object of each class that a task asked for, made when it is first asked for."""

    def __init__(self) -> None:
        self._kept: dict[type[Any], Any] = {}
        self._lock = threading.Lock()

    def of(self, kind: type[Kept]) -> Kept:
        """This worker's `kind`; the same object every time."""
        with self._lock:
            if kind not in self._kept:
                self._kept[kind] = kind()
            return cast(Kept, self._kept[kind])

    def release(self) -> None:
        """Gives back what is large: everything that has a `release` of its own."""
        for kept in list(self._kept.values()):
            if isinstance(kept, Releasable):
                kept.release()


@dataclass(frozen=True)
class WithState(Generic[Item, Result]):
    """A task that is given what its worker keeps; any other function of an item is a task that needs nothing."""

    function: Callable[[Item, WorkerState], Result]


Task: TypeAlias = Callable[[Item], Result] | WithState[Item, Result]


def run_task(task: Task[Item, Result], item: Item, state: WorkerState) -> Result:
    """What the task makes of the item."""
    return task.function(item, state) if isinstance(task, WithState) else task(item)


def state_of(worker: Worker) -> WorkerState:
    """The state of a Dask worker, which lives as long as it does, whoever drives it."""
    return cast(WorkerState, vars(worker).setdefault(_ATTRIBUTE, WorkerState()))
