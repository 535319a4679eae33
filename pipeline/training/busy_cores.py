"""How many threads train a copy on a machine that others use too.

Lanes of a copy meet twice in every wave, some hundred thousand times a second of all cores together. A thread whose core is
taken away for some milliseconds holds up all others, so a thread too many costs far more than one too few. No bit of the
result depends on it (`Kernels.train_lanes`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

ENOUGH = 0.85
"""Of the time that threads wanted to run: with less of it, some wait for a core."""
PATIENCE = 8
"""Stretches that must go well before one thread more is tried; twice as many after every time that it was one too many."""


@dataclass
class BusyCores:
    """`threads` of a copy for the next stretch of training; between `begin` and `end` the process does nothing else."""

    most: int
    threads: int = field(init=False)
    _well: int = 0
    _patience: int = PATIENCE
    _began: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        self.threads = self.most

    def begin(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def end(self, copies: int) -> None:
        wall_s, cpu_s = time.perf_counter() - self._began[0], time.process_time() - self._began[1]
        self.ran(cpu_s / max(wall_s, 1e-9) / copies)

    def ran(self, cores: float) -> None:
        """The threads of a copy got so many cores on average."""
        if cores >= ENOUGH * self.threads:
            self._well += 1
            if self._well >= self._patience and self.threads < self.most:
                self.threads, self._well = self.threads + 1, 0
        else:
            self.threads, self._well = max(1, min(self.threads - 1, round(cores))), 0
            self._patience *= 2
