"""A workdir that is moved while a run works in it: the run ends instead of going on where another may begin, and continues once
it is back."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.cluster.workers import InProcess
from pipeline.errors import StorageError
from pipeline.history.latest import entries
from pipeline.history.snapshot import SNAPSHOTS
from pipeline.progress import Progress
from pipeline.run import run
from tests.pipeline.changing_corpus import ChangingCorpus


@pytest.mark.parametrize("in_its_place", [False, True])
def test_a_run_whose_workdir_is_moved_ends_and_continues_when_it_is_back(tmp_path: Path, in_its_place: bool) -> None:
    corpus = ChangingCorpus(tmp_path, seed=3)
    undisturbed = run(corpus.config("undisturbed"), workers=InProcess(), progress=Progress(quiet=True))
    config, work, elsewhere = corpus.config(), tmp_path / "work", tmp_path / "elsewhere"

    def move(_: object) -> None:
        if not elsewhere.exists():
            work.rename(elsewhere)
            if in_its_place:
                work.mkdir()
                (work / ".lock").touch(0o600)

    with pytest.raises(StorageError, match=r"work: was moved, removed or replaced while this run was working there"):
        run(config, workers=InProcess(), progress=Progress(quiet=True), on_round=[move])
    assert entries(work) == entries(elsewhere) == []
    assert not (work / SNAPSHOTS).exists()
    shutil.rmtree(work, ignore_errors=True)
    elsewhere.rename(work)
    again = run(config, workers=InProcess(), progress=Progress(quiet=True))
    assert again["vectors"]["sha256"] == undisturbed["vectors"]["sha256"]
    assert again["stages"]["tokenize"]["cached"]
