"""A cluster that is opened by the first task: a run that reuses every stage starts none."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from types import TracebackType

from pipeline.cluster.messages import Listener
from pipeline.cluster.state import Item, Result, Task
from pipeline.cluster.workers import Member, Workers


class LazyWorkers:
    """Implements `Workers`; calls `open_now` to open the real workers on first use."""

    def __init__(self, open_now: Callable[[], contextlib.AbstractContextManager[Workers]]) -> None:
        self._open_now = open_now
        self._stack = contextlib.ExitStack()
        self._workers: Workers | None = None

    def __enter__(self) -> LazyWorkers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return self._stack.__exit__(kind, error, traceback)

    def _opened(self) -> Workers:
        if self._workers is None:
            self._workers = self._stack.enter_context(self._open_now())
        return self._workers

    def map(
        self, task: Task[Item, Result], items: Sequence[Item], *, label: str,
        on_done: Callable[[Result], None] | None = None,
    ) -> list[Result]:  # fmt: skip
        return self._opened().map(task, items, label=label, on_done=on_done)

    def members(self) -> list[Member]:
        return self._opened().members()

    def together(
        self, task: Task[Item, Result], items: Sequence[Item], members: Sequence[Member], on_message: Listener | None = None
    ) -> list[Result]:
        return self._opened().together(task, items, members, on_message)
