"""Text from data made safe for a terminal: what a person sees of a word, a file's name or a line somebody else wrote.

A terminal obeys control characters: a word of a corpus may clear the screen, hide what follows or turn its direction. So
whatever came from data is shown with everything that is not printable escaped. One function does it, for errors, progress,
reports and answers alike; the standard library alone is needed, so that help and errors stay quick.
"""

from __future__ import annotations


def printable(text: str, limit: int | None = 80) -> str:
    """The text with control, bidirectional and other invisible characters escaped, at most `limit` characters (None: all)."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:limit])
    if limit is None or (len(shown) <= limit and len(text) <= limit):
        return shown
    return shown[: limit - 1] + "…"


def printable_lines(text: str) -> str:
    """The same for text of several lines: line ends stay."""
    return "\n".join(printable(line, None) for line in text.split("\n"))
