"""The host of a process: which processes can share memory, and how many cores this one may use.

A container with 2 of a host's 64 cores sees all 64: its limit is a quota of its control groups, and once its threads have used it
up, all of them stand still for the rest of each tenth of a second. Threads that train in lockstep lose time by that: two with one
core's quota took 1.15 to 1.3 times as long as one thread (infra/benchmarks/records/throughput-2026-11-29.md).
"""

from __future__ import annotations

import getpass
import math
import os
import socket
from collections.abc import Iterator
from pathlib import Path


def host_key() -> str:
    """A name that is equal exactly for processes that can share memory: same kernel boot, same mounts, same user.

    W2V_HOST_KEY in a worker's environment overrides it: workers with different names never share memory, but exchange rows over
    their connections as if they were on different hosts. For tests, and for containers that share mounts but not /dev/shm.
    """
    if named := os.environ.get("W2V_HOST_KEY"):
        return named
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        mounts = os.stat("/proc/self/ns/mnt").st_ino
    except OSError:
        boot, mounts = socket.gethostname(), 0
    return f"{boot}/{mounts}/{os.getuid()}"


def user_name() -> str:
    """The name of this process's user, or its number if it has none, as in containers that choose the number."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return f"user {os.getuid()}"


def usable_cores(root: Path = Path("/")) -> int:
    """The number of cores that this process may use: those it may run on, and no more than its control groups' quotas, rounded
    up, since part of a core is worth a thread."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *map(math.ceil, _quotas(root))]))


def _quotas(root: Path) -> Iterator[float]:
    """The cores that each control group of this process allows, where it has a limit."""
    for version, group in control_groups("cpu", root):
        try:
            if version == 2:
                quota, period = (group / "cpu.max").read_text().split()
            else:
                quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
            # No limit: "max" in version 2, −1 in version 1.
            if quota != "max" and int(quota) > 0:
                yield int(quota) / int(period)
        except (OSError, ValueError, ZeroDivisionError):
            continue


def control_groups(controller: str, root: Path = Path("/")) -> Iterator[tuple[int, Path]]:
    """(version of control groups, folder) of each group of this process that can limit it, the innermost first. Not every folder
    exists: in a container the path may be the host's and only the mount's root visible; then the root has the limit."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    mounts = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            version, places = 2, [mounts, mounts / "unified"]
        elif controller in controllers.split(","):
            # Controllers that are mounted together may be found under both names, or only under the first.
            version, places = 1, list(dict.fromkeys([mounts / controller, mounts / controllers]))
        else:
            continue
        group = Path(path.lstrip("/"))
        yield from ((version, place / level) for place in places for level in (group, *group.parents))
