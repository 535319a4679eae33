"""Vectors take disk space once: published or tracked on the same file system, they are another name for the same file."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import numpy as np
import pytest

from pipeline import store
from pipeline.cluster.workers import InProcess
from pipeline.config import parse_config
from pipeline.history.gc import find_garbage
from pipeline.progress import Progress
from pipeline.run import run
from pipeline.safety.second_names import share
from pipeline.tracking.delivery import ship_artifact
from tests.cluster.tracked import all_runs, client_of, ship_here, tracker_of
from tests.tiny import tiny_config, write_corpus
from w2v_core.vectors import WordVectors

pytestmark = pytest.mark.filterwarnings("default")  # MLflow and SQLAlchemy warn about themselves at import
LARGE = 300_000
"""Numbers in a matrix that is large enough to be shared rather than copied."""


def test_an_export_of_the_same_bytes_is_a_second_name_and_survives_the_first(tmp_path: Path) -> None:
    tree = tiny_config(
        tmp_path / "work", write_corpus(tmp_path / "corpus", 300), tracking={"enabled": False},
        publish={"formats": ["npy", "word2vec-bin"]}, train={"lanes": 1, "epochs": 1, "vector_size": 8},
    )  # fmt: skip
    quiet = Progress(quiet=True)
    summary = run(parse_config(tree), workers=InProcess(), progress=quiet)
    exported, vectors = (Path(path).parent for path in (summary["exports"]["npy"][0], f"{summary['vectors']['path']}/x"))
    assert (exported / "vectors.npy").samefile(vectors / "vectors.npy")
    assert not (exported / "vectors.npy").stat().st_mode & 0o222
    assert store.find_damage(store.load_artefact(exported)) == store.find_damage(store.load_artefact(vectors)) == []
    again = run(parse_config(tree), workers=InProcess(), progress=quiet)
    assert all(row["cached"] for row in again["stages"].values())

    before = WordVectors.load(exported).matrix.copy()
    store.discard(vectors)
    assert np.array_equal(WordVectors.load(exported).matrix, before)


def test_removing_a_file_with_another_name_frees_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "work" / "vectors" / ("0" * 16)
    folder.mkdir(parents=True)
    for name in ("one", "two"):
        (folder / name).write_bytes(bytes(1000))
    assert share(folder / "one", tmp_path / "elsewhere")
    assert [(found.path, found.bytes) for found in find_garbage(tmp_path / "work", 1)] == [(folder, 1000)]


@pytest.mark.turns(5, 6, of="tracking")
def test_tracked_vectors_are_a_second_name_where_mlflow_keeps_files_on_this_file_system(tmp_path: Path) -> None:
    workdir = tmp_path / "work"
    words = [f"word{number}" for number in range(LARGE // 100)]
    numbers = np.random.default_rng(1).normal(size=(len(words), 100)).astype(np.float32)
    WordVectors(words, numbers).save(workdir / "vectors")
    tracker = tracker_of(workdir)
    tracker.start({}, {})
    tracker.artifact(workdir / "vectors", "vectors")
    tracker.finish("FINISHED", timeout_s=60)
    client = client_of(workdir)
    (tracked,) = all_runs(client)
    place = Path(str(tracked.info.artifact_uri).removeprefix("file://")) / "vectors"
    assert (place / "vectors.npy").samefile(workdir / "vectors" / "vectors.npy")
    assert {item.path for item in client.list_artifacts(tracked.info.run_id, "vectors")} == {
        f"vectors/{name}" for name in ("vectors.npy", "words.txt", "meta.json")
    }

    # Other vectors under the same names take nothing from those that are tracked, and replace them only when they are told of.
    digest = store.file_sha256(place / "vectors.npy")
    WordVectors(words, -numbers).save(workdir / "vectors")
    assert store.file_sha256(place / "vectors.npy") == digest
    ship_artifact(client, tracked.info.run_id, workdir / "vectors", "vectors")
    assert np.array_equal(WordVectors.load(place).matrix, -numbers)
    assert ship_here(tracker.spool) == 0


@pytest.mark.parametrize("reason", [errno.EXDEV, errno.EPERM, errno.EMLINK])
def test_if_a_second_name_is_impossible_the_old_file_stays_and_nothing_is_left_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int
) -> None:
    (tmp_path / "source").write_bytes(b"new")
    (tmp_path / "target").write_bytes(b"old")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(os, "link", refuse)
    assert not share(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]
    assert stat.S_IMODE((tmp_path / "source").stat().st_mode) & stat.S_IWUSR


def test_a_link_is_not_followed_to_a_file_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"private")
    (tmp_path / "source").symlink_to(tmp_path / "elsewhere")
    assert not share(tmp_path / "source", tmp_path / "target")
    assert not (tmp_path / "target").exists()
