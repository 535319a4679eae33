"""`w2v compare`: what differs between results, on the terminal, as JSON and as a page; hostile words stay text in all three."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import pipeline
from pipeline.cluster.workers import InProcess
from pipeline.commands.listed import commands
from pipeline.compare.compare import compare
from pipeline.compare.shown import as_page, as_text
from pipeline.compare.sides import Side, open_sides
from pipeline.config import load_config
from pipeline.errors import DamagedError, InputError, UsageError
from pipeline.progress import Progress
from pipeline.run import run
from tests.pipeline.test_report import HOSTILE, Page, sample_summary
from w2v_core.vectors import WordVectors

GROUPS, SIZE = 12, 6


def vectors_of(seed: int = 1, moved: dict[str, int] | None = None, words: list[str] | None = None) -> WordVectors:
    """Words in groups with similar vectors; `moved` puts a word into another group."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(GROUPS, 16))
    names = words or [f"word{number}" for number in range(GROUPS * SIZE)]
    groups = [(moved or {}).get(name, number % GROUPS) for number, name in enumerate(names)]
    noise = np.random.default_rng(9).normal(size=(len(names), 16))
    return WordVectors(names, (centres[groups] + 0.05 * noise).astype(np.float32))


def sides(*vectors: WordVectors, **summaries: Any) -> list[Side]:
    names = "abcdef"
    return [
        Side(names[place], f"/runs/{names[place]}", found, summaries.get(names[place], {})) for place, found in enumerate(vectors)
    ]


def test_the_words_that_moved_are_named_first_with_their_neighbours() -> None:
    found = compare(sides(vectors_of(), vectors_of(moved={"word7": 3, "word20": 0})))
    (words,) = found["words"]
    assert words["common"] == GROUPS * SIZE
    assert {row["word"] for row in words["moved"][:2]} == {"word7", "word20"}
    first = next(row for row in words["moved"] if row["word"] == "word7")
    assert {int(word[4:]) % GROUPS for word in first["before"]} == {7}
    assert {int(word[4:]) % GROUPS for word in first["now"]} <= {3, 7}
    assert words["overlap"] > 0.7


def test_a_turned_copy_has_the_same_neighbourhoods() -> None:
    one = vectors_of()
    turn, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(16, 16)))
    found = compare(sides(one, WordVectors(one.words, (one.matrix @ turn).astype(np.float32))))
    assert found["words"][0]["overlap"] == 1.0
    assert "No setting, no score and no neighbourhood differs." in as_text(found)
    assert found["words"][0]["moved"] == [], "words whose neighbourhoods stayed are not listed among those that moved"


def test_vectors_without_words_in_common_are_not_called_the_same() -> None:
    text = as_text(compare(sides(vectors_of(), vectors_of(words=["x", "y"]))))
    assert "a and b have 0 words in common, too few to compare neighbourhoods" in text
    assert "differs" not in text


def test_results_with_other_words_or_sizes_are_not_called_the_same_where_their_common_words_have_the_same_neighbours() -> None:
    one = vectors_of()
    fewer = WordVectors(one.words[:-4], one.matrix[:-4])
    wider = WordVectors(one.words, np.hstack([one.matrix, np.zeros_like(one.matrix)]))
    for other in (fewer, wider):
        found = compare(sides(other, one))
        assert found["words"][0]["overlap"] == 1.0
        assert "differs" not in as_text(found)


def test_settings_scores_and_seconds_stand_beside_each_other() -> None:
    one, other = sample_summary(), sample_summary()
    other["config"] = {"run": {"name": "demo", "seed": 1}, "train": {"vector_size": 100, "epochs": 9, "model": "cbow"}}
    other["evaluation"]["similarity"]["wordsim353"] = 0.7
    found = compare(sides(vectors_of(), vectors_of(), vectors_of(2), a=one, b=other))
    assert found["settings"] == {"train.epochs": [3, 9, None]}
    (row,) = [row for row in found["scores"] if row["test"] == "wordsim353"]
    assert row["score"] == [0.6218, 0.7, None]
    assert found["seconds"]["train"] == [2.15, 2.15, None]
    assert found["seconds"].get("tokenize") is None, "reused: it took no time worth comparing"
    text = as_text(found, 120)
    for said in (
        "train.epochs  3  9  –",
        "0.622 (93.4% covered)",
        "a and c have 72 words in common",
        "Neighbourhoods that moved most: a → c",
    ):
        assert said in text, text
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("word", HOSTILE)
def test_hostile_words_stay_text_on_the_terminal_and_on_the_page(word: str) -> None:
    words = [word, *(f"word{number}" for number in range(1, 40))]
    summary = sample_summary() | {"config": {"run": {"name": word}, "train": {word: word}}}
    found = compare(sides(vectors_of(words=words), vectors_of(3, words=words), a=summary))
    shown = as_text(found)
    assert not [c for c in shown if not c.isprintable() and c != "\n"]
    hostile = Page(as_page(found))
    harmless = Page(
        as_page(compare(sides(vectors_of(words=["w", *words[1:]]), vectors_of(3, words=["w", *words[1:]]), a=summary)))
    )
    assert hostile.elements == harmless.elements
    assert "script" not in hostile.elements


def test_folders_and_files_of_vectors_can_be_compared_from_the_command_line(tmp_path: Path) -> None:
    vectors_of().save(tmp_path / "one")
    vectors_of(moved={"word7": 3}).save(tmp_path / "two")
    page = tmp_path / "page.html"
    arguments = ["compare", str(tmp_path / "one"), str(tmp_path / "two"), "--page", str(page)]
    done = CliRunner().invoke(commands, arguments)
    assert done.exit_code == 0, done.output
    assert "one and two have 72 words in common" in done.output
    assert "word7" in page.read_text()
    (there := tmp_path / "there.html").symlink_to(page)
    page.write_text("before")
    assert CliRunner().invoke(commands, [*arguments[:-1], str(there)]).exit_code == 0
    assert there.is_symlink(), "a link that somebody made stays"
    assert "word7" in page.read_text()
    (tmp_path / "null").symlink_to(os.devnull)
    refused = CliRunner().invoke(commands, [*arguments[:-1], str(tmp_path / "null")])
    assert "null: writing failed (not a regular file but a device)" in str(refused.exception)
    done = CliRunner().invoke(commands, [*arguments, "--json"])
    assert json.loads(done.output)["words"][0]["moved"][0]["word"] == "word7"


def test_the_same_text_in_another_folder_is_no_difference_and_other_text_at_the_same_place_is(tmp_path: Path) -> None:
    def trained(project: str) -> str:
        config = load_config(tmp_path / project / "c.yaml")
        run(config, workers=InProcess(), progress=Progress(quiet=True))
        return str(config.workdir / "latest")

    for project in ("here", "there"):
        (tmp_path / project).mkdir()
        (tmp_path / project / "text.txt").write_text("one two three one two three\n" * 50)
        (tmp_path / project / "pairs.txt").write_text("one\ttwo\t5\n")
        (tmp_path / project / "c.yaml").write_text(
            "corpus: {inputs: [text.txt]}\ntrain: {vector_size: 4, epochs: 1}\nevaluate: {similarity: [pairs.txt]}\n"
            "tracking: {enabled: false}\n"
        )
    one, other = trained("here"), trained("there")
    assert compare(open_sides([one, other]))["settings"] == {}
    before = tmp_path / "before"
    shutil.copytree(tmp_path / "here" / "runs", before, symlinks=True)
    (tmp_path / "here" / "text.txt").write_text("one two three four\n" * 50)
    found = compare(open_sides([str(before / "word2vec"), trained("here")]))["settings"]
    assert list(found) == ["text"]
    assert [str(told).rpartition(",")[0] for told in found["text"]] == ["1 file, 1,400 bytes", "1 file, 950 bytes"]


def test_things_that_cannot_be_compared_are_refused_by_name(tmp_path: Path) -> None:
    vectors_of().save(tmp_path / "one")
    with pytest.raises(UsageError, match="expected two or more of CONFIG, workdir, folder or file of vectors, found 1"):
        open_sides([str(tmp_path / "one")])
    with pytest.raises(InputError, match="absent: does not exist; give a CONFIG, a workdir or vectors"):
        open_sides([str(tmp_path / "one"), str(tmp_path / "absent")])
    (tmp_path / "text.txt").write_text("no vectors here\n")
    with pytest.raises(InputError, match=r"text\.txt: cannot be read as vectors"):
        open_sides([str(tmp_path / "one"), str(tmp_path / "text.txt")])
    assert [side.name for side in open_sides([str(tmp_path / "one")] * 2)] == [
        f"{tmp_path / 'one'} (1)",
        f"{tmp_path / 'one'} (2)",
    ]


def test_a_run_whose_vectors_are_damaged_or_gone_is_not_called_unfinished(tmp_path: Path) -> None:
    sentences = [["a", "b", "c"], ["c", "d", "e"]] * 50
    model = pipeline.train(sentences, workdir=tmp_path / "run", vector_size=4, epochs=1, min_count=1, progress=False)
    matrix = model.directory / "vectors.npy"
    for damage in (lambda: matrix.write_bytes(matrix.read_bytes()[:-1] + b"!"), lambda: shutil.rmtree(model.directory)):
        damage()
        with pytest.raises(DamagedError, match=str(model.directory)):
            open_sides([str(tmp_path / "run")] * 2)
