"""Shared parameters use huge pages where Linux grants them, and are the same memory for everyone in either case."""

from __future__ import annotations

import mmap
import os
import platform
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.exchange import huge_pages
from pipeline.exchange.attempts import Attempts
from pipeline.exchange.huge_pages import HUGE_PAGE, zeros_in_small_pages
from pipeline.exchange.shared_memory import make_shared_array, open_shared_array
from pipeline.training.lane_group import open_group
from pipeline.training.placement import Place

Pair = tuple[NDArray[np.float32], NDArray[np.float32]]
ROWS = (3 * HUGE_PAGE // 400 + 1, 100)  # a little more than three huge pages


def kilobytes_in_huge_pages(array: NDArray[np.float32]) -> int:
    return int(told_of(array, "ShmemPmdMapped")[0])


def told_of(array: NDArray[np.float32], kind: str) -> list[str]:
    """What the kernel tells of the mapping that holds the array."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, *rest = line.split()
        if "-" in first and not first.endswith(":"):
            low, high = (int(bound, 16) for bound in first.split("-"))
            inside = low <= array.ctypes.data < high
        elif inside and first == f"{kind}:":
            return rest
    raise AssertionError("no mapping holds the array")


def refuses_them(array: NDArray[np.float32]) -> bool:
    """Whether the program has asked the kernel for no huge pages there, whatever the kernel prefers."""
    return "nh" in told_of(array, "VmFlags")


def kernel_gives_them() -> bool:
    """Whether this is Linux 6.1 or newer and huge pages are not disabled."""
    if sys.platform != "linux" or tuple(map(int, platform.release().split(".")[:2])) < (6, 1):
        return False
    setting = Path("/sys/kernel/mm/transparent_hugepage/shmem_enabled")
    return setting.exists() and "[deny]" not in setting.read_text() and os.access("/dev/shm", os.W_OK)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """The same shared array, mapped twice."""
    folder = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else tmp_path
    path = folder / f"w2v-test-{os.getpid()}"
    try:
        return make_shared_array(path, ROWS), open_shared_array(path, ROWS)
    finally:
        path.unlink(missing_ok=True)


def test_a_large_shared_array_is_one_memory_of_zeros_wherever_it_is_mapped(pair: Pair) -> None:
    mine, other = pair
    assert not mine.any()
    mine[0, 0] = mine[-1, -1] = 9
    other[1, 1] = 7
    assert other[0, 0] == other[-1, -1] == 9
    assert mine[1, 1] == 7


@pytest.mark.skipif(not kernel_gives_them(), reason="this kernel puts no shared memory into huge pages")
def test_a_large_shared_array_lies_in_huge_pages(pair: Pair) -> None:
    for array in pair:
        array[:] = 1
        assert array.ctypes.data % HUGE_PAGE == 0
        assert kilobytes_in_huge_pages(array) >= HUGE_PAGE // 1024


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_that_is_only_read_in_order_takes_no_huge_page() -> None:
    array = zeros_in_small_pages(*ROWS)
    assert array.shape == ROWS
    assert not array.any()
    assert refuses_them(array)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("copies", [1, 2])
def test_what_copies_are_merged_into_refuses_huge_pages_and_what_is_trained_does_not(copies: int) -> None:
    places = (Place(address="here", host="one", threads=1, first_copy=0, last_copy=copies),)
    group = open_group("pages", places, 0, ROWS, 10.0, Attempts())
    try:
        assert [refuses_them(matrix) for matrix in group.base] == [copies > 1] * 2
        assert not any(refuses_them(matrix) for pair in group.copies.values() for matrix in pair)
    finally:
        group.close()


@pytest.mark.parametrize("huge", [False, True])
def test_huge_pages_are_asked_for_where_they_are_wanted_and_only_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, huge: bool
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(huge_pages, "can_be_huge", lambda size: True)
    monkeypatch.setattr(huge_pages, "map_shared", lambda descriptor, size: memoryview(mmap.mmap(descriptor, size)))
    monkeypatch.setattr(huge_pages, "collapse", lambda memory: asked.append(len(memory)))
    array = make_shared_array(tmp_path / "x", ROWS, huge=huge)
    assert asked == [array.nbytes] * huge
    assert not array.any()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_unreferenced_memory_is_released(tmp_path: Path) -> None:
    array = make_shared_array(tmp_path / "x", ROWS)
    mapped = f"{tmp_path}/x"
    assert mapped in Path("/proc/self/maps").read_text()
    del array
    assert mapped not in Path("/proc/self/maps").read_text()
