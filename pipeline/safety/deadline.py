"""A limit on waiting for an action that has its own timeout, or none, and cannot be interrupted."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def within(seconds: float | None, action: Callable[[], Result]) -> Result:
    """Returns or raises what `action` does; raises TimeoutError if that takes longer (None: no limit). Ctrl-C interrupts it.

    The action runs in a thread of its own, which is abandoned when the time is up, since a thread cannot be ended from outside.
    """
    ended: queue.SimpleQueue[tuple[list[Result], BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            ended.put(([action()], None))
        except BaseException as error:
            ended.put(([], error))

    threading.Thread(target=work, daemon=True, name="w2v-within").start()
    try:
        made, error = ended.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no result within {seconds:g} s") from None
    if error is not None:
        raise error
    return made[0]
