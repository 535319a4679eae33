"""Fixtures that more than one folder of tests needs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sampling import ALL, SEED

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


def pytest_report_header() -> str:
    """What this run takes of the sweeps, and how to take the same again."""
    return "all cases of every sweep" if ALL else f"sweeps are sampled with W2V_SEED={SEED}"


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
