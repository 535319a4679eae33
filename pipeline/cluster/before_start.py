"""Refuses hopeless runs before anything starts: checks the packages, devices, folders and settings that they would need later.

Nothing here opens a cluster or reads a corpus; it takes a moment, and no night is lost to a missing package.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import resource
import socket
import time
from concurrent.futures import ThreadPoolExecutor

from pipeline.cluster.options import refuse_misspelt
from pipeline.cluster.room import free_memory
from pipeline.cluster.vendors import EXTRAS
from pipeline.config import Cluster, RunConfig
from pipeline.errors import CapacityError, InputError, ServiceError, amount, printable
from pipeline.exchange.host import usable_cores
from w2v_core.extras import install_command

MODULES = {"ssh": "asyncssh", "slurm": "dask_jobqueue", "kubernetes": "dask_kubernetes"}
"""{kind of cluster: module it needs}."""
ANSWER_S = 10.0
START_S = 1.4
"""Seconds of a core that the start of a local worker takes (on two cores 8 started in 5.4 s, 16 in 11.6 s)."""
ADDRESSES = 10**9
"""Bytes of addresses that a run takes at least: with two cores, 1.0 GB were too few for a run of half a megabyte."""
WORKER_BYTES = 50 << 20
"""What a local worker's process takes for itself before it has work, without what it shares with others (49 MB were measured)."""


def refuse_hopeless(config: RunConfig, trains: bool) -> None:
    """Raises the error that the run would end with hours later. `trains`: it includes training."""
    cluster = config.cluster
    if trains and config.train.backend == "cupy" and cluster.kind == "local":
        refuse_without_gpu()
    if (module := MODULES.get(cluster.kind)) and importlib.util.find_spec(module) is None:
        raise ServiceError(
            f"cluster.kind: {cluster.kind} needs a package that is missing ({module}): "
            f"{install_command(EXTRAS[cluster.kind])}, or set cluster.kind: local to run on this machine"
        )
    if cluster.kind == "local" and cluster.n_workers:
        _refuse_crowd(cluster.n_workers)
    _refuse_few_addresses()
    if cluster.options:
        if cluster.kind == "local":
            _refuse_scratch(cluster)
        refuse_misspelt(cluster)


def _refuse_few_addresses() -> None:
    """With few, libraries end the process when they are loaded, or crash."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < ADDRESSES:
        raise CapacityError(
            f"this process may have {amount(limit)} of addresses (ulimit -v), and a run takes at least {amount(ADDRESSES)}, most "
            "of them for libraries and threads; raise the limit"
        )


def _refuse_crowd(n_workers: int) -> None:
    free = free_memory()
    if free is not None and n_workers * WORKER_BYTES > free:
        raise CapacityError(
            f"cluster.n_workers: {n_workers:,} processes take at least {amount(n_workers * WORKER_BYTES)} before any work, "
            f"{amount(free)} are free here; more of them than cores gain nothing"
        )


def crowded(cluster: Cluster) -> str | None:
    """What to expect of more local processes than this machine has cores; None if there are not."""
    asked, cores = cluster.n_workers or 0, usable_cores()
    if cluster.kind != "local" or asked <= cores:
        return None
    seconds, here = asked * START_S / cores, "one core" if cores == 1 else f"{cores} cores"
    return f"{asked:,} processes start on {here}, for about {seconds:.0f} s, and gain nothing over {cores} (cluster.n_workers)"


def refuse_without_gpu() -> None:
    """Raises ServiceError if this machine cannot train on a GPU."""
    way_out = "set train.backend: auto to train on the CPU"
    if importlib.util.find_spec("cupy") is None:
        raise ServiceError(
            f"train.backend: cupy needs CuPy, which is not installed: {install_command('gpu13')} (CUDA 13) or '…[gpu12]' "
            f"(CUDA 12) on a machine with an NVIDIA GPU, or {way_out}"
        )
    try:
        import cupy

        devices = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # CuPy raises its own errors for a missing or wrong driver and for a busy device
        raise ServiceError(f"train.backend: cupy finds no usable GPU ({printable(str(error), 200)}); {way_out}") from None
    if not devices:
        raise ServiceError(f"train.backend: cupy finds no GPU on this machine; {way_out}")


def _refuse_scratch(cluster: Cluster) -> None:
    folder = cluster.options.get("local_directory")
    if folder is not None and not (os.path.isdir(folder) and os.access(folder, os.W_OK)):
        raise InputError(
            f"cluster.options.local_directory: {printable(str(folder), 300)}: not a writable folder; create it, or remove the "
            "key to use the system's folder for temporary files"
        )


def refuse_silent(cluster: Cluster) -> None:
    """Raises ServiceError if no Dask scheduler responds at the cluster's address within ANSWER_S or `wait_s`, whichever is
    shorter."""
    found = re.fullmatch(r"(?:tcp|tls)://(\[[^\]]+\]|[^:/]+):(\d+)/?", cluster.address or "")
    if not found:
        return
    host, port = found[1].strip("[]"), int(found[2])
    until = time.monotonic() + min(ANSWER_S, cluster.wait_s)
    way_out = "start one there, check cluster.address, or set cluster.kind: local"
    while True:
        try:
            with contextlib.closing(socket.create_connection((host, port), timeout=max(0.1, until - time.monotonic()))):
                break
        except OSError as error:
            if time.monotonic() >= until:
                raise ServiceError(
                    f"{cluster.address}: no Dask scheduler answers ({error.strerror or error}); {way_out}"
                ) from None
            time.sleep(0.2)
    import asyncio

    try:
        with ThreadPoolExecutor(1) as pool:  # a notebook's thread already runs an event loop
            pool.submit(lambda: asyncio.run(_shake_hands(cluster, max(2.0, until - time.monotonic())))).result()
    except (OSError, TimeoutError, ValueError, TypeError) as error:  # TypeError: wss:// without certificates
        raise ServiceError(
            f"{cluster.address}: something listens there, but does not answer as a Dask scheduler "
            f"({printable(str(error), 200)}); {way_out} (cluster.tls, if it requires certificates)"
        ) from None


async def _shake_hands(cluster: Cluster, timeout_s: float) -> None:
    """Performs the handshake of Dask's connections, then closes the connection."""
    import asyncio

    from distributed.comm.core import connect

    from pipeline.cluster.opening import security

    secure = security(cluster)
    arguments = secure.get_connection_args("client") if secure else {}
    comm = await asyncio.wait_for(connect(cluster.address, timeout=timeout_s, **arguments), timeout_s + 1)
    await comm.close()
