"""A server that speaks S3, in a separate process, and a proxy in front of it that can misbehave and records requests."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pipeline.options.storage import Storage
from pipeline.storage.addresses import Address, parse_address
from pipeline.storage.objects import put_object

KEYS = {"AWS_ACCESS_KEY_ID": "a-key-that-nobody-may-read", "AWS_SECRET_ACCESS_KEY": "a-secret-that-nobody-may-read"}
ENVIRONMENT = KEYS | {
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
_HOPS = ("transfer-encoding", "content-length", "connection", "expect")
_SERVE = """
import threading
from moto import backends
from moto.server import ThreadedMotoServer
modules = list(backends.list_of_moto_modules())
backends.list_of_moto_modules = lambda: modules  # it looks through 200 folders for every request, a quarter of the time
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print("port", server.get_host_and_port()[1], flush=True)
threading.Event().wait()
"""


@contextlib.contextmanager
def s3_server(**environment: str) -> Iterator[str]:
    """The address of moto's server."""
    arguments = [sys.executable, "-c", _SERVE]
    with subprocess.Popen(
        arguments, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout
            port = next(found[1] for line in process.stdout if (found := re.fullmatch(r"port (\d+)\n", line)))
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


class Front:
    """A proxy in front of a server. `answer` returns (status, body) for a request, or None to pass it on; `seen` has
    the method, path and range of every request."""

    def __init__(self, server: str) -> None:
        self.answer: Callable[[str, str], tuple[int, bytes] | None] = lambda method, path: None
        self.on_headers: Callable[[dict[str, str]], None] = lambda headers: None
        self.delay_s = 0.0
        self.seen: list[tuple[str, str, str]] = []
        front, target = self, server.removeprefix("http://")

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                front.on_headers({name.lower(): value for name, value in self.headers.items()})
                front.seen.append((self.command, self.path, self.headers.get("Range", "")))
                body = self._body()
                time.sleep(front.delay_s)
                if own := front.answer(self.command, self.path):
                    told = [("Content-Type", "application/xml"), ("Content-Length", str(len(own[1])))]
                    self._reply(own[0], told, own[1])
                    return
                with contextlib.closing(http.client.HTTPConnection(target, timeout=60)) as connection:
                    headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOPS}
                    connection.request(self.command, self.path, body, headers)
                    found = connection.getresponse()
                    self._reply(found.status, found.getheaders(), found.read())

            do_PUT = do_POST = do_DELETE = do_HEAD = do_GET

            def _body(self) -> bytes:
                if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                pieces = []
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    pieces.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(pieces)

            def _reply(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
                self.send_response_only(status)
                kept = [pair for pair in headers if pair[0].lower() not in ("transfer-encoding", "connection", "content-length")]
                size = dict((name.lower(), value) for name, value in headers).get("content-length", "0")
                for name, value in [*kept, ("Content-Length", size if self.command == "HEAD" else str(len(body)))]:
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def bytes_asked_for(self) -> int:
        """The bytes read by requests for ranges."""
        ranges = [
            found for method, _, text in self.seen if method == "GET" and (found := re.fullmatch(r"bytes=(\d+)-(\d+)", text))
        ]
        return sum(int(found[2]) - int(found[1]) + 1 for found in ranges)


def error_of(code: str) -> bytes:
    """The body of an error answer of S3."""
    return f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'.encode()


def make_bucket(name: str, storage: Storage) -> Address:
    from pyarrow import fs

    assert storage.endpoint
    scheme, _, host = storage.endpoint.partition("://")
    system = fs.S3FileSystem(
        access_key="maker",
        secret_key="maker",
        scheme=scheme,
        endpoint_override=host,
        region="us-east-1",
        allow_bucket_creation=True,
    )
    system.create_dir(name)
    return parse_address(f"s3://{name}", "test")


def put_all(place: Address, files: dict[str, bytes], storage: Storage) -> None:
    for name, data in files.items():
        put_object(place / name, data, storage)
