"""The command that runs after every decision of a refresh, and what becomes of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from pipeline.history.latest import champion_of
from tests.pipeline.changing_corpus import ChangingCorpus


def hooked(tmp_path: Path, code: str, timeout_s: float = 60) -> dict[str, object]:
    corpus = ChangingCorpus(tmp_path, seed=1)
    hook = {"on_finish": [sys.executable, "-c", code], "on_finish_timeout_s": timeout_s}
    return corpus.refresh(refresh=hook)


def test_the_hook_is_handed_the_json(tmp_path: Path) -> None:
    told = hooked(tmp_path, f"import sys; open({str(tmp_path / 'said')!r}, 'w').write(sys.stdin.read())")
    assert told["on_finish"] == {"exit": 0}
    said = json.loads((tmp_path / "said").read_text())
    assert said["status"] == "promoted"
    assert said["snapshot"] == told["snapshot"]


def test_the_hook_is_run_in_the_configurations_folder_wherever_the_refresh_is_started(tmp_path: Path) -> None:
    told = hooked(tmp_path, "open('here', 'x')")
    assert (told["on_finish"], (tmp_path / "here").exists()) == ({"exit": 0}, True)


@pytest.mark.parametrize(
    ("code", "problem"),
    [("import sys; sys.exit('no disk')", "exit code 1: no disk"), ("import time; time.sleep(60)", "took longer than")],
)
def test_a_hook_that_fails_or_hangs_is_reported_and_changes_nothing(tmp_path: Path, code: str, problem: str) -> None:
    told = hooked(tmp_path, code, timeout_s=0.5 if "sleep" in code else 60)
    assert told["status"] == "promoted"
    assert problem in told["on_finish"]["problem"]  # type: ignore[index]
    assert champion_of(tmp_path / "work") is not None
