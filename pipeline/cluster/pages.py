"""Dask's own pages of a run (bokeh), on loopback and behind a password, created on first access.

The scheduler of a cluster that the driver starts lives in the driver's process and listens for HTTP anyway; unguarded, it would
show every local user addresses, logs and code. So a guard answers there, with a password drawn for this run, by the rules of
`w2v ui` (safety/login.py). Bokeh takes half a second to import and its plugins watch every task, so nothing of it is loaded
before the first request for a page. `<workdir>/dask_pages.json`, readable only by its owner, lets `w2v ui` find the pages.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import json
import os
import re
import secrets
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pipeline.errors import printable
from pipeline.safety.files import json_object, open_inside, unlink_inside
from pipeline.safety.login import LOGIN, USER, refusal

if TYPE_CHECKING:
    from distributed import Client

NAME = "dask_pages.json"
ROUTES = ("distributed.http.scheduler.info", "distributed.http.statics")
"""What the pages themselves link to; all of it is read-only."""
_DASKS_LINK = "{scheme}://{host}:{port}/status"
"""Dask's default for the link to its pages."""
_ANSWER_S = 10.0
_ADDRESS, _PASSWORD = re.compile(r"127\.0\.0\.1:(\d{1,5})/status"), re.compile(r"[A-Za-z0-9_-]{32}")
_BYTES = 4096
_WAIT = (
    b"<!doctype html><meta http-equiv=refresh content=1><title>Dask</title><p>Dask's pages are being prepared \xe2\x80\xa6</p>"
)


@dataclass(frozen=True)
class Pages:
    """The address of Dask's pages of a run."""

    address: str
    password: str | None = None
    """None if no password is required."""
    only_on: str | None = None
    """The host whose loopback interface serves them, if it is not this one."""

    @property
    def link(self) -> str:
        """The link with the password, only for the user who started the run."""
        if self.only_on:
            port = urlsplit(self.address).port
            return f"Dask: {self.address}, on {self.only_on} only; `ssh -L {port}:127.0.0.1:{port} {self.only_on}` brings it here"
        if self.password is None:
            return f"Dask: {self.address} (as its scheduler shows it)"
        return f"Dask: http://{USER}:{self.password}@{self.address}"

    @property
    def where(self) -> str:
        """The address without the password, for logs that others may read."""
        return f"Dask: http://{self.address} (`w2v ui` shows the password)" if self.password else self.link


@contextlib.contextmanager
def dask_pages(scheduler: Any, folder: Path, on_pages: Callable[[Pages], None]) -> Iterator[None]:
    """Guards the scheduler's HTTP port and serves Dask's pages there while the block runs."""
    port, password = scheduler.http_server.port, secrets.token_urlsafe(24)
    scheduler.http_server.request_callback = _guard(scheduler, password, (f"127.0.0.1:{port}", f"localhost:{port}"))
    address = f"127.0.0.1:{port}/status"
    _write_private(folder / NAME, {"address": address, "password": password, "pid": os.getpid()})
    on_pages(Pages(address, password))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            unlink_inside(folder, NAME)


def find_pages(folder: Path) -> Pages | None:
    """The pages of the run that is working in `folder` now; None if there is none, or it has no pages."""
    try:
        found = _read_private(folder / NAME)
        address, password = str(found["address"]), str(found["password"])
        # Anybody who can write to the folder could name a server of their own, to which this program would then link.
        if not (there := _ADDRESS.fullmatch(address)) or not _PASSWORD.fullmatch(password):
            return None
        socket.create_connection(("127.0.0.1", int(there[1])), timeout=1).close()
    except (OSError, ValueError, KeyError, OverflowError):
        return None
    return Pages(address, password)


def _read_private(path: Path) -> dict[str, Any]:
    """The object in this user's file; raises OSError if the file belongs to another user or is open to others."""
    descriptor = open_inside(path.parent, path.name)
    with open(descriptor, "rb") as file:
        facts = os.fstat(descriptor)
        if facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
            raise PermissionError(errno.EPERM, "not this user's alone", str(path))
        return json_object(file.read(_BYTES))


def pages_elsewhere(client: Client) -> Pages | None:
    """The pages of a scheduler in another process, by its own account; None if it gives none."""
    import dask

    if dask.config.get("distributed.dashboard.link") != _DASKS_LINK:  # set by a site whose proxy serves them
        return Pages(printable(client.dashboard_link or "", 200))

    def listens_at(dask_scheduler: Any) -> tuple[str, int]:  # travels by value: a scheduler may be without this program
        return str(dask_scheduler.http_server.address), int(dask_scheduler.http_server.port)

    anyone: Any = client
    try:
        address, port = anyone.sync(anyone._run_on_scheduler, listens_at, callback_timeout=_ANSWER_S)
    except Exception:  # an old scheduler, or a busy one: a run needs no pages
        return None
    return as_reached(anyone.scheduler.address, address, port)


def as_reached(scheduler: str, listens: str, port: int) -> Pages:
    """The pages of a scheduler at this address, seen from another host. `listens` is the address that their server listens on."""
    host = urlsplit(scheduler).hostname or ""
    if _is_loopback(listens) and not _is_loopback(host):
        return Pages(f"http://127.0.0.1:{port}/status", only_on=printable(host, 100))
    shown = host if listens in ("", "0.0.0.0", "::") else listens  # noqa: S104 - compared, not listened at
    return Pages(f"http://{f'[{shown}]' if ':' in shown else printable(shown, 100)}:{port}/status")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _write_private(path: Path, body: dict[str, Any]) -> None:
    """Writes a new file that is readable only by its owner from the start; never writes to a file that others put there."""
    unlink_inside(path.parent, path.name)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="ascii") as file:
        json.dump(body, file)


def _guard(scheduler: Any, password: str, hosts: tuple[str, str]) -> Any:
    """The request router for the scheduler's HTTP port."""
    from tornado.httputil import HTTPHeaders, HTTPServerRequest, ResponseStartLine
    from tornado.routing import Router

    class Answer:
        """A fixed short response, whatever the request contains."""

        def __init__(self, request: HTTPServerRequest, status: int, text: bytes, kind: str, extra: dict[str, str]) -> None:
            self.request, self.status, self.text = request, status, text
            self.headers = HTTPHeaders({"Content-Type": kind, "Content-Length": str(len(text)), **extra})

        def headers_received(self, *_: object) -> None:
            pass

        def data_received(self, _chunk: bytes) -> None:
            pass

        def finish(self) -> None:
            connection: Any = self.request.connection
            connection.write_headers(ResponseStartLine("HTTP/1.1", self.status, ""), self.headers, self.text)
            connection.finish()

        def on_connection_close(self) -> None:
            pass

    class Guard(Router):
        def __init__(self) -> None:
            self.code: Any = None
            self.connected = False

        def find_handler(self, request: HTTPServerRequest, **options: Any) -> Any:
            headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in request.headers.get_all()]
            if refused := refusal(request.method or "", headers, password, hosts):
                extra = {"WWW-Authenticate": LOGIN} if refused[0] == 401 else {}
                return Answer(request, refused[0], refused[1].encode() + b"\n", "text/plain; charset=utf-8", extra)
            self.code = self.code or _import_pages()
            if not self.code.done():
                return Answer(request, 200, _WAIT, "text/html; charset=utf-8", {})
            if not self.connected:
                self.code.result()
                _connect(scheduler)
                self.connected = True
            return scheduler.http_application.find_handler(request, **options)

    return Guard()


def _import_pages() -> Future[None]:
    """Imports the code of Dask's pages in a thread, while the scheduler goes on."""

    def load() -> None:
        import distributed.dashboard.scheduler  # noqa: F401

    pool = ThreadPoolExecutor(1)
    found = pool.submit(load)
    pool.shutdown(wait=False)
    return found


def _connect(scheduler: Any) -> None:
    from distributed.dashboard.scheduler import connect
    from distributed.http.utils import get_handlers

    application = scheduler.http_application
    application.add_handlers(r".*$", get_handlers(scheduler, list(ROUTES)))
    connect(application, scheduler.http_server, scheduler)
