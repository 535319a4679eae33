"""Progress in a notebook: a bar that moves in its cell."""

from __future__ import annotations

import html
import sys
import time
from dataclasses import dataclass
from typing import Any

from pipeline.progress import Progress

REDRAW_S = 0.2


def progress_for(wanted: bool) -> Progress:
    """The progress display for this program: a bar in a notebook, a line on a terminal, nothing otherwise."""
    if wanted and is_notebook():
        return NotebookProgress()
    return Progress(quiet=not (wanted and sys.stderr.isatty()))


def is_notebook() -> bool:
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return type(shell).__name__ == "ZMQInteractiveShell"


@dataclass
class NotebookProgress(Progress):
    """One bar, redrawn in place, below the lines that stay."""

    _display: Any = None
    _lines: str = ""

    @property
    def live(self) -> bool:
        return True

    def line(self, text: str) -> None:
        self._lines += html.escape(text) + "<br>"
        self._show(bar=False)

    def _tick(self) -> None:
        """Does nothing: a notebook may show output from another thread below another cell."""

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        self._show(bar=True)

    def _clear(self) -> None:
        pass

    def _show(self, bar: bool) -> None:
        from IPython.display import HTML, display

        shown = self._lines
        if bar:
            share = min(1.0, self._done / self._total) if self._total else 0.0
            figures = html.escape("  ".join(self._figures(time.monotonic())))
            value = f"value='{share:.3f}'" if self._total else ""
            shown += f"<progress max='1' {value}></progress> {html.escape(self._stage)} {share:.0%} {figures}"
        if self._display is None:
            self._display = display(HTML(shown), display_id=True)
        else:
            self._display.update(HTML(shown))
