"""How much memory a Parquet column chunk needs: the sizes in its page headers, before anything is decompressed.

Arrow holds a page whole, and a dictionary page twice. The sizes in the file's footer are not trusted: a page of a few kilobytes
can claim to hold two gigabytes. Footer (`FileMetaData`) and headers (`PageHeader`) are Thrift structs, defined in
parquet.thrift. The footer is read here, too, because pyarrow ends the whole process when it is asked for a column chunk whose
statistics of sizes do not fit its levels.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from pipeline.text.formats.thrift import BadThrift, KeptFields, read_struct

MAXIMUM_PAGE_BYTES, MAXIMUM_FOOTER_BYTES = 512 << 20, 64 << 20
_DICTIONARY_PAGE = 2
_DATA_PAGES = (5, 8)
"""The fields of a header that describe a data page, in Parquet's two versions; their first number is the count of values."""
_HEADER: KeptFields = {1: {}, 2: {}, 3: {}} | {field: {1: {}} for field in _DATA_PAGES}
_FOOTER: KeptFields = {4: {1: {3: {3: {}, 5: {}, 6: {}, 7: {}, 9: {}, 11: {}}}, 3: {}}}
"""Of FileMetaData: the row groups, with their number of rows and their columns' metadata (path, values, sizes, first pages)."""
_TAIL_BYTES = 1 << 16
"""Bytes read at once from the end of a file: most footers are shorter, and to a bucket a second request takes longer."""
_HEADER_BYTES, _LONGEST_HEADER_BYTES = 256, 16 << 20


class BadPage(ValueError):
    """A damaged page header or footer; the message says what is wrong and where."""


@dataclass(frozen=True)
class ColumnChunk:
    """A column of a row group, as the footer describes it."""

    path: str
    """The column's path in the schema, with dots."""
    values: int
    uncompressed_bytes: int
    compressed_bytes: int
    begins: int
    """Offset of its first page in the file, in bytes."""


@dataclass(frozen=True)
class RowGroup:
    rows: int
    chunks: Sequence[ColumnChunk]


@dataclass(frozen=True)
class ChunkPages:
    """The largest pages of a column chunk, in bytes after decompression."""

    dictionary_bytes: int = 0
    largest_bytes: int = 0


def row_groups(file: BinaryIO) -> list[RowGroup]:
    """The row groups of a Parquet file; raises BadPage."""
    size = file.seek(0, 2)
    tail = _last(file, size, _TAIL_BYTES)
    length = struct.unpack("<I", tail[-8:-4])[0] if len(tail) >= 8 else 0
    if tail[-4:] != b"PAR1" or not 0 < length <= size - 8:
        raise BadPage("no footer at its end")
    if length > MAXIMUM_FOOTER_BYTES:
        raise BadPage(f"a footer of {length:,} bytes, more than the {MAXIMUM_FOOTER_BYTES:,} that are read")
    if length + 8 > len(tail):
        tail = _last(file, size, length + 8)
    try:
        footer = read_struct(tail[-8 - length : -8], 0, _FOOTER)[0]
        return [RowGroup(int(group[3]), [_chunk(column[3]) for column in group[1]]) for group in footer.get(4, ())]
    except (IndexError, KeyError, TypeError, AttributeError, BadThrift) as error:
        raise BadPage(f"a footer that cannot be read ({error})") from None


def _last(file: BinaryIO, size: int, count: int) -> bytes:
    file.seek(max(0, size - count))
    return file.read(count)


def _chunk(said: dict[int, Any]) -> ColumnChunk:
    """The column chunk of a decoded ColumnMetaData; its dictionary page, if any, precedes the data pages."""
    begins = min(said[9], said[11]) if said.get(11) else said[9]
    found = ColumnChunk(b".".join(said[3]).decode(errors="replace"), said[5], said[6], said[7], begins)
    if not all(isinstance(number, int) and number >= 0 for number in (found.values, found.compressed_bytes, begins)):
        raise TypeError("sizes that are none")
    return found


def chunk_pages(file: BinaryIO, chunk: ColumnChunk) -> ChunkPages:
    """The sizes in the page headers of a column chunk; raises BadPage."""
    found = ChunkPages()
    for kind, size in page_sizes(file, chunk):
        dictionary = size if kind == _DICTIONARY_PAGE else 0
        found = ChunkPages(max(found.dictionary_bytes, dictionary), max(found.largest_bytes, size))
    return found


def page_sizes(file: BinaryIO, chunk: ColumnChunk) -> Iterator[tuple[int, int]]:
    """(kind, bytes after decompression) of every page that Arrow would read: it stops after the footer's number of values."""
    at = chunk.begins
    values, stop = 0, at + chunk.compressed_bytes
    headers = _Headers(file, stop)
    while at < stop and values < chunk.values:
        header, length = headers.at(at)
        kind, size, stored = (header.get(field, -1) for field in (1, 2, 3))
        if not all(isinstance(number, int) and 0 <= number < 1 << 31 for number in (kind, size, stored)):
            raise BadPage(f"no header of a page at byte {at:,}")
        yield kind, size
        at += length + stored
        values += max(0, *(_count(header.get(field)) for field in _DATA_PAGES))


def _count(page: object) -> int:
    count = page.get(1, 0) if isinstance(page, dict) else 0
    return count if isinstance(count, int) else 0


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
                return read_struct(data, 0, _HEADER)
            except BadThrift as error:
                raise BadPage(f"a page header that cannot be read, at byte {place:,} ({error})") from None
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
