"""Exported files put where a person wants them: nothing is replaced there but what an earlier export put there."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from pipeline import store
from pipeline.errors import UsageError, printable
from pipeline.safety.files import read_json_object

RECORD = ".w2v-export.json"
"""Beside the files: {name: SHA-256} of all that exports have put there."""
_NAMED = 5


def place(directory: Path, write: Callable[[Path], dict[str, list[Path]]], *, force: bool = False) -> dict[str, list[Path]]:
    """{format: files} that `write(folder)` made, moved into `directory`.

    Raises UsageError, with nothing changed, if a file of one of their names is there that no export has written, or that was
    changed since; `force` replaces it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".export.", suffix=".tmp", dir=directory))
    try:
        written = write(folder)
        paths = sorted({path for paths in written.values() for path in paths})
        record = _record(directory)
        strange = [path.name for path in paths if not force and _is_strange(directory / path.name, record)]
        if strange:
            names = ", ".join(map(printable, strange[:_NAMED])) + (" …" if len(strange) > _NAMED else "")
            raise UsageError(
                f"{directory}: {names} would be replaced, which no export wrote, or which was changed since; choose another "
                "folder, or replace with --force"
            )
        record |= {path.name: store.file_sha256(path) for path in paths}
        for path in paths:
            os.replace(path, directory / path.name)
        store.write_json(directory / RECORD, {"files": record})
        return {name: [directory / path.name for path in paths] for name, paths in written.items()}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _record(directory: Path) -> dict[str, str]:
    try:
        files = read_json_object(directory, RECORD)["files"]
    except (FileNotFoundError, ValueError, KeyError):
        return {}
    return {str(name): str(digest) for name, digest in files.items()} if isinstance(files, dict) else {}


def _is_strange(path: Path, record: dict[str, str]) -> bool:
    if not os.path.lexists(path):
        return False
    return path.is_symlink() or not path.is_file() or record.get(path.name) != store.file_sha256(path)
