"""Waiting no longer than is meant for what waits by its own clock, or for ever, and cannot be interrupted."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def within(seconds: float | None, action: Callable[[], Result]) -> Result:
    """What `action` returns or raises; raises TimeoutError when that takes longer (None: never), and lets Ctrl-C through.

    The action has a thread of its own, which is left behind when the time is up: there is no way to end it from outside.
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
        raise TimeoutError(f"nothing came of it within {seconds:g} s") from None
    if error is not None:
        raise error
    return made[0]
