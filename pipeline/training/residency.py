"""Where parameters are while they are trained: in place on a CPU; on a GPU in its memory, copied once per round.

Copying both matrices to the GPU with every step would move gigabytes for a few megabytes of work. So a round's parameters are
copied to the device before its first step and back after its last. A merge in between copies:

    all copies in this process     nothing: the merge runs on the device
    copies in other processes,     the merged rows, to the host before it and back after it; the others see them in host memory
    or changes in eight bits
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from pipeline.training.lane_group import LaneGroup, begin_merge, end_merge, merge, show, take_over
from w2v_core.kernels import Kernels, Merge, Workroom

Pair = tuple[Any, Any]
"""Both matrices, as arrays of NumPy or of the kernels' device."""


class Residency:
    """The parameters of one worker's copies during one round: train `copies`, merge by `merge`, and `bring_home` at the end."""

    def __init__(self, kernels: Kernels, group: LaneGroup) -> None:
        self._kernels, self._group = kernels, group
        row = group.base[0][:1]
        self._is_apart = kernels.to_device(row) is not row
        self._is_alone = len(group.places) == 1 and (group.bits == 32 or len(group.copies) == 1)
        # If other processes merge too, or changes are rounded to eight bits, the base stays in the host's memory.
        self._base: Pair = self._on_device(group.base) if self._is_alone else group.base
        self.copies: dict[int, Pair] = {
            copy: self._base if pair is group.base else self._on_device(pair) for copy, pair in group.trained.items()
        }
        self.rooms = {copy: Workroom() for copy in self.copies}
        """What the kernels keep for the lanes of each copy."""
        self.room = Workroom()
        """What they keep for copies that are trained and merged together."""
        self._under_way = 0
        """Rows of the merge that is under way."""

    def close(self) -> None:
        for room in (self.room, *self.rooms.values()):
            room.close()

    @property
    def merges_in_place(self) -> bool:
        """Whether nothing but this process merges the copies, in the memory in which they are trained."""
        return self._is_alone and not self._is_apart

    def _on_device(self, pair: Pair) -> Pair:
        return self._kernels.to_device(pair[0]), self._kernels.to_device(pair[1])

    def merge(self, rows: int, method: Merge, *, waits: bool = True) -> None:
        """Folds all copies' changes of rows 0 … rows−1 into every copy, see `lane_group.merge`. Unless it `waits`, the next merge
        or `end_merge` does, and the copies can be trained meanwhile."""
        group, kernels = self._group, self._kernels
        if self._is_apart and self._is_alone:
            for matrix in (0, 1):
                kernels.merge_rows(self._base[matrix][:rows], [pair[matrix][:rows] for pair in self.copies.values()], method)
            return
        if not group.trains_meanwhile:
            with self._on_host(rows):
                merge(group, kernels, rows, method)
            return
        with self._on_host(max(rows, self._under_way)):
            self._end_merge()
            show(group, rows)
            begin_merge(group, kernels, rows, method)
            self._under_way = rows
            if waits:
                end_merge(group)
                take_over(group, rows, wholly=True)
                self._under_way = 0

    def end_merge(self) -> None:
        """Ends the merge that is under way, if there is one."""
        if self._under_way:
            with self._on_host(self._under_way):
                self._end_merge()

    def _end_merge(self) -> None:
        if self._under_way:
            end_merge(self._group)
            take_over(self._group, self._under_way, wholly=False)
            self._under_way = 0

    def bring_home(self, *, all_merged: bool) -> None:
        """Copies the trained parameters to the group's memory. `all_merged`: the round ended with a merge of all rows, after
        which they are equal in all copies."""
        group = self._group
        if not self._is_apart:
            return
        if not self._is_alone:
            # The rows of the last merge are there already.
            if not all_merged:
                self._copy_to_host(len(group.base[0]))
            return
        for matrix in (0, 1):
            group.base[matrix][:] = self._kernels.to_host(self._base[matrix])
            for copy in group.trained.values():
                if copy is not group.base:
                    copy[matrix][:] = group.base[matrix]

    @contextlib.contextmanager
    def _on_host(self, rows: int) -> Iterator[None]:
        """Rows 0 … rows−1 in the host's memory, from where they go back to the device."""
        if self._is_apart:
            self._copy_to_host(rows)
        yield
        if self._is_apart:
            for copy, pair in self.copies.items():
                for matrix in (0, 1):
                    pair[matrix][:rows] = self._kernels.to_device(self._group.trained[copy][matrix][:rows])

    def _copy_to_host(self, rows: int) -> None:
        for copy, pair in self.copies.items():
            for matrix in (0, 1):
                self._group.trained[copy][matrix][:rows] = self._kernels.to_host(pair[matrix][:rows])
