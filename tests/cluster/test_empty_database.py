"""MLflow's empty database is created once and copied: a run finds exactly what MLflow's own migrations make."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from pipeline.tracking import empty_database
from pipeline.tracking.empty_database import create_database

pytestmark = pytest.mark.filterwarnings("default")  # MLflow and SQLAlchemy warn about themselves at import


def schema(path: Path) -> list[tuple[str, str]]:
    with contextlib.closing(sqlite3.connect(path)) as database:
        return database.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()


def experiments(path: Path) -> list[tuple[int, str]]:
    with contextlib.closing(sqlite3.connect(path)) as database:
        return database.execute("SELECT experiment_id, artifact_location FROM experiments").fetchall()


@pytest.mark.turns(5, 4, of="tracking")
def test_a_copied_database_is_a_migrated_one_with_its_files_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "kept" / "empty.db"
    monkeypatch.setattr(empty_database, "kept_database", lambda: kept)
    for folder in ("migrated", "copied"):
        create_database(tmp_path / folder / "mlflow.db")
        assert kept.exists()
    assert schema(tmp_path / "migrated" / "mlflow.db") == schema(tmp_path / "copied" / "mlflow.db")
    for folder in ("migrated", "copied"):
        place = (tmp_path / folder / "mlartifacts" / "0").as_uri()
        assert experiments(tmp_path / folder / "mlflow.db") == [(0, place)]

    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path / 'copied' / 'mlflow.db'}"
    assert [found.name for found in MlflowClient(tracking_uri=uri).search_experiments()] == ["Default"]


@pytest.mark.turns(5, 4, of="tracking")
def test_an_installation_that_cannot_be_written_to_goes_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a file").write_text("where the folder would be")
    monkeypatch.setattr(empty_database, "kept_database", lambda: tmp_path / "a file" / "empty.db")
    create_database(tmp_path / "work" / "mlflow.db")
    assert schema(tmp_path / "work" / "mlflow.db")
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["work"]
