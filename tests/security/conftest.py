"""Shared by the tests in this folder: two users, and a run of the victim."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from pipeline.commands.listed import commands
from pipeline.errors import PipelineError
from tests.tiny import tiny_config, write_corpus

W2V = Path(sys.executable).with_name("w2v")


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


def w2v(*arguments: object, cwd: Path, seconds: float = 200, **environment: str) -> Ended:
    """How the installed command ended; the test fails if it takes longer than `seconds`."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [W2V, *map(str, arguments)], cwd=cwd, env=kept | environment, capture_output=True, timeout=seconds, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return Ended(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


def here(*arguments: object, cwd: Path) -> Ended:
    """How a command ends in this process, which has imported everything that it needs: a tenth of the processor time. An error is
    told and numbered as the installed command does it, which tests/pipeline/test_cli.py runs."""
    with contextlib.chdir(cwd):
        done = CliRunner().invoke(commands, [*map(str, arguments)], standalone_mode=False)
    if isinstance(done.exception, PipelineError):
        return Ended(done.exception.exit_code, done.stdout, f"{done.stderr}w2v: {done.exception}\n")
    assert done.exception is None, done.exception
    return Ended(done.return_value if isinstance(done.return_value, int) else 0, done.stdout, done.stderr)


def as_stranger(*command: object) -> list[str]:
    """The command line that runs a command as the user nobody."""
    nobody = pwd.getpwnam("nobody")
    return ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups", *map(str, command)]


def let_others_enter(folder: Path) -> None:
    """Opens the path to a folder of pytest, which otherwise only its owner may enter."""
    for step in (folder, *folder.parents):
        if step.stat().st_uid == os.geteuid() and step.stat().st_mode & 0o055 != 0o055:
            step.chmod(step.stat().st_mode | 0o055)


@pytest.fixture(scope="session")
def stranger() -> int:
    """The uid of another user of this machine; skips the test if this user cannot become another."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("a second user takes root and setpriv")
    return pwd.getpwnam("nobody").pw_uid


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_corpus(tmp_path_factory.mktemp("corpus"), 500)


@pytest.fixture
def config(tmp_path: Path, corpus: list[str]) -> Path:
    """A configuration with a workdir of its own, untracked, with one worker."""
    tree = tiny_config(tmp_path / "work", corpus, tracking={"enabled": False}, cluster={"n_workers": 1})
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path
