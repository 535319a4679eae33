"""Chunks of whole lines from bytes of text, in bounded memory, and where lines start in a file that is cut into pieces.

A line belongs to the piece it starts in, so reading goes on past the piece's end. A line with no end within LOOK_BYTES is cut
between words instead, at the ends of pieces and chunks: after white space or U+200B, which ends words too, or, for tokenizers
that also split scripts written without spaces, before an ideograph or another letter that is a word by itself and after stops
that are no ASCII. No token is lost, doubled or split, but the line becomes several sentences. LOOK_BYTES without any such place
are one over-long token, which is dropped and counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from pipeline.text.characters import WHITESPACE, ZERO_WIDTH_SPACE
from pipeline.text.losses import LONG_TOKENS, ReadCounts

LOOK_BYTES = 1 << 20
_NEAR_BYTES = 1 << 12
_SPACE = b"|".join(re.escape(character.encode()) for character in WHITESPACE + "\0" + ZERO_WIDTH_SPACE)
_ASCII_SPACES = [character.encode() for character in " \t\r\v\f\0\n"]
_LETTERS = (
    rb"(?=[\xe4-\xe9]|\xf0[\xa0-\xb3]"  # ideographs, U+4000 to U+9FFF and U+20000 on
    rb"|\xe3\x80[\x81-\x84\x88-\xa0]|\xef\xbc[\x81\x8c\x9a\x9b\x9f]"  # their punctuation
    rb"|\xe3\x81[\x81-\xbf]|\xe3\x82[\x80-\x96]"  # Hiragana
    rb"|\xe0\xb8[\x81-\xb0\xb2\xb3]|\xe0\xb9[\x80-\x86]|\xe0\xba[\x81-\xb0\xb2\xb3]"  # Thai, Lao
    rb"|\xe1\x9e[\x80-\xb3]|\xe1\x80[\x80-\xaa])"  # Khmer, Myanmar
)
"""A word of `simple` ends before any of these (characters.UNSPACED): letters only, since a mark belongs to the character before
it."""


@dataclass(frozen=True)
class Breaks:
    """Where a line that is too long to be held may be cut."""

    place: re.Pattern[bytes]
    """The end of a match is such a place."""

    first: re.Pattern[bytes]
    """The bytes that a match can begin with: fast to search for."""

    def search(self, buffer: bytes, start: int = 0) -> re.Match[bytes] | None:
        """The first such place from `start` on."""
        while candidate := self.first.search(buffer, start):
            if found := self.place.match(buffer, candidate.start()):
                return found
            start = candidate.start() + 1
        return None

    def last(self, buffer: bytes) -> int:
        """The last such place, 0 if there is none; ASCII first, because that search runs in C."""
        if cut := max(buffer.rfind(space) for space in _ASCII_SPACES) + 1:
            return cut
        near = max(0, len(buffer) - _NEAR_BYTES)
        for first in (near, 0):
            if cut := max((found.end() for found in self.place.finditer(buffer, first)), default=0):
                return cut
        return 0


SPACES = Breaks(re.compile(_SPACE), re.compile(rb"[\0\t-\r\x1c- \xc2\xe1-\xe3]"))
_STOPS = rb"\xd8[\x8c\x9b\x9f]|\xe0\xa5[\xa4\xa5]|\xe0\xbc[\x8d-\x92]"
"""Comma, semicolon and question mark of Arabic, danda of Indic scripts, shad of Tibetan: no word goes on after them."""
LETTERS = Breaks(re.compile(_SPACE + b"|" + _STOPS + b"|" + _LETTERS), re.compile(rb"[\0\t-\r\x1c- \xc2\xd8\xe0-\xe9\xef\xf0]"))


def line_start(file: BinaryIO, boundary: int, size: int, look_bytes: int, breaks: Breaks | None) -> tuple[int, bool]:
    """(offset, inside): where the first line at or after `boundary` starts, a pure function of the file's bytes.

    The end of the file ends a line. Without a newline within `look_bytes` the offset is the first of `breaks` (if given); without
    a break either it is `boundary + look_bytes`, inside one over-long token. Both pieces that meet at a boundary call this with
    the same arguments, so they agree.
    """
    if boundary <= 0 or boundary >= size:
        return min(max(boundary, 0), size), False
    file.seek(boundary - 1)
    end, limit = boundary - 1, min(boundary + look_bytes, size)
    window: list[bytes] = []
    while end < limit and (block := file.read(min(1 << 16, limit - end))):
        newline = block.find(b"\n")
        if newline >= 0:
            return end + newline + 1, False
        end += len(block)
        window.append(block)
    if end < size and breaks:
        for found in breaks.place.finditer(b"".join(window)):
            if found.end() > 0:
                return boundary - 1 + found.end(), False
    return end, end < size


def cut_lines(
    blocks: Iterator[bytes], look_bytes: int, counts: ReadCounts, place: int = 0, start: int = 0, breaks: Breaks = SPACES
) -> Iterator[tuple[int, bytes]]:
    """(offset, chunk): the bytes in chunks that end with a line; a line longer than `look_bytes` is cut at a break.

    A run of `look_bytes` without a break is dropped up to the next break and counted as one over-long token.
    """
    tail = b""
    for block in blocks:
        buffer = tail + block if tail else block
        cut = buffer.rfind(b"\n") + 1
        if not cut and len(buffer) >= look_bytes:
            cut = breaks.last(buffer)
        if cut:
            yield start, buffer[:cut]
            start += cut
        tail = buffer[cut:]
        if len(tail) >= look_bytes and not breaks.search(tail, 1):
            tail, skipped = _drop_run(tail, blocks, counts, place, breaks)
            start += skipped
    run = breaks.last(tail)
    if len(tail) - run >= look_bytes:
        if run:
            yield start, tail[:run]
        _drop_run(tail[run:], iter(()), counts, place, breaks)
    elif tail:
        yield start, tail


def _drop_run(run: bytes, blocks: Iterator[bytes], counts: ReadCounts, place: int, breaks: Breaks) -> tuple[bytes, int]:
    """(bytes after it, bytes dropped) of an over-long token that begins with `run`."""
    rest, skipped = skip_run(blocks, breaks)
    dropped = len(run) + skipped
    counts.drop(place, LONG_TOKENS, dropped)
    if len(counts.overlong_samples) < 3:
        counts.overlong_samples.append(run[:120])
    return rest, dropped


def skip_run(blocks: Iterator[bytes], breaks: Breaks = SPACES) -> tuple[bytes, int]:
    """(rest, skipped): consumes blocks up to the next break; `rest` starts there, and is empty at the end."""
    skipped, held = 0, b""
    for block in blocks:
        block = held + block
        if found := breaks.search(block):
            return block[found.start() :], skipped + found.start()
        held = block[-2:]  # may be the beginning of a character of three bytes
        skipped += len(block) - len(held)
    return b"", skipped + len(held)
