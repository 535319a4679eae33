"""The door of `w2v ui`: MLflow's pages behind a password, over loopback, for requests from their own pages only.

MLflow's server lets every local user read and write files as the user who started it. Its own basic-auth app would need another
package and a database of users and permissions. Here one user and one password suffice, so this is a wrapper around the server's
application that every request passes through: pages, API, artefacts, sockets.

- The password is drawn anew for each start; only this process, its parent (through the environment) and the terminal know it.
- `safety/login.py` decides which requests are admitted.
- The socket is bound before its port is announced, so no other process can have taken it.

`python -m pipeline.tracking.door URI` prints the port on standard output and ends when its standard input does.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

from pipeline.safety.login import LOGIN, refusal

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

PASSWORD_VARIABLE = "W2V_UI_PASSWORD"  # noqa: S105 - the name of a variable
ENTRANCE = "/enter"
"""The path of the link with the password: it redirects to the pages, whose address does not contain the password."""


class Door:
    """The application behind the password; `start` is the path that `ENTRANCE` redirects to."""

    def __init__(self, application: Application, password: str, hosts: Collection[str], start: str = "/") -> None:
        self._application = application
        self._password = password
        self._hosts = frozenset(hosts)
        self._start = start

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._application(scope, receive, send)
        refused = refusal(scope.get("method", "GET"), scope["headers"], self._password, self._hosts)
        if refused and scope["type"] == "websocket":
            return await send({"type": "websocket.close", "code": 1008})
        if refused:
            return await _answer(
                send, refused[0], refused[1], [(b"www-authenticate", LOGIN.encode())] if refused[0] == 401 else []
            )
        if scope["path"] == ENTRANCE:
            host = next(value for name, value in scope["headers"] if name.lower() == b"host")
            return await _answer(send, 303, "", [(b"location", b"http://" + host + self._start.encode())])
        return await self._application(scope, receive, send)


async def _answer(send: Send, status: int, text: str, headers: list[tuple[bytes, bytes]]) -> None:
    body = text.encode() + b"\n"
    fixed = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*fixed, *headers]})
    await send({"type": "http.response.body", "body": body})


# ── the server's process ─────────────────────────────────────────────────────────────────────────────────────────────


def main() -> int:
    """Serves until standard input ends; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.tracking.door", description="MLflow's pages behind a password.")
    parser.add_argument("uri")
    parser.add_argument("--artifact-root", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--start", default="/")
    options = parser.parse_args()
    os.umask(0o077)
    password = os.environ.pop(PASSWORD_VARIABLE)
    listening = socket.create_server(("127.0.0.1", options.port))
    port = listening.getsockname()[1]

    import uvicorn

    application = _mlflow(options.uri, options.artifact_root)
    door = Door(application, password, (f"127.0.0.1:{port}", f"localhost:{port}"), options.start)
    server = uvicorn.Server(uvicorn.Config(door, log_level="critical", access_log=False, lifespan="on"))
    threading.Thread(target=_end_with_input, args=(server,), daemon=True).start()
    print(port, flush=True)  # noqa: T201 - to the parent
    server.run(sockets=[listening])
    return 0


def _mlflow(uri: str, artifact_root: str) -> Application:
    """MLflow's server over a store, in this process, configured as MLflow's own command line does it."""
    from mlflow.server.constants import ARTIFACT_ROOT_ENV_VAR, BACKEND_STORE_URI_ENV_VAR, REGISTRY_STORE_URI_ENV_VAR
    from mlflow.server.handlers import initialize_backend_stores

    os.environ |= {BACKEND_STORE_URI_ENV_VAR: uri, REGISTRY_STORE_URI_ENV_VAR: uri, ARTIFACT_ROOT_ENV_VAR: artifact_root}
    initialize_backend_stores(uri, uri, artifact_root)
    from mlflow.server.fastapi_app import app

    application: Application = app
    return application


def _end_with_input(server: Any) -> None:
    while os.read(0, 1):
        pass
    server.should_exit = True


if __name__ == "__main__":
    sys.exit(main())
