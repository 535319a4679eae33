"""The last good result: whatever happens to later runs, it answers, with the same bytes.

`make test` takes a few of the kills, and runs the real `w2v query` after a few of the ways to fail, by a seed that it prints
(W2V_SEED=n replays it); `make answers` takes all.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from pipeline import store
from pipeline.cluster.workers import InProcess
from pipeline.commands.listed import commands
from pipeline.compare.sides import open_sides
from pipeline.config import RunConfig, parse_config
from pipeline.errors import InputError, PipelineError, StorageError
from pipeline.history.answers import find_answer, introduce, require_answer
from pipeline.history.latest import LATEST, champion_of, decide, entries, mend
from pipeline.history.snapshot import snapshots
from pipeline.progress import Progress
from pipeline.run import run
from pipeline.safety.seals import SEAL
from pipeline.training.history import RoundRecord
from pipeline.workdir import status_lines, status_of, verify_workdir
from tests.sampling import ALL, SEED
from tests.tiny import tiny_config, write_corpus

KILLS = [
    "stage:tokenize", "commit:tokens", "stage:vocab", "committed:vocab", "stage:shards", "commit:shards", "round:1.0",
    "write:vectors.npy", "commit:vectors", "stage:evaluate", "commit:report", "stage:publish", "commit:exports",
    "write:index.html", "snapshot:written", "decide:run",
]  # fmt: skip
EARLIER = ["tokenize", "vocab", "shards", "train", "evaluate"]
TAKEN = KILLS if ALL else random.Random(SEED).sample(KILLS, 3)
RUN = """
import sys, yaml
from pipeline.cluster.workers import InProcess
from pipeline.config import load_config
from pipeline.progress import Progress
from pipeline.run import run
run(load_config(sys.argv[1]), workers=InProcess(), progress=Progress(quiet=True))
"""


class Home:
    """A workdir with one complete run on its own corpus."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.inputs = write_corpus(directory / "corpus", sentences=600)
        self.asked = self.tree()
        self.summary = self.run()
        self.said_at_first = self.said()

    def tree(self, **sections: dict[str, object]) -> dict[str, object]:
        train: dict[str, object] = {"lanes": 1, "epochs": 1, "vector_size": 8, "checkpoint_every": 1500}
        return tiny_config(
            self.directory / "work", self.inputs, **{"tracking": {"enabled": False}, "train": train} | sections
        )  # fmt: skip

    def config(self, **sections: dict[str, object]) -> RunConfig:
        return parse_config(self.tree(**sections))

    def run(self, until: str = "publish", **sections: dict[str, object]) -> dict[str, Any]:
        return run(self.config(**sections), until=until, workers=InProcess(), progress=Progress(quiet=True))

    @property
    def work(self) -> Path:
        return self.directory / "work"

    def answer(self) -> tuple[str, str]:
        """(run, digest of its vectors) of what answers now."""
        found = find_answer(self.work)
        assert found is not None
        return found.run_id, store.file_sha256(found.vectors / "vectors.npy")

    def at_first(self) -> tuple[str, str]:
        return self.summary["run_id"], self.summary["vectors"]["sha256"]

    def said(self) -> tuple[bytes, bytes]:
        """What `w2v query` prints on both streams; the same wherever this home was copied to."""
        config = self.directory / "mine.yaml"
        config.write_text(yaml.safe_dump(self.asked | {"run": {"name": "tiny", "workdir": "work", "seed": 4}}))
        word = (self.work / LATEST / "vectors" / "words.txt").read_text().split()[0]
        command = [sys.executable, "-P", "-m", "pipeline.cli", "query", "similar", config.name, word]
        done = subprocess.run(command, cwd=self.directory, capture_output=True)
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr


@pytest.fixture
def home(tmp_path: Path, template: Home) -> Home:
    found = Home.__new__(Home)
    found.directory, found.summary = tmp_path / "home", template.summary
    found.asked, found.said_at_first = template.asked, template.said_at_first
    shutil.copytree(template.directory, found.directory, symlinks=True)
    found.inputs = [str(found.directory / "corpus" / Path(path).name) for path in template.inputs]
    return found


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("template") / "home")


def test_a_complete_run_is_found_under_stable_paths(home: Home) -> None:
    latest = home.work / LATEST
    assert store.file_sha256(latest / "vectors" / "vectors.npy") == home.summary["vectors"]["sha256"]
    assert json.loads((latest / "summary.json").read_text())["run_id"] == home.summary["run_id"]
    for path in ("report/index.html", "report/report.json", "exports/vectors.bin", "vocab/vocab.parquet", "scores/scores.json"):
        assert (latest / path).is_file(), path
    assert not Path(os.readlink(latest)).is_absolute()


def test_what_a_run_is_just_replacing_is_not_called_damaged_and_what_is_damaged_is(home: Home) -> None:
    seal = home.work / "report" / SEAL
    text = seal.read_bytes()
    with store.lock(home.work):
        seal.unlink()
        restored = threading.Timer(0.3, seal.write_bytes, [text])
        restored.start()
        assert verify_workdir(home.work)[1] == []
        restored.join()
        seal.unlink()
        assert [problem.partition(": ")[0] for problem in verify_workdir(home.work)[1]] == [str(seal)]


def test_a_summary_with_stages_that_no_run_has_is_called_damaged(home: Home) -> None:
    path = home.work / "summary.json"
    summary = store.unsealed(path.read_bytes())
    path.unlink()
    store.write_json(path, store.sealed(summary | {"stages": {"compile": summary["stages"]["train"]}}))
    assert verify_workdir(home.work)[1] == [f"{path}: damaged (its stages are not those of a run)"]


def test_a_snapshot_is_compared_like_its_workdir(home: Home) -> None:
    (snapshot,) = snapshots(home.work)
    sides = open_sides([str(source) for source in (home.work, home.work / "latest", snapshot.directory)])
    assert [side.summary["run_id"] for side in sides] == [home.summary["run_id"]] * 3
    assert len({side.vectors.matrix.tobytes() for side in sides}) == 1


def test_a_moved_workdir_answers_as_before(home: Home) -> None:
    before = home.answer()
    home.directory = home.directory.rename(home.directory.with_name("elsewhere"))
    assert home.answer() == before
    assert find_answer(home.work).vectors.is_relative_to(home.work)  # type: ignore[union-attr]


def test_a_workdir_copied_without_its_links_answers_is_listed_once_and_gets_its_link_back(home: Home) -> None:
    before, listed = home.answer(), list(status_lines(status_of(home.config(), compared=False)))
    copied = home.directory / "copied"
    shutil.copytree(home.work, copied, symlinks=False)  # as scp -r does, and cp -L, and most archives
    shutil.rmtree(home.work)
    copied.rename(home.work)
    assert not (home.work / LATEST).is_symlink()
    assert home.answer() == before
    assert list(status_lines(status_of(home.config(), compared=False))) == listed
    home.run()
    assert os.readlink(home.work / LATEST) == f"snapshots/{snapshots(home.work)[0].id}"
    assert sorted(path.name for path in (home.work / "snapshots").iterdir()) == [snapshots(home.work)[0].id]
    assert home.answer() == before


def test_a_folder_of_somebody_in_the_place_of_the_link_is_left_alone(home: Home) -> None:
    (home.work / LATEST).unlink()
    (home.work / LATEST).mkdir()
    (home.work / LATEST / "mine.txt").write_text("mine")
    with pytest.raises(StorageError, match=r"latest: expected a link to a folder in snapshots.*move it away and run again"):
        home.run()
    assert [path.name for path in (home.work / LATEST).iterdir()] == ["mine.txt"]
    assert not list(home.work.glob(".latest.*"))


def test_the_same_run_again_is_the_same_snapshot_and_no_new_decision(home: Home) -> None:
    home.run()
    assert len(snapshots(home.work)) == len(entries(home.work)) == 1


def test_a_later_complete_run_answers_from_then_on(home: Home) -> None:
    later = home.run(train={"lanes": 1, "epochs": 1, "vector_size": 8, "alpha": 0.03})
    assert home.answer() == (later["run_id"], later["vectors"]["sha256"])
    assert later["vectors"]["sha256"] != home.summary["vectors"]["sha256"]
    assert len(snapshots(home.work)) == len(entries(home.work)) == 2


# ── ways to fail ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _gone(home: Home) -> None:
    (home.directory / "corpus" / "a.txt").unlink()
    home.run()


def _folder_gone(home: Home) -> None:
    shutil.rmtree(home.directory / "corpus")
    home.run(corpus={"inputs": [str(home.directory / "corpus")]})


def _emptied(home: Home) -> None:
    for path in home.inputs:
        Path(path).write_bytes(b"")
    home.run()


def _cut_archive(home: Home) -> None:
    path = home.directory / "corpus" / "b.txt.gz"
    path.write_bytes(path.read_bytes()[:-9])
    home.run()


def _unreadable(home: Home) -> None:
    (home.directory / "corpus" / "a.txt").write_bytes("x".encode("utf-16") * 50)
    home.run()


WAYS: dict[str, Callable[[Home], Any]] = {
    "an input is gone": _gone,
    "the share is not mounted": _folder_gone,
    "all inputs are empty": _emptied,
    "an archive is cut": _cut_archive,
    "a file is UTF-16": _unreadable,
    "an input is mistyped": lambda home: home.run(corpus={"inputs": [str(home.directory / "nothing-*.txt")]}),
    "a key is misspelt": lambda home: home.config(train={"negatve": 3}),
    "no word is frequent enough": lambda home: home.run(vocab={"min_count": 10_000}),
    "subsampling leaves nothing": lambda home: home.run(shards={"sample": 1e-12}),
    "training diverges": lambda home: home.run(train={"alpha": 10.0, "epochs": 30, "lanes": 1, "vector_size": 8}),
    "a question file is missing": lambda home: home.run(evaluate={"analogies": ["none.txt"]}),
    "the tokenizer cannot be loaded": lambda home: home.run(tokenize={"tokenizer": "nothing.here:make"}),
}


SPOKEN = [*WAYS, *EARLIER, *KILLS] if ALL else random.Random(SEED).sample([*WAYS, *EARLIER], 3) + TAKEN[:1]
"""The ways to fail after which the command itself is run, in a separate process."""


def assert_nothing_was_taken(home: Home, way: str) -> None:
    assert home.answer() == home.at_first()
    if way in SPOKEN:
        print(f"sampled with W2V_SEED={SEED}")
        assert home.said() == home.said_at_first


@pytest.mark.parametrize("way", WAYS)
def test_a_run_that_fails_takes_nothing_away(home: Home, way: str) -> None:
    with pytest.raises(PipelineError):
        WAYS[way](home)
    assert_nothing_was_taken(home, way)


@pytest.mark.parametrize("until", EARLIER)
def test_a_run_that_stops_at_an_earlier_stage_takes_nothing_away(home: Home, until: str) -> None:
    home.run(until, tokenize={"lowercase": False}, train={"lanes": 1, "epochs": 1, "vector_size": 8, "alpha": 0.02})
    assert_nothing_was_taken(home, until)


def test_a_full_disk_takes_nothing_away(home: Home, small_disk: Path) -> None:
    work = small_disk / "work"
    shutil.copytree(home.work, work, symlinks=True)
    (small_disk / "ballast").write_bytes(bytes(max(0, shutil.disk_usage(small_disk).free - 40_000)))
    with pytest.raises(StorageError, match="the disk is full"):
        home.run(run={"workdir": str(work), "seed": 4}, train={"vector_size": 300, "lanes": 1})
    found = find_answer(work)
    assert found is not None
    assert store.file_sha256(found.vectors / "vectors.npy") == home.summary["vectors"]["sha256"]


def kill(home: Home, point: str) -> None:
    """A run with changed settings that is killed at this place."""
    token = home.directory / "token"
    path = home.directory / "changed.yaml"
    sections: dict[str, dict[str, object]] = {"tokenize": {"lowercase": False}, "run": {"workdir": str(home.work), "seed": 9}}
    path.write_text(yaml.safe_dump(home.tree(**sections)))
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(path)], env=os.environ | {"W2V_FAILPOINT": f"{point}=kill,{token}"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert token.exists()


@pytest.mark.parametrize("point", TAKEN)
def test_a_killed_run_takes_nothing_away(home: Home, point: str) -> None:
    kill(home, point)
    assert_nothing_was_taken(home, point)


@pytest.mark.turns(3, 2)
def test_a_kill_between_the_decision_and_the_link_is_mended_by_the_next_run(home: Home) -> None:
    kill(home, "decided:run")
    assert home.answer() == home.at_first(), "a reader has the old one, whole"
    mend(home.work)
    champion = champion_of(home.work)
    assert champion is not None
    assert home.answer()[0] == champion.body["run_id"] != home.summary["run_id"]


# ── who answers ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_status_says_which_result_answers_and_which_settings_differ(home: Home, template: Home) -> None:
    home.inputs = template.inputs
    answer = find_answer(home.work)
    assert answer is not None
    assert introduce(answer, home.config()).startswith(f"from {home.summary['run_id']} of 20")
    assert "differs" not in introduce(answer, home.config())
    changed = home.config(train={"alpha": 0.02, "lanes": 1, "epochs": 1, "vector_size": 8, "checkpoint_every": 1500})
    assert "differs from the configuration: train.alpha 0.05 → 0.02" in introduce(answer, changed)
    assert any("queries are answered from" in line for line in status_lines(status_of(home.config())))


def test_a_run_up_to_train_answers_where_no_run_was_ever_complete(tmp_path: Path) -> None:
    inputs = write_corpus(tmp_path / "corpus", sentences=200)
    tree = tiny_config(tmp_path / "work", inputs, tracking={"enabled": False})
    assert find_answer(tmp_path / "work") is None
    summary = run(parse_config(tree), until="train", workers=InProcess(), progress=Progress(quiet=True))
    answer = find_answer(tmp_path / "work")
    assert answer is not None
    assert str(answer.vectors) == summary["vectors"]["path"]


def test_a_question_during_the_first_run_is_told_what_that_run_is_doing(tmp_path: Path) -> None:
    inputs = write_corpus(tmp_path / "corpus", sentences=200)
    config = parse_config(tiny_config(tmp_path / "work", inputs, tracking={"enabled": False}))

    def ask(record: RoundRecord) -> None:
        found = (
            rf"work: another run is working here \(pid {os.getpid()} on .*, in train since 20\S+ \S+ \S+\), and none has finished"
        )
        with pytest.raises(InputError, match=found):
            require_answer(config.workdir)

    run(config, until="train", workers=InProcess(), progress=Progress(quiet=True), on_round=[ask])
    assert require_answer(config.workdir)


def test_a_decision_that_names_a_snapshot_that_is_gone_falls_back_to_the_one_before(home: Home) -> None:
    before = champion_of(home.work)
    decide(home.work, "run", "0" * 16, {})
    assert champion_of(home.work) == before
    mend(home.work)
    assert home.answer() == home.at_first()


def test_who_looks_into_a_workdir_that_is_not_there_or_a_file_is_told_so(tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("corpus: {inputs: [texts]}\nrun: {workdir: work}\n")

    def said(command: str, *more: str) -> tuple[int, str]:
        done = CliRunner().invoke(commands, [command, str(config), *more], standalone_mode=False)
        return getattr(done.exception, "exit_code", done.exit_code), f"{done.exception or done.stderr}"

    code, told = said("verify")
    assert (code, told) == (
        66,
        f"{tmp_path / 'work'}: nothing to check here; no run has left anything, or the folder is not mounted",
    )
    assert "no decision yet" in said("history")[1]
    assert "no finished run here, so nothing to go back to" in said("rollback")[1]
    for command in ("prune", "gc"):
        assert said(command, "--yes") == said(command) == (0, ""), command
        told = CliRunner().invoke(commands, [command, str(config), "--yes"], standalone_mode=False).stdout
        assert told == f"nothing to remove: {tmp_path / 'work'}: no run has left anything here, or the folder is not mounted\n"
    assert os.listdir(tmp_path) == ["mine.yaml"]
    (tmp_path / "work").mkdir()
    for command in (["prune", "--yes"], ["gc", "--yes"], ["rollback"]):
        said(*command)
    assert os.listdir(tmp_path / "work") == []
    (tmp_path / "work").rmdir()
    (tmp_path / "work").write_text("")
    for command in (["verify"], ["history"], ["status"], ["prune"], ["gc"], ["query", "similar"]):
        arguments = [command[0], *command[1:], str(config), *(["word"] if command[0] == "query" else [])]
        done = CliRunner().invoke(commands, arguments, standalone_mode=False)
        assert "is a file, and a run needs a folder" in str(done.exception), command
