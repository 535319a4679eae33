"""How much memory the messages of an Arrow file need, before anything is decompressed.

A compressed buffer begins with its uncompressed length, which Arrow allocates. A message's metadata, a FlatBuffers table
(Message.fbs), says where the buffers are; only the fields that lead to them are read.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Any

MAXIMUM_MESSAGE_BYTES = 1 << 30
_MAGIC = b"ARROW1"
_HEADER, _BUFFERS, _COMPRESSION, _DATA = 2, 2, 3, 1
"""Field numbers: Message.header; RecordBatch.buffers and .compression; DictionaryBatch.data."""


def stream_of(file: Any) -> Any:
    """The file, positioned where its messages begin: an Arrow IPC file is a stream between a magic number and a footer, and the
    footer of a forged file could point elsewhere."""
    file.seek(8 if file_begins(file) else 0)
    return file


def file_begins(file: Any) -> bool:
    """Whether it is an Arrow IPC file rather than a stream."""
    file.seek(0)
    return bool(file.read(8).startswith(_MAGIC))


def message_bytes(file: Any) -> Iterator[tuple[int, int]]:
    """(stored bytes, bytes in memory) of every message; raises ArrowException, and ValueError for invalid metadata."""
    import pyarrow as pa

    reader = pa.ipc.MessageReader.open_stream(stream_of(file))
    while True:
        try:
            message = reader.read_next_message()
        except StopIteration:
            _refuse_more(file)
            return
        body = message.body
        stored = body.size if body is not None else 0
        try:
            yield stored, _uncompressed(message.type, bytes(message.metadata), body) if stored else 0
        except (struct.error, IndexError) as error:
            raise ValueError(f"metadata that points outside the message ({error})") from None


def _refuse_more(file: Any) -> None:
    """Raises ValueError for bytes after the end of a stream, which no reader would read; a file has its footer there."""
    end = file.tell()
    if end < file.seek(0, os.SEEK_END) and not file_begins(file):
        raise ValueError(f"its stream ends at byte {end:,} and more bytes follow: several were joined; keep each in its own file")


def _uncompressed(kind: str, metadata: bytes, body: Any) -> int:
    header = _table(metadata, _number("<I", metadata, 0), _HEADER)
    if header and "dictionary" in kind:
        header = _table(metadata, header, _DATA)
    if not header or not _field(metadata, header, _COMPRESSION):
        return int(body.size)
    vector = _table(metadata, header, _BUFFERS)
    total = 0
    for index in range(_number("<I", metadata, vector) if vector else 0):
        start, length = struct.unpack_from("<qq", metadata, vector + 4 + 16 * index)
        if length >= 8:
            size = _number("<q", body, start)
            total += length if size == -1 else max(0, size)
    return total


def _number(form: str, data: Any, at: int) -> int:
    if at < 0:
        raise IndexError(at)
    return int(struct.unpack_from(form, data, at)[0])


def _field(data: bytes, table: int, number: int) -> int:
    """Offset of a field of a table; 0 if it is absent."""
    directory = table - _number("<i", data, table)
    at = 4 + 2 * number
    offset = _number("<H", data, directory + at) if at < _number("<H", data, directory) else 0
    return table + offset if offset else 0


def _table(data: bytes, table: int, number: int) -> int:
    """Offset of the table or vector that a field refers to; 0 if it is absent."""
    at = _field(data, table, number)
    return at + _number("<I", data, at) if at else 0
