"""A headless Chromium for tests, controlled over the DevTools protocol: what a page logs, requests and shows.

Chromium is Debian's package (`tests.debian`): if it is missing and cannot be installed, the tests that need it are skipped.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tornado.httpclient import AsyncHTTPClient
from tornado.websocket import WebSocketClientConnection, websocket_connect

from tests.debian import program

START_S, ANSWER_S = 90.0, 90.0
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--no-default-browser-check",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions", "--mute-audio",
    "--hide-scrollbars", "--remote-debugging-port=0", "--remote-allow-origins=*",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)  # fmt: skip
"""No name is resolved: a page that requests anything outside this machine does not get it, and the request is recorded."""


@dataclass
class Tab:
    """One page in a browser. Every method waits for the browser's answer."""

    socket: WebSocketClientConnection
    loop: asyncio.AbstractEventLoop
    errors: list[str] = field(default_factory=list)
    """Errors and warnings on the console, exceptions, and what the security policy blocked."""
    requests: list[str] = field(default_factory=list)
    """The addresses that the page requested, its own first."""
    _number: int = 0
    _loaded: bool = False

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._run(self._call(method, parameters))

    def open(self, address: str, wait_s: float = 0.3) -> None:
        """Loads a page; returns once it is loaded and has had `wait_s` seconds for what it does by itself."""
        self.errors.clear()
        self.requests.clear()
        self._loaded = False
        self.call("Page.navigate", url=address)
        self._run(self._until(lambda: self._loaded))
        self.idle(wait_s)

    def idle(self, seconds: float) -> None:
        """Lets the page work and records its messages."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._run(self._listen(left))

    def value(self, script: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise AssertionError(answer["exceptionDetails"]["exception"].get("description", answer["exceptionDetails"]))
        return answer["result"].get("value")

    def size(self, width: int, height: int, dark: bool = False, phone: bool = False) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2 if phone else 1, mobile=phone
        )
        scheme = "dark" if dark else "light"
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def mouse(self, x: float, y: float, kind: str = "mouseMoved", **more: Any) -> None:
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def click(self, x: float, y: float) -> None:
        for kind in ("mousePressed", "mouseReleased"):
            self.mouse(x, y, kind, button="left", clickCount=1)

    def key(self, key: str, code: int = 0) -> None:
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def type(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def screenshot(self, path: Path, whole: bool = False) -> Path:
        options: dict[str, Any] = {"format": "png", "captureBeyondViewport": whole}
        if whole:
            box = self.call("Page.getLayoutMetrics")["cssContentSize"]
            options["clip"] = {"x": 0, "y": 0, "width": box["width"], "height": min(box["height"], 16000), "scale": 1}
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", **options)["data"]))
        return path

    def _run(self, work: Awaitable[Any]) -> Any:
        return self.loop.run_until_complete(work)

    async def _call(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        number = self._number
        await self.socket.write_message(json.dumps({"id": number, "method": method, "params": parameters}))
        found: list[dict[str, Any]] = []
        await self._until(lambda: bool(found), number, found)
        if "error" in found[0]:
            raise AssertionError(f"{method}: {found[0]['error']}")
        result: dict[str, Any] = found[0]["result"]
        return result

    async def _until(self, done: Callable[[], bool], number: int = -1, found: list[dict[str, Any]] | None = None) -> None:
        deadline = time.monotonic() + ANSWER_S
        while not done():
            if time.monotonic() > deadline:
                raise AssertionError(f"the browser did not answer in {ANSWER_S:g} s; its page said: {self.errors}")
            message = await self._listen(1.0)
            if message and message.get("id") == number and found is not None:
                found.append(message)

    async def _listen(self, seconds: float) -> dict[str, Any] | None:
        try:
            text = await asyncio.wait_for(asyncio.shield(self._pending()), seconds)
        except TimeoutError:
            return None
        self._next = None
        if text is None:
            raise AssertionError("the browser is gone")
        message: dict[str, Any] = json.loads(text)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    _next: asyncio.Future[Any] | None = None

    def _pending(self) -> asyncio.Future[Any]:
        if self._next is None:
            self._next = asyncio.ensure_future(self.socket.read_message())
        return self._next

    def _note(self, method: str, found: dict[str, Any]) -> None:
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Network.requestWillBeSent":
            self.requests.append(found["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.errors.append(
                str(found["exceptionDetails"].get("exception", {}).get("description", found["exceptionDetails"]["text"]))
            )
        elif method == "Runtime.consoleAPICalled" and found["type"] in ("error", "warning", "assert"):
            self.errors.append(" ".join(str(argument.get("value", "")) for argument in found["args"]))
        elif method == "Log.entryAdded" and found["entry"]["level"] in ("error", "warning"):
            self.errors.append(f"{found['entry']['text']} {found['entry'].get('url', '')}")


@contextlib.contextmanager
def open_tab() -> Iterator[Tab]:
    """A tab in a browser of its own, which is closed afterwards."""
    path = program("chromium", "chromium")
    with tempfile.TemporaryDirectory(prefix="chromium.", ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [path, *FLAGS, f"--user-data-dir={profile}", "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        loop = asyncio.new_event_loop()
        try:
            tab = loop.run_until_complete(_connect(Path(profile) / "DevToolsActivePort", loop))
            for domain in ("Page", "Network", "Runtime", "Log"):
                tab.call(f"{domain}.enable")
            yield tab
            loop.run_until_complete(_leave(tab))
            with contextlib.suppress(AssertionError):
                tab.idle(0.2)
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()
            loop.run_until_complete(_rest(loop))
            loop.close()


async def _connect(port_file: Path, loop: asyncio.AbstractEventLoop) -> Tab:
    deadline = time.monotonic() + START_S
    while not (port_file.exists() and "\n" in port_file.read_text()):
        if time.monotonic() > deadline:
            raise AssertionError(f"chromium did not start in {START_S:g} s")
        await asyncio.sleep(0.05)
    port = port_file.read_text().split()[0]
    client, pages = AsyncHTTPClient(), []
    while not pages:  # it answers before its first page is there
        if time.monotonic() > deadline:
            raise AssertionError(f"chromium had no page in {START_S:g} s")
        found = json.loads((await client.fetch(f"http://127.0.0.1:{port}/json/list")).body)
        pages = [page for page in found if page["type"] == "page"]
    client.close()
    (page,) = pages
    return Tab(await websocket_connect(page["webSocketDebuggerUrl"], max_message_size=1 << 28), loop)


async def _leave(tab: Tab) -> None:
    tab.socket.close()  # which writes to the browser, and needs a running loop for it


async def _rest(loop: asyncio.AbstractEventLoop) -> None:
    tasks = [task for task in asyncio.all_tasks(loop) if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
