"""Vectors in a bucket, downloaded to be read: by the address of an export, a workdir, or a single file.

Files named by `latest.json` are checked against its digests; any other object is used as it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline import store
from pipeline.errors import DamagedError, InputError
from pipeline.formats.placing import LATEST
from pipeline.options.storage import Storage
from pipeline.safety.files import is_confined
from pipeline.safety.seals import unsealed
from pipeline.storage.addresses import Address
from pipeline.storage.copies import private_folder
from pipeline.storage.objects import ObjectFile, exists, read_object, require_bucket
from w2v_core.vectors import files

_PREFERRED = (".safetensors", ".parquet", ".bin", ".txt")
"""Which file of an export is read if only its folder is named, by preference."""
_BLOCK_BYTES = 1 << 22


def bring_vectors(place: Address, storage: Storage) -> Path:
    """A local file or folder with the vectors at an address. Raises InputError if there are none, DamagedError for a file whose
    digest differs, and the errors of `storage.failures` when the bucket cannot be reached."""
    require_bucket(place, storage)
    folder = private_folder(place, storage)
    parent, _, name = place.key.rpartition("/")
    if place.key and exists(place, storage):
        return _brought(folder / name, place, storage, None)
    for at, wanted in ((place, None), (place.at(parent), name)):
        found = _named(at, storage)
        if found and (wanted is None or wanted in found):
            names = [wanted] if wanted else list(found)
            for each in names:
                key, digest = found[each]
                _brought(folder / each, at / key, storage, digest)
            return folder if files.META in names else folder / (wanted or _best(names))
    raise InputError(f"{place}: no vectors here; give a file, or a place that w2v export, publish.to or run.workdir has written")


def _named(at: Address, storage: Storage) -> dict[str, tuple[str, str]]:
    """{name: (key below the place, SHA-256)} of the files named by the place's `latest.json`; empty if there is none."""
    try:
        body = unsealed(read_object(at / LATEST, storage))
    except (FileNotFoundError, ValueError):
        return {}
    if isinstance(vectors := body.get("vectors"), Mapping):  # a workdir, where each file's key is its digest
        found = {name: (key, str(key).rpartition("/")[2]) for name, key in vectors.items()}
    else:
        exported = body.get("files")
        found = {
            name: (f"{body.get('folder')}/{name}", facts["sha256"])
            for name, facts in (exported.items() if isinstance(exported, Mapping) else ())
            if isinstance(facts, Mapping) and isinstance(facts.get("sha256"), str)
        }
    # Anybody who can write to the bucket may have chosen the names.
    return {
        name: (key, digest) for name, (key, digest) in found.items() if "/" not in name and is_confined(name) and is_confined(key)
    }


def _best(names: list[str]) -> str:
    return min(
        names, key=lambda name: next((place for place, end in enumerate(_PREFERRED) if name.endswith(end)), len(_PREFERRED))
    )


def _brought(path: Path, source: Address, storage: Storage, sha256: str | None) -> Path:
    """The path, after downloading the object to it."""
    try:
        file = ObjectFile(source, storage)
    except FileNotFoundError:
        raise InputError(f"{source}: {LATEST} names it, and it is gone; export the vectors again") from None

    def write(target: Any) -> None:
        digest = hashlib.sha256()
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            target.write(block)
        if sha256 not in (None, digest.hexdigest()):
            raise DamagedError(f"{source}: its content changed (SHA-256 differs); export the vectors again", str(path.parent))

    with file:
        store.write_file(path, write, durable=False)
    return path
