"""Which snapshots, and which tracked runs, are kept when there are more than `refresh.keep`."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from click.testing import CliRunner

from pipeline.commands.listed import commands
from pipeline.config import Tracking
from pipeline.history.latest import champion_of, decide, last_decision
from pipeline.history.snapshot import snapshots
from pipeline.refresh.rollback import rollback
from pipeline.tracking.addresses import new_target
from pipeline.tracking.arrived import find_arrived
from pipeline.tracking.spool import Delivered, Spool, open_writer
from tests.pipeline.changing_corpus import OPEN_GATES, ChangingCorpus


def test_challengers_that_are_rejected_night_after_night_take_no_place_from_the_champion_before(tmp_path: Path) -> None:
    corpus, ids = ChangingCorpus(tmp_path, seed=5), []
    for status, gates in [("promoted", {})] * 2 + [("kept", {"drift": 0.0})] * 3:
        corpus.add()
        told = corpus.refresh(refresh={"keep": 3, "epochs": 1, "gates": OPEN_GATES | gates})
        assert told["status"] == status
        ids.append(told["snapshot"])
    assert [snapshot.id for snapshot in snapshots(tmp_path / "work")] == [ids[0], ids[1], ids[4]]
    assert rollback(corpus.config(), None)["champion"] == ids[0]
    assert (champion := champion_of(tmp_path / "work")) is not None
    assert champion.id == ids[0]


def test_what_a_killed_refresh_had_not_removed_yet_the_next_one_removes(tmp_path: Path) -> None:
    corpus, work = ChangingCorpus(tmp_path, seed=5), tmp_path / "work"
    settings = {"keep": 1, "epochs": 1, "gates": OPEN_GATES}
    corpus.add()
    former = corpus.refresh(refresh=settings)["snapshot"]
    shutil.copytree(work / "snapshots" / former, tmp_path / "left", symlinks=True)
    shutil.copy(work / "summary.json", tmp_path / "summary.json")
    corpus.add()
    champion = corpus.refresh(refresh=settings)["snapshot"]
    assert [snapshot.id for snapshot in snapshots(work)] == [champion]
    # As it was between the decision and what follows from it.
    shutil.copytree(tmp_path / "left", work / "snapshots" / former, symlinks=True)
    shutil.copy(tmp_path / "summary.json", work / "summary.json")
    assert corpus.refresh(refresh=settings)["status"] == "nothing new"
    assert os.listdir(work / "snapshots") == [champion]


def track(work: Path, config_digest: str, dataset: str, *, arrived: bool = True, decided: bool = False) -> Path:
    """The spool of a tracked run, as its run and its delivery leave it."""
    spool = Spool(work / "tracking" / f"{config_digest[:12]}-{dataset[:12]}")
    spool.directory.mkdir(parents=True)
    spool.write_target(new_target(Tracking(), "sqlite:////nowhere/mlflow.db", "changing", config_digest))
    writer = open_writer(spool, 0.0)
    writer.append({"type": "dataset", "time": 0, "dataset": {"name": "text", "digest": dataset[:36], "source": ""}}, 0.0)
    if decided:
        writer.append({"type": "tags", "time": 0, "tags": {"refresh.decision": "replaces another"}}, 0.0)
    writer.close()
    spool.write_run("id", "1")
    spool.write_progress(Delivered(offset=spool.size() if arrived else 0))
    return spool.directory


def test_tracked_runs_are_removed_with_their_results_once_they_have_arrived(tmp_path: Path) -> None:
    """Each refresh makes one, so that they would pile up for ever."""
    corpus, work, tracked = ChangingCorpus(tmp_path, seed=5), tmp_path / "work", list[Path]()
    for night in range(4):
        corpus.add()
        corpus.refresh(refresh={"keep": 2, "epochs": 1, "gates": OPEN_GATES})
        champion = champion_of(work)
        assert champion is not None
        tokens = champion.body["artefacts"]["tokenize"][1]
        tracked.append(track(work, champion.body["config_digest"], tokens, arrived=night != 1))
    tracked.append(track(work, "0" * 64, tokens))
    corpus.add()
    corpus.refresh(refresh={"keep": 2, "epochs": 1, "gates": OPEN_GATES})
    assert [path.is_dir() for path in tracked] == [False, True, False, True, True], "kept, or not arrived"
    (tracked[4].parent / "link").symlink_to(track(tmp_path / "elsewhere", "0" * 64, tokens))
    assert [found.path for found in find_arrived(work, 2)] == [tracked[4]]
    assert {found.path for found in find_arrived(work, 1)} == {tracked[3], tracked[4]}
    pruned = CliRunner().invoke(commands, ["prune", str(work), "--keep", "1", "--yes"])
    assert pruned.output.count("told MLflow completely, of no kept snapshot") == 2, pruned.output
    assert [path.is_dir() for path in tracked] == [False, True, False, False, False]


def test_a_tracked_refresh_that_arrived_when_its_result_was_gone_is_removed_by_the_next(tmp_path: Path) -> None:
    """As after nights on which MLflow was away."""
    corpus, work = ChangingCorpus(tmp_path, seed=5), tmp_path / "work"
    late, undecided = track(work, "0" * 64, "1" * 64, decided=True), track(work, "0" * 64, "2" * 64)
    corpus.add()
    corpus.refresh(refresh={"keep": 2, "epochs": 1, "gates": OPEN_GATES})
    assert (late.is_dir(), undecided.is_dir()) == (False, True), "what was never decided may be of a run that goes on"


def decisions_opened(call: Callable[[], object]) -> int:
    """How often a file of a decision is opened during the call."""
    opened, counting = list[object](), True

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if counting and event == "open" and re.search(r"(^|/)[0-9]{6}\.json$", str(arguments[0])):
            opened.append(arguments[0])

    sys.addaudithook(hook)  # it cannot be removed
    call()
    counting = False
    return len(opened)


def test_a_refresh_reads_every_old_decision_a_fixed_few_times(tmp_path: Path) -> None:
    """A workdir that is refreshed every hour has thousands of them after a year; each was read sixteen times a refresh."""
    corpus, work, settings = ChangingCorpus(tmp_path, seed=5), tmp_path / "work", {"epochs": 1, "gates": OPEN_GATES}
    corpus.add()
    corpus.refresh(refresh=settings)
    last = last_decision(work)
    for _ in range(60):
        decide(work, "refresh", last["champion"], {key: last[key] for key in ("snapshot", "status", "input", "start")})
    assert decisions_opened(lambda: champion_of(work)) == 1
    assert decisions_opened(lambda: corpus.refresh(refresh=settings)) < 2 * 60, "nothing new"
    corpus.add()
    assert decisions_opened(lambda: corpus.refresh(refresh=settings)) < 4 * 60
