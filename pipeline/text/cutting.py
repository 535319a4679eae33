"""How a corpus is cut into parts: arithmetic on its plan, by content and never by names.

A part must not depend on text far away from it, because a refresh tokenizes only the parts that changed. So files smaller than
a block share parts much smaller than a block, in the order of their digests, and a part ends after a file whose digest says so:
adding, editing or deleting a file changes the part it is in and hardly ever another, and renaming one changes none
(content-defined chunking, as in backup programs). Larger files are cut by their content (cut_places.py) and come first, in the
order of their digests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from pipeline.safety.seals import canonical_json
from pipeline.text.pieces import CorpusPlan, Piece, SourceFile, TextPart

SHARED_PARTS_A_BLOCK = 16
"""How many times smaller than a block a part of several files is on average. An edit of one file costs its part; each part costs
its files on disk and about 5 ms of work (infra/decisions/0022-refresh.md)."""
TASKS_A_BLOCK = 4
"""Small parts are tokenized several to a task, together about a quarter of a block."""
_OPEN_COST_BYTES = 4096
"""Opening a file costs about as much time as tokenizing this many bytes; it keeps parts of tiny files even."""
_UNCOMPRESSED = ("plain", "parquet", "arrow", "python", "tar")
_COMPRESSED_WEIGHT = 4
"""How many times its stored size a compressed text is assumed to have when parts are balanced."""

Task = TypeVar("Task", bound="HasPart")


class HasPart(Protocol):
    @property
    def part(self) -> TextPart: ...


def cut_parts(plan: CorpusPlan, block_bytes: int) -> list[TextPart]:
    """The parts of a corpus, none much larger than `block_bytes` of stored text.

    A plain file larger than a block ends its parts at its cuts, a Parquet file between row groups; a compressed file is one
    part however large. All other files share parts.
    """
    large = [file for file in plan.files if _is_cut(file, block_bytes)]
    parts = [_part([piece]) for file in sorted(large, key=lambda file: file.sha256) for piece in _cut(file, block_bytes)]
    return [*parts, *_share_parts((file for file in plan.files if not _is_cut(file, block_bytes)), block_bytes)]


def _is_cut(file: SourceFile, block_bytes: int) -> bool:
    return len(file.cuts) > 1 or sum(file.row_groups) > block_bytes


def _share_parts(files: Iterable[SourceFile], block_bytes: int) -> Iterator[TextPart]:
    """Parts of whole files: none larger than twice the average unless a single file is, and only the last smaller than half."""
    average = max(1, block_bytes // SHARED_PARTS_A_BLOCK)
    shared: list[Piece] = []
    weight = 0
    for file in sorted(files, key=lambda file: file.sha256):
        cost = _cost(file)
        if shared and weight + cost > 2 * average + _OPEN_COST_BYTES:
            yield _part(shared)
            shared, weight = [], 0
        shared.append(Piece(file, 0, len(file.row_groups) if file.kind == "parquet" else file.size))
        weight += cost
        if weight >= average // 2 and _ends_here(file, cost, average):
            yield _part(shared)
            shared, weight = [], 0
    if shared:
        yield _part(shared)


def _cost(file: SourceFile) -> int:
    return file.size * (1 if file.kind in _UNCOMPRESSED else _COMPRESSED_WEIGHT) + _OPEN_COST_BYTES


def _ends_here(file: SourceFile, cost: int, average: int) -> bool:
    """Whether the file's digest ends the part here: on average once per half an average part. The beginning of the digest orders
    the files, so its end decides."""
    return int(file.sha256[-8:], 16) * (average // 2) < cost << 32


def _cut(file: SourceFile, block_bytes: int) -> Iterator[Piece]:
    if file.kind == "plain":
        # A task carries its own cut, not those of all others.
        starts, alone = [0, *(cut.stop for cut in file.cuts)], replace(file, cuts=())
        yield from (Piece(alone, start, cut.stop, cut) for start, cut in zip(starts, file.cuts, strict=False))
        return
    start, size = 0, 0
    for group, group_bytes in enumerate(file.row_groups):
        if group > start and size + group_bytes > block_bytes:
            yield Piece(file, start, group)
            start, size = group, 0
        size += group_bytes
    yield Piece(file, start, len(file.row_groups))


def _part(pieces: Sequence[Piece]) -> TextPart:
    content = [_content(piece) for piece in pieces]
    return TextPart(tuple(pieces), hashlib.sha256(canonical_json(["text", 2, content])).hexdigest())


def _content(piece: Piece) -> list[Any]:
    """What decides the text of a piece; for a piece of a plain file, its own bytes and whether it begins the file."""
    if piece.cut:
        return [piece.cut.sha256, "piece", piece.start == 0, piece.file.carriage_returns]
    return [piece.file.sha256, piece.file.kind, piece.start, piece.stop]


def group_tasks(tasks: Sequence[Task], block_bytes: int) -> list[tuple[Task, ...]]:
    """The tasks in order, small neighbours grouped: a Dask task costs more than a small part."""
    groups: list[tuple[Task, ...]] = []
    weight = 0
    for task in tasks:
        cost = sum(_cost(piece.file) if piece.whole else block_bytes for piece in task.part.pieces)
        if groups and weight + cost <= block_bytes // TASKS_A_BLOCK:
            groups[-1] += (task,)
            weight += cost
        else:
            groups.append((task,))
            weight = cost
    return groups
