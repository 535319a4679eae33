"""From the padded matrices of the lanes to vectors/: the same numbers without padding, or a clear error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline import store
from pipeline.errors import DataError, StorageError
from pipeline.training.assembly import CONTEXT, add_words, write_matrix
from w2v_core.vectors import WordVectors

WORDS = [f"word{index}" for index in range(3000)]
COUNTS = np.arange(3000, 0, -1)


def padded(seed: int) -> np.ndarray:
    matrix = np.zeros((3000, 16), np.float32)
    matrix[:, :10] = np.random.default_rng(seed).normal(size=(3000, 10))
    return matrix


def test_the_vectors_are_the_lanes_rows_without_their_padding(tmp_path: Path) -> None:
    w_in, w_out = padded(1), padded(2)
    matrices = [write_matrix(index, matrix, 10, tmp_path) for index, matrix in enumerate((w_in, w_out))]
    parts = add_words(tmp_path, matrices, 10, WORDS, COUNTS)
    vectors = WordVectors.load(tmp_path, verify=True)
    np.testing.assert_array_equal(vectors.matrix, w_in[:, :10])
    assert list(vectors.words) == WORDS
    np.testing.assert_array_equal(np.load(tmp_path / CONTEXT), w_out[:, :10])
    assert {part.name for part in parts} == {file.name for file in tmp_path.iterdir()}
    for part in parts:
        assert store.file_sha256(tmp_path / part.name) == part.sha256


def test_the_files_are_those_that_saving_whole_vectors_writes(tmp_path: Path) -> None:
    w_in = padded(1)
    add_words(tmp_path / "parts", [write_matrix(0, w_in, 10, tmp_path / "parts")], 10, WORDS, COUNTS)
    WordVectors(WORDS, w_in[:, :10].copy(), COUNTS).save(tmp_path / "whole")
    names = {file.name for file in (tmp_path / "whole").iterdir()}
    assert names == {file.name for file in (tmp_path / "parts").iterdir()}
    for name in names:
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("index", "name"), [(0, "w_in"), (1, "w_out")])
def test_a_number_that_is_not_finite_is_an_error_that_names_the_matrix(tmp_path: Path, index: int, name: str, bad: float) -> None:
    matrix = padded(1)
    matrix[2999, 9] = bad
    with pytest.raises(DataError, match=f"numbers in {name} that are not finite; run again with a lower train.alpha"):
        write_matrix(index, matrix, 10, tmp_path)
    assert not list(tmp_path.iterdir())


def test_padding_is_not_looked_at(tmp_path: Path) -> None:
    matrix = padded(1)
    matrix[5, 10:] = np.nan
    assert write_matrix(0, matrix, 10, tmp_path).rows == 3000


def test_words_beside_a_folder_that_is_gone_are_an_error_that_names_it(tmp_path: Path) -> None:
    matrix = write_matrix(0, padded(1), 10, tmp_path / "vectors")
    (tmp_path / "vectors").rename(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match=f"{tmp_path / 'vectors'}"):
        add_words(tmp_path / "vectors", [matrix], 10, WORDS, COUNTS)
