"""The command that runs after every decision of a refresh, and what becomes of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipeline.history.latest import champion_of
from pipeline.safety.locks import held
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


def test_a_decision_that_the_hook_was_not_told_because_of_a_kill_is_told_by_the_next_refresh_and_once(tmp_path: Path) -> None:
    corpus = ChangingCorpus(tmp_path, seed=1)
    code = f"import sys; print(sys.stdin.read().strip(), file=open({str(tmp_path / 'said')!r}, 'a'))"
    hook = {"refresh": {"on_finish": [sys.executable, "-c", code]}}
    corpus.config(**hook)
    killed = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "refresh", str(tmp_path / "config.yaml"), "--quiet"],
        env=os.environ | {"W2V_FAILPOINT": f"hook:begins=kill,{tmp_path / 'token'}"}, capture_output=True, timeout=200,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    champion = champion_of(tmp_path / "work")
    assert champion is not None
    again = corpus.refresh(**hook)
    assert (again["status"], again["on_finish"]) == ("nothing new", {"exit": 0})
    (said,) = map(json.loads, (tmp_path / "said").read_text().splitlines())
    assert (said["status"], said["snapshot"], said["number"]) == ("promoted", champion.id, 1)
    assert "on_finish" not in corpus.refresh(**hook)
    assert len((tmp_path / "said").read_text().splitlines()) == 1


def test_a_refresh_with_nothing_new_does_not_repeat_a_hook_that_is_still_running(tmp_path: Path) -> None:
    corpus = ChangingCorpus(tmp_path, seed=1)
    os.mkfifo(tmp_path / "go")
    hook = {"refresh": {"on_finish": ["sh", "-c", f"echo told >>{tmp_path / 'said'}; cat {tmp_path / 'go'}"]}}
    first = threading.Thread(target=lambda: corpus.refresh(**hook))
    first.start()
    while not (tmp_path / "said").exists() and first.is_alive():
        first.join(0.05)
    told = corpus.refresh(**hook)
    (tmp_path / "go").write_text("")
    first.join()
    assert (told["status"], "on_finish" in told) == ("nothing new", False)
    assert (tmp_path / "said").read_text() == "told\n"
    assert not (tmp_path / "work" / "on_finish.json").exists()
    with held(tmp_path / "work" / ".on-finish-lock"):
        assert corpus.refresh(**hook)["status"] == "nothing new", "nor is it waited for"
