"""An epoch's stream as lanes read it: units that are loaded one by one, and any range of their rows.

    first epoch     the files of shards/, memory-mapped: `MappedShards`
    later epochs    pieces that the workers draw: `DrawnStream`

`Rows` returns rows by their position in the epoch, with the context around them, regardless of where units begin and end.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain, groupby
from pathlib import Path
from typing import Protocol

import numpy as np

from pipeline import store
from pipeline.cluster.state import WorkerState
from pipeline.errors import DamagedError
from pipeline.stream.mapped_files import HashedFiles, map_arrow
from pipeline.stream.part_files import COLUMNS, shard_parts
from pipeline.stream.sampling import DrawTask, KeptStreams, draw_pieces
from w2v_core.windows import Stream


class Source(Protocol):
    """An epoch's stream in units that are loaded one by one; plain data that is sent to the workers."""

    def rows(self) -> Sequence[int]:
        """Number of rows of every unit, in stream order."""
        ...

    def rows_of_parts(self) -> Sequence[int]:
        """Number of rows of every part of the corpus, in stream order."""
        ...

    def shares(self, units: Sequence[int]) -> list[list[int]]:
        """The units, cut into those that are best loaded by one thread, in order."""
        ...

    def load(self, units: Sequence[int], state: WorkerState) -> Iterator[list[Stream]]:
        """The rows of each unit, in one or more contiguous pieces."""
        ...


SpreadLoads = Callable[[Callable[[list[int]], list[list[Stream]]], Sequence[list[int]]], list[list[list[Stream]]]]
"""Applies a function to each of several shares, in one thread or in several (`LaneGroup.spread`)."""


def one_by_one(work: Callable[[list[int]], list[list[Stream]]], shares: Sequence[list[int]]) -> list[list[list[Stream]]]:
    return [work(share) for share in shares]


@dataclass(frozen=True)
class MappedShards:
    """The first epoch's files: a unit is a file, memory-mapped after its SHA-256 has been checked."""

    shards: store.Artefact

    @property
    def files(self) -> list[store.Part]:
        return shard_parts(self.shards)

    def rows(self) -> list[int]:
        return [file.rows for file in self.files]

    def rows_of_parts(self) -> list[int]:
        return self.rows()

    def shares(self, units: Sequence[int]) -> list[list[int]]:
        return [[unit] for unit in units]

    def load(self, units: Sequence[int], state: WorkerState) -> Iterator[list[Stream]]:
        files = self.files
        for unit in units:
            table = map_arrow(self.shards.directory, files[unit], state.of(HashedFiles))
            yield [Stream(*(store.numbers(batch.column(name)) for name in COLUMNS)) for batch in table.to_batches()]


@dataclass(frozen=True)
class DrawnStream:
    """A later epoch: a unit is a piece of a part, drawn where it is needed."""

    tasks: tuple[DrawTask, ...]
    """One per part."""
    rows_of_pieces: tuple[tuple[int, ...], ...]
    """Number of rows of every piece, by part."""
    keep: bool
    """Another epoch follows, so sentences that have been read may stay in memory."""

    def rows(self) -> list[int]:
        return [rows for pieces in self.rows_of_pieces for rows in pieces]

    def rows_of_parts(self) -> list[int]:
        return [sum(pieces) for pieces in self.rows_of_pieces]

    def shares(self, units: Sequence[int]) -> list[list[int]]:
        """The units of each part: its tokens are read once for all of them."""
        return [list(share) for _, share in groupby(units, key=lambda unit: self._place(unit)[0])]

    @cached_property
    def _firsts(self) -> list[int]:
        """The first unit of every part."""
        return [0, *accumulate(map(len, self.rows_of_pieces))]

    def _place(self, unit: int) -> tuple[int, int]:
        """(part, piece) of a unit."""
        part = bisect_right(self._firsts, unit) - 1
        return part, unit - self._firsts[part]

    def load(self, units: Sequence[int], state: WorkerState) -> Iterator[list[Stream]]:
        for index, group in groupby(map(self._place, units), key=lambda place: place[0]):
            pieces = [piece for _, piece in group]
            task = self.tasks[index]
            drawn = draw_pieces(task, pieces, state.of(KeptStreams), keep=self.keep)
            for piece, stream in zip(pieces, drawn, strict=True):
                counted = self.rows_of_pieces[index][piece]
                if len(stream) != counted:
                    raise DamagedError(
                        f"{task.part.tokens}: {counted:,} tokens of piece {piece} were kept when they were counted, now "
                        f"{len(stream):,}; the file has changed since",
                        str(Path(task.part.tokens).parent),
                    )
                yield [stream]


class Rows:
    """The rows of an epoch by their position in the epoch's stream."""

    def __init__(self, source: Source, halo: int, state: WorkerState) -> None:
        """`halo` is the number of rows of context that a range may need on either side."""
        self._source = source
        self._halo = halo
        self._state = state
        self._starts = [0, *accumulate(source.rows())]
        self._held: dict[int, list[tuple[int, Stream]]] = {}

    @property
    def units_held(self) -> list[int]:
        return sorted(self._held)

    def hold(self, ranges: Sequence[tuple[int, int]], spread: SpreadLoads = one_by_one) -> None:
        """Loads these ranges [start, stop) and releases all others. The lanes do this together; otherwise each would load a unit
        when it reaches it, while the others wait."""
        units = sorted({unit for start, stop in ranges for unit in self._units(start - self._halo, stop + self._halo)})
        self._held = {unit: self._held[unit] for unit in units if unit in self._held}
        self._load(units, spread)

    def _units(self, low: int, high: int) -> range:
        """The units with rows in [low, high)."""
        return range(bisect_right(self._starts, max(0, low)) - 1, bisect_left(self._starts, high, hi=len(self._starts) - 1))

    def between(self, start: int, stop: int) -> tuple[Stream, int, int]:
        """(stream, first, last): rows [start, stop) as rows [first, last) of a stream that has up to `halo` more rows on
        either side. Nothing is copied unless the range spans several contiguous pieces."""
        low, high = max(0, start - self._halo), min(self._starts[-1], stop + self._halo)
        pieces = list(self._pieces(low, high))
        if len(pieces) == 1:
            stream = pieces[0]
        else:
            columns = zip(*((piece.tokens_N, piece.left_N, piece.right_N) for piece in pieces), strict=True)
            stream = Stream(*(np.concatenate(column) for column in columns))
        return stream, start - low, min(stop, high) - low

    def _pieces(self, low: int, high: int) -> Iterator[Stream]:
        units = self._units(low, high)
        self._load(units)
        for unit in units:
            for begin, piece in self._held[unit]:
                first, last = max(low, begin), min(high, begin + len(piece))
                if first < last:
                    inside = slice(first - begin, last - begin)
                    yield Stream(piece.tokens_N[inside], piece.left_N[inside], piece.right_N[inside])

    def _load(self, units: Sequence[int], spread: SpreadLoads = one_by_one) -> None:
        missing = [unit for unit in units if unit not in self._held]
        if not missing:
            return
        shares = self._source.shares(missing)
        loaded = spread(lambda share: list(self._source.load(share, self._state)), shares)
        for unit, streams in zip(missing, chain.from_iterable(loaded), strict=True):
            starts = accumulate(map(len, streams), initial=self._starts[unit])
            self._held[unit] = list(zip(starts, streams, strict=False))
