"""A file system whose locks hold nobody off, as some on a network: of two runs in one workdir only the later goes on writing."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cluster.workers import InProcess
from pipeline.errors import StorageError
from pipeline.history.latest import entries
from pipeline.progress import Progress
from pipeline.run import run
from tests.pipeline.changing_corpus import ChangingCorpus

WITHOUT_LOCKS = "import fcntl; fcntl.flock = lambda *given: None; from pipeline.cli import main; main()"


def test_a_run_ends_once_another_works_in_its_workdir_and_the_other_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = ChangingCorpus(tmp_path, seed=4)
    undisturbed = run(corpus.config("undisturbed"), workers=InProcess(), progress=Progress(quiet=True))
    config, others = corpus.config(), list[subprocess.CompletedProcess[str]]()
    monkeypatch.setattr(fcntl, "flock", lambda *given: None)

    def run_another(_: object) -> None:
        if not others:
            command = [sys.executable, "-c", WITHOUT_LOCKS, "run", str(tmp_path / "config.yaml"), "--json"]
            others.append(subprocess.run(command, capture_output=True, text=True, timeout=200, check=False))

    with pytest.raises(StorageError, match=r"work: another run \(pid \d+ on .*\) works there, though this one holds its lock"):
        run(config, workers=InProcess(), progress=Progress(quiet=True), on_round=[run_another])
    (other,) = others
    assert other.returncode == 0, other.stderr
    assert json.loads(other.stdout)["vectors"]["sha256"] == undisturbed["vectors"]["sha256"]
    assert len(entries(tmp_path / "work")) == 1
