"""On a device of its own a round's parameters move once, and merges give the bits they give in place.

The device is a stand-in: NumPy's kernels on arrays of a class of their own, which are never mixed with the host's.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.cluster.workers import InProcess
from pipeline.config import parse_config
from pipeline.exchange.attempts import Attempts
from pipeline.progress import Progress
from pipeline.run import run
from pipeline.training import lanes
from pipeline.training.lane_group import open_group
from pipeline.training.placement import Place
from pipeline.training.residency import Residency
from tests.core.cuda_on_cpu import CpuArray
from tests.tiny import tiny_config, write_corpus
from w2v_core.kernels import numpy_kernels


class Apart:
    """NumPy's kernels on a "device" that counts the bytes of parameters copied to and from it."""

    name = "apart"

    def __init__(self) -> None:
        self.sent = self.fetched = self.slices = 0

    def to_device(self, array: Any) -> Any:
        if isinstance(array, CpuArray):
            return array
        self.sent += array.nbytes * (array.dtype == np.float32 and array.ndim == 2)
        return array.copy().view(CpuArray)

    def to_host(self, array: Any) -> Any:
        if not isinstance(array, CpuArray):
            return array
        self.fetched += array.nbytes * (array.dtype == np.float32 and array.ndim == 2)
        return np.array(array, subok=False)

    def train_slice(self, w_in_VD: Any, w_out_VD: Any, *arguments: Any) -> Any:
        assert isinstance(w_in_VD, CpuArray)
        assert isinstance(w_out_VD, CpuArray)
        self.slices += 1
        return numpy_kernels.train_slice(w_in_VD.view(np.ndarray), w_out_VD.view(np.ndarray), *arguments)

    def fill_initial(self, w_in_RD: Any, *arguments: Any) -> None:
        assert not isinstance(w_in_RD, CpuArray)
        numpy_kernels.fill_initial(w_in_RD, *arguments)

    def merge_rows(self, base: Any, copies: Any, method: Any) -> None:
        assert len({isinstance(array, CpuArray) for array in (base, *copies)}) == 1, "host and device arrays are mixed"
        numpy_kernels.merge_rows(base.view(np.ndarray), [copy.view(np.ndarray) for copy in copies], method)


@pytest.mark.parametrize("lane_count", [1, 3])
def test_a_run_moves_its_parameters_once_a_round_and_gives_the_bits_of_a_run_in_place(
    lane_count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = write_corpus(tmp_path / "corpus", sentences=300)

    def digest_of(name: str) -> tuple[str, dict[str, Any]]:
        tree = tiny_config(
            tmp_path / name, inputs, tracking={"enabled": False},
            train={"backend": "numpy", "lanes": lane_count, "vector_size": 16, "hot_merge_every": 200, "merge_every": 400},
        )  # fmt: skip
        summary = run(parse_config(tree), until="train", workers=InProcess(), progress=Progress(quiet=True))
        return str(summary["vectors"]["sha256"]), summary

    in_place, _ = digest_of("in-place")
    device = Apart()
    monkeypatch.setattr(lanes, "load_kernels", lambda backend: device)
    apart, summary = digest_of("apart")
    assert apart == in_place
    rounds = len(summary["train"]["rounds"])
    assert device.slices > 3 * rounds * lane_count, "too few steps to show anything"
    pair_bytes = 2 * summary["vectors"]["shape"][0] * 16 * 4
    copies, row_bytes = 1 if lane_count == 1 else 1 + lane_count, 16 * 4
    assert device.fetched == rounds * pair_bytes
    assert device.sent == rounds * (copies * pair_bytes + row_bytes)


def test_lanes_of_other_processes_get_the_merged_rows_and_only_those_move() -> None:
    rng = np.random.default_rng(7)
    rows, floats, merged = 40, 8, 12
    places = tuple(Place(address=str(n), host="here", threads=1, first_copy=n, last_copy=n + 1) for n in range(2))
    initial = rng.standard_normal((2, rows, floats)).astype(np.float32)
    changes = rng.standard_normal((2, 2, rows, floats)).astype(np.float32)

    def take_part(participant: int) -> tuple[Any, tuple[int, int]]:
        group = open_group("residency", places, participant, (rows, floats), 20.0, Attempts())
        try:
            for matrix in (0, 1):
                group.copies[participant][matrix][:] = initial[matrix]
                if participant == 0:
                    group.base[matrix][:] = initial[matrix]
            group.barrier.wait()
            device = Apart()
            resident = Residency(device, group)
            sent, fetched = device.sent, device.fetched
            for matrix in (0, 1):
                resident.copies[participant][matrix][:] += changes[participant, matrix]
            resident.merge(merged, "adasum")
            moved = (device.sent - sent, device.fetched - fetched)
            return [device.to_host(array) for array in resident.copies[participant]], moved
        finally:
            group.close()

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(take_part, range(2)))
    for matrix in (0, 1):
        base = initial[matrix].copy()
        copies = [initial[matrix] + changes[lane, matrix] for lane in range(2)]
        numpy_kernels.merge_rows(base[:merged], [copy[:merged] for copy in copies], "adasum")
        for lane, (arrays, moved) in enumerate(found):
            np.testing.assert_array_equal(arrays[matrix], copies[lane])
            assert moved == (2 * merged * floats * 4,) * 2
