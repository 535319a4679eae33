"""The plan of a corpus: which files it consists of, the kind and digest of each, and where large ones are cut.

`plan_corpus` expands the inputs (see inputs.py) in the order given, sorted by name within each input, and records the size and
SHA-256 of every file's stored bytes and the cuts of large files; `cutting` turns the plan into parts. A file reached twice (two
inputs, hard links) counts once; different files with equal content all count; both are noted. A file's kind follows from its
name and must agree with its first bytes (`recognise`), so unreadable files are refused before any work starts.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, cast

from pipeline import store
from pipeline.config import Corpus, Storage
from pipeline.errors import DataError, InputError, PermissionDeniedError, PipelineError, counted, printable, told_of_file
from pipeline.safety.files import json_object, read_inside
from pipeline.safety.seals import canonical_json
from pipeline.storage.addresses import is_address
from pipeline.storage.local_files import copy_of
from pipeline.text.cut_places import cut_file, is_cut
from pipeline.text.encodings import UTF8
from pipeline.text.inputs import PYDOCS, Filter, Search, find_files, refuse_inside
from pipeline.text.object_inputs import find_objects
from pipeline.text.pieces import CorpusPlan as CorpusPlan
from pipeline.text.pieces import Cut
from pipeline.text.pieces import Piece as Piece
from pipeline.text.pieces import SourceFile as SourceFile
from pipeline.text.pieces import TextPart as TextPart
from pipeline.text.recognise import Look, kind_of, look_at, refuse_foreign, remarks_of
from pipeline.text.sources import Stand, open_source, stand_of

KNOWN_FILES = "known_files.json"
"""The file in the workdir that remembers the digests of the corpus's files."""
SHOWN = 20
_HASH_BATCH_FILES = 256
RACY_NS = 2_000_000_000
_KNOWN = 8
"""Number of fields remembered per file."""


def plan_corpus(
    corpus: Corpus, storage: Storage | None = None, *, forbidden: Path | None = None, known: Path | None = None
) -> CorpusPlan:
    """Every file of the corpus with its size and digest, in the order it is read.

    `forbidden` is the workdir: an input that contains it, or lies inside it, would read its own output (ConfigError). `known` is
    a JSON file of earlier digests, read and rewritten: a digest is reused when size, mtime, ctime and inode agree and the file
    was at least two seconds old when it was hashed; for an object in a bucket, when size and ETag agree. `storage` says how
    buckets are reached. Raises InputError when an input matches nothing, PermissionDeniedError when files cannot be read and
    `skip_unreadable` is off.
    """
    storage, place = storage or Storage(), copy_of(forbidden) if forbidden else None
    search = Search(corpus.follow_symlinks, Filter(tuple(corpus.include), tuple(corpus.exclude)))
    found: list[str] = []
    python_files: list[str] = []
    for pattern in corpus.inputs:
        if pattern == PYDOCS:
            from pipeline.text.pydocs import source_files

            python_files = source_files()
            found.extend(python_files)
            continue
        if is_address(pattern):
            found.extend(find_objects(pattern, search, storage, place.place if place else None))
            continue
        found.extend(find_files(pattern, search, forbidden))
    if forbidden:
        refuse_inside([path for path in found if not is_address(path)], forbidden)
    python_paths = set(python_files)
    kinds = ["python" if path in python_paths else kind_of(path, corpus) for path in found]
    examined = _examine(found, kinds, corpus, storage, _read_known(known), search)
    _refuse_unreadable(search, corpus.skip_unreadable)
    files = [file for file, _ in examined]
    refuse_foreign([(file, looked) for file, looked in examined if looked], corpus)
    if known:
        _write_known(known, files, corpus)
    remarks = remarks_of([(file.path, looked) for file, looked in examined if looked])
    files, notes = _once_each_python_file(files)
    return CorpusPlan(tuple(files), (*search.notes(), *notes, *remarks, *_equal_content(files)))


# ── digests ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _examine(
    found: Sequence[str], kinds: Sequence[str], corpus: Corpus, storage: Storage, known: dict[str, list[Any]], search: Search
) -> list[tuple[SourceFile, Look | None]]:
    """The readable files in order, each with its digest and the look at its first bytes; unreadable ones go to
    `search.unreadable`."""

    def examine_batch(first: int) -> list[tuple[SourceFile, Look | None] | str]:
        batch = slice(first, first + _HASH_BATCH_FILES)
        pairs = zip(found[batch], kinds[batch], strict=True)
        return [_examine_file(path, kind, corpus, storage, known.get(path)) for path, kind in pairs]

    files: list[tuple[SourceFile, Look | None]] = []
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        for batch in pool.map(examine_batch, range(0, len(found), _HASH_BATCH_FILES)):
            files.extend(file for file in batch if not isinstance(file, str))
            search.unreadable.extend(problem for problem in batch if isinstance(problem, str))
    return files


def _examine_file(
    path: str, kind: str, corpus: Corpus, storage: Storage, known: list[Any] | None
) -> tuple[SourceFile, Look | None] | str:
    """The file with its digest and a look at it, or why it cannot be read."""
    try:
        with open_source(path, storage) as file:
            before = stand_of(file)
            look = None if kind == "python" else look_at(file, path, kind, before.size, corpus)
            by = _cut_by(corpus, kind, before.size, look)
            remembered = known if known and _is_still(before, known) and known[5:7] == [*by] else None
            digest, cuts = _remembered(remembered) if remembered else _hashed(file, before.size, by)
            groups = _row_groups(file, path) if kind == "parquet" and look and not look.problem else ()
            after = stand_of(file, now=remembered is None)
    except OSError as error:
        return f"{path} ({error.strerror})"
    except PermissionDeniedError as error:
        return f"{error} (Permission denied)"
    if before != after:
        raise DataError(f"{printable(path, 300)}: changed while it was being hashed; run again when nothing writes to it")
    planned = SourceFile(
        path, kind, before.size, digest, before.mtime_ns, before.ctime_ns, before.mark, groups, cuts,
        uncut=bool(look and look.whole), carriage_returns=bool(look and look.carriage_returns),
    )  # fmt: skip
    return planned, look


def _is_still(stand: Stand, known: list[Any]) -> bool:
    """Whether a remembered digest still holds for the file; an object without an ETag is always read again."""
    return known[:4] == list(stand) and stand.mark != ""


def _remembered(known: list[Any]) -> tuple[str, tuple[Cut, ...]]:
    return known[4], tuple(Cut(*cut) for cut in known[7])


def _hashed(file: BinaryIO, size: int, by: tuple[int, bool]) -> tuple[str, tuple[Cut, ...]]:
    block_bytes, records = by
    if block_bytes:
        return cut_file(file, size, block_bytes, records=records)
    file.seek(0)
    return hashlib.file_digest(cast(Any, file), "sha256").hexdigest(), ()


def _cut_by(corpus: Corpus, kind: str, size: int, look: Look | None) -> tuple[int, bool]:
    """(block_bytes, records): how the file is cut; block_bytes is 0 when it is not: its records span lines, its encoding has no
    line-end byte, or it is small."""
    if kind == "plain" and look and not look.whole and not look.problem and is_cut(size, corpus.block_bytes):
        return corpus.block_bytes, corpus.format != "lines" or corpus.encoding != UTF8
    return 0, False


def _row_groups(file: BinaryIO, path: str) -> tuple[int, ...]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file.seek(0)
        metadata = pq.read_metadata(pa.PythonFile(file, "r"))
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{printable(path, 300)}: not an intact Parquet file ({printable(str(error), 200)})") from None
    return tuple(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))


def _refuse_unreadable(search: Search, skip_unreadable: bool) -> None:
    if not search.unreadable:
        return
    shown = "".join(f"\n  {printable(problem, 300)}" for problem in search.unreadable[:SHOWN])
    more = f"\n  … and {len(search.unreadable) - SHOWN:,} more" if len(search.unreadable) > SHOWN else ""
    if not skip_unreadable:
        denied = all("Permission denied" in problem for problem in search.unreadable)
        kind: type[PipelineError] = PermissionDeniedError if denied else InputError
        raise kind(
            f"corpus.inputs: {len(search.unreadable):,} cannot be read; change the rights, or set corpus.skip_unreadable: true "
            f"to leave them out and have them listed{shown}{more}"
        )
    for problem in search.unreadable:
        search.leave_out("unreadable files|file or folders|folder were|was left out (corpus.skip_unreadable is true)", problem)


def _read_known(path: Path | None) -> dict[str, list[Any]]:
    """{path: [size, mtime_ns, ctime_ns, inode or ETag, sha256, block_bytes, records, cuts]}; empty if the file of digests is
    missing or damaged."""
    try:
        return _read_memory(path) if path else {}
    except (OSError, ValueError):
        return {}


def _read_memory(path: Path) -> dict[str, list[Any]]:
    """The remembered digests. Raises OSError if the file cannot be read, ValueError if it is damaged."""
    try:
        body = json_object(read_inside(path.parent, path.name))
        remembered: dict[str, list[Any]] = body["files"]
        intact = body["sha256"] == hashlib.sha256(canonical_json(remembered)).hexdigest()
        usable = all(isinstance(entry, list) and len(entry) == _KNOWN for entry in remembered.values())
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(str(error)) from None
    if not (intact and usable):
        raise ValueError("its checksum does not match")
    return remembered


def known_damage(path: Path) -> tuple[int, list[str]]:
    """(files checked, problems found) for the file of digests that `plan_corpus` keeps."""
    try:
        _read_memory(path)
    except FileNotFoundError:
        return 0, []
    except (OSError, ValueError) as error:
        return 1, [told_of_file(error, path, "; the next run hashes the corpus anew")]
    return 1, []


def _write_known(path: Path, files: Sequence[SourceFile], corpus: Corpus) -> None:
    """Writes the digests of files that have been unchanged for two seconds: a younger one could change again with the same
    times. Objects need no such wait, since their ETag changes with their content."""
    quiet_ns = time.time_ns() - RACY_NS
    by = (corpus.block_bytes, corpus.format != "lines" or corpus.encoding != UTF8)
    remembered = {
        file.path: [
            file.size, file.mtime_ns, file.ctime_ns, file.inode, file.sha256, *(by if file.cuts else (0, False)),
            [[cut.stop, cut.sha256, cut.exact] for cut in file.cuts],
        ]
        for file in files
        if isinstance(file.inode, str) or max(file.mtime_ns, file.ctime_ns) < quiet_ns
    }  # fmt: skip
    # ASCII JSON, because file names need not be valid Unicode.
    body = {"files": remembered, "sha256": hashlib.sha256(canonical_json(remembered)).hexdigest()}
    store.write_bytes(path, json.dumps(body).encode("ascii"))


def _once_each_python_file(files: Sequence[SourceFile]) -> tuple[list[SourceFile], list[str]]:
    """(files, notes) without Python files whose content occurred before: packages vendor copies of each other."""
    seen: set[str] = set()
    kept = []
    for file in files:
        if file.kind == "python":
            if file.sha256 in seen:
                continue
            seen.add(file.sha256)
        kept.append(file)
    dropped = len(files) - len(kept)
    return kept, [f"{dropped:,} Python files are copies of others and are read once"] if dropped else []


def _equal_content(files: Sequence[SourceFile]) -> list[str]:
    """A note when different files hold the same bytes: allowed, but rarely intended."""
    counts = Counter(file.sha256 for file in files if file.size)
    copies = sum(count - 1 for count in counts.values())
    if not copies:
        return []
    example = next(file.path for file in files if counts[file.sha256] > 1)
    told = counted(copies, "files|file have|has the same content as another and count|counts again")
    return [f"{told}, for example {printable(example, 200)}"]
