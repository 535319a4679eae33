"""Garbage collection in a workdir: what no kept snapshot needs is found first, and removed on request.

`keep` snapshots (`kept_snapshots`) and the artefacts in `summary.json` are kept. Everything else that this program wrote below
tokens/, vocab/, shards/ … counts as garbage: artefacts of other corpora and settings, interrupted training, pages of sweeps, and
parts of tokens/ that belong to no kept corpus. Decisions stay: they are small and document the history.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import store
from pipeline.errors import DamagedError, StorageError
from pipeline.history.latest import champion_of, entries, line_of, read_history
from pipeline.history.snapshot import PASSING, SNAPSHOTS, SUMMARY, Snapshot, snapshots
from pipeline.safety.files import read_inside
from pipeline.safety.second_names import own_bytes
from pipeline.storage.local_files import copy_of

KINDS = ("tokens", "vocab", "shards", "checkpoints", "vectors", "report", "exports")
"""Folders of artefacts, in the order in which they are made."""
PARTS = "parts"
SWEEPS = "sweeps"
"""Folder of the pages of sweeps, one folder per combination."""
_PAGES = re.compile(r"[0-9a-f]{12}")
_ARTEFACT = re.compile(r"[0-9a-f]{16}")
"""Name of an artefact's folder; anything else there is not an artefact."""


@dataclass(frozen=True)
class Garbage:
    """A folder, or a file of tokens/parts, that nothing kept needs."""

    path: Path
    bytes: int
    why: str


def kept_snapshots(workdir: Path, keep: int) -> list[Snapshot]:
    """The champion, the champion before it, to which a rollback goes back, and those that a decision named last, `keep` in all:
    challengers that were rejected night after night take neither's place."""
    return _chosen(workdir, entries(workdir), keep)


def surely_kept(workdir: Path, keep: int) -> list[Snapshot] | None:
    """The same snapshots; None where a decision or a snapshot is damaged, so that it is not known what is needed."""
    decisions, damaged = read_history(workdir)
    return None if damaged else _chosen(workdir, decisions, keep)


def _chosen(workdir: Path, decisions: Sequence[Mapping[str, Any]], keep: int) -> list[Snapshot]:
    champion = champion_of(workdir)
    last_named = {entry["snapshot"]: number for number, entry in enumerate(decisions) if "snapshot" in entry}
    ordered = sorted(snapshots(workdir), key=lambda snapshot: last_named.get(snapshot.id, -1), reverse=True)
    there = {snapshot.id for snapshot in ordered}
    line = [name for name in line_of(decisions, champion.id) if name in there][-2:] if champion else []
    first = sorted(ordered, key=lambda snapshot: -line.index(snapshot.id) if snapshot.id in line else 1)
    kept = {snapshot.id for snapshot in first[:keep]}
    return [snapshot for snapshot in ordered if snapshot.id in kept]


def find_outdated(workdir: Path, keep: int) -> list[Garbage]:
    """Older snapshots and the artefacts that only they need; artefacts that belong to no snapshot stay. Nothing where
    `find_garbage` would raise."""
    kept, there = surely_kept(workdir, keep), snapshots(workdir)
    if kept is None:
        return []
    ids = {snapshot.id for snapshot in kept}
    theirs = {path for snapshot in there if snapshot.id not in ids for path in snapshot.artefacts()}
    theirs |= {path for snapshot in there for path in snapshot.artefacts() if path.parent.name in PASSING}
    keys = {key for directory in theirs if directory.parent.name == "tokens" for key in _part_keys(directory)}
    return [
        found for found in _garbage(workdir, kept)
        if found.path in theirs or found.path.parent.name == SNAPSHOTS
        or (found.path.parent.name == PARTS and _key_of(found.path.name) in keys)
    ]  # fmt: skip


def find_garbage(workdir: Path, keep: int) -> list[Garbage]:
    """Everything that can be removed, snapshots first, so that no reader finds one whose artefacts are gone.

    Raises StorageError where a decision or a snapshot is damaged: its artefacts would look like garbage and may be the last good
    ones."""
    decisions, damaged = read_history(workdir)
    if damaged:
        raise StorageError(
            f"{damaged[0]}: damaged or missing, so nothing is removed, because what it needs is not known; `w2v verify` names "
            "all damage; if you need neither this result nor this decision, remove the file (of a snapshot, its folder)"
        )
    return _garbage(workdir, _chosen(workdir, decisions, keep))


def _garbage(workdir: Path, kept: Sequence[Snapshot]) -> list[Garbage]:
    """Everything that none of the kept snapshots needs."""
    champion = champion_of(workdir)
    ids = {snapshot.id for snapshot in kept}
    needed = {path for snapshot in kept for path in snapshot.lasting()} | set(_of_summary(workdir))
    needed |= set(champion.artefacts()) if champion else set()
    parts = {path for directory in needed if directory.parent.name == "tokens" for path in _part_keys(directory)}
    sizes = _sizes_of(workdir)
    found = [
        _measure(snapshot.directory, "an older snapshot", sizes) for snapshot in snapshots(workdir) if snapshot.id not in ids
    ]
    for directory in _artefacts_there(workdir, sizes):
        if directory not in needed:
            why = "of no kept snapshot" if (directory / store.MANIFEST).exists() else "interrupted"
            found.append(_measure(directory, why, sizes))
    found += [_measure(path, "pages of a sweep", sizes) for path in _folders_there(workdir / SWEEPS, _PAGES, sizes)]
    for path in _parts_there(workdir, sizes):
        if _key_of(path.name) not in parts:
            found.append(_measure(path, "text of no kept snapshot", sizes))
    return found


def remove(garbage: list[Garbage]) -> None:
    """Removes what was found, each artefact's manifest first. The caller must hold the workdir's lock."""
    for found in garbage:
        store.discard(found.path)


ObjectSizes = Mapping[Path, int]
"""For a workdir in a bucket: {path in the copy: bytes} of every object, whether the copy has it or not."""


def _sizes_of(workdir: Path) -> ObjectSizes | None:
    copy = copy_of(workdir)
    return {workdir / key: size for key, size in copy.sizes(workdir).items()} if copy else None


def _artefacts_there(workdir: Path, sizes: ObjectSizes | None) -> Iterator[Path]:
    for kind in KINDS:
        yield from _folders_there(workdir / kind, _ARTEFACT, sizes)


def _folders_there(folder: Path, name: re.Pattern[str], sizes: ObjectSizes | None) -> list[Path]:
    if sizes is None:
        there = {path for path in folder.glob("*") if path.is_dir()}
    else:
        there = {folder / path.relative_to(folder).parts[0] for path in sizes if path.is_relative_to(folder)}
    return sorted(path for path in there if name.fullmatch(path.name))


def _parts_there(workdir: Path, sizes: ObjectSizes | None) -> list[Path]:
    folder = workdir / "tokens" / PARTS
    if sizes is None:
        return sorted(folder.glob("[0-9a-f]*"))
    return sorted({folder / path.relative_to(folder).parts[0] for path in sizes if path.is_relative_to(folder)})


def _of_summary(workdir: Path) -> Iterator[Path]:
    """The artefacts of the last run, if it was complete, as named by `summary.json`."""
    try:
        rows = store.unsealed(read_inside(workdir, SUMMARY))["stages"]
        fingerprints = {row["fingerprint"] for row in rows.values()}
    except (OSError, ValueError, KeyError, TypeError):
        return
    for kind in KINDS:
        yield from (store.artefact_directory(workdir, kind, fingerprint) for fingerprint in fingerprints)


def _part_keys(tokens: Path) -> set[str]:
    try:
        return {_key_of(Path(part.name).name) for part in store.load_artefact(tokens).manifest.parts}
    except DamagedError:
        return set()


def _key_of(name: str) -> str:
    """The key of the part that a file of tokens/parts belongs to: `<key>-000.tokens.parquet`, `<key>.json`."""
    return name.partition(".")[0].partition("-")[0]


def _measure(path: Path, why: str, sizes: ObjectSizes | None) -> Garbage:
    if sizes is not None:
        return Garbage(path, sum(size for there, size in sizes.items() if there.is_relative_to(path)), why)
    files = [path] if path.is_file() else [file for file in path.rglob("*") if not file.is_symlink() and file.is_file()]
    return Garbage(path, sum(map(own_bytes, files)), why)
