"""What each file of a corpus is, by its name, which must agree with its first bytes, compressed or not.

A name that does not match the bytes is an error that says how to mend it, before any work starts: a ZIP named .txt, text named
.gz, a tar inside a .txt.gz, JSON read as lines.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from pipeline.config import Corpus
from pipeline.errors import ConfigError, DataError, InputError, counted, printable
from pipeline.text.decompress import decompress
from pipeline.text.encodings import UTF8, fitting_encoding, invalid_share, is_mixed
from pipeline.text.losses import A_FEW_BYTES, percent
from pipeline.text.pieces import SourceFile
from pipeline.text.signatures import HEAD_BYTES, SUFFIX, Finding, container, examine, other_format

COMPRESSED = {
    ".gz": "gzip", ".zst": "zstd", ".zstd": "zstd", ".bz2": "bz2", ".xz": "xz", ".lz4": "lz4", ".lzma": "lzma",
}  # fmt: skip
TARS = {
    ".tar": "tar", ".tgz": "tar+gzip", ".tbz": "tar+bz2", ".tbz2": "tar+bz2", ".txz": "tar+xz", ".tzst": "tar+zstd",
    ".tlz": "tar+lzma",
}  # fmt: skip
_FORMATS = {
    ".parquet": "parquet", ".pq": "parquet", ".arrow": "arrow", ".feather": "arrow", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".csv": "csv", ".tsv": "tsv", ".tab": "tsv",
}  # fmt: skip
_UNSUPPORTED = (".7z", ".rar", ".br", ".z", ".lzo", ".sz", ".zpaq", ".cab", ".jar", ".war", ".apk")
_COLUMNAR = ("parquet", "arrow")
_SHOWN = 5


@dataclass(frozen=True)
class Look:
    """What is known of a file from its first bytes."""

    problem: str | None = None
    remarks: tuple[str, ...] = ()
    whole: bool = False
    carriage_returns: bool = False
    invalid_share: float = 0.0
    """The share of the first bytes that is not UTF-8."""
    fitting: str | None = None
    """The encoding in which they read best, if that share is large."""
    mixed: bool = False
    """Whether other lines are UTF-8."""


def kind_of(path: str, corpus: Corpus) -> str:
    """The kind that the file's name implies (SourceFile.kind); raises ConfigError or InputError for one that cannot be read."""
    stem, ending = os.path.splitext(os.path.basename(path).lower())
    if ending in _UNSUPPORTED:
        raise InputError(
            f"{printable(path, 300)}: an archive or a compression that is not supported; "
            "unpack it, or compress each file as .zst or .gz"
        )
    kind = TARS.get(ending) or COMPRESSED.get(ending, "plain")
    if ending in COMPRESSED and stem.endswith(".tar"):
        kind = f"tar+{kind}"
    if ending == ".zip":
        kind = "zip"
    named = _FORMATS.get(ending if kind == "plain" else os.path.splitext(stem)[1])
    if named and named != corpus.format and corpus.sniff:
        raise ConfigError(
            f"{printable(path, 300)}: {_article(_spoken(named))} file, but corpus.format is {corpus.format}; set "
            f"corpus.format: {named}, leave it out with corpus.exclude, or set corpus.sniff: false to read it all the same"
        )
    if corpus.format not in _COLUMNAR:
        return kind
    if kind != "plain":
        raise InputError(
            f"{printable(path, 300)}: expected {_article(_spoken(corpus.format))} file (they are compressed inside), "
            f"found {kind}; unpack it"
        )
    return corpus.format


def _spoken(format: str) -> str:
    return {"parquet": "Parquet", "arrow": "Arrow", "jsonl": "JSON lines"}.get(format, format.upper())


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'Aaxi' else 'a'} {noun}"


def look_at(file: Any, path: str, kind: str, size: int, corpus: Corpus) -> Look:
    """What the first bytes of an open file of kind `kind` show; moves the file's position."""
    file.seek(0)
    head = file.read(HEAD_BYTES)
    if not head:
        return Look(whole=True)
    if kind in _COLUMNAR:
        return Look(None if not corpus.sniff else _not_columnar(head, kind))
    inside = container(head)
    if corpus.sniff and (problem := _misnamed(head, inside, kind)):
        return Look(problem)
    if kind == "zip":
        return Look(whole=True)
    if kind not in ("plain", "tar"):
        file.seek(0)
        compression = kind.rpartition("+")[2]
        stored = cast(BinaryIO, _Borrowed(file))
        head = _first_bytes(decompress(stored, compression, path=path, size=size, max_ratio=corpus.max_ratio))
        inside = container(head)
        if corpus.sniff and (problem := _misplaced(inside, kind)):
            return Look(problem)
    if inside == "tar" or kind == "tar":
        return Look(whole=True)
    if kind.startswith("tar+") and inside != "tar" and head.strip(b"\0"):
        return Look(
            f"holds no tar archive, although its name ends like one; rename it to end in {SUFFIX.get(compression, '.gz')}"
        )
    found = examine(head, corpus.format, corpus.encoding)
    return _look(head, found, corpus)


def _look(head: bytes, found: Finding, corpus: Corpus) -> Look:
    share = invalid_share(head) if corpus.encoding == UTF8 else 0.0
    mixed = share > 0 and is_mixed(head)
    foreign = b"\n".join(line for line in head.split(b"\n") if invalid_share(line)) if mixed else head
    return Look(
        found.problem if corpus.sniff else None,
        found.remarks,
        found.whole,
        found.carriage_returns,
        share,
        fitting_encoding(foreign) if share > corpus.max_lost / 2 and not found.problem else None,
        mixed,
    )


class _Borrowed(io.RawIOBase):
    """A file that its reader may close without closing the file underneath."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)  # type: ignore[no-any-return]

    def tell(self) -> int:
        return self._file.tell()  # type: ignore[no-any-return]


def _first_bytes(blocks: Iterable[bytes]) -> bytes:
    head: list[bytes] = []
    for block in blocks:
        head.append(block)
        if sum(map(len, head)) >= HEAD_BYTES:
            break
    return b"".join(head)[:HEAD_BYTES]


def _not_columnar(head: bytes, kind: str) -> str | None:
    inside = container(head)
    # An Arrow stream begins with 0xFFFFFFFF or, in the old format, with a length.
    if inside == kind or (kind == "arrow" and inside is None and head[3:4] == b"\0"):
        return None
    if head.startswith(b"FEA1"):
        return "is a Feather file of version 1, which is not read; write it again (pyarrow.feather.write_feather, version=2)"
    if head.startswith(b"PARE"):
        return "is a Parquet file with an encrypted footer; decrypt it first"
    other = other_format(head)
    looks = f"looks like {_article(inside)} file" if inside else f"looks like {other}" if other else "is none"
    problem = examine(head, "lines", UTF8).problem
    hint = f" ({problem})" if problem and "corpus.format" in problem else ""
    return (
        f"expected {_article(_spoken(kind))} file, but it {looks}{hint}; set corpus.format to what it is, or leave it out with "
        "corpus.exclude"
    )


def _misnamed(head: bytes, inside: str | None, kind: str) -> str | None:
    """How the stored bytes contradict the name; None if they agree."""
    compression = kind.rpartition("+")[2]
    if inside is None and (kind == "plain" or (compression == "lzma" and not _is_text(head))):
        return None
    if kind == "tar" or compression == inside:
        fits = inside in (compression, "tar") or not head.strip(b"\0")  # an archive without members is NUL throughout
        if not fits and inside in SUFFIX:
            ending = f"{'' if inside == 'zip' else '.tar'}{SUFFIX[inside]}"
            return f"is a {SUFFIX[inside]} file, although its name ends in .tar; rename it to end in {ending}"
        return None if fits else "holds no tar archive, although its name ends in .tar"
    if kind == "plain":
        if inside in _COLUMNAR:
            return f"looks like {_article(_spoken(inside))} file and would be read as text; set corpus.format: {inside}"
        more = " (an office document, EPUB or JAR is such an archive too: extract its text)" if inside == "zip" else ""
        suffix = SUFFIX[str(inside)]
        return f"looks like a {suffix} file and would be read as text; rename it to end in {suffix}{more}"
    if inside is None:
        if len(head) > 16 and _is_text(head):
            return f"holds text, although its name says {compression}; rename it"
        return None  # perhaps damaged: reading will report where
    return f"looks like a {SUFFIX.get(inside, inside)} file, although its name says {compression}; rename it"


def _is_text(head: bytes) -> bool:
    return invalid_share(head) == 0 and all(byte >= 0x20 or chr(byte).isspace() for byte in set(head))


def _misplaced(inside: str | None, kind: str) -> str | None:
    """Why the content of a compressed file is not text; None if it may be."""
    if inside is None or (inside == "tar" and kind.startswith("tar+")):
        return None
    if inside == "tar":
        return f"holds a tar archive; rename it to end in .tar{SUFFIX.get(kind, '.lzma')}, and its members are read"
    if inside in SUFFIX:
        return f"is compressed twice: inside is {_article(inside)} file; unpack it once"
    return f"holds a compressed {_spoken(inside)} file (they are compressed inside); unpack it and set corpus.format: {inside}"


# ── the whole corpus ─────────────────────────────────────────────────────────────────────────────────────────────────


def refuse_foreign(looks: Sequence[tuple[SourceFile, Look]], corpus: Corpus) -> None:
    """Raises DataError for files that are not in the format they are read as, and when their first bytes show that more than
    `corpus.max_lost` of the corpus is not in its encoding."""
    wrong = [(file.path, look.problem) for file, look in looks if look.problem]
    if wrong:
        shown = "".join(f"\n  {printable(path, 300)}: {problem}" for path, problem in wrong[1:_SHOWN])
        more = f"\n  … and {len(wrong) - _SHOWN:,} more" if len(wrong) > _SHOWN else ""
        hint = "" if corpus.sniff is False else "\n(corpus.sniff: false reads files as corpus.format whatever they look like)"
        raise DataError(f"{printable(wrong[0][0], 300)}: {wrong[0][1]}{shown}{more}{hint}")
    sizes = sum(file.size for file, _ in looks)
    lost = sum(look.invalid_share * file.size for file, look in looks)
    if corpus.encoding_errors == "replace" and lost > max(A_FEW_BYTES, corpus.max_lost * sizes):
        worst = sorted((pair for pair in looks if pair[1].invalid_share), key=lambda pair: -pair[1].invalid_share * pair[0].size)
        shown = "".join(
            f"\n  {printable(file.path, 300)}: {percent(look.invalid_share)} of its first bytes" + _way_out(look)
            for file, look in worst[:_SHOWN]
        )
        raise DataError(
            f"corpus: about {percent(lost / sizes)} of it is not UTF-8 and would be lost, corpus.max_lost allows "
            f"{percent(corpus.max_lost)}. Worst:{shown}\n"
            "Set corpus.encoding to what the files are in, convert them, or raise corpus.max_lost"
        )


def _way_out(look: Look) -> str:
    if look.mixed:
        others = f", others read well as {look.fitting}" if look.fitting else ""
        return f"; some of its lines are UTF-8{others}: convert those"
    return f"; they read well as {look.fitting}: set corpus.encoding: {look.fitting}" if look.fitting else ""


def remarks_of(looks: Iterable[tuple[str, Look]]) -> list[str]:
    """One note per remark, with the number of files it applies to and an example."""
    found: dict[str, list[str]] = {}
    for path, look in looks:
        for remark in look.remarks:
            found.setdefault(remark, []).append(path)
    return [
        f"{counted(len(paths), f'files|file {remark}')}, for example {printable(paths[0], 200)}"
        for remark, paths in sorted(found.items())
    ]
