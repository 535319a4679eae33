"""The last good result: the champion snapshot, which stays while later runs fail, continue or stop early.

    <workdir>/history/000007.json   the decisions, one file each, in order; the last one names the champion
    <workdir>/latest → snapshots/…  the champion, for people and programs: latest/vectors/vectors.npy, latest/summary.json

A decision is in force once its file exists. `latest` follows: it is replaced by one rename, and the next holder of the
workdir's lock repairs it first if a kill came in between. A reader that resolves the link once sees one whole result.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline import store
from pipeline.errors import DamagedError, StorageError, UnreadError, told_of_file, unread
from pipeline.failpoints import reach
from pipeline.history.shapes import is_decision
from pipeline.history.shapes import snapshot_id as is_snapshot_id
from pipeline.history.snapshot import BODY, SNAPSHOTS, UNFINISHED, Snapshot, open_snapshot, remove_unfinished
from pipeline.safety.files import read_inside
from pipeline.safety.seals import canonical_json, json_bytes
from pipeline.storage.local_files import copy_of

HISTORY, LATEST = "history", store.LATEST
_NUMBER = re.compile("[0-9]{6,9}")


def entries(workdir: Path) -> list[dict[str, Any]]:
    """Every decision taken here, oldest first; unreadable ones are left out."""
    return [body for path in _files(workdir).values() if (body := _decision(path))]


def read_history(workdir: Path) -> tuple[list[dict[str, Any]], list[Path]]:
    """(every decision that can be read, oldest first; the files of decisions and snapshots from which it cannot be told what is
    needed): damaged ones, and that of the champion if it is missing."""
    decisions = {path: _decision(path) for path in _files(workdir).values()}
    found = [path for path, body in decisions.items() if body is None]
    there = [body for body in decisions.values() if body]
    bodies = [path for path in sorted((workdir / SNAPSHOTS).glob(f"*/{BODY}")) if is_snapshot_id(path.parent.name)]
    if there and (path := workdir / SNAPSHOTS / there[-1]["champion"] / BODY) not in bodies:
        bodies.append(path)
    return there, found + [path for path in bodies if open_snapshot(path.parent) is None]


def last_entry(workdir: Path) -> dict[str, Any]:
    """The last decision that can be read; empty if there is none."""
    return next((body for body in _newest_first(workdir) if body), {})


def _newest_first(workdir: Path) -> Iterator[dict[str, Any] | None]:
    """The decisions, the last one first, None for an unreadable one: each is read when it is asked for, since a workdir that is
    refreshed every hour has thousands."""
    return map(_decision, reversed(_files(workdir).values()))


def _decision(path: Path) -> dict[str, Any] | None:
    """The decision in a file; None if it is damaged. Raises UnreadError for a file that may be intact."""
    try:
        body = store.unsealed(read_inside(path.parent, path.name))
        return body if is_decision(body) else None
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and (problem := unread(error, path)):
            raise problem from None
        return None


def _files(workdir: Path) -> dict[int, Path]:
    """The files of decisions by their numbers, in order."""
    return {int(path.stem): path for path in sorted((workdir / HISTORY).glob("*.json")) if _NUMBER.fullmatch(path.stem)}


def history_damage(workdir: Path) -> tuple[int, list[str]]:
    """(files checked, problems found) for every decision, and for `latest`, which must point to the champion."""
    files, damage = _files(workdir), []
    for before, number in itertools.pairwise([0, *files]):
        if number > before + 1:
            more = f" to {number - 1:06d}.json" if number > before + 2 else ""
            damage.append(f"{workdir / HISTORY / f'{before + 1:06d}.json'}{more}: missing")
    for number, path in files.items():
        try:
            body = store.unsealed(read_inside(path.parent, path.name))
            if body.get("number") != number:
                damage.append(f"{path}: it belongs to another decision")
            elif not is_decision(body):
                damage.append(f"{path}: damaged (a value of a decision is missing or wrong)")
        except (OSError, ValueError) as error:
            damage.append(told_of_file(error, path))
    link = workdir / LATEST
    try:
        champion = champion_of(workdir)
    except UnreadError as error:
        return len(files), [*damage, str(error)]
    named = f"{SNAPSHOTS}/{champion.id}" if champion else None
    if (os.readlink(link) if link.is_symlink() else None) != named:
        damage.append(f"{link}: not what the last decision in {HISTORY} names ({named}); the next run repairs it")
    return len(files) + bool(champion), damage


def decide(workdir: Path, kind: str, champion: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Records a decision that makes `champion` the champion, and returns its entry. The caller must hold the workdir's lock."""
    number = next_number(workdir)
    entry = {"number": number, "time": time.time(), "kind": kind, "champion": champion} | dict(facts)
    reach("decide", kind)
    store.write_json(workdir / HISTORY / f"{number:06d}.json", store.sealed(entry))
    reach("decided", kind)
    point_at(workdir, champion)
    return entry


def next_number(workdir: Path) -> int:
    """The number of the next decision."""
    return max(_files(workdir), default=0) + 1


def input_key(config_digest: str, tokens: str) -> str:
    """A digest of what a result is made from: equal exactly if the settings and every part of the text are."""
    return hashlib.sha256(canonical_json([config_digest, tokens])).hexdigest()


def last_decision(workdir: Path) -> dict[str, Any]:
    """The last entry about a new result, rollbacks left out; empty if there is none."""
    return next((entry for entry in _newest_first(workdir) if entry and "input" in entry), {})


def champion_of(workdir: Path) -> Snapshot | None:
    """The snapshot named by the last decision, None before the first; if it is not whole, the champion before it. Where the last
    decision is unreadable, `latest` still says what it was."""
    for back, entry in enumerate(_newest_first(workdir)):
        if entry is None and back == 0 and (found := _linked(workdir)):
            return found
        if entry and (found := open_snapshot(workdir / SNAPSHOTS / entry["champion"])):
            return found
    return None


def line_of(decisions: Sequence[Mapping[str, Any]], champion: str) -> list[str]:
    """The champions up to this one, without those that were gone back from: going back twice goes back by two, and what was taken
    out of service does not come into it again."""
    line, known = list[str](), list[str]()
    for name, back in [*((entry["champion"], entry["kind"] == "rollback") for entry in decisions), (champion, True)]:
        if back and name in known:
            line = known[: len(known) - known[::-1].index(name)]
        elif line[-1:] != [name]:
            line = known = [*line, name]
    return line


def _linked(workdir: Path) -> Snapshot | None:
    """The whole snapshot of this workdir to which `latest` points."""
    found = open_snapshot(Path(os.path.realpath(workdir / LATEST)))
    return found if found and found.workdir.resolve() == workdir.resolve() else None


def damage_notes(workdir: Path) -> list[str]:
    """What to tell whoever works in a workdir with such files."""
    end = "damaged or missing; nothing is removed until it is put right (`w2v verify` names all damage)"
    return [f"{path}: {end}" for path in read_history(workdir)[1]]


def mend(workdir: Path) -> None:
    """Points `latest` to the champion. For the holder of the workdir's lock, before it starts work."""
    remove_unfinished(workdir)
    if champion := champion_of(workdir):
        point_at(workdir, champion.id)


def point_at(workdir: Path, snapshot: str) -> None:
    """Points `latest` to this snapshot, atomically."""
    _tell_readers(workdir, snapshot)
    link_latest(workdir, snapshot)


def link_latest(workdir: Path, snapshot: str) -> None:
    """Points the link `latest` in a workdir, or in the copy of one in a bucket, to this snapshot."""
    link, target = workdir / LATEST, f"{SNAPSHOTS}/{snapshot}"
    try:
        if link.is_symlink() and os.readlink(link) == target:
            return
        if link.is_dir() and not link.is_symlink():
            _remove_copy(link)
        temporary = workdir / f".{LATEST}.{uuid.uuid4().hex[:12]}.tmp"
        os.symlink(target, temporary)
        reach("latest", "made")
        os.replace(temporary, link)
        store.sync_directory(workdir)
    except OSError as error:
        raise store.explain_os_error(error, link) from error


def _remove_copy(link: Path) -> None:
    """Removes a folder in the place of `latest` that copying has made of it (`scp -r`, `cp -L`, archives without links), if the
    snapshot that it is a copy of is here. Raises StorageError."""
    workdir = link.parent
    try:
        copied = str(store.unsealed(read_inside(link, BODY)).get("id"))
    except (OSError, ValueError):
        copied = ""
    if not is_snapshot_id(copied) or open_snapshot(workdir / SNAPSHOTS / copied) is None:
        raise StorageError(
            f"{link}: expected a link to a folder in {SNAPSHOTS}, found a folder that is a copy of none of them; "
            "move it away and run again"
        )
    unwanted = workdir / SNAPSHOTS / f"{UNFINISHED}{LATEST}-{uuid.uuid4().hex[:12]}"
    os.rename(link, unwanted)
    shutil.rmtree(unwanted, ignore_errors=True)


def _tell_readers(workdir: Path, snapshot: str) -> None:
    """Writes `latest.json` in a bucket, which has no links: the champion and the keys of its vectors."""
    found = open_snapshot(workdir / SNAPSHOTS / snapshot)
    if found is None or (copy := copy_of(workdir)) is None:
        return
    try:
        vectors = store.load_artefact(found.vectors)
    except DamagedError:
        return
    keys = {part.name: f"{copy.key_of(vectors.directory / part.name)}/{part.sha256}" for part in vectors.manifest.parts}
    body = json_bytes(store.sealed({"snapshot": snapshot, "vectors": keys}))
    path = workdir / f"{LATEST}.json"
    if not path.is_file() or path.read_bytes() != body:
        store.write_bytes(path, body)
