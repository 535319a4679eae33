"""A Dask cluster as a site would run it, under TLS."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from distributed import Client, Worker
from distributed.security import Security

from pipeline.cluster.dask_workers import DaskWorkers
from pipeline.cluster.opening import open_workers
from pipeline.config import Cluster, Tls
from tests.cluster.bad_network import Detour
from tests.cluster.disturbed import PATIENCE_S, environment_with, wait_until

SITE = {"DASK_DISTRIBUTED__SCHEDULER__LOCKS__LEASE_VALIDATION_INTERVAL": "1s"}
"""The scheduler's configuration at this site: leases that have run out are found after one second, not after ten."""


class TlsCluster:
    """A `dask scheduler` and `dask worker`s that speak only TLS, in separate processes, as a site would run them."""

    def __init__(self, directory: Path) -> None:
        made = Security.temporary()
        self.tls = {name: str(directory / f"{name}.pem") for name in ("ca_file", "cert", "key")}
        for name, text in (("ca_file", made.tls_ca_file), ("cert", made.tls_client_cert), ("key", made.tls_client_key)):
            Path(self.tls[name]).write_text(text)
        self._directory = directory
        self._file = directory / "scheduler.json"
        self.scheduler, self.address = self._start_scheduler("0")
        self._processes = [self.scheduler]

    def _start_scheduler(self, port: str) -> tuple[subprocess.Popen[bytes], str]:
        where = ("--protocol", "tls", "--host", "127.0.0.1", "--port", port, "--scheduler-file", str(self._file))
        started = self._start("scheduler", *where, "--no-dashboard", environment={})
        deadline = time.monotonic() + PATIENCE_S
        while True:
            assert time.monotonic() < deadline, "the scheduler never wrote its address"
            with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
                return started, str(json.loads(self._file.read_text())["address"])
            time.sleep(0.02)

    def restart_scheduler(self) -> None:
        """Kills the scheduler, with which its workers end, and starts another at its address."""
        self.scheduler.kill()
        self.scheduler.wait(20)
        self._file.unlink()
        self.scheduler, _ = self._start_scheduler(self.address.rpartition(":")[2])
        self._processes.append(self.scheduler)

    @property
    def section(self) -> dict[str, object]:
        """The configuration that connects to this cluster."""
        return {"kind": "address", "address": self.address, "tls": self.tls}

    def start_worker(
        self,
        host: str,
        failpoint: str = "",
        *,
        detour: Detour | None = None,
        threads: int = 1,
        port: str = "0",
        through: Sequence[str] = (),
        **environment: str,
    ) -> subprocess.Popen[bytes]:
        """A worker on a host of this name; with a detour, all its connections go through that. `port`: 0 for any."""
        options = ["--nthreads", str(threads), "--no-nanny", "--no-dashboard", "--local-directory", str(self._directory)]
        if detour:
            options += ["--listen-address", detour.worker_address, "--contact-address", detour.to_worker.address]
            options += [detour.to_scheduler.address]
        else:
            options += ["--protocol", "tls", "--host", "127.0.0.1", "--worker-port", port, "--scheduler-file", str(self._file)]
        environment |= {"W2V_HOST_KEY": host, "W2V_FAILPOINT": failpoint}
        self._processes.append(self._start("worker", *options, environment=environment, through=through))
        return self._processes[-1]

    def _start(
        self, what: str, *options: str, environment: dict[str, str], through: Sequence[str] = ()
    ) -> subprocess.Popen[bytes]:
        tls = ("--tls-ca-file", self.tls["ca_file"], "--tls-cert", self.tls["cert"], "--tls-key", self.tls["key"])
        with (self._directory / "log").open("ab") as log:
            return subprocess.Popen(
                [*through, sys.executable, "-m", "dask", what, *tls, *options],
                env=environment_with() | SITE | environment,
                stdout=log,
                stderr=log,
            )

    @contextlib.contextmanager
    def connect(self, workers: int) -> Iterator[DaskWorkers]:
        """The driver's view of the cluster, once it has exactly this many workers."""
        with open_workers(Cluster(kind="address", address=self.address, tls=Tls(**self.tls), wait_s=60)) as found:
            deadline = time.monotonic() + PATIENCE_S
            while len(found.members()) != workers:
                assert time.monotonic() < deadline, f"expected {workers} workers, found {found.members()}"
                time.sleep(0.05)
            yield found

    def client(self) -> Client:
        files = {"tls_ca_file": self.tls["ca_file"], "tls_client_cert": self.tls["cert"], "tls_client_key": self.tls["key"]}
        return Client(self.address, security=Security(require_encryption=True, **files), set_as_default=False)

    def wait_for_workers(self, count: int) -> None:
        with self.client() as client:
            client.wait_for_workers(count, timeout=PATIENCE_S)

    def wait_until_done(self, given_up: subprocess.Popen[bytes], workers: int) -> None:
        """Waits until a worker that was given up has ended, or until all `workers` are there and none of them is working."""
        with self.client() as client:

            def is_idle() -> bool:
                tasks = client.run(_running_tasks, on_error="ignore")
                return len(tasks) == workers and not any(tasks.values())

            # It is told to end or, if the run was over before the scheduler noticed its absence, it simply continues.
            wait_until(lambda: given_up.poll() is not None or is_idle(), "the worker that was given up to be done")

    def stop(self, processes: Sequence[subprocess.Popen[bytes]] | None = None) -> None:
        for process in self._processes[::-1] if processes is None else processes:
            process.kill()
            process.wait(20)

    def stop_workers(self) -> None:
        self.stop(self._processes[1:])
        del self._processes[1:]


def _running_tasks(dask_worker: Worker) -> int:
    return len(dask_worker.state.executing)
