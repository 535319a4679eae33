"""What becomes of every byte of a corpus, and when too much of it is lost.

Every byte read is counted under exactly one name, per file:

    read + put in  =  sentences + wordless + outside + marks + not text + long tokens + bad records

`read` is the text after decompression (for Parquet and Arrow: the column's values), in UTF-8. `put in` is what reading adds: a
newline after every record's text, U+FFFD for invalid bytes. `outside` covers JSON's keys and punctuation and the other columns
of a table. `not text` and `long tokens` are lost; their share of the text decides whether the run may go on (`corpus.max_lost`).
`bad records` are those that `corpus.bad_records: skip` passes over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DataError, counted, printable

READ, PUT_IN = "read", "put_in"
SENTENCES, WORDLESS, OUTSIDE, MARKS = "sentences", "wordless", "outside", "marks"
NOT_TEXT, LONG_TOKENS, BAD_RECORDS = "not_text", "long_tokens", "bad_records"
KEPT_OR_DROPPED = (SENTENCES, WORDLESS, OUTSIDE, MARKS, NOT_TEXT, LONG_TOKENS, BAD_RECORDS)
LOST = (NOT_TEXT, LONG_TOKENS)
HALVES = "halves"
"""Bytes of NOT_TEXT that are halves of characters (lone surrogates), which JSON can spell; a key of `sizes`."""
RECORDS = "records"
"""The number of records; a key of `things`, beside the reasons of LOST with their counts."""
WORST_SHOWN = 5
A_FEW_BYTES = 3
"""Any corpus may lose this many bytes: for a tiny one a share means nothing."""


@dataclass
class ReadCounts:
    """What reading a part has counted so far. Keys are the index of a piece in its part."""

    stored_bytes: int = 0
    sizes: dict[int, Counter[str]] = field(default_factory=dict)
    """Bytes by name."""
    things: dict[int, Counter[str]] = field(default_factory=dict)
    overlong_samples: list[bytes] = field(default_factory=list)
    remarks: Counter[str] = field(default_factory=Counter)
    examples: dict[int, str] = field(default_factory=dict)
    """The first bad record of a piece, in words."""
    text_sha256: dict[int, str] = field(default_factory=dict)
    """Digest of a compressed file's content."""

    def add(self, place: int, name: str, size: int) -> None:
        self.sizes.setdefault(place, Counter())[name] += size

    def drop(self, place: int, reason: str, size: int, things: int = 1) -> None:
        self.add(place, reason, size)
        self.things.setdefault(place, Counter())[reason] += things

    def record(self, place: int, problem: str | None = None, records: int = 1) -> None:
        self.things.setdefault(place, Counter())[RECORDS] += records
        if problem is not None:
            self.examples.setdefault(place, problem)

    def total(self, name: str) -> int:
        return sum(counter[name] for counter in self.sizes.values())

    def count(self, name: str) -> int:
        return sum(counter[name] for counter in self.things.values())


def book_chunk(counts: ReadCounts, place: int, text: bytes, lines_S: NDArray[np.int64], dropped: int, dropped_bytes: int) -> None:
    """Counts a chunk whose lines `lines_S` became sentences and in which `dropped` over-long tokens were left out.

    A dropped token is measured as the tokenizer saw it (lower-cased, normalised), but never as more than the chunk.
    """
    inside = _bytes_of_lines(text, lines_S)
    wordless = len(text) - inside
    lost = min(dropped_bytes, len(text))
    counts.add(place, WORDLESS, wordless - min(lost, wordless))
    counts.add(place, SENTENCES, inside - (lost - min(lost, wordless)))
    if dropped:
        counts.drop(place, LONG_TOKENS, lost, dropped)


def _bytes_of_lines(text: bytes, lines_S: NDArray[np.int64]) -> int:
    lines = text.count(b"\n") + (not text.endswith(b"\n"))
    if len(lines_S) == lines or not text:
        return len(text)
    if not len(lines_S):
        return 0
    ends = np.append(np.flatnonzero(np.frombuffer(text, np.uint8) == 0x0A) + 1, len(text))
    return int(np.diff(ends, prepend=0)[lines_S].sum())


# ── the whole corpus ─────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class FileLosses:
    """What became of one file, or of all files together."""

    bytes: Counter[str] = field(default_factory=Counter)
    things: Counter[str] = field(default_factory=Counter)
    example: str = ""

    def add(self, sizes: Mapping[str, int], things: Mapping[str, int], example: str = "") -> None:
        self.bytes.update(sizes)
        self.things.update(things)
        self.example = self.example or example

    @property
    def text(self) -> int:
        return self.bytes[READ] - self.bytes[OUTSIDE] - self.bytes[BAD_RECORDS]

    @property
    def lost(self) -> int:
        return sum(self.bytes[reason] for reason in LOST)

    @property
    def share(self) -> float:
        # An over-long token of U+FFFD was already counted as invalid bytes, so the sum can exceed the text.
        return min(1.0, self.lost / max(1, self.text))

    def exceeds(self, max_lost: float) -> bool:
        return self.share > max_lost and self.lost > A_FEW_BYTES


def refuse(files: Mapping[str, FileLosses], max_lost: float, encoding: str, fitting: Mapping[str, str]) -> None:
    """Raises DataError when more than `max_lost` of the corpus is lost, naming the worst files and what would help.

    `fitting` maps a path to the encoding that fits the file's bytes.
    """
    whole = FileLosses()
    for found in files.values():
        whole.add(found.bytes, found.things)
    if not whole.exceeds(max_lost):
        return
    worst = sorted((path for path in files if files[path].share > 0), key=lambda path: -files[path].lost or -files[path].share)
    shown = "".join(
        f"\n  {printable(path, 300)}: {_reasons(files[path], encoding)}{_remedy(files[path], fitting.get(path))}"
        for path in worst[:WORST_SHOWN]
    )
    more = f"\n  … and {counted(len(worst) - WORST_SHOWN, 'more files|file')}" if len(worst) > WORST_SHOWN else ""
    raise DataError(
        f"corpus: {percent(whole.share)} of it would be lost, corpus.max_lost allows {percent(max_lost)}. Worst:{shown}{more}\n"
        f"{_advice(whole)}leave files out with corpus.exclude, or raise corpus.max_lost"
    )


def _advice(whole: FileLosses) -> str:
    if whole.bytes[NOT_TEXT] < whole.bytes[LONG_TOKENS]:
        return "Raise tokenize.max_token_bytes, mend the files, "
    if 2 * whole.bytes[HALVES] > whole.bytes[NOT_TEXT]:
        return "Mend what wrote the JSON (it cut text inside characters), "
    return "Set corpus.encoding to what the files are in, convert those that hold several encodings, "


def _reasons(found: FileLosses, encoding: str) -> str:
    parts = []
    if size := found.bytes[NOT_TEXT]:
        parts.append(f"{percent(size / max(1, found.text))} is {_not_text(found, encoding)} ({size:,} of {found.text:,} bytes)")
    if size := found.bytes[LONG_TOKENS]:
        parts.append(f"{percent(size / max(1, found.text))} is tokens longer than tokenize.max_token_bytes ({size:,} bytes)")
    return ", ".join(parts)


def _not_text(found: FileLosses, encoding: str) -> str:
    halves = r"halves of characters, which JSON can spell (\ud800)"
    if not found.bytes[HALVES]:
        return f"not {encoding}"
    return halves if found.bytes[HALVES] >= found.bytes[NOT_TEXT] else f"not {encoding}, or {halves}"


def _remedy(found: FileLosses, fitting: str | None) -> str:
    return f"; its bytes read well as {fitting}: set corpus.encoding: {fitting}" if fitting and found.bytes[NOT_TEXT] else ""


def _of(some: Sequence[str], files: Mapping[str, FileLosses]) -> str:
    return f"{len(some):,} of {counted(len(files), 'files|file')}"


def notes(files: Mapping[str, FileLosses], encoding: str, samples: Sequence[str]) -> Iterator[str]:
    """Notes on the losses that were tolerated, each with its count, share and the worst files."""
    whole = FileLosses()
    for found in files.values():
        whole.add(found.bytes, found.things)
    text = max(1, whole.text)
    if size := whole.bytes[NOT_TEXT]:
        yield (
            f"{percent(size / text)} of the text ({size:,} of {whole.text:,} bytes) is {_not_text(whole, encoding)} and became "
            f"{whole.things[NOT_TEXT]:,} U+FFFD, in {_where(files, NOT_TEXT)}"
        )
    if count := whole.things[LONG_TOKENS]:
        size = whole.bytes[LONG_TOKENS]
        shown = f", for example {samples[0]}" if samples else ""
        dropped = counted(count, "tokens|token longer than tokenize.max_token_bytes were|was dropped")
        yield (f"{dropped} ({percent(size / text)} of the text, {size:,} bytes), in {_where(files, LONG_TOKENS)}{shown}")
    if count := whole.things[BAD_RECORDS]:
        records = whole.things[RECORDS]
        skipped = f"({percent(count / records)}) had no text and {'was' if count == 1 else 'were'} skipped"
        yield f"{count:,} of {counted(records, 'records|record')} {skipped}, in {_where(files, BAD_RECORDS)}"
    empty = [path for path, found in files.items() if not found.bytes[READ]]
    if empty:
        yield f"{_of(empty, files)} {'is' if len(empty) == 1 else 'are'} empty, for example {printable(empty[0], 200)}"
    wordless = [path for path, found in files.items() if found.bytes[READ] and not found.bytes[SENTENCES]]
    if wordless:
        size = sum(files[path].bytes[READ] for path in wordless)
        example = printable(wordless[0], 200)
        yield f"{_of(wordless, files)} ({size:,} bytes) gave no word, for example {example}"


def _where(files: Mapping[str, FileLosses], reason: str) -> str:
    hit = sorted((path for path in files if files[path].things[reason]), key=lambda path: -files[path].things[reason])
    shown = ", ".join(f"{printable(path, 200)} ({files[path].things[reason]:,})" for path in hit[:3])
    return f"{len(hit):,} file{'s' if len(hit) > 1 else ''}: {shown}" + (" …" if len(hit) > 3 else "")


def percent(share: float) -> str:
    """A share as a percentage of two figures, and never 0 unless it is 0."""
    if 0 < share < 1e-4:
        return "less than 0.01 %"
    return f"{100 * share:.2g} %" if share < 0.0995 else f"{100 * share:.0f} %"


def as_json(whole: FileLosses) -> dict[str, Any]:
    """{name: bytes} and the share lost, for summary.json."""
    return {name: whole.bytes[name] for name in (READ, PUT_IN, *KEPT_OR_DROPPED)} | {"lost_share": whole.share}
