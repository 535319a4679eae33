"""A corpus as plain data: its files, the pieces and parts they are cut into, and how their bytes become text."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.errors import printable
from pipeline.options.storage import Storage
from pipeline.text.encodings import UTF8
from pipeline.text.inputs import Filter
from pipeline.text.lines import LETTERS, LOOK_BYTES, SPACES, Breaks


@dataclass(frozen=True, slots=True)
class Cut:
    """Where one part of a large file ends (cut_places.py)."""

    stop: int
    sha256: str
    """Of all bytes that decide what this part reads."""
    exact: bool
    """Whether those are exactly the bytes between the previous cut and this one."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a corpus as it was when it was planned."""

    path: str
    kind: str
    """plain, python, parquet, arrow, zip, tar, a compression (gzip …), or tar+compression."""
    size: int
    """Stored bytes."""
    sha256: str
    mtime_ns: int
    ctime_ns: int
    inode: int | str = 0
    """For an object in a bucket, its ETag."""
    row_groups: tuple[int, ...] = ()
    """Bytes of each row group (Parquet only)."""
    cuts: tuple[Cut, ...] = ()
    """Where a plain file larger than a block is cut; empty if the file is one piece."""
    uncut: bool = False
    """Never cut, however large: its records span lines, or its encoding has no line-end byte."""
    carriage_returns: bool = False
    """Lines end with a bare CR."""


@dataclass(frozen=True)
class CorpusPlan:
    files: tuple[SourceFile, ...]
    notes: tuple[str, ...] = ()
    """What was left out and why, as sentences for the report."""

    @property
    def bytes(self) -> int:
        return sum(file.size for file in self.files)


@dataclass(frozen=True, slots=True)
class Piece:
    """The lines (row groups, for Parquet) of one file that start in [start, stop)."""

    file: SourceFile
    start: int
    stop: int
    cut: Cut | None = None
    """The cut at its end, if it is a piece of a plain file."""

    @property
    def whole(self) -> bool:
        return self.file.kind != "parquet" and self.start == 0 and self.stop == self.file.size


@dataclass(frozen=True)
class TextPart:
    """The text of one part. `key` hashes content and ranges, never a path: a moved or renamed corpus keeps its parts."""

    pieces: tuple[Piece, ...]
    key: str

    @property
    def place(self) -> str:
        """Where it is, for people."""
        first, last = self.pieces[0], self.pieces[-1]
        if first is not last:
            return f"{len(self.pieces)} files from {printable(first.file.path, 300)} to {printable(last.file.path, 300)}"
        unit = "row group" if first.file.kind == "parquet" else "byte"
        return printable(first.file.path, 300) + ("" if first.whole else f" from {unit} {first.start:,} to {first.stop:,}")


@dataclass(frozen=True)
class Reading:
    """How stored bytes become text: the fields of `corpus:` that matter once the files are known."""

    format: str = "lines"
    text_field: str = "text"
    strict: bool = False
    max_ratio: int = 2000
    look_bytes: int = LOOK_BYTES
    encoding: str = UTF8
    stop_at_bad_records: bool = False
    chosen: Filter = field(default_factory=Filter)
    sniff: bool = True
    storage: Storage = field(default_factory=Storage)
    """How buckets are reached."""
    unspaced: bool = False
    """The tokenizer also splits scripts written without spaces, so a long line may be cut before a letter that is a word."""

    @property
    def breaks(self) -> Breaks:
        return LETTERS if self.unspaced else SPACES
