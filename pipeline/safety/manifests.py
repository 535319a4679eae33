"""What the manifest of an artefact holds (`pipeline.store` writes and reads it): its files with their sizes and checksums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.safety.json_shapes import ABSENT, misfit

FORMAT_VERSION = 1
_PART = {"name": str, "bytes": int, "sha256": str, "rows": (int, ABSENT), "tokens": (int, ABSENT)}
_MANIFEST = {
    "stage": str,
    "fingerprint": str,
    "parts": [_PART],
    "totals": (dict, ABSENT),
    "fields": (dict, ABSENT),
    "inputs": ([str], ABSENT),
    "format_version": (int, ABSENT),
}


@dataclass(frozen=True, kw_only=True)
class Part:
    """One file of an artefact. `name` is relative to the artefact's directory, and lies in it or in `../parts`."""

    name: str
    bytes: int
    sha256: str
    rows: int = 0
    tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The description of an artefact: its files in order, its totals, and what it was made from."""

    stage: str
    fingerprint: str
    parts: tuple[Part, ...]
    totals: Mapping[str, Any] = field(default_factory=dict)
    """Counts for later stages and for people (tokens, sentences, kept tokens …)."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """The configuration fields the stage read."""
    inputs: tuple[str, ...] = ()
    """Fingerprints or content digests of what it was made from."""
    format_version: int = FORMAT_VERSION


def manifest_of(body: Mapping[str, Any]) -> Manifest:
    """The manifest that an object read from JSON describes; keys that it should not have are ignored. Raises ValueError."""
    if wrong := misfit(body, _MANIFEST):
        raise ValueError(wrong.removeprefix("."))
    parts = tuple(Part(**_known(row, Part)) for row in body["parts"])
    return Manifest(**_known({**body, "parts": parts, "inputs": tuple(body.get("inputs", ()))}, Manifest))


def _known(body: Mapping[str, Any], kind: type[Part | Manifest]) -> Mapping[str, Any]:
    fields = kind.__dataclass_fields__.keys()
    return body if body.keys() <= fields else {key: body[key] for key in fields if key in body}
