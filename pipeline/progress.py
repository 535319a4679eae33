"""What a person sees while a run works: a bar on a terminal, one line a step otherwise.

On a terminal the current stage is one line that is redrawn at most ten times a second; in a log it is a line when a stage
starts, one a round of training, and one when a stage ends. Nothing here decides anything.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import TextIO

from w2v_core.text.printable import printable, printable_lines

REDRAW_S = 0.1
LOG_EVERY_S = 10.0
BAR = 24


@dataclass
class Progress:
    """Shows how far a run is. `stream` is where (standard error by default, so that results can be piped)."""

    stream: TextIO = field(default_factory=lambda: sys.stderr)
    quiet: bool = False
    _stage: str = ""
    _total: int = 0
    _done: int = 0
    _note: str = ""
    _started: float = 0.0
    _drawn: float = 0.0
    _wide: int = 0

    @property
    def live(self) -> bool:
        return not self.quiet and self.stream.isatty()

    def start(self, stage: str, total: int = 0, note: str = "") -> None:
        """A stage of `total` pieces begins (0 = not known)."""
        self._stage, self._total, self._done, self._note = stage, total, 0, note
        self._started = self._drawn = time.monotonic()
        if self.live:
            self._draw()
        else:
            self.line(f"{stage}: started" + (f" ({note})" if note else ""))

    def advance(self, pieces: int = 1, note: str = "") -> None:
        self._done += pieces
        self._note = note or self._note
        now = time.monotonic()
        if self.live and now - self._drawn >= REDRAW_S:
            self._drawn = now
            self._draw()
        elif not self.live and now - self._drawn >= LOG_EVERY_S:
            self._drawn = now
            self.line(f"{self._stage}: {self._done}" + (f" of {self._total}" if self._total else "") + f" {self._note}".rstrip())

    def reached(self, done: int, total: int, note: str = "") -> None:
        """`done` of `total` pieces are behind us."""
        self._total = total
        self.advance(done - self._done, note)

    def finish(self, summary: str) -> None:
        """The stage is over; `summary` stays on the screen."""
        self._clear()
        self.line(f"{self._stage}: {summary}")

    def line(self, text: str) -> None:
        """A line that stays."""
        if self.quiet:
            return
        self._clear()
        print(printable_lines(text), file=self.stream, flush=True)

    def _draw(self) -> None:
        share = self._done / self._total if self._total else 0.0
        bar = "━" * round(BAR * min(1.0, share))
        passed = time.monotonic() - self._started
        text = f"{self._stage:<9} {bar:<{BAR}} {share:4.0%} {passed:5.0f} s  {printable(self._note, None)}"[:110]
        self.stream.write("\r" + text.ljust(self._wide))
        self.stream.flush()
        self._wide = len(text)

    def _clear(self) -> None:
        if self.live and self._wide:
            self.stream.write("\r" + " " * self._wide + "\r")
            self._wide = 0
