"""`w2v cluster certs`: a cluster that is started by hand with exactly the commands it prints, and who is admitted."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from cryptography import x509
from distributed import Client
from distributed.security import Security

from pipeline.cluster.certificates import add_clients, make_certificates, throw_away_security
from pipeline.cluster.pages import as_reached
from pipeline.cluster.presence import registered
from pipeline.commands.listed import commands
from pipeline.errors import InputError, UsageError
from tests.cluster.disturbed import Bench, end_of, environment_with, stopped_at
from tests.exposure import files_with, listening, shown_by_ps
from tests.ports import free_port

HOST = "127.0.0.2"
"""The scheduler's address: not the one that everybody has by default."""
REFUSED = r"Timed out|Connection reset|closed|certificate"


@dataclass(frozen=True)
class ByHand:
    """A scheduler and two workers, started with the commands that `w2v cluster certs` prints."""

    folder: Path
    section: dict[str, Any]
    processes: list[subprocess.Popen[bytes]]

    def client(self, folder: Path, name: str = "client", timeout_s: float = 60) -> Client:
        """A client with the certificate of that name in a folder."""
        files = {"tls_client_cert": folder / f"{name}.pem", "tls_client_key": folder / f"{name}.key"}
        paths = {option: str(path) for option, path in (files | {"tls_ca_file": folder / "ca.pem"}).items()}
        security = Security(require_encryption=True, **paths)
        return Client(self.section["address"], security=security, set_as_default=False, timeout=timeout_s)

    def listening(self) -> list[tuple[str, int]]:
        return [door for process in self.processes for door in listening(process.pid)]


def by_command(folder: Path, scheduler: str, worker: str, port: int) -> tuple[list[str], dict[str, Any]]:
    """The commands for a scheduler and for a host of workers that `w2v cluster certs` prints, and the section `cluster`."""
    asked = ["cluster", "certs", str(folder), "--scheduler", scheduler, "--worker", worker, "--port", str(port)]
    said = CliRunner().invoke(commands, asked, catch_exceptions=False).output
    started = re.findall(r"^    (dask .*)$", said, flags=re.MULTILINE)
    assert [command.split()[1] for command in started] == ["scheduler", "worker"]
    (configuration,) = re.findall(r"^    cluster:\n(?:      .*\n)+", said, flags=re.MULTILINE)
    return started, yaml.safe_load(configuration)["cluster"]


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ByHand]:
    folder = tmp_path_factory.mktemp("certs") / "mine"
    started, section = by_command(folder, HOST, "127.0.0.3", free_port(HOST))
    processes = []
    with (folder.parent / "log").open("wb") as log:
        for command in started:
            words = [str(Path(sys.executable).with_name("dask")), *shlex.split(command)[1:]]
            processes.append(
                subprocess.Popen(words, env=environment_with(), stdout=log, stderr=log, cwd=folder.parent, start_new_session=True)
            )
    cluster = ByHand(folder, section, processes)
    try:
        with cluster.client(folder) as client:
            client.wait_for_workers(2, timeout=60)
        yield cluster
    finally:
        for process in processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)


@pytest.mark.slow
@pytest.mark.turns(5, 5, of="certificates")
def test_a_run_on_a_cluster_started_with_the_printed_commands_gives_the_bits_of_one_process(
    by_hand: ByHand, bench: Bench, tmp_path: Path
) -> None:
    config = bench.config_file("by-hand", before="shards", cluster=by_hand.section)
    token = tmp_path / "stopped"
    with bench.w2v(config, failpoint=f"round:1.0=stop,{token}") as driver:
        stopped_at(token, driver)
        keys = [path.read_text().splitlines()[1] for path in by_hand.folder.glob("*.key")]
        assert [key for key in keys if shown_by_ps(key)] == []
        assert listening(driver.pid) == [], "the driver of somebody else's scheduler"
        driver.send_signal(signal.SIGCONT)
        ended = end_of(driver)
    assert ended.summary["vectors"]["sha256"] == bench.digest
    assert re.search(r"^Dask: http://127\.0\.0\.1:\d+/status \(as its scheduler shows it\)$", ended.err, re.MULTILINE), ended.err
    assert [key for key in keys if key in ended.out + ended.err or files_with(key, bench.directory / "by-hand")] == []


@pytest.mark.parametrize(
    ("scheduler", "listens", "link"),
    [
        ("tls://node1:8786", "127.0.0.1", "Dask: http://127.0.0.1:8787/status, on node1 only; `ssh -L 8787:127.0.0.1:8787 node1` "
         "brings it here"),
        ("tls://node1:8786", "0.0.0.0", "Dask: http://node1:8787/status (as its scheduler shows it)"),
        ("tls://127.0.0.2:8786", "127.0.0.1", "Dask: http://127.0.0.1:8787/status (as its scheduler shows it)"),
        ("tls://[fd00::1]:8786", "::", "Dask: http://[fd00::1]:8787/status (as its scheduler shows it)"),
    ],
)  # fmt: skip
def test_the_link_to_dasks_pages_says_how_they_are_reached(scheduler: str, listens: str, link: str) -> None:
    assert as_reached(scheduler, listens, 8787).link == link


@pytest.mark.slow
@pytest.mark.turns(3, 1, of="certificates")
def test_clients_without_a_certificate_of_the_authority_are_refused(by_hand: ByHand, tmp_path: Path) -> None:
    plain = by_hand.section["address"].replace("tls://", "tcp://")
    with pytest.raises(OSError, match=REFUSED):
        Client(plain, timeout=3, set_as_default=False)
    make_certificates(tmp_path, HOST, [])
    with pytest.raises(OSError, match=REFUSED):
        by_hand.client(tmp_path, timeout_s=5)
    add_clients(by_hand.folder, ["ann"])
    with by_hand.client(by_hand.folder, "ann") as client:
        assert len(registered(client)) == 2, "a client that was added is let in"


@pytest.mark.slow
@pytest.mark.turns(3, 1, of="certificates")
def test_everything_that_listens_beyond_loopback_speaks_only_tls(by_hand: ByHand) -> None:
    found = by_hand.listening()
    assert len(found) >= 3
    for host, port in found:
        if host == "127.0.0.1":  # Dask's pages
            continue
        answer = b""
        with contextlib.suppress(ConnectionResetError), socket.create_connection((HOST, port), timeout=10) as plain:
            plain.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = plain.recv(100)
        assert not answer or answer[0] == 21, f"port {port} answers without TLS: {answer!r}"  # an alert of TLS


def handshake(folder: Path, server: str, client: str) -> None:
    """A connection in memory between two ends with these certificates, made as Dask's ends make it. Raises SSLError."""

    def security(role: str, name: str) -> Security:
        files = {f"tls_{role}_cert": str(folder / f"{name}.pem"), f"tls_{role}_key": str(folder / f"{name}.key")}
        return Security(tls_ca_file=str(folder / "ca.pem"), require_encryption=True, **files)

    listening = security("scheduler", server).get_listen_args("scheduler")["ssl_context"]
    connecting = security("client", client).get_connection_args("client")["ssl_context"]
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [listening.wrap_bio(up, down, server_side=True), connecting.wrap_bio(down, up)]
    for _ in range(3):
        for end in reversed(ends):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()


def test_a_clients_certificate_cannot_pose_as_a_server(tmp_path: Path) -> None:
    make_certificates(tmp_path, "scheduler.example", ["10.0.0.7", "::1"])
    handshake(tmp_path, server="scheduler", client="client")
    handshake(tmp_path, server="worker", client="worker")
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        handshake(tmp_path, server="client", client="worker")


def test_only_the_owner_can_read_the_files_and_nothing_is_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    written = make_certificates(folder, "here", ["there"])
    assert {path.stat().st_mode & 0o777 for path in written} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(UsageError, match=r"new/ca\.pem: exists already and is not overwritten"):
        make_certificates(folder, "here", [])
    with pytest.raises(UsageError, match=r"new/client\.pem: exists already"):
        add_clients(folder, ["ann", "client"])
    assert {path: path.read_bytes() for path in folder.iterdir()} == before, "all of them or none"


def test_who_is_added_is_told_the_address_of_the_scheduler(tmp_path: Path) -> None:
    for host, address in (("scheduler.example", "scheduler.example"), ("fd00::7", "[fd00::7]")):
        make_certificates(tmp_path / host, host, [])
        asked = ["cluster", "certs", str(tmp_path / host), "--add", "--client", "ann"]
        said = CliRunner().invoke(commands, asked, catch_exceptions=False).output
        assert f"address: tls://{address}:8786" in said
        assert "ann.pem" in said


@pytest.mark.parametrize("host", ["", "a b", "tls://here", "here:8786", "-here", "x" * 300, "..", "a;b"])
def test_names_that_are_not_hosts_are_refused(host: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected the name or the address of a host"):
        make_certificates(tmp_path / "new", host, [])
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["ca", "worker", "../x", "", "a/b", ".hidden"])
def test_names_that_clients_cannot_have_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--client .*expected letters, digits"):
        make_certificates(tmp_path / "new", "here", [], [name])
    with pytest.raises(InputError, match="no authority to sign with"):
        add_clients(tmp_path, ["ann"])


def test_a_throw_away_certificate_is_valid_whatever_the_clocks_of_hosts_say() -> None:
    made = throw_away_security()
    certificate = x509.load_pem_x509_certificate(made.tls_ca_file.encode("ascii"))
    assert certificate.not_valid_before_utc.year == 1970
    assert certificate.not_valid_after_utc.year == 9999
