"""A file of records as blocks of text, a newline after every record's text, whatever the format."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from pipeline.errors import DataError, printable
from pipeline.text.decompress import BLOCK_BYTES
from pipeline.text.formats.columns import arrow_texts, parquet_texts
from pipeline.text.formats.json_stream import text_pieces
from pipeline.text.formats.json_values import LONG, ByteSource, NotJson, read_values
from pipeline.text.formats.records import NoText, RecordBook, encoded, text_of
from pipeline.text.formats.tables import read_rows
from pipeline.text.lines import line_start
from pipeline.text.losses import OUTSIDE, PUT_IN, READ, ReadCounts
from pipeline.text.pieces import Piece, Reading
from pipeline.text.sources import open_source


def record_blocks(
    format: str, piece: Piece, place: int, source: Any, reading: Reading, counts: ReadCounts, path: str | None = None
) -> Iterator[bytes]:
    """The texts of the piece's records. `source` is blocks of text for JSON and tables, the file itself for other formats."""
    path = path or piece.file.path
    book = RecordBook(path, place, counts, reading.stop_at_bad_records, reading.max_ratio, whole=piece.cut is None)
    if format == "parquet":
        groups = range(piece.start, piece.stop)
        yield from parquet_texts(cast(BinaryIO, source.file), groups, reading.text_field, path, piece.file.size, book)
    elif format == "arrow":
        yield from arrow_texts(cast(BinaryIO, source.file), reading.text_field, path, piece.file.size, book)
    elif format == "python":
        yield from _docstrings(source, place, counts)
    else:
        before = _Total()
        texts = _json_texts if format == "jsonl" else _row_texts
        yield from _joined(texts(piece, before.counted(source), reading, book))
        counts.add(place, OUTSIDE, before.size - book.text_bytes - book.bad_bytes)


class _Total:
    """Counts the bytes of the blocks that pass through."""

    def __init__(self) -> None:
        self.size = 0

    def counted(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        for block in blocks:
            self.size += len(block)
            yield block


def _joined(texts: Iterator[bytes]) -> Iterator[bytes]:
    held: list[bytes] = []
    size = 0
    for text in texts:
        held.append(text)
        size += len(text)
        if size >= BLOCK_BYTES:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


def _json_texts(piece: Piece, blocks: Iterator[bytes], reading: Reading, book: RecordBook) -> Iterator[bytes]:
    source = ByteSource(blocks)
    try:
        for value, line, size in read_values(source):
            if value is LONG:
                yield from _long_text(source, line, piece, reading, book)
                continue
            try:
                text, put_in = text_of(value, reading.text_field)
            except NoText as problem:
                book.bad(f"line {_before(piece, reading) + line:,}", str(problem), size)
                continue
            data = encoded(text, book)
            book.good(len(data), put_in)
            yield data + b"\n"
    except NotJson as error:
        line, why = error.args
        raise DataError(
            f"{printable(book.path, 300)}: line {_before(piece, reading) + line:,}: not valid JSON ({printable(why, 100)}); "
            "nothing of this part was kept: correct the file"
        ) from None


def _long_text(source: ByteSource, line: int, piece: Piece, reading: Reading, book: RecordBook) -> Iterator[bytes]:
    """The text of one value that is too long to be held."""
    walk = yield from text_pieces(source, line, reading.text_field, book)
    if not walk.texts:
        book.bad(f"line {_before(piece, reading) + line:,}", f"no string in {printable(reading.text_field)!r}", walk.raw_bytes)
        return
    book.good(walk.text_bytes + walk.texts - 1, walk.texts - 1)
    yield b"\n"


def _row_texts(piece: Piece, blocks: Iterator[bytes], reading: Reading, book: RecordBook) -> Iterator[bytes]:
    for text, line in read_rows(blocks, reading.format, reading.text_field, book.path):
        if isinstance(text, NoText):
            book.bad(f"line {line:,}", str(text), 0)
        else:
            book.good(len(text), 0)
            yield text + b"\n"


def _before(piece: Piece, reading: Reading) -> int:
    """The number of lines before the piece, counted only when a message needs it."""
    if piece.file.kind != "plain" or not piece.start:
        return 0
    before = 0
    with open_source(piece.file.path, reading.storage) as file:
        start, _ = line_start(file, piece.start, piece.file.size, piece.file.size, None)
        file.seek(0)
        while start > 0 and (block := file.read(min(BLOCK_BYTES, start))):
            before += block.count(b"\n")
            start -= len(block)
    return before


def _docstrings(file: BinaryIO, place: int, counts: ReadCounts) -> Iterator[bytes]:
    from pipeline.text import pydocs

    text = pydocs.text(file.read())
    if text is None:
        counts.remarks["Python files|file are|is no valid Python and were|was left out"] += 1
        return
    data = text.encode("utf-8", "surrogatepass")
    counts.add(place, READ, len(data))
    counts.add(place, PUT_IN, 0)
    yield data
