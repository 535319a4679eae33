"""`w2v refresh`: changes are found by content, a refresh equals a rebuild, and it makes one decision whatever happens.

`make test` takes a sample of the sequences and kills, by a seed that it prints (W2V_SEED=n replays it); `make refreshes` takes
fifty sequences and every kill.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from pipeline import store
from pipeline.commands.listed import commands
from pipeline.errors import InputError, StorageError
from pipeline.history.answers import changes, find_answer
from pipeline.history.gc import find_garbage, remove
from pipeline.history.latest import champion_of, entries
from pipeline.history.snapshot import Snapshot, read_summary, snapshots
from pipeline.refresh.rollback import rollback
from pipeline.workdir import status_lines, status_of, verify_workdir
from tests.pipeline.changing_corpus import ChangingCorpus, sentence, snapshot_digests, words_of
from tests.sampling import ALL, SEED

SEQUENCES = 50 if ALL else 1
STEPS = 4
KILLS = [
    "written:known_files.json", "stage:tokenize", "commit:tokens", "committed:vocab", "stage:shards", "commit:shards",
    "start:0", "round:0.0", "write:vectors.npy", "commit:vectors", "stage:evaluate",
    "committed:report", "commit:exports", "write:index.html", "snapshot:written", "decide:refresh", "decided:refresh",
    "latest:made", "write:summary.json",
]  # fmt: skip
REFRESH = """
import json, sys
from pipeline.cluster.workers import InProcess
from pipeline.config import load_config
from pipeline.progress import Progress
from pipeline.refresh.refresh import refresh
print(json.dumps(refresh(load_config(sys.argv[1]), workers=InProcess(), progress=Progress(quiet=True))))
"""


def champion(corpus: ChangingCorpus) -> Snapshot:
    found = champion_of(corpus.directory / "work")
    assert found is not None
    return found


# ── a refresh equals a rebuild ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("number", range(SEQUENCES))
def test_after_any_sequence_of_changes_a_refresh_equals_a_clean_build(tmp_path: Path, number: int) -> None:
    print(f"W2V_SEED={SEED}")
    corpus = ChangingCorpus(tmp_path, SEED + number)
    corpus.add_large()
    corpus.refresh()
    for step in range(STEPS):
        what = corpus.happen()
        cold = step == STEPS - 1
        told = corpus.refresh(cold=cold)
        clean = corpus.clean_build(until="train" if cold else "shards")
        assert snapshot_digests(champion(corpus), tuple(clean)) == clean, f"{what}; {told['delta']}"
        markers = {word for word in words_of(champion(corpus)) if word.startswith("marker")}
        there = {word for path in corpus.files() for word in path.read_text().split() if word.startswith("marker")}
        assert markers == there, f"deleted text is in no new artefact, added text is in it; {what}"


@pytest.mark.turns(3, 2)
def test_a_warm_refresh_is_reproducible_from_its_parent_and_the_corpus(tmp_path: Path) -> None:
    results = []
    for name in ("one", "two"):
        corpus = ChangingCorpus(tmp_path / name, seed=5)
        corpus.refresh()
        corpus.add()
        told = corpus.refresh()
        assert told["start"] == "warm"
        results.append(told["vectors"]["sha256"])
    assert results[0] == results[1]


# ── what is new ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_summary_names_what_was_added_changed_renamed_and_deleted(tmp_path: Path) -> None:
    corpus = ChangingCorpus(tmp_path, seed=1)
    corpus.refresh()
    first, second, third, *_ = corpus.files()
    first.rename(first.with_name("z-renamed.txt"))
    second.write_text(second.read_text().replace("common1", "common3"))
    third.unlink()
    (corpus.folder / "new.txt").write_text("\n".join(sentence(corpus.rng) for _ in range(20)) + "\nnewword newword newword\n")
    told = corpus.refresh()
    delta = told["delta"]
    assert delta["renamed"] == {"files": 1, "names": [[str(first), str(first.with_name("z-renamed.txt"))]]}
    assert delta["changed"] == {"files": 1, "names": [str(second)]}
    assert delta["deleted"] == {"files": 1, "names": [str(third)]}
    assert delta["added"] == {"files": 1, "names": [str(corpus.folder / "new.txt")]}
    assert "newword" in told["words"]["gained"]["names"]
    assert any(word.startswith("marker") for word in told["words"]["lost"]["names"])
    assert told["corpus"]["before"]["tokens"] != told["corpus"]["now"]["tokens"]
    known = told["known_tokens"]
    assert known["before"] + known["gained"] - known["lost"] == known["now"] <= told["corpus"]["now"]["tokens"]
    assert min(known["gained"], known["lost"]) > 50
    assert told["status"] == "promoted"
    assert {gate["gate"] for gate in told["gates"]} >= {"finite", "vocabulary", "overlap"}


def test_nothing_new_takes_no_decision_and_leaves_everything_as_it_was(tmp_path: Path) -> None:
    corpus = ChangingCorpus(tmp_path, seed=1)
    corpus.refresh()
    os.utime(corpus.files()[0])
    before = champion(corpus)
    told = corpus.refresh()
    assert told["status"] == "nothing new"
    assert champion(corpus) == before
    assert len(entries(corpus.directory / "work")) == 1


def test_renamed_files_cost_nothing(tmp_path: Path) -> None:
    corpus = ChangingCorpus(tmp_path, seed=1)
    corpus.refresh()
    for number, path in enumerate(corpus.files()):
        path.rename(path.with_name(f"{99 - number}-renamed.txt"))
    told = corpus.refresh()
    assert told["status"] == "nothing new"
    assert told["delta"]["renamed"]["files"] == len(corpus.files())


@pytest.mark.turns(3, 2)
def test_a_refresh_that_is_asked_to_train_from_scratch_does_so_once(tmp_path: Path) -> None:
    corpus = ChangingCorpus(tmp_path, seed=1)
    corpus.refresh()
    corpus.add()
    assert corpus.refresh()["start"] == "warm"
    told = corpus.refresh(cold=True)
    assert told["start"] == "cold"
    assert snapshot_digests(champion(corpus), ("train",)) == {"train": corpus.clean_build(until="train")["train"]}
    assert corpus.refresh(cold=True)["status"] == "nothing new"
    assert corpus.refresh()["status"] == "nothing new"


@pytest.mark.turns(3, 2)
def test_an_edit_tokenizes_only_the_parts_around_it(tmp_path: Path) -> None:
    corpus = ChangingCorpus(tmp_path, seed=1, files=60)
    corpus.refresh()
    parts = tmp_path / "work" / "tokens" / "parts"
    before = {path.name: path.stat().st_mtime_ns for path in parts.glob("*.json")}
    corpus.append()
    corpus.refresh()
    again = [path for path in parts.glob("*.json") if before.get(path.name) != path.stat().st_mtime_ns]
    assert len(before) > 20
    assert 1 <= len(again) <= 4


def test_an_edit_of_a_large_file_tokenizes_the_part_around_it_and_a_rename_nothing(tmp_path: Path) -> None:
    corpus = ChangingCorpus(tmp_path, seed=1, files=2)
    corpus.add_large()
    corpus.refresh()
    parts = tmp_path / "work" / "tokens" / "parts"
    before = {path.name for path in parts.glob("*.json")}
    assert len(before) > 4
    corpus.edit_inside()
    corpus.refresh()
    assert 1 <= len({path.name for path in parts.glob("*.json")} - before) <= 2
    large = max(corpus.files(), key=lambda path: path.stat().st_size)
    large.rename(large.with_name("0-renamed.txt"))
    told = corpus.refresh()
    assert (told["status"], told["delta"]["renamed"]["files"]) == ("nothing new", 1)


@pytest.mark.slow
@pytest.mark.turns(10, 10, of="large")
def test_ten_thousand_unchanged_files_are_known_in_two_seconds(tmp_path: Path) -> None:
    corpus = ChangingCorpus(tmp_path, seed=1, files=2)
    for number in range(10_000):
        (corpus.folder / f"{number:05}.txt").write_text(f"tiny file number {number % 100}\n")
    old = time.time() - 60
    for path in corpus.files():
        os.utime(path, (old, old))
    time.sleep(2.1)  # digests of files that changed within the last two seconds are not believed
    corpus.refresh(corpus={"block_bytes": 1 << 20})
    started = time.process_time()  # which other tests on the same cores do not lengthen
    assert corpus.refresh(corpus={"block_bytes": 1 << 20})["status"] == "nothing new"
    assert time.process_time() - started < 2


# ── gates ────────────────────────────────────────────────────────────────────────────────────────────────────────────

GATES: dict[str, object] = {"gates": {}, "epochs": 2}


def scored(corpus: ChangingCorpus) -> dict[str, dict[str, object]]:
    """The default gates, and a set of pairs that good vectors order well."""
    pairs = corpus.directory / "pairs.tsv"
    rng = random.Random(3)
    words = [(topic, word) for topic in range(8) for word in range(6)]
    rows = [(rng.choice(words), rng.choice(words)) for _ in range(300)]
    rows += [((topic, one), (topic, two)) for topic, one in words for two in range(one)]
    lines = [f"topic{a[0]}word{a[1]}\ttopic{b[0]}word{b[1]}\t{10 if a[0] == b[0] else 0}" for a, b in rows if a != b]
    pairs.write_text("\n".join(lines) + "\n")
    return {"refresh": GATES, "evaluate": {"similarity": [str(pairs)]}, "train": {"epochs": 10, "alpha": 0.1}}


def shuffle_all_words(corpus: ChangingCorpus) -> None:
    """Every file gets its own words in random order, again and again: much text, and nothing to learn from it."""
    for path in corpus.files():
        lines = []
        for _ in range(10):
            words = path.read_text().split()
            corpus.rng.shuffle(words)
            lines += [" ".join(words[at : at + 10]) for at in range(0, len(words), 10)]
        path.write_text("\n".join(lines) + "\n")


@pytest.mark.turns(4, 4, of="gates")
def test_a_challenger_trained_on_noise_is_kept_out_and_the_gate_that_did_it_is_named(tmp_path: Path) -> None:
    corpus = ChangingCorpus(tmp_path, seed=1, sentences=200)
    sections = scored(corpus)
    corpus.refresh(**sections)
    before, answer = champion(corpus), find_answer(tmp_path / "work")
    shuffle_all_words(corpus)
    told = corpus.refresh(cold=True, **sections)
    assert told["status"] == "kept"
    stopped = [gate["gate"] for gate in told["gates"] if not gate["held"]]
    assert "similarity pairs" in stopped
    assert "gate similarity pairs: " in told["decision"]
    shown = CliRunner().invoke(commands, ["history", str(tmp_path / "work")]).stdout.splitlines()
    assert "gate similarity pairs: " in shown[1], "the history of decisions names the gate, too"
    assert champion(corpus) == before
    assert find_answer(tmp_path / "work") == answer
    found = read_summary(tmp_path / "work")
    assert found is not None
    assert found["vectors"]["sha256"] == before.body["vectors_sha256"]
    assert corpus.refresh(cold=True, **sections)["status"] == "nothing new", "the same corpus is not tried every night"


@pytest.mark.turns(4, 3, of="gates")
def test_noise_is_kept_out_by_the_defaults_where_there_is_no_question_set(tmp_path: Path) -> None:
    corpus = ChangingCorpus(tmp_path, seed=1, sentences=200)
    sections = scored(corpus) | {"evaluate": {}}
    corpus.refresh(**sections)
    before = champion(corpus)
    shuffle_all_words(corpus)
    told = corpus.refresh(**sections)
    assert told["status"] == "kept"
    stopped = {gate["gate"] for gate in told["gates"] if not gate["held"]}
    assert stopped & {"memory", "sense"}
    assert "of what the champion knows of its text" in told["decision"]
    assert champion(corpus) == before


def test_a_challenger_of_more_of_the_same_text_passes_the_gates(tmp_path: Path) -> None:
    corpus = ChangingCorpus(tmp_path, seed=1, sentences=200)
    sections = scored(corpus)
    corpus.refresh(**sections)
    corpus.add()
    told = corpus.refresh(**sections)
    assert told["status"] == "promoted", told["decision"]
    assert told["scores"]["now"]["similarity"]["pairs"] > 0.5
    found = {gate["gate"]: gate["found"] for gate in told["gates"]}
    assert found["memory"] > 0.95
    assert found["sense"] > 0.9
    assert 0.5 < found["loss"] < 1.2


def test_a_result_that_a_refresh_continued_to_differs_from_its_configuration_only_where_that_was_changed(tmp_path: Path) -> None:
    corpus = ChangingCorpus(tmp_path, seed=1, sentences=200)
    corpus.refresh()
    corpus.add()
    assert corpus.refresh()["start"] == "warm"
    answer = find_answer(tmp_path / "work")
    assert answer is not None
    assert changes(answer, corpus.config()) == []
    assert any("(this configuration)" in line for line in status_lines(status_of(corpus.config())))
    changed = corpus.config(refresh={"epochs": 7}, vocab={"min_count": 3})
    assert [change.partition(" ")[0] for change in changes(answer, changed)] == ["vocab.min_count", "train.epochs"]


# ── the frame ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.turns(4, 4, of="gates")
def test_a_warm_refresh_keeps_the_frame_and_a_cold_one_is_turned_into_it_when_asked(tmp_path: Path) -> None:
    def drift(align: bool, cold: bool) -> tuple[float, float]:
        corpus = ChangingCorpus(tmp_path / f"{align}-{cold}", seed=1, sentences=200)
        sections = scored(corpus) | {"refresh": {"align": align, "epochs": 2}}
        corpus.refresh(**sections)
        old = find_answer(corpus.directory / "work")
        corpus.add()
        told = corpus.refresh(cold=cold, **sections)
        now = find_answer(corpus.directory / "work")
        assert old is not None
        assert now is not None
        return told["stability"]["drift"], in_place(old.vectors, now.vectors)

    warm, aligned, free = drift(False, False), drift(True, True), drift(False, True)
    assert warm[1] < 0.2
    assert aligned[1] < 0.3
    assert free[1] > 2 * max(warm[1], aligned[1]), "vectors that were trained anew lie in a frame of their own"
    assert aligned[0] == pytest.approx(aligned[1], abs=1e-6), "what is said is what a reader sees"


def in_place(old: Path, now: Path) -> float:
    """Median of 1 − cosine of the words that both have, as a reader who indexed them sees it."""
    import numpy as np

    from pipeline.refresh.stability import common_words, drift
    from w2v_core.vectors import WordVectors

    before, after = WordVectors.load(old), WordVectors.load(now)
    return float(np.median(drift(before, after, common_words(before, after))))


# ── kills, and many at once ──────────────────────────────────────────────────────────────────────────────────────────


def command(corpus: ChangingCorpus, failpoint: str = "") -> subprocess.Popen[str]:
    """A refresh in a separate process."""
    path = corpus.directory / "config.yaml"
    path.write_text(yaml.safe_dump(corpus.config().model_dump(mode="json", by_alias=True)))
    environment = os.environ | ({"W2V_FAILPOINT": failpoint} if failpoint else {})
    return subprocess.Popen(
        [sys.executable, "-c", REFRESH, str(path)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The snapshot that a refresh of this corpus makes."""
    return str(ready(tmp_path_factory.mktemp("undisturbed")).refresh()["snapshot"])


def ready(directory: Path) -> ChangingCorpus:
    """A corpus with a champion, and something new."""
    corpus = ChangingCorpus(directory, seed=9)
    corpus.refresh()
    corpus.add()
    corpus.delete()
    return corpus


@pytest.mark.parametrize("point", KILLS if ALL else random.Random(SEED).sample(KILLS, 2))
def test_a_refresh_killed_anywhere_comes_to_the_same_snapshot_when_run_again(
    tmp_path: Path, undisturbed: str, point: str
) -> None:
    print(f"W2V_SEED={SEED}")
    corpus = ready(tmp_path)
    before = find_answer(tmp_path / "work")
    process = command(corpus, f"{point}=kill,{tmp_path / 'token'}")
    _, err = process.communicate()
    assert process.returncode == -signal.SIGKILL, err
    now = find_answer(tmp_path / "work")
    assert now == before or (now is not None and now.directory.name == undisturbed), "a reader finds a whole champion"
    corpus.refresh()
    assert champion(corpus).id == undisturbed
    assert len(snapshots(tmp_path / "work")) == 2
    assert not list((tmp_path / "work" / "snapshots").glob(".*"))
    assert corpus.refresh()["status"] == "nothing new"
    found = read_summary(tmp_path / "work")
    assert found is not None
    assert found["vectors"]["sha256"] == champion(corpus).body["vectors_sha256"]


@pytest.mark.turns(4, 6, of="gates")
def test_five_refreshes_at_once_make_one_snapshot(tmp_path: Path, undisturbed: str) -> None:
    corpus = ready(tmp_path)
    done = [(process.communicate(), process.returncode) for process in [command(corpus) for _ in range(5)]]
    codes = Counter(
        "busy" if "another run is working here" in err else json.loads(out)["status"] if code == 0 else err
        for (out, err), code in done
    )
    assert set(codes) <= {"promoted", "nothing new", "busy"}, codes
    assert codes["promoted"] == 1, codes
    assert champion(corpus).id == undisturbed
    assert len(snapshots(tmp_path / "work")) == len(entries(tmp_path / "work")) == 2


# ── history ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def three(tmp_path: Path, **sections: dict[str, object]) -> tuple[ChangingCorpus, list[str]]:
    """A corpus after three refreshes, and their snapshots."""
    corpus, found = ChangingCorpus(tmp_path, seed=2), []
    for _ in range(3):
        corpus.add()
        found.append(str(corpus.refresh(**sections)["snapshot"]))
    return corpus, found


@pytest.mark.turns(3, 1.5)
def test_rollback_returns_to_any_snapshot_with_the_same_bytes(tmp_path: Path) -> None:
    corpus, ids = three(tmp_path)
    work, config = tmp_path / "work", corpus.config()
    for wanted, expected in ((None, ids[1]), (None, ids[0]), ("3", ids[2]), (ids[1][:6], ids[1])):
        entry = rollback(config, wanted)
        assert entry["champion"] == expected
        answer, summary = find_answer(work), read_summary(work)
        assert answer is not None
        assert summary is not None
        assert answer.directory.name == expected
        assert (
            store.file_sha256(answer.vectors / "vectors.npy")
            == summary["vectors"]["sha256"]
            == answer.summary["vectors"]["sha256"]
        )
        assert (work / "latest" / "exports" / "vectors.bin").exists()
    assert [entry["kind"] for entry in entries(work)] == ["refresh"] * 3 + ["rollback"] * 4
    rollback(config, None)
    with pytest.raises(InputError, match=r"no champion before this one; there are: "):
        rollback(config, None)
    assert corpus.refresh()["status"] == "nothing new", "a refresh does not undo what a person decided"


@pytest.mark.parametrize("failpoint", ["decided:rollback=kill", "latest:made=ENOSPC", "write:summary.json=ENOSPC"])
@pytest.mark.turns(3, 3)
def test_a_rollback_that_is_cut_off_and_given_again_goes_back_by_one(tmp_path: Path, failpoint: str) -> None:
    corpus, ids = three(tmp_path)
    corpus.config()
    command = [sys.executable, "-m", "pipeline.cli", "rollback", str(tmp_path / "config.yaml")]
    for environment, ended in ({"W2V_FAILPOINT": f"{failpoint},{tmp_path / 'token'}"}, (74, -9)), ({}, (0,)):
        done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=100)
        assert done.returncode in ended, done.stderr
    summary, champion = read_summary(tmp_path / "work"), champion_of(tmp_path / "work")
    assert champion is not None
    assert summary is not None
    assert (champion.id, summary["vectors"]["sha256"]) == (ids[1], champion.body["vectors_sha256"])
    assert rollback(corpus.config(), None)["champion"] == ids[0]


@pytest.mark.turns(3, 2)
def test_a_refresh_after_a_rollback_goes_on_from_the_champion_that_was_chosen(tmp_path: Path) -> None:
    corpus, ids = three(tmp_path)
    rollback(corpus.config(), ids[0])
    corpus.add()
    assert corpus.refresh()["parent"] == ids[0]


@pytest.mark.turns(3, 1.5)
def test_a_snapshot_that_is_not_there_or_damaged_is_refused_and_the_champion_stays(tmp_path: Path) -> None:
    corpus, ids = three(tmp_path)
    with pytest.raises(InputError, match=r"work: no snapshot 777; there are: "):
        rollback(corpus.config(), "777")
    victim = next(snapshot for snapshot in snapshots(tmp_path / "work") if snapshot.id == ids[0]).vectors / "vectors.npy"
    victim.write_bytes(victim.read_bytes()[:-1])
    with pytest.raises(StorageError, match=r"vectors\.npy: expected .* the champion stays"):
        rollback(corpus.config(), ids[0])
    assert champion(corpus).id == ids[2]


@pytest.mark.turns(3, 1.5)
def test_history_is_bounded_and_what_older_snapshots_had_to_themselves_goes(tmp_path: Path) -> None:
    corpus, ids = three(tmp_path, refresh={"keep": 2, "gates": {"overlap": 0, "drift": None, "vocabulary": 0}})
    work = tmp_path / "work"
    assert [snapshot.id for snapshot in snapshots(work)] == ids[1:]
    assert len(entries(work)) == 3
    kinds = Counter(path.parent.name for path in store.iterate_artefacts(work))
    assert kinds == {"tokens": 2, "vocab": 2, "shards": 1, "vectors": 2, "report": 2, "exports": 2}
    named = {Path(part.name).name for path in (work / "tokens").glob("*/manifest.json")
             for part in store.load_artefact(path.parent).manifest.parts}  # fmt: skip
    assert {path.name for path in (work / "tokens" / "parts").glob("*.parquet")} == named
    assert corpus.refresh()["status"] == "nothing new"


@pytest.mark.turns(3, 2)
def test_gc_finds_what_nobody_needs_and_never_the_champion(tmp_path: Path) -> None:
    corpus, ids = three(tmp_path)
    work = tmp_path / "work"
    rollback(corpus.config(), ids[0])
    before = find_answer(work)
    garbage = find_garbage(work, keep=1)
    assert {found.path.name for found in garbage if found.path.parent.name == "snapshots"} == set(ids[1:])
    assert all(found.path.exists() for found in garbage), "finding removes nothing"
    remove(garbage)
    assert find_garbage(work, keep=1) == []
    assert find_answer(work) == before
    assert before is not None
    assert not store.find_damage(store.load_artefact(before.vectors))
    assert verify_workdir(work)[1] == [], "shards that were cleared away are no damage"
    assert (work / "report" / "index.html").exists()
    assert corpus.refresh()["status"] == "nothing new"
