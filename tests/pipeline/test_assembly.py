"""From a checkpoint's blocks to vectors/: the same numbers without padding, or a clear error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline import store
from pipeline.assembly import CONTEXT, write_vectors
from pipeline.errors import DamagedError, DataError
from w2v_core.vectors import WordVectors

WORDS = [f"word{index}" for index in range(3000)]
COUNTS = np.arange(3000, 0, -1)


def checkpoint_of(directory: Path, w_in: np.ndarray, w_out: np.ndarray) -> store.Artefact:
    """In blocks of 1,300 rows."""
    parts = tuple(
        store.write_array(
            directory / "checkpoints" / "0" / f"{name}-{index:05d}.npy",
            matrix[first : first + 1300],
            rows=len(matrix[first : first + 1300]),
        )
        for name, matrix in (("w_in", w_in), ("w_out", w_out))
        for index, first in enumerate(range(0, len(matrix), 1300))
    )
    return store.Artefact(
        directory / "checkpoints" / "0", store.Manifest(stage="checkpoints", fingerprint="0", parts=parts, totals={}, inputs=())
    )


def padded(seed: int) -> np.ndarray:
    matrix = np.zeros((3000, 16), np.float32)
    matrix[:, :10] = np.random.default_rng(seed).normal(size=(3000, 10))
    return matrix


def test_the_vectors_are_the_checkpoints_rows_without_their_padding(tmp_path: Path) -> None:
    w_in, w_out = padded(1), padded(2)
    parts = write_vectors(checkpoint_of(tmp_path, w_in, w_out), 10, WORDS, COUNTS, tmp_path / "vectors")
    vectors = WordVectors.load(tmp_path / "vectors", verify=True)
    np.testing.assert_array_equal(vectors.matrix, w_in[:, :10])
    np.testing.assert_array_equal(np.load(tmp_path / "vectors" / CONTEXT), w_out[:, :10])
    assert {part.name for part in parts} == {file.name for file in (tmp_path / "vectors").iterdir()}
    for part in parts:
        assert store.file_sha256(tmp_path / "vectors" / part.name) == part.sha256


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["w_in", "w_out"])
def test_a_number_that_is_not_finite_is_an_error_that_names_the_matrix(tmp_path: Path, name: str, bad: float) -> None:
    matrices = {"w_in": padded(1), "w_out": padded(2)}
    matrices[name][2999, 9] = bad
    with pytest.raises(DataError, match=f"numbers in {name} that are not finite; run again with a lower train.alpha"):
        write_vectors(checkpoint_of(tmp_path, **matrices), 10, WORDS, COUNTS, tmp_path / "vectors")


@pytest.mark.parametrize("name", ["w_in-00001.npy", "w_out-00002.npy"])
def test_a_flipped_bit_in_a_checkpoints_block_is_found_before_it_becomes_a_vector(tmp_path: Path, name: str) -> None:
    checkpoint = checkpoint_of(tmp_path, padded(1), padded(2))
    content = bytearray((checkpoint.directory / name).read_bytes())
    content[5000] ^= 4
    (checkpoint.directory / name).write_bytes(content)
    with pytest.raises(DamagedError, match=rf"{name}: its content changed .*; run again to go on from the checkpoint before"):
        write_vectors(checkpoint, 10, WORDS, COUNTS, tmp_path / "vectors")
