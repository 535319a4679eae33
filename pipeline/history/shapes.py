"""The expected structure of decisions and of snapshots' summaries, as far as they are read: anybody who can write to a workdir
can forge them, including their checksums."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

SNAPSHOT_ID = "^[0-9a-f]{16}$"
YEAR_9999 = 253_402_300_799
"""The last second of the years with four digits, which is the last that `datetime` can show."""


class _Plain(BaseModel):
    """Values of exactly the declared types; further keys are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class _Files(_Plain):
    files: int


class _Delta(_Plain):
    added: _Files
    changed: _Files
    renamed: _Files
    deleted: _Files


class _Scored(_Plain):
    analogy: float | None
    similarity: dict[str, float | None]


class _Scores(_Plain):
    before: _Scored
    now: _Scored


class _Decision(_Plain):
    number: int
    time: float = Field(ge=0, le=YEAR_9999)
    kind: str
    champion: str = Field(pattern=SNAPSHOT_ID)
    snapshot: str = Field(default="0" * 16, pattern=SNAPSHOT_ID)
    status: str = ""
    input: str = ""
    start: str = ""
    why: str = ""
    delta: _Delta | None = None
    scores: _Scores | None = None


class _Corpus(_Plain):
    tokens: int
    sentences: int
    files: int


class _Vectors(_Plain):
    sha256: str


class _Config(_Plain):
    train: dict[str, Any]


class _Summary(_Plain):
    """The summary of a complete run."""

    corpus: _Corpus
    vectors: _Vectors
    config: _Config


def is_decision(body: Mapping[str, Any]) -> bool:
    """Whether an entry of history/ has every value that is read, with its type."""
    return _fits(_Decision, body)


def is_whole_summary(body: Mapping[str, Any]) -> bool:
    """Whether a snapshot's summary has every value that is read of a complete run, with its type."""
    return _fits(_Summary, body)


def _fits(shape: type[_Plain], body: Mapping[str, Any]) -> bool:
    try:
        shape.model_validate(body)
    except ValidationError:
        return False
    return True
