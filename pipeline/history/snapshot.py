"""A snapshot: one complete result under a name decided by its content, with links to each of its artefacts.

    <workdir>/snapshots/<id>/snapshot.json    its stages by fingerprint, run, parent and digests
                            /corpus.json      path, size and SHA-256 of the corpus's files
                            /summary.json     as the run wrote it
                            /report/          the page, index.html, and its data, as far as the run wrote them
                            /vectors, /exports, /vocab, /scores …   links to the artefacts

A snapshot appears under its name whole or not at all, and never changes afterwards. The id hashes the stages' fingerprints, so
the same corpus, settings and parent give the same snapshot, whoever makes it and however often it was interrupted.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import store
from pipeline.errors import DamagedError, InputError, StorageError, unread
from pipeline.failpoints import reach
from pipeline.history.shapes import YEAR_9999, is_whole_summary
from pipeline.safety.files import is_confined, read_inside
from pipeline.safety.seals import SEAL, canonical_json, seal_damage, seal_of
from pipeline.storage.local_files import copy_of

SNAPSHOTS = "snapshots"
BODY, SUMMARY, CORPUS = "snapshot.json", "summary.json", "corpus.json"
REPORT = "report"
"""Folder of the report, in a workdir and in a snapshot."""
UNFINISHED = ".unfinished-"
PASSING = ("shards",)
"""Kinds that are large, quickly made again, and read only by training: older snapshots do without them."""
_LINK_NAMES = {"report": "scores"}
"""Names of links that differ from the artefact's kind, since `report` is the page."""


@dataclass(frozen=True)
class Snapshot:
    """A complete result: its folder, and the content of `snapshot.json`."""

    directory: Path
    body: Mapping[str, Any]

    @property
    def id(self) -> str:
        return str(self.body["id"])

    @property
    def made(self) -> float:
        """When it was made, in seconds since 1970."""
        return float(self.body["made"])

    @property
    def workdir(self) -> Path:
        return self.directory.parent.parent

    @property
    def vectors(self) -> Path:
        """The folder of its vectors, even after the workdir was moved."""
        return store.artefact_directory(self.workdir, *self.body["artefacts"]["train"])

    @property
    def exports(self) -> Path:
        """The folder of its exports."""
        return store.artefact_directory(self.workdir, *self.body["artefacts"]["publish"])

    def summary(self) -> dict[str, Any]:
        """The summary as the run wrote it, with the places where its vectors and its report are now."""
        found = _read(self.directory, SUMMARY)
        if not is_whole_summary(found):
            raise _damaged(self.directory / SUMMARY, "a value of a complete run is missing or wrong")
        # Where they are now: the workdir may have been moved or copied, and the report there is of the last run.
        found["vectors"] |= {"path": str(self.vectors)}
        if "report" in found and (page := self.directory / REPORT / "index.html").is_file():
            found["report"] = str(page)
        return found

    def corpus(self) -> list[list[Any]]:
        """[path, bytes, SHA-256] of every file it was made from, in order."""
        found = _read(self.directory, CORPUS).get("files")
        kinds = [str, int, str]
        if not isinstance(found, list) or not all(isinstance(row, list) and list(map(type, row)) == kinds for row in found):
            raise _damaged(self.directory / CORPUS, "not a list of files")
        return found

    def damage(self) -> str:
        """What is wrong with its summary or its list of files, empty if nothing. Raises UnreadError."""
        try:
            self.summary()
            self.corpus()
        except (DamagedError, InputError) as error:
            return str(error).partition(";")[0]
        return ""

    def artefacts(self) -> Iterator[Path]:
        """The folders of its artefacts."""
        for kind, fingerprint in self.body["artefacts"].values():
            yield store.artefact_directory(self.workdir, kind, fingerprint)

    def lasting(self) -> Iterator[Path]:
        """The folders of the artefacts that stay as long as the snapshot, without those that only training reads."""
        yield from (directory for directory in self.artefacts() if directory.parent.name not in PASSING)


def snapshot_id(artefacts: Mapping[str, tuple[str, str]]) -> str:
    """16 hex digits that are equal exactly if the fingerprints of all stages are."""
    return hashlib.sha256(canonical_json({name: fingerprint for name, (_, fingerprint) in artefacts.items()})).hexdigest()[:16]


def make_snapshot(
    workdir: Path, summary: Mapping[str, Any], artefacts: Mapping[str, tuple[str, str]], corpus: Sequence[Sequence[Any]],
    *, parent: str | None = None, report: Path | None = None,
) -> Snapshot:  # fmt: skip
    """The snapshot of a complete run; an existing one if the same result was made before, and none of its files is damaged.

    `artefacts` holds (kind, fingerprint) by stage, `corpus` the path, bytes and SHA-256 of its files; `report` is the page
    written for it, with its data beside it.
    """
    name = snapshot_id(artefacts)
    directory = workdir / SNAPSHOTS / name
    if (found := open_snapshot(directory)) and not found.damage():
        return found
    body = {
        "id": name, "parent": parent, "made": time.time(), "run_id": summary["run_id"], "config_digest": summary["config_digest"],
        "artefacts": {stage: list(found) for stage, found in artefacts.items()},
        "vectors_sha256": summary["vectors"]["sha256"],
    }  # fmt: skip
    temporary = directory.with_name(f"{UNFINISHED}{name}-{uuid.uuid4().hex[:12]}")
    try:
        temporary.mkdir(parents=True)
        link_artefacts(temporary, artefacts.values())
        (temporary / REPORT).mkdir()
        for page in _pages(report):
            shutil.copyfile(page, temporary / REPORT / page.name)
        store.write_json(temporary / REPORT / SEAL, seal_of(temporary / REPORT, sorted((temporary / REPORT).iterdir())))
        store.write_json(temporary / CORPUS, store.sealed({"files": [list(file) for file in corpus]}))
        store.write_json(temporary / SUMMARY, store.sealed(summary))
        store.write_json(temporary / BODY, store.sealed(body))
        reach("snapshot", "written")
        store.put_folder(temporary, directory, last=BODY)
        _flush_names(workdir, {kind for kind, _ in artefacts.values()})
        shutil.rmtree(directory, ignore_errors=True)  # a snapshot there was not whole
        os.replace(temporary, directory)
        store.sync_directory(directory.parent)
    except OSError as error:
        raise store.explain_os_error(error, directory) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Snapshot(directory, body)


def _flush_names(workdir: Path, kinds: set[str]) -> None:
    """Makes the folders of artefacts survive a power cut: whoever wrote their files flushed the files and their names, but not
    the names of the folders that they lie in."""
    if copy_of(workdir):
        return
    for folder in (*(workdir / kind for kind in sorted(kinds)), workdir):
        store.sync_directory(folder)
    with contextlib.suppress(PermissionError):
        store.sync_directory(workdir.parent)


def link_artefacts(directory: Path, artefacts: Iterable[Sequence[str]]) -> None:
    """Creates the links to the artefacts, given as (kind, fingerprint), in a snapshot's folder."""
    for kind, fingerprint in artefacts:
        link = directory / _LINK_NAMES.get(kind, kind)
        if not link.is_symlink():
            os.symlink(store.artefact_directory(Path("../.."), kind, fingerprint), link)


def _pages(report: Path | None) -> Iterator[Path]:
    for page in (report, report.with_name("report.json")) if report else ():
        if page.is_file():
            yield page


def open_snapshot(directory: Path) -> Snapshot | None:
    """The snapshot in a folder, or None if there is no whole one."""
    with contextlib.suppress(DamagedError, InputError):
        body = _read(directory, BODY)
        # The file of another snapshot would pass its own checksum, but describe another result.
        if _has_artefacts(body) and snapshot_id(body["artefacts"]) == body.get("id") == directory.name:
            return Snapshot(directory, body)
    return None


def _has_artefacts(body: Mapping[str, Any]) -> bool:
    """Whether every stage has a kind, which names a folder in the workdir, and a fingerprint."""
    found, made = body.get("artefacts"), body.get("made")
    if not all(isinstance(body.get(key), str) for key in ("run_id", "config_digest", "vectors_sha256")):
        return False
    rows = list(found.values()) if isinstance(found, dict) and "train" in found else [()]
    return (
        isinstance(made, int | float)
        and 0 <= made <= YEAR_9999
        and all(isinstance(row, list) and len(row) == 2 and is_confined(row[0]) and is_fingerprint(row[1]) for row in rows)
    )


def is_fingerprint(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def snapshot_damage(directory: Path) -> tuple[int, list[str]]:
    """(files checked, problems found) for a snapshot's own files."""
    damage = []
    for name in (BODY, SUMMARY, CORPUS):
        try:
            _read(directory, name)
        except (StorageError, InputError) as error:
            damage.append(str(error).partition(";")[0])
    if not damage and (found := open_snapshot(directory)) is None:
        damage.append(f"{directory / BODY}: it belongs to another snapshot")
    elif not damage and found and not is_whole_summary(_read(directory, SUMMARY)):
        damage.append(f"{directory / SUMMARY}: damaged (a value of a complete run is missing or wrong)")
    elif not damage and found and not _belongs(found.summary(), found.body):
        damage.append(f"{directory / SUMMARY}: it belongs to another snapshot")
    checked, pages = seal_damage(directory / REPORT)
    if pages and not damage:
        # If pages without a seal were accepted, anybody could change pages by removing their seal.
        pages[-1] += f"; to have the pages of this snapshot made again, remove {directory} and run again: the vectors stay"
    return 3 + checked, damage + pages


def _belongs(summary: Mapping[str, Any], body: Mapping[str, Any]) -> bool:
    vectors = summary.get("vectors")
    same = all(summary.get(key) == body.get(key) for key in ("run_id", "config_digest"))
    return same and isinstance(vectors, dict) and vectors.get("sha256") == body.get("vectors_sha256")


def snapshots(workdir: Path) -> list[Snapshot]:
    """All whole snapshots, oldest first."""
    found = (open_snapshot(path.parent) for path in (workdir / SNAPSHOTS).glob(f"*/{BODY}"))
    return sorted((snapshot for snapshot in found if snapshot), key=lambda snapshot: (snapshot.made, snapshot.id))


def remove_unfinished(workdir: Path) -> None:
    """Removes snapshots that a killed process had begun. For the holder of the workdir's lock, before it starts work."""
    for path in (workdir / SNAPSHOTS).glob(f"{UNFINISHED}*"):
        shutil.rmtree(path, ignore_errors=True)


def unsealed_summary(text: bytes) -> dict[str, Any]:
    """The summary in a file, with all keys that readers rely on; raises ValueError for anything else. Its checksum detects
    damage, not forgery, so the keys are checked too."""
    summary = store.unsealed(text)
    stages, settings = summary.get("stages"), summary.get("config")
    rows = list(stages.values()) if isinstance(stages, dict) else [None]
    digests = [row.get("fingerprint") if isinstance(row, dict) else None for row in rows]
    whole = all(isinstance(summary.get(key), str) for key in ("status", "run_id", "config_digest"))
    whole = whole and isinstance(settings, dict) and all(isinstance(section, dict) for section in settings.values())
    if not whole or not all(map(is_fingerprint, digests)):
        raise ValueError("it lacks keys of a summary")
    return summary


def read_summary(workdir: Path) -> dict[str, Any] | None:
    """The summary of the last complete run, None if there is none; raises StorageError if it is not what was written."""
    try:
        return unsealed_summary(read_inside(workdir, SUMMARY))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and (problem := unread(error, workdir / SUMMARY)):
            raise problem from None
        reason = error.strerror if isinstance(error, OSError) else error
        raise StorageError(f"{workdir / SUMMARY}: damaged ({reason}); the same `w2v run` makes it again") from None


def _read(directory: Path, name: str) -> dict[str, Any]:
    """The content of a snapshot's file; raises InputError if it is missing, DamagedError if it is not what was written."""
    path = directory / name
    try:
        text = read_inside(directory, name)
        return unsealed_summary(text) if name == SUMMARY else store.unsealed(text)
    except FileNotFoundError:
        raise InputError(f"{path}: missing; choose another snapshot, or run again") from None
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and (problem := unread(error, path)):
            raise problem from None
        raise _damaged(path, error) from None


def _damaged(path: Path, why: object) -> DamagedError:
    return DamagedError(f"{path}: damaged ({why}); choose another snapshot, or run again", str(path.parent))
