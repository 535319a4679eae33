"""Several hosts on one machine: network namespaces with addresses of their own, on a switch whose ports can be slow or cut.

Processes of two hosts share processors and disk, but no network interface and, because `ip netns exec` gives each host its own
mounts, no shared memory in the sense of `host_key`. Nothing outside the namespaces is reached or changed. Needs root.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import socket
import subprocess
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")
CLONE_NEWNET = 0x40000000
BURST_BYTES = 128 << 10
"""The burst that a port lets pass at once: two of the largest segments, a tenth of a millisecond at 10 Gbit/s."""


class NoNamespacesError(Exception):
    """This process may not create network namespaces here; the text is the answer of the system."""


class Switch:
    """Hosts with the addresses 10.77.0.1, 10.77.0.2 …, each connected to one switch by a cable."""

    def __init__(self, hosts: int) -> None:
        self._tag = f"w2v-{uuid.uuid4().hex[:6]}"
        self.hosts = range(hosts)
        self._switch = f"{self._tag}-s"
        try:
            for namespace in (self._switch, *map(self.namespace, self.hosts)):
                _ip("netns", "add", namespace)
                _ip("-n", namespace, "link", "set", "lo", "up")
            _ip("-n", self._switch, "link", "add", "bridge", "type", "bridge")
            _ip("-n", self._switch, "link", "set", "bridge", "up")
            for host in self.hosts:
                self._plug_in(host)
        except BaseException:
            self.close()
            raise

    def _plug_in(self, host: int) -> None:
        there, port = self.namespace(host), _port(host)
        _ip("-n", self._switch, "link", "add", port, "type", "veth", "peer", "name", "eth", "netns", there)
        _ip("-n", self._switch, "link", "set", port, "master", "bridge", "up")
        _ip("-n", there, "address", "add", f"{self.address(host)}/24", "dev", "eth")
        _ip("-n", there, "link", "set", "eth", "up")

    def namespace(self, host: int) -> str:
        return f"{self._tag}-{host}"

    def address(self, host: int) -> str:
        return f"10.77.0.{host + 1}"

    def on(self, host: int) -> Sequence[str]:
        """The beginning of a command that should run on this host."""
        return ("ip", "netns", "exec", self.namespace(host))

    def ask(self, host: int, question: Callable[[], Result]) -> Result:
        """The result of a function that a thread of this process runs on this host."""
        with ThreadPoolExecutor(1, initializer=enter, initargs=(self.namespace(host),)) as beside:
            return beside.submit(question).result()

    def connect(self, host: int, other: int) -> tuple[socket.socket, socket.socket]:
        """Both ends of a connection from one host to another, in this process."""
        with self.ask(other, lambda: socket.create_server((self.address(other), 0))) as server:
            ours = self.ask(host, lambda: socket.create_connection(server.getsockname()))
            theirs, _ = server.accept()
        return ours, theirs

    def cut_off(self, host: int) -> None:
        """Pulls out the cable at the switch: what is sent is lost, and no one is told."""
        _ip("-n", self._switch, "link", "set", _port(host), "down")

    def bring_back(self, host: int) -> None:
        _ip("-n", self._switch, "link", "set", _port(host), "up")

    def shape(self, gbit_s: float | None, delay_ms: float) -> str:
        """Limits every cable to this rate in each direction and, if the kernel can, adds an end-to-end delay; returns what was
        done."""
        for host in self.hosts:
            ends = ((self.namespace(host), "eth", delay_ms), (self._switch, _port(host), 0.0))
            done = {_shape(namespace, device, gbit_s, delay) for namespace, device, delay in ends}
        return ", ".join(sorted(done))

    def close(self) -> None:
        for namespace in (*map(self.namespace, self.hosts), self._switch):
            subprocess.run(["ip", "netns", "delete", namespace], capture_output=True, check=False)


@contextlib.contextmanager
def switch(hosts: int) -> Iterator[Switch]:
    """A switch with this many hosts, all removed at the end. Raises NoNamespacesError if they are not allowed."""
    if os.geteuid() != 0:
        raise NoNamespacesError("network namespaces take root")
    if not shutil.which("ip"):
        raise NoNamespacesError("ip is not here: the package iproute2 brings it")
    _try_one()
    made = Switch(hosts)
    try:
        yield made
    finally:
        made.close()


def _try_one() -> None:
    """Creates a namespace with a cable and runs a command in it, which some machines forbid although they allow the rest."""
    name = f"w2v-{uuid.uuid4().hex[:6]}"
    try:
        _ip("netns", "add", name)
        _ip("-n", name, "link", "add", "one", "type", "veth", "peer", "name", "other")
        _ip("netns", "exec", name, "true")
    except RuntimeError as error:
        raise NoNamespacesError(str(error)) from None
    finally:
        subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def enter(namespace: str) -> None:
    """Moves this thread, and the threads it starts from now on, into the network namespace."""
    with Path("/var/run/netns", namespace).open() as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter the network namespace {namespace}")


def _port(host: int) -> str:
    return f"port{host}"


def _shape(namespace: str, device: str, gbit_s: float | None, delay_ms: float) -> str:
    """The queue discipline that the kernel has: netem delays and limits, a token bucket only limits."""
    subprocess.run(["tc", "-n", namespace, "qdisc", "del", "dev", device, "root"], capture_output=True, check=False)
    if gbit_s is None:
        return "no limit"
    netem = ["netem", "limit", "100000", "delay", f"{delay_ms}ms", "rate", f"{gbit_s}gbit"]
    bucket = ["tbf", "rate", f"{gbit_s}gbit", "burst", str(BURST_BYTES), "latency", "50ms"]
    for how in (netem, bucket):
        added = ["tc", "-n", namespace, "qdisc", "add", "dev", device, "root", *how]
        done = subprocess.run(added, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return how[0]
    raise RuntimeError(f"tc cannot limit a cable here: {done.stderr.strip()}")


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
