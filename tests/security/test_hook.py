"""`refresh.on_finish`: what it prints is bounded, and nothing of the text it is handed is a command."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import pytest

from pipeline.refresh.hook import run_hook

HOSTILE = {"decision": "$(touch x); `touch x` && touch x\n\0\ud800 \x1b[31m", "notes": ["';--"]}


def test_a_command_that_prints_without_end_takes_no_memory() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    code = "import sys, itertools\nfor _ in range(4000): sys.stderr.buffer.write(b'x' * 100_000)\nsys.exit(3)"
    ended = run_hook([sys.executable, "-c", code], HOSTILE, 60)
    assert ended["exit"] == 3
    assert len(ended["problem"]) < 500
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10


def test_what_it_is_handed_is_data(tmp_path: Path) -> None:
    code = "import json, sys; told = json.load(sys.stdin); sys.exit(told['decision'])"
    ended = run_hook([sys.executable, "-c", code], HOSTILE, 60)
    assert "touch x" in ended["problem"]
    assert "\x1b" not in ended["problem"]
    assert not Path("x").exists()
    assert not (tmp_path / "x").exists()


def test_one_that_goes_on_behind_its_own_end_is_not_waited_for() -> None:
    ended = run_hook(["sh", "-c", "sleep 30 & echo said >&2; exit 4"], HOSTILE, 20)
    assert ended == {"exit": 4, "problem": "sh: exit code 4: said"}


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "", "/dev/null", "no such command", "\x1b[31m"])
def test_what_cannot_be_run_is_said(name: str) -> None:
    ended = run_hook([name], HOSTILE, 5)
    assert ended["exit"] is None
    assert "cannot be run" in ended["problem"]
    assert "\x1b" not in ended["problem"]
