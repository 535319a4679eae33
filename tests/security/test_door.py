"""Who is let in by `w2v ui` and by Dask's pages: nobody without the password, nobody under another name, no other page with the
login of this one."""

from __future__ import annotations

import base64
import contextlib
import http.client
import itertools
import json
import socket
import stat
import sys
from pathlib import Path

import psutil
import pytest

from pipeline.cluster.opening import open_workers
from pipeline.cluster.pages import Pages, find_pages
from pipeline.config import Cluster
from pipeline.safety.login import refusal
from tests.cluster.tracked import wait_for

PASSWORD = "correct horse"
HOSTS = ("127.0.0.1:4711", "localhost:4711")


def request(method: str = "GET", login: str | None = f"w2v:{PASSWORD}", **headers: str) -> int:
    """The status that a request is refused with; 0 if it is answered."""
    given = {"host": HOSTS[0], **{name.replace("_", "-"): value for name, value in headers.items()}}
    if login is not None:
        given.setdefault("authorization", "Basic " + base64.b64encode(login.encode()).decode())
    found = refusal(method, [(name.encode(), value.encode()) for name, value in given.items()], PASSWORD, HOSTS)
    return found[0] if found else 0


def test_the_password_opens_and_nothing_else_does() -> None:
    assert request() == 0
    assert request("POST") == 0
    for login in (None, "", "w2v:", f"w2v:{PASSWORD}x", f"admin:{PASSWORD}", PASSWORD, f"w2v:{PASSWORD.upper()}"):
        assert request(login=login) == 401, login
    for authorization in ("", "Basic", "Basic ***", "Bearer " + PASSWORD, "Basic " + "A" * 100_000, "Digest x"):
        assert request(authorization=authorization) == 401, authorization


def test_a_request_with_two_logins_or_two_hosts_is_refused() -> None:
    login = ("authorization", "Basic " + base64.b64encode(f"w2v:{PASSWORD}".encode()).decode())
    for twice in (("host", HOSTS[0]), login):
        pairs = [(name.encode(), value.encode()) for name, value in (("host", HOSTS[0]), login, twice)]
        assert refusal("GET", pairs, PASSWORD, HOSTS) is not None


@pytest.mark.parametrize("host", ["evil.example", "evil.example:4711", "127.0.0.1", "127.0.0.1:4712", "", "localhost.evil:4711"])
def test_another_name_for_this_machine_is_refused(host: str) -> None:
    assert request(host=host) == 403
    assert request(host="LOCALHOST:4711") == 0


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PATCH", "OPTIONS"])
def test_other_pages_cannot_make_requests_with_this_login(method: str) -> None:
    for origin in ("http://evil.example", "null", "http://127.0.0.1:4712", "https://127.0.0.1:4711", "http://localhost"):
        assert request(method, origin=origin) == 403, origin
    for site in ("cross-site", "same-site"):
        assert request(method, sec_fetch_site=site, sec_fetch_mode="no-cors") == 403
    assert request(method, origin="http://127.0.0.1:4711", sec_fetch_site="same-origin") == 0


def test_a_link_to_the_pages_from_elsewhere_opens_them() -> None:
    assert request(sec_fetch_site="cross-site", sec_fetch_mode="navigate") == 0
    assert request("POST", sec_fetch_site="cross-site", sec_fetch_mode="navigate") == 403


def _listening(pids: set[int]) -> set[int]:
    """The TCP ports that processes listen on."""
    found = (connection for pid in pids for connection in psutil.Process(pid).net_connections("tcp"))
    return {connection.laddr.port for connection in found if connection.status == psutil.CONN_LISTEN}


def get(port: int, page: str, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", page, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


PAGES = ("/", "/status", "/status/ws", "/health", "/metrics", "/info/main/workers.html", "/json/counts.json", "/sitemap.json",
         "/statics/css/base.css", "/individual-workers")  # fmt: skip


@pytest.mark.slow
def test_no_port_of_the_local_cluster_shows_anything_without_the_password(tmp_path: Path) -> None:
    here = psutil.Process()

    def listening() -> set[int]:
        return _listening({here.pid, *(child.pid for child in here.children(recursive=True))})

    of_other_tests = listening()
    with open_workers(Cluster(n_workers=1), shared=tmp_path) as workers:
        assert workers.members()
        ports = listening() - of_other_tests
        assert ports
        answered = 0
        for port, page in itertools.product(ports, PAGES):
            with contextlib.suppress(OSError, http.client.HTTPException):  # Dask's own connections speak TLS
                status, body = get(port, page)
                # Workers have the list of their pages, which has nothing but itself.
                empty = page == "/sitemap.json" and body == b'{"paths": ["/sitemap.json"]}'
                assert status in (401, 404) or empty, f"port {port}: {page} {status} {body!r}"
                answered += 1
        assert answered >= len(PAGES)  # at least one port is a server of pages
        strange = _disturb(ports, times=10)
        assert len(strange) > 50
        before = [child.memory_info().rss for child in here.children(recursive=True)]
        assert workers.map(abs, [-1, -2], label="among strangers") == [1, 2], "it works on, whoever is at the door"
        after = [child.memory_info().rss for child in here.children(recursive=True)]
        assert max(after) < max(before) + (256 << 20), "no length that a stranger says is made room for"
        for connection in strange:
            connection.close()


def raw(port: int, *lines: str) -> bytes:
    """The first bytes of the answer to a request as it stands here."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        return connection.recv(1 << 16)


def _attack_pages(port: int, login: dict[str, str]) -> None:
    """What a browser would not ask: paths that lead out of the folder, sockets without a login, wrong lengths of passwords."""
    known = f"Authorization: {login['Authorization']}"
    here = f"Host: 127.0.0.1:{port}"
    upgrade = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: " + "A" * 22 + "==")
    for page in ("/statics/../../../../etc/passwd", "/statics/%2e%2e/%2e%2e/scheduler.py", "/statics//etc/passwd"):
        said = raw(port, f"GET {page} HTTP/1.1", here, known)
        assert said.split()[1] in (b"400", b"403", b"404"), (page, said[:100])
    for page in ("/status/ws", "/workers/ws", "/eventstream"):
        assert raw(port, f"GET {page} HTTP/1.1", here, *upgrade).split()[1] == b"401", page
        assert raw(port, f"GET {page} HTTP/1.1", here, known, "Origin: http://evil", *upgrade).split()[1] == b"403", page
    for host in ((), ("Host: evil",), (here, "Host: evil"), (f"Host: 127.0.0.1:{port}@evil",)):
        assert raw(port, "GET /status HTTP/1.1", *host, known).split()[1] in (b"400", b"403"), host
    assert raw(port, f"GET http://evil:{port}/status HTTP/1.1", "Host: evil", known).split()[1] == b"403"
    password = base64.b64decode(login["Authorization"].split()[1]).decode()
    for wrong in (password[:-1], password + "x", password.upper(), "w2v:", "", ":", "w2v:" + "x" * 10_000):
        assert get(port, "/status", Authorization="Basic " + base64.b64encode(wrong.encode()).decode())[0] == 401
    for method in ("POST", "PUT", "DELETE", "TRACE", "OPTIONS"):
        assert raw(port, f"{method} /status HTTP/1.1", here, "Content-Length: 0").split()[1] == b"401", method


STRANGE = (b"", b"GET / HTTP/1.0\r\n\r\n", b"\xff" * 64, b"\x16\x03\x01\xff\xff\x01" + b"\0" * 100, b"\0" * 7, b"\x16\x03\x01",
           (1 << 62).to_bytes(8, "little") * 8)  # fmt: skip
"""What a stranger may send to a port of Dask's: nothing, another protocol, lengths that are none, half of a greeting of TLS."""


def _disturb(ports: set[int], times: int) -> list[socket.socket]:
    """Connections that stay open, with something strange sent over each."""
    made = []
    for port, sent in itertools.product(ports, STRANGE * times):
        with contextlib.suppress(OSError):
            made.append(socket.create_connection(("127.0.0.1", port), timeout=60))
            made[-1].sendall(sent)
    return made


@pytest.mark.slow
@pytest.mark.turns(3, 5, of="strangers")
def test_dasks_pages_answer_the_password_as_long_as_the_cluster_runs(tmp_path: Path) -> None:
    links: list[Pages] = []
    known = "bokeh.server" in sys.modules  # another test has asked
    with open_workers(Cluster(n_workers=1), shared=tmp_path, on_pages=links.append) as workers:
        assert workers.members()
        assert find_pages(tmp_path) == links[0]
        file = tmp_path / "dask_pages.json"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        found = json.loads(file.read_text())
        assert links[0].link == f"Dask: http://w2v:{found['password']}@{found['address']}"
        assert found["password"] not in links[0].where, "logs may be read by others"
        port = int(found["address"].partition("/")[0].rpartition(":")[2])
        login = {"Authorization": "Basic " + base64.b64encode(f"w2v:{found['password']}".encode()).decode()}
        assert "bokeh.server" not in sys.modules or known, "nothing of it is imported before somebody asks"
        assert get(port, "/status", **login)[0] == 200
        wait_for(lambda: b"bokeh" in get(port, "/status", **login)[1], 60)
        for page, says in (("/status", b"Task Stream"), ("/info/main/workers.html", b"tls://127.0.0.1"), ("/graph", b"bokeh")):
            status, body = get(port, page, **login)
            assert (status, says in body) == (200, True), page
        assert get(port, "/status")[0] == 401
        assert get(port, "/status", **login | {"Origin": "http://127.0.0.1:1"})[0] == 403
        assert get(port, "/json/counts.json", **login)[0] == 404, "no more than the pages need"
        _attack_pages(port, login)
    assert find_pages(tmp_path) is None
    assert not file.exists()
