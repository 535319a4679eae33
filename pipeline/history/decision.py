"""What an entry of history/ says, as far as it is read: who can write into a workdir can make one up, checksum and all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

SNAPSHOT_ID = "^[0-9a-f]{16}$"
YEAR_9999 = 253_402_300_799
"""The last second that a clock shows with four digits."""


class _Plain(BaseModel):
    """Values of their kinds as JSON has them, and whatever else stands beside them."""

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


def is_decision(body: Mapping[str, Any]) -> bool:
    """Whether all that is read of an entry is there and of its kind."""
    try:
        _Decision.model_validate(body)
    except ValidationError:
        return False
    return True
