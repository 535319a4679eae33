"""Which snapshots are kept when there are more than `refresh.keep`."""

from __future__ import annotations

from pathlib import Path

from pipeline.history.latest import champion_of
from pipeline.history.snapshot import snapshots
from pipeline.refresh.rollback import rollback
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
