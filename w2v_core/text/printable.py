"""Text from data, made safe to show on a terminal: words, file names, lines that somebody else wrote.

A terminal obeys control characters: a word of a corpus could clear the screen, hide what follows or reverse its direction.
So text that came from data is shown with all characters escaped that are not printable. Errors, progress, reports and
answers all use this one function. It needs only the standard library, so help and errors stay fast.
"""

from __future__ import annotations


def printable(text: str, limit: int | None = 80) -> str:
    """The text with control, bidirectional and other invisible characters escaped, cut to `limit` characters (None: not cut)."""
    shown = text[:limit]
    if not shown.isprintable():
        shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)
    if limit is None or (len(shown) <= limit and len(text) <= limit):
        return shown
    return shown[: limit - 1] + "…"


def printable_lines(text: str) -> str:
    """A text of several lines, escaped like `printable` but uncut; line ends are kept."""
    return "\n".join(printable(line, None) for line in text.split("\n"))
