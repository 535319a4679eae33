"""An empty MLflow database in an SQLite file, created complete or not at all.

MLflow creates one by running all its migrations: 1.4 s of processor time and hundreds of syncs. The result depends only on its
version, so the first one is kept beside this package's byte code (writable only by whoever installed the package) and copied
from then on.
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
    """Creates an empty MLflow database at `path` unless there is one.

    Two processes that migrate a new file at the same time fail ("duplicate column name", "database is locked"), and one that is
    killed in the middle leaves a file that no version can open. So it is built under another name, under a lock, and renamed.
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
    """The path at which the empty database of this version of MLflow is kept."""
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
    """Keeps the database for later. It only saves time, so an installation that cannot be written to goes without."""
    temporary = kept.with_name(f".{kept.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        try:
            kept.parent.mkdir(exist_ok=True)
            shutil.copyfile(new, temporary)
            os.replace(temporary, kept)
        finally:
            temporary.unlink(missing_ok=True)


def _claim(new: Path, folder: Path) -> None:
    """Sets the default experiment's artefact location beside this database instead of beside the kept one."""
    with contextlib.closing(sqlite3.connect(new)) as database, database:
        place = (folder / "mlartifacts" / "0").as_uri()
        database.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = 0", [place])
