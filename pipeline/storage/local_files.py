"""Files of a workdir, wherever that is: on a disk they are what they are, in a bucket they are fetched into this machine's copy.

For stages and tasks, which are given paths. What knows about buckets (`copies.py`) is imported only for a path in a copy, so a
command on a disk does not wait for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.storage.addresses import COPIES

if TYPE_CHECKING:
    from pipeline.storage.copies import Copy, NamedFile


def copy_of(path: str | Path) -> Copy | None:
    """The copy of a place in a bucket that a path lies in; None if it lies in none."""
    head, found, rest = str(path).partition(f"/{COPIES}/")
    if not (found and rest):
        return None
    from pipeline.storage.copies import copy_at

    return copy_at(f"{head}/{COPIES}/{rest.partition('/')[0]}")


def fetched(path: Path, sha256: str | None = None) -> Path:
    """The path, after fetching its file if it is missing from a copy. Does not raise if there is no file: opening it will."""
    if (kept := copy_of(path)) and not path.exists():
        with contextlib.suppress(FileNotFoundError):
            kept.fetch(path, sha256)
    return path


def sizes_there(directory: Path) -> Mapping[str, int] | None:
    """{key: bytes} of all objects below a folder of a workdir in a bucket, by one listing; None for a folder on a disk."""
    kept = copy_of(directory)
    return kept.sizes(directory) if kept else None


def is_listed(path: Path, sizes: Mapping[str, int] | None) -> bool:
    """Whether a small file is among what `sizes_there` found; True on a disk, where looking for it costs nothing."""
    return sizes is None or ((kept := copy_of(path)) is not None and kept.key_of(path) in sizes)


def all_there(directory: Path, parts: Iterable[NamedFile], sizes: Mapping[str, int] | None = None) -> bool:
    """Whether all files have the right sizes, in the bucket for a workdir in one; `sizes` as from `sizes_there`. Raises
    OSError."""
    if kept := copy_of(directory):
        return kept.has(directory, parts, sizes)
    return all((directory / part.name).stat().st_size == part.bytes for part in parts)


def put_folder(source: Path, directory: Path, last: str) -> None:
    """For a workdir in a bucket: puts the files of `source` there as those of `directory`, the file named `last` last."""
    if kept := copy_of(directory):
        kept.put_folder(source, directory, last)
