"""Shared by the tests of tracking: MLflow's side of a run, and a tracker with its spool on ours."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.config import Tracking, load_config
from pipeline.tracking.shipper import Owner, Shipper
from pipeline.tracking.spool import Spool, spools
from pipeline.tracking.tracker import Tracker, open_tracker, sync
from w2v_core.vectors import WordVectors

DIGEST = "0123456789abcdef" * 4
"""Of a configuration."""


def client_of(workdir: Path) -> Any:
    from mlflow import MlflowClient

    uri = f"sqlite:///{workdir.parent / 'mlflow.db'}"
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def all_runs(client: Any) -> list[Any]:
    from mlflow.entities import ViewType

    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(ids, run_view_type=ViewType.ALL))


def steps_of(client: Any, run_id: str, name: str = "train/loss") -> list[int]:
    return [point.step for point in client.get_metric_history(run_id, name)]


def assert_each_once(found: list[int], expected: range) -> None:
    counts = Counter(found)
    doubled = sorted(step for step, count in counts.items() if count > 1)
    missing = sorted(set(expected) - set(counts))
    if doubled or missing or set(counts) - set(expected):
        raise AssertionError(f"missing {missing}, doubled {doubled}, unexpected {sorted(set(counts) - set(expected))}")


def wait_for(condition: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not reached in {timeout_s} s")
        time.sleep(0.05)


def fastest_s(moves: Sequence[Callable[[], object]]) -> float:
    """Seconds of the fastest of these calls, which do the same work: a busy machine holds up some, not all."""
    found = []
    for move in moves:
        begun = time.monotonic()
        move()
        found.append(time.monotonic() - begun)
    return min(found)


def deliver_the_rest(summary: dict[str, Any], config: Path, through: Sequence[str] = ()) -> None:
    """Runs `w2v sync` if the last events of a run took longer than its end waits for MLflow, which happens on a busy machine.
    The command begins with `through`."""
    if not summary["mlflow"]["complete"]:
        wait_for_shippers(load_config(config).workdir)
        subprocess.run([*through, sys.executable, "-m", "pipeline.cli", "sync", str(config)], check=True, timeout=200)


def is_all_delivered(workdir: Path) -> bool:
    """Whether MLflow has all that the runs of a workdir told, once what their ends did not wait for has been sent."""
    wait_for_shippers(workdir)
    return all(state.complete for state in sync(workdir))


def wait_for_shippers(workdir: Path) -> None:
    """Waits for the shippers that runs have left behind to finish what is under way: `sync` does not wait for them. Their low
    priority makes that long on a busy machine."""
    wait_for(lambda: not any(spool.has_shipper() for spool in spools(workdir)), 200)


def tracker_of(workdir: Path, uri: str | None = None, required: bool = False) -> Tracker:
    tracking = Tracking(uri=uri, experiment="word2vec", required=required)
    tracker = open_tracker(tracking, workdir, run_name="test", config_digest=DIGEST)
    if uri is None:
        # SQLite always answers, but the shipper's low priority makes it slow on a busy machine.
        tracker.linger_s = 150
    return tracker


def ship_here(spool: Spool, linger_s: float = 0.0) -> int:
    """Drains a spool in this process, as the shipper does once its driver is gone."""
    target = spool.target()
    assert target is not None
    return Shipper(spool, target, Owner(os.getppid(), released=True), linger_s, spool.progress()).work()


def only_spool(workdir: Path) -> Spool:
    (spool,) = spools(workdir)
    return spool


def save_vectors(directory: Path) -> npt.NDArray[np.float32]:
    matrix = np.asarray(np.arange(12).reshape(4, 3) / 7, dtype=np.float32)
    WordVectors(["the", "king", "que\nen", "왕"], matrix).save(directory)
    return matrix
