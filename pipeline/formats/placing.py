"""Exported files moved to their destination, where only files of earlier exports are replaced; a single file replaces none.

In a bucket, where several files cannot appear at once, each export has a folder named by its content, and one object, written
last, names the current folder: a reader that follows it never sees half an export.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from pipeline import store
from pipeline.errors import UsageError, printable
from pipeline.failpoints import reach
from pipeline.options.storage import Storage
from pipeline.safety.files import read_json_object
from pipeline.safety.seals import canonical_json, json_bytes
from pipeline.storage.addresses import Address
from pipeline.storage.objects import listing, put_file, put_object, read_object, require_bucket

RECORD = ".w2v-export.json"
"""Beside the files: {name: SHA-256} of everything that exports have put there."""
LATEST = "latest.json"
"""In a bucket: names the current export."""
_BEGUN = re.compile(r"\.export\.[a-z0-9_]{8}\.tmp")
_NAMED = 5


def place(directory: Path, write: Callable[[Path], dict[str, list[Path]]], *, force: bool = False) -> dict[str, list[Path]]:
    """{format: files} written by `write(folder)`, after moving them into `directory`.

    Raises UsageError, with nothing changed, if they would replace a file that no export wrote or that was changed since; `force`
    replaces it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with _begun(directory) as folder:
        written = write(folder)
        paths = sorted({path for paths in written.values() for path in paths})
        record, fresh = _record(directory), {path.name: store.file_sha256(path) for path in paths}
        strange = [name for name in fresh if not force and _is_strange(directory / name, record.get(name), fresh[name])]
        if strange:
            names = ", ".join(map(printable, strange[:_NAMED])) + (" …" if len(strange) > _NAMED else "")
            raise UsageError(
                f"{directory}: {names} would be replaced, which no export wrote, or which was changed since; choose another "
                "folder, or replace it with --force"
            )
        for path in paths:
            reach("place", path.name)
            os.replace(path, directory / path.name)
        store.write_json(directory / RECORD, {"files": record | fresh})
        return {name: [directory / path.name for path in paths] for name, paths in written.items()}


def place_file(path: Path, write: Callable[[Path], dict[str, list[Path]]], *, force: bool = False) -> list[Path]:
    """The path, after moving there the only file written by `write(folder)`; beside it, named after it, the list of escaped words
    if there is one. Raises UsageError, with nothing changed, for more files, and for an existing one without `force`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _begun(path.parent) as folder:
        [[first, *others]] = write(folder).values()
        places = {file: path.with_name(file.name.replace(first.name, path.name, 1)) for file in (first, *others)}
        if strange := [file.name for file in others if not file.name.startswith(first.name)]:
            raise UsageError(f"{path}: {', '.join(strange)} would be written beside it; give a folder, for all of its files")
        for file, place in places.items():
            if not force and _is_strange(place, None, store.file_sha256(file)):
                raise UsageError(f"{place}: it exists, with another content; choose another name, or replace it with --force")
        for file, place in places.items():
            reach("place", place.name)
            os.replace(file, place)
        return list(places.values())


@contextlib.contextmanager
def _begun(directory: Path) -> Iterator[Path]:
    """A new folder in `directory` for files that go there, removed at the end, as are those of exports that were killed."""
    for left in directory.glob(".export.*.tmp"):
        with contextlib.suppress(OSError), _locked(left) as owner:
            if _BEGUN.fullmatch(left.name) and owner == os.getuid():
                shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=".export.", suffix=".tmp", dir=directory))
    with _locked(folder):
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """Holds a lock on a folder, which ends with this process; the folder's owner. Raises OSError if somebody else has the lock or
    if it is no folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield os.fstat(descriptor).st_uid
    finally:
        os.close(descriptor)


def place_in_bucket(place: Address, storage: Storage, write: Callable[[Path], dict[str, list[Path]]]) -> dict[str, list[str]]:
    """{format: addresses} of the files written by `write(folder)`, uploaded by `send`."""
    with tempfile.TemporaryDirectory(prefix="w2v-export-") as folder:
        return send(place, storage, write(Path(folder)))


def send(place: Address, storage: Storage, written: Mapping[str, Sequence[Path]]) -> dict[str, list[str]]:
    """{format: addresses} of the uploaded files; `latest.json`, written last, names them with sizes and SHA-256. Earlier exports
    stay. Raises the errors of `storage.failures`."""
    paths = sorted({path for found in written.values() for path in found})
    files = {path.name: {"bytes": path.stat().st_size, "sha256": store.file_sha256(path)} for path in paths}
    folder = hashlib.sha256(canonical_json(files)).hexdigest()[:16]
    require_bucket(place, storage)
    skip = len((place / folder).key) + 1
    there = {listed.key[skip:]: listed.size for listed in listing(place / folder, storage)}
    for path in paths:
        if there.get(path.name) != files[path.name]["bytes"]:
            reach("send", path.name)
            put_file(place / folder / path.name, path, storage)
    body = json_bytes(store.sealed({"folder": folder, "files": files}))
    try:
        before = read_object(place / LATEST, storage)
    except FileNotFoundError:
        before = b""
    if before != body:
        reach("send", LATEST)
        put_object(place / LATEST, body, storage)
    return {name: [str(place / folder / path.name) for path in found] for name, found in written.items()}


def _record(directory: Path) -> dict[str, str]:
    try:
        files = read_json_object(directory, RECORD)["files"]
    except (FileNotFoundError, ValueError, KeyError):
        return {}
    return {str(name): str(digest) for name, digest in files.items()} if isinstance(files, dict) else {}


def _is_strange(path: Path, recorded: str | None, fresh: str) -> bool:
    """Whether a file is there that no export wrote; what an export wrote that was killed before it recorded it is what the same
    export writes again."""
    if not os.path.lexists(path):
        return False
    return path.is_symlink() or not path.is_file() or store.file_sha256(path) not in (recorded, fresh)
