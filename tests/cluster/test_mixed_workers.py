"""A worker that computes different bits does not train with the others: it is left out and named, or the run is refused. A
worker with another version of this program is refused before it does anything.

The odd worker's kernels are compiled for a processor without fused multiply-add (NUMBA_CPU_NAME), as they would be on another
kind of machine.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from pipeline.cluster.workers import InProcess
from pipeline.errors import ServiceError, TemporaryError
from tests.cluster.disturbed import Bench
from tests.cluster.tls_cluster import TlsCluster

pytestmark = pytest.mark.slow
ODD = {"NUMBA_CPU_NAME": "generic"}
TRAIN: dict[str, object] = {"model": "skipgram", "lanes": 8}
"""For which half as many functions are compiled for the odd worker as for CBOW."""
SOURCES = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def alone(bench: Bench) -> str:
    """The digest of the vectors that one process trains."""
    bench.prepare("alone")
    return str(bench.resume("alone", InProcess(), train=TRAIN)["vectors"]["sha256"])


@pytest.mark.turns(10, 46, of="another processor", together="what is compiled for it")
def test_an_odd_worker_is_left_out_and_named_and_the_bits_are_those_of_one_process(
    cluster: TlsCluster, bench: Bench, alone: str
) -> None:
    cluster.start_worker("a")
    cluster.start_worker("b", **ODD)
    cluster.start_worker("c")
    bench.prepare("mixed")
    with cluster.connect(workers=3) as workers:
        summary = bench.resume("mixed", workers, train=TRAIN)
    assert summary["vectors"]["sha256"] == alone
    (note,) = [note for note in summary["notes"] if "left out" in note]
    assert "left out 1 worker that computes differently from the others: numba on " in note
    assert "compiled for generic" in note
    assert len(summary["train"]["kinds"]) == 1
    assert summary["train"]["memory"]["workers"] == 2


@pytest.mark.turns(10, 46, of="another processor", together="what is compiled for it")
def test_only_odd_workers_are_refused_after_a_restart_and_train_on_if_told_that_bits_may_differ(
    cluster: TlsCluster, bench: Bench, alone: str, tmp_path: Path
) -> None:
    # The worker dies in the second epoch and nobody takes over: the checkpoint of the first is left.
    cluster.start_worker("a", f"step:1.0.3=kill,{tmp_path / 'token'}")
    bench.prepare("restarted")
    with cluster.connect(workers=1) as workers:
        workers.wait_s = 1
        with pytest.raises(TemporaryError, match=r"no worker came within 1 s"):
            bench.resume("restarted", workers, train=TRAIN)
    assert (tmp_path / "token").exists(), "the failpoint was never reached"
    cluster.start_worker("b", **ODD)
    with cluster.connect(workers=1) as workers:
        with pytest.raises(
            ServiceError, match=r"no current worker computes like that: 1 with .*compiled for generic.*train.deterministic"
        ):
            bench.resume("restarted", workers, train=TRAIN)
        summary = bench.resume("restarted", workers, train=TRAIN | {"deterministic": False})
    assert summary["vectors"]["sha256"] != alone
    assert [("generic" in kind["processor"]) for kind in summary["train"]["kinds"]] == [False, True]
    assert any("another run may give other bits" in note for note in summary["notes"])


@pytest.mark.turns(3, 3)
def test_a_worker_with_another_version_of_the_program_is_refused_at_once(cluster: TlsCluster, tmp_path: Path) -> None:
    for package in ("pipeline", "w2v_core"):
        shutil.copytree(SOURCES / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    changed = tmp_path / "pipeline" / "stages" / "shards.py"
    changed.write_text(changed.read_text().replace("STAGE_VERSION = ", "STAGE_VERSION = 1"))
    # PYTHONSAFEPATH: not what lies in the test's own folder.
    cluster.start_worker("a", PYTHONPATH=str(tmp_path), PYTHONSAFEPATH="1")
    cluster.wait_for_workers(1)
    began = time.monotonic()
    expected = (
        r"1 of the workers cannot take part: tls://[\d.:]+ has other source files of this program \([0-9a-f]{12}\) than "
        r"the driver \([0-9a-f]{12}\); .* run the same version"
    )
    with pytest.raises(ServiceError, match=expected), cluster.connect(workers=1):
        pass
    assert time.monotonic() - began < 50, "cluster.wait_s is a minute"
