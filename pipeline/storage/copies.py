"""A workdir in a bucket: every machine works on a local folder that is a copy of the place in the bucket.

    <place>/<kind>/<fingerprint>/<file>/<sha256>      a file of an artefact, under the digest of its content
    <place>/<kind>/<fingerprint>/manifest.json, …     small files, as they are

Stages and tasks are given paths in the copy, the same on every machine, and know nothing of the bucket. Files are put into the
bucket before they appear in the copy; files missing in the copy are fetched, and their digest is checked. The bucket is
authoritative: `pull` removes from the copy what the bucket no longer has (infra/decisions/0025-buckets.md).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from pipeline.errors import DamagedError, PermissionDeniedError, PipelineError
from pipeline.failpoints import reach
from pipeline.options.storage import Storage
from pipeline.safety.files import is_confined, read_inside, read_json_object
from pipeline.safety.seals import canonical_json, file_sha256
from pipeline.storage import lease
from pipeline.storage.addresses import COPIES, Address, parse_address
from pipeline.storage.objects import (
    ListedObject,
    ObjectFile,
    listing,
    put_file,
    put_object,
    read_object,
    remove_folder,
    remove_object,
)

Item = TypeVar("Item")
Result = TypeVar("Result")
File = TypeVar("File", bound="NamedFile")
MARKER, INDEX = ".bucket.json", ".index.json"
FORGOTTEN_S = 600.0
"""Age from which a file of the copy is removed if the bucket does not have it: younger ones may belong to a worker here that
serves a run elsewhere."""
_LONGEST_NAME = 255
"""The longest name of a file, in bytes."""
AT_ONCE = 8
"""Concurrent requests for the files of one artefact."""
_COMMITS = ("manifest.json", "snapshot.json")
_DATA = re.compile(r"(?!snapshots/)[a-z]+/(?:[0-9a-f]{16}/(?!manifest\.json$)|parts/(?!.*\.json$))")
_OWN = re.compile(r"(?:.*/)?\.|tracking/|metrics\.prom$")
"""Files that stay on this machine: hidden and unfinished ones, and the tracking spool."""
_LAZY = re.compile(r"tokens/parts/")
"""Small files that are numerous: fetched on demand."""


class NamedFile(Protocol):
    """A file that a manifest names."""

    @property
    def name(self) -> str: ...
    @property
    def bytes(self) -> int: ...
    @property
    def sha256(self) -> str: ...


def copy_folder(place: Address, storage: Storage) -> Path:
    """The folder of this machine's copy of a place: the same path for the same place and user on all machines."""
    parent = Path(storage.cache) if storage.cache else Path(tempfile.gettempdir()) / f"w2v-{os.getuid()}"
    digest = hashlib.sha256(canonical_json([str(place), storage.endpoint])).hexdigest()[:16]
    return Path(os.path.abspath(parent)) / COPIES / f"{digest}-{place.path.rpartition('/')[2]}"


def private_folder(place: Address, storage: Storage) -> Path:
    """The folder for the copy of a place, created if needed. Raises PermissionDeniedError if other users could change it."""
    root = copy_folder(place, storage)
    for folder in (root.parent.parent, root.parent, root):
        folder.mkdir(mode=0o700, parents=folder == root.parent.parent, exist_ok=True)
        # The user may have configured the first one, possibly as a link.
        found = os.stat(folder, follow_symlinks=folder == root.parent.parent)
        mine = stat.S_ISDIR(found.st_mode) and found.st_uid in (os.getuid(), 0)
        if not mine or (found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX):
            raise PermissionDeniedError(
                f"{folder}: a copy of the bucket would lie in a folder that others can change; set storage.cache to your own"
            )
    return root


def begin(place: Address, storage: Storage) -> Copy:
    """The copy of a place, created if there is none yet. Raises PermissionDeniedError if other users could change it."""
    root = private_folder(place, storage)
    marker = canonical_json({"place": str(place), "storage": storage.model_dump()})
    if not (root / MARKER).exists() or (root / MARKER).read_bytes() != marker:
        _write(root / MARKER, marker)
    copy_at.cache_clear()
    return Copy(root, place, storage)


@cache
def copy_at(root: str) -> Copy | None:
    """The copy in a folder, None if it is none of this user's."""
    try:
        if os.lstat(root).st_uid != os.getuid():
            return None
        body = json.loads(read_inside(Path(root), MARKER))
    except FileNotFoundError:
        return None
    return Copy(Path(root), parse_address(body["place"], "run.workdir"), Storage(**body["storage"]))


@dataclass(frozen=True)
class Copy:
    root: Path
    place: Address
    storage: Storage
    _sent: set[str] = field(default_factory=set, compare=False, repr=False)
    """The keys of the files of artefacts that this process has put into the bucket since its run began."""

    def key_of(self, path: Path) -> str:
        """The key of a path, relative to the place."""
        found = os.path.relpath(os.path.normpath(path), self.root)
        return "" if found == "." else found

    def at(self, path: Path) -> Address:
        """The address in the bucket of a path's object, or of the folder of its objects."""
        key = self.key_of(path)
        return self.place / key if key else self.place

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def put(self, path: Path, source: Path, sha256: str) -> None:
        """Puts the bytes of `source` into the bucket; the caller then makes them appear under `path`."""
        key = self.key_of(path)
        if _OWN.match(key):
            return
        reach("put", path.name)
        if _DATA.match(key):
            put_file(self.place / key / sha256, source, self.storage)
            self._sent.add(f"{key}/{sha256}")
        else:
            lease.require(self.root)
            put_object(self.place / key, source.read_bytes(), self.storage)
        reach("was put", path.name)

    def require(self, directory: Path, parts: Iterable[NamedFile]) -> None:
        """Ensures that the bucket has every file that a manifest is about to name, putting missing ones from the copy; raises
        DamagedError for a file that neither has."""
        parts = [part for part in parts if self._object(directory, part) not in self._sent]
        sizes = self.sizes(directory, parts) if parts else {}
        missing = [part for part in parts if sizes.get(self._object(directory, part)) != part.bytes]

        def put(part: NamedFile) -> None:
            path = directory / part.name
            if not path.is_file() or file_sha256(path) != part.sha256:
                raise DamagedError(f"{self.at(path)}: missing; run again to rebuild it", str(directory))
            put_file(self.place / self._object(directory, part), path, self.storage)

        _together(put, missing)

    def put_folder(self, source: Path, directory: Path, last: str) -> None:
        """Puts the files of `source` into the bucket as those of `directory`, the file named `last` last."""
        files = [path for path in source.rglob("*") if path.is_file() and not path.is_symlink()]
        for path in sorted(files, key=lambda path: path.name == last):
            self.put(directory / path.relative_to(source), path, "")

    def remove(self, path: Path) -> None:
        """Removes a path and everything below it from the bucket; its commit file goes first, except of a checkpoint, of which
        readers look for every file anyway."""
        key = self.key_of(path)
        self._sent.difference_update([sent for sent in self._sent if sent.startswith(f"{key}/")])
        for name in () if key.startswith("checkpoints/") else _COMMITS:
            if (path / name).is_file():
                remove_object(self.at(path / name), self.storage)
        if path.suffix and not _DATA.match(key):
            remove_object(self.at(path), self.storage)
        else:
            remove_folder(self.at(path), self.storage)

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def sizes(self, directory: Path, parts: Iterable[NamedFile] = ()) -> dict[str, int]:
        """{key relative to the place: bytes} of every object below a folder and below the folders of these files."""
        folders = {os.path.normpath((directory / part.name).parent) for part in parts} | {str(directory)}
        return {key: found.size for folder in sorted(folders) for key, found in self._listed(self.at(Path(folder)))}

    def _listed(self, address: Address) -> Iterator[tuple[str, ListedObject]]:
        """(key in the place, object) of everything below an address that can be a file of the copy. Anybody who can write to the
        bucket can choose keys, and one with `..` or an absolute path would lead out of the copy; this program writes no such
        keys."""
        skip = len(self.place.key) + 1 if self.place.key else 0
        for found in listing(address, self.storage):
            key = found.key[skip:]
            if is_confined(key) and all(len(os.fsencode(step)) <= _LONGEST_NAME for step in key.split("/")):
                yield key, found

    def has(self, directory: Path, parts: Iterable[NamedFile], sizes: Mapping[str, int] | None = None) -> bool:
        """Whether the bucket has all these files with the right sizes; `sizes` as from `sizes`, to list only once."""
        parts = list(parts)
        found = self.sizes(directory, parts) if sizes is None else sizes
        return all(found.get(self._object(directory, part)) == part.bytes for part in parts)

    def damaged(self, directory: Path, parts: Iterable[File], *, deep: bool) -> list[tuple[File, str]]:
        """(file, what is wrong with it in the bucket); `deep` reads every byte. Damaged files of the copy are simply removed."""
        parts = list(parts)
        sizes = self.sizes(directory, parts)

        def problem(part: File) -> str | None:
            path, key = directory / part.name, self._object(directory, part)
            if path.is_file() and (path.stat().st_size != part.bytes or file_sha256(path) != part.sha256):
                path.unlink()
            if key not in sizes:
                return f"{self.place / key}: missing"
            if sizes[key] != part.bytes:
                return f"{self.place / key}: expected {part.bytes:,} bytes, found {sizes[key]:,}"
            changed = deep and self._digest(self.place / key) != part.sha256
            return f"{self.place / key}: its content changed (SHA-256 differs)" if changed else None

        return [(part, why) for part, why in zip(parts, _together(problem, parts), strict=True) if why]

    def fetch(self, path: Path, sha256: str | None = None) -> None:
        """Fetches a file into the copy. Raises FileNotFoundError if the bucket has none, DamagedError if its content does not
        match its digest."""
        key = self.key_of(path)
        if not _DATA.match(key):
            _write(path, read_object(self.place / key, self.storage))
            return
        if sha256 is None:
            there = list(listing(self.place / key, self.storage))
            if not there:
                raise FileNotFoundError(2, "No such file in the bucket", str(self.place / key))
            sha256 = max(there, key=lambda listed: listed.modified_ns).key.rpartition("/")[2]
        source = self.place / key / sha256
        temporary = _temporary(path)
        try:
            with ObjectFile(source, self.storage) as file, open(temporary, "xb", buffering=0) as target:
                digest = hashlib.sha256()
                while block := file.read(1 << 22):
                    digest.update(block)
                    target.write(block)
            if digest.hexdigest() != sha256:
                raise DamagedError(f"{source}: its content changed (SHA-256 differs); run again to rebuild it", str(path.parent))
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def pull(self) -> None:
        """Brings the copy's small files up to date with the bucket; the caller must hold the copy's lock and know that the bucket
        is there."""
        there = {key: [found.size, found.modified_ns] for key, found in self._listed(self.place)}
        self._refuse_a_file_with_files_below(there)
        small = {key: facts for key, facts in there.items() if not _DATA.match(key) and not _OWN.match(key)}
        known = self._known()

        def bring(key: str) -> None:
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile, or the marker of a folder
                _write(self.root / key, read_object(self.place / key, self.storage))

        _together(
            bring,
            [key for key in small if not _LAZY.match(key) and (known.get(key) != small[key] or not (self.root / key).is_file())],
        )
        data, old = {key.rpartition("/")[0] for key in there if _DATA.match(key)}, time.time() - FORGOTTEN_S
        for path in [path for path in self.root.rglob("*") if path.is_file() and not path.is_symlink()]:
            key = self.key_of(path)
            with contextlib.suppress(FileNotFoundError):  # a worker here that serves a run elsewhere has renamed or removed it
                gone = key not in data and path.stat().st_mtime < old if _DATA.match(key) else key not in small
                if gone and not _OWN.match(key):
                    path.unlink()
        _write(self.root / INDEX, json.dumps(small).encode())

    def _refuse_a_file_with_files_below(self, keys: Iterable[str]) -> None:
        folders = {key[:place] for key in keys for place, letter in enumerate(key) if letter == "/"}
        for key in sorted(folders.intersection(keys)):
            raise DamagedError(
                f"{self.place / key}: is an object and also has objects below it, which is impossible for files; remove the "
                "objects that this program did not write",
                str(self.root),
            )

    @contextlib.contextmanager
    def sign(self, name: str) -> Iterator[tuple[str, bytes, str]]:
        """The arguments for `join` on a worker; an object of this name is in the bucket while the block runs."""
        put_object(self.place / name, b"", self.storage)
        try:
            yield str(self.root), (self.root / MARKER).read_bytes(), name
        finally:
            with contextlib.suppress(PipelineError):
                remove_object(self.place / name, self.storage)

    def _known(self) -> Mapping[str, object]:
        try:
            return read_json_object(self.root, INDEX)
        except (OSError, ValueError):
            return {}

    def _object(self, directory: Path, part: NamedFile) -> str:
        return f"{self.key_of(directory / part.name)}/{part.sha256}"

    def _digest(self, address: Address) -> str:
        with ObjectFile(address, self.storage) as file:
            return hashlib.file_digest(cast(Any, file), "sha256").hexdigest()


def _together(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        return list(pool.map(work, items))


def _temporary(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")


def _write(path: Path, data: bytes) -> None:
    temporary = _temporary(path)
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


# ── workers of other machines ────────────────────────────────────────────────────────────────────────────────────────


def join(root: str, marker: bytes, sign: str) -> str | None:
    """Why this machine cannot work on that copy; None if it can, after creating its own. `sign` is the key of an object that the
    run has just put into the bucket."""
    body = json.loads(marker)
    storage = Storage(**body["storage"])
    try:
        copy = begin(parse_address(body["place"], "run.workdir"), storage)
        if str(copy.root) != root:
            return f"would keep the copy of {copy.place} in {copy.root}, but the driver keeps it in {root}; set storage.cache"
        read_object(copy.place / sign, storage)
    except FileNotFoundError:
        return f"does not see what the driver put into {body['place']}"
    except (PipelineError, OSError) as error:
        return f"cannot reach {body['place']}: {error}"
    return None
