"""Which keys `cluster.options` takes: those of the cluster's class, and of the classes that it hands them on to.

Dask finds a misspelt key only when processes start, and then reports processes that do not.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.config import Cluster
from pipeline.errors import UsageError, printable

Takers = tuple[Callable[..., Any], ...]
"""Functions and classes whose keywords are taken; an error names the first one."""
_KEYWORDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def refuse_misspelt(cluster: Cluster) -> None:
    """Raises UsageError for a key that nothing takes, in `cluster.options` or in one of its mappings; ImportError if the package
    of this kind of cluster is missing."""
    takers = {"local": _local, "ssh": _ssh, "slurm": _slurm, "kubernetes": _kubernetes}[cluster.kind](cluster.options)
    for place, taking in takers.items():
        found = cluster.options.get(place) if place else cluster.options
        for options in found if isinstance(found, list) else [found]:
            if isinstance(options, Mapping):
                _refuse(options, taking, f"cluster.options.{place}." if place else "cluster.options.")


def _refuse(options: Mapping[str, Any], takers: Takers, where: str) -> None:
    known = {name for taker in takers for name, found in inspect.signature(taker).parameters.items() if found.kind in _KEYWORDS}
    for key in options.keys() - known:
        near = difflib.get_close_matches(str(key), known, 1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}"
        raise UsageError(f"{where}{printable(str(key), 100)}: {takers[0].__name__} does not take it; {hint}")


# ── {key of a mapping in `cluster.options`, or "" for itself: what takes its keys} ───────────────────────────────────


def _scheduler() -> Takers:
    from distributed import Scheduler
    from distributed.core import Server
    from distributed.node import ServerNode

    return Scheduler, ServerNode, Server


def _worker() -> Takers:
    from distributed import Nanny, Worker

    return Worker, Nanny, *_scheduler()[1:]


def _local(options: Mapping[str, Any]) -> dict[str, Takers]:
    from distributed import LocalCluster, SpecCluster

    return {"": (LocalCluster, SpecCluster, *_worker()), "scheduler_kwargs": _scheduler()}


def _ssh(options: Mapping[str, Any]) -> dict[str, Takers]:
    import asyncssh
    from distributed import SSHCluster

    def per_host(n_workers: int) -> None:
        """What SSHCluster itself takes from `worker_options`."""

    takers: dict[str, Takers] = {
        "": (SSHCluster,), "scheduler_options": _scheduler(),
        "connect_options": (asyncssh.connect, asyncssh.SSHClientConnectionOptions.prepare),
    }  # fmt: skip
    return takers if "worker_class" in options else takers | {"worker_options": (*_worker(), per_host)}


def _slurm(options: Mapping[str, Any]) -> dict[str, Takers]:
    from dask_jobqueue.core import Job, JobQueueCluster
    from dask_jobqueue.slurm import SLURMCluster, SLURMJob

    return {"": (SLURMCluster, SLURMJob, JobQueueCluster, Job), "scheduler_options": _scheduler()}


def _kubernetes(options: Mapping[str, Any]) -> dict[str, Takers]:
    from dask_kubernetes.operator import KubeCluster

    return {"": (KubeCluster,)}
