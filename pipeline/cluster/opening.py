"""Opens the configured Dask cluster: local processes by default, an existing scheduler, SSH, SLURM or Kubernetes."""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cluster.dask_workers import DaskWorkers
from pipeline.cluster.guest import Guest, Hook, Proof, arrival_plugin, departure_plugin, sign_of_life
from pipeline.cluster.local import START_ATTEMPTS, not_started, refuse_odd_settings, start_local
from pipeline.cluster.messages import Listener, listening
from pipeline.cluster.pages import Pages, dask_pages, pages_elsewhere
from pipeline.cluster.room import WORKING_BYTES
from pipeline.cluster.sources import source_digest
from pipeline.cluster.vendors import ORPHAN_S, Started, closed_at_the_end, vendor_cluster
from pipeline.errors import InputError, ServiceError, TemporaryError

if TYPE_CHECKING:
    from distributed import Client, SchedulerPlugin, WorkerPlugin

    from pipeline.config import Cluster

DASK_SETTINGS: dict[str, Any] = {
    # Dask's defaults wait forever or give up after three kills; both are wrong for an unattended run.
    "distributed.scheduler.allowed-failures": 20,
    "distributed.scheduler.worker-ttl": "60s",
    "distributed.scheduler.no-workers-timeout": "120s",
    # It would drop replicas that we request; nothing here relies on replicas, so it only costs messages.
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.comm.timeouts.connect": "30s",
    "distributed.comm.timeouts.tcp": "30s",
    # 15 s after every loss, Dask looks whether the worker is there, and if it has just been lost again, removes it for good.
    "distributed.deploy.lost-worker-timeout": "1000 days",
    # Workers train on all their cores. Dask's profiler would interrupt them a hundred times a second, and its other monitors
    # took a few percent of a core.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "2s",
    "distributed.worker.memory.monitor-interval": "500ms",
    # A worker that lost its scheduler must not linger for long after the driver is gone.
    "distributed.worker.lifetime.restart": False,
    # By default, pages for everybody on the machine, with addresses and logs. pages.py serves them behind a password;
    # `cluster.options.dashboard_address` restores Dask's own behaviour.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    # A worker that is started with `python -c` or `-m` imports nothing from the folder it is started in.
    "distributed.nanny.pre-spawn-environ.PYTHONSAFEPATH": 1,
    # A worker allocates the same arrays for every part of every epoch, so it keeps freed memory, up to the working memory in the
    # plan. Dask would return all but 64 KiB to the system, glibc's per-thread arenas and Arrow's own pool all they can, and
    # getting fresh memory takes longer than the work done in it.
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": WORKING_BYTES,
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": WORKING_BYTES // 2,
    "distributed.nanny.pre-spawn-environ.MALLOC_ARENA_MAX": 1,
    "distributed.nanny.pre-spawn-environ.ARROW_DEFAULT_MEMORY_POOL": "system",
}

CLOSE_S = 5.0


@contextlib.contextmanager
def open_workers(
    cluster: Cluster,
    hooks: Sequence[Hook] = (),
    shared: Path | None = None,
    proofs: Sequence[Proof] = (),
    on_note: Callable[[str], None] = lambda text: None,
    on_pages: Callable[[Pages], None] = lambda pages: None,
    listeners: Mapping[str, Listener] | None = None,
) -> Iterator[DaskWorkers]:
    """The workers of the configured cluster; closed on leaving. Raises ServiceError if it cannot be reached, or has workers that
    cannot take part.

    Every worker, including those that come later, calls `hooks` before it gets work. `shared` is a folder that all hosts see and
    that the run holds. `on_note` is called with notes about workers left out or waited for, `on_pages` with the address of Dask's
    own pages, the `listeners` by topic with what workers say.
    """
    refuse_odd_settings()
    import dask
    from distributed import Client
    from distributed.utils import silence_logging_cmgr

    # What is lost is told in messages of our own; Dask would put tracebacks above them.
    with dask.config.set(_settings(cluster)), silence_logging_cmgr(logging.CRITICAL), contextlib.ExitStack() as stack:
        try:
            started = _open_cluster(cluster, shared or Path.cwd(), stack, on_note)
            target = started.cluster
            client = Client(target, security=security(cluster), timeout=cluster.wait_s, set_as_default=False)
            stack.callback(_close, client)
            _show_pages(cluster, target, client, shared, on_pages, stack)
        except (OSError, TimeoutError, TypeError, ValueError) as error:  # TypeError: wss:// without certificates
            if cluster.kind == "local":
                raise not_started(error) from error
            where = cluster.address or f"cluster.kind: {cluster.kind}"
            raise ServiceError(f"{where}: no Dask scheduler answers ({error}); check cluster.address and cluster.tls") from error
        on_this_machine = cluster.kind == "local"
        yield stack.enter_context(
            _be_guest(
                client,
                cluster,
                hooks,
                None if on_this_machine else shared,
                () if on_this_machine else proofs,
                on_note,
                listeners,
                trusted=on_this_machine,
                trouble=started.trouble,
            )
        )


@contextlib.contextmanager
def use_client(
    client: Client,
    cluster: Cluster,
    hooks: Sequence[Hook] = (),
    shared: Path | None = None,
    proofs: Sequence[Proof] = (),
    on_note: Callable[[str], None] = lambda text: None,
    listeners: Mapping[str, Listener] | None = None,
) -> Iterator[DaskWorkers]:
    """The workers of a program's own client, which stays open; its workers are treated like those of any foreign cluster. Raises
    ServiceError if they run another version of this program, do not see `shared`, or fail one of the `proofs`."""
    with _be_guest(client, cluster, hooks, shared, proofs, on_note, listeners, own=False) as workers:
        yield workers


@contextlib.contextmanager
def _be_guest(
    client: Client, cluster: Cluster, hooks: Sequence[Hook], shared: Path | None, proofs: Sequence[Proof],
    on_note: Callable[[str], None], listeners: Mapping[str, Listener] | None, *,
    own: bool | None = None, trusted: bool = False, trouble: Callable[[], str | None] = lambda: None,
) -> Iterator[DaskWorkers]:  # fmt: skip
    """`own`: the workers were started for this run; None: as configured. `trusted`: they run this machine's source files.
    `trouble`: why no more workers will come, None while some may."""
    run = uuid.uuid4().hex[:12]
    with sign_of_life(shared, run) as (seen, bucket), listening(client, listeners or {}):
        guest = Guest(run, "" if trusted else source_digest()(), seen, bucket)
        own = cluster.kind != "address" if own is None else own
        asked_for = (cluster.n_workers or 0) if own and not trusted else 0
        workers = DaskWorkers(
            client, guest, cluster.wait_s, cluster.silent_s, own=own, asked_for=asked_for, on_note=on_note, trouble=trouble
        )
        try:
            # Processes started over SSH do not notice that their driver was killed.
            _register(client, departure_plugin(guest, client.id, ORPHAN_S if cluster.kind == "ssh" else None))
            _register(client, arrival_plugin(guest, hooks, proofs))
            workers.refuse_unfit()
            yield workers
        finally:
            _leave(workers)


def _leave(workers: DaskWorkers) -> None:
    """Makes workers forget the run before the next one may train. If this fails, the scheduler does it once the connection
    ends."""
    client: Any = workers.client
    with contextlib.suppress(Exception):
        if client.status == "running":
            client.sync(client._unregister_worker_plugin, name=workers.guest.plugin, nanny=False, callback_timeout=CLOSE_S)
            workers.turn.give_back()


def _close(client: Client) -> None:
    """Closes the connection; by default, a client whose scheduler is gone would wait for twice `wait_s`."""
    with contextlib.suppress(TimeoutError, OSError):
        client.close(timeout=CLOSE_S)


def _open_cluster(
    cluster: Cluster, shared: Path, stack: contextlib.ExitStack, on_note: Callable[[str], None]
) -> Started:  # fmt: skip
    if cluster.kind == "address":
        return Started(cluster.address)
    if cluster.kind == "local":
        made = start_local(cluster, stack)
        return Started(stack.enter_context(closed_at_the_end(made, on_note)))
    return stack.enter_context(vendor_cluster(cluster, shared, on_note))


def _show_pages(
    cluster: Cluster, target: Any, client: Client, shared: Path | None, on_pages: Callable[[Pages], None],
    stack: contextlib.ExitStack,
) -> None:  # fmt: skip
    """Serves Dask's pages behind a password for a scheduler in this process; for any other, reports the scheduler's own link."""
    if not cluster.dashboard or not shared:
        return
    scheduler, as_it_is = getattr(target, "scheduler", None), "dashboard_address" in cluster.options
    here = getattr(getattr(scheduler, "http_server", None), "address", "").startswith("127.")
    if here and not as_it_is:
        stack.enter_context(dask_pages(scheduler, shared, on_pages))
    elif (cluster.kind != "local" or as_it_is) and (found := pages_elsewhere(client)):
        on_pages(found)


def _settings(cluster: Cluster) -> dict[str, Any]:
    """Dask's settings; its own pages are off unless an address for them is configured."""
    if "dashboard_address" not in cluster.options:
        return DASK_SETTINGS
    return {name: value for name, value in DASK_SETTINGS.items() if not name.endswith("http.routes")}


def _register(client: Client, plugin: WorkerPlugin | SchedulerPlugin) -> None:
    """Registers the plugin on all workers, including those that come later; tries again if one dies meanwhile."""
    for _ in range(START_ATTEMPTS):
        try:
            client.register_plugin(plugin)
            return
        except OSError as error:
            lost = error
    raise TemporaryError(
        f"workers were lost {START_ATTEMPTS} times while they were prepared ({lost}); run the same command again"
    )


def security(cluster: Cluster) -> Any:
    """Dask's settings for the configured certificates; None without any. Raises InputError for missing files."""
    if cluster.tls is None:
        return None
    from distributed.security import Security

    tls = cluster.tls
    for key, path in (("ca_file", tls.ca_file), ("cert", tls.cert), ("key", tls.key)):
        if not Path(path).is_file():
            raise InputError(f"cluster.tls.{key}: {path} does not exist or is not a file; give the path of a PEM file")
    return Security(tls_ca_file=tls.ca_file, tls_client_cert=tls.cert, tls_client_key=tls.key, require_encryption=True)
