"""Reading the formats of word2vec and its relatives, whichever program wrote them: completely, or an error says why not.

    text      "V D\\n", then V lines "word number … number"; fastText's .vec files are the same, GloVe's have no first line
    binary    "V D\\n", then V times: the word, a space, D little-endian float32, a newline (gensim writes none)

Whether a file is text or binary is decided by the bytes of many words, not by its name or a single line. Numbers are parsed by
NumPy's table reader, a block of lines at a time. Lines that it rejects are examined one by one, to load what is merely unusual
(a word that contains a space) and to name what is wrong. Memory grows with what has been read, never with what the first line
promises.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from w2v_core.text.printable import printable

_READ_BYTES = 8 << 20
_SAMPLE_LINES = 64
_SAMPLE_ROWS = 1000
_LONGEST_LINE = 64 << 20
_HEADER = re.compile(rb"[ \t]*(\d{1,18})[ \t]+(\d{1,9})[ \t]*\r?\n")
_HEADER_BYTES = 64
_NUMBER = re.compile(rb"[+-]?(?:\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?|nan|inf(?:inity)?)", re.IGNORECASE)
_TRIES_TO_BE_A_NUMBER = re.compile(rb"[0-9eE+\-.,:;'/_]+|nan|inf(?:inity)?", re.IGNORECASE)
_NEVER_IN_TEXT = re.compile(rb"[\0-\x08\x0e-\x1f]")
_BOM = b"\xef\xbb\xbf"
_OTHERS = {
    b"\x28\xb5\x2f\xfd": "it is compressed (zstd); decompress it first",
    b"PK\x03\x04": "it is a ZIP; unpack it first",
    b"\x93NUMPY": "it is a NumPy matrix without its words; give the folder that holds it, with meta.json beside it",
    b"\xba\x16\x4f\x2f": "it is a fastText model; load the .vec file that fastText wrote beside it",
    b"\xff\xfe": "it is UTF-16; convert it to UTF-8",
    b"\x1f\x8b": "it is compressed twice; decompress it once",
    b"\x80": "it is a pickle, as gensim's save() writes; write it with gensim's save_word2vec_format",
    b"\x89HDF": "it is HDF5; write the vectors in word2vec's format",
    b"PAR1": "it is Parquet; name it .parquet",
    b"version https://git-lfs": "it is a Git LFS pointer, not the file itself; fetch it with git lfs pull",
    b"SQLite format": "it is a database (.magnitude?); export the vectors in word2vec's format",
    b"<": "it is HTML or XML, perhaps the error page of a download; fetch it again",
    b"{": "it is JSON; write a line of word and numbers for each word",
}
"""What people mistake for files of vectors, by its first bytes."""
CUT = "the file is cut or its first line is wrong: fetch or export it again"
_JUDGED = 8
"""With fewer different numbers it may be by chance that they look like reversed ones, unless all are denormal."""


class Header(NamedTuple):
    """What a file's first lines say: number of words (None: not stated), vector size, offset of the first word in bytes."""

    words: int | None
    vector_size: int
    offset: int


@dataclass
class Found:
    """The words read so far, as bytes, and their vectors, in a matrix that starts with room for `certain` words and grows."""

    vector_size: int
    dtype: np.dtype[Any]
    certain: int = 0
    words: list[bytes] = field(default_factory=list)
    spaced: list[bytes] = field(default_factory=list)
    """Words that contain white space, for a note."""
    unfinished: bool = False
    """Whether the last line has no line end."""
    _matrix: npt.NDArray[Any] = field(init=False)

    def __post_init__(self) -> None:
        self._matrix = np.empty((self.certain, self.vector_size), self.dtype)

    def add(self, words: list[bytes], rows_ND: npt.NDArray[Any]) -> None:
        before = len(self.words)
        if before + len(words) > len(self._matrix):
            grown = max(before + len(words), before + before // 2)
            self._matrix.resize((grown, self.vector_size), refcheck=False)  # in place, where the system can
        self._matrix[before : before + len(words)] = rows_ND
        self.words += words

    def matrix(self) -> npt.NDArray[Any]:
        self._matrix.resize((len(self.words), self.vector_size), refcheck=False)
        return self._matrix


# ── what the file is ─────────────────────────────────────────────────────────────────────────────────────────────────


def read_header(sample: bytes, name: str, no_header: bool | None) -> Header:
    """The header of a file that begins with `sample`; if no_header is None, whether there is one is detected. Raises ValueError
    if the file does not look like one of these formats."""
    begin = len(_BOM) if sample.startswith(_BOM) else 0
    line = sample[begin : begin + _HEADER_BYTES].partition(b"\n")
    found = _HEADER.fullmatch(line[0] + line[1])
    if found and not no_header:
        if not int(found[1]) or not int(found[2]):
            raise ValueError(f"{name}: its first line promises no vectors ({printable(line[0].decode('latin-1'))}); {CUT}")
        return Header(int(found[1]), int(found[2]), begin + found.end())
    if b"\n" not in sample and sample.count(b"\r") > 1 and not _NEVER_IN_TEXT.search(sample):
        raise ValueError(rf"{name}: its lines end with CR alone, as old Macs did; convert them: tr '\r' '\n'")
    counts = _numbers_a_line(sample[begin:]) if no_header is not False else []
    if not counts:
        shown = printable(sample[:_HEADER_BYTES].partition(b"\n")[0].decode("latin-1"))
        hint = _mistaken(sample[begin:])
        expected = "lines of a word and numbers" if no_header else "a first line of two numbers, words and vector size"
        raise ValueError(f"{name}: expected {expected}, found '{shown}'; {hint}")
    if _are_coordinates(sample[begin:].split(b"\n", _SAMPLE_LINES)[:-1] or [sample]):
        raise ValueError(f"{name}: its lines hold numbers only, as a matrix without its words; put each word before its numbers")
    return Header(None, max(set(counts), key=lambda size: (counts.count(size), -size)), begin)


def _are_coordinates(lines: list[bytes]) -> bool:
    """Whether the lines begin with numbers, most of them with a point, which are hardly words."""
    first = [fields[0] for line in lines if (fields := line.split())]
    return all(map(_NUMBER.fullmatch, first)) and 4 * sum(b"." in number for number in first) > 3 * len(first)


def _mistaken(sample: bytes) -> str:
    """What the file may be instead, or what is wrong with its lines, and what to do."""
    if known := next((hint for magic, hint in _OTHERS.items() if sample.startswith(magic)), None):
        return known
    lines = sample.split(b"\n")
    separator = next((char for char in (b",", b";") if _separated(lines[0], char)), None)
    if separator:
        return f"its fields are separated by {separator.decode()!r}; separate them by spaces or tabs"
    if any(b"," in field and _NUMBER.fullmatch(field.replace(b",", b".")) for field in lines[0].split()[1:]):
        return "numbers have a point, not a comma"
    return "is this a word2vec or GloVe file?"


def _separated(line: bytes, separator: bytes) -> bool:
    """Whether the line is a word and at least two numbers with `separator` between them."""
    fields = line.strip().split(separator)
    return len(fields) > 2 and all(_NUMBER.fullmatch(field.strip()) for field in fields[1:])


def _numbers_a_line(sample: bytes) -> list[int]:
    """How many numbers each of the first lines ends with; empty unless all end with at least two, as in a table of vectors."""
    lines = sample.split(b"\n", _SAMPLE_LINES)
    counts = []
    for line in lines[:-1] if len(lines) > 1 else lines:
        if not (fields := line.split()):
            continue
        numbers = next((n for n, one in enumerate(reversed(fields[1:])) if not _NUMBER.fullmatch(one)), len(fields) - 1)
        counts.append(numbers)
    return counts if counts and min(counts) >= 2 else []


def looks_like_text(sample: bytes, header: Header, *, whole: bool) -> bool:
    """Whether the part after the header is text; `sample` is its beginning, or all of it (`whole`).

    It is text if every line ends in numbers, or in attempts at numbers (0,5). Else it is binary if word after word has the
    length that the header implies: a vector whose bytes happen to spell a number, or one bad line, does not decide. If it is
    neither, it is taken for what it resembles more, and the error will say how it was read.
    """
    lines = sample.split(b"\n", _SAMPLE_LINES)
    lines = lines[:-1] if len(lines) > 1 else lines
    rows = [line.split()[-header.vector_size :] for line in lines]
    tables = sum(len(row) == header.vector_size and all(map(_TRIES_TO_BE_A_NUMBER.fullmatch, row)) for row in rows)
    if tables == len(lines):
        return True
    if _walks_as_binary(sample, header, whole=whole):
        return False
    return 2 * tables >= len(lines) or not _NEVER_IN_TEXT.search(sample)


def _walks_as_binary(sample: bytes, header: Header, *, whole: bool) -> bool:
    """Whether the first words are where the binary format would have them, and, if all bytes are given, nothing else follows."""
    position, words = 0, 0
    while words < min(_SAMPLE_LINES, header.words or 0):
        space = sample.find(b" ", position)
        end = space + 1 + 4 * header.vector_size
        if space < 0 or end > len(sample):
            return not whole and words > 0
        if b"\n" in sample[position:space].lstrip(b"\n"):
            return False
        position, words = end, words + 1
    return not whole or words < (header.words or 0) or not sample[position:].strip(b"\n")


# ── binary ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_binary(stream: BinaryIO, header: Header, found: Found, limit: int | None, name: str) -> None:
    """Adds the words of a stream positioned after the header, at most `limit`. Raises ValueError if their number is wrong."""
    promised = header.words or 0
    wanted, row_bytes = promised if limit is None else min(limit, promised), 4 * header.vector_size
    buffer = judged = b""
    while len(found.words) < wanted:
        more = stream.read(max(_READ_BYTES, row_bytes))
        buffer += more
        words: list[bytes] = []
        rows: list[bytes] = []
        position = 0
        while len(found.words) + len(words) < wanted:
            space = buffer.find(b" ", position)
            end = space + 1 + row_bytes
            if space < 0 or end > len(buffer):
                break
            words.append(buffer[position:space].lstrip(b"\n"))
            rows.append(buffer[space + 1 : end])
            position = end
        if words:
            _refuse_spaced(words, found, name)
            judged = judged or b"".join(rows[:_SAMPLE_ROWS])
            found.add(words, np.frombuffer(b"".join(rows), "<f4").reshape(len(rows), header.vector_size))
        buffer = buffer[position:]
        if len(found.words) < wanted and (not more or len(buffer) > _LONGEST_LINE + row_bytes):
            raise ValueError(
                f"{name}: expected {promised:,} words, ends inside word {len(found.words) + 1:,} (read as binary); {CUT}"
            )
    rest = (buffer + stream.read(64)).lstrip(b"\n") if limit is None or limit > promised else b""
    if rest:
        raise ValueError(f"{name}: more bytes follow the last of {promised:,} words (read as binary); {CUT}")
    _refuse_byte_order(judged, name)


def _refuse_byte_order(rows: bytes, name: str) -> None:
    """Raises ValueError if many numbers are of no size that vectors have, and with their bytes in reverse order all are."""
    as_read, reversed_ = _exponents(rows, "<u4"), _exponents(rows, ">u4")
    if len(as_read) < _JUDGED and as_read.any():
        return
    if _share_of_odd_sizes(as_read) > 0.25 and _share_of_odd_sizes(reversed_) < 0.01:
        raise ValueError(
            f"{name}: its numbers have the bytes in the order of another processor (big-endian); word2vec's binary format has "
            "the least significant byte first: export the vectors again"
        )


def _exponents(rows: bytes, order: str) -> npt.NDArray[Any]:
    """The exponents, as float32 stores them (0 in a denormal number), of the different numbers that are not 0, signs aside."""
    bits = np.unique(np.frombuffer(rows, order).astype(np.uint32) & 0x7FFFFFFF)
    return bits[bits > 0] >> 23


def _share_of_odd_sizes(exponents: npt.NDArray[Any]) -> float:
    """The share of numbers that are not between about 1e-12 and 1e12."""
    return float(np.mean((exponents < 127 - 40) | (exponents > 127 + 40))) if exponents.size else 0.0


def _refuse_spaced(words: list[bytes], found: Found, name: str) -> None:
    """Raises ValueError if a space inside a word was taken for its end: then the next begins with the rest of its numbers, and
    with the line end after them, where the file has line ends."""
    at = next((at for at, word in enumerate(words) if b"\n" in word), None)
    if at is not None:
        before = words[at - 1] if at else found.words[-1] if found.words else b""
        shown = printable(before.decode("utf-8", "replace"))
        raise ValueError(
            f"{name}: word {len(found.words) + at:,}, '{shown}', goes on after a space, which this format cannot hold, "
            "or its numbers are not as many as the first line says; export the vectors as text"
        )


# ── text ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_text(stream: BinaryIO, header: Header, found: Found, limit: int | None, name: str, allow_unfinished: bool) -> None:
    """Adds the words of a stream positioned after the header, at most `limit`. Raises ValueError if their number is wrong or a
    line cannot be read."""
    promised = header.words
    wanted = promised if limit is None else min(limit, promised) if promised is not None else limit
    first_line = 1 if promised is None else 2
    for lines, ended in _blocks_of_lines(stream, name):
        while lines and not lines[-1].strip():  # a file may end in empty lines
            lines.pop()
        room = len(lines) if wanted is None else wanted - len(found.words)
        spare = lines[room:]
        lines = lines[:room]
        if lines:
            if not ended and not spare:  # the last number may have lost digits and still look like a number
                if not allow_unfinished:
                    raise ValueError(
                        f"{name}: the line of word {len(found.words) + len(lines):,} has no end, so its last number may be cut; "
                        "fetch the file again, or load it as it is with allow_unfinished"
                    )
                found.unfinished = True
            _add_lines(lines, len(found.words) + first_line, found, name)
        if len(found.words) == limit:
            return
        if any(line.strip() for line in spare):
            raise ValueError(
                f"{name}: expected {promised:,} words, more lines follow; the file or its first line is wrong: "
                f"limit={promised} loads the words that it promises"
            )
    if promised is not None and len(found.words) < (wanted or 0):
        raise ValueError(f"{name}: expected {promised:,} words, ends after {len(found.words):,}; {CUT}")


def _blocks_of_lines(stream: BinaryIO, name: str) -> Iterator[tuple[list[bytes], bool]]:
    """(lines without line ends, whether the last one had a line end), a few megabytes at a time; a blank rest is left out."""
    rest = b""
    while more := stream.read(_READ_BYTES):
        head, newline, rest_of_it = more.rpartition(b"\n")
        if newline:
            yield (rest + head).split(b"\n"), True
            rest = rest_of_it
        else:
            rest += rest_of_it
            if len(rest) > _LONGEST_LINE:
                raise ValueError(f"{name}: a line is longer than {_LONGEST_LINE >> 20} MiB; is this a word2vec or GloVe file?")
    if rest.strip():
        yield [rest], False


def _add_lines(lines: list[bytes], first_line: int, found: Found, name: str) -> None:
    """Adds a block of lines, the first of which is number `first_line` of the file."""
    separator = b"\t" if lines and lines[0].count(b"\t") >= found.vector_size else b" "
    split = [line.partition(separator) for line in lines]
    words = [word for word, _, _ in split]
    if (rows_ND := _parse_block([tail for _, _, tail in split], found.vector_size)) is None:
        parsed = [_parse_line(line, found, first_line + i, name) for i, line in enumerate(lines)]
        words = [word for word, _ in parsed]
        rows_ND = np.array([row for _, row in parsed], np.float64).reshape(len(lines), found.vector_size)
    with np.errstate(over="ignore"):  # a number beyond the dtype becomes infinite; the first query names its word
        found.add(words, rows_ND.astype(found.dtype, copy=False))


def _parse_block(tails: list[bytes], vector_size: int) -> npt.NDArray[Any] | None:
    """The numbers of many lines (N, D), or None if a line is unusual."""
    if not tails:
        return np.empty((0, vector_size), np.float32)
    if not all(tails):
        return None
    try:
        rows_ND = np.loadtxt(io.BytesIO(b"\n".join(tails)), np.float64, comments=None, ndmin=2, encoding="latin-1")
    except ValueError:
        return None
    return rows_ND if rows_ND.shape == (len(tails), vector_size) else None


def _parse_line(line: bytes, found: Found, number: int, name: str) -> tuple[bytes, list[float]]:
    """(word, numbers) of a line whose word may contain spaces. Raises ValueError naming the line."""
    size, fields = found.vector_size, line.split()
    numbers, others = fields[-size:], fields[:-size]
    if b"\t" in line and line.count(b"\t") >= size:
        word = line.rstrip().rsplit(b"\t", size)[0]
    else:
        word = line.rstrip().rsplit(None, size)[0] if len(fields) > size + 1 else b"".join(others)
    wrong = next((one for one in numbers if not _NUMBER.fullmatch(one)), None)
    begins = printable(line[:60].decode("utf-8", "replace"))
    if len(fields) <= size and line[:1] not in (b" ", b"\t"):
        hint = _mistaken(line) if len(fields) == 1 and (_separated(line, b",") or _separated(line, b";")) else CUT
        raise ValueError(
            f"{name}: line {number:,}: expected {size} numbers after the word, found {max(len(fields) - 1, 0)}; {hint}"
        )
    if wrong is not None:
        hint = "; numbers have a point, not a comma" if b"," in wrong else ""
        shown = printable(wrong.decode("latin-1"))
        raise ValueError(f"{name}: line {number:,}: expected {size} numbers after the word, found '{shown}' ({begins}){hint}")
    if len(others) > 1 and any(_NUMBER.fullmatch(one) for one in others[1:]):
        raise ValueError(
            f"{name}: line {number:,}: expected {size} numbers after the word, found {len(fields) - 1} fields ({begins}); "
            f"the word may hold a space: '{printable(word.decode('utf-8', 'replace'))}', or the first line is wrong"
        )
    if len(others) > 1:
        found.spaced.append(word)
    return word, [float(one) for one in numbers]
