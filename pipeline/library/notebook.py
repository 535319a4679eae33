"""Progress in a notebook: a bar that moves in its cell."""

from __future__ import annotations

import html
import sys
import time
from dataclasses import dataclass
from typing import Any

from pipeline.progress import Progress
from w2v_core.text.printable import printable_lines

REDRAW_S = 0.5
"""Every redraw is a message to the browser that holds all lines."""


def progress_for(wanted: bool) -> Progress:
    """The progress display for this program: a bar in a notebook, a line on a terminal, nothing otherwise."""
    if wanted and is_notebook():
        return NotebookProgress()
    return Progress(quiet=not (wanted and sys.stderr.isatty()))


def is_notebook() -> bool:
    """Whether this process is a kernel: Jupyter's, or one made of its parts, such as Colab's."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return getattr(shell, "kernel", None) is not None


@dataclass
class NotebookProgress(Progress):
    """One bar, redrawn in place, below the lines that stay. Updates of a display find their cell, whichever cell runs."""

    redraw_s: float = REDRAW_S
    _display: Any = None
    _lines: str = ""

    @property
    def live(self) -> bool:
        return True

    def line(self, text: str) -> None:
        with self._lock:
            self._lines += f"{printable_lines(text)}\n"
            self._show("")

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        share = min(1.0, self._done / self._total) if self._total else 0.0
        bar = f"<progress max='1' value='{share:.3f}'></progress> " if self._total else ""
        percent = [f"{share:.0%}"] if self._total else []
        words = "  ".join([self._stage, *percent, *self._figures(self._drawn)])
        self._show(f"{bar}{html.escape(words)}")

    def _clear(self) -> None:
        if self._display is not None:
            self._show("")

    def _show(self, bar: str) -> None:
        """Shows the lines and a bar; a front end without HTML shows the lines."""
        from IPython.display import display

        shown = {
            "text/plain": self._lines.rstrip("\n"),
            "text/html": f"{html.escape(self._lines).replace(chr(10), '<br>')}{bar}",
        }
        if self._display is None:
            self._display = display(shown, raw=True, display_id=True)
        else:
            self._display.update(shown, raw=True)
