"""How much memory a Parquet column chunk needs: the sizes in its page headers, before anything is decompressed.

Arrow holds a page whole, and a dictionary page twice. The sizes in the file's footer are not trusted: a page of a few kilobytes
can claim to hold two gigabytes. The headers are Thrift structs in the compact protocol (parquet.thrift, `PageHeader`); only their
numbers are read here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

MAXIMUM_PAGE_BYTES = 512 << 20
_DICTIONARY_PAGE = 2
_DATA_PAGES = (5, 8)
"""The fields of a header that describe a data page, in Parquet's two versions; their first number is the count of values."""
_HEADER_BYTES, _LONGEST_HEADER_BYTES = 256, 16 << 20
_DEEPEST = 16
_TRUE, _FALSE, _BYTE, _I64, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 6, 7, 8, 9, 10, 12
_VARINTS = range(4, _I64 + 1)


class BadPage(ValueError):
    """A damaged page header; the message says what is wrong and where."""


@dataclass(frozen=True)
class ChunkPages:
    """The largest pages of a column chunk, in bytes after decompression."""

    dictionary_bytes: int = 0
    largest_bytes: int = 0


def chunk_pages(file: BinaryIO, chunk: Any) -> ChunkPages:
    """The sizes in the page headers of a column chunk (pyarrow's ColumnChunkMetaData); raises BadPage."""
    found = ChunkPages()
    for kind, size in page_sizes(file, chunk):
        dictionary = size if kind == _DICTIONARY_PAGE else 0
        found = ChunkPages(max(found.dictionary_bytes, dictionary), max(found.largest_bytes, size))
    return found


def page_sizes(file: BinaryIO, chunk: Any) -> Iterator[tuple[int, int]]:
    """(kind, bytes after decompression) of every page that Arrow would read: it stops after the footer's number of values."""
    at = chunk.data_page_offset
    if chunk.has_dictionary_page and chunk.dictionary_page_offset:
        at = min(at, chunk.dictionary_page_offset)
    values, stop = 0, at + chunk.total_compressed_size
    headers = _Headers(file, stop)
    while at < stop and values < chunk.num_values:
        header, length = headers.at(at)
        kind, size, stored = (header.get(field, -1) for field in (1, 2, 3))
        if not all(0 <= number < 1 << 31 for number in (kind, size, stored)):
            raise BadPage(f"no header of a page at byte {at:,}")
        yield kind, size
        at += length + stored
        values += max(0, *(header.get(field, {}).get(1, 0) for field in _DATA_PAGES))


@dataclass
class _Headers:
    """Reads the page headers of a column chunk that ends at `stop`: from a file on disk little more than the headers; from an
    object in a bucket (`FAR_BYTES`) long ranges with the pages between them, because a request takes longer than their bytes."""

    file: BinaryIO
    stop: int
    window: bytes = b""
    window_start: int = 0

    def at(self, place: int) -> tuple[dict[int, Any], int]:
        """(struct, its length in bytes) of the header at an offset of the file."""
        size = _HEADER_BYTES
        while True:
            data = self._read(place, size)
            try:
                return _struct(data, 0, 0)
            except IndexError:
                if len(data) < size or size >= _LONGEST_HEADER_BYTES:
                    raise BadPage(f"no header of a page at byte {place:,}") from None
                size *= 16

    def _read(self, place: int, size: int) -> bytes:
        inside = place - self.window_start
        if not 0 <= inside <= len(self.window) - size:
            far = min(getattr(self.file, "FAR_BYTES", 0), max(0, self.stop - place))
            self.file.seek(place)
            self.window, self.window_start, inside = self.file.read(max(size, far)), place, 0
        return self.window[inside : inside + size]


def _struct(data: bytes, at: int, depth: int) -> tuple[dict[int, Any], int]:
    """({field: number or struct}, end offset) of a struct; raises IndexError when the data ends before it."""
    if depth > _DEEPEST:
        raise BadPage("a header of a page that is nested too deeply")
    found: dict[int, Any] = {}
    field = 0
    while byte := data[at]:
        at += 1
        kind, step = byte & 0xF, byte >> 4
        if step:
            field += step
        else:
            value, at = _varint(data, at)
            field = _signed(value)
        if kind in _VARINTS:
            value, at = _varint(data, at)
            found[field] = _signed(value)
        elif kind == _STRUCT:
            found[field], at = _struct(data, at, depth + 1)
        elif kind not in (_TRUE, _FALSE):
            at = _skip(data, at, kind, depth)
    return found, at + 1


def _skip(data: bytes, at: int, kind: int, depth: int) -> int:
    if kind == _STRUCT:
        return _struct(data, at, depth + 1)[1]
    if kind in _VARINTS:
        return _varint(data, at)[1]
    if kind == _BINARY:
        size, at = _varint(data, at)
        if at + size > len(data):
            raise IndexError
        return at + size
    if kind in (_BYTE, _TRUE, _FALSE, _DOUBLE):
        return at + (8 if kind == _DOUBLE else 1)
    if kind in (_LIST, _SET):
        count, inner = data[at] >> 4, data[at] & 0xF
        at += 1
        if count == 0xF:
            count, at = _varint(data, at)
        for _ in range(count):
            data[at]
            at = _skip(data, at, inner, depth)
        return at
    raise BadPage("a header of a page that is no Thrift struct")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise BadPage("a header of a page with a number too long")


def _signed(value: int) -> int:
    return (value >> 1) ^ -(value & 1)
