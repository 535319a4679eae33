"""A damaged decision or snapshot costs no good result: the last champion still answers, is not collected as garbage, and the
damage is said."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline import store
from pipeline.errors import InputError, StorageError
from pipeline.history.answers import find_answer
from pipeline.history.gc import find_garbage, find_outdated, remove
from pipeline.history.latest import HISTORY, champion_of, entries, mend
from pipeline.history.snapshot import BODY, CORPUS, SNAPSHOTS, SUMMARY, read_summary
from pipeline.refresh.rollback import rollback, step_back
from pipeline.session import holding
from pipeline.workdir import verify_workdir
from tests.pipeline.changing_corpus import OPEN_GATES, ChangingCorpus

FILES = 8
"""Of the first refresh."""


@pytest.fixture(scope="module")
def refreshed(tmp_path_factory: pytest.TempPathFactory) -> tuple[ChangingCorpus, list[str]]:
    """A corpus after two refreshes, and their snapshots."""
    corpus = ChangingCorpus(tmp_path_factory.mktemp("refreshed"), seed=6, files=FILES)
    found = [str(corpus.refresh()["snapshot"])]
    corpus.add()
    return corpus, [*found, str(corpus.refresh()["snapshot"])]


@pytest.fixture
def work(refreshed: tuple[ChangingCorpus, list[str]]) -> Path:
    """A fresh copy of its workdir, in its place, beside the text of that time."""
    corpus, _ = refreshed
    for file in corpus.files():
        if int(file.stem[1:]) > FILES + 1:
            file.unlink()
    kept, work = corpus.directory / "kept", corpus.directory / "work"
    if not kept.exists():
        shutil.copytree(work, kept, symlinks=True)
    shutil.rmtree(work)
    return Path(shutil.copytree(kept, work, symlinks=True))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_damaged_last_decision_takes_nothing_away(work: Path, refreshed: tuple[ChangingCorpus, list[str]]) -> None:
    corpus, ids = refreshed
    before = find_answer(work)
    flip(max((work / HISTORY).iterdir()))
    assert [entry["champion"] for entry in entries(work)] == ids[:1]
    champion = champion_of(work)
    assert champion is not None
    assert champion.id == ids[1], "the link says what the decision was"
    mend(work)
    assert find_answer(work) == before
    told = corpus.refresh()
    assert any("000002.json: damaged or missing; nothing is removed" in note for note in told["notes"]), told
    assert find_outdated(work, 1) == []


@pytest.mark.parametrize("missing", [False, True])
def test_what_a_damaged_snapshot_needs_is_not_collected(
    work: Path, refreshed: tuple[ChangingCorpus, list[str]], missing: bool
) -> None:
    corpus, ids = refreshed
    champion = champion_of(work)
    assert champion is not None
    body = work / SNAPSHOTS / ids[1] / BODY
    body.unlink() if missing else flip(body)
    with pytest.raises(StorageError, match=rf"{ids[1]}/snapshot\.json: damaged or missing, so nothing is removed"):
        find_garbage(work, 1)
    assert find_outdated(work, 1) == []
    corpus.refresh()
    assert not store.find_damage(store.load_artefact(champion.vectors))
    assert verify_workdir(work)[1] == [], "the same refresh again makes the snapshot anew"
    assert find_garbage(work, 5) == []


def test_a_rollback_in_a_moved_workdir_names_the_vectors_where_they_are(
    work: Path, refreshed: tuple[ChangingCorpus, list[str]]
) -> None:
    corpus, ids = refreshed
    moved = work.rename(work.with_name("moved"))
    shutil.copytree(corpus.directory / "kept", work, symlinks=True)  # another one is where it was
    rollback(corpus.config("moved"), ids[0])
    summary = read_summary(moved)
    assert summary is not None
    for path in (summary["vectors"]["path"], summary["report"]):
        assert Path(path).is_relative_to(moved)
        assert Path(path).exists()
    assert store.file_sha256(Path(summary["vectors"]["path"]) / "vectors.npy") == summary["vectors"]["sha256"]
    told = corpus.refresh(run={"name": "changing", "workdir": str(moved), "seed": 3})
    assert (told["status"], told["vectors"]["path"]) == ("nothing new", summary["vectors"]["path"])
    shutil.rmtree(moved)


def damage_champion(work: Path, what: str) -> None:
    champion = champion_of(work)
    assert champion is not None
    flip(champion.vectors / "vectors.npy" if what == "vectors" else champion.directory / what)


@pytest.mark.parametrize(("what", "new_text"), [("vectors", False), ("vectors", True), (SUMMARY, False), (CORPUS, True)])
def test_a_damaged_champion_gives_place_to_the_one_before_it_from_which_its_successor_is_made(
    work: Path, refreshed: tuple[ChangingCorpus, list[str]], what: str, new_text: bool
) -> None:
    corpus, ids = refreshed
    damage_champion(work, what)
    if new_text:
        corpus.add()
    told = corpus.refresh()
    assert (told["status"], told["start"], told["parent"]) == ("promoted", "warm", ids[0])
    assert told["decision"] == f"replaces {ids[0]}: every gate held"
    assert (told["champion"] == ids[1]) != new_text, "what was damaged is made again, of the same bits"
    assert any(f"the champion {ids[1]} is damaged" in note and f"{ids[0]}, the one before it" in note for note in told["notes"])
    back = entries(work)[2]
    assert (back["kind"], back["champion"], back["before"]) == ("rollback", ids[0], ids[1])
    answer = find_answer(work)
    assert answer is not None
    assert not store.find_damage(store.load_artefact(answer.vectors))
    assert corpus.refresh()["status"] == "nothing new"
    assert verify_workdir(work)[1] == [] or new_text


def test_gates_hold_for_what_follows_a_damaged_champion_and_the_one_before_it_answers(
    work: Path, refreshed: tuple[ChangingCorpus, list[str]]
) -> None:
    corpus, ids = refreshed
    damage_champion(work, "vectors")
    gates = {"epochs": 1, "gates": OPEN_GATES | {"drift": 0.0}}
    told = corpus.refresh(refresh=gates)
    assert (told["status"], told["champion"]) == ("kept", ids[0])
    answer, summary = find_answer(work), read_summary(work)
    assert answer is not None
    assert summary is not None
    assert Path(summary["vectors"]["path"]) == answer.vectors
    assert not store.find_damage(store.load_artefact(answer.vectors))
    assert corpus.refresh(refresh=gates)["status"] == "nothing new"


def test_a_refresh_that_was_killed_after_it_went_back_from_a_damaged_champion_goes_on(
    work: Path, refreshed: tuple[ChangingCorpus, list[str]]
) -> None:
    corpus, ids = refreshed
    damage_champion(work, "vectors")
    config, champion = corpus.config(), champion_of(work)
    assert champion is not None
    with holding(config):
        step_back(config, champion, "killed now")
    assert corpus.refresh()["champion"] == ids[1]


def test_a_damaged_champion_with_none_before_it_keeps_nobody_out(work: Path, refreshed: tuple[ChangingCorpus, list[str]]) -> None:
    corpus, ids = refreshed
    rollback(corpus.config(), ids[0])
    damage_champion(work, "vectors")
    told = corpus.refresh(refresh={"gates": {}})
    assert (told["status"], told["start"]) == ("promoted", "cold")
    assert told["decision"] == f"replaces {ids[0]}, which is damaged and cannot be compared with"
    assert any(f"the champion {ids[0]} is damaged" in note and "none before it is intact" in note for note in told["notes"])
    assert corpus.refresh(refresh={"gates": {}})["status"] == "nothing new"


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("name", [SUMMARY, CORPUS])
def test_a_champion_whose_own_files_are_damaged_keeps_no_successor_out_and_is_made_anew(
    work: Path, refreshed: tuple[ChangingCorpus, list[str]], name: str, missing: bool
) -> None:
    corpus, ids = refreshed
    rollback(corpus.config("work"), ids[0])
    path = work / SNAPSHOTS / ids[0] / name
    path.unlink() if missing else flip(path)
    later = [file for file in corpus.files() if int(file.stem[1:]) > FILES]
    for file in later:
        file.rename(corpus.directory / file.name)
    told = corpus.refresh(refresh={"gates": {}})
    for file in later:
        (corpus.directory / file.name).rename(file)
    assert (told["status"], told["champion"], told["start"]) == ("promoted", ids[0], "cold"), "the text of the first refresh"
    assert any(f"{name}: " in note for note in told["notes"])
    assert verify_workdir(work)[1] == []


@pytest.mark.parametrize("name", [SUMMARY, CORPUS])
def test_a_rollback_to_a_snapshot_with_a_damaged_file_of_its_own_changes_nothing(
    work: Path, refreshed: tuple[ChangingCorpus, list[str]], name: str
) -> None:
    corpus, ids = refreshed
    flip(work / SNAPSHOTS / ids[0] / name)
    before = find_answer(work), entries(work)
    with pytest.raises(StorageError, match=rf"{ids[0]}/{name}: damaged .*; the champion stays, choose another snapshot"):
        rollback(corpus.config("work"), ids[0])
    assert (find_answer(work), entries(work)) == before


def test_a_rollback_to_a_decision_whose_snapshot_was_removed_says_so(
    work: Path, refreshed: tuple[ChangingCorpus, list[str]]
) -> None:
    corpus, ids = refreshed
    remove(find_garbage(work, 1))
    with pytest.raises(InputError, match=rf"snapshot {ids[0]} of decision 1 is damaged or was removed; there are: {ids[1]} "):
        rollback(corpus.config("work"), "1")
    with pytest.raises(InputError, match=r"SNAPSHOT is an empty text"):
        rollback(corpus.config("work"), "")
