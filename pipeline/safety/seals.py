"""Checksums of files, and of JSON objects that carry their own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import told_of_file
from pipeline.safety.files import open_inside, open_regular, read_inside
from w2v_core.text.printable import printable

SEAL = "seal.json"
"""Lists the files of a folder that is not an artefact, with their checksums; written last, and empty while they are replaced."""
_BLOCK_BYTES = 1 << 20


def canonical_json(value: object) -> bytes:
    """The same bytes for equal values, whatever the order of their keys."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def json_bytes(value: object) -> bytes:
    """JSON for files, readable for people; equal values give the same bytes."""
    try:
        return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # a lone surrogate, as in the name of a file that is not UTF-8; JSON can escape it
        return json.dumps(value, indent=1, sort_keys=True).encode() + b"\n"


def sealed(body: Mapping[str, Any]) -> dict[str, Any]:
    """The object with the checksum of its content added under `sha256`."""
    return {**body, "sha256": hashlib.sha256(canonical_json(body)).hexdigest()}


def unsealed(text: bytes) -> dict[str, Any]:
    """The object that was sealed and written, without its checksum; raises ValueError for any other bytes."""
    try:
        body: dict[str, Any] = json.loads(text)
        found = body.pop("sha256")
        if sealed(body)["sha256"] != found:
            raise ValueError("its checksum does not match")
        # A flipped bit can leave the value unchanged (1e-05 and 1E-05, the last digit of a float): still not what was written.
        if json_bytes(body | {"sha256": found}) != text:
            raise ValueError("its bytes are not those that were written")
        return body
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(printable(str(error), 200)) from None


def file_sha256(path: Path | int) -> str:
    """The SHA-256 of a regular file, or of an open descriptor, which is then closed. Raises OSError."""
    digest = hashlib.sha256()
    with open(path if isinstance(path, int) else open_regular(path), "rb", buffering=0) as file:
        buffer = bytearray(_BLOCK_BYTES)
        view = memoryview(buffer)
        while count := file.readinto(buffer):
            digest.update(view[:count])
    return digest.hexdigest()


def seal_of(directory: Path, files: Iterable[Path]) -> dict[str, Any]:
    """The seal of a folder for these files in it."""
    return sealed({"files": {str(path.relative_to(directory)): file_sha256(path) for path in files}})


def seal_damage(directory: Path) -> tuple[int, list[str]]:
    """(files checked, problems found) for a folder with a seal."""
    try:
        files: dict[str, str] = unsealed(read_inside(directory, SEAL))["files"]
        damage = [_changed(directory, name, digest) for name, digest in files.items()]
    except FileNotFoundError:
        return 0, [f"{directory / SEAL}: missing: removed, or the folder was written by a version from before 2026-11-29"]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return 0, [told_of_file(error, directory / SEAL)]
    return len(files) + 1, [found for found in damage if found]


def _changed(directory: Path, name: str, digest: str) -> str | None:
    try:
        same = file_sha256(open_inside(directory, name)) == digest
    except OSError as error:
        return f"{directory / name}: cannot be read ({error.strerror})"
    return None if same else f"{directory / name}: its content changed (SHA-256 differs)"
