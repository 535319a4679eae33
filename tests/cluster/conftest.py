"""Fixtures that several files of this folder need: a cluster, a training to compare with, a tracking database."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.tracking.shipper import client_environment
from pipeline.tracking.spool import Spool
from pipeline.tracking.tracker import Dataset
from tests.cluster.disturbed import Bench
from tests.cluster.tls_cluster import TlsCluster
from tests.cluster.tracked import DIGEST, tracker_of
from tests.sharing import made_once


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsCluster]:
    """A scheduler under TLS, for the tests of a file one after the other."""
    cluster = TlsCluster(tmp_path_factory.mktemp("tls"))
    yield cluster
    cluster.stop()


@pytest.fixture
def cluster(scheduler: TlsCluster) -> Iterator[TlsCluster]:
    """The scheduler, without workers. Those of a test end with it even if it fails: the next ones would count them as theirs."""
    yield scheduler
    scheduler.stop_workers()


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))


_CREATE = "import sys, pathlib; from pipeline.tracking.empty_database import create_database as c; c(pathlib.Path(sys.argv[1]))"


@pytest.fixture(scope="session")
def two_creations(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[Any]]]:
    """(database, [exit status, stderr] of each of the two processes that created it at the same time).

    Importing MLflow twice takes six seconds of processor time, so all processes of pytest share the database.
    """
    with made_once(tmp_path_factory, "created-twice") as (folder, is_new):
        results = Path(f"{folder}.json")
        if is_new:
            command = [sys.executable, "-W", "ignore", "-c", _CREATE, str(folder / "mlflow.db")]
            environment = os.environ | client_environment(dict(os.environ))
            both = [subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, text=True) for _ in range(2)]
            ended = [(process.communicate()[1], process.returncode) for process in both]
            results.write_text(json.dumps([(status, stderr) for stderr, status in ended]))
    return folder / "mlflow.db", json.loads(results.read_text())


@pytest.fixture(scope="session")
def migrated_database(two_creations: tuple[Path, list[list[Any]]]) -> Path:
    """An empty MLflow database: migrating one takes seconds, copying it does not."""
    return two_creations[0]


@pytest.fixture
def workdir(tmp_path: Path, migrated_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workdir with a ready database beside it, where the default URI looks."""
    for name, value in client_environment(dict(os.environ)).items():
        monkeypatch.setenv(name, value)
    shutil.copy(migrated_database, tmp_path / "mlflow.db")
    directory = tmp_path / "run"
    directory.mkdir()
    return directory


@pytest.fixture
def told(workdir: Path, migrated_database: Path) -> Spool:
    """A spool with 30 points that no shipper has touched."""
    tracker = tracker_of(workdir)
    tracker.ships = False  # these tests ship by hand
    tracker.start({"train.epochs": 5}, {"kind": "test"}, Dataset("corpus", DIGEST, "corpus.txt"))
    for step in range(1, 31):
        tracker.log(step, {"train/loss": 1 / step})
    tracker.writer.close()
    return tracker.spool
