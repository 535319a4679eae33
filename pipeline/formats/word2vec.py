"""The word2vec formats, text and binary: written so that other programs read them, and read whoever wrote them.

    text      "V D\\n", then V lines "word number … number"; fastText's .vec files are the same
    binary    "V D\\n", then V times: the word, a space, D little-endian float32, a newline (gensim writes none)

Neither can hold every word: see `UNWRITABLE`. Numbers go out as the shortest text that reads back as the same float32.
They are formatted and parsed by Arrow's CSV code, a column at a time, which is several times quicker than a loop over
numbers in Python; words never pass through it, since CSV has its own ideas about quotes and line ends.
"""

from __future__ import annotations

import io
import mmap
import re
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from w2v_core.vectors.word_vectors import Floats, WordVectors, printable

UNWRITABLE = re.compile(r"[\s\0\ud800-\udfff]|\A\Z")
"""What no word may contain, or be. The formats end a word at a space and a text line at a newline; many readers split at any
white space (`str.split`), C readers stop at NUL, and half a surrogate pair has no UTF-8."""

_WRITE_ROWS, _WRITE_THREADS = 2048, 2
_READ_BYTES = 8 << 20
_HEADER = re.compile(rb"[ \t]*(\d{1,18})[ \t]+(\d{1,9})[ \t]*\r?\n")
_HEADER_BYTES = 64
_SAMPLE_BYTES = 1 << 20
_NUMBERS = re.compile(rb"[0-9eE+\-. \tNnAaIiFfTtYy\r]+")
_CUT = "the file is cut or its first line is wrong: fetch or export it again"


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def write_text(file: Any, words: Sequence[str], matrix: Floats) -> None:
    """Appends the text format; every word must be free of `UNWRITABLE`."""
    file.write(b"%d %d\n" % matrix.shape)
    first = 0
    for numbers in iterate_number_lines(matrix, " "):
        names = words[first : first + len(numbers)]
        first += len(numbers)
        file.write(b"".join([word.encode() + b" " + line + b"\n" for word, line in zip(names, numbers, strict=True)]))


def write_binary(file: Any, words: Sequence[str], matrix: Floats) -> None:
    """Appends the binary format, with word2vec's newline after each vector; every word must be free of `UNWRITABLE`."""
    file.write(b"%d %d\n" % matrix.shape)
    size = matrix.shape[1] * 4
    for first in range(0, len(words), _WRITE_ROWS):
        data = matrix[first : first + _WRITE_ROWS].astype("<f4").tobytes()
        names = words[first : first + _WRITE_ROWS]
        file.write(b"".join([b"%b %b\n" % (word.encode(), data[i * size : i * size + size]) for i, word in enumerate(names)]))


def iterate_number_lines(matrix: Floats, delimiter: str) -> Iterator[list[bytes]]:
    """Each row of `matrix` (N, D) as a line without its end, a list per block of rows; numbers read back as the same float32.

    Blocks are formatted two ahead in threads (Arrow gives the interpreter back meanwhile) and come out in order.
    """
    with ThreadPoolExecutor(_WRITE_THREADS) as pool:
        ahead: deque[Future[list[bytes]]] = deque()
        for first in range(0, len(matrix), _WRITE_ROWS):
            ahead.append(pool.submit(_number_lines, matrix[first : first + _WRITE_ROWS], delimiter))
            if len(ahead) > _WRITE_THREADS:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _number_lines(block_ND: Floats, delimiter: str) -> list[bytes]:
    import pyarrow as pa
    import pyarrow.csv

    columns_DN = np.ascontiguousarray(block_ND.T)
    table = pa.table([pa.array(column_N) for column_N in columns_DN], names=[str(i) for i in range(len(columns_DN))])
    sink = io.BytesIO()
    pa.csv.write_csv(table, sink, pa.csv.WriteOptions(include_header=False, delimiter=delimiter, quoting_style="none"))
    return sink.getvalue().split(b"\n")[:-1]


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_word2vec(path: Path, *, binary: bool | None = None, unicode_errors: str = "strict") -> WordVectors:
    """The vectors of a word2vec file, counts unknown. `binary` None: found out from the first vector.

    unicode_errors: for words that are not UTF-8, as in bytes.decode (word2vec.c cuts long words inside a character).
    Raises ValueError for anything that is not a complete file, FileNotFoundError. Nothing is allocated that the file's
    size does not bear out.
    """
    with open(path, "rb") as file:
        header = file.readline(_HEADER_BYTES)
        shape = _parse_header(header, path)
        sample = file.read(_SAMPLE_BYTES)
        binary = not _looks_like_text(sample, shape[1]) if binary is None else binary
        _check_size(path, shape, path.stat().st_size - len(header), binary=binary)
        file.seek(len(header))
        matrix = np.empty(shape, np.float32)
        raw = _read_binary(file, path, matrix) if binary else _read_text(file, path, matrix)
    try:
        return WordVectors(_decode(raw, unicode_errors), matrix)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _parse_header(header: bytes, path: Path) -> tuple[int, int]:
    found = _HEADER.fullmatch(header)
    if not found or not int(found[1]) or not int(found[2]):
        hint = (
            "decompress it first"
            if header[:2] == b"\x1f\x8b" or header[:4] == b"\x28\xb5\x2f\xfd"
            else "is this a word2vec file?"
        )
        shown = printable(header.decode("latin-1"))
        raise ValueError(f"{path}: expected a first line of two numbers, words and vector size, found '{shown}'; {hint}")
    return int(found[1]), int(found[2])


def _looks_like_text(sample: bytes, vector_size: int) -> bool:
    """True if what follows the first word can only be numbers written out; eight such bytes in a row are no accident."""
    line, _, _ = sample.partition(b"\n")
    _, _, tail = line.partition(b" ")
    return bool(_NUMBERS.fullmatch(tail)) and (len(tail.split()) == vector_size or len(tail) >= 8)


def _check_size(path: Path, shape: tuple[int, int], size: int, *, binary: bool) -> None:
    """Raises ValueError if `size` bytes cannot hold V words and V · D numbers at their shortest."""
    words, vector_size = shape
    least = words * (1 + 4 * vector_size) if binary else words * (1 + 2 * vector_size)
    if size < least:
        kind = "binary" if binary else "text"
        raise ValueError(
            f"{path}: its first line promises {words:,} words of {vector_size:,} numbers, at least {least:,} bytes as {kind}, "
            f"but {size:,} follow; {_CUT}"
        )


def _decode(raw: list[bytes], unicode_errors: str) -> list[str]:
    try:
        return [word.decode("utf-8", unicode_errors) for word in raw]
    except UnicodeDecodeError as error:
        index = raw.index(error.object)
        raise ValueError(
            f"word {index + 1:,} is not UTF-8: '{printable(error.object.decode('latin-1'))}'; "
            "read it with unicode_errors='backslashreplace' to keep its bytes visible"
        ) from None


def _read_binary(file: BinaryIO, path: Path, matrix: Floats) -> list[bytes]:
    """The words; fills `matrix`."""
    words: list[bytes] = []
    bytes_a_row = matrix.shape[1] * 4
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        position = file.tell()
        for row in range(len(matrix)):
            space = data.find(b" ", position)
            end = space + 1 + bytes_a_row
            if space < 0 or end > len(data):
                raise ValueError(f"{path}: expected {len(matrix):,} words, ends inside word {row + 1:,} (read as binary); {_CUT}")
            words.append(data[position:space].lstrip(b"\n"))
            matrix[row] = np.frombuffer(data, "<f4", matrix.shape[1], space + 1)
            position = end
        if data[position : position + 2].strip(b"\n"):
            raise ValueError(f"{path}: {len(data) - position:,} bytes follow the last of {len(matrix):,} words; {_CUT}")
    return words


def _read_text(file: BinaryIO, path: Path, matrix: Floats) -> list[bytes]:
    """The words; fills `matrix`."""
    words: list[bytes] = []
    while lines := file.readlines(_READ_BYTES):
        if len(words) + len(lines) > len(matrix):
            spare = lines[len(matrix) - len(words) :] + file.readlines()
            lines = lines[: len(matrix) - len(words)]
            if any(line.strip() for line in spare):
                raise ValueError(f"{path}: expected {len(matrix):,} words, more lines follow; {_CUT}")
        if lines:
            if not lines[-1].endswith(b"\n"):  # the last number may have lost digits and would still be a number
                raise ValueError(f"{path}: the line of word {len(words) + len(lines):,} has no end; {_CUT}")
            split = [line.partition(b" ") for line in lines]
            numbers = [tail.rstrip() for _, _, tail in split]
            matrix[len(words) : len(words) + len(lines)] = _parse_numbers(numbers, matrix.shape[1], len(words) + 2, path)
            words += [word for word, _, _ in split]
    if len(words) < len(matrix):
        raise ValueError(f"{path}: expected {len(matrix):,} words, ends after {len(words):,}; {_CUT}")
    return words


def _parse_numbers(lines: list[bytes], vector_size: int, first_line: int, path: Path) -> Floats:
    """float32 (N, D). What Arrow's strict parser refuses is parsed again by Python's, which also names the line."""
    import pyarrow as pa
    import pyarrow.csv

    data = b"\n".join(lines) + b"\n"
    names = [str(i) for i in range(vector_size)]
    try:
        table = pa.csv.read_csv(
            io.BytesIO(data),
            pa.csv.ReadOptions(column_names=names, block_size=len(data) + 1),
            pa.csv.ParseOptions(delimiter=" ", quote_char=False, ignore_empty_lines=False),
            pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.float32()), null_values=[]),
        )
        return np.stack([column.to_numpy() for column in table.columns], axis=1)
    except pa.ArrowInvalid:
        return np.stack([_parse_row(line, vector_size, first_line + i, path) for i, line in enumerate(lines)])


def _parse_row(line: bytes, vector_size: int, number: int, path: Path) -> Floats:
    try:
        row = np.array([float(field) for field in line.split()], np.float32)
    except ValueError as error:
        raise ValueError(
            f"{path}: line {number:,}: expected {vector_size} numbers after the word, {printable(str(error))}"
        ) from None
    if len(row) != vector_size:
        raise ValueError(f"{path}: line {number:,}: expected {vector_size} numbers after the word, found {len(row)}; {_CUT}")
    return row
