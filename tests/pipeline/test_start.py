"""Training that starts from other vectors: rows are found by word, and the result depends on nothing but its inputs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import store
from pipeline.cluster.workers import InProcess
from pipeline.config import parse_config
from pipeline.errors import ConfigError, DataError, InputError
from pipeline.progress import Progress
from pipeline.run import run
from pipeline.training.beginning import Beginning, fill_by_word
from pipeline.training.policy import START_POLICY
from tests.tiny import tiny_config, write_corpus
from w2v_core.vectors import WordVectors

TRAIN: dict[str, object] = {"lanes": 2, "epochs": 1, "vector_size": 8, "checkpoint_every": 1500}


def train(directory: Path, inputs: list[str], **changed: object) -> dict[str, Any]:
    tree = tiny_config(directory, inputs, tracking={"enabled": False}, train=TRAIN | changed)
    return run(parse_config(tree), until="train", workers=InProcess(), progress=Progress(quiet=True))


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], str]:
    """(an empty folder, the corpus, the folder of vectors trained on it)."""
    base = tmp_path_factory.mktemp("parent")
    inputs = write_corpus(base / "corpus", sentences=500)
    return base, inputs, train(base / "work", inputs)["vectors"]["path"]


def block(parent: str, words: list[str], tmp_path: Path, matrix: int = 0) -> np.ndarray:
    """The initial rows of these words."""
    import pyarrow as pa

    store.write_table(tmp_path / "vocab.parquet", pa.table({"word": words}))
    rows = np.zeros((len(words), 16), np.float32)
    Beginning(parent, tmp_path / "vocab.parquet", vector_size=8, seed=7).fill(matrix, rows, 0)
    assert not rows[:, 8:].any(), "padding stays zero"
    return rows[:, :8]


def test_a_known_word_begins_with_its_rows_and_a_new_one_with_numbers_of_its_own(
    parent: tuple[Path, list[str], str], tmp_path: Path
) -> None:
    vectors = WordVectors.load(parent[2])
    context = np.load(Path(parent[2]) / "context.npy")
    known = vectors.words[3]
    one = block(parent[2], ["new", known, "newer"], tmp_path)
    other = block(parent[2], [known, "newest", "newer", "new"], tmp_path)
    kept_length = np.float32(START_POLICY.kept_length)
    np.testing.assert_array_equal(one[1], kept_length * vectors.matrix[3])
    np.testing.assert_array_equal(other[0], one[1])
    np.testing.assert_array_equal(one[0], other[3])
    np.testing.assert_array_equal(one[2], other[2])
    assert len(np.unique(other[1:], axis=0)) == 3
    assert (np.abs(other[1:]) <= 0.5 / 8).all()
    out = block(parent[2], ["new", known], tmp_path, matrix=1)
    np.testing.assert_array_equal(out, [np.zeros(8), kept_length * context[3]])


def test_new_words_begin_spread_as_in_a_training_from_nothing() -> None:
    rows = np.zeros((4000, 8), np.float32)
    fill_by_word(rows, [f"word{number}" for number in range(4000)], np.arange(4000), 8, seed=3)
    assert abs(rows.mean()) < 1e-3
    assert rows.std() == pytest.approx(1 / 8 / 12**0.5, rel=0.01)
    assert abs(np.corrcoef(rows.T)[np.triu_indices(8, 1)]).max() < 0.06


def test_a_warm_training_depends_on_nothing_but_its_inputs(parent: tuple[Path, list[str], str], tmp_path: Path) -> None:
    _, inputs, vectors = parent
    copied = tmp_path / "copied"
    shutil.copytree(vectors, copied)
    first = train(tmp_path / "one", inputs, start_from=vectors)
    again = train(tmp_path / "two", inputs, start_from=str(copied))
    assert first["vectors"]["sha256"] == again["vectors"]["sha256"]
    assert first["stages"]["train"]["fingerprint"] == again["stages"]["train"]["fingerprint"]
    cold = train(tmp_path / "three", inputs)
    assert cold["vectors"]["sha256"] != first["vectors"]["sha256"]
    assert first["train"]["rounds"][0]["loss"] < cold["train"]["rounds"][0]["loss"]


def test_a_chain_of_warm_trainings_grows_older(parent: tuple[Path, list[str], str], tmp_path: Path) -> None:
    _, inputs, vectors = parent
    first = train(tmp_path / "one", inputs, start_from=vectors)
    second = train(tmp_path / "two", inputs, start_from=first["vectors"]["path"])
    kept = [store.load_artefact(Path(path)).manifest.totals for path in (vectors, first["vectors"]["path"])]
    before = store.load_artefact(Path(second["vectors"]["path"])).manifest.totals["trained_before"]
    assert before == sum(record["kept_tokens"] for totals in kept for record in totals["history"])


def test_other_vectors_of_the_parent_are_another_result(parent: tuple[Path, list[str], str], tmp_path: Path) -> None:
    _, inputs, vectors = parent
    other = train(tmp_path / "other", inputs, alpha=0.03)["vectors"]["path"]
    one, two = (train(tmp_path / name, inputs, start_from=path) for name, path in (("a", vectors), ("b", other)))
    assert one["stages"]["train"]["fingerprint"] != two["stages"]["train"]["fingerprint"]


# ── what training cannot start from ──────────────────────────────────────────────────────────────────────────────────


def test_a_folder_without_vectors_and_another_size_are_refused_by_name(
    parent: tuple[Path, list[str], str], tmp_path: Path
) -> None:
    _, inputs, vectors = parent
    with pytest.raises(InputError, match=r"train\.start_from: .*nothing: no vectors here"):
        train(tmp_path / "work", inputs, start_from=str(tmp_path / "nothing"))
    with pytest.raises(InputError, match=r"a workdir, not a folder of vectors; its last ones are in .*vectors"):
        train(tmp_path / "work", inputs, start_from=str(Path(vectors).parents[1]))
    with pytest.raises(DataError, match=r"vectors of 8 numbers, train\.vector_size is 16; set it to 8"):
        train(tmp_path / "work", inputs, start_from=vectors, vector_size=16)
    with pytest.raises(ConfigError, match=r"engine: layers always starts anew"):
        parse_config(tiny_config(tmp_path, inputs, train={"engine": "layers", "lanes": 1, "start_from": vectors}))


def test_damaged_vectors_are_refused_and_stay_where_they_are(parent: tuple[Path, list[str], str], tmp_path: Path) -> None:
    _, inputs, vectors = parent
    copied = tmp_path / "copied"
    shutil.copytree(vectors, copied)
    data = bytearray((copied / "context.npy").read_bytes())
    data[-1] ^= 1
    (copied / "context.npy").write_bytes(data)
    with pytest.raises(DataError, match=r"context\.npy: its content changed .* choose other vectors, or start anew"):
        train(tmp_path / "work", inputs, start_from=str(copied))
    assert (copied / "manifest.json").exists()
