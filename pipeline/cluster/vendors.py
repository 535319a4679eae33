"""Clusters started through other packages: SSH, SLURM and Kubernetes.

`cluster.options` are the keyword arguments of the package's cluster class. The defaults are those of an unattended run:
connections use throw-away certificates, no page is served, and workers whose driver is gone exit by themselves.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cluster.certificates import throw_away_security
from pipeline.cluster.jobs import JobKeeper, reporting_job
from pipeline.cluster.options import refuse_misspelt
from pipeline.errors import ServiceError, UsageError, printable
from pipeline.safety.deadline import within
from w2v_core.extras import install_command

if TYPE_CHECKING:
    from distributed.security import Security

    from pipeline.config import Cluster

ORPHAN_S = 30
"""A worker that has not reached its scheduler for this long exits, and its job ends, so that a killed driver leaves no jobs."""
ANSWER_S = 30
"""How long SLURM may take to say whether it would accept a job."""
_CERTIFICATES = ".cluster-"
IDLE_S = 3600
"""The operator removes a Kubernetes cluster that has been idle for this long, so that a killed driver leaves none."""
WAYS_OUT = {
    "ssh": "check that `ssh HOST true` needs no password and that the hosts have this environment",
    "slurm": "check cluster.options (queue, account, walltime, memory, cores)",
    "kubernetes": "check that `kubectl get daskclusters` works (KUBECONFIG), that the Dask operator runs, and that the image can "
    "be pulled; `kubectl delete daskcluster NAME` removes what is left",
}
EXTRAS = {"ssh": "ssh", "slurm": "slurm", "kubernetes": "k8s"}


@dataclass(frozen=True)
class Started:
    """A cluster that was started for this run."""

    cluster: Any
    """Dask's object for it."""
    trouble: Callable[[], str | None] = lambda: None
    """Why no more of its workers will come; None while some may."""


@contextlib.contextmanager
def vendor_cluster(cluster: Cluster, shared: Path, on_note: Callable[[str], None] = lambda text: None) -> Iterator[Started]:
    """The cluster, with its workers requested; closed at the end. `shared` is a folder that all hosts see. `on_note` gets
    notes about its jobs.

    Raises ServiceError if a package is missing or the system refuses, UsageError for an unknown keyword.
    """
    open_now = {"ssh": _ssh, "slurm": _slurm, "kubernetes": _kubernetes}[cluster.kind]
    with contextlib.ExitStack() as stack:
        try:
            refuse_misspelt(cluster)
            made = stack.enter_context(open_now(cluster, shared, on_note))
        except ImportError as error:
            raise ServiceError(
                f"cluster.kind: {cluster.kind} needs a package that is missing ({error.name}); "
                f"{install_command(EXTRAS[cluster.kind])}"
            ) from error
        yield made


@contextlib.contextmanager
def _slurm(cluster: Cluster, shared: Path, on_note: Callable[[str], None]) -> Iterator[Started]:
    from dask_jobqueue.slurm import SLURMCluster, SLURMJob

    for left in shared.glob(f"{_CERTIFICATES}*"):  # left by a killed driver
        shutil.rmtree(left, ignore_errors=True)
    certificates = Path(tempfile.mkdtemp(prefix=_CERTIFICATES, dir=shared))  # mode 0700
    # Otherwise workers would serve pages to everybody on the network between the nodes.
    no_pages = ["--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
    options: dict[str, Any] = {
        "security": throw_away_certificates(certificates),
        "death_timeout": ORPHAN_S,
        "scheduler_options": {"dashboard": False, "dashboard_address": "127.0.0.1:0"},
        "log_directory": str(shared / "slurm-logs"),
        "job_cls": reporting_job(),
    } | cluster.options
    workers = int(cluster.n_workers or options.pop("n_workers"))
    options.pop("n_workers", None)
    options["worker_extra_args"] = [*no_pages, *(options.get("worker_extra_args") or _site_default("worker-extra-args") or [])]
    try:
        with _explained(cluster, SLURMCluster, options, on_note) as made:
            _refuse_refused(SLURMJob.submit_command, made.job_script())
            keeper = JobKeeper(made, workers, Path(options["log_directory"]), on_note)
            with keeper.keeping():
                yield Started(made, lambda: keeper.trouble)
    finally:
        shutil.rmtree(certificates, ignore_errors=True)


def _site_default(key: str) -> Any:
    """A value of the site's dask-jobqueue configuration."""
    import dask

    return dask.config.get(f"jobqueue.slurm.{key}", None)


def throw_away_certificates(folder: Path) -> Security:
    """A throw-away certificate for all members of this cluster and the authority that signed it, as files in `folder`."""
    from distributed.security import Security

    made: Any = throw_away_security()
    files = {}
    for name, text in (("ca", made.tls_ca_file), ("cert", made.tls_client_cert), ("key", made.tls_client_key)):
        files[name] = str(folder / f"{name}.pem")
        Path(files[name]).touch(mode=0o600)
        Path(files[name]).write_text(text, encoding="ascii")
    roles = {f"tls_{role}_{name}": files[name] for role in ("scheduler", "worker", "client") for name in ("cert", "key")}
    return Security(tls_ca_file=files["ca"], require_encryption=True, **roles)


def _refuse_refused(submit: str, script: str) -> None:
    """Raises ServiceError if SLURM would refuse this job: dask_jobqueue would only keep resubmitting it."""
    with tempfile.NamedTemporaryFile("w", suffix=".sh", prefix="w2v-job.") as file:
        file.write(script)
        file.flush()
        command = [submit, "--test-only", file.name]
        try:
            tried = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_S, check=False)  # noqa: S603
        except (FileNotFoundError, subprocess.TimeoutExpired) as error:
            raise ServiceError(
                f"cluster.kind: slurm: {submit} cannot be called ({error}); run this where jobs are submitted"
            ) from None
    said = printable(tried.stderr.strip().rpartition("\n")[2], 300)
    # Nodes that are down or in use are no reason to refuse: the job will wait for them.
    if tried.returncode and "not available" not in said:
        raise ServiceError(f"cluster.kind: slurm: {said}; see cluster.options (queue, account, walltime, memory, cores)")


@contextlib.contextmanager
def _ssh(cluster: Cluster, shared: Path, on_note: Callable[[str], None]) -> Iterator[Started]:
    import dask
    from distributed import SSHCluster

    from pipeline.cluster.ssh import carried_to, hosts_of

    nothing_open = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
    options = dict(cluster.options)
    options["scheduler_options"] = {"protocol": "tls", "port": 0} | nothing_open | (options.get("scheduler_options") or {})
    options["worker_options"] = nothing_open | (options.get("worker_options") or {})
    made: Any = throw_away_security()
    start = functools.partial(_within, cluster.wait_s, SSHCluster, security=made)
    with carried_to(hosts_of(options), made, cluster.wait_s) as settings, contextlib.ExitStack() as stack:
        with dask.config.set(settings):  # SSHCluster passes them to the processes on the hosts
            started = stack.enter_context(_explained(cluster, start, options, on_note))
        yield Started(started)


@contextlib.contextmanager
def _kubernetes(cluster: Cluster, shared: Path, on_note: Callable[[str], None]) -> Iterator[Started]:
    from dask_kubernetes.operator import KubeCluster
    from dask_kubernetes.operator.kubecluster.kubecluster import CreateMode

    name = f"w2v-{uuid.uuid4().hex[:8]}"
    options: dict[str, Any] = {
        "name": name, "n_workers": cluster.n_workers or 1, "quiet": True, "idle_timeout": IDLE_S,
        "resource_timeout": int(cluster.wait_s),
    } | cluster.options  # fmt: skip
    if isinstance(mode := options.get("create_mode"), str):
        if mode not in CreateMode.__members__:
            raise UsageError(
                f"cluster.options.create_mode: expected {', '.join(CreateMode.__members__)}, found {printable(mode)}"
            )
        options["create_mode"] = CreateMode[mode]
    with contextlib.ExitStack() as stack:
        try:
            start = functools.partial(_within, cluster.wait_s, KubeCluster)
            made = stack.enter_context(_explained(cluster, start, options, on_note))
        except ServiceError:
            # At exit, it would query the cluster that never came up again.
            for left in [one for one in KubeCluster._instances if getattr(one, "name", None) == options["name"]]:
                KubeCluster._instances.discard(left)
            raise
        if cluster.n_workers and made.n_workers != cluster.n_workers:  # an existing cluster
            made.scale(cluster.n_workers)
        yield Started(made)


def _within(seconds: float, start: Callable[..., Any], **options: Any) -> Any:
    """The result of `start`; raises TimeoutError if that takes longer. It calls services that may not respond, each with its own
    timeout."""
    try:
        return within(seconds, lambda: start(**options))
    except TimeoutError as error:
        raise TimeoutError(f"{error} (cluster.wait_s)") from None


@contextlib.contextmanager
def _explained(
    cluster: Cluster, start: Callable[..., Any], options: dict[str, Any], on_note: Callable[[str], None]
) -> Iterator[Any]:
    """The cluster object; errors while it starts are raised as ServiceError with advice."""
    try:
        made = start(**options)
    except (TypeError, ValueError) as error:
        raise ServiceError(f"cluster.options: {cluster.kind} does not take these ({printable(str(error), 300)})") from error
    except Exception as error:  # errors of the packages underneath pass through unchanged
        said = printable(f"{type(error).__name__}: {error}".rstrip(": "), 300)
        raise ServiceError(f"cluster.kind: {cluster.kind}: {said}; {WAYS_OUT[cluster.kind]}") from error
    with closed_at_the_end(made, on_note):
        yield made


@contextlib.contextmanager
def closed_at_the_end(made: Any, on_note: Callable[[str], None]) -> Iterator[Any]:
    """The cluster, closed afterwards. That this fails, because a process takes too long to die on an overloaded machine or a
    service no longer answers, is a note: it does not make a complete run fail, nor hide why a run failed."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(made)
        try:
            yield made
        finally:
            try:
                stack.close()
            except Exception as error:
                said = printable(f"{type(error).__name__}: {error}".rstrip(": "), 300)
                on_note(f"the cluster was not closed in order ({said}); what is left of it ends by itself")
