"""Connections between the workers of a round on several hosts: through the cluster's own port, with its certificates.

A link (`links`) begins as a connection of distributed, opened to the address that the worker listens on anyway, with the
cluster's connection arguments: nothing else listens, TLS is included, and strangers are refused by the cluster. A plugin answers
the call at the other side. Then both ends detach the socket from the event loop, and from then on the thread that merges uses
it. The connection object stays with its owner, which closes it.

The caller sends nothing more until it has read a hello, so that no row data ends up in a buffer of the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, cast

from distributed import WorkerPlugin, get_worker
from distributed.comm.core import CommClosedError, connect
from tornado.iostream import IOStream

from pipeline.errors import ServiceError
from pipeline.exchange.attempts import ATTENTION_S, Attempts, PeerLostError
from pipeline.exchange.links import Link, Links, keep_open

if TYPE_CHECKING:
    from distributed import Worker
    from distributed.comm.core import Comm

PLUGIN = "w2v-links"
_OPERATION = "w2v_link"
_POLL_S = 0.01
_LONGEST_PATIENCE_S = 3600.0


class LinkPlugin(WorkerPlugin):
    """Accepts links from the other workers of a round to tasks on this worker; `arrive` installs it with the first run."""

    name = PLUGIN

    def setup(self, worker: Worker) -> None:
        self.worker = worker
        self.loop = asyncio.get_running_loop()
        self.groups: dict[str, Group] = {}
        self.guests: set[str] = set()
        """The runs that may open links here."""
        worker.handlers[_OPERATION] = self.answer

    async def answer(self, comm: Comm, group: str, sender: int, patience_s: float) -> None:
        """Passes the connection to its group once this worker's task has joined the group, and waits until the group is over.

        Group and sender are the caller's claims: the connection of a sender that the group does not expect is closed.
        """
        deadline = time.monotonic() + min(patience_s, _LONGEST_PATIENCE_S)
        while group not in self.groups:
            if comm.closed() or time.monotonic() > deadline:
                comm.abort()
                return
            await asyncio.sleep(_POLL_S)
        found = self.groups[group]
        if not found.waits_for(sender):
            comm.abort()
            return
        found.adopt(sender, comm)
        await found.is_over.wait()


def arrive(worker: Worker, run: str) -> None:
    """Lets a run's tasks on this worker accept links; runs on one worker share the plugin."""
    plugin = cast("LinkPlugin | None", worker.plugins.get(PLUGIN))
    if plugin is None:
        plugin = LinkPlugin()
        plugin.setup(worker)
        worker.plugins[PLUGIN] = plugin
    plugin.guests.add(run)


def leave(worker: Worker, run: str) -> None:
    """Ends a run's use of links; the last run removes the plugin."""
    plugin = cast("LinkPlugin | None", worker.plugins.get(PLUGIN))
    if plugin is not None:
        plugin.guests.discard(run)
        if not plugin.guests:
            del worker.plugins[PLUGIN]
            worker.handlers.pop(_OPERATION, None)


def has_guests(worker: Worker) -> bool:
    """Whether a run may open links on this worker."""
    return PLUGIN in worker.plugins


def join_group(key: str, participant: int, peers: dict[int, str], patience_s: float, attempts: Attempts) -> Group:
    """This worker's open links to its peers ({participant: address}); called from a task's thread.

    Of two peers, the one with the lower number connects to the other. Raises PeerLostError if one does not come in time,
    ServiceError if the cluster's connections have no socket that can be detached.
    """
    return join_groups(key, participant, peers, patience_s, attempts, 1)[0]


def join_groups(
    key: str, participant: int, peers: dict[int, str], patience_s: float, attempts: Attempts, count: int
) -> tuple[Group, ...]:
    """`count` groups of links to the same peers, opened at the same time, as `join_group` opens one."""
    plugin = cast(LinkPlugin, get_worker().plugins[PLUGIN])
    groups = tuple(Group(plugin, f"{key}/{number}", participant, patience_s, attempts) for number in range(count))
    try:
        for group in groups:
            group.call(peers)
        for group in groups:
            group.meet(peers)
    except BaseException:
        for group in groups:
            group.close()
        raise
    return groups


class Group:
    """One participant's connections within a group, and the links over them."""

    links: Links
    """The links, once the group is open."""

    def __init__(self, plugin: LinkPlugin, key: str, participant: int, patience_s: float, attempts: Attempts) -> None:
        self._plugin = plugin
        self._attempts = attempts
        self._key = key
        self._participant = participant
        self._patience_s = patience_s
        self._changed = threading.Condition()
        self._callers: frozenset[int] = frozenset()
        self._comms: dict[int, Comm] = {}
        self._sockets: dict[int, socket.socket] = {}
        self._failure: Exception | None = None
        self.links = Links({}, patience_s, attempts)
        self.is_over = asyncio.Event()

    # ── in the task's thread ─────────────────────────────────────────────────────────────────────────────────────────

    def call(self, peers: dict[int, str]) -> None:
        """Waits for nobody: from now on peers with lower numbers can call, and those with higher ones are called."""
        self._callers = frozenset(peer for peer in peers if peer < self._participant)
        self._plugin.groups[self._key] = self
        for peer, address in peers.items():
            if self._participant < peer:
                self._on_loop(self._call(peer, address))

    def meet(self, peers: dict[int, str]) -> None:
        """Opens the links once all peers are connected and have said hello."""
        self._wait(lambda: self._sockets.keys() >= peers.keys(), lambda: _names(peers.keys() - self._sockets.keys(), peers))
        names = {peer: f"participant {peer} at {self._comms[peer].peer_address}" for peer in peers}
        links = Links({peer: Link(self._sockets[peer], names[peer]) for peer in peers}, self._patience_s, self._attempts)
        for peer in peers:
            if self._participant < peer:
                links.expect(peer, (0, "hello"), ())
            else:
                links.send(peer, (0, "hello"), ())
        links.receive_all()
        links.flush()
        self.links = links

    def cut(self, peer: int) -> None:
        """Breaks a link without a goodbye, as the kernel does for a process that is killed."""
        self._plugin.loop.call_soon_threadsafe(self._comms[peer].abort)

    def give_up(self) -> None:
        """Ends another thread's use of the links, within a moment."""
        self.links.give_up()

    def close(self) -> None:
        """Leaves the group after sending what is queued. After a loss the connections are dropped instead."""
        if self._plugin.groups.get(self._key) is self:
            del self._plugin.groups[self._key]
        self.links.close()
        with contextlib.suppress(RuntimeError):  # the loop may have ended with its worker
            self._plugin.loop.call_soon_threadsafe(self._hang_up)

    def _wait(self, is_there: Callable[[], bool], what: Callable[[], str]) -> None:
        deadline = time.monotonic() + self._patience_s
        with self._changed:
            while not is_there():
                if self._failure:
                    raise self._failure
                left = deadline - time.monotonic()
                if left <= 0:
                    raise PeerLostError(
                        f"waited {self._patience_s:g} s for {what()}, which did not come; its worker is taken for lost"
                    )
                self._attempts.raise_if_lost()
                self._changed.wait(min(left, ATTENTION_S))

    def _on_loop(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._plugin.loop)

    # ── on the worker's event loop ───────────────────────────────────────────────────────────────────────────────────

    async def _call(self, peer: int, address: str) -> None:
        try:
            comm = await connect(address, **self._plugin.worker.connection_args)
            call = {"op": _OPERATION, "group": self._key, "sender": self._participant, "patience_s": self._patience_s}
            await comm.write(call | {"reply": False})
        except OSError as error:
            self._fail(PeerLostError(f"cannot reach participant {peer} at {address} ({error})"))
            return
        self.adopt(peer, comm)

    def waits_for(self, sender: object) -> bool:
        """Whether this is a peer that will call this participant and has not called yet."""
        return type(sender) is int and sender in self._callers and sender not in self._comms

    def adopt(self, peer: int, comm: Comm) -> None:
        """Takes over the connection to a peer."""
        if self.is_over.is_set():
            comm.abort()
            return
        try:
            taken = take_socket(comm, self._patience_s)
        except (OSError, ServiceError) as error:
            self._fail(error if isinstance(error, ServiceError) else PeerLostError(f"lost participant {peer} ({error})"))
            comm.abort()
            return
        with self._changed:
            self._comms[peer], self._sockets[peer] = comm, taken
            self._changed.notify_all()

    def _fail(self, error: Exception) -> None:
        with self._changed:
            self._failure = self._failure or error
            self._changed.notify_all()

    def _hang_up(self) -> None:
        for comm in self._comms.values():
            comm.abort()
        self.is_over.set()


def take_socket(comm: Comm, patience_s: float) -> socket.socket:
    """The socket under a connection of distributed, detached from the event loop."""
    stream = getattr(comm, "stream", None)
    if not isinstance(stream, IOStream):
        raise ServiceError(
            f"{comm.peer_address}: copies of the parameters on several hosts need workers that use tcp:// or tls:// with "
            "distributed's default backend (distributed.comm.tcp.backend: tornado); change the workers' protocol, or set "
            "train.copies=1"
        )
    stream.io_loop.remove_handler(stream.socket)
    if stream.writing() or stream._read_buffer_size:
        raise CommClosedError("its event loop was still using the connection")
    taken = stream.socket
    keep_open(taken, patience_s)
    return taken


def _names(participants: Iterable[int], addresses: dict[int, str]) -> str:
    return ", ".join(f"participant {peer} at {addresses[peer]}" for peer in sorted(participants))
