"""A part's text as chunks of whole lines, whatever it was stored as: valid UTF-8, about a megabyte each, never all at once.

The rules, one for every format:
- Only `\\n` ends a line (the `\\r` of `\\r\\n` is white space). U+2028, NEL and VT are white space inside a line, NUL too.
- A UTF-8 byte order mark is dropped at a file's start. UTF-16 and UTF-32 are refused by name.
- Bytes that are not UTF-8 become U+FFFD and are counted per file, or stop the run (`encoding_errors: strict`).
- A line that starts in a piece belongs to it, so the reader looks past the piece's end. A line with no end within
  LOOK_BYTES is cut at white space instead, at the ends of pieces and of chunks: no token is lost, doubled or split,
  but the line becomes several sentences. LOOK_BYTES without any white space are one over-long token: dropped, counted.
- JSON lines: one object a line, its `text_field` a string. A broken line or a missing field stops the run: skipping it
  would lose text in silence. Parquet: `text_field` is a string column; nulls are skipped and counted.
- A file that is not what was planned (other bytes, another size) stops the run, and nothing of its part is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

from pipeline.errors import DataError, InputError, printable
from pipeline.text.characters import WHITESPACE
from pipeline.text.corpus import Piece, SourceFile, TextPart
from pipeline.text.decompress import BLOCK_BYTES, decompress, zstd_frame_has_checksum

LOOK_BYTES = 1 << 20
MAX_JSON_LINE_BYTES = 256 << 20
_SPACE_BYTES = re.compile(b"|".join(re.escape(character.encode()) for character in WHITESPACE + "\0"))
_ASCII_SPACES = [character.encode() for character in " \t\r\v\f\0"]
_NUL_TO_SPACE = bytes([0x20, *range(1, 256)])
_BYTE_ORDER_MARKS = (b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")
_COMPRESSED_MAGIC = {b"\x1f\x8b\x08": ".gz", b"\x28\xb5\x2f\xfd": ".zst", b"\xfd7zXZ\0": ".xz", b"PAR1": ".parquet"}


@dataclass(frozen=True)
class Reading:
    """How stored bytes become text: the fields of `corpus:` that matter once the files are known."""

    format: str = "lines"
    text_field: str = "text"
    strict: bool = False
    max_ratio: int = 2000
    look_bytes: int = LOOK_BYTES


@dataclass
class ReadCounts:
    """What reading met; filled while the chunks go by. Keys are the piece's place in its part."""

    stored_bytes: int = 0
    text_bytes: int = 0
    invalid_utf8: Counter[int] = field(default_factory=Counter)
    overlong_runs: int = 0
    overlong_samples: list[bytes] = field(default_factory=list)
    remarks: Counter[str] = field(default_factory=Counter)


def read_part(part: TextPart, reading: Reading, counts: ReadCounts) -> Iterator[bytes]:
    """The part's text in order, in chunks of whole lines; see the module's rules for what raises."""
    for place, piece in enumerate(part.pieces):
        with _open_planned(piece.file) as file:
            watched = _Watched(file)
            start, blocks = _texts(piece, place, watched, reading, counts)
            for offset, chunk in cut_lines(blocks, reading.look_bytes, counts, start):
                yield _clean(chunk, piece, place, offset, reading, counts)
            watched.check(piece)
            counts.stored_bytes += piece.stop - piece.start if piece.file.kind != "parquet" else _group_bytes(piece)


def _group_bytes(piece: Piece) -> int:
    return sum(piece.file.row_groups[piece.start : piece.stop])


# ── opening what was planned ─────────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def _open_planned(planned: SourceFile) -> Iterator[BinaryIO]:
    try:
        # O_NONBLOCK: should a FIFO have taken the file's place, opening it must not wait for a writer.
        file = open(os.open(planned.path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0)  # noqa: SIM115
    except FileNotFoundError:
        raise InputError(
            f"{printable(planned.path, 300)}: it was there when the run was planned and is gone; put it back or run again"
        ) from None
    except OSError as error:
        raise InputError(
            f"{printable(planned.path, 300)}: cannot be read ({error.strerror}); every worker needs the corpus at this path"
        ) from None
    with file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_size != planned.size:
            raise _changed(planned, f"planned {planned.size:,} bytes, found {found.st_size:,}")
        yield cast(BinaryIO, file)


class _Watched(io.RawIOBase):
    """A file that hashes what is read from it in order, so that a whole file is compared with its planned digest."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.digest = hashlib.sha256()
        self.read_bytes = 0

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.read_bytes

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(size)
        self.digest.update(data)
        self.read_bytes += len(data)
        return data

    def check(self, piece: Piece) -> None:
        """Raises DataError when the file is not what was planned."""
        planned = piece.file
        if piece.whole and self.read_bytes == planned.size:
            if self.digest.hexdigest() != planned.sha256:
                raise _changed(planned, "the same size, other bytes")
            return
        found = os.fstat(self.file.fileno())
        if (found.st_size, found.st_mtime_ns, found.st_ctime_ns) == (planned.size, planned.mtime_ns, planned.ctime_ns):
            return
        # A new link or a copy on another host has other times; only the bytes can tell.
        self.file.seek(0)
        if hashlib.file_digest(cast(Any, self.file), "sha256").hexdigest() != planned.sha256:
            raise _changed(planned, f"planned {planned.size:,} bytes, found {found.st_size:,}")


def _changed(planned: SourceFile, what: str) -> DataError:
    return DataError(
        f"{printable(planned.path, 300)}: changed since the run was planned ({what}); nothing of its part was kept: "
        "run again when nothing writes to it"
    )


# ── stored bytes → blocks of text ────────────────────────────────────────────────────────────────────────────────────


def _texts(piece: Piece, place: int, file: _Watched, reading: Reading, counts: ReadCounts) -> tuple[int, Iterator[bytes]]:
    """(offset, blocks) of the piece's text: lines of a file, or texts taken out of records, each ended by a newline."""
    kind = piece.file.kind
    if kind == "python":
        return 0, _python_blocks(file, counts)
    if kind == "parquet":
        return 0, _parquet_blocks(piece, file, reading, counts)
    if kind == "plain":
        start, blocks = _plain_blocks(piece, file, reading)
    else:
        start, blocks = 0, _compressed_blocks(piece, file, reading, counts)
    return (0, _json_blocks(piece, place, blocks, reading, counts)) if reading.format == "jsonl" else (start, blocks)


def _plain_blocks(piece: Piece, file: _Watched, reading: Reading) -> tuple[int, Iterator[bytes]]:
    look, spaces = (MAX_JSON_LINE_BYTES, False) if reading.format == "jsonl" else (reading.look_bytes, True)
    start, inside = line_start(file.file, piece.start, piece.file.size, look, spaces)
    stop, _ = line_start(file.file, piece.stop, piece.file.size, look, spaces)
    file.file.seek(start)
    blocks = _range_blocks(file, start, stop, piece)
    if not inside:
        return start, blocks
    # An over-long token that began in an earlier piece is that piece's; go on behind it.
    rest, skipped = skip_run(blocks)
    return start + skipped, itertools.chain([rest], blocks)


def _range_blocks(file: _Watched, start: int, stop: int, piece: Piece) -> Iterator[bytes]:
    while start < stop:
        block = file.read(min(BLOCK_BYTES, stop - start))
        if not block:
            raise _changed(piece.file, f"it ended at byte {start:,}")
        start += len(block)
        yield block


def line_start(file: BinaryIO, boundary: int, size: int, look_bytes: int, spaces: bool) -> tuple[int, bool]:
    """(offset, inside): where the first line at or after `boundary` starts, a pure function of the file's bytes.

    The end of the file ends a line. Without a newline within `look_bytes` the place is behind the first white space (if
    `spaces`), and without that either it is `boundary + look_bytes`, inside one over-long token. Both pieces that meet
    at a boundary ask the same question.
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
        if spaces:
            window.append(block)
    if end < size and (space := _SPACE_BYTES.search(b"".join(window))):
        return boundary - 1 + space.end(), False
    return end, end < size


def _compressed_blocks(piece: Piece, file: _Watched, reading: Reading, counts: ReadCounts) -> Iterator[bytes]:
    if piece.file.kind == "zstd":
        if not zstd_frame_has_checksum(file.file.read(5)):
            counts.remarks["zstd files carry no checksum, so damage inside them could go unseen"] += 1
        file.file.seek(0)
    return decompress(
        cast(BinaryIO, file), piece.file.kind, path=piece.file.path, size=piece.file.size, max_ratio=reading.max_ratio
    )


def _json_blocks(piece: Piece, place: int, blocks: Iterator[bytes], reading: Reading, counts: ReadCounts) -> Iterator[bytes]:
    """The texts of JSON lines, joined to blocks."""
    texts: list[str] = []
    size = 0
    for number, line in enumerate(_whole_lines(piece, blocks), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(_decode_line(line, place, reading, counts))
        except (ValueError, RecursionError) as error:
            raise _bad_record(piece, number, f"not valid JSON ({printable(str(error), 100)})") from None
        text = record.get(reading.text_field) if isinstance(record, dict) else None
        if not isinstance(text, str):
            raise _bad_record(piece, number, _missing(record, reading.text_field))
        texts.append(text)
        size += len(text)
        if size >= BLOCK_BYTES:
            yield _encode_texts(texts)
            texts, size = [], 0
    yield _encode_texts(texts)


def _decode_line(line: bytes, place: int, reading: Reading, counts: ReadCounts) -> str:
    """The line as text without a byte order mark; raises UnicodeDecodeError when reading strictly."""
    if reading.strict or line.isascii():
        return line.decode("utf-8-sig")
    text = line.decode("utf-8-sig", "replace")
    counts.invalid_utf8[place] += text.count("\ufffd") - line.count(b"\xef\xbf\xbd")
    return text


def _encode_texts(texts: list[str]) -> bytes:
    # A lone surrogate, which JSON can spell, becomes the bytes of no character; they are repaired and counted later.
    return "".join(f"{text}\n" for text in texts).encode("utf-8", "surrogatepass")


def _missing(record: Any, field: str) -> str:
    if not isinstance(record, dict):
        return f"expected an object, found {type(record).__name__}"
    if field in record:
        return f"expected a string in {field!r}, found {type(record[field]).__name__}"
    return f"no field {printable(field)!r}; it has {printable(', '.join(map(str, record)), 100)}; set corpus.text_field"


def _bad_record(piece: Piece, number: int, what: str) -> DataError:
    before = 0
    if piece.file.kind == "plain" and piece.start:
        with open(piece.file.path, "rb") as file:
            start, _ = line_start(file, piece.start, piece.file.size, MAX_JSON_LINE_BYTES, False)
            file.seek(0)
            while start > 0 and (block := file.read(min(BLOCK_BYTES, start))):
                before += block.count(b"\n")
                start -= len(block)
    return DataError(
        f"{printable(piece.file.path, 300)}: line {before + number:,}: {what}; nothing of this part was kept: correct the file"
    )


def _whole_lines(piece: Piece, blocks: Iterator[bytes]) -> Iterator[bytes]:
    tail: list[bytes] = []
    tail_bytes = 0
    for block in blocks:
        *lines, rest = block.split(b"\n")
        if lines:
            yield b"".join([*tail, lines[0]])
            yield from lines[1:]
            tail, tail_bytes = [], 0
        tail.append(rest)
        tail_bytes += len(rest)
        if tail_bytes > MAX_JSON_LINE_BYTES:
            raise DataError(
                f"{printable(piece.file.path, 300)}: a line of more than {MAX_JSON_LINE_BYTES:,} bytes; "
                "expected one JSON object a line"
            )
    yield b"".join(tail)


def _parquet_blocks(piece: Piece, file: _Watched, reading: Reading, counts: ReadCounts) -> Iterator[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path, name = printable(piece.file.path, 300), reading.text_field
    try:
        with pq.ParquetFile(pa.PythonFile(file.file, "r"), page_checksum_verification=True) as parquet:
            names = parquet.schema_arrow.names
            if name not in names:
                raise DataError(
                    f"{path}: no column {printable(name)!r}; it has {printable(', '.join(names), 200)}; set corpus.text_field"
                )
            kind = parquet.schema_arrow.field(name).type
            value_type = kind.value_type if pa.types.is_dictionary(kind) else kind
            if not (pa.types.is_string(value_type) or pa.types.is_large_string(value_type)):
                raise DataError(f"{path}: column {printable(name)!r} must hold strings, found {kind}; set corpus.text_field")
            groups = range(piece.start, piece.stop)
            for batch in parquet.iter_batches(batch_size=1024, row_groups=list(groups), columns=[name], use_threads=False):
                texts = [text for text in batch.column(0).to_pylist() if text is not None]
                if missing := batch.num_rows - len(texts):
                    counts.remarks["null texts in Parquet files were skipped"] += missing
                yield _encode_texts(texts)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{path}: damaged Parquet data ({printable(str(error), 200)}); nothing of its part was kept") from None


def _python_blocks(file: _Watched, counts: ReadCounts) -> Iterator[bytes]:
    from pipeline.text import pydocs

    text = pydocs.text(file.read())
    if text is None:
        counts.remarks["Python files do not parse with this Python and were left out"] += 1
    else:
        yield text.encode("utf-8", "surrogatepass")


# ── blocks → chunks of whole lines ───────────────────────────────────────────────────────────────────────────────────


def cut_lines(blocks: Iterator[bytes], look_bytes: int, counts: ReadCounts, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """(offset, chunk): the bytes in chunks that end with a line; a line longer than `look_bytes` is cut behind white space.

    What has no white space for `look_bytes` is dropped up to the next one and counted as one over-long run.
    """
    tail = b""
    for block in blocks:
        buffer = tail + block if tail else block
        cut = buffer.rfind(b"\n") + 1
        if not cut and len(buffer) >= look_bytes:
            cut = _last_space(buffer)
        if cut:
            yield start, buffer[:cut]
            start += cut
        tail = buffer[cut:]
        if len(tail) >= look_bytes and not _SPACE_BYTES.search(tail):
            start += _drop_run(tail, counts)
            tail, skipped = skip_run(blocks)
            start += skipped
    run = _last_space(tail)
    if len(tail) - run >= look_bytes:
        _drop_run(tail[run:], counts)
        tail = tail[:run]
    if tail:
        yield start, tail


def skip_run(blocks: Iterator[bytes]) -> tuple[bytes, int]:
    """(rest, skipped): consumes blocks up to the next white space; `rest` starts with it, and is empty at the end."""
    skipped, held = 0, b""
    for block in blocks:
        block = held + block
        if space := _SPACE_BYTES.search(block):
            return block[space.start() :], skipped + space.start()
        held = block[-2:]  # may be the beginning of a white space of three bytes
        skipped += len(block) - len(held)
    return b"", skipped + len(held)


def _last_space(buffer: bytes) -> int:
    """The offset behind the last white space, 0 when there is none; ASCII first, because that is a search in C."""
    cut = max(buffer.rfind(space) for space in (*_ASCII_SPACES, b"\n")) + 1
    if cut:
        return cut
    return max((space.end() for space in _SPACE_BYTES.finditer(buffer)), default=0)


def _drop_run(run: bytes, counts: ReadCounts) -> int:
    counts.overlong_runs += 1
    if len(counts.overlong_samples) < 3:
        counts.overlong_samples.append(run[:120])
    return len(run)


# ── repair ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _clean(chunk: bytes, piece: Piece, place: int, offset: int, reading: Reading, counts: ReadCounts) -> bytes:
    """The chunk as valid UTF-8 without NUL or a leading byte order mark."""
    if offset == 0 and reading.format == "lines" and piece.file.kind != "python":
        chunk = _without_mark(chunk, piece)
    if b"\0" in chunk:
        chunk = chunk.translate(_NUL_TO_SPACE)
    counts.text_bytes += len(chunk)
    if chunk.isascii():
        return chunk
    try:
        chunk.decode()
        return chunk
    except UnicodeDecodeError as error:
        if reading.strict:
            raise DataError(
                f"{printable(piece.file.path, 300)}: byte {offset + error.start:,} of its text is not UTF-8 "
                f"(0x{chunk[error.start]:02x}: {error.reason}); corpus.encoding_errors is strict: "
                "convert the file or set it to replace"
            ) from None
    repaired = chunk.decode("utf-8", "replace")
    counts.invalid_utf8[place] += repaired.count("\ufffd") - chunk.count(b"\xef\xbf\xbd")
    return repaired.encode()


def _without_mark(chunk: bytes, piece: Piece) -> bytes:
    path = printable(piece.file.path, 300)
    if chunk.startswith(_BYTE_ORDER_MARKS):
        raise DataError(
            f"{path}: starts with a UTF-16 or UTF-32 byte order mark, expected UTF-8; convert it, for example with iconv -t UTF-8"
        )
    if piece.file.kind == "plain":
        for magic, suffix in _COMPRESSED_MAGIC.items():
            if chunk.startswith(magic):
                raise DataError(
                    f"{path}: looks like a {suffix} file and would be read as text; "
                    f"rename it to end in {suffix} (or set corpus.format)"
                )
    return chunk.removeprefix(b"\xef\xbb\xbf")
