"""An empty MLflow database in a file of its own, made complete or not at all.

MLflow builds one by running all its migrations: 1.4 s of processor and hundreds of syncs. What comes out depends on its
version only, so the first one is kept beside this package's byte code (which whoever installs it can write, and nobody else)
and copied from then on.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path

from pipeline.safety.locks import held


def create_database(path: Path) -> None:
    """Makes an empty MLflow database at `path` unless there is one.

    Two processes that migrate one new file at a time fail ("duplicate column name", "database is locked"), and one
    that is killed in the middle leaves a file no version can open. So it is built under another name, by the one
    holder of a lock, and renamed.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with held(path.with_name(path.name + ".lock"), wait=True):
        if path.exists():
            return
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            new = Path(folder) / path.name
            if not _copy(kept_database(), new):
                _migrate(new)
                _keep(new, kept_database())
            _claim(new, path.parent)
            os.replace(new, path)


def kept_database() -> Path:
    """Where the empty database of this MLflow is kept."""
    import mlflow

    return Path(__file__).parent / "__pycache__" / f"empty-mlflow-{mlflow.__version__}.db"


def _copy(kept: Path, new: Path) -> bool:
    try:
        shutil.copyfile(kept, new)
        return True
    except OSError:
        new.unlink(missing_ok=True)
        return False


def _migrate(new: Path) -> None:
    from mlflow import MlflowClient

    MlflowClient(tracking_uri=f"sqlite:///{new}").search_experiments(max_results=1)


def _keep(new: Path, kept: Path) -> None:
    """Only saves time: an installation that cannot be written to goes without."""
    temporary = kept.with_name(f".{kept.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        try:
            kept.parent.mkdir(exist_ok=True)
            shutil.copyfile(new, temporary)
            os.replace(temporary, kept)
        finally:
            temporary.unlink(missing_ok=True)


def _claim(new: Path, folder: Path) -> None:
    """The default experiment keeps its files beside the database, not where the kept one was made."""
    with contextlib.closing(sqlite3.connect(new)) as database, database:
        place = (folder / "mlartifacts" / "0").as_uri()
        database.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = 0", [place])
