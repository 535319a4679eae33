"""A Dask cluster as a site would run it, under TLS, and a training whose vectors one process has made already."""

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
from typing import Any

from distributed.security import Security

from pipeline.cluster import DaskWorkers, InProcess, Workers, open_workers
from pipeline.config import Cluster, RunConfig, Tls, parse_config
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

    def start_worker(self, host: str, failpoint: str = "", **environment: str) -> subprocess.Popen[bytes]:
        options = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", str(self._directory))
        environment |= {"W2V_HOST_KEY": host, "W2V_FAILPOINT": failpoint}
        self._processes.append(self._start("worker", *options, environment=environment))
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


class Bench:
    """The vectors that one process makes, and copies of the workdir before training for others to train in."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._inputs = write_corpus(directory / "corpus", sentences=3000)
        run(self.config("prepared"), until="shards", workers=InProcess(), progress=Progress(quiet=True))
        self.digest = self.train("alone", InProcess())

    def config(self, name: str, **sections: dict[str, object]) -> RunConfig:
        return parse_config(tiny_config(self._directory / name, self._inputs, tracking={"enabled": False}, **sections))

    def prepare(self, name: str) -> Path:
        """A workdir where everything but training is done."""
        return shutil.copytree(self._directory / "prepared", self._directory / name)

    def train(self, name: str, workers: Workers) -> str:
        """The digest of the vectors trained in a workdir of this name."""
        self.prepare(name)
        return str(self.resume(name, workers)["vectors"]["sha256"])

    def resume(self, name: str, workers: Workers, **sections: dict[str, object]) -> dict[str, Any]:
        """The summary of training on in that workdir."""
        return run(self.config(name, **sections), until="train", workers=workers, progress=Progress(quiet=True))
