"""A part's text as chunks of whole lines, whatever its stored format: valid UTF-8, about a megabyte each, never all at once.

The same rules hold for every format:
- Only `\\n` ends a line (the `\\r` of `\\r\\n` is white space), except in files whose lines end with a bare CR. U+2028, NEL, VT
  and NUL are white space inside a line. A long line is cut where no word is split (lines.py).
- A byte order mark at the start of a file is dropped. Bytes that are invalid in `corpus.encoding` become U+FFFD and are counted
  per file, or stop the run (`encoding_errors: strict`).
- formats/records.py defines the text of a record; a record without text is skipped and counted, or stops the run.
- Archives are read member by member, by the same rules.
- A file that differs from the plan (other bytes, another size) stops the run, and nothing of its part is kept.
- Every byte is accounted for (losses.py).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple, cast

from pipeline.errors import DataError, InputError, printable
from pipeline.options.storage import Storage
from pipeline.text import archives, lines, signatures
from pipeline.text.decompress import BLOCK_BYTES, bounded, decompress, zstd_frame_has_checksum
from pipeline.text.encodings import UTF8, repair, transcode
from pipeline.text.formats.blocks import record_blocks
from pipeline.text.losses import LONG_TOKENS, MARKS, NOT_TEXT, PUT_IN, READ, ReadCounts
from pipeline.text.pieces import Piece, SourceFile, TextPart
from pipeline.text.pieces import Reading as Reading
from pipeline.text.sources import is_regular, open_source, stand_of

_NUL_TO_SPACE = bytes([0x20, *range(1, 256)])
_MARK = b"\xef\xbb\xbf"
_WIDE_TEXT = re.compile(rb"(?:\0[^\0]){8,}\0?")
"""Sixteen bytes and more of which every second one is NUL."""


class Chunk(NamedTuple):
    place: int
    """Index of its piece in the part."""
    text: bytes


def read_part(part: TextPart, reading: Reading, counts: ReadCounts) -> Iterator[Chunk]:
    """The part's text in order, in chunks of whole lines; the module's docstring says what raises."""
    for place, piece in enumerate(part.pieces):
        with _open_planned(piece.file, reading.storage) as file:
            watched = _Watched(file)
            for text in _texts(piece, place, watched, reading, counts):
                for offset, chunk in lines.cut_lines(
                    text.blocks, reading.look_bytes, counts, place, text.start, reading.breaks
                ):  # fmt: skip
                    yield Chunk(place, _clean(chunk, text, place, offset, reading, counts))
            watched.check(piece)
            counts.stored_bytes += _group_bytes(piece) if piece.file.kind == "parquet" else piece.stop - piece.start


def _group_bytes(piece: Piece) -> int:
    return sum(piece.file.row_groups[piece.start : piece.stop])


# ── opening what was planned ─────────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def _open_planned(planned: SourceFile, storage: Storage) -> Iterator[BinaryIO]:
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open_source(planned.path, storage))
        except FileNotFoundError:
            raise InputError(
                f"{printable(planned.path, 300)}: it was there when the run was planned and is gone; put it back or run again"
            ) from None
        except OSError as error:
            raise InputError(
                f"{printable(planned.path, 300)}: cannot be read ({error.strerror}); every worker needs the corpus at this path"
            ) from None
        found = stand_of(file)
        if not is_regular(file) or found.size != planned.size:
            raise _changed(planned, f"planned {planned.size:,} bytes, found {found.size:,}")
        yield file


class _Watched(io.RawIOBase):
    """A file that hashes everything read from it, to be compared with the plan."""

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
        """Raises DataError when the file differs from the plan."""
        planned = piece.file
        digest = piece.cut.sha256 if piece.cut and piece.cut.exact else planned.sha256 if piece.whole else None
        if digest and self.read_bytes == piece.stop - piece.start:
            if self.digest.hexdigest() != digest:
                raise _changed(planned, "the same size, other bytes")
            return
        found = stand_of(self.file, now=True)
        mark = found.mark if isinstance(found.mark, str) else planned.inode
        if (*found[:3], mark) == (planned.size, planned.mtime_ns, planned.ctime_ns, planned.inode):
            return
        # A new link, or a copy on another host, has other times; only the bytes decide.
        self.file.seek(0)
        if hashlib.file_digest(cast(Any, self.file), "sha256").hexdigest() != planned.sha256:
            raise _changed(planned, f"planned {planned.size:,} bytes, found {found.size:,}")


def _changed(planned: SourceFile, what: str) -> DataError:
    return DataError(
        f"{printable(planned.path, 300)}: changed since the run was planned ({what}); nothing of its part was kept: "
        "run again when nothing writes to it"
    )


# ── stored bytes → blocks of text ────────────────────────────────────────────────────────────────────────────────────


class _Text(NamedTuple):
    """The text of a piece, or of one member of an archive."""

    path: str
    start: int
    """Offset of the first block in the text of its file."""
    blocks: Iterator[bytes]
    stored: bool
    """Whether the blocks are the file's own bytes rather than texts extracted from records."""


def _texts(piece: Piece, place: int, file: _Watched, reading: Reading, counts: ReadCounts) -> Iterator[_Text]:
    """The texts of a piece: lines of a file, or texts extracted from records, each ended by a newline."""
    kind, path = piece.file.kind, piece.file.path
    if kind in ("parquet", "arrow", "python"):
        yield _Text(path, 0, record_blocks(kind, piece, place, cast(BinaryIO, file), reading, counts), stored=False)
        return
    if kind == "plain":
        start, blocks = _plain_blocks(piece, place, file, reading, counts)
        yield _decoded(path, start, blocks, piece, place, reading, counts, piece.file.carriage_returns)
        return
    for name, blocks, carriage_returns in _unpacked(piece, place, file, reading, counts):
        yield _decoded(f"{path}/{name}" if name else path, 0, blocks, piece, place, reading, counts, carriage_returns)


def _decoded(
    path: str,
    start: int,
    blocks: Iterator[bytes],
    piece: Piece,
    place: int,
    reading: Reading,
    counts: ReadCounts,
    carriage_returns: bool,
) -> _Text:
    if reading.encoding != UTF8:
        blocks = transcode(blocks, reading.encoding, counts, place, path, reading.strict)
    else:
        blocks = _booked(blocks, counts, place)
    if carriage_returns:
        blocks = (block.replace(b"\r", b"\n") for block in blocks)
    if reading.format in ("jsonl", "csv", "tsv"):
        return _Text(path, 0, record_blocks(reading.format, piece, place, blocks, reading, counts, path), stored=False)
    return _Text(path, start, blocks, stored=True)


def _booked(blocks: Iterator[bytes], counts: ReadCounts, place: int) -> Iterator[bytes]:
    for block in blocks:
        counts.add(place, READ, len(block))
        yield block


def _plain_blocks(piece: Piece, place: int, file: _Watched, reading: Reading, counts: ReadCounts) -> tuple[int, Iterator[bytes]]:
    if piece.file.uncut:
        return 0, _range_blocks(file, 0, piece.file.size, piece)
    # A record is never cut; a line only when it is too long to be held, and only in UTF-8, whose white space is known.
    records = reading.format != "lines" or reading.encoding != UTF8
    look, breaks = (piece.file.size, None) if records else (reading.look_bytes, reading.breaks)
    start, inside = lines.line_start(file.file, piece.start, piece.file.size, look, breaks)
    stop, _ = lines.line_start(file.file, piece.stop, piece.file.size, look, breaks)
    file.file.seek(start)
    blocks = _range_blocks(file, start, stop, piece)
    if not inside:
        return start, blocks
    # An over-long token that began in an earlier piece belongs to that piece; go on after it.
    rest, skipped = lines.skip_run(blocks, reading.breaks)
    counts.drop(place, LONG_TOKENS, skipped, 0)
    counts.add(place, READ, skipped)
    return start + skipped, itertools.chain([rest], blocks)


def _range_blocks(file: _Watched, start: int, stop: int, piece: Piece) -> Iterator[bytes]:
    while start < stop:
        block = file.read(min(BLOCK_BYTES, stop - start))
        if not block:
            raise _changed(piece.file, f"it ended at byte {start:,}")
        start += len(block)
        yield block


def _unpacked(
    piece: Piece, place: int, file: _Watched, reading: Reading, counts: ReadCounts
) -> Iterator[tuple[str, Iterator[bytes], bool]]:
    """(name, blocks, whether its lines end with CR alone) of every member of an archive; a compressed file is one text with an
    empty name."""
    planned = piece.file
    left_out: Counter[str] = Counter()
    if planned.kind == "zip":
        members = archives.zip_members(file.file, planned.path, reading.chosen, left_out)
        yield from _checked(members, planned, reading, counts, left_out)
        return
    archive, _, compression = planned.kind.rpartition("+")
    if planned.kind == "tar":
        blocks = _range_blocks(file, 0, planned.size, piece)
    else:
        if compression == "zstd":
            if not zstd_frame_has_checksum(file.file.read(5)):
                counts.remarks["zstd files|file carry|carries no checksum, so damage inside could go unseen"] += 1
            file.file.seek(0)
        blocks = decompress(
            cast(BinaryIO, file), compression, path=planned.path, size=planned.size, max_ratio=reading.max_ratio
        )  # fmt: skip
    if archive or planned.kind == "tar":
        members = archives.tar_members(blocks, planned.path, reading.chosen, left_out)
        yield from _checked(members, planned, reading, counts, left_out)
        return
    yield "", _hashed(blocks, place, counts), planned.carriage_returns


def _checked(
    members: Iterator[tuple[str, Iterator[bytes]]],
    planned: SourceFile,
    reading: Reading,
    counts: ReadCounts,
    left_out: Counter[str],
) -> Iterator[tuple[str, Iterator[bytes], bool]]:
    """The members, as `_unpacked` gives them; raises DataError for one that the format does not read, and for a bomb."""
    for name, blocks in members:
        path = f"{planned.path}/{name}"
        blocks = bounded(blocks, path=path, size=planned.size, max_ratio=reading.max_ratio)
        head, blocks = _peeked(blocks)
        found = signatures.examine(head, reading.format, reading.encoding) if head else signatures.Finding()
        kind = signatures.container(head)
        problem = f"is a {kind} file inside an archive; unpack the archive" if kind else found.problem
        if reading.sniff and problem:
            or_else = "" if "corpus.exclude" in problem else ", or leave it out with corpus.exclude"
            raise DataError(f"{printable(path, 300)}: {problem}{or_else}")
        for remark in found.remarks:
            counts.remarks[f"members|member of archives {remark}"] += 1
        yield name, blocks, found.carriage_returns
    for reason, count in left_out.items():
        counts.remarks[f"{reason} (members of archives)"] += count


def _peeked(blocks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    head: list[bytes] = []
    while sum(map(len, head)) < signatures.HEAD_BYTES and (block := next(blocks, None)) is not None:
        head.append(block)
    return b"".join(head)[: signatures.HEAD_BYTES], itertools.chain(head, blocks)


def _hashed(blocks: Iterator[bytes], place: int, counts: ReadCounts) -> Iterator[bytes]:
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
        yield block
    counts.text_sha256[place] = digest.hexdigest()


def heads(file: SourceFile, reading: Reading) -> Iterator[bytes]:
    """The first bytes of a file's text; of an archive, those of one member after the other."""
    whole = Piece(file, 0, file.size)
    with _open_planned(file, reading.storage) as opened:
        watched = _Watched(opened)
        if file.kind == "plain":
            yield _peeked(_range_blocks(watched, 0, file.size, whole))[0]
            return
        for _, blocks, _ in _unpacked(whole, 0, watched, reading, ReadCounts()):
            yield _peeked(blocks)[0]


# ── repair ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _clean(chunk: bytes, text: _Text, place: int, offset: int, reading: Reading, counts: ReadCounts) -> bytes:
    """The chunk as valid UTF-8 without NUL or a leading byte order mark."""
    if offset == 0 and text.stored and chunk.startswith(_MARK):
        chunk = chunk[len(_MARK) :]
        counts.add(place, MARKS, len(_MARK))
    if b"\0" in chunk:
        chunk = _without_wide_text(chunk, place, counts).translate(_NUL_TO_SPACE)
    if reading.strict and not chunk.isascii():
        _refuse_invalid(chunk, text.path, offset)
    return repair(chunk, counts, place)


def _without_wide_text(chunk: bytes, place: int, counts: ReadCounts) -> bytes:
    """The chunk with a space for text in UTF-16, as `>>` of PowerShell appends it to a file in UTF-8, which is counted as lost:
    each of its letters would be a word."""

    def lost(found: re.Match[bytes]) -> bytes:
        counts.drop(place, NOT_TEXT, len(found[0]))
        counts.add(place, PUT_IN, 1)
        return b" "

    return _WIDE_TEXT.sub(lost, chunk)


def _refuse_invalid(chunk: bytes, path: str, offset: int) -> None:
    try:
        chunk.decode()
    except UnicodeDecodeError as error:
        if re.match(b"\xed[\xa0-\xbf]", chunk[error.start : error.start + 2]):
            raise DataError(
                f"{printable(path, 300)}: byte {offset + error.start:,} of its text begins half of a character, which JSON can "
                r"spell (\ud800); corpus.encoding_errors is strict: mend the file, or set encoding_errors to replace"
            ) from None
        raise DataError(
            f"{printable(path, 300)}: byte {offset + error.start:,} of its text is not UTF-8 "
            f"(0x{chunk[error.start]:02x}: {error.reason}); corpus.encoding_errors is strict: "
            "convert the file, set corpus.encoding to what it is, or encoding_errors to replace"
        ) from None
