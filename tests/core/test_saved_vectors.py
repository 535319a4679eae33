"""Saved vectors come back complete, every word and number; a folder that differs from what was saved is refused by name."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2v_core.vectors import WordVectors

any_text = st.text(st.characters(exclude_categories=()), max_size=8)
awkward = st.sampled_from(["", "\n", "\r\n", "\\n", "a b", "\ud83d\ude00", "\U0001f600", "\ufeff", "\0"])
hostile_words = st.lists(any_text | awkward, min_size=1, max_size=12, unique=True)


@settings(max_examples=40, derandomize=True, deadline=None)  # every save waits for the disk nine times
@given(words=hostile_words)
def test_every_word_comes_back_from_disk(tmp_path_factory: pytest.TempPathFactory, words: list[str]) -> None:
    folder = tmp_path_factory.mktemp("vectors")
    matrix = np.arange(3 * len(words), dtype=np.float32).reshape(-1, 3)
    WordVectors(words, matrix, np.arange(len(words))).save(folder)
    loaded = WordVectors.load(folder, verify=True)
    assert list(loaded.words) == words
    np.testing.assert_array_equal(loaded.matrix, matrix)
    np.testing.assert_array_equal(loaded.counts, np.arange(len(words)))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    WordVectors(["the", "of", "and"], np.arange(12, dtype=np.float32).reshape(3, 4), np.array([9, 5, 2])).save(tmp_path / "v")
    return tmp_path / "v"


def test_saving_twice_gives_the_same_bytes_and_only_the_files_it_names(saved: Path) -> None:
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    written = WordVectors.load(saved).save(saved)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    assert sorted(path.name for path in written) == sorted(before) == ["counts.npy", "meta.json", "vectors.npy", "words.txt"]
    assert written[-1].name == "meta.json"
    assert before["words.txt"] == b"the\nof\nand\n"
    np.testing.assert_array_equal(np.load(saved / "vectors.npy", allow_pickle=False)[1], [4, 5, 6, 7])


def test_padded_columns_and_missing_counts_are_saved_as_they_are_seen(tmp_path: Path) -> None:
    padded = np.arange(32, dtype=np.float32).reshape(2, 16)
    WordVectors(["a", "b"], padded[:, :3]).save(tmp_path)
    loaded = WordVectors.load(tmp_path, verify=True)
    np.testing.assert_array_equal(loaded.matrix, padded[:, :3])
    assert loaded.counts is None


def test_loading_maps_the_matrix_instead_of_reading_it(tmp_path: Path) -> None:
    WordVectors([str(i) for i in range(1000)], np.ones((1000, 1000), np.float32)).save(tmp_path)
    tracemalloc.start()
    loaded = WordVectors.load(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000
    assert not loaded.matrix.flags.writeable
    assert loaded["7"].sum() == 1000


def rewrite_meta(folder: Path, **changes: Any) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(meta | changes))


def truthful_meta(folder: Path, **changes: Any) -> None:
    """Makes meta.json agree with the files as they are now, as an attacker would."""
    import hashlib

    names = [name for name in ("vectors.npy", "words.txt", "counts.npy") if (folder / name).exists()]
    contents = {name: (folder / name).read_bytes() for name in names}
    files = {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in contents.items()}
    rewrite_meta(folder, files=files, **changes)


def cut_matrix(folder: Path) -> None:
    path = folder / "vectors.npy"
    path.write_bytes(path.read_bytes()[:-4])


def cut_matrix_and_meta(folder: Path) -> None:
    cut_matrix(folder)
    truthful_meta(folder)


def change_word(folder: Path) -> None:
    (folder / "words.txt").write_bytes(b"the\nof\nAnd\n")


def add_word(folder: Path) -> None:
    (folder / "words.txt").write_bytes(b"the\nof\nand\nto\n")
    truthful_meta(folder)


def break_utf8(folder: Path) -> None:
    (folder / "words.txt").write_bytes(b"the\n\xc3\nand\n")
    truthful_meta(folder)


def claim_many_rows(folder: Path) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 4), }"
    data = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + header.ljust(117) + b"\n"
    (folder / "vectors.npy").write_bytes(data)
    truthful_meta(folder, shape=[10**12, 4])


def pickle_objects(folder: Path) -> None:
    np.save(folder / "vectors.npy", np.array([[object()] * 4] * 3), allow_pickle=True)
    truthful_meta(folder)


def store_doubles(folder: Path) -> None:
    np.save(folder / "vectors.npy", np.ones((3, 4)))
    truthful_meta(folder)


def store_columns_first(folder: Path) -> None:
    np.save(folder / "vectors.npy", np.ones((3, 4), np.float32, order="F"))
    truthful_meta(folder)


def store_text(folder: Path) -> None:
    (folder / "vectors.npy").write_bytes(b"these are not numbers")
    truthful_meta(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_matrix, r"vectors\.npy: 172 bytes, but meta\.json says .*176.*copy or train it again"),
        (cut_matrix_and_meta, r"vectors\.npy: expected 176 bytes, found 172"),
        (change_word, r"words\.txt: its content changed \(SHA-256 differs from meta\.json\)"),
        (add_word, r"words\.txt: expected 3 words, found 4"),
        (break_utf8, r"words\.txt: not the UTF-8 that was written \(byte 4\)"),
        (claim_many_rows, r"vectors\.npy: expected 16,000,000,000,128 bytes, found 128"),
        (pickle_objects, r"vectors\.npy: expected <f4 of shape \(3, 4\) in C order, found \|O of shape \(3, 4\)"),
        (store_doubles, r"expected <f4 .* found <f8"),
        (store_columns_first, r"found <f4 of shape \(3, 4\) in Fortran order"),
        (store_text, r"vectors\.npy: no \.npy header"),
        (
            lambda folder: rewrite_meta(folder, format_version=2),
            r"meta\.json: expected format_version 1, found 2; use the version",
        ),
        (
            lambda folder: rewrite_meta(folder, shape=[3, -4]),
            r"meta\.json: expected shape \[words, vector size\], found \[3, -4\]",
        ),
        (lambda folder: rewrite_meta(folder, files={"../x": 1}), r"meta\.json: expected files vectors\.npy, words\.txt"),
        (lambda folder: (folder / "meta.json").write_text("[1]"), r"expected format_version 1, found \[1\]"),
        (lambda folder: (folder / "meta.json").write_text("{"), r"meta\.json: not the JSON that was written"),
    ],
)
def test_a_damaged_folder_is_refused_by_name(saved: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(saved)
    with pytest.raises(ValueError, match=message):
        WordVectors.load(saved)


def test_one_changed_bit_of_the_matrix_is_found_when_asked_to_verify(saved: Path) -> None:
    path = saved / "vectors.npy"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"vectors\.npy: its content changed"):
        WordVectors.load(saved, verify=True)


def test_a_folder_without_vectors_is_said_to_have_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no word vectors here \(meta\.json is missing\)"):
        WordVectors.load(tmp_path)


def test_output_vectors_are_saved_and_loaded_beside_the_others(tmp_path: Path) -> None:
    words, matrix = (
        [f"w{word_id}" for word_id in range(300)],
        np.random.default_rng(5).standard_normal((300, 24)).astype(np.float32),
    )
    vectors = WordVectors(words, matrix, np.arange(300, 0, -1))
    both = WordVectors(words, vectors.matrix, vectors.counts, vectors.matrix[::-1])
    both.save(tmp_path)
    loaded = WordVectors.load(tmp_path, verify=True)
    assert loaded.predict_output_word(["w1", "w2"]) == both.predict_output_word(["w1", "w2"])
    np.testing.assert_array_equal(loaded.context_vectors()["w0"], vectors["w299"])
    vectors.save(tmp_path)  # without them: nothing of another training is left behind
    assert WordVectors.load(tmp_path).context is None
