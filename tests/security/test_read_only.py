"""A workdir that can only be read, because its file system is read-only or it is another user's, still answers; what would have
to write there says so."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.tracking.tracker import open_tracker
from tests.pipeline.changing_corpus import ChangingCorpus
from tests.security.conftest import W2V, here

SECTIONS: dict[str, dict[str, object]] = {"tracking": {"enabled": True, "uri": "http://127.0.0.1:9"}}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> ChangingCorpus:
    """A workdir with a finished run, and with events that no MLflow has got yet."""
    corpus = ChangingCorpus(tmp_path_factory.mktemp("finished"), seed=4)
    corpus.refresh()
    config = corpus.config(**SECTIONS)
    tracker = open_tracker(config.tracking, config.workdir, run_name="test", config_digest=config.digest)
    tracker.ships = False
    tracker.start({"train.epochs": 5}, {})
    tracker.writer.close()
    return corpus


@pytest.fixture
def read_only(finished: ChangingCorpus) -> Iterator[Path]:
    """Its folder, on a file system that is mounted read-only."""
    folder = finished.directory
    mounted = subprocess.run(["mount", "--bind", folder, folder], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"cannot mount a folder on itself here: {mounted.stderr.strip()}")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_read_only_workdir_answers_every_question(read_only: Path, tmp_path: Path) -> None:
    workdir = read_only / "work"
    for command in (
        ["query", "similar", workdir, "common1"], ["verify", workdir], ["history", workdir], ["compare", workdir, workdir],
        ["status", workdir], ["status", read_only / "config.yaml"], ["gc", read_only / "config.yaml"],
        ["prune", read_only / "config.yaml"], ["export", workdir, tmp_path / "exported"],
    ):  # fmt: skip
        ended = here(*command, cwd=tmp_path)
        assert ended.code == 0, (command, ended.err)
    assert "cannot be delivered from here" in here("status", workdir, cwd=tmp_path).out
    assert "Read-only file system" in here("status", workdir, cwd=tmp_path).out


def test_what_would_write_into_a_read_only_workdir_says_so(read_only: Path, tmp_path: Path) -> None:
    config = read_only / "config.yaml"
    for command in (["run", config, "--quiet"], ["refresh", config, "--quiet"], ["rollback", config], ["gc", config, "--yes"]):
        ended = here(*command, cwd=tmp_path)
        assert (ended.code, "cannot write here (Read-only file system)" in ended.err) == (77, True), (command, ended.err)
    ended = here("sync", read_only / "work", cwd=tmp_path)
    assert (ended.code, "cannot be delivered from here" in ended.out) == (75, True)


def test_a_workdir_that_this_user_may_not_read_is_not_called_empty(
    stranger: int, finished: ChangingCorpus, tmp_path: Path
) -> None:
    workdir = finished.directory / "work"
    mode = workdir.stat().st_mode
    os.chown(workdir, stranger, -1)
    workdir.chmod(0o700)
    # Root without what lets it read everything: a user whom nobody let in, but who finds this Python.
    another_user = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
    try:
        for command in ("status", "verify", "history"):
            done = subprocess.run(
                [*another_user, W2V, command, workdir], capture_output=True, text=True, check=False, cwd=tmp_path
            )
            assert (done.returncode, "this user may not read what is in it" in done.stderr) == (77, True), done.stderr
    finally:
        os.chown(workdir, os.geteuid(), -1)
        workdir.chmod(mode)
