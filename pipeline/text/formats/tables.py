"""The texts of a column of CSV or TSV.

CSV is read by Python's csv module: quoted cells may contain delimiters and line ends. TSV has no quoting: a quotation mark is
text, so an unclosed one loses nothing. The first row names the columns; `text_field` may also be a column number counted from 1,
and then the first row is data. A line `sep=;` before it, as Excel writes and reads, names the delimiter.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator

from pipeline.errors import DataError, printable
from pipeline.text.formats.records import ABSENT, NoText, text_of, what_it_has

CELL_BYTES = 64 << 20
_DELIMITERS = ",;|"
_SAYS_DELIMITER = re.compile(r'"?sep=([^\w\s"]|\t)"?\s*', re.IGNORECASE)


def read_rows(blocks: Iterator[bytes], format: str, field: str, path: str) -> Iterator[tuple[bytes | NoText, int]]:
    """(text or the reason why there is none, line from 1) of every row; raises DataError if there is no such column."""
    csv.field_size_limit(CELL_BYTES)
    lines = _Lines(blocks)
    first = next(lines, "").removeprefix("\ufeff")
    blank = 0
    while first and not first.strip():
        first, blank = next(lines, ""), blank + 1
    said = _SAYS_DELIMITER.fullmatch(first) if format == "csv" else None
    if said:
        first, blank = next(lines, ""), blank + 1
    if not first:
        return
    delimiter = "\t" if format == "tsv" else said[1] if said else max(_DELIMITERS, key=first.count)
    rows = csv.reader(
        _chain(first, lines),
        delimiter=delimiter,
        quoting=csv.QUOTE_NONE if format == "tsv" else csv.QUOTE_MINIMAL,
        strict=True,
    )
    column, width = None, 0
    try:
        for row in rows:
            if column is None:
                (column, is_data), width = _column(row, field, path), len(row)
                if not is_data:
                    continue
            if not row:
                continue
            yield _cell(row, column, field, width), rows.line_num + blank
    except csv.Error as error:
        raise DataError(
            f"{printable(path, 300)}: line {rows.line_num + blank:,}: not {format.upper()} ({printable(str(error), 100)}); a "
            f'quotation mark inside a quoted cell must be doubled (not \\"), and the last one closes it; a cell may hold '
            f"{CELL_BYTES >> 20} MB; correct the file, or read it as tsv or lines"
        ) from None


def _cell(row: list[str], column: int, field: str, width: int) -> bytes | NoText:
    if any(row[max(width, column + 1) :]):
        return NoText(
            f"{len(row)} cells, expected {width} as in the first line: a delimiter in a cell must be quoted, or is a space"
        )
    value = row[column] if column < len(row) else ABSENT
    try:
        return str(text_of({field: value}, field)[0]).encode("utf-8", "surrogateescape")
    except NoText:
        return NoText(f"{len(row)} cells, expected at least {column + 1}")


def _column(header: list[str], field: str, path: str) -> tuple[int, bool]:
    """(index of the column, whether the first row is data)."""
    header = [name.strip() for name in header]
    if header.count(field) > 1:
        raise DataError(
            f"{printable(path, 300)}: {header.count(field)} columns have the name {printable(field)!r}; give each its own, or "
            "set corpus.text_field to the number of one, from 1"
        )
    if field in header:
        return header.index(field), False
    if field.isdecimal() and int(field):
        return int(field) - 1, True
    tabs = len(header) == 1 and "\t" in header[0]
    advice = "corpus.format: tsv" if tabs else "corpus.text_field to one of them, or to a column's number from 1"
    raise DataError(f"{printable(path, 300)}: no column {printable(field)!r}; {what_it_has(header, field, 200, advice)}")


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


class _Lines(Iterator[str]):
    """The lines of the blocks as str, with their ends; bytes that are not UTF-8 become lone surrogates."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._ready: list[bytes] = []
        self._rest: list[bytes] = []
        self._held = 0

    def __next__(self) -> str:
        while not self._ready:
            block = next(self._blocks, None)
            if block is None:
                rest, self._rest = b"".join(self._rest), []
                if not rest:
                    raise StopIteration
                return _decoded(rest)
            *lines, rest = block.split(b"\n")
            if lines:
                self._ready = [b"".join([*self._rest, lines[0]]), *lines[1:]][::-1]
                self._rest, self._held = [], 0
            self._rest.append(rest)
            self._held += len(rest)
            if self._held > CELL_BYTES:
                raise csv.Error("a line without end")
        return _decoded(self._ready.pop() + b"\n")


def _decoded(line: bytes) -> str:
    # NUL separates words, as in every format.
    return line.replace(b"\0", b" ").decode("utf-8", "surrogateescape")
