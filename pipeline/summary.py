"""`summary.json`: the results of a run in one file, written last; if it says "complete", the run is complete."""

from __future__ import annotations

import datetime
import platform
import socket
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from pipeline import store
from pipeline.config import RunConfig
from pipeline.history.snapshot import SUMMARY
from pipeline.stages.ladder import STAGES
from pipeline.stages.work import Done, Told
from pipeline.tracking.run_events import command_line

VERSIONED = ("dask-word2vec", "numpy", "numba", "dask", "distributed", "pyarrow", "mlflow")


def summarise(config: RunConfig, done: Mapping[str, Done], notes: Sequence[str]) -> dict[str, Any]:
    """The content of summary.json, except what the report and tracking add; `done` holds the finished stages by name."""
    told = {stage.name: stage.describe(done[stage.name]) for stage in STAGES if stage.name in done}
    summary: dict[str, Any] = {
        "status": "complete",
        "run_id": f"{config.run.name}-{config.digest[:12]}",
        "config_digest": config.digest,
        "config": config.told(),
        "folder": config.folder and str(config.folder),
        "stages": {name: _stage_row(done[name], found) for name, found in told.items()},
        "versions": versions(),
        "made": made(),
        "notes": [*notes, *(note for stage in done.values() for note in stage.totals.get("notes", ()))],
    }
    for found in told.values():
        summary |= found.sections
    return summary | ({"place": str(config.place)} if config.place else {})


def made() -> dict[str, str]:
    """When, where and by which command the result was made, for information only."""
    now = datetime.datetime.now(datetime.UTC)
    return {"at": now.strftime("%Y-%m-%d %H:%M UTC"), "host": socket.gethostname(), "command": command_line()}


def _stage_row(done: Done, told: Told) -> dict[str, Any]:
    row: dict[str, Any] = {
        "started": round(done.started, 3),
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
    """The versions of Python and of the main packages."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in VERSIONED}


def write_summary(workdir: Path, summary: Mapping[str, Any]) -> dict[str, Any]:
    """The summary with its checksum, as written to the file."""
    written = store.sealed(summary)
    store.write_json(workdir / SUMMARY, written)
    return written
