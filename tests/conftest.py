"""Fixtures that more than one folder of tests needs."""

from __future__ import annotations

import os
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sampling import ALL, SEED, TURNS, their_turn

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


def pytest_report_header() -> str:
    """What this run takes of the sweeps, and how to take the same again."""
    turns = ", and so are the tests that take turns" if TURNS else ""
    return "all cases of every sweep" if ALL else f"sweeps are sampled with W2V_SEED={SEED}{turns}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With W2V_TURNS=1: leaves out the tests whose turn it is not."""
    groups: dict[str, dict[pytest.Item, int]] = defaultdict(dict)
    for item in items if TURNS else []:
        if mark := item.get_closest_marker("turns"):
            groups[mark.kwargs.get("of", str(item.path))][item] = mark.args[0]
    rest: set[pytest.Item] = set()
    for tests in groups.values():
        rest |= {item for item, its_turn in zip(tests, their_turn(list(tests.values())), strict=True) if not its_turn}
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
