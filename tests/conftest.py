"""Fixtures that more than one folder of tests needs."""

from __future__ import annotations

import os
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sampling import ALL, SEED, TURNS, Turn, day_of, first_days

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# As in the clusters that the pipeline starts. On Python 3.11.7 a garbage collection inside `sys._current_frames`, which Dask's
# profiler calls every 10 ms, can stop a process for ever (python/cpython#106883), and no time limit of pytest ends that.
os.environ.setdefault("DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED", "False")
PLAN = pytest.StashKey[list[tuple[Turn, int]]]()
"""The turns of the tests that were collected, each with its first day."""


def pytest_report_header() -> str:
    """What this run takes of the sweeps, and how to take the same again."""
    turns = ", and so are the tests that take turns" if TURNS else ""
    return "all cases of every sweep" if ALL else f"sweeps are sampled with W2V_SEED={SEED}{turns}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With W2V_TURNS=1: leaves out the tests whose turn it is not."""
    turns: dict[str, Turn] = {}
    units: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if mark := item.get_closest_marker("turns"):
            unit = mark.kwargs.get("together", item.nodeid)
            turns[unit] = Turn(*mark.args, of=mark.kwargs.get("of", item.nodeid.partition("::")[0]))
            units[unit].append(item)
    plan = config.stash[PLAN] = list(zip(turns.values(), first_days(list(turns.values())), strict=True))
    rest: set[pytest.Item] = set()
    for tests, (turn, first) in zip(units.values(), plan, strict=True):
        rest |= set(tests) if TURNS and day_of(SEED) % turn.days != first else set()
    config.hook.pytest_deselected(items=[item for item in items if item in rest])
    items[:] = [item for item in items if item not in rest]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB, so that "disk full" is the real thing; skipped where it cannot be mounted."""
    directory = tmp_path / "small-disk"
    directory.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(directory)], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small tmpfs here: {mounted.stderr.strip()}")
    yield directory
    subprocess.run(["umount", str(directory)], check=True)
