"""Links between the hosts of a round: rows of parameters, from worker to worker, over the cluster's own connections.

A link is one connection of distributed's between two workers, kept open from merge to merge. It is opened to the address
the worker already listens on, so nothing else listens, and with its connection arguments, so TLS comes along. A plugin
answers the call on the other side. Arrays travel as raw frames: the sender writes from the parameters themselves, the
receiver reads into a fresh buffer, and nothing is pickled on one side or unpickled on the other (distributed's own array
frames carry a pickled type).

A link belongs to one group (one attempt by one set of workers). A participant that has finished says goodbye and leaves, which
is an error only for a peer that still needs something from it. A link that breaks without a goodbye, as all links of a dying
process do, ends the group at once. Nobody receives messages for a group that no longer exists: their connection is closed when
its sender gives up. At most
`_AHEAD` messages wait on a link, and a link whose group is not open yet is not read from at all.

Tasks run in threads, connections live on the worker's event loop. `Links` is the border: `send` hands over to the loop,
`receive` waits in the thread for what the loop brought.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from distributed import WorkerPlugin, get_worker
from distributed.comm.core import connect
from distributed.protocol.serialize import Serialized
from distributed.utils import ensure_memoryview
from numpy.typing import NDArray

from pipeline.exchange.attempts import ATTENTION_S, Attempts, PeerLostError

if TYPE_CHECKING:
    from distributed import Worker
    from distributed.comm.core import Comm

PLUGIN = "w2v-links"
_OPERATION = "w2v_link"
_AHEAD = 4
"""Messages that may wait on a link. A peer is never more than one merge ahead, and a merge is two messages."""
_POLL_S = 0.01
_CLOSE_S = 5.0

Tag = tuple[int, str]
"""(number of the merge in the group, phase): what the next message of a link must be."""
Arrays = list[NDArray[np.float32]]


class LinkPlugin(WorkerPlugin):
    """Lets the other workers of a round reach the tasks on this worker. Registered once a cluster; a worker that its
    nanny restarts gets it again."""

    name = PLUGIN
    idempotent = True

    def setup(self, worker: Worker) -> None:
        self.worker = worker
        self.loop = asyncio.get_running_loop()
        self.groups: dict[str, Links] = {}
        self.guests: set[str] = set()
        """The runs that may open links here."""
        worker.handlers[_OPERATION] = self.answer

    async def answer(self, comm: Comm, group: str, sender: int, patience_s: float) -> None:
        """Serves a link that another worker opened, once this worker's task of the group is there."""
        deadline = time.monotonic() + patience_s
        while group not in self.groups:
            if comm.closed() or time.monotonic() > deadline:
                comm.abort()
                return
            await asyncio.sleep(_POLL_S)
        await self.groups[group].serve(sender, comm)


def arrive(worker: Worker, run: str) -> None:
    """Lets a run's tasks on this worker be reached; runs on one worker share the way in."""
    plugin = cast("LinkPlugin | None", worker.plugins.get(PLUGIN))
    if plugin is None:
        plugin = LinkPlugin()
        plugin.setup(worker)
        worker.plugins[PLUGIN] = plugin
    plugin.guests.add(run)


def leave(worker: Worker, run: str) -> None:
    """A run is over; the last one closes the way in."""
    plugin = cast("LinkPlugin | None", worker.plugins.get(PLUGIN))
    if plugin is not None:
        plugin.guests.discard(run)
        if not plugin.guests:
            del worker.plugins[PLUGIN]
            worker.handlers.pop(_OPERATION, None)


def has_guests(worker: Worker) -> bool:
    """Whether a run may open links on this worker."""
    return PLUGIN in worker.plugins


def join_group(key: str, participant: int, peers: dict[int, str], patience_s: float, attempts: Attempts) -> Links:
    """This worker's links to its peers ({participant: address}), all of them open; called from a task's thread.

    Of two peers the lower participant calls the higher one. Raises PeerLostError when one does not come in time.
    """
    plugin = cast(LinkPlugin, get_worker().plugins[PLUGIN])
    links = Links(plugin, key, participant, patience_s, attempts)
    try:
        links.open(peers)
    except BaseException:
        links.close()
        raise
    return links


class Links:
    """One participant's links within a group."""

    def __init__(self, plugin: LinkPlugin, key: str, participant: int, patience_s: float, attempts: Attempts) -> None:
        self._plugin = plugin
        self._attempts = attempts
        self._key = key
        self._participant = participant
        self._patience_s = patience_s
        self._changed = threading.Condition()
        self._arrived: dict[int, deque[tuple[Tag, Arrays]]] = {}
        self._lost: str | None = None
        self._left: set[int] = set()
        self._comms: dict[int, Comm] = {}
        self._turns: dict[int, asyncio.Lock] = {}

    # ── in the task's thread ─────────────────────────────────────────────────────────────────────────────────────────

    def open(self, peers: dict[int, str]) -> None:
        self._plugin.groups[self._key] = self
        for peer, address in peers.items():
            if self._participant < peer:
                self._on_loop(self._call(peer, address))
        self._wait(lambda: self._comms.keys() >= peers.keys(), lambda: _names(peers.keys() - self._comms.keys(), peers))

    def send(self, peer: int, tag: Tag, arrays: Iterable[NDArray[np.float32]]) -> None:
        """Starts sending and returns at once. The arrays must not change until the peer has answered: large ones are written
        from where they lie, and only the peer knows when it has them."""
        self._on_loop(self._write(peer, {"tag": list(tag), "rows": [_frame(array) for array in arrays]}))

    def receive(self, peer: int, tag: Tag) -> Arrays:
        """The arrays that the peer sent under this tag; waits for them. Raises PeerLostError if any peer is lost."""
        box = self._arrived[peer]

        def is_there() -> bool:
            if peer in self._left and not box:
                self._lose(f"participant {peer} left the round before it sent merge {tag[0]}, {tag[1]}")
            return bool(box)

        self._wait(is_there, lambda: f"participant {peer} (merge {tag[0]}, {tag[1]})")
        found, arrays = box.popleft()
        if found != tag:
            raise PeerLostError(f"expected {tag} from participant {peer}, found {found}; the workers are out of step")
        return arrays

    def close(self) -> None:
        """Leaves the group; what was sent before still arrives. After a loss the peers are cut off instead."""
        if self._plugin.groups.get(self._key) is self:
            del self._plugin.groups[self._key]
        with contextlib.suppress(RuntimeError, TimeoutError):  # the loop may have ended with its worker
            self._on_loop(self._hang_up()).result(2 * _CLOSE_S)

    def _wait(self, is_there: Callable[[], bool], what: Callable[[], str]) -> None:
        deadline = time.monotonic() + self._patience_s
        with self._changed:
            while not is_there():
                if self._lost:
                    raise PeerLostError(self._lost)
                left = deadline - time.monotonic()
                if left <= 0:
                    raise PeerLostError(
                        f"waited {self._patience_s:g} s for {what()}, which did not come; its worker is taken for lost"
                    )
                self._attempts.raise_if_lost()
                self._changed.wait(min(left, ATTENTION_S))

    def _on_loop(self, work: Coroutine[Any, Any, None]) -> Future[None]:
        return asyncio.run_coroutine_threadsafe(work, self._plugin.loop)

    # ── on the worker's event loop ───────────────────────────────────────────────────────────────────────────────────

    async def _call(self, peer: int, address: str) -> None:
        try:
            comm = await connect(address, **self._plugin.worker.connection_args)
            call = {"op": _OPERATION, "group": self._key, "sender": self._participant, "patience_s": self._patience_s}
            await comm.write(call | {"reply": False})
        except OSError as error:
            self._lose(f"cannot reach participant {peer} at {address} ({error})")
            return
        await self.serve(peer, comm)

    async def serve(self, peer: int, comm: Comm) -> None:
        """Reads the link until it closes, which ends the group: no merge is possible without this peer."""
        if self._lost:
            comm.abort()
            return
        with self._changed:
            self._arrived[peer] = deque()
            self._turns[peer] = asyncio.Lock()
            self._comms[peer] = comm
            self._changed.notify_all()
        comm.deserialize = False
        reason: str | None = "this worker is closing"
        try:
            while True:
                message = await comm.read()
                if "bye" in message:
                    reason = None
                    return
                self._deliver(peer, _parse_tag(message), [_array(frame) for frame in message["rows"]])
        except Exception as error:  # whatever ended the reading, the thread that waits for it must hear of it
            reason = f"the link to participant {peer} at {comm.peer_address} broke ({error})"
        finally:
            if reason is None:
                self._let_go(peer)
            else:
                self._lose(reason)
            comm.abort()

    def _deliver(self, peer: int, tag: Tag, arrays: Arrays) -> None:
        box = self._arrived[peer]
        if len(box) >= _AHEAD:
            raise ValueError(f"it sent {tag} while {_AHEAD} messages before it wait here")
        with self._changed:
            box.append((tag, arrays))
            self._changed.notify_all()

    async def _write(self, peer: int, message: dict[str, Any]) -> None:
        # Messages of one link must not overtake each other, and distributed serialises large ones in another thread.
        async with self._turns[peer]:
            try:
                await self._comms[peer].write(message)
            except Exception as error:  # as above: nobody looks at this task's result
                self._lose(f"cannot send to participant {peer} ({error})")

    def _lose(self, reason: str) -> None:
        with self._changed:
            self._lost = self._lost or reason
            self._changed.notify_all()

    def _let_go(self, peer: int) -> None:
        with self._changed:
            self._left.add(peer)
            self._changed.notify_all()

    async def _hang_up(self) -> None:
        was_lost = self._lost is not None
        for peer, comm in self._comms.items():
            if not was_lost and peer not in self._left:
                with contextlib.suppress(OSError, TimeoutError):  # a peer that is gone needs no goodbye
                    async with self._turns[peer]:
                        await comm.write({"bye": True})
                        await asyncio.wait_for(comm.close(), _CLOSE_S)
            comm.abort()
        self._lose("this worker left the round")


def _names(participants: Iterable[int], addresses: dict[int, str]) -> str:
    return ", ".join(f"participant {peer} at {addresses[peer]}" for peer in sorted(participants))


def _parse_tag(message: dict[str, Any]) -> Tag:
    number, phase = message["tag"]
    return int(number), str(phase)


def _frame(array: NDArray[np.float32]) -> Serialized:
    """The array's memory, as distributed passes it on untouched, and its checksum: a damaged row would train on, and what
    a connection without TLS has against damage is weak."""
    memory = ensure_memoryview(array.data)
    return Serialized({"shape": array.shape, "crc32": zlib.crc32(memory)}, [memory])


def _array(frame: Serialized) -> NDArray[np.float32]:
    """The array in the memory it was read into, or a copy of it if it lies askew: small messages are read into one
    buffer behind a header of any length."""
    if not isinstance(frame, Serialized):
        raise TypeError(f"expected a frame of rows, found {type(frame).__name__}")
    (memory,) = frame.frames
    if zlib.crc32(memory) != frame.header["crc32"]:
        raise ValueError(f"{memoryview(memory).nbytes:,} bytes of rows arrived damaged")
    array: NDArray[np.float32] = np.ndarray(frame.header["shape"], np.float32, memory)
    return np.require(array, requirements=("C", "ALIGNED", "WRITEABLE"))
