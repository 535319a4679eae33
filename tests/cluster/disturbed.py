"""Disturbed runs of `w2v`: how they are started, disturbed and compared with an undisturbed one."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from pipeline.cluster.workers import InProcess, Workers
from pipeline.config import RunConfig, load_config, parse_config
from pipeline.history.snapshot import SUMMARY
from pipeline.progress import Progress
from pipeline.run import run
from pipeline.stages.ladder import KINDS, NAMES
from tests.tiny import tiny_config, write_corpus

UNTRACKED: dict[str, object] = {"enabled": False}
PATIENCE_S = 150
"""How long a test waits for events that must happen; what it asserts never depends on this time."""


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    code: int
    out: str
    err: str

    @property
    def summary(self) -> dict[str, Any]:
        assert self.code == 0, f"exit code {self.code}\n{self.err}"
        found: dict[str, Any] = json.loads(self.out)
        return found


class Bench:
    """A corpus, the workdir and the digest of an undisturbed run over it, and new workdirs for disturbed runs."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.inputs = write_corpus(directory / "corpus", sentences=3000)
        self.undisturbed = directory / "undisturbed"
        self.seed: int = self.config("undisturbed").run.seed
        summary = run(self.config("undisturbed"), workers=InProcess(), progress=Progress(quiet=True))
        self.digest: str = summary["vectors"]["sha256"]

    def tree(self, name: str, **sections: dict[str, object]) -> dict[str, object]:
        return tiny_config(self.directory / name, self.inputs, **({"tracking": UNTRACKED} | sections))

    def run_section(self, name: str, seed: int) -> dict[str, object]:
        """The section `run` for a workdir of this name, with another seed."""
        return {"name": "tiny", "workdir": str(self.directory / name), "seed": seed}

    def config(self, name: str, **sections: dict[str, object]) -> RunConfig:
        return parse_config(self.tree(name, **sections))

    def config_file(self, name: str, *, before: str = "tokenize", **sections: dict[str, object]) -> Path:
        """A configuration with a new workdir that already has the artefacts of the stages before `before`."""
        for kind in [KINDS[stage] for stage in NAMES[: NAMES.index(before)]]:
            shutil.copytree(self.undisturbed / kind, self.directory / name / kind)
        path = self.directory / f"{name}.yaml"
        path.write_text(yaml.safe_dump(self.tree(name, **sections)))
        return path

    def prepare(self, name: str) -> None:
        """A workdir in which everything before training is done."""
        self.config_file(name, before="train")

    def train(self, name: str, workers: Workers) -> str:
        """The digest of the vectors trained in a new workdir of this name."""
        self.prepare(name)
        return str(self.resume(name, workers)["vectors"]["sha256"])

    def resume(self, name: str, workers: Workers, **sections: dict[str, object]) -> dict[str, Any]:
        """The summary of continuing the training in that workdir."""
        return run(self.config(name, **sections), until="train", workers=workers, progress=Progress(quiet=True))

    def w2v(self, config: Path, *, command: str = "run", failpoint: str = "", **options: Any) -> subprocess.Popen[str]:
        """A `w2v` process in a session of its own."""
        arguments = [sys.executable, "-m", "pipeline.cli", command, str(config), *(["--json"] if command == "run" else [])]
        return subprocess.Popen(
            arguments, env=environment_with(failpoint), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True, **options,
        )  # fmt: skip

    def finish(self, config: Path, *, command: str = "run", failpoint: str = "") -> Ended:
        with self.w2v(config, command=command, failpoint=failpoint) as process:
            return end_of(process)

    def assert_same(self, config: Path) -> dict[str, Any]:
        """Runs the command and asserts that its vectors are those of the undisturbed run; returns its summary."""
        summary = self.finish(config).summary
        assert summary["vectors"]["sha256"] == self.digest
        return summary

    def assert_continues(self, config: Path) -> None:
        """Asserts that finishing the run gives the vectors of the undisturbed run. For tests of how a run ends: it is finished in
        this process, in a fifth of the time of the command. test_same_bits claims that the command itself continues."""
        summary = run(load_config(config), workers=InProcess(), progress=Progress(quiet=True))
        assert summary["vectors"]["sha256"] == self.digest


def files_of(workdir: Path) -> dict[str, bytes]:
    """All files that a run has left, except its summary."""
    return {str(path): path.read_bytes() for path in workdir.rglob("*") if path.is_file() and path.name != SUMMARY}


def environment_with(failpoint: str = "") -> dict[str, str]:
    """This process's environment, but with byte code kept: otherwise every worker would compile all that it imports, which
    takes longer than its work."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"W2V_FAILPOINT": failpoint, "W2V_TRACEBACK": "1", "PYTHONFAULTHANDLER": "1"}


def end_of(process: subprocess.Popen[str], patience_s: float = PATIENCE_S) -> Ended:
    """How a run ended. One that does not end is made to print where it hangs, and is killed with all its processes."""
    try:
        out, err = process.communicate(timeout=patience_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)
        err = process.communicate()[1]
        kill_session(process.pid)
        raise AssertionError(f"it did not end within {patience_s:g} s; it hangs here:\n{err}") from None
    return Ended(process.returncode, out, err)


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, f"{what}: waited {PATIENCE_S} s in vain"
        time.sleep(0.02)


def wait_for(path: Path, process: subprocess.Popen[str] | None = None) -> None:
    """Waits until the path exists; fails at once if the process that should create it has ended."""
    wait_until(lambda: path.exists() or (process is not None and process.poll() is not None), f"{path} to come")
    assert path.exists(), f"{path} never came: {process and process.communicate()[1]}"


def stopped_at(token: Path, process: subprocess.Popen[str]) -> psutil.Process:
    """The process that a failpoint with the action `stop` froze."""
    wait_for(token, process)
    wait_until(lambda: token.read_text() != "", "the process id in the token")
    found = psutil.Process(int(token.read_text()))
    wait_until(lambda: found.status() == psutil.STATUS_STOPPED, "the process to stand still")
    return found


def thaw(process: psutil.Process) -> None:
    """Lets a frozen process continue, unless its driver has ended it meanwhile."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.resume()


def workers_of(driver: subprocess.Popen[str]) -> list[psutil.Process]:
    """The worker processes of a run with a local cluster."""
    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(driver.pid).children()
        return [child for child in children if "spawn_main" in " ".join(_command(child))]
    return []


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def session_members(session: int) -> list[int]:
    """Processes of the session that are still alive (zombies are not)."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def kill_session(session: int) -> None:
    for pid in session_members(session):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def assert_no_process_is_left(session: int) -> None:
    wait_until(lambda: session_members(session) == [], f"the processes {session_members(session)} to end")
