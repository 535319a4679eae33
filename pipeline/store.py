"""Artefacts: the results of a stage on disk, and how a reader knows that they are complete and unaltered.

    <workdir>/<stage>/<fingerprint>/manifest.json      written last; names every file with its size and SHA-256
    <workdir>/<stage>/<fingerprint>/part-00000.…       immutable once the manifest names it

A stage is a pure function of (content of its inputs, the configuration fields it reads, its own version), and its
fingerprint is the hash of those and nothing else: never of a path, a time, a rank or a worker count. So an artefact with the
right fingerprint can be reused and any other cannot, and a run that died in the middle leaves nothing that a reader would use:
files that no manifest names do not exist for it.

Every file is written under a temporary name, flushed to disk and renamed, so two concurrent attempts at one file are harmless
(they write the same bytes). Parquet is written with page checksums, which are verified when it is read: without them, 197 of 200
single-bit flips were returned as silently wrong data.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import DamagedError, UnreadError, counted, printable, unread
from pipeline.errors import explain_os_error as explain_os_error
from pipeline.failpoints import reach
from pipeline.safety.files import is_confined, open_inside, read_inside, unlink_inside
from pipeline.safety.hashing_file import HashingFile
from pipeline.safety.locks import SHIPPER_LOCK, holder
from pipeline.safety.locks import lock as lock
from pipeline.safety.manifests import FORMAT_VERSION, manifest_of
from pipeline.safety.manifests import Manifest as Manifest
from pipeline.safety.manifests import Part as Part
from pipeline.safety.seals import canonical_json, json_bytes
from pipeline.safety.seals import file_sha256 as file_sha256
from pipeline.safety.seals import sealed as sealed
from pipeline.safety.seals import unsealed as unsealed
from pipeline.storage.local_files import all_there as all_there
from pipeline.storage.local_files import copy_of
from pipeline.storage.local_files import fetched as fetched
from pipeline.storage.local_files import put_folder as put_folder

if TYPE_CHECKING:
    import pyarrow as pa

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}\.tmp", re.DOTALL)
MANIFEST, SHARED, LATEST = "manifest.json", "parts", "latest"


@dataclass(frozen=True)
class Artefact:
    """A complete artefact: its directory and the manifest found there."""

    directory: Path
    manifest: Manifest

    @property
    def fingerprint(self) -> str:
        return self.manifest.fingerprint

    def part(self, name: str) -> Part:
        for part in self.manifest.parts:
            if part.name == name:
                return part
        raise DamagedError(f"{self.directory}: the manifest names no {name}; rebuild the artefact", str(self.directory))

    def path(self, name: str) -> Path:
        return self.directory / self.part(name).name


def fingerprint(stage: str, version: int, fields: Mapping[str, Any], inputs: Sequence[str]) -> str:
    """64 hex digits that are equal exactly if stage, stage version, fields read and content of the inputs are."""
    return hashlib.sha256(canonical_json([FORMAT_VERSION, stage, version, dict(fields), list(inputs)])).hexdigest()


def artefact_directory(workdir: Path, stage: str, fingerprint: str) -> Path:
    return workdir / stage / fingerprint[:16]


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def write_file(
    path: Path, write: Callable[[Any], None], *, rows: int = 0, tokens: int = 0, durable: bool = True,
    on_written: Callable[[str, os.stat_result], None] | None = None,
) -> Part:  # fmt: skip
    """The Part of a file whose bytes `write(file)` produces; it appears under `path` complete or not at all.

    `write` gets a binary file that it may only append to. Files that are easily made again (`durable=False`) or that a bucket has
    reach the disk when the system likes; a torn one is detected by its checksum. `on_written` gets the SHA-256 of the bytes and
    the file's stat. Raises StorageError or PermissionDeniedError."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    hashing: HashingFile | None = None
    kept = copy_of(path)
    durable = durable and not kept
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb", buffering=0) as file:
            hashing = HashingFile(file, durable=durable)
            write(hashing)
            reach("write", path.name)
            if durable:
                os.fsync(file.fileno())
            written, sha256 = os.fstat(file.fileno()), hashing.hexdigest()
        if kept:
            kept.put(path, temporary, sha256)
        os.replace(temporary, path)
        if on_written:
            on_written(sha256, written)
        if durable:
            sync_directory(path.parent)
        reach("written", path.name)
    except OSError as error:
        # While the temporary file still exists, so that the free space reported is what was left for the rest of it.
        raise explain_os_error(error, path, needed=hashing.missing if hashing else 1) from error
    finally:
        if hashing:
            hashing.close()
        temporary.unlink(missing_ok=True)
    return Part(name=path.name, bytes=hashing.bytes, sha256=sha256, rows=rows, tokens=tokens)


def write_bytes(path: Path, data: bytes) -> Part:
    return write_file(path, lambda file: file.write(data))


def write_json(path: Path, value: object) -> Part:
    return write_bytes(path, json_bytes(value))


def write_array(path: Path, array: Any, *, rows: int = 0, tokens: int = 0, durable: bool = True) -> Part:
    """The Part of a .npy file (C order, no pickles)."""
    import numpy as np

    def write(file: Any) -> None:
        if array.flags.c_contiguous and array.size:
            # As np.save does, without its copy of the array for anything but a real file.
            np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
            file.write(memoryview(array).cast("B"))
        else:
            np.save(file, array, allow_pickle=False)

    return write_file(path, write, rows=rows, tokens=tokens, durable=durable)


@contextlib.contextmanager
def parquet_writer(file: Any, schema: pa.Schema, **options: Any) -> Iterator[Any]:
    """A ParquetWriter on an open file with this project's settings: page checksums, zstd level 1."""
    import pyarrow.parquet as pq

    settings = {"compression": "zstd", "compression_level": 1, "write_page_checksum": True} | options
    if settings["compression"] == "none":
        del settings["compression_level"]
    with pq.ParquetWriter(file, schema, **settings) as writer:
        yield writer


def write_table(
    path: Path, table: pa.Table, *, tokens: int = 0, row_group_rows: int = 1 << 20, durable: bool = True, **options: Any
) -> Part:
    """The Part of a Parquet file that holds `table`, with page checksums."""

    def write(file: Any) -> None:
        with parquet_writer(file, table.schema, **options) as writer:
            writer.write_table(table, row_group_size=row_group_rows)

    return write_file(path, write, rows=table.num_rows, tokens=tokens, durable=durable)


def commit(workdir: Path, manifest: Manifest) -> Artefact:
    """Makes an artefact visible by writing its manifest, and returns it. Writing the same manifest twice is harmless."""
    directory = artefact_directory(workdir, manifest.stage, manifest.fingerprint)
    reach("commit", manifest.stage)
    if kept := copy_of(directory):
        kept.require(directory, manifest.parts)
    write_json(directory / MANIFEST, sealed(asdict(manifest)))
    reach("committed", manifest.stage)
    return Artefact(directory, manifest)


def sync_directory(directory: Path) -> None:
    """Makes a rename in `directory` survive a power loss."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def bring_folder(directory: Path) -> Path:
    """The folder, after fetching all files named by its manifest if it is an artefact of a workdir in a bucket."""
    if copy_of(directory):
        bring(load_artefact(directory))
    return directory


def bring(artefact: Artefact) -> Artefact:
    """The artefact, after fetching all its files if the workdir is in a bucket: for code that reads its folder."""
    if copy_of(artefact.directory):
        with ThreadPoolExecutor(max_workers=8) as pool:
            list(pool.map(lambda part: fetched(artefact.directory / part.name, part.sha256), artefact.manifest.parts))
    return artefact


def open_artefact(workdir: Path, stage: str, fingerprint: str) -> Artefact | None:
    """The committed artefact, or None if there is none; raises DamagedError if its manifest is not intact."""
    directory = artefact_directory(workdir, stage, fingerprint)
    try:
        manifest = _read_manifest(directory)
    except FileNotFoundError:
        return None
    if manifest.fingerprint != fingerprint or manifest.stage != stage:
        raise DamagedError(
            f"{directory / MANIFEST}: expected {stage} {fingerprint[:16]}, found {manifest.stage} "
            f"{manifest.fingerprint[:16]}; it was copied from elsewhere, remove the folder",
            str(directory),
        )
    return Artefact(directory, manifest)


def load_artefact(directory: Path) -> Artefact:
    """The artefact in a directory, wherever that is; raises DamagedError if there is no intact manifest."""
    try:
        return Artefact(directory, _read_manifest(directory))
    except FileNotFoundError:
        raise DamagedError(f"{directory}: no {MANIFEST}, so nothing here is complete", str(directory)) from None


def _read_manifest(directory: Path) -> Manifest:
    """The manifest in a directory. Raises FileNotFoundError if there is none, DamagedError if it is not what was written."""
    try:
        fetched(directory / MANIFEST)
        text = read_inside(directory, MANIFEST)
        body = unsealed(text)
        manifest = manifest_of(body)
        if strays := [part.name for part in manifest.parts if not is_confined(_inside(directory, part.name)[1])]:
            raise ValueError(f"it names a file outside its folder: {printable(strays[0])}")
        return manifest
    except FileNotFoundError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        if isinstance(error, OSError) and (problem := unread(error, directory / MANIFEST)):
            raise problem from None
        message = f"{directory / MANIFEST}: damaged ({_reason(error)}); run again to rebuild it"
        raise DamagedError(message, str(directory)) from None


def _inside(directory: Path, name: str) -> tuple[Path, str]:
    """(folder, name in it) of a part: the artefact's own folder, or the one shared by all artefacts of the stage."""
    shared = f"../{SHARED}/"
    return (directory.parent / SHARED, name.removeprefix(shared)) if str(name).startswith(shared) else (directory, name)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or printable(str(error), 200)


def refuse_unread(damage: Iterable[str]) -> None:
    """Raises UnreadError if a problem that was found is that a file could not be read."""
    for problem in damage:
        if isinstance(problem, UnreadFile):
            raise UnreadError(problem)


class UnreadFile(str):
    """What is wrong with a file that may be intact: it could not be read."""

    __slots__ = ()


def check_part(directory: Path, part: Part) -> str | None:
    """What is wrong with one file (missing, another size, other bytes than were written, unreadable), or None."""
    path = fetched(directory / part.name, part.sha256)
    try:
        descriptor = open_inside(*_inside(directory, part.name))
        size = os.fstat(descriptor).st_size
        if size != part.bytes:
            os.close(descriptor)
            return f"{path}: expected {part.bytes:,} bytes, found {size:,}"
        return None if file_sha256(descriptor) == part.sha256 else f"{path}: its content changed (SHA-256 differs)"
    except FileNotFoundError:
        return f"{path}: missing"
    except OSError as error:
        return UnreadFile(problem) if (problem := unread(error, path)) else f"{path}: cannot be read ({error.strerror})"


def find_damage(artefact: Artefact, *, deep: bool = False) -> list[str]:
    """The problems of every file of the artefact that is not what was written; empty = intact. Reads every byte once; in a bucket
    it compares only sizes unless `deep`, because files are checked when they are fetched."""
    return [damage for _, damage in _damaged(artefact, deep=deep)]


def _damaged(artefact: Artefact, *, deep: bool = False) -> list[tuple[Part, str]]:
    parts = artefact.manifest.parts
    if kept := copy_of(artefact.directory):
        return kept.damaged(artefact.directory, parts, deep=deep)
    with ThreadPoolExecutor(max_workers=4) as pool:
        found = pool.map(lambda part: check_part(artefact.directory, part), parts)
        return [(part, damage) for part, damage in zip(parts, found, strict=True) if damage]


def require_intact(artefact: Artefact) -> None:
    """Fetches missing files, and raises DamagedError, naming the first one, unless every file is what was written."""
    if damage := find_damage(bring(artefact)):
        refuse_unread(damage)
        more = f" and {counted(len(damage) - 1, 'more files|file')}" if len(damage) > 1 else ""
        raise DamagedError(f"{damage[0]}{more}; run again to rebuild it", str(artefact.directory))


def remove_damaged(artefact: Artefact) -> list[str]:
    """What `find_damage` finds, after removing the damaged files, so that a stage that reuses existing files (by their sizes, as
    tokenize does) makes them again. Raises StorageError, with nothing removed, if a file cannot be read but may be intact."""
    damaged, kept = _damaged(artefact), copy_of(artefact.directory)
    refuse_unread(damage for _, damage in damaged)
    for part, _ in damaged:
        with contextlib.suppress(OSError):  # a forged name (too long, below a file) has nothing to remove
            unlink_inside(*_inside(artefact.directory, part.name))
        if kept:
            kept.remove(artefact.directory / part.name)
    return [damage for _, damage in damaged]


@contextlib.contextmanager
def open_parquet(path: Path) -> Iterator[Any]:
    """A ParquetFile that verifies page checksums; inside the block, damage of any kind becomes a DamagedError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(fetched(path), page_checksum_verification=True) as file:
            yield file
    except FileNotFoundError:
        raise DamagedError(f"{path}: missing; run again to rebuild it", str(path.parent)) from None
    except (OSError, pa.ArrowException) as error:
        if isinstance(error, OSError) and (problem := unread(error, path)):
            raise problem from None
        raise DamagedError(f"{path}: damaged ({error}); run again to rebuild it", str(path.parent)) from None


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The table in a Parquet file, with its page checksums verified; raises DamagedError if it is not what was written."""
    with open_parquet(path) as file:
        return file.read(columns=list(columns) if columns else None, use_threads=False)


def numbers(column: pa.ChunkedArray | pa.Array) -> Any:
    """A column of numbers without nulls as a read-only NumPy array, not copied if it is contiguous.

    `to_numpy` would import pandas if it is installed: a quarter of a second and 44 MB in every process.
    """
    import numpy as np

    return np.from_dlpack(column.combine_chunks() if hasattr(column, "combine_chunks") else column)


def iterate_artefacts(workdir: Path) -> Iterator[Path]:
    """Every directory of the workdir with a manifest, sorted; links to artefacts do not count, and neither do the copies of them
    that `scp -r` and the like make of `latest`."""
    for path in sorted(workdir.glob(f"*/*/{MANIFEST}")):
        if not (path.parent.is_symlink() or path.parent.parent.is_symlink() or path.parent.parent == workdir / LATEST):
            yield path.parent


def discard(directory: Path) -> None:
    """Removes an artefact, its manifest first, so that no reader finds half of it; or a single file of a workdir."""
    if kept := copy_of(directory):
        kept.remove(directory)
    if directory.is_dir():
        unlink_inside(directory, MANIFEST)
        shutil.rmtree(directory, ignore_errors=True)
    else:
        directory.unlink(missing_ok=True)


def remove_unfinished(workdir: Path) -> None:
    """Removes the temporary files of killed writers, for the lock's holder; an earlier run's shipper may still write its own.

    Only names that writers here give, of files and links (`history.latest`): other programs' files and folders can lie below a
    workdir, too.
    """
    for path in workdir.rglob(".*.tmp"):
        is_folder = path.is_dir() and not path.is_symlink()
        if _TEMPORARY.fullmatch(path.name) and not is_folder and holder(path.with_name(SHIPPER_LOCK)) is None:
            path.unlink(missing_ok=True)
