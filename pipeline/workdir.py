"""Inspecting a workdir: what it contains, and whether that is intact.

The status is asked for often and needs neither stages nor text, so what checks their files is imported by who checks."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline import store
from pipeline.config import RunConfig
from pipeline.errors import StorageError, UnreadError
from pipeline.history.answers import changes, find_answer, introduction
from pipeline.history.latest import champion_of, history_damage
from pipeline.history.snapshot import PASSING, REPORT, SNAPSHOTS, SUMMARY, read_summary, snapshot_damage
from pipeline.safety import locks
from pipeline.safety.seals import SEAL, seal_damage
from pipeline.storage import lease
from pipeline.tracking.textfile import NAME as TEXTFILE
from pipeline.tracking.textfile import textfile_damage
from pipeline.tracking.tracker import sync

MORE_LOOKS, PAUSE_S = 2, 1.0
"""How often, and after how long, what looks damaged beside a run that works there is looked at again."""

SHOWN_RUNS = 3
"""Up to how many tracked runs that have arrived completely are shown one by one."""


def verify_workdir(workdir: Path) -> tuple[int, list[str]]:
    """(files checked, problems found): checks every byte of every file that a run wrote to be read again, and that everything the
    last complete run left still exists. The tracking spool is left out; its shipper reports damage.

    What a run that works there meanwhile is replacing or removing looks damaged for a moment: only what does so again counts.
    """
    works = locks.worker_in(workdir)
    checked, damage = _look_through(workdir)
    for _ in range(MORE_LOOKS):
        works = works or locks.worker_in(workdir)
        if damage and works:
            time.sleep(PAUSE_S)
            checked, again = _look_through(workdir)
            damage = [problem for problem in damage if problem in again]
    return checked, damage


def _look_through(workdir: Path) -> tuple[int, list[str]]:
    looks = list(_looks(workdir))
    return sum(files for files, _ in looks), [problem for _, found in looks for problem in found]


def _looks(workdir: Path) -> Iterator[tuple[int, list[str]]]:
    from pipeline.stages.ladder import KINDS
    from pipeline.text.corpus import KNOWN_FILES, known_damage

    summary = None
    try:
        summary = read_summary(workdir)
        strange = summary is not None and not summary.get("stages", {}).keys() <= KINDS.keys()
        yield int(summary is not None), [f"{workdir / SUMMARY}: damaged (its stages are not those of a run)"] * strange
    except StorageError as error:
        yield 0, [str(error)]
    for directory in sorted({*store.iterate_artefacts(workdir), *_promised(workdir)}):
        yield verify_artefact(directory)
    if (summary and "report" in summary) or (workdir / REPORT / SEAL).exists():
        yield seal_damage(workdir / REPORT)
    for snapshot in sorted((workdir / SNAPSHOTS).glob("[0-9a-f]*")):
        yield snapshot_damage(snapshot)
    yield history_damage(workdir)
    yield known_damage(workdir / KNOWN_FILES)
    yield textfile_damage(workdir / TEXTFILE)


def verify_artefact(directory: Path) -> tuple[int, list[str]]:
    """(files checked, problems found) for one artefact."""
    from pipeline.stages import tokenize

    try:
        artefact = store.load_artefact(directory)
    except StorageError as error:
        return 0, [str(error)]
    records, damage = tokenize.record_damage(artefact) if artefact.manifest.stage == tokenize.STAGE else (0, [])
    return len(artefact.manifest.parts) + 1 + records, [*store.find_damage(artefact, deep=True), *damage]


def _promised(workdir: Path) -> Iterator[Path]:
    """The directories of the artefacts that the last complete run left, including any whose manifest is gone."""
    from pipeline.stages.ladder import KINDS

    with contextlib.suppress(UnreadError):  # which `history_damage` tells
        if champion := champion_of(workdir):
            yield from champion.lasting()
    with contextlib.suppress(StorageError):
        stages = (read_summary(workdir) or {}).get("stages", {})
        for kind, row in ((KINDS[name], row) for name, row in stages.items() if name in KINDS):
            directory = store.artefact_directory(workdir, kind, row["fingerprint"])
            if directory.exists() or kind not in PASSING:
                yield directory


def status_of(config: RunConfig, *, compared: bool = True) -> dict[str, Any]:
    """The status of a workdir as plain data; if `compared`, with what differs between its settings and the configuration's."""
    workdir = config.workdir
    told: dict[str, Any] = {
        "workdir": str(workdir), "exists": workdir.exists(), "place": config.place and str(config.place), "working": None,
        "working_there": None, "artefacts": [], "problems": [], "last_run": None, "answer": None, "tracked": [],
    }  # fmt: skip
    if not told["exists"]:
        return told
    if config.place:
        told["working_there"] = lease.holder(config.place, config.storage)
    try:
        told["working"] = locks.holder(workdir / locks.WORKDIR_LOCK)
    except OSError as error:
        told["problems"].append(f"{workdir / locks.WORKDIR_LOCK}: {error.strerror}")
    for directory in store.iterate_artefacts(workdir):
        try:
            manifest = store.load_artefact(directory).manifest
            size = sum(part.bytes for part in manifest.parts)
            row = {"stage": manifest.stage, "fingerprint": manifest.fingerprint, "files": len(manifest.parts), "bytes": size}
            told["artefacts"].append(row)
        except StorageError as error:
            told["problems"].append(str(error))
    try:
        told["last_run"] = "incomplete" if read_summary(workdir) is None else "complete"
    except StorageError as error:
        told["last_run"] = "damaged"
        told["problems"].append(str(error))
    if answer := find_answer(workdir):
        told["answer"] = {"run_id": answer.run_id, "made": answer.made, "vectors": str(answer.vectors)}
        if compared:
            found = changes(answer, config)
            same = answer.summary["config_digest"] == config.digest or not found
            told["answer"] |= {"same_configuration": same, "differences": found}
    if config.tracking.enabled:
        told["tracked"] = [asdict(state) for state in sync(workdir, config.tracking, timeout_s=5.0)]
    return told


def status_lines(told: Mapping[str, Any]) -> Iterator[str]:
    """The status (`status_of`) for people, line by line."""
    workdir = told["workdir"]
    if not told["exists"]:
        yield f"{workdir}: nothing here yet"
        return
    if told["place"]:
        works = f"a run is working there ({told['working_there']})" if told["working_there"] else "no run is working there"
        yield f"{told['place']}: {works}; this machine's copy is {workdir}"
    yield locks.busy(workdir, told["working"]) if told["working"] else f"{workdir}: no run is working here"
    for row in told["artefacts"]:
        files = "file" if row["files"] == 1 else "files"
        yield f"  {row['stage']:<12} {row['fingerprint'][:16]}  {row['files']:>5} {files:<5}  {row['bytes']:>15,} bytes"
    yield from (f"  {problem}" for problem in told["problems"])
    if told["last_run"] == "incomplete":
        yield "  no summary.json: the last run did not complete; run it again, it continues"
    if answer := told["answer"]:
        which = {True: " (this configuration)", False: " (another configuration)", None: ""}[answer.get("same_configuration")]
        yield f"  last complete run: {answer['run_id']}{which}"
        yield f"  queries are answered {introduction(answer['run_id'], answer['made'], answer.get('differences', ()))}"
    yield from _tracked(told["tracked"])


def _tracked(states: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A line for each tracked run; of many that have arrived completely, only their number."""
    complete = [state for state in states if state["complete"]]
    many = len(complete) > SHOWN_RUNS
    for state in states:
        rest = "" if state["complete"] else f", not complete: {state['message']}"
        if not (state["complete"] and many):
            yield f"  tracked: {state['uri']} run {state['run_id'] or '(none yet)'}{rest}"
    if many:
        yield f"  tracked: {len(complete)} runs that have arrived completely (w2v sync lists them)"
