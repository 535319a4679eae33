"""Progress of a run: a bar on a terminal, otherwise one line per step.

On a terminal the current step is one line, as wide as the terminal, redrawn a few times a second even if nothing is new, so that
the moving seconds show that the program works. In a log there is a line when a step starts, one every ten seconds if there is
news, one per round of training, and one when a step ends. Nothing here affects the run.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import TextIO

from w2v_core.text.printable import printable, printable_lines

REDRAW_S = 0.2
LOG_EVERY_S = 10.0
NARROW = 100
"""On a terminal with fewer columns the bar is shorter, so that the figures fit beside it."""
FORESIGHT_S = 2.0
"""The time left is shown only after a step has run for this long."""


@dataclass
class Progress:
    """Shows the progress of a run on `stream` (standard error by default, so that results can be piped)."""

    stream: TextIO = field(default_factory=lambda: sys.stderr)
    quiet: bool = False
    redraw_s: float = REDRAW_S
    _stage: str = ""
    _total: float = 0
    _done: float = 0
    _unit: str = ""
    _note: str = ""
    _started: float = 0.0
    _drawn: float = 0.0
    _wide: int = 0
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    _clock: threading.Thread | None = field(default=None, repr=False)
    _over: threading.Event = field(default_factory=threading.Event, repr=False)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    @property
    def live(self) -> bool:
        return not self.quiet and self.stream.isatty()

    def start(self, stage: str, total: float = 0, note: str = "", unit: str = "") -> None:
        """Begins a step of `total` pieces (0 = not known); with a `unit` ("B", "tokens") a rate is shown.

        Starting the current step again keeps its clock.
        """
        with self._lock:
            again = stage == self._stage
            self._stage, self._total, self._done, self._note, self._unit = stage, total, 0, note, unit
            if not again:
                self._started = self._drawn = time.monotonic()
            if self.live:
                self._tick()
                self._draw()
            elif not again:
                self.line(f"{stage}: {note or 'started'}")

    def advance(self, pieces: float = 1, note: str = "") -> None:
        with self._lock:
            self._done += pieces
            self._note = note or self._note
            now = time.monotonic()
            if self.live and now - self._drawn >= self.redraw_s:
                self._draw()
            elif not self.live and now - self._drawn >= LOG_EVERY_S:
                self._drawn = now
                self.line(f"{self._stage}: {'  '.join(self._figures(now))}")

    def reached(self, done: float, total: float, note: str = "") -> None:
        """Sets progress to `done` of `total` pieces."""
        self._total = total
        self.advance(done - self._done, note)

    def say(self, note: str) -> None:
        """Shows what the step is doing now, beside the bar or as a line."""
        with self._lock:
            self._note = note
            if note and not self.live:
                self.line(f"{self._stage}: {note}")

    def finish(self, summary: str) -> None:
        """Ends the step; `summary` stays on the screen."""
        with self._lock:
            stage, self._stage = self._stage, ""
            self.line(f"{stage}: {summary}" if stage else summary)

    def line(self, text: str) -> None:
        """Prints a line that stays."""
        if self.quiet:
            return
        with self._lock:
            self._clear()
            self._write(printable_lines(text) + "\n")

    def stop(self, text: str) -> None:
        """Ends the step before it is complete; `text` stays on the screen."""
        with self._lock:
            self._stage = ""
            self.line(text)

    def close(self) -> None:
        """Stops drawing and clears an unfinished line."""
        self._over.set()
        with self._lock:
            self._stage = ""
            self._clear()

    def _tick(self) -> None:
        """Starts redrawing the line periodically."""
        if self._clock is None:
            self._clock = threading.Thread(target=self._keep_moving, name="progress", daemon=True)
            self._clock.start()

    def _keep_moving(self) -> None:
        while not self._over.wait(self.redraw_s):
            with self._lock, contextlib.suppress(ValueError):  # the stream may be closed
                if self._stage and time.monotonic() - self._drawn >= self.redraw_s:
                    self._draw()

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        columns = self._columns()
        share, width = min(1.0, self._done / self._total) if self._total else 0.0, 10 if columns < NARROW else 24
        bar = f"{'━' * round(width * share):<{width}} {share:4.0%}  " if self._total else ""
        text = f"{self._stage:<9} {bar}{'  '.join(self._figures(self._drawn))}"[:columns].rstrip()
        self._write("\r" + text.ljust(self._wide))
        self._wide = len(text)

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # a closed terminal or pipe, a full disk: the run goes on
            self.stream.write(text)
            self.stream.flush()

    def _figures(self, now: float) -> list[str]:
        """Time passed, time left, rate and note, as far as known."""
        passed = now - self._started
        found = [f"{passed:.1f} s" if passed < 100 else span(passed)]
        if not self.live and self._total:
            found.insert(0, f"{min(1.0, self._done / self._total):.0%}")
        if self._total and self._done and passed >= FORESIGHT_S:
            found.append(f"about {span(passed * max(0.0, self._total / self._done - 1))} left")
        if self._unit and self._done:
            found.append(f"{self._done / max(passed, 1e-9) / 1e6:.2f} M{'' if self._unit == 'B' else ' '}{self._unit}/s")
        return found + ([printable(self._note, None)] if self._note else [])

    def _columns(self) -> int:
        """The maximal length of a line; a longer one would wrap and be redrawn below its own first half."""
        try:
            return max(20, os.get_terminal_size(self.stream.fileno()).columns - 1)
        except (OSError, ValueError):
            return 79

    def _clear(self) -> None:
        if self.live and self._wide:
            self._write("\r" + " " * self._wide + "\r")
            self._wide = 0


def span(seconds: float) -> str:
    """A duration in one or two units."""
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    if whole < 6000:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole // 60 % 60:02} min"
