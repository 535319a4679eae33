"""Training with no examples is an error, and with hardly any it is complete but leaves a note with the remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.cluster.workers import InProcess
from pipeline.config import parse_config
from pipeline.errors import DataError
from pipeline.run import run
from w2v_core.windows import default_sample


def summary_of(path: Path, workdir: Path, until: str = "shards", **sections: dict[str, Any]) -> dict[str, Any]:
    tree = {
        "run": {"workdir": str(workdir)}, "corpus": {"inputs": [str(path)]}, "vocab": {"min_count": 1},
        "tracking": {"enabled": False}, **sections,
    }  # fmt: skip
    return run(parse_config(tree), until=until, workers=InProcess())


def test_the_default_threshold_is_a_pure_function_of_the_corpus_size_and_keeps_small_corpora() -> None:
    assert [default_sample(tokens) for tokens in (0, 51, 100, 10_000, 1_000_000, 10**12)] == [1, 1, 1, 0.01, 1e-4, 1e-4]
    sizes = range(1, 3_000_000, 9973)
    thresholds = [default_sample(tokens) for tokens in sizes]
    assert thresholds == sorted(thresholds, reverse=True)
    assert all(threshold * tokens > 99.9 or threshold == 1 for threshold, tokens in zip(thresholds, sizes, strict=True))


def test_lines_of_one_word_have_no_context_and_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("plum\npear\nfig\n" * 100)
    with pytest.raises(DataError, match=r"no word has a context: each of the 300 lines holds one word.*tokenize\.end_of_line"):
        summary_of(tmp_path / "x.txt", tmp_path / "work")


def test_words_that_subsampling_leaves_alone_in_their_lines_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("".join(f"rare{index} common\n" for index in range(200)))
    with pytest.raises(DataError, match=r"no word has a context: of 400 tokens \d+ are left by .*each alone on its line"):
        summary_of(tmp_path / "x.txt", tmp_path / "work", shards={"sample": 1e-5})


def test_three_lines_are_trained_on_completely_with_a_note_that_they_are_few(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("the river runs to the sea\nthe sea is blue\nand the river is green\n")
    summary = summary_of(
        tmp_path / "x.txt", tmp_path / "work", until="train", train={"vector_size": 8, "epochs": 1, "backend": "numpy"}
    )
    assert summary["shards"]["kept_tokens"] == summary["corpus"]["tokens"] == 15
    assert any(note.startswith("only 15 tokens of an epoch have a context") for note in summary["notes"])


def test_the_note_about_subsampling_advises_to_remove_the_key_only_where_it_is_given(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("a b\n" * 150_000)
    for number, (shards, advice) in enumerate((
        ({}, "leaves out the rest; its words are few and frequent: set it to 0"),
        ({"sample": 1e-5}, "leaves out the rest; remove the key to have it chosen"),
    )):  # fmt: skip
        summary = summary_of(tmp_path / "x.txt", tmp_path / f"{number}", shards=shards)
        assert any(advice in note for note in summary["notes"])


def test_keys_about_copies_that_a_single_copy_leaves_without_effect_are_noted(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("the river runs to the sea\nthe sea is blue\nand the river is green\n")
    train = {"vector_size": 8, "epochs": 1, "backend": "numpy", "hot_rows": 4, "merge_every": 9}
    for copies, expected in ((1, "train.merge_every, train.hot_rows: no effect"), (2, None)):
        found = summary_of(
            tmp_path / "x.txt", tmp_path / f"{copies}", until="train", train=train | {"lanes": 2, "copies": copies}
        )
        notes = [note for note in found["notes"] if "no effect" in note]
        assert [note.startswith(expected) for note in notes] == [True] if expected else notes == []


def test_a_small_kept_share_is_reported_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("the river runs to the sea and the sea is blue\n" * 1500)
    summary = summary_of(tmp_path / "x.txt", tmp_path / "work", shards={"sample": 1e-4})
    kept = summary["shards"]["kept_tokens"]
    assert kept < 0.2 * 16_500
    assert any(note.startswith(f"only {kept:,} of 16,500 tokens (") and "set it to 0" in note for note in summary["notes"])
    assert summary_of(tmp_path / "x.txt", tmp_path / "other")["shards"]["sample"] == pytest.approx(100 / 16_500)
