"""A network that can be impaired: proxies between the processes of a cluster, which forward, delay, hold back or cut."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from urllib.parse import urlsplit

from tests.ports import free_port


class Proxy:
    """Forwards connections from a port of this host to an address like tls://127.0.0.1:1234, each direction separately.

    `hold()` keeps every connection open but forwards nothing, like a network that has been cut in two: neither end is
    told. `release()` forwards what was held back and continues. `delay_s` is the delay of each piece. `there` is the direction
    from the end that opened the connection, `back` the other one.
    """

    def __init__(self, target: str) -> None:
        found = urlsplit(target)
        self._host, self._port = found.hostname, found.port
        self.delay_s = 0.0
        self._loop = asyncio.new_event_loop()
        self._there, self._back = asyncio.Event(), asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        self.port = int(self._server.sockets[0].getsockname()[1])
        self.address = f"{found.scheme}://127.0.0.1:{self.port}"

    def hold(self, *, there: bool = True, back: bool = True) -> None:
        for flows, held in ((self._there, there), (self._back, back)):
            if held:
                self._loop.call_soon_threadsafe(flows.clear)

    def release(self) -> None:
        for flows in (self._there, self._back):
            self._loop.call_soon_threadsafe(flows.set)

    def close(self) -> None:
        """Cuts all connections; both ends are told."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _listen(self) -> asyncio.Server:
        self._there.set()
        self._back.set()
        return await asyncio.start_server(self._connect, "127.0.0.1", 0)

    async def _end(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await asyncio.open_connection(self._host, self._port)
        except OSError:
            writer.close()
            return
        for source, sink, flows in ((reader, there_writer, self._there), (there_reader, writer, self._back)):
            task = asyncio.ensure_future(self._forward(source, sink, flows))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _forward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, flows: asyncio.Event) -> None:
        with contextlib.suppress(OSError):
            try:
                while piece := await source.read(1 << 16):
                    if self.delay_s:
                        await asyncio.sleep(self.delay_s)
                    await flows.wait()
                    sink.write(piece)
                    await sink.drain()
            finally:
                sink.close()


class Detour:
    """The connections between one worker and all others: those that it opens to the scheduler, and those opened to it."""

    def __init__(self, scheduler: str) -> None:
        self.worker_address = f"{urlsplit(scheduler).scheme}://127.0.0.1:{free_port()}"
        self.to_scheduler = Proxy(scheduler)
        self.to_worker = Proxy(self.worker_address)

    def hold(self, *, sent: bool = True, received: bool = True) -> None:
        """The directions to hold: what the worker sends, what it receives, or both."""
        self.to_scheduler.hold(there=sent, back=received)
        self.to_worker.hold(there=received, back=sent)

    def release(self) -> None:
        self.to_scheduler.release()
        self.to_worker.release()

    def delay(self, seconds: float) -> None:
        self.to_scheduler.delay_s = self.to_worker.delay_s = seconds

    def close(self) -> None:
        self.to_scheduler.close()
        self.to_worker.close()
