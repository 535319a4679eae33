"""Every export returns every word and number, to its real reader and to ours, or is refused with what it cannot hold."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file

from pipeline.config import Publish
from pipeline.errors import StorageError
from pipeline.formats.exports import FORMATS, Wanted, export_vectors
from tests.gensims import models
from w2v_core.vectors import WordVectors

WORDS = ["the", "of", "naïve", "서울", '"quoted"', "a,b", "\\n", "</s>", "\U0001f600"]
EXTREMES = [0.0, -0.0, 1e-45, 3.4028235e38, -1.1754944e-38, 0.1, 1 / 3, 16777216.0, -7.0]


@pytest.fixture
def vectors() -> WordVectors:
    matrix = np.random.default_rng(2).standard_normal((len(WORDS), 5)).astype(np.float32)
    matrix[:, 2] = EXTREMES
    return WordVectors(WORDS, matrix, np.arange(90, 0, -10))


def bits(matrix: Any) -> list[list[int]]:
    """Float32 numbers as their bits, so that -0.0 differs from 0.0."""
    return np.ascontiguousarray(matrix, np.float32).view(np.int32).tolist()


def read_gensim(path: Path) -> tuple[list[str], Any]:
    keyed = models().KeyedVectors.load_word2vec_format(str(path), binary=path.suffix == ".bin")
    return list(keyed.index_to_key), keyed.vectors


def read_ours(path: Path) -> tuple[list[str], Any]:
    found = WordVectors.load(path)
    return list(found.words), found.matrix


def read_parquet(path: Path) -> tuple[list[str], Any]:
    table = pq.read_table(path, page_checksum_verification=True)
    return table["word"].to_pylist(), np.array(table["vector"].to_pylist(), np.float32)


def read_safetensors(path: Path) -> tuple[list[str], Any]:
    vocabulary = json.loads((path.parent / "vocab.json").read_text(encoding="utf-8"))
    assert list(vocabulary.values()) == list(range(len(vocabulary)))
    return list(vocabulary), load_file(path)["embeddings"]


def read_tensorboard(path: Path) -> tuple[list[str], Any]:
    numbers = [[float(field) for field in line.split("\t")] for line in path.read_text().split("\n")[:-1]]
    labels = (path.parent / "metadata.tsv").read_bytes().decode().split("\n")[:-1]
    if labels[0] == "word\tcount":
        labels = [line.rpartition("\t")[0] for line in labels[1:]]
    return labels, np.array(numbers, np.float32)


def read_npy(path: Path) -> tuple[list[str], Any]:
    found = WordVectors.load(path.parent, verify=True)
    return list(found.words), found.matrix


READERS: list[tuple[str, Callable[[Path], tuple[list[str], Any]]]] = [
    ("word2vec-text", read_gensim),
    ("word2vec-text", read_ours),
    ("word2vec-bin", read_gensim),
    ("word2vec-bin", read_ours),
    ("npy", read_npy),
    ("parquet", read_parquet),
    ("safetensors", read_safetensors),
    ("tensorboard", read_tensorboard),
]


def test_the_configuration_offers_every_format() -> None:
    assert list(FORMATS) == list(Publish(formats=list(FORMATS)).formats)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "read"), READERS)
def test_every_word_and_every_bit_of_every_number_comes_back(
    tmp_path: Path, vectors: WordVectors, name: str, read: Callable[[Path], tuple[list[str], Any]]
) -> None:
    written = export_vectors(vectors, [name], tmp_path)[name]
    words, matrix = read(written[0])
    assert words == WORDS
    assert bits(matrix) == bits(vectors.matrix)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in written)


any_word = st.text(st.characters(exclude_categories=()), max_size=6)
awkward = st.sampled_from(
    ["", " ", "a b", "\n", "\\n", "\t", "\r", "\x85", "\u2028", "\xa0", "\u3000", "\ud800", "\0", "\ufeff", "1 2"]
)
word_lists = st.lists(any_word | awkward, min_size=1, max_size=5, unique=True)


@settings(max_examples=40, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=word_lists)
@example(words=["\ufeff", "\\u0020", "0.5", "#", "NaN"])
def test_every_format_holds_every_word_or_refuses_it_by_name(tmp_path_factory: pytest.TempPathFactory, words: list[str]) -> None:
    matrix = np.arange(2 * len(words), dtype=np.float32).reshape(-1, 2) / 7
    vectors = WordVectors(words, matrix)
    for name, read in READERS:
        folder = tmp_path_factory.mktemp(name)
        written, refusal = attempt(vectors, name, folder)
        if refusal:
            assert any(FORMATS[name].unwritable.search(word) for word in words)
            assert f"{name} cannot hold" in refusal
            assert refusal.isprintable()
            assert not list(folder.iterdir())
        else:
            found, numbers = read(written[0])
            assert found == words
            assert bits(numbers) == bits(matrix)


def attempt(vectors: WordVectors, name: str, folder: Path) -> tuple[list[Path], str]:
    try:
        return export_vectors(vectors, [name], folder, Wanted(on_unwritable="refuse"))[name], ""
    except ValueError as error:
        return [], str(error)


@settings(max_examples=25, derandomize=True, deadline=None)
@given(words=word_lists)
def test_escaped_words_stay_apart_and_the_list_beside_them_leads_back(
    tmp_path_factory: pytest.TempPathFactory, words: list[str]
) -> None:
    vectors = WordVectors(words, np.ones((len(words), 2), np.float32))
    for name, read in READERS:
        folder = tmp_path_factory.mktemp(name)
        written = export_vectors(vectors, [name], folder, Wanted(on_unwritable="escape"))[name]
        lists = [path for path in written if path.name.endswith(".escaped.json")]
        original = {row["written"]: row["word"] for path in lists for row in json.loads(path.read_text())}
        assert [original.get(word, word) for word in read(written[0])[0]] == words


def test_refused_words_are_counted_and_the_first_ones_named_in_full_safety(tmp_path: Path) -> None:
    words = ["ok", "a b", "\x1b[2J\t", "", "\u202e \u202c", "x\n" * 60, "sixth word"]
    vectors = WordVectors(words, np.ones((7, 2), np.float32))
    message = (
        r"word2vec-bin cannot hold 6 of 7 words \(it has no way to write white space, NUL, lone surrogates or an empty word\): "
        r"'a b', '\\x1b\[2J\\t', '', '\\u202e \\u202c', '(x\\n){26}x…' …; export npy, which holds every word, or escape them"
    )
    with pytest.raises(ValueError, match=message):
        export_vectors(vectors, ["npy", "word2vec-bin"], tmp_path)
    assert not list(tmp_path.iterdir())  # nothing of the other format either


def test_an_escape_that_would_make_two_words_one_is_refused(tmp_path: Path) -> None:
    vectors = WordVectors(["a b", "a\\u0020b", "c"], np.ones((3, 2), np.float32))
    with pytest.raises(ValueError, match="word2vec-text: 1 word would, escaped, be another word: 'a b'; export npy"):
        export_vectors(vectors, ["word2vec-text"], tmp_path, Wanted(on_unwritable="escape"))


def test_an_unknown_format_is_refused_with_the_known_ones(tmp_path: Path, vectors: WordVectors) -> None:
    with pytest.raises(ValueError, match=r"formats: expected some of word2vec-text, .*tensorboard; found 'pickle'"):
        export_vectors(vectors, ["npy", "pickle"], tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_same_vectors_give_the_same_bytes(tmp_path: Path, vectors: WordVectors) -> None:
    first = export_vectors(vectors, list(FORMATS), tmp_path / "a")
    second = export_vectors(vectors, [*FORMATS, "npy"], tmp_path / "b")
    for name, paths in first.items():
        assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in second[name]]


def test_a_failed_write_leaves_no_file_behind(tmp_path: Path, vectors: WordVectors) -> None:
    (tmp_path / "vectors.txt").mkdir()  # a folder stands where the file should go
    with pytest.raises(StorageError, match=r"vectors\.txt: writing failed"):
        export_vectors(vectors, ["word2vec-text"], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["vectors.txt"]


def test_parquet_has_counts_a_list_type_of_fixed_size_and_page_checksums(tmp_path: Path, vectors: WordVectors) -> None:
    path = export_vectors(vectors, ["parquet"], tmp_path)["parquet"][0]
    table = pq.read_table(path)
    assert table.schema.field("vector").type == pa.list_(pa.float32(), 5)
    assert table.schema.field("count").type == pa.int64()
    assert table["count"].to_pylist() == list(range(90, 0, -10))
    data = path.read_bytes()
    refused = 0
    for position in range(8, 400, 8):  # the pages at the file's beginning
        path.write_bytes(data[:position] + bytes([data[position] ^ 4]) + data[position + 1 :])
        try:
            assert pq.read_table(path, page_checksum_verification=True).equals(table)
        except (OSError, pa.ArrowException):
            refused += 1
    assert refused > 20
    uncounted = WordVectors(WORDS, vectors.matrix)
    assert pq.read_table(export_vectors(uncounted, ["parquet"], tmp_path)["parquet"][0])["count"].null_count == len(WORDS)


def test_tensorboard_gets_the_most_frequent_words_with_their_counts_and_a_folder_to_open(
    tmp_path: Path, vectors: WordVectors
) -> None:
    tensors, config, metadata = export_vectors(vectors, ["tensorboard"], tmp_path, Wanted(tensorboard_words=3))["tensorboard"]
    assert metadata.read_text() == "word\tcount\nthe\t90\nof\t80\nnaïve\t70\n"
    assert config.name == "projector_config.pbtxt"
    named = dict(re.findall(r'(\w+): "([^"]+)"', config.read_text()))
    assert (named["tensor_path"], named["metadata_path"]) == (tensors.name, metadata.name)
    assert [len(line.split("\t")) for line in tensors.read_text().splitlines()] == [5, 5, 5]


def test_tensorboard_labels_are_escaped_without_asking(tmp_path: Path) -> None:
    vectors = WordVectors(["New York", "a\tb", "", " x", "line\nbreak"], np.ones((5, 2), np.float32))
    _, _, metadata, escaped = export_vectors(vectors, ["tensorboard"], tmp_path)["tensorboard"]
    assert metadata.read_text().split("\n") == ["New York", "a\\u0009b", "\\empty", "\\u0020x", "line\\u000abreak", ""]
    assert json.loads(escaped.read_text())[0] == {"word": "a\tb", "written": "a\\u0009b"}


@pytest.mark.turns(3, 1.5)
def test_padded_vectors_of_several_blocks_are_exported_without_their_padding(tmp_path: Path) -> None:
    rows = 2 * 8192 + 3
    padded = np.random.default_rng(0).standard_normal((rows, 8)).astype(np.float32)
    vectors = WordVectors([f"w{i}" for i in range(rows)], padded[:, :3])
    for name, read in READERS:
        words, matrix = read(export_vectors(vectors, [name], tmp_path, Wanted(tensorboard_words=rows))[name][0])
        assert words == list(vectors.words)
        np.testing.assert_array_equal(matrix, padded[:, :3])


# ── parts of the vectors, other widths, counts ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("name", "read"), READERS)
def test_the_first_words_alone_are_exported(tmp_path: Path, vectors: WordVectors, name: str, read: Any) -> None:
    words, matrix = read(export_vectors(vectors, [name], tmp_path, Wanted(words=4))[name][0])
    assert (words, bits(matrix)) == (WORDS[:4], bits(vectors.matrix[:4]))


@pytest.mark.parametrize(("name", "read"), [row for row in READERS if row[0] != "word2vec-bin"])
def test_float16_is_written_in_every_format_that_can_hold_it(tmp_path: Path, name: str, read: Any) -> None:
    matrix = np.random.default_rng(2).standard_normal((9, 5)).astype(np.float32)
    matrix[0] = [65504, -65504, 6e-8, -0.0, 0.1]
    written = export_vectors(WordVectors(WORDS, matrix), [name], tmp_path, Wanted(dtype="float16"))[name]
    words, found = read(written[0])
    # Text has the shortest digits that mean this float16: 0.1, not 0.0999755859375.
    assert (words, bits(found.astype(np.float16))) == (WORDS, bits(matrix.astype(np.float16)))
    wide = export_vectors(WordVectors(WORDS, matrix), [name], tmp_path / "wide")[name]
    if name not in ("parquet", "tensorboard", "npy"):
        assert written[0].stat().st_size < wide[0].stat().st_size


def test_vectors_are_loaded_from_what_was_exported(tmp_path: Path, vectors: WordVectors) -> None:
    for dtype in ("float32", "float16"):
        ordinary = WordVectors(vectors.words, vectors.matrix[:, :2], vectors.counts)
        written = export_vectors(
            ordinary,
            ["safetensors", "parquet", "npy"],
            tmp_path / dtype,
            Wanted(dtype=dtype, counts=True),  # type: ignore[arg-type]
        )
        for path in (written["safetensors"][0], written["parquet"][0], tmp_path / dtype):
            found = WordVectors.load(path)
            assert (found.words, found.matrix.dtype) == (vectors.words, dtype)
            np.testing.assert_array_equal(found.matrix, ordinary.matrix.astype(dtype))
            assert list(found.counts) == list(vectors.counts)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:Exception ignored in")  # gensim opens the file twice and closes one
def test_text_without_a_header_is_gloves_format(tmp_path: Path, vectors: WordVectors) -> None:
    [path] = export_vectors(vectors, ["word2vec-text"], tmp_path, Wanted(header=False))["word2vec-text"]
    keyed = models().KeyedVectors.load_word2vec_format(str(path), no_header=True)
    assert (keyed.index_to_key, bits(keyed.vectors)) == (WORDS, bits(vectors.matrix))


@pytest.mark.parametrize("name", ["word2vec-text", "word2vec-bin"])
def test_counts_are_written_as_word2vec_writes_them(tmp_path: Path, vectors: WordVectors, name: str) -> None:
    path, counts = export_vectors(vectors, [name], tmp_path, Wanted(counts=True))[name]
    keyed = models().KeyedVectors.load_word2vec_format(str(path), fvocab=str(counts), binary=name == "word2vec-bin")
    assert [keyed.get_vecattr(word, "count") for word in WORDS] == list(range(90, 0, -10))


@pytest.mark.parametrize(
    ("formats", "wanted", "message"),
    [
        (["word2vec-bin"], Wanted(dtype="float16"), "word2vec-bin holds float32 only; export npy, safetensors or parquet"),
        (["npy"], Wanted(dtype="float16"), "float16: the vector of 'of' holds a number beyond 65,5"),
        (["npy"], Wanted(header=False), "only word2vec-text can do without .* add -f word2vec-text"),
        (["word2vec-text", "word2vec-bin"], Wanted(header=False), "word2vec-bin cannot be read without"),
        (["npy"], Wanted(words=0), "words: expected at least 1, found 0"),
    ],
)
def test_what_a_format_cannot_do_is_refused_before_anything_is_written(
    tmp_path: Path, formats: list[str], wanted: Wanted, message: str
) -> None:
    vectors = WordVectors(["the", "of"], np.array([[1, 2], [3, 70000]], np.float32))
    with pytest.raises(ValueError, match=message):
        export_vectors(vectors, formats, tmp_path, wanted)
    with pytest.raises(ValueError, match="counts: these vectors came without counts"):
        export_vectors(vectors, ["npy"], tmp_path, Wanted(counts=True))
    assert not list(tmp_path.iterdir())


# ── foreign files ────────────────────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=60, derandomize=True, deadline=None)
@given(matrix=hnp.arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 3)), elements=st.floats(width=32)))
def test_every_float_comes_back_from_text_and_binary(tmp_path_factory: pytest.TempPathFactory, matrix: Any) -> None:
    folder = tmp_path_factory.mktemp("floats")
    vectors = WordVectors([f"w{i}" for i in range(len(matrix))], matrix)
    for binary, paths in enumerate(export_vectors(vectors, ["word2vec-text", "word2vec-bin"], folder).values()):
        np.testing.assert_array_equal(WordVectors.load(paths[0], binary=bool(binary)).matrix, matrix)
        if not np.isnan(matrix).any():
            assert bits(WordVectors.load(paths[0], binary=bool(binary)).matrix) == bits(matrix)


@pytest.mark.parametrize("binary", [False, True])
def test_files_that_gensim_wrote_are_read(tmp_path: Path, vectors: WordVectors, binary: bool) -> None:
    keyed = models().KeyedVectors(5)
    keyed.add_vectors(WORDS, np.array(vectors.matrix))
    keyed.save_word2vec_format(str(tmp_path / "file"), binary=binary)
    assert (read_ours(tmp_path / "file")[0], bits(read_ours(tmp_path / "file")[1])) == (WORDS, bits(vectors.matrix))


def test_a_file_cut_anywhere_is_refused(tmp_path: Path, vectors: WordVectors) -> None:
    for paths in export_vectors(vectors, ["word2vec-text", "word2vec-bin"], tmp_path).values():
        data = paths[0].read_bytes()
        for end in range(0, len(data) - 1, 3):  # without its last newline alone, a binary file is whole
            paths[0].write_bytes(data[:end])
            with pytest.raises(ValueError, match="vectors"):
                WordVectors.load(paths[0])


@pytest.mark.parametrize("point", ["place:vectors.npy", "place:words.txt"])
def test_an_export_that_was_killed_leaves_nothing_and_is_finished_by_the_same_command(
    tmp_path: Path, vectors: WordVectors, point: str
) -> None:
    vectors.save(tmp_path / "vectors")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "pipeline.cli", "export", str(tmp_path / "vectors"), str(out), "-f", "npy"]
    killed = subprocess.run(
        command, env=os.environ | {"W2V_FAILPOINT": f"{point}=kill,{tmp_path / 'token'}"}, capture_output=True, timeout=120
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert list(out.glob(".export.*"))
    (out / ".export.mine").mkdir()
    done = subprocess.run(command, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in out.glob(".export.*")] == [".export.mine"], "that is nobody's who exports"
    assert np.array_equal(np.load(out / "vectors.npy"), vectors.matrix)
