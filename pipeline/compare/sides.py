"""The sides of a comparison: finished runs, snapshots, folders and files of vectors, each with what is known of it."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import load_config
from pipeline.errors import InputError, PipelineError, UsageError, counted
from pipeline.formats.trained import load_vectors
from pipeline.history.answers import (
    find_answer,
    intact_vectors,
    is_configuration,
    is_workdir,
    snapshot_summary,
    snapshot_vectors,
    why_none,
)
from pipeline.history.arrival import look
from pipeline.history.snapshot import open_snapshot
from pipeline.safety.seals import canonical_json
from w2v_core.vectors import WordVectors


@dataclass(frozen=True)
class Side:
    """One side of a comparison."""

    name: str
    """Unique among the sides."""
    source: str
    vectors: WordVectors
    summary: Mapping[str, Any]
    """Summary of the run that made them; empty for vectors from elsewhere."""
    text: str | None = None
    """The content of the corpus they were made from, whatever its files are called; None if it is not known."""


def open_sides(sources: Sequence[str]) -> list[Side]:
    """The sides in the order given. Raises UsageError for fewer than two, InputError for a source without vectors,
    DamagedError for a run whose vectors are damaged."""
    if len(sources) < 2:
        raise UsageError(f"compare: expected two or more of CONFIG, workdir, folder or file of vectors, found {len(sources)}")
    found = [_open(source) for source in sources]
    return [Side(name, *side) for name, side in zip(_names(found), found, strict=True)]


def _open(source: str) -> tuple[str, WordVectors, Mapping[str, Any], str | None]:
    path = Path(source)
    workdir = look(load_config(path)).workdir if is_configuration(path) else path
    try:
        if answer := find_answer(workdir) if is_workdir(workdir) else None:
            return source, load_vectors(intact_vectors(answer)), answer.summary, _text_of(answer.directory)
        if workdir != path:
            raise InputError(f"{source}: no finished run in {workdir}; run: w2v run {source}")
        place = snapshot_vectors(path)
        vectors = WordVectors.load(source if place == path else place, verify=path.is_dir())
        return source, vectors, snapshot_summary(path), _text_of(path)
    except FileNotFoundError as error:
        if error.errno is None:  # of an address, with a message of its own
            raise InputError(str(error)) from None
        raise InputError(f"{source}: {why_none(path)}; give a CONFIG, a workdir or vectors") from None
    except (ValueError, OSError) as error:
        raise InputError(f"{source}: cannot be read as vectors ({error})") from None


def _text_of(directory: Path) -> str | None:
    """How much text a snapshot was made from, and its digest; None for another folder, or if it cannot be read."""
    with contextlib.suppress(PipelineError):
        if snapshot := open_snapshot(directory.resolve()):
            files = [(size, digest) for _, size, digest in snapshot.corpus()]
            digest = hashlib.sha256(canonical_json(files)).hexdigest()[:12]
            return f"{counted(len(files), 'files|file')}, {sum(size for size, _ in files):,} bytes, {digest}"
    return None


def _names(found: Sequence[tuple[str, WordVectors, Mapping[str, Any], str | None]]) -> Iterator[str]:
    """The name of each run or file; the whole source, numbered if needed, where names are equal."""
    short = [str(summary.get("config", {}).get("run", {}).get("name") or Path(source).name) for source, _, summary, _ in found]
    for place, (source, *_) in enumerate(found):
        if short.count(short[place]) == 1:
            yield short[place]
        elif [other for other, *_ in found].count(source) == 1:
            yield source
        else:
            yield f"{source} ({place + 1})"
