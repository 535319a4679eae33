"""Looking at a workdir from outside: what is there, and whether it is still what was written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from pipeline import store
from pipeline.config import RunConfig
from pipeline.errors import BusyError, DamagedError
from pipeline.tracking import sync


def verify_workdir(workdir: Path) -> tuple[int, list[str]]:
    """(files checked, what is wrong with which): every file of every artefact, read to the last byte."""
    checked, damage = 0, []
    for directory in store.iterate_artefacts(workdir):
        try:
            artefact = store.load_artefact(directory)
        except DamagedError as error:
            damage.append(str(error))
            continue
        checked += len(artefact.manifest.parts) + 1
        damage += store.find_damage(artefact)
    return checked, damage


def status_lines(config: RunConfig) -> Iterator[str]:
    """What a person wants to know of a workdir, a line each."""
    workdir = config.workdir
    if not workdir.exists():
        yield f"{workdir}: nothing here yet"
        return
    try:
        with store.lock(workdir):
            yield f"{workdir}: no run is working here"
    except BusyError as error:
        yield str(error)
    for directory in store.iterate_artefacts(workdir):
        try:
            manifest = store.load_artefact(directory).manifest
            size = sum(part.bytes for part in manifest.parts)
            yield f"  {manifest.stage:<12} {manifest.fingerprint[:16]}  {len(manifest.parts):>5} files  {size:>15,} bytes"
        except DamagedError as error:
            yield f"  {error}"
    try:
        summary = json.loads((workdir / "summary.json").read_text())
    except FileNotFoundError:
        yield "  no summary.json: the last run did not complete; run it again, it continues"
        return
    same = "this configuration" if summary["config_digest"] == config.digest else "another configuration"
    yield f"  last complete run: {summary['run_id']} ({same})"
    for state in sync(workdir, config.tracking) if config.tracking.enabled else ():
        rest = "" if state.complete else f", not complete: {state.message}"
        yield f"  tracked: {state.uri} run {state.run_id or '(none yet)'}{rest}"
