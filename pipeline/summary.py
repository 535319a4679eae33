"""`summary.json`: what a run made, in one file, written last; whoever finds it with status "complete" finds a complete run."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from pipeline.config import RunConfig
from pipeline.stages.ladder import STAGES
from pipeline.stages.work import Done, Told

SUMMARY = "summary.json"
VERSIONED = ("dask-word2vec", "numpy", "numba", "dask", "distributed", "pyarrow", "mlflow")


def summarise(config: RunConfig, done: Mapping[str, Done], notes: Sequence[str]) -> dict[str, Any]:
    """What summary.json says, but for what only the report and tracking know; `done` are the stages by name."""
    told = {stage.name: stage.describe(done[stage.name]) for stage in STAGES if stage.name in done}
    summary: dict[str, Any] = {
        "status": "complete",
        "run_id": f"{config.run.name}-{config.digest[:12]}",
        "config_digest": config.digest,
        "config": config.model_dump(mode="json", by_alias=True, exclude={"tracking"}),
        "stages": {name: _stage_row(done[name], found) for name, found in told.items()},
        "versions": versions(),
        "notes": [*notes, *done["tokenize"].totals.get("notes", ())],
    }
    for found in told.values():
        summary |= found.sections
    return summary


def _stage_row(done: Done, told: Told) -> dict[str, Any]:
    row: dict[str, Any] = {
        "seconds": round(done.seconds, 4),
        "cached": done.cached,
        "fingerprint": done.artefact.fingerprint,
    }
    if told.tokens is not None:
        row["tokens"] = told.tokens
        if not done.cached:
            row["tokens_per_s"] = round(told.tokens / max(done.seconds, 1e-9))
    return row | dict(told.row)


def versions() -> dict[str, str]:
    """What the result was made with."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in VERSIONED}
