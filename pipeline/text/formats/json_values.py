"""The records of JSON text, one after the other: JSON lines, values that span lines or share one, the elements of an array.

Memory is bounded by bytes: a value of more than HELD_BYTES is not held in memory; its text is extracted piece by piece
(json_stream).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

HELD_BYTES = 4 << 20
_BETWEEN = re.compile(rb"(?:[ \t\r\n,\[\]\x1e]+|\xef\xbb\xbf)*")
"""What may stand between records: also the record separator of RFC 7464, and byte order marks, where files were joined."""
_STRUCTURE = re.compile(rb'["{}\[\]]')
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_SCALAR = re.compile(rb'[^\s,\[\]{}"]+')
_MARK = b"\xef\xbb\xbf"
LONG = object()


class NotJson(Exception):
    """(line from 1, why)"""


@dataclass
class ByteSource:
    """Bytes that arrive in blocks; `data[at:]` has arrived and is not yet consumed."""

    blocks: Iterator[bytes]
    data: bytes = b""
    at: int = 0
    lines: int = 0
    """Newlines before `at`."""
    ended: bool = False

    def more(self) -> bool:
        """Appends a block and drops consumed bytes; False at the end."""
        block = next(self.blocks, None)
        if block is None:
            self.ended = True
            return False
        self.data, self.at = self.data[self.at :] + block, 0
        return True

    def take(self, stop: int) -> bytes:
        taken = self.data[self.at : stop]
        self.lines += taken.count(b"\n")
        self.at = stop
        return taken


def read_values(source: ByteSource) -> Iterator[tuple[Any, int, int]]:
    """(value, line from 1, bytes) of every record; raises NotJson.

    For a value that is too long to be held, `value` is LONG, and the caller must consume it from the source.
    """
    source.more()
    opened = 0
    while True:
        if found := _a_line(source):
            yield found
            continue
        opened += _skip_between(source)
        line = source.lines + 1
        if source.at == len(source.data) and source.ended:
            if opened > 0:
                raise NotJson(line, "an array has no end: the file is cut")
            return
        stop = _end_of_value(source)
        if stop is None:
            yield LONG, line, 0
            continue
        raw = source.take(stop)
        yield _parse(raw, line), line, len(raw)


def _a_line(source: ByteSource) -> tuple[Any, int, int] | None:
    """The value of the next line if it is a single object, as in JSON lines: the fast path."""
    newline = source.data.find(b"\n", source.at)
    if newline < 0:
        return None
    raw = source.data[source.at : newline].strip().removeprefix(_MARK)
    if raw[:1] != b"{" or raw[-1:] != b"}":
        return None
    try:
        value = json.loads(lenient(raw))
    except (ValueError, RecursionError):
        return None  # several values share the line, or it is not JSON: the slow path decides
    line = source.lines + 1
    source.lines += 1
    source.at = newline + 1
    return value, line, len(raw)


def _skip_between(source: ByteSource) -> int:
    """How many more arrays begin than end before the next record."""
    opened = 0
    while True:
        found = _BETWEEN.match(source.data, source.at)
        skipped = source.take(found.end() if found else source.at)
        opened += skipped.count(b"[") - skipped.count(b"]")
        rest = source.data[source.at : source.at + len(_MARK)]
        if len(rest) == len(_MARK) or not _MARK.startswith(rest) or not source.more():
            return opened


def _end_of_value(source: ByteSource) -> int | None:
    """The end of the value at the source's position; None if it is too long to be held."""
    depth, at = 0, source.at
    while True:
        step = _next_structure(source.data, at, depth)
        if step is not None:
            depth, at = step
            if depth == 0:
                return at
            continue
        if len(source.data) - source.at > HELD_BYTES:
            return None
        at -= source.at
        if not source.more():
            return len(source.data)  # incomplete: parsing says so
        at += source.at


def _next_structure(data: bytes, at: int, depth: int) -> tuple[int, int] | None:
    """(depth, offset) after the next bracket or string; None if the data ends before."""
    if depth == 0 and data[at : at + 1] not in (b"{", b'"'):
        found = _SCALAR.match(data, at)
        if found and found.end() < len(data):
            return 0, found.end()
        return None if found or at >= len(data) else (0, at + 1)
    found = _STRUCTURE.search(data, at)
    if found is None:
        return None
    if found[0] == b'"':
        string = _STRING.match(data, found.start())
        return None if string is None else (depth, string.end())
    return depth + (1 if found[0] in b"{[" else -1), found.end()


def _parse(raw: bytes, line: int, **reading: Any) -> Any:
    try:
        return json.loads(lenient(raw), **reading)
    except RecursionError:
        raise NotJson(line, "nested too deeply") from None
    except json.JSONDecodeError as error:
        raise NotJson(line, str(error)) from None
    except ValueError:  # an integer of more digits than Python converts
        return _parse(raw, line, parse_int=float)


def lenient(raw: bytes) -> str:
    """The bytes as str; invalid UTF-8 becomes lone surrogates, which `records.encoded` turns back into the same bytes."""
    return raw.decode("utf-8", "surrogateescape")
