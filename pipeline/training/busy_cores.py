"""The number of threads that train a copy on a machine with other load, and how much before that is looked at again.

The lanes of a copy synchronise twice in every wave, some ten thousand times a second. A thread that loses its core for a few
milliseconds holds up all others, so a thread too many costs far more than a thread too few. Copies meet a hundred times less
often, so each keeps a thread. The bits of the result depend on none of this (`Kernels.train_lanes`, `Kernels.train_copies`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

ENOUGH = 0.85
"""Share of their time that threads must have run; with less, some are waiting for a core."""
JUDGED_S = 0.05
"""Shorter calls are judged together: that a core was needed for something else for a millisecond tells nothing."""
PATIENCE, MOST_PATIENCE = 8, 64
"""Judgements that must be good before one more thread is tried: doubled, up to the second, whenever there was one too many."""
FEWEST_TOKENS, MOST_TOKENS = 1 << 14, 1 << 19
"""Tokens per thread in a call that trains many stretches. At first few, because on a busy machine they may take ten times as
long, and twice as many after every good judgement. In the end it is a tenth of a second of work, so that a run that is told to
stop does so soon, and handing it out takes little of it."""
SOME_TOKENS = 1 << 16
"""The end if a thread less trains than may, so that it is soon back."""


@dataclass
class BusyCores:
    """Chooses the `threads` per copy for the next call that trains, and its `tokens` per thread; between `begin` and `end` the
    process must only train."""

    most: int
    threads: int = field(init=False)
    tokens: int = FEWEST_TOKENS
    _well: int = 0
    _patience: int = PATIENCE
    _began: tuple[float, float] = (0.0, 0.0)
    _wall_s: float = 0.0
    _cpu_s: float = 0.0

    def __post_init__(self) -> None:
        self.threads = self.most

    def begin(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def end(self, copies: int, spared: int = 0, others_s: float = 0.0) -> None:
        """`spared`: threads per copy that did not train; `others_s`: processor time of this process for something else."""
        wall_s = time.perf_counter() - self._began[0]
        self.ran(wall_s, (time.process_time() - self._began[1] - others_s) / copies + spared * wall_s)

    def ran(self, wall_s: float, cpu_s: float) -> None:
        """Adjusts `threads` and `tokens`, given how long a call took and the processor time of the threads of a copy."""
        self._wall_s, self._cpu_s = self._wall_s + wall_s, self._cpu_s + cpu_s
        if self._wall_s < JUDGED_S:
            return
        cores, self._wall_s, self._cpu_s = self._cpu_s / self._wall_s, 0.0, 0.0
        if self.threads > 1 and cores < ENOUGH * self.threads:
            self._take(max(1, min(self.threads - 1, round(cores))))
            self._patience = min(2 * self._patience, MOST_PATIENCE)
            return
        self._well += 1
        self.tokens = min(2 * self.tokens, MOST_TOKENS if self.threads == self.most else SOME_TOKENS)
        if self._well >= self._patience and self.threads < self.most:
            self._take(self.threads + 1)

    def _take(self, threads: int) -> None:
        self.threads, self.tokens, self._well = threads, FEWEST_TOKENS, 0
