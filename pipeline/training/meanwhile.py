"""The threads in which merges take place while copies are trained."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

LATE = 0.1
"""A merge that training waits for longer than this share of the time it took gets more threads next time."""
EARLY = 0.25
"""A merge that takes less than this share of the stint beside it gets fewer."""
MANY = 8
"""With fewer cores for each thread of a merge, all of them train."""
SHORT = 0.03
"""Beside a merge that takes less than this share of the stint all cores train, too."""


class Meanwhile:
    """One merge at a time, on up to `most` threads: as many as it needs to end with the stint that is trained beside it, because
    training misses every core that they use."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.threads = 1
        """Threads of the next merge, or of the one under way."""
        self._pool = ThreadPoolExecutor(max_workers=most, thread_name_prefix="merge")
        self._work: Future[None] | None = None
        self._began = self._ended = 0.0
        self._is_short = False
        self._processor_s = 0.0
        self._lock = threading.Lock()

    def spared(self, threads: int) -> int:
        """How many of `threads` should leave their cores to the merge that is under way. A thread that loses its core holds up
        all that train the same copy; but few threads cannot do without one, and nothing should be spared for long."""
        works = self._work is not None and not self._work.done()
        return self.threads if works and not self._is_short and threads >= MANY * self.threads else 0

    @property
    def is_under_way(self) -> bool:
        return self._work is not None

    def begin(self, work: Callable[[], None]) -> None:
        """Begins to do the work."""

        def timed() -> None:
            try:
                work()
            finally:
                self._ended = time.perf_counter()

        self._began = time.perf_counter()
        self._work = self._pool.submit(self._counted, timed)

    def end(self, meanwhile: Callable[[], bool]) -> None:
        """Waits for the work, and calls `meanwhile` until then as long as that returns True; raises what the work raised."""
        if self._work is None:
            return
        asked = time.perf_counter()
        try:
            while not self._work.done() and meanwhile():
                pass
            self._work.result()
        finally:
            # Work that goes on, because waiting was interrupted, stays known to `close`.
            if self._work.done():
                self._work = None
        self.took(asked - self._began, self._ended - self._began)

    def took(self, trained_s: float, merged_s: float) -> None:
        """Chooses the threads of the next merge, given the seconds of this one and of the training beside it."""
        self._is_short = merged_s < trained_s * SHORT
        if merged_s > trained_s * (1 + LATE):
            self.threads = min(self._most, 2 * self.threads)
        elif merged_s < trained_s * EARLY:
            self.threads = max(1, self.threads // 2)

    def spread(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """As `LaneGroup.spread`, on these threads; for the work itself."""
        return spread_over(lambda some: self._pool.submit(self._counted, some), self.threads, work, items)

    def processor_s(self) -> float:
        """Processor time that the threads have used for what they have finished, since the last call."""
        with self._lock:
            used, self._processor_s = self._processor_s, 0.0
        return used

    def _counted(self, work: Callable[[], None]) -> None:
        started = time.thread_time()
        try:
            work()
        finally:
            with self._lock:
                self._processor_s += time.thread_time() - started

    def close(self) -> None:
        """Waits for the work, which must have been told to stop."""
        if self._work is not None:
            wait([self._work])
        self._pool.shutdown()


def spread_over(
    submit: Callable[[Callable[[], None]], Future[None]], threads: int, work: Callable[[Item], Result], items: Sequence[Item]
) -> list[Result]:
    """`[work(item) for item in items]` on so many threads: the calling one, and those that `submit` hands work to."""
    results: dict[int, Result] = {}
    left = iter(range(len(items)))

    def take_some() -> None:
        for index in left:
            results[index] = work(items[index])

    helpers: list[Future[None]] = []
    try:
        for _ in range(min(threads, len(items)) - 1):
            helpers.append(submit(take_some))
        take_some()
    finally:
        # After an error nobody begins another item, not even a helper that waits for a thread.
        for _ in left:
            pass
        wait(helpers)
    for helper in helpers:
        helper.result()
    return [results[index] for index in range(len(items))]
