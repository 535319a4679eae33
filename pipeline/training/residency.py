"""Where parameters are while they are trained: in place on a CPU; on a GPU in its memory, copied once per round.

Copying both matrices to the GPU with every step would move gigabytes for a few megabytes of work. So a round's parameters are
copied to the device before its first step and back after its last. A merge in between copies:

    all copies in this process     nothing: the merge runs on the device
    copies in other processes,     the merged rows, to the host before it and back after it; the others see them in host memory
    or changes in eight bits
"""

from __future__ import annotations

from typing import Any

from pipeline.training.lane_group import LaneGroup, merge
from w2v_core.kernels import Kernels, Merge

Pair = tuple[Any, Any]
"""Both matrices, as arrays of NumPy or of the kernels' device."""


class Residency:
    """The parameters of one worker's lanes during one round: train `lanes`, merge by `merge`, and `bring_home` at the end."""

    def __init__(self, kernels: Kernels, group: LaneGroup) -> None:
        self._kernels, self._group = kernels, group
        row = group.base[0][:1]
        self._is_apart = kernels.to_device(row) is not row
        self._is_alone = len(group.places) == 1 and (group.bits == 32 or len(group.copies) == 1)
        # If other processes merge too, or changes are rounded to eight bits, the base stays in the host's memory.
        self._base: Pair = self._on_device(group.base) if self._is_alone else group.base
        self.copies: dict[int, Pair] = {
            lane: self._base if group.copies[lane] is group.base else self._on_device(group.copies[lane]) for lane in group.own
        }

    def _on_device(self, pair: Pair) -> Pair:
        return self._kernels.to_device(pair[0]), self._kernels.to_device(pair[1])

    def merge(self, rows: int, method: Merge) -> None:
        """Folds all lanes' changes of rows 0 … rows−1 into every lane, see `lane_group.merge`."""
        group, kernels = self._group, self._kernels
        if self._is_apart and self._is_alone:
            for matrix in (0, 1):
                kernels.merge_rows(self._base[matrix][:rows], [pair[matrix][:rows] for pair in self.copies.values()], method)
            return
        if self._is_apart:
            self._copy_to_host(rows)
        merge(group, kernels, rows, method)
        if self._is_apart:
            for lane, pair in self.copies.items():
                for matrix in (0, 1):
                    pair[matrix][:rows] = kernels.to_device(group.copies[lane][matrix][:rows])

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
            for copy in group.copies.values():
                if copy is not group.base:
                    copy[matrix][:] = group.base[matrix]

    def _copy_to_host(self, rows: int) -> None:
        for lane, pair in self.copies.items():
            for matrix in (0, 1):
                self._group.copies[lane][matrix][:rows] = self._kernels.to_host(pair[matrix][:rows])
