"""`cluster.kind: ssh` with a real sshd: the same bits over TLS, no open ports, nothing left behind, errors that name the host."""

from __future__ import annotations

import contextlib
import signal
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import dask
import psutil
import pytest
from distributed import Client

from pipeline.cluster.opening import open_workers
from pipeline.config import Cluster
from pipeline.errors import PipelineError
from tests.cluster.disturbed import Bench, wait_until
from tests.cluster.ssh_site import MARK, SshSite, ssh_site
from tests.exposure import listening, shown_by_ps
from tests.sampling import ALL

pytestmark = pytest.mark.slow
HERE = "127.0.0.1"


@pytest.fixture(scope="module")
def site() -> Iterator[SshSite]:
    with ssh_site() as found:
        yield found


def section(site: SshSite, **options: object) -> dict[str, object]:
    """A scheduler and two workers of one thread."""
    chosen = {"hosts": [HERE] * 3, "connect_options": site.connect, "worker_options": {"nthreads": 1}} | options
    return {"kind": "ssh", "wait_s": 180, "options": chosen}


def started_by(site: SshSite) -> list[psutil.Process]:
    """Dask's processes that were started over this sshd."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == site.mark and "distributed.cli.dask_spec" in process.cmdline():
                found.append(process)
    return found


@pytest.mark.turns(10, 9, of="deployment")
def test_a_cluster_over_ssh_gives_the_same_bits_and_leaves_no_process(bench: Bench, site: SshSite) -> None:
    bench.assert_same(bench.config_file("ssh", before="shards", cluster=section(site)))
    wait_until(lambda: started_by(site) == [], "the processes over SSH to end")


@pytest.mark.turns(10, 8, of="deployment")
def test_no_door_beyond_loopback_speaks_plainly_and_no_command_line_shows_the_key(site: SshSite, tmp_path: Path) -> None:
    with open_workers(Cluster.model_validate(section(site)), shared=tmp_path) as workers:
        assert len(workers.members()) == 2
        address, processes = workers.client.scheduler.address, started_by(site)
        doors = {door for process in processes for door in listening(process.pid)}
        beyond = {(host, port) for host, port in doors if host != HERE}
        assert len(beyond) >= 3, "the scheduler's, and one of each worker"
        assert [door for door in beyond if answer_to_http(*door).startswith(b"HTTP")] == []
        settings = dask.config.deserialize(processes[0].environ()["DASK_INTERNAL_INHERIT_CONFIG"])
        bundle = Path(settings["distributed"]["comm"]["tls"]["ca-file"])
        assert stat.S_IMODE(bundle.parent.stat().st_mode) == 0o700
        assert shown_by_ps(bundle.read_text().split("PRIVATE KEY-----")[1].splitlines()[1]) == []
        with pytest.raises(OSError, match=r"Timed out|closed|reset"):
            Client(address.replace("tls://", "tcp://"), timeout=3, set_as_default=False)
    assert not bundle.parent.exists(), "no certificate is left"
    wait_until(lambda: started_by(site) == [], "the processes over SSH to end")


def answer_to_http(host: str, port: int) -> bytes:
    with contextlib.suppress(ConnectionError), socket.create_connection((host, port), timeout=10) as plain:
        plain.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return plain.recv(100)
    return b""


@pytest.mark.skipif(not ALL, reason="half a minute: make deployment")
def test_a_driver_that_is_killed_leaves_nothing_after_half_a_minute(bench: Bench, site: SshSite, tmp_path: Path) -> None:
    config = bench.config_file("ssh-killed", before="shards", cluster=section(site))
    with bench.w2v(config, failpoint=f"round:1.0=kill,{tmp_path / 'killed'}") as driver:
        driver.communicate()
    assert driver.returncode == -signal.SIGKILL
    began = time.monotonic()
    wait_until(lambda: started_by(site) == [], "the processes over SSH to end")
    assert time.monotonic() - began < 50
    bench.assert_same(config)


@pytest.mark.parametrize(
    ("options", "connect", "message"),
    [
        ({"remote_python": "/nowhere/python"}, {}, r"127\.0\.0\.1: /nowhere/python does not have this program \(.*[Nn]o such"),
        ({}, {"client_keys": None, "agent_path": None}, r"127\.0\.0\.1: Permission denied.*; check that `ssh 127\.0\.0\.1"),
        ({}, {"port": 1}, r"ssh: 127\.0\.0\.1: .*Connect call failed.*; check that `ssh 127\.0\.0\.1 true`"),
        ({"remote_python": ["a"]}, {}, r"cluster\.options\.remote_python: a list needs one item per host, 3, found 1"),
    ],
    ids=["no such Python", "no key", "nobody listens", "a list that is too short"],
)  # fmt: skip
def test_a_host_that_cannot_take_part_is_named(
    options: dict[str, object], connect: dict[str, object], message: str, site: SshSite, tmp_path: Path
) -> None:
    chosen = section(site, connect_options=site.connect | connect, **options)
    with pytest.raises(PipelineError, match=message), open_workers(Cluster.model_validate(chosen), shared=tmp_path):
        pass
    wait_until(lambda: started_by(site) == [], "the processes over SSH to end")
