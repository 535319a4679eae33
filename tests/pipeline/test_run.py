"""The whole pipeline in this process: its output, its files, and its answers to bad input."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import store
from pipeline.cluster.workers import InProcess
from pipeline.config import parse_config
from pipeline.errors import DataError, DivergedError, InputError, StorageError
from pipeline.progress import Progress
from pipeline.run import run
from pipeline.workdir import status_lines, status_of, verify_workdir
from tests.tiny import tiny_config, write_corpus
from w2v_core.vectors import WordVectors

UNTRACKED: dict[str, object] = {"enabled": False}


def run_tiny(directory: Path, inputs: list[str], **sections: dict[str, object]) -> dict[str, Any]:
    config = parse_config(tiny_config(directory, inputs, tracking=UNTRACKED, **sections))
    return run(config, workers=InProcess(), progress=Progress(quiet=True))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], dict[str, Any]]:
    base = tmp_path_factory.mktemp("finished")
    inputs = write_corpus(base / "corpus")
    return base / "work", inputs, run_tiny(base / "work", inputs)


def test_the_summary_has_every_field_that_other_programs_read(finished: tuple[Path, list[str], dict[str, Any]]) -> None:
    workdir, _, summary = finished
    assert json.loads((workdir / "summary.json").read_text()) == json.loads(json.dumps(summary))
    for (
        path
    ) in """status run_id config_digest corpus.tokens corpus.sentences vocab.size stages.tokenize.seconds stages.publish.cached
    train.raw_tokens train.kept_tokens train.seconds train.raw_tokens_per_s train.final_loss train.lanes train.merged_bytes
    vectors.path vectors.sha256 vectors.shape evaluation.analogy evaluation.semantic evaluation.syntactic evaluation.coverage
    evaluation.similarity mlflow.uri mlflow.run_id""".split():
        node: Any = summary
        for key in path.split("."):
            assert key in node, path
            node = node[key]
    assert summary["corpus"]["sentences"] == 6000
    assert summary["corpus"]["tokens"] == 72_000
    assert summary["train"]["raw_tokens"] == 144_000


def test_a_file_whose_name_is_not_utf8_is_trained_on_and_known_again(tmp_path: Path) -> None:
    text = Path(write_corpus(tmp_path / "corpus")[0])
    os.rename(os.fsencode(text), os.fsencode(text.parent) + b"/\xff\xfe.txt")
    assert run_tiny(tmp_path / "work", [str(tmp_path / "corpus" / "*.txt")])["status"] == "complete"
    again = run_tiny(tmp_path / "work", [str(tmp_path / "corpus" / "*.txt")])
    assert again["stages"]["tokenize"]["cached"]
    assert json.loads((tmp_path / "work" / "summary.json").read_text())["status"] == "complete"


def test_training_learns_what_the_corpus_was_made_from(finished: tuple[Path, list[str], dict[str, Any]]) -> None:
    _, _, summary = finished
    rounds = summary["train"]["rounds"]
    assert rounds[0]["loss"] > rounds[-1]["loss"]
    vectors = WordVectors.load(summary["vectors"]["path"])
    found = [word for word, _ in vectors.most_similar("topic3word1", topn=10)]
    assert sum(word.startswith("topic3") for word in found) >= 8


def test_the_loss_is_the_mean_per_example_over_all_lanes(finished: tuple[Path, list[str], dict[str, Any]]) -> None:
    _, _, summary = finished
    first = summary["train"]["rounds"][0]
    assert first["loss"] == pytest.approx(first["loss_sum"] / first["examples"])
    assert first["points"][0][1] == pytest.approx(6 * math.log(2), abs=0.1)
    assert first["points"][-1][0] == first["kept_tokens"]


def test_a_second_run_reuses_everything_and_says_so(finished: tuple[Path, list[str], dict[str, Any]]) -> None:
    workdir, inputs, before = finished
    again = run_tiny(workdir, inputs)
    assert all(stage["cached"] for stage in again["stages"].values())
    assert again["vectors"] == before["vectors"]


def test_verify_reads_every_file_and_status_lists_the_artefacts(finished: tuple[Path, list[str], dict[str, Any]]) -> None:
    workdir, inputs, _ = finished
    checked, damage = verify_workdir(workdir)
    assert damage == []
    assert checked > 10
    text = "\n".join(status_lines(status_of(parse_config(tiny_config(workdir, inputs, tracking=UNTRACKED)))))
    for stage in ("tokens", "vocab", "shards", "vectors", "report", "exports", "this configuration"):
        assert stage in text


def test_checkpoints_and_later_shards_are_gone_when_the_vectors_are_there(
    finished: tuple[Path, list[str], dict[str, Any]],
) -> None:
    workdir, _, _ = finished
    assert [path.parent.name for path in store.iterate_artefacts(workdir)].count("shards") == 1
    assert not list(workdir.glob("checkpoints/*/*"))


def test_the_layered_engine_runs_through_the_same_pipeline(tmp_path: Path) -> None:
    inputs = write_corpus(tmp_path / "corpus", sentences=400)
    train: dict[str, object] = {
        "engine": "layers", "optimizer": "adam", "alpha": 0.005, "min_alpha": 0.005, "batch_size": 50, "lanes": 1, "epochs": 3
    }  # fmt: skip
    shards: dict[str, object] = {"window": 2, "shrink_windows": False, "sample": 0}
    summary = run_tiny(tmp_path / "work", inputs, train=train, shards=shards, vocab={"min_count": 1})
    losses = [record["loss"] for record in summary["train"]["rounds"]]
    assert len(losses) == 3
    assert losses[0] > losses[-1]
    # Full windows only, as the textbook: 12 words a sentence leave 12 − 2·2 targets.
    assert [record["examples"] for record in summary["train"]["rounds"]] == [400 * 8] * 3


def test_a_learning_rate_too_high_ends_in_a_diverged_error_with_the_checkpoint_kept(tmp_path: Path) -> None:
    inputs = write_corpus(tmp_path / "corpus", sentences=1000)
    work = tmp_path / "work"
    with pytest.raises(DivergedError, match=r"diverged in round \d+, epoch \d+, step \d+, lane \d+ at α = "):
        run_tiny(work, inputs, train={"alpha": 10.0, "epochs": 40, "checkpoint_every": 1000})
    assert not (work / "summary.json").exists()
    assert not list(work.glob("vectors/*/manifest.json"))


@pytest.mark.parametrize("lanes", [1, 3])
def test_numpy_and_numba_train_alike(tmp_path: Path, lanes: int) -> None:
    inputs = write_corpus(tmp_path / "corpus", sentences=300)
    matrices = []
    for backend in ("numpy", "numba"):
        train: dict[str, object] = {"backend": backend, "lanes": lanes, "epochs": 1}
        summary = run_tiny(tmp_path / backend, inputs, train=train)
        matrices.append(np.array(WordVectors.load(summary["vectors"]["path"]).matrix))
    np.testing.assert_allclose(matrices[0], matrices[1], atol=2e-4)


# ── bad input ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_no_file_matches(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing-\*\.txt"):
        run_tiny(tmp_path / "work", [str(tmp_path / "nothing-*.txt")])


def test_an_empty_file_among_others_is_fine(tmp_path: Path) -> None:
    inputs = write_corpus(tmp_path / "corpus", sentences=200)
    (tmp_path / "corpus" / "empty.txt").touch()
    summary = run_tiny(tmp_path / "work", [*inputs, str(tmp_path / "corpus" / "empty.txt")])
    assert summary["corpus"]["empty_files"] == 1
    assert summary["corpus"]["tokens"] == 2400


@pytest.mark.parametrize("text", ["", "\n\n  \n", "!!! ... ---"])
def test_an_empty_corpus_is_an_error_that_says_what_was_read(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text(text)
    with pytest.raises(DataError, match="not one token in 1 file"):
        run_tiny(tmp_path / "work", [str(path)])


def test_no_word_reaches_min_count_names_the_largest_usable_value(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a a a a b b b c c\n")
    with pytest.raises(DataError, match=r"no word reaches vocab\.min_count=9.*largest usable value here is 3"):
        run_tiny(tmp_path / "work", [str(path)], vocab={"min_count": 9})
    with pytest.raises(DataError, match=r"only 1 word reaches vocab\.min_count=4.*largest usable value here is 3"):
        run_tiny(tmp_path / "work", [str(path)], vocab={"min_count": 4})


def test_a_vocabulary_of_one_word_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("same same same\n" * 50)
    with pytest.raises(DataError, match=r"at least 2 words, the corpus has 1: same \(150\)"):
        run_tiny(tmp_path / "work", [str(path)])


def test_a_vocabulary_of_two_words_trains(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("left right left right left\n" * 50)
    summary = run_tiny(tmp_path / "work", [str(path)], shards={"sample": 0})
    assert summary["vectors"]["shape"] == [2, 16]


def test_subsampling_that_leaves_nothing_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a b\n" * 5)
    with pytest.raises(DataError, match=r"shards\.sample=1e-12 left none of 10 tokens"):
        run_tiny(tmp_path / "work", [str(path)], shards={"sample": 1e-12})


def test_more_lanes_than_tokens_still_train(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a b c\n" * 3)
    summary = run_tiny(tmp_path / "work", [str(path)], shards={"sample": 0}, train={"lanes": 16})
    assert summary["vectors"]["shape"] == [3, 16]


def test_a_missing_question_file_is_named(tmp_path: Path) -> None:
    inputs = write_corpus(tmp_path / "corpus", sentences=200)
    with pytest.raises(InputError, match=r"evaluate\.analogies: cannot read .*none\.txt"):
        run_tiny(tmp_path / "work", inputs, evaluate={"analogies": [str(tmp_path / "none.txt")]})


@pytest.mark.turns(3, 1.5)
def test_a_full_disk_is_one_clear_error_and_the_same_run_goes_on_after_space_is_made(small_disk: Path, tmp_path: Path) -> None:
    inputs = write_corpus(tmp_path / "corpus", sentences=3000)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1_700_000))
    work = small_disk / "work"
    with pytest.raises(StorageError, match="the disk is full"):
        run_tiny(work, inputs)
    ballast.unlink()
    summary = run_tiny(work, inputs)
    assert summary["vectors"]["sha256"] == run_tiny(tmp_path / "roomy", inputs)["vectors"]["sha256"]
