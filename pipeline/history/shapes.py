"""The expected structure of decisions and of snapshots' summaries, as far as they are read: anybody who can write to a workdir
can forge them, including their checksums."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pipeline.safety.json_shapes import ABSENT, misfit, number

YEAR_9999 = 253_402_300_799
"""The last second of the years with four digits, which is the last that `datetime` can show."""


def snapshot_id(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{16}", value) is not None


def seconds_since_1970(value: Any) -> bool:
    return number(value) and 0 <= value <= YEAR_9999


_FILES = {"files": int}
_SCORED = {"analogy": (number, None), "similarity": {str: (number, None)}}
_DECISION = {
    "number": int,
    "time": seconds_since_1970,
    "kind": str,
    "champion": snapshot_id,
    "snapshot": (snapshot_id, ABSENT),
    **dict.fromkeys(("status", "input", "start", "why", "decision"), (str, ABSENT)),
    "delta": ({"added": _FILES, "changed": _FILES, "renamed": _FILES, "deleted": _FILES}, None, ABSENT),
    "scores": ({"before": _SCORED, "now": _SCORED}, None, ABSENT),
}
_COMPLETE = {
    "corpus": {"tokens": int, "sentences": int, "files": int},
    "vectors": {"sha256": str},
    "config": {"train": dict},
}


def is_decision(body: Mapping[str, Any]) -> bool:
    """Whether an entry of history/ has every value that is read, with its type."""
    return misfit(body, _DECISION) is None


def is_whole_summary(body: Mapping[str, Any]) -> bool:
    """Whether a snapshot's summary has every value that is read of a complete run, with its type."""
    return misfit(body, _COMPLETE) is None
