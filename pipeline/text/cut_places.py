"""Where a large file is cut, decided by its text: an edit moves the cuts around it and no others.

If cuts lay at multiples of a block, a word inserted at the front would move them all and change every part after it. So a part
ends between three quarters and five quarters of a block from its start, after the line end whose neighbouring bytes have the
smallest hash. An edit elsewhere in the part usually leaves that line end the smallest; if it does not, the cuts of the old and
new text meet again after a few parts (content-defined chunking by a local minimum, as in backup programs). A window without a
line end is cut after white space, or failing that in the middle; records are cut only after line ends.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipeline.text.lines import LOOK_BYTES
from pipeline.text.pieces import Cut
from w2v_core.sampler import mix64

_CHUNK_BYTES = 2 << 20
_HASHED_BYTES = 4 << 20
"""Bytes hashed at a time. They are many, because a hashing thread must wait for the interpreter after every piece."""
_COMPARED = (0, -9, 8, -17, 16, -25)
"""Offsets from the byte after the line end to the eight bytes whose hashes are compared, in turn, to break ties."""
_MARGIN = 32
_SPACES = b" \t\r\v\f"


def is_cut(size: int, block_bytes: int) -> bool:
    """Whether a file of that many bytes becomes several parts."""
    return size > max(1, block_bytes * 5 // 4)


def cut_file(file: BinaryIO, size: int, block_bytes: int, *, records: bool) -> tuple[str, tuple[Cut, ...]]:
    """(SHA-256 of the file, its cuts in order, the last at its end), a function of its bytes alone.

    A cut's digest covers all bytes that decide what its part reads: those from the previous cut to this one and, if either cut
    is not after a line end, also the byte before the part and those after it that are searched for a line end (lines.py).
    """
    whole, cuts, start, begins_line = hashlib.sha256(), [], 0, True
    for stop, ends_line in _places(file, size, block_bytes, records):
        digest = hashlib.sha256()
        for block in _blocks(file, start, stop, _HASHED_BYTES):
            whole.update(block)
            digest.update(block)
        exact = begins_line and ends_line
        if not exact:
            for first, last in ((start - 1, start), (stop, min(stop + LOOK_BYTES, size))):
                for block in _blocks(file, max(0, first), last):
                    digest.update(block)
            digest.update(bytes([begins_line, ends_line]))
        cuts.append(Cut(stop, digest.hexdigest(), exact))
        start, begins_line = stop, ends_line
    return whole.hexdigest(), tuple(cuts)


def _places(file: BinaryIO, size: int, block_bytes: int, records: bool) -> Iterator[tuple[int, bool]]:
    """(offset, whether a line ends there) of every cut, the file's end last."""
    start, low, high = 0, max(1, block_bytes * 3 // 4), max(1, block_bytes * 5 // 4)
    while is_cut(size - start, block_bytes):
        place, ends_line = _best(file, size, start + low, start + high, b"\n"), True
        if place is None and records:
            place = _next_line_end(file, size, start + high)
        elif place is None:
            place, ends_line = _best(file, size, start + low, start + high, _SPACES) or start + max(1, block_bytes), False
        if place >= size:
            break
        yield place, ends_line
        start = place
    yield size, True


def _best(file: BinaryIO, size: int, low: int, high: int, marks: bytes) -> int | None:
    """The offset in [low, high], right after one of `marks`, whose neighbouring bytes hash smallest; the first on a tie."""
    found: list[tuple[tuple[int, ...], int]] = []
    for first in range(low, min(high, size - 1) + 1, _CHUNK_BYTES):
        last = min(first + _CHUNK_BYTES - 1, high, size - 1)
        begin = first - _MARGIN
        held = b"\0" * max(0, -begin) + b"".join(_blocks(file, max(0, begin), min(last + _MARGIN, size)))
        held = held.ljust(last + _MARGIN - begin, b"\0")
        before = np.frombuffer(held, np.uint8)[_MARGIN - 1 : last - begin]
        marked = before == marks[0]
        for mark in marks[1:]:
            marked |= before == mark
        places = np.flatnonzero(marked) + _MARGIN
        if len(places):
            hashes, place = _smallest(held, places)
            found.append((hashes, begin + place))
    return min(found)[1] if found else None


def _smallest(held: bytes, places: NDArray[np.intp]) -> tuple[tuple[int, ...], int]:
    """(hashes, place) of the place whose neighbouring bytes hash smallest, compared in turn; the first on a tie."""
    eights: NDArray[Any] = np.ndarray((len(held) - 7,), "<u8", held, strides=(1,))
    hashes = []
    for offset in _COMPARED:
        mixed = mix64(0, eights[places + offset])
        least = mixed.min()
        hashes.append(int(least))
        places = places[mixed == least]
    return tuple(hashes), int(places[0])


def _next_line_end(file: BinaryIO, size: int, place: int) -> int:
    """The offset right after the first line end from `place` on; the file's end if there is none."""
    for block in _blocks(file, place, size):
        if (newline := block.find(b"\n")) >= 0:
            return place + newline + 1
        place += len(block)
    return size


def _blocks(file: BinaryIO, start: int, stop: int, size: int = _CHUNK_BYTES) -> Iterator[bytes]:
    file.seek(start)
    while start < stop and (block := file.read(min(size, stop - start))):
        start += len(block)
        yield block
