"""The commands that use any program's vectors: what their help promises, notes and exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from pipeline.commands.arguments import say
from pipeline.commands.listed import commands
from pipeline.errors import PipelineError
from pipeline.history.latest import entries
from pipeline.progress import Progress
from tests.pipeline.changing_corpus import ChangingCorpus
from w2v_core.vectors import WordVectors

ROOT = Path(__file__).parents[2]
VECTORS = "6 2\nking 3 1\nqueen 3 -1\nman 1 1\nwoman 1 -1\nboy .5 1\ngirl .5 -1\n"
PAIRS = "king\tqueen\t8\nman\tgirl\t2\nboy\tgirl\t5\n"


@pytest.fixture
def source(tmp_path: Path) -> str:
    (tmp_path / "v.txt").write_text(VECTORS)
    return str(tmp_path / "v.txt")


def w2v(*arguments: str, given: bytes | None = None) -> Result:
    """Runs the command in this process, `given` on standard input; errors are raised, which `pipeline.cli` would catch."""
    return CliRunner().invoke(commands, arguments, input=given, standalone_mode=False)


def error_of(*arguments: str) -> tuple[int, str]:
    """(exit code, message) of a command that fails."""
    error = w2v(*arguments).exception
    assert error is not None
    if isinstance(error, PipelineError):
        return error.exit_code, str(error)
    return 64, getattr(error, "message", str(error))  # click's usage errors; main exits with 64


def test_words_with_a_hyphen_count_against(source: str) -> None:
    together = w2v("query", "similar", source, "-n", "2", "--", "king", "woman", "-man")
    for asked in (
        ["king", "woman", "-man", "-n2"],
        ["king", "-n", "2", "-man", "woman"],
        ["--limit=6", "-n2", "-man", "--", "king", "woman"],
    ):
        assert w2v("query", "similar", source, *asked).output.splitlines()[1:] == together.output.splitlines()[1:], asked
    assert together.output.splitlines()[0] == "king woman −man"
    expected = WordVectors.load(source).most_similar(["king", "woman"], ["man"], topn=2)
    assert together.output.splitlines()[1:] == [f"  {score:6.3f}  {word}" for word, score in expected]
    apart = w2v("query", "similar", source, "king", "woman", "-n", "1").output.splitlines()
    assert [line for line in apart if not line.startswith(" ")] == ["king", "woman"]
    for before in (["--"], []):
        assert w2v("query", "similar", source, *before, "-man").output.startswith("−man\n")


@pytest.mark.parametrize("number", ["1_0", "１０", "٣", "1.0", "1e1", "x", ""])
def test_a_number_is_written_in_the_digits_0_to_9(source: str, number: str) -> None:
    assert error_of("query", "similar", source, "king", "-n", number)[1] == f"expected a whole number, found {number!r}"
    assert error_of("plan", source, "--gbit", number.replace("1.0", "1_0").replace("1e1", "１e1"))[0] == 64


def test_what_begins_with_one_hyphen_is_a_word_and_with_two_an_option(source: str) -> None:
    Path(source).write_text(VECTORS.replace("boy", "-nancy").replace("girl", "-"))
    asked = w2v("query", "analogy", source, "king", "-nancy", "-", "-n", "1")
    assert (asked.output, asked.exit_code) == (w2v("query", "analogy", source, "-n1", "--", "king", "-nancy", "-").output, 0)
    assert error_of("query", "predict", source, "-nancy") == error_of("query", "predict", source, "king")
    assert error_of("query", "similar", source, "king", "--nancy") == (64, "No such option '--nancy'.")
    assert "Usage: " in w2v("query", "similar", "-h").output


@pytest.mark.parametrize("count", ["0", "-1", "x"])
@pytest.mark.parametrize("question", [("similar", "king"), ("analogy", "king", "queen", "man"), ("predict", "king")])
def test_the_number_of_answers_must_be_at_least_one(source: str, question: tuple[str, ...], count: str) -> None:
    code, message = error_of("query", question[0], source, *question[1:], "-n", count)
    assert code == 64
    assert count in message


def test_vectors_with_numbers_that_are_not_finite_are_an_error_of_the_data(source: str, tmp_path: Path) -> None:
    Path(source).write_text("2 2\na nan 1\nb 1 1\n")
    (tmp_path / "pairs").write_text("a\tb\t1\nb\ta\t2\n")
    for command in (
        ("query", "similar", source, "b"), ("query", "analogy", source, "a", "b", "a"), ("export", source, str(tmp_path / "x")),
        ("evaluate", source, str(tmp_path / "pairs")),
    ):  # fmt: skip
        code, message = error_of(*command)
        assert (code, "not finite, first that of 'a'" in message) == (65, True)
    assert not (tmp_path / "x").exists()


def test_a_file_is_read_with_the_options_that_its_error_names(source: str) -> None:
    Path(source).write_text(VECTORS[:-1])
    code, message = error_of("query", "similar", source, "king")
    assert (code, "or load it as it is with --allow-unfinished" in message) == (65, True)
    found = w2v("query", "similar", source, "king", "--allow-unfinished")
    assert found.exit_code == 0
    assert "note: " in found.stderr
    assert "the last number of 'girl'" in found.stderr
    Path(source).write_text(VECTORS.replace("6 2", "3 2"))
    assert "--limit 3 loads the words" in error_of("query", "similar", source, "king")[1]
    assert len(w2v("query", "similar", source, "king", "--limit", "3").stdout.splitlines()) == 3
    Path(source).write_bytes(VECTORS.replace("queen", "qu\xe9en").encode("latin-1"))
    assert "read it with --unicode-errors backslashreplace" in error_of("query", "similar", source, "king")[1]
    assert "qu\\xe9en" in w2v("query", "similar", source, "king", "--unicode-errors", "backslashreplace").stdout
    assert error_of("query", "similar", source, "king", "--unicode-errors", "sometimes")[0] == 64
    Path(source).write_text(VECTORS[4:])
    assert "note: " in w2v("query", "similar", source, "king").stderr
    assert w2v("query", "similar", source, "king", "--no-header").stderr == ""
    assert error_of("query", "similar", source.replace("v.txt", "none.txt"), "king")[0] == 66


def test_any_vectors_are_scored_on_any_sets(source: str, tmp_path: Path) -> None:
    sets = {"pairs.tsv": PAIRS + "king\tman\t1,5\n", "q.txt": ": family\nking queen man woman\n: gram\nman woman boy girl\n"}
    for name, text in sets.items():
        (tmp_path / name).write_text(text)
    paths = [str(tmp_path / name) for name in sets]
    found = w2v("evaluate", source, *paths)
    assert found.exit_code == 0, found.exception
    assert [line.split("  ")[0] for line in found.stdout.splitlines()] == [
        "q, all", "q, semantic", "q, syntactic", "", "", "pairs",
    ]  # fmt: skip
    assert "note: pairs: 1 of 4 lines (25.0%) could not be used" in found.stderr
    scores = json.loads(w2v("evaluate", source, *paths, "--json", "--method", "3cosmul", "--restrict-vocab", "4").stdout)
    assert (scores["analogy"]["q"]["method"], scores["analogy"]["q"]["asked"]) == ("3cosmul", 1)
    assert scores["similarity"]["pairs"]["coverage"] == 0.75
    exact = json.loads(w2v("evaluate", source, paths[0], "--json", "--case-sensitive").stdout)
    assert exact["similarity"]["pairs"]["case"] == "exact"
    assert error_of("evaluate", source)[0] == 64
    assert error_of("evaluate", source, paths[1], "--syntactic", "(")[0] == 64
    assert error_of("evaluate", source, str(tmp_path / "none.tsv"))[0] == 66
    assert error_of("evaluate", "config.yaml", "--method", "3cosmul")[0] == 64


def test_exports_are_narrowed_by_options(source: str, tmp_path: Path) -> None:
    done = w2v(
        "export",
        source,
        str(tmp_path / "out"),
        "-f",
        "npy",
        "-f",
        "word2vec-text",
        "--words",
        "2",
        "--float16",
        "--without-header",
    )
    assert done.exit_code == 0, done.exception
    found = WordVectors.load(tmp_path / "out")
    assert (found.words, found.matrix.dtype) == (("king", "queen"), np.float16)
    assert (tmp_path / "out" / "vectors.txt").read_text() == "king 3.0 1.0\nqueen 3.0 -1.0\n"
    assert error_of("export", source, str(tmp_path / "out"), "--counts")[0] == 64


def test_nothing_that_comes_from_data_reaches_the_terminal_as_a_command(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(source).write_text("3 1\nking 1\n\x1b[2Jqueen 1\nb\u202eoy 1\n")
    found = w2v("query", "similar", source, "king").output
    assert "\\x1b[2Jqueen" in found
    assert "b\\u202eoy" in found
    strange = tmp_path / "pa\x1b[31mirs.tsv"
    strange.write_text("king\tqueen\t1\nking\t\x1b[2J\t2\n\x1b\n")
    shown = w2v("evaluate", source, str(strange)).output
    assert "\x1b" not in shown
    say("two\nlines \x07")
    Progress().line("a \x1b[2J word\nand a line")
    told = capsys.readouterr()
    assert (told.out, told.err) == ("two\nlines \\x07\n", "a \\x1b[2J word\nand a line\n")


def test_an_empty_folder_name_and_one_that_is_too_long_are_refused(source: str) -> None:
    code, message = error_of("export", source, "")
    assert (code, message) == (64, "export: TARGET is an empty text; write . for the current folder")
    for name in ("a" * 300, f"{'a' * 300}/b"):
        code, message = error_of("query", "similar", name, "king")
        assert (code, message.endswith("(File name too long)")) == (66, True)


def test_a_folder_of_exports_names_the_files_that_can_be_given(source: str, tmp_path: Path) -> None:
    assert w2v("export", source, str(tmp_path / "out"), "-f", "word2vec-text").exit_code == 0
    code, message = error_of("query", "similar", str(tmp_path / "out"), "king")
    found = f"out: neither a finished run nor vectors in this folder, but in {tmp_path / 'out' / 'vectors.txt'}"
    assert (code, found in message) == (66, True)
    assert w2v("query", "similar", str(tmp_path / "out" / "vectors.txt"), "king").exit_code == 0


def test_an_address_of_a_registry_that_is_not_set_leaves_no_database(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    command = [sys.executable, "-m", "pipeline.cli", "query", "similar", "models:/words@champion", "king"]
    asked = subprocess.run(
        command, cwd=tmp_path, env=environment | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=200
    )
    assert asked.stderr == (
        "w2v: models:/words@champion: set MLFLOW_TRACKING_URI to the store of the run (`w2v status` shows it)\n"
    )
    assert asked.returncode == 66
    assert list(tmp_path.iterdir()) == []


# ── a file as the target of an export ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["v.vec", "V.TXT", "v.2.bin", "v.parquet"])
def test_an_export_to_the_name_of_a_file_writes_this_file_in_its_format_and_nothing_else(
    source: str, tmp_path: Path, name: str
) -> None:
    target = tmp_path / "there" / name
    assert w2v("export", source, str(target)).output == f"{target}\n"
    assert list(target.parent.iterdir()) == [target]
    found, expected = WordVectors.load(target), WordVectors.load(source)
    assert found.index_to_key == expected.index_to_key
    np.testing.assert_array_equal(found.matrix, expected.matrix)
    assert w2v("export", source, str(target)).exception is None
    code, message = error_of("export", source, str(target), "--words", "2")
    assert (code, message) == (64, f"{target}: it exists, with another content; choose another name, or replace it with --force")
    assert len(WordVectors.load(target)) == 6
    assert w2v("export", source, str(target), "--words", "2", "--force").exception is None
    assert len(WordVectors.load(target)) == 2


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("v.npy", (), "npy is several files, so give a folder for them, with -f npy; a file ends in .vec, .txt, .bin, .parquet"),
        ("v.safetensors", (), "safetensors is several files"),
        ("v.tsv", (), "tensorboard is several files"),
        ("v.kv", (), "no export writes .kv files; a file ends in .vec, .txt, .bin, .parquet, any other name is that of a folder"),
        ("v.vec.gz", (), "exports are not compressed; export "),
        ("v.vec", ("-f", "parquet"), "is the name of a file, in word2vec-text; for parquet give a folder, or another ending"),
        ("v.bin", ("--float16",), "float16: word2vec-bin holds float32 only"),
    ],
)
def test_a_name_of_a_file_that_no_export_writes_is_refused_and_leaves_nothing(
    source: str, tmp_path: Path, target: str, options: tuple[str, ...], message: str
) -> None:
    code, found = error_of("export", source, str(tmp_path / "there" / target), *options)
    assert code == 64
    assert message in found
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and str(path) != source]


def test_what_only_a_folder_can_hold_is_not_written_beside_a_file(tmp_path: Path) -> None:
    matrix = np.eye(2, dtype=np.float32)
    WordVectors(["a b", "c"], matrix, np.array([2, 1])).save(tmp_path / "saved")
    code, message = error_of("export", str(tmp_path / "saved"), str(tmp_path / "v.vec"), "--counts", "--on-unwritable", "escape")
    assert code == 64
    assert message.startswith(f"{tmp_path / 'v.vec'}: vocab.txt")
    assert message.endswith("would be written beside it; give a folder, for all of its files")
    assert w2v("export", str(tmp_path / "saved"), str(tmp_path / "v.vec"), "--on-unwritable", "escape").exception is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["saved", "v.vec", "v.vec.escaped.json"]


def test_names_of_folders_stay_names_of_folders(source: str, tmp_path: Path) -> None:
    (tmp_path / "old.vec").mkdir()
    for name in ("out", "v1.2", "old.vec", "new.vec/"):
        assert w2v("export", source, f"{tmp_path}/{name}").exception is None
        assert (tmp_path / name / "vectors.bin").is_file()
    with contextlib.chdir(tmp_path):
        found = error_of("export", source, "-")
    assert found == (64, "export: vectors are not written to standard output; give a folder, or a file such as vectors.vec")
    code, message = error_of("export", source, "s3://bucket/v.vec")
    assert (code, message.partition("; ")[2]) == (64, "leave out the ending, and give -f word2vec-text")


# ── questions of programs ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_query_for_a_program_is_one_json_object_with_every_digit(source: str) -> None:
    vectors = WordVectors.load(source)

    def told(*arguments: str) -> object:
        return json.loads(w2v("query", *arguments).stdout)

    def as_data(answers: list[tuple[str, float]]) -> list[dict[str, object]]:
        return [{"word": word, "score": score} for word, score in answers]

    apart = [
        {"positive": [word], "negative": [], "found": as_data(vectors.most_similar(word, topn=2))} for word in ("king", "man")
    ]
    assert told("similar", source, "king", "man", "-n2", "--json") == {"vectors": source, "answers": apart}
    together = as_data(vectors.most_similar(["king", "woman"], ["man"], topn=1))
    assert told("similar", source, "king", "woman", "-man", "-n", "1", "--json") == {
        "vectors": source,
        "answers": [{"positive": ["king", "woman"], "negative": ["man"], "found": together}],
    }
    answers = as_data(vectors.analogy("man", "king", "woman", topn=5))
    expected = {"vectors": source, "words": ["man", "king", "woman"], "found": answers}
    assert told("analogy", source, "man", "king", "woman", "--json") == expected
    partly = w2v("query", "similar", source, "nowhere", "king", "man", "-n2", "--json")
    assert json.loads(partly.stdout)["answers"] == apart
    assert "'nowhere' is not in the vocabulary" in str(partly.exception)


def test_words_come_from_a_file_or_from_standard_input_one_a_line(source: str, tmp_path: Path) -> None:
    expected = w2v("query", "similar", source, "boy", "king", "man", "-n2").output
    (tmp_path / "words.txt").write_bytes(b"king\r\n\nman")
    assert w2v("query", "similar", source, "boy", "--words-from", str(tmp_path / "words.txt"), "-n2").output == expected
    assert w2v("query", "similar", source, "--words-from", "-", "-n2", given=b"boy\nking\nman\n").output == expected
    Path(source).write_text(VECTORS.replace("boy", "-nancy"))
    assert w2v("query", "similar", source, "--words-from", "-", given=b"-nancy\nking\n").output.startswith("-nancy\n")
    assert error_of("query", "similar", source) == (64, "query similar: give at least one word")


# ── scores of a refreshed workdir ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.turns(3, 2)
def test_scores_of_a_refreshed_workdir_are_those_of_its_last_result_and_nothing_is_trained(tmp_path: Path) -> None:
    corpus = ChangingCorpus(tmp_path, seed=5)
    corpus.refresh()
    corpus.add()
    refreshed = corpus.refresh()
    assert refreshed["start"] == "warm"
    before = {path: path.read_bytes() for path in (tmp_path / "work" / "vectors").rglob("*") if path.is_file()}
    asked = w2v("evaluate", str(tmp_path / "config.yaml"), "--json")
    assert asked.exception is None
    assert json.loads(asked.stdout)["vectors"]["sha256"] == refreshed["vectors"]["sha256"]
    assert asked.stderr.rstrip().endswith("(made by w2v refresh)")
    assert {path: path.read_bytes() for path in (tmp_path / "work" / "vectors").rglob("*") if path.is_file()} == before
    assert len(entries(tmp_path / "work")) == 2
