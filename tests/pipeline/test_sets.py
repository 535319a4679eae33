"""Every question set has its own score, reported with the lines that could not be used; all vectors are scored alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config import parse_config
from pipeline.errors import ConfigError, DataError, InputError
from pipeline.report.report import format_summary
from pipeline.report.results import evaluation_rows
from pipeline.stages.evaluate import headline, score
from pipeline.stages.sets import Rules, score_sets, set_names
from w2v_core.vectors import WordVectors

WORDS = ["king", "queen", "man", "woman", "boy", "girl"]
VECTORS = WordVectors(WORDS, np.array([[3, 1], [3, -1], [1, 1], [1, -1], [0.5, 1], [0.5, -1]], np.float32) + np.float32(0.1))


def write(folder: Path, files: dict[str, str]) -> list[str]:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return [str(folder / name) for name in files]


PAIRS = "king\tqueen\t8\nman\tgirl\t2\nboy\tgirl\t5\n"
ANALOGIES = ": family\nking queen man woman\nman woman boy girl\n: gram1-plural\nking queen boy girl\n"


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["a/pairs.tsv", "b/questions.txt"], ["pairs", "questions"]),
        (["en/pairs.tsv", "other/pairs.tsv"], ["en/pairs", "other/pairs"]),
        (["pairs.tsv", "pairs.txt", "x.tsv"], ["pairs.tsv", "pairs.txt", "x"]),
        (["a/b/pairs.tsv", "c/b/pairs.tsv"], ["a/b/pairs", "c/b/pairs"]),
        (["en/pairs.tsv", "pairs.txt", "fr/pairs.tsv"], ["en/pairs", "pairs.txt", "fr/pairs"]),
        (["pairs.tsv", "pairs.tsv"], ["pairs"]),
        (["pairs", "pairs.tsv"], ["pairs", "pairs.tsv"]),
    ],
)
def test_sets_are_called_by_as_much_of_their_path_as_tells_them_apart(tmp_path: Path, files: list[str], names: list[str]) -> None:
    found = set_names([str(tmp_path / "sets" / name) for name in files])
    assert list(found) == names
    assert set(found.values()) == {str(tmp_path / "sets" / name) for name in files}


def evaluated(folder: Path, **settings: Any) -> dict[str, Any]:
    return score(parse_config({"corpus": {"inputs": ["x"]}, "evaluate": settings}), VECTORS)


def test_two_files_of_one_name_have_two_scores(tmp_path: Path) -> None:
    other = "king\tqueen\t1\nman\tgirl\t2\nboy\tgirl\t3\n"
    paths = write(tmp_path, {"en/pairs.tsv": PAIRS, "other/pairs.tsv": other})
    scores = evaluated(tmp_path, similarity=paths)
    assert list(scores["similarity"]) == ["en/pairs", "other/pairs"]
    found = headline(scores)
    assert found["similarity"]["en/pairs"] != found["similarity"]["other/pairs"]


def test_every_analogy_set_and_section_is_shown_with_its_method(tmp_path: Path) -> None:
    bats = ": I01 [noun]\nking queen man woman\n: E10\nking queen boy girl\n"
    paths = write(tmp_path, {"google.txt": ANALOGIES, "bats.txt": bats})
    summary = {"evaluation": headline(evaluated(tmp_path, analogies=paths, method="3cosmul"))}
    rows = {test: (measure, value, known) for test, measure, value, known in evaluation_rows(summary, by_section=True)}
    assert list(rows) == [
        "google, all", "google, semantic", "google, syntactic", "  family", "  gram1-plural",
        "bats, all", "bats, semantic", "bats, syntactic", "  I01 [noun]", "  E10",
    ]  # fmt: skip
    assert rows["google, all"] == ("accuracy, 3CosMul", 1 / 3, 1.0)
    assert rows["google, syntactic"] == ("accuracy", 0.0, 1.0)
    assert list(rows)[:3] == [row[0] for row in evaluation_rows(summary)][:3]  # the page has a table of sections
    shown = format_summary(summary)
    assert all(name.strip() in shown for name in rows)


def test_which_sections_are_syntactic_can_be_configured(tmp_path: Path) -> None:
    paths = write(tmp_path, {"q.txt": ANALOGIES})
    [found] = evaluated(tmp_path, analogies=paths, syntactic="^family$")["analogy"].values()
    assert [section["kind"] for section in found["sections"]] == ["syntactic", "semantic"]
    with pytest.raises(ConfigError, match=r"evaluate.syntactic: not a regular expression"):
        evaluated(tmp_path, syntactic="(")


def test_lines_that_could_not_be_used_and_sets_without_an_answer_are_notes(tmp_path: Path) -> None:
    bad = PAIRS + "cat\t7,35\nking\tman\t7,46\n"
    paths = write(tmp_path, {"half.tsv": bad, "nothing.tsv": "a\tb\t1\nc\td\t2\n", "q.txt": ANALOGIES + "king queen\n"})
    scores = score_sets(VECTORS, paths, Rules())
    assert scores["notes"] == [
        "q: 1 of 4 lines (25.0%) could not be used and count against the coverage, first line 6: king queen",
        "half: 2 of 5 lines (40.0%) could not be used and count against the coverage, first line 4: cat\\t7,35",
        "nothing: no score: a rank correlation needs at least 2 pairs, 0 have both words in the vocabulary",
    ]
    assert scores["similarity"]["half"]["coverage"] == 0.6
    [unknown] = write(tmp_path, {"u.txt": "a b c d\n"})
    assert score_sets(VECTORS, [unknown], Rules())["notes"] == ["u: no score: no question has all its words in the vocabulary"]
    assert evaluated(tmp_path, similarity=paths[:1])["notes"] == scores["notes"][1:2]


def test_a_set_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere.txt: cannot be read \(No such file or directory\)"):
        score_sets(VECTORS, [str(tmp_path / "nowhere.txt")], Rules())
    [path] = write(tmp_path, {"empty.txt": "\n"})
    with pytest.raises(DataError, match=r"empty.txt: expected lines of word, word, score"):
        score_sets(VECTORS, [path], Rules())
