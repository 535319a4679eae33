"""The wall clock: set back or forward between two refreshes, or read in another time zone, it changes neither which result
answers nor what is kept, and times are shown so that they mean one moment."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pipeline.history.gc import find_outdated, kept_snapshots
from pipeline.history.latest import champion_of, decide, entries
from pipeline.history.snapshot import snapshots
from pipeline.refresh.rollback import rollback
from tests.pipeline.changing_corpus import ChangingCorpus
from tests.security.conftest import here

DAY_S = 86_400.0
TWICE = (1_792_888_200.0, 1_792_891_800.0)
"""Half past two on 25 October 2026 in Berlin, and again an hour later."""


def test_a_clock_that_is_set_back_and_forward_between_refreshes_changes_no_decision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, work, ids = ChangingCorpus(tmp_path, seed=8), tmp_path / "work", []
    real, real_ns = time.time, time.time_ns
    for days in (0, -400, 30, -1):
        shift = days * DAY_S
        monkeypatch.setattr(time, "time", lambda shift=shift: real() + shift)
        monkeypatch.setattr(time, "time_ns", lambda shift=shift: real_ns() + int(shift) * 10**9)
        told = corpus.refresh()
        assert told["status"] == "promoted"
        ids.append(told["snapshot"])
        assert (champion := champion_of(work)) is not None
        assert champion.id == ids[-1], "the last decision holds, whatever its time is"
        assert corpus.refresh()["status"] == "nothing new"
        corpus.edit_unseen()
    assert [entry["champion"] for entry in entries(work)] == ids
    assert [snapshot.id for snapshot in kept_snapshots(work, 2)] == ids[:-3:-1], "the two last decisions, not the latest times"
    assert {found.path.name for found in find_outdated(work, 2) if found.path.parent.name == "snapshots"} == set(ids[:2])
    assert len(snapshots(work)) == 4
    assert rollback(corpus.config(), None)["champion"] == ids[2]


def test_two_moments_in_the_hour_that_comes_twice_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = tmp_path / "work"
    for moment in TWICE:
        decide(work, "run", "0" * 16, {"time": moment, "snapshot": "0" * 16, "status": "promoted"})
    (work / "summary.json").write_text("{}")
    try:
        for zone, shown in (("Europe/Berlin", ["02:30 CEST", "02:30 CET"]), ("UTC", ["00:30 UTC", "01:30 UTC"])):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            lines = here("history", work, cwd=tmp_path).out.splitlines()
            assert [time_shown in line for time_shown, line in zip(shown, lines, strict=True)] == [True, True], lines
    finally:
        monkeypatch.undo()
        time.tzset()
