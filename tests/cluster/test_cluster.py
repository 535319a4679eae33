"""The local cluster is closed to the outside, passes our errors through, and says what is missing."""

from __future__ import annotations

import io
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from cryptography import x509
from distributed import Client, LocalCluster

from pipeline.cluster.dask_workers import DaskWorkers
from pipeline.cluster.opening import open_workers
from pipeline.cluster.workers import Member, WorkerLostError
from pipeline.config import Cluster, Tokenize, Train, parse_config
from pipeline.errors import DataError, ServiceError
from pipeline.progress import Progress
from pipeline.run import run
from pipeline.stages.preloading import COMPILING_TOKENIZER, warm_up_worker


@pytest.fixture(scope="module")
def workers() -> Iterator[DaskWorkers]:
    with open_workers(Cluster(n_workers=2)) as opened:
        opened.members()
        yield opened


def double(number: int) -> int:
    return 2 * number


def fail(number: int) -> int:
    raise DataError(f"part {number} cannot be used")


def die_once(token: str) -> str:
    if not Path(token).exists():
        Path(token).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


def die(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_local_clusters_certificate_is_valid_whatever_the_clock_says(workers: DaskWorkers) -> None:
    certificate = x509.load_pem_x509_certificate(workers.client.security.tls_client_cert.encode("ascii"))
    assert certificate.not_valid_before_utc.year == 1970


def test_nothing_listens_beyond_loopback(workers: DaskWorkers) -> None:
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    listening = [c.laddr.ip for p in processes for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    assert len(listening) >= 3
    assert set(listening) == {"127.0.0.1"}


def test_results_come_in_the_order_of_the_items(workers: DaskWorkers) -> None:
    seen: list[int] = []
    assert workers.map(double, list(range(50)), label="double", on_done=seen.append) == [2 * n for n in range(50)]
    assert sorted(seen) == [2 * n for n in range(50)]


def test_equal_items_are_run_every_time(workers: DaskWorkers, tmp_path: Path) -> None:
    token = str(tmp_path / "token")
    Path(token).touch()
    assert workers.map(die_once, [token, token], label="same") == ["alive", "alive"]


def test_an_error_of_a_task_arrives_as_itself(workers: DaskWorkers) -> None:
    with pytest.raises(DataError, match="part 1 cannot be used"):
        workers.map(fail, [1], label="fail")


def test_a_task_lost_with_its_worker_is_run_again(workers: DaskWorkers, tmp_path: Path) -> None:
    assert workers.map(die_once, [str(tmp_path / "token")], label="die") == ["alive"]


def test_a_member_lost_in_a_round_is_an_error_at_once_not_a_wait(workers: DaskWorkers) -> None:
    members = workers.members()
    with pytest.raises(WorkerLostError, match="went away"):
        workers.together(die, [0], members[:1])
    with pytest.raises(WorkerLostError, match="went away or fell silent before its part of the round was done"):
        workers.together(double, [1], [Member("tls://127.0.0.1:1", members[0].host, 1)])


def test_an_address_where_nobody_answers_is_a_service_error() -> None:
    cluster = Cluster(kind="address", address="tcp://127.0.0.1:9", wait_s=1)
    with pytest.raises(ServiceError, match=r"tcp://127\.0\.0\.1:9: no Dask scheduler answers"), open_workers(cluster):
        pass


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dask_kubernetes.operator", None)
    cluster = Cluster(kind="kubernetes", insecure=True, options={"image": "w2v"})
    with pytest.raises(ServiceError, match=r"-m pip install -e \S*\[k8s\]"), open_workers(cluster):
        pass


@pytest.mark.parametrize("section", [Train(model="skipgram"), Tokenize()])
def test_workers_say_that_they_compile_what_is_not_in_their_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, section: Train | Tokenize
) -> None:
    """Their first tasks wait for it, for a training half a minute or more."""
    tmp_path.chmod(0o700)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    told: queue.SimpleQueue[str] = queue.SimpleQueue()
    hooks = [(warm_up_worker, (section, "compiling"))]
    with open_workers(Cluster(n_workers=1), hooks, listeners={"compiling": told.put}) as workers:
        (worker,) = workers.members()
        assert told.get(timeout=100) == worker.address


@pytest.mark.parametrize("where", ["cluster.n_workers=null", "cluster.n_workers=1"])
def test_who_only_tokenizes_is_told_that_the_tokenizer_is_compiled_here_or_by_workers(tmp_path: Path, where: str) -> None:
    (cache := tmp_path / "cache").mkdir(mode=0o700)
    (tmp_path / "text.txt").write_text("a few words of text\n" * 20)
    (tmp_path / "c.yaml").write_text("corpus: {inputs: [text.txt]}\ntracking: {enabled: false}\n")
    command = [sys.executable, "-m", "pipeline.cli", "tokenize", str(tmp_path / "c.yaml"), where]
    for told in (1, 0):
        environment = os.environ | {"NUMBA_CACHE_DIR": str(cache)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert re.findall("start: compiling .*", done.stderr) == [f"start: {COMPILING_TOKENIZER}"] * told, done.stderr
        shutil.rmtree(tmp_path / "runs")


def test_workers_of_a_programs_own_client_tell_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache := tmp_path / "cache").mkdir(mode=0o700)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(cache))
    (tmp_path / "text.txt").write_text("a few words of text\n" * 20)
    tree = {
        "corpus": {"inputs": [str(tmp_path / "text.txt")]}, "run": {"workdir": str(tmp_path / "work")},
        "tracking": {"enabled": False},
    }  # fmt: skip
    shown = io.StringIO()
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster, Client(cluster) as client:
        run(parse_config(tree), client=client, until="tokenize", progress=Progress(shown))
    assert shown.getvalue().count(f"start: {COMPILING_TOKENIZER}\n") == 1
