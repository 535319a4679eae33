"""Lanes on several hosts, on an existing scheduler under TLS: the same bits as in one process, whoever dies.

The "hosts" are workers on this machine with different names in W2V_HOST_KEY: they share no memory and exchange rows over
their connections, as workers on different machines do.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed.security import Security

from pipeline import lanes
from pipeline.cluster import DaskWorkers, InProcess, Workers, open_workers
from pipeline.config import Cluster, RunConfig, Tls, parse_config
from pipeline.crew import choose_crew
from pipeline.errors import ServiceError
from pipeline.progress import Progress
from pipeline.run import run
from tests.tiny import tiny_config, write_corpus


class TlsCluster:
    """A `dask scheduler` and `dask worker`s that speak TLS only, in processes of their own, as a site would run them."""

    def __init__(self, directory: Path) -> None:
        made = Security.temporary()
        self.tls = {name: str(directory / f"{name}.pem") for name in ("ca_file", "cert", "key")}
        for name, text in (("ca_file", made.tls_ca_file), ("cert", made.tls_client_cert), ("key", made.tls_client_key)):
            Path(self.tls[name]).write_text(text)
        self._directory = directory
        self._file = directory / "scheduler.json"
        self._processes = [self._start("scheduler", "--port", "0", "--no-dashboard", environment={})]
        self.address = ""
        deadline = time.monotonic() + 60
        while not self.address:
            assert time.monotonic() < deadline, "the scheduler never wrote its address"
            with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
                self.address = json.loads(self._file.read_text())["address"]
            time.sleep(0.02)

    def start_worker(self, host: str, failpoint: str = "") -> subprocess.Popen[bytes]:
        options = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", str(self._directory))
        self._processes.append(self._start("worker", *options, environment={"W2V_HOST_KEY": host, "W2V_FAILPOINT": failpoint}))
        return self._processes[-1]

    def _start(self, what: str, *options: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        tls = ("--tls-ca-file", self.tls["ca_file"], "--tls-cert", self.tls["cert"], "--tls-key", self.tls["key"])
        common = ("--protocol", "tls", "--host", "127.0.0.1", "--scheduler-file", str(self._file))
        with (self._directory / "log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "dask", what, *common, *tls, *options],
                env=os.environ | environment,
                stdout=log,
                stderr=log,
            )

    @contextlib.contextmanager
    def connect(self, workers: int) -> Iterator[DaskWorkers]:
        """The driver's view of the cluster once it has exactly so many workers."""
        with open_workers(Cluster(kind="address", address=self.address, tls=Tls(**self.tls), wait_s=60)) as found:
            deadline = time.monotonic() + 60
            while len(found.members()) != workers:
                assert time.monotonic() < deadline, f"expected {workers} workers, found {found.members()}"
                time.sleep(0.05)
            yield found

    def stop(self, processes: list[subprocess.Popen[bytes]] | None = None) -> None:
        for process in processes or reversed(self._processes):
            process.kill()
            process.wait(20)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsCluster]:
    cluster = TlsCluster(tmp_path_factory.mktemp("tls"))
    yield cluster
    cluster.stop()


class Bench:
    """The vectors that one process makes, and copies of the workdir before training for others to train in."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._inputs = write_corpus(directory / "corpus", sentences=3000)
        run(self.config("prepared"), until="shards", workers=InProcess(), progress=Progress(quiet=True))
        self.digest = self.train("alone", InProcess())

    def config(self, name: str, **sections: dict[str, object]) -> RunConfig:
        return parse_config(tiny_config(self._directory / name, self._inputs, tracking={"enabled": False}, **sections))

    def train(self, name: str, workers: Workers) -> str:
        shutil.copytree(self._directory / "prepared", self._directory / name)
        summary = run(self.config(name), until="train", workers=workers, progress=Progress(quiet=True))
        return str(summary["vectors"]["sha256"])


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))


def test_a_run_on_an_existing_tls_scheduler_with_two_hosts_gives_the_bits_of_one_process(
    cluster: TlsCluster, bench: Bench
) -> None:
    started = [cluster.start_worker(host) for host in ("a", "b", "b")]
    with cluster.connect(workers=3) as workers:
        assert [member.host for member in choose_crew(workers.members(), 4)] == ["a", "b", "b"]
    address: dict[str, object] = {"kind": "address", "address": cluster.address, "tls": cluster.tls}
    summary = run(bench.config("whole", cluster=address), progress=Progress(quiet=True))
    assert summary["vectors"]["sha256"] == bench.digest
    cluster.stop(started)


def test_three_hosts_that_become_two_in_the_middle_of_a_round_give_the_same_bits(
    cluster: TlsCluster, bench: Bench, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    started = [cluster.start_worker(host, f"step:0.9.3=kill,{token}") for host in ("a", "b", "b", "c")]
    with cluster.connect(workers=4) as workers:
        assert bench.train("killed", workers) == bench.digest
        assert token.exists(), "the failpoint was never reached"
        assert [member.host for member in workers.members()] == ["a", "b", "b"]
    cluster.stop(started)


def test_after_training_no_process_holds_lanes_any_more(bench: Bench) -> None:
    assert bench.digest
    assert lanes._held is None


def test_a_driver_without_certificates_is_turned_away(cluster: TlsCluster) -> None:
    with (
        pytest.raises(ServiceError, match=r"check cluster.address and cluster.tls"),
        open_workers(Cluster(kind="address", address=cluster.address, wait_s=5)),
    ):
        pass
