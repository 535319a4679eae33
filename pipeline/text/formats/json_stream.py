"""The text of one JSON value that is too long to be held, piece by piece: a 156 MB line takes no more memory than any other."""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field

from pipeline.text.formats.json_values import ByteSource, NotJson, lenient
from pipeline.text.formats.records import RecordBook, encoded

_BLANK = re.compile(rb"[ \t\r\n,:]*")
_SCALAR = re.compile(rb"[^\s,:\[\]{}\"]*")
_WHOLE = re.compile(rb'[^"\\]*(?:\\(?:u[0-9a-fA-F]{4}|[^u])[^"\\]*)*', re.DOTALL)
"""The inside of a string up to its end, or up to an incomplete escape."""
_ITEMS = re.compile(rb'(?:"[^"\\]*"[ \t\r\n]*,[ \t\r\n]*)+|(?:[^\s,:\[\]{}"]+[ \t\r\n]*,[ \t\r\n]*)+')
"""Strings without escapes, or scalars, each with the comma behind it: one at a time they would take 18 µs each."""
_HIGH_SURROGATE = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}$")
_MAXIMUM_DEPTH = 1000
_KEY_BYTES = 1 << 16


@dataclass
class Walk:
    """The state of a walk through one value."""

    source: ByteSource
    line: int
    wanted: str
    book: RecordBook | None = None
    containers: list[bytes] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    """The current key of each container; None before a key, and in arrays."""
    texts: int = 0
    text_bytes: int = 0
    raw_bytes: int = 0

    def take(self, stop: int) -> bytes:
        self.raw_bytes += stop - self.source.at
        return self.source.take(stop)

    def more(self) -> None:
        if not self.source.more():
            raise NotJson(self.line, "it ends in the middle of a value")

    def on_text(self) -> bool:
        """Whether a string here is (a word of) the text."""
        depth = len(self.containers)
        while depth and self.containers[depth - 1] == b"[":
            depth -= 1
        return b"[" not in self.containers[:depth] and ".".join(key or "" for key in self.keys[:depth]) == self.wanted


def text_pieces(source: ByteSource, line: int, wanted: str, book: RecordBook | None = None) -> Generator[bytes, None, Walk]:
    """The text in the field `wanted` of the value at the source's position; words of a list are separated by spaces."""
    walk = Walk(source, line, wanted, book)
    while True:
        byte = _next_byte(walk)
        if items := _items(walk):
            yield from _words(walk, items)
        elif byte in b"{[":
            _enter(walk, byte)
        elif byte in b"}]":
            _leave(walk)
            if not walk.containers:
                return walk
        elif byte == b'"' and walk.containers[-1] == b"{" and walk.keys[-1] is None:
            walk.keys[-1] = b"".join(_string(walk, _KEY_BYTES)).decode("utf-8", "replace")
            continue
        elif byte == b'"':
            wanted_here = walk.on_text()
            if wanted_here and walk.texts:
                yield b" "
            for piece in _string(walk, book=book if wanted_here else None):
                if wanted_here:
                    walk.text_bytes += len(piece)
                    yield piece
            walk.texts += wanted_here
        else:
            _skip_scalar(walk)
        if walk.containers and walk.containers[-1] == b"{" and byte not in b"{[":
            walk.keys[-1] = None


def _items(walk: Walk) -> bytes:
    """The items of an array from the walk's position on that have arrived and are as in _ITEMS; often none."""
    found = _ITEMS.match(walk.source.data, walk.source.at) if walk.containers and walk.containers[-1] == b"[" else None
    return walk.take(found.end()) if found else b""


def _words(walk: Walk, items: bytes) -> Iterator[bytes]:
    """The words in such items, with a space before each that is not the first; nothing if they are not of the text."""
    if not items.startswith(b'"') or not walk.on_text():
        return
    words = json.loads(f"[{lenient(items.rstrip()[:-1])}]", strict=False)
    text = encoded(" ".join(words), walk.book)
    walk.text_bytes += len(text) - (len(words) - 1)
    first = not walk.texts
    walk.texts += len(words)
    yield text if first else b" " + text


def _next_byte(walk: Walk) -> bytes:
    while True:
        blank = _BLANK.match(walk.source.data, walk.source.at)
        walk.take(blank.end() if blank else walk.source.at)
        if walk.source.at < len(walk.source.data):
            return walk.source.data[walk.source.at : walk.source.at + 1]
        walk.more()


def _enter(walk: Walk, byte: bytes) -> None:
    walk.take(walk.source.at + 1)
    walk.containers.append(byte)
    walk.keys.append(None)
    if len(walk.containers) > _MAXIMUM_DEPTH:
        raise NotJson(walk.line, "nested too deeply")


def _leave(walk: Walk) -> None:
    walk.take(walk.source.at + 1)
    walk.containers.pop()
    walk.keys.pop()


def _skip_scalar(walk: Walk) -> None:
    empty = True
    while True:
        found = _SCALAR.match(walk.source.data, walk.source.at)
        stop = found.end() if found else walk.source.at
        empty = empty and stop == walk.source.at
        walk.take(stop)
        if stop < len(walk.source.data):
            if empty:
                raise NotJson(walk.line, f"unexpected {walk.source.data[stop : stop + 1]!r}")
            return
        walk.more()


def _string(walk: Walk, limit: int | None = None, book: RecordBook | None = None) -> Generator[bytes, None, None]:
    """The string at the walk's position as UTF-8, in pieces; no more than about `limit` bytes of it."""
    walk.take(walk.source.at + 1)
    given = 0
    while True:
        data, start = walk.source.data, walk.source.at
        found = _WHOLE.match(data, start)
        stop = found.end() if found else start
        # Two escapes together are one character.
        if data[stop : stop + 1] != b'"' and (half := _HIGH_SURROGATE.search(data, max(start, stop - 6), stop)):
            stop = half.start()
        piece = walk.take(stop)
        if piece and (limit is None or given < limit):
            given += len(piece)
            yield _decoded(piece, walk.line, book)
        if data[stop : stop + 1] == b'"':
            walk.take(stop + 1)
            return
        if len(data) - stop >= 24:
            raise NotJson(walk.line, f"not an escape: {data[stop : stop + 6]!r}")
        walk.more()


def _decoded(piece: bytes, line: int, book: RecordBook | None) -> bytes:
    try:
        return encoded(json.loads(f'"{lenient(piece)}"', strict=False), book)
    except ValueError as error:
        raise NotJson(line, str(error)) from None
