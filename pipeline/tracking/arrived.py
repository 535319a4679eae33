"""Tracked runs that MLflow has completely, found to be removed from a workdir, whose results are gone from it.

Every configuration and every corpus has a spool of its own, so a refresh each night makes one each night. A spool is needed to
tell the same result to the same run of MLflow again; who removes the result removes that, too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.errors import StorageError
from pipeline.history.gc import Garbage, surely_kept
from pipeline.history.latest import champion_of
from pipeline.history.snapshot import Snapshot, read_summary, snapshots
from pipeline.tracking.spool import Spool, spools, what_is_spooled

DECISION_TAG = "refresh.decision"
"""Tag of the run of a refresh, told when it is about to be decided."""
Origin = tuple[str, str]
"""(digest of the configuration, fingerprint of the tokens or its beginning) from which a result was made."""


def find_arrived(workdir: Path, keep: int, *, outdated: bool = False) -> list[Garbage]:
    """The spools of results that are not among the `keep` snapshots that stay, delivered completely; `outdated`: only those of
    snapshots that are still there, and of refreshes that were decided, which may have arrived when their snapshot was gone. None
    where it cannot be told what stays."""
    kept, there = surely_kept(workdir, keep), snapshots(workdir)
    if kept is None:
        return []
    needed = [*map(_origin, kept), *_of_summary(workdir)]
    if champion := champion_of(workdir):
        needed.append(_origin(champion))
    old = list(map(_origin, there))
    return [
        Garbage(spool.directory, _bytes_of(spool), "told MLflow completely, of no kept snapshot")
        for spool, told, decided in _delivered(workdir)
        if not _is_of(told, needed) and (not outdated or decided or _is_of(told, old))
    ]


def _delivered(workdir: Path) -> Iterator[tuple[Spool, Origin, bool]]:
    """(spool, what its result was made from, whether it tells a refresh's decision) of each that was delivered completely."""
    for spool in spools(workdir):
        if spool.directory.is_symlink():  # somebody else's: what is removed below it would be elsewhere
            continue
        with contextlib.suppress(OSError):
            target = spool.target()
            if target and spool.run_id() and spool.size() <= spool.progress().offset and not spool.has_shipper():
                known = what_is_spooled(spool)
                yield spool, (target.config_digest, (known.dataset or {}).get("digest", "")), DECISION_TAG in known.tags


def _is_of(told: Origin, results: Sequence[Origin]) -> bool:
    return any(told[0] == settings and tokens.startswith(told[1]) for settings, tokens in results)


def _origin(snapshot: Snapshot) -> Origin:
    return snapshot.body["config_digest"], snapshot.body["artefacts"].get("tokenize", ("", ""))[1]


def _of_summary(workdir: Path) -> Iterator[Origin]:
    """The origin of the last complete run, which may have ended at an earlier stage."""
    with contextlib.suppress(StorageError):
        if summary := read_summary(workdir):
            yield summary["config_digest"], summary["stages"].get("tokenize", {}).get("fingerprint", "")


def _bytes_of(spool: Spool) -> int:
    return sum(file.stat().st_size for file in spool.directory.iterdir() if file.is_file())
