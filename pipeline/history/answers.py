"""What answers questions about a workdir: the last good result, its vectors, and how it differs from the configuration.

Queries import this and little else, so it needs neither stages nor settings.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import store
from pipeline.errors import DamagedError, InputError
from pipeline.history.latest import LATEST, champion_of
from pipeline.history.snapshot import SUMMARY, Snapshot, open_snapshot, unsealed_summary
from pipeline.safety import locks
from pipeline.safety.files import read_inside

if TYPE_CHECKING:
    from pipeline.config import RunConfig

VECTORS = "vectors"
"""Kind of the artefact with the vectors."""
EXPORTED = ("vectors.bin", "vectors.txt", "vectors.parquet", "model.safetensors")
"""Files of vectors that `w2v export` leaves in a folder."""
SHOWN_DIFFERENCES = 4
OF_A_REFRESH = ("epochs", "rehearse", "alpha", "min_alpha", "alpha_exponent")
"""The settings of `refresh` that take the place of those of `train` where a refresh continues from the champion."""


@dataclass(frozen=True)
class Answer:
    """The last good result: its folder, its vectors, and the summary of the run that made it."""

    directory: Path
    vectors: Path
    summary: Mapping[str, Any]
    made: float

    @property
    def run_id(self) -> str:
        return str(self.summary["run_id"])


def is_configuration(source: str | os.PathLike[str]) -> bool:
    """Whether a name that could be that of vectors, too, is a configuration's: it ends in .yaml or .yml, in any case."""
    return os.fspath(source).lower().endswith((".yaml", ".yml"))


def is_workdir(path: Path) -> bool:
    """Whether a run has ended in this folder, successfully or not. A snapshot has a summary too, but is not one."""
    return os.path.exists(path / LATEST) or (os.path.isfile(path / SUMMARY) and snapshot_vectors(path) == path)


def snapshot_vectors(path: Path) -> Path:
    """The folder `vectors` of a snapshot, such as `latest`; any other path as it is."""
    # Imports NumPy, which a configuration with an error need not wait for.
    from w2v_core.vectors.files import MATRIX

    return path / VECTORS if os.path.isfile(path / SUMMARY) and os.path.isfile(path / VECTORS / MATRIX) else path


def snapshot_summary(path: Path) -> Mapping[str, Any]:
    """The summary of the run that made a snapshot, such as `latest` or a copy of it; empty for any other path. Raises ValueError
    if it is damaged."""
    if snapshot_vectors(path) == path:
        return {}
    try:
        return unsealed_summary(read_inside(path, SUMMARY))
    except ValueError as error:
        raise ValueError(f"{path / SUMMARY}: {error}; the vectors alone are in {snapshot_vectors(path)}") from None


def why_none(path: Path) -> str:
    """Why there are no vectors at this path, with the files in it that could be given themselves."""
    if not path.is_dir():
        return "does not exist"
    files = [str(path / name) for name in EXPORTED if (path / name).is_file()]
    return "neither a finished run nor vectors in this folder" + (f", but in {' and '.join(files)}" if files else "")


def find_answer(workdir: Path) -> Answer | None:
    """The last good result of a workdir: the champion or, if no run was ever complete, the vectors of a run that was to stop at
    train or evaluate. None if there is none."""
    for snapshot in _champions(workdir):
        # A link that was redirected elsewhere does not count.
        if snapshot and snapshot.workdir.resolve() == workdir.resolve():
            with contextlib.suppress(DamagedError, InputError):
                return Answer(snapshot.directory, snapshot.vectors, snapshot.summary(), snapshot.made)
    try:
        summary = unsealed_summary(read_inside(workdir, SUMMARY))
        vectors = store.artefact_directory(workdir, VECTORS, summary["stages"]["train"]["fingerprint"])
        return Answer(workdir, vectors, summary, (workdir / SUMMARY).stat().st_mtime)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _champions(workdir: Path) -> Iterator[Snapshot | None]:
    """The champion by the link, then, if that does not answer, by the decisions."""
    yield open_snapshot(Path(os.path.realpath(workdir / LATEST)))
    yield champion_of(workdir)


def require_answer(workdir: Path) -> Answer:
    """As find_answer, but raises InputError, with the command to run, if there is none."""
    if found := find_answer(workdir):
        return found
    if holder := locks.worker_in(workdir):
        raise InputError(f"{locks.busy(workdir, holder)}, and none has finished with vectors yet; wait for it")
    raise InputError(f"{workdir}: no finished run with vectors here; run `w2v run` with this configuration first")


def intact_vectors(answer: Answer) -> store.Artefact:
    """The vectors of an answer, every byte of them checked.

    They were found by their fingerprint in the workdir, since a path in a summary could name any folder. Raises DamagedError.
    """
    found = store.load_artefact(answer.vectors)
    store.require_intact(found)
    return found


def introduce(answer: Answer, config: RunConfig | None) -> str:
    """What answers, in one line: the run, when it was made, and which of its settings differ from the configuration's."""
    return introduction(answer.run_id, answer.made, changes(answer, config) if config else ())


def introduction(run_id: str, made: float, found: Sequence[str]) -> str:
    """The same of a run made at this time, in seconds since 1970, from which these settings differ."""
    at = time.strftime("%Y-%m-%d %H:%M %Z", time.localtime(made))
    more = f" and {len(found) - SHOWN_DIFFERENCES} more" if len(found) > SHOWN_DIFFERENCES else ""
    shown = f"; differs from the configuration: {', '.join(found[:SHOWN_DIFFERENCES])}{more}" if found else ""
    return f"from {run_id} of {at}{shown}"


def changes(answer: Answer, config: RunConfig) -> list[str]:
    """`key then → now` for every setting that decides a result and has changed since the answer was made."""
    from pipeline.options.paths import moved_back
    from pipeline.safety.values import as_written  # imports YAML, which a question to a workdir does without

    then, now = as_written(answer.summary.get("config", {})), as_written(config.model_dump(mode="json", by_alias=True))
    told = answer.summary.get("refresh")
    if isinstance(told, Mapping) and told.get("start") == "warm":
        # It was trained with settings of `refresh` in the place of those of `train`, from vectors that nobody configured.
        now["train"] |= {key: now["refresh"][key] for key in OF_A_REFRESH}
        then = dict(then) | {"train": dict(then.get("train", {})) | {"start_from": now["train"]["start_from"]}}
    folder = answer.summary.get("folder")
    if isinstance(folder, str) and config.folder:
        # A project that was moved, its configuration with the files that it names, is still the same.
        now = moved_back(now, config.folder, Path(folder), then)
    return list(differences(then, now))


_DECIDE_NOTHING = ("run.name", "run.workdir", "tracking", "cluster", "storage", "refresh", "train.deterministic")


def differences(then: Mapping[str, Any], now: Mapping[str, Any], section: str = "") -> Iterator[str]:
    """`key then → now` for every setting that decides a result and differs."""
    for key in [*now, *(key for key in then if key not in now)]:
        name = f"{section}{key}"
        before, after = then.get(key), now.get(key)
        if name in _DECIDE_NOTHING or before == after or _same_places(before, after):
            continue
        if isinstance(before, dict) and isinstance(after, dict) and not section:
            yield from differences(before, after, f"{name}.")
        elif not (section == "" and (key not in then or key not in now)):
            yield f"{name} {_short(before)} → {_short(after)}"


def _same_places(before: object, after: object) -> bool:
    """Whether two lists can name the same files, seen from different folders: `texts/*.txt` and `/home/me/texts/*.txt`."""
    if not (isinstance(before, list) and isinstance(after, list) and len(before) == len(after)):
        return False
    if not all(isinstance(item, str) for item in before + after):
        return False
    pairs = [sorted(pair, key=len) for pair in zip(before, after, strict=True)]
    return all(one == other or (other.startswith("/") and other.endswith(f"/{one}")) for one, other in pairs)


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:37] + "…"
