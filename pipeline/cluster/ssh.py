"""The hosts of a cluster over SSH, prepared before it starts: checked for this program, and given the cluster's certificate.

`distributed.SSHCluster` passes settings to its processes on the command line, which everybody on a host can read. So the
certificate and its key go through the connection's standard input into a file in a folder that only this user can enter, and
the command line holds only its path. The folder is removed with the cluster; after a SIGKILL it stays, but its certificate is
useless.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shlex
import sys
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from pipeline.errors import ServiceError, UsageError, printable

CLEAR_S = 10.0


@dataclass(frozen=True)
class Host:
    """A host of `cluster.options`, and how it is reached."""

    name: str
    connect: Mapping[str, Any]
    """Keywords of `asyncssh.connect`."""
    python: str


def hosts_of(options: Mapping[str, Any]) -> list[Host]:
    """The hosts that SSHCluster would use, each once. Raises UsageError for a list of options of another length."""
    names = list(options["hosts"])
    found: dict[str, Host] = {}
    for index, name in enumerate(names):
        each = {
            key: _each(options.get(key), names, index, key) for key in ("connect_options", "remote_python")
        }  # fmt: skip
        host = Host(str(name), each["connect_options"] or {}, each["remote_python"] or sys.executable)
        found.setdefault(repr(host), host)
    return list(found.values())


def _each(option: Any, names: Sequence[Any], index: int, key: str) -> Any:
    if not isinstance(option, list):
        return option
    if len(option) != len(names):
        raise UsageError(f"cluster.options.{key}: a list needs one item per host, {len(names)}, found {len(option)}")
    return option[index]


@contextlib.contextmanager
def carried_to(hosts: Sequence[Host], made: Any, wait_s: float) -> Iterator[dict[str, Any]]:
    """Dask's settings with which processes on these hosts use the certificate of `made`, a temporary `Security`; its files exist
    until the context ends. Raises ServiceError for a host that cannot be reached in time or lacks this program."""
    folder = f"/tmp/.w2v-{secrets.token_hex(16)}"  # noqa: S108 - nobody can guess it, and a folder of another user is refused
    bundle = f"{folder}/cluster.pem"
    text = f"{made.tls_client_cert}\n{made.tls_client_key}\n"
    put = f"umask 077; mkdir {folder} 2>/dev/null || test -O {folder} && cat > {bundle}"
    paths = {"ca-file": bundle} | {role: {"cert": bundle, "key": bundle} for role in ("scheduler", "worker", "client")}
    try:
        _run(_on_all(hosts, wait_s, lambda connection, host: _prepare(connection, host, put, text)))
        yield {"distributed.comm.tls": paths, "distributed.comm.require-encryption": True}
    finally:
        with contextlib.suppress(Exception):  # a host out of reach keeps a certificate that is useless
            _run(_on_all(hosts, CLEAR_S, lambda connection, host: connection.run(f"rm -rf {folder}")))


async def _prepare(connection: Any, host: Host, put: str, text: str) -> None:
    tried = await connection.run(f"{shlex.quote(host.python)} -c 'import distributed, pipeline'")
    if tried.exit_status:
        said = printable(str(tried.stderr).strip().rpartition("\n")[2], 200)
        raise ServiceError(
            f"cluster.kind: ssh: {host.name}: {host.python} does not have this program ({said}); set it up there in the same "
            "way, or name its Python in cluster.options.remote_python"
        )
    await connection.run(put, input=text, check=True)


async def _on_all(hosts: Sequence[Host], seconds: float, work: Any) -> None:
    """Does the work on every host at the same time; raises the first error, or ServiceError after `seconds`."""
    import asyncssh

    async def on(host: Host) -> None:
        try:
            async with asyncio.timeout(seconds), asyncssh.connect(host.name, **host.connect) as connection:
                await work(connection, host)
        except (OSError, TimeoutError, asyncssh.Error) as error:
            why = printable(str(error), 200) or f"no answer within {seconds:g} s (cluster.wait_s)"
            raise ServiceError(
                f"cluster.kind: ssh: {host.name}: {why}; check that `ssh {host.name} true` needs no password, and "
                "cluster.options.connect_options"
            ) from error

    await asyncio.gather(*(on(host) for host in hosts))


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Runs it in a new thread, because a notebook's thread already has a running event loop."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, work).result()
