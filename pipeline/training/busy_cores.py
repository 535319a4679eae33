"""The number of threads that train a copy on a machine with other load.

The lanes of a copy synchronise twice in every wave, some hundred thousand times a second. A thread that loses its core for a few
milliseconds holds up all others, so a thread too many costs far more than a thread too few. The bits of the result do not depend
on it (`Kernels.train_lanes`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

ENOUGH = 0.85
"""Share of their time that threads must have run; with less, some are waiting for a core."""
PATIENCE = 8
"""Stretches that must go well before one more thread is tried; doubled each time that there was one too many."""


@dataclass
class BusyCores:
    """Chooses `threads` per copy for the next stretch of training; between `begin` and `end` the process must only train."""

    most: int
    threads: int = field(init=False)
    _well: int = 0
    _patience: int = PATIENCE
    _began: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        self.threads = self.most

    def begin(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def end(self, copies: int, spared: int = 0, others_s: float = 0.0) -> None:
        """`spared`: threads per copy that did not train; `others_s`: processor time of this process for something else."""
        wall_s, cpu_s = time.perf_counter() - self._began[0], time.process_time() - self._began[1] - others_s
        self.ran(cpu_s / max(wall_s, 1e-9) / copies + spared)

    def ran(self, cores: float) -> None:
        """Adjusts `threads`, given the average number of cores that the threads of a copy got."""
        if cores >= ENOUGH * self.threads:
            self._well += 1
            if self._well >= self._patience and self.threads < self.most:
                self.threads, self._well = self.threads + 1, 0
        else:
            self.threads, self._well = max(1, min(self.threads - 1, round(cores))), 0
            self._patience *= 2
