"""Dask's processes on this machine: started, or refused with what they lack. What goes wrong in Dask's own start arrives here as
"Nanny failed to start", so what they need is looked for first, and otherwise the error that was at the beginning is told.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cluster.certificates import throw_away_security
from pipeline.errors import (
    CapacityError,
    ConfigError,
    PipelineError,
    ServiceError,
    TemporaryError,
    explain_os_error,
    explained,
    printable,
)
from pipeline.exchange.host import usable_cores
from pipeline.safety.scratch import private_scratch

if TYPE_CHECKING:
    from pipeline.config import Cluster

ON_ONE_MACHINE: dict[str, Any] = {
    # A machine that was asleep, or a run that was stopped with Ctrl-Z, must not lose every worker when it continues: Dask's
    # scheduler compares times of day before it reads the heartbeats that have arrived (`Presence` does it better), and an end
    # of a connection that reads nothing is as good as gone to the system after this time.
    "distributed.scheduler.worker-ttl": None,
    "distributed.comm.timeouts.tcp": "8 hours",
    "distributed.scheduler.locks.lease-timeout": "8 hours",
}
START_ATTEMPTS = 5
FILES, FILES_PER_WORKER = 30, 12
"""Descriptors that this process has open with n workers: 45 with 2, 93 with 6, 137 with 10 were counted."""
PORTS, PORTS_PER_WORKER = 4, 6
"""Ports that all processes together take with n workers: with 2 fewer they waited for ever (2 and 4 workers were tried)."""
THREADS, THREADS_PER_WORKER = 6, 12
"""Threads of all processes together: 30 with 2 workers, 57 with 4, 79 with 6 were counted. Processes count as threads."""
LOOPBACK_S = 5.0
_SETTINGS = "; they come from files in ~/.config/dask, /etc/dask and $DASK_CONFIG, and from variables DASK_…"


def start_local(cluster: Cluster, stack: contextlib.ExitStack) -> Any:
    """The running LocalCluster, whose scratch folder and settings go with the stack. Raises CapacityError, StorageError or
    ServiceError for what this machine does not grant, ConfigError for settings that the processes do not bear, and otherwise
    TemporaryError."""
    import dask
    from distributed import LocalCluster

    n_workers = cluster.n_workers or usable_cores()
    _refuse_without_loopback()
    _open_enough_files(n_workers)
    _refuse_without_ports(PORTS + PORTS_PER_WORKER * n_workers)
    _refuse_without_threads(THREADS + THREADS_PER_WORKER * n_workers)
    stack.enter_context(_environment_given_back())
    scratch = stack.enter_context(private_scratch(_scratch_parent(cluster)))
    # Also for the scheduler's files; Dask requires its own default name.
    settings: dict[str, Any] = {"temporary-directory": str(scratch / "dask-scratch-space")}
    stack.enter_context(dask.config.set(settings | ON_ONE_MACHINE))
    options: dict[str, Any] = {
        "n_workers": n_workers,
        "threads_per_worker": 1,
        "processes": True,
        # Dask's default listens on every interface, and so does None, on port 8787.
        "dashboard_address": "127.0.0.1:0",
        "host": "127.0.0.1",
        # Throw-away certificates: on a shared machine, loopback does not separate users.
        "security": throw_away_security(),
        "silence_logs": 50,
    }
    # Without a dashboard, imports take half a second less in every run.
    scheduler = {"dashboard": "dashboard_address" in cluster.options} | cluster.options.get("scheduler_kwargs", {})
    chosen = {key: value for key, value in cluster.options.items() if key != "local_directory"}
    return _started(LocalCluster, options | chosen | {"scheduler_kwargs": scheduler})


def _scratch_parent(cluster: Cluster) -> str | None:
    """The folder that the user chose for scratch files, if any."""
    import dask

    parent: str | None = cluster.options.get("local_directory") or dask.config.get("temporary-directory", None)
    return parent


def _started(local_cluster: Callable[..., Any], options: dict[str, Any]) -> Any:
    """A local cluster; started again if a worker dies during start-up, for which Dask gives up the whole cluster."""
    for _ in range(START_ATTEMPTS):
        try:
            with _deaf_to_interrupts():
                return local_cluster(**options)
        except RuntimeError as error:
            lost = error
    raise not_started(lost) from lost


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Blocks SIGINT for threads and processes started inside, and for those they start later.

    A terminal sends Ctrl-C to every process of the group. Workers that receive it end with a screenful of tracebacks; the driver,
    which receives it afterwards, ends them in order.
    """
    # Python's own helper process, if started inside, would unblock SIGINT in the thread that starts it.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _environment_given_back() -> Iterator[None]:
    """Undoes at the end what Dask sets in this process for those it starts (OMP_NUM_THREADS=1 and the like), which libraries that
    a program imports later and processes that it starts by itself would obey."""
    import dask

    names = ["PYTHONHASHSEED", "__DASK_PARENT_PID", *dask.config.get("distributed.nanny.pre-spawn-environ")]
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


# ── what they need ───────────────────────────────────────────────────────────────────────────────────────────────────


def refuse_odd_settings() -> None:
    """Raises ConfigError for Dask's own settings if they cannot be read, which is when it is imported, or if its workers cannot
    use them, and ServiceError if it cannot be imported because /proc is missing."""
    if sys.platform == "linux" and not os.path.exists("/proc/meminfo"):
        raise ServiceError(
            "Dask reads /proc, which is not mounted here; mount it (mount -t proc proc /proc), or leave out cluster.n_workers, "
            "for threads over little text"
        )
    try:
        import dask
    except ValueError as error:
        raise ConfigError(f"Dask cannot read its settings ({printable(str(error), 500)}){_SETTINGS}") from None
    for name in ("target", "spill", "pause", "terminate"):
        value = dask.config.get(f"distributed.worker.memory.{name}", None)
        if value is not None and not isinstance(value, int | float):
            raise ConfigError(
                f"distributed.worker.memory.{name}: expected a share of the memory or false (found {printable(str(value), 100)})"
                f"{_SETTINGS}"
            )


def _refuse_without_loopback() -> None:
    try:
        with (
            socket.create_server(("127.0.0.1", 0)) as door,
            socket.create_connection(door.getsockname(), timeout=LOOPBACK_S),
        ):
            return
    except OSError as error:
        raise ServiceError(
            f"cluster.kind: local: its processes talk over 127.0.0.1, where nothing can be reached ({error.strerror or error}); "
            "put up the loopback interface (ip link set lo up), or leave out cluster.n_workers, for threads over little text"
        ) from None


def _open_enough_files(n_workers: int) -> None:
    """Raises this process's limit of open files as far as that is needed and granted."""
    needed = FILES + FILES_PER_WORKER * n_workers
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    endless = resource.RLIM_INFINITY
    wanted = 2 * needed if hard == endless else min(hard, 2 * needed)
    if soft != endless and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    if soft != endless and soft < needed:
        raise CapacityError(
            f"cluster.kind: local: {n_workers:,} processes take {needed:,} open files and connections, this process may have "
            f"{soft:,}; raise the limit (ulimit -n), or set a smaller cluster.n_workers"
        )


def _refuse_without_ports(needed: int) -> None:
    """Binds so many ports for a moment."""
    with contextlib.ExitStack() as bound:
        for found in range(needed):
            try:
                bound.enter_context(socket.socket()).bind(("127.0.0.1", 0))
            except OSError as error:
                raise ServiceError(
                    f"cluster.kind: local: its processes take {needed:,} ports of 127.0.0.1, and after {found:,} there was none "
                    f"left ({error.strerror}); widen net.ipv4.ip_local_port_range, end what holds them, or set a smaller "
                    "cluster.n_workers"
                ) from None


def _refuse_without_threads(needed: int) -> None:
    """Starts so many threads for a moment; not where addresses are limited, of which each would take some for good."""
    if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        return
    started, is_over = list[threading.Thread](), threading.Event()
    try:
        for _ in range(needed):
            thread = threading.Thread(target=is_over.wait)
            thread.start()
            started.append(thread)
    except RuntimeError:
        raise CapacityError(
            f"cluster.kind: local: its processes take {needed:,} threads, and after {len(started):,} none could be started; "
            "raise the limit that is reached (ulimit -u, of a container: pids), or set a smaller cluster.n_workers"
        ) from None
    finally:
        is_over.set()
        for thread in started:
            thread.join()


# ── why they did not start ───────────────────────────────────────────────────────────────────────────────────────────


def not_started(error: BaseException) -> PipelineError:
    """What to tell of a local cluster that did not start, by the error at the beginning."""
    first = _first_of(error)
    if isinstance(first, Exception) and isinstance(told := explained(first), CapacityError):
        return told
    if isinstance(first, OSError) and first.errno in _REFUSED:
        if isinstance(first.filename, str):
            return explain_os_error(first, Path(first.filename))
        return CapacityError(
            f"the local cluster did not start ({os.strerror(first.errno)}): its processes need a writable /dev/shm with room for "
            "a few small files (semaphores), and enough open files (ulimit -n)"
        )
    why = f"{type(first).__name__}: {printable(str(first), 300)}"
    if isinstance(first, ImportError | TypeError | ValueError | LookupError):
        return ConfigError(f"the local cluster did not start ({why}); look at cluster.options and at Dask's settings{_SETTINGS}")
    return TemporaryError(
        f"the local cluster did not start in {START_ATTEMPTS} attempts (last: {why}); find out what kills its "
        "processes (memory?) and run the same command again, it continues"
    )


_REFUSED = (
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT, errno.EMFILE, errno.ENFILE,
    errno.ENOSYS, errno.EFBIG,
)  # fmt: skip


def _first_of(error: BaseException) -> BaseException:
    """The error at the beginning of the chain: Dask shows the last one, often that of closing what had not started."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return error
