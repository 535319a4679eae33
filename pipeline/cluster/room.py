"""How much memory, shared memory and disk a process may use, measured where it runs: the lowest of the limits of Dask, of its
control groups, of its host and of its own. `training.capacity` plans with these numbers.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import amount, file_limit
from pipeline.exchange.host import control_groups

WORKING_BYTES = 64 << 20
"""A worker's buffers: blocks of a checkpoint while it is checked, read and written (16 MiB each), initial values while they are
drawn, threads, the kernels' rings. The plan includes them, and the worker's allocator keeps this much freed memory."""
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - only its size is queried


@dataclass(frozen=True, kw_only=True)
class Room:
    """A worker's limits in bytes, measured where it runs; None = no limit known."""

    used: int
    """Resident size of the process before training, with its kernels loaded."""
    limit: int | None
    """Resident size at which Dask pauses or kills the worker."""
    limit_name: str
    host: int | None
    """Memory that the host (or the container) can still provide."""
    shared: int
    """Free space where shared memory is created: /dev/shm, or else the folder for temporary files."""
    shared_place: str
    file: int | None = None
    """Size of the largest file that the process may write."""


@dataclass(frozen=True)
class DriverRoom:
    """The driver's limits in bytes."""

    memory: int | None
    """None = not known."""
    disk: int
    """Free space where the workdir is; checkpoints of this training count as free, because they will be removed."""
    workdir: str


def measure_room() -> Room:
    """The limits of this process, whether it is a Dask worker or not."""
    limit, limit_name = _dask_limit()
    shared = [(place, shutil.disk_usage(place).free) for place in shared_places()]
    # Shared memory goes to the first place with enough room, so the largest decides.
    place, free = max(shared, key=lambda found: found[1])
    return Room(
        used=resident_bytes(), limit=limit, limit_name=limit_name, host=free_memory(),
        shared=free, shared_place=str(place), file=file_limit(),
    )  # fmt: skip


def resident_bytes() -> int:
    """Resident size of this process; where /proc is not mounted, the largest that it has had."""
    import psutil

    try:
        return int(psutil.Process().memory_info().rss)
    except (psutil.Error, OSError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def driver_room(workdir: Path, in_use: int) -> DriverRoom:
    """The limits of this process as the driver; `in_use` is the bytes of files in the workdir that already belong to the plan."""
    workdir.mkdir(parents=True, exist_ok=True)
    return DriverRoom(free_memory(), shutil.disk_usage(workdir).free + in_use, str(workdir))


def shared_places() -> list[Path]:
    """The folders in which shared memory can be created, the preferred one first."""
    places = [SHARED_MEMORY, Path(tempfile.gettempdir())]
    return [place for place in places if place.is_dir() and os.access(place, os.W_OK)] or places[-1:]


def _dask_limit() -> tuple[int | None, str]:
    """(resident bytes at which this worker is paused or killed, the limit's name for messages)."""
    # A process that has not loaded Dask is not a worker.
    if "distributed" not in sys.modules:
        return None, "no limit"
    import dask
    from distributed import get_worker

    try:
        manager = get_worker().memory_manager
    except (ValueError, AttributeError):
        return None, "no limit"
    if not manager.memory_limit:
        return None, "no limit"
    # A paused worker starts no more rounds, so pausing ends a training as surely as killing.
    fractions = {"pauses": manager.memory_pause_fraction, "terminates": dask.config.get("distributed.worker.memory.terminate")}
    acts = [(fraction, verb) for verb, fraction in fractions.items() if fraction]
    if not acts:
        return None, "no limit"
    fraction, verb = min(acts)
    limit = int(manager.memory_limit * fraction)
    return limit, f"the size at which Dask {verb} it ({fraction:.0%} of its {amount(manager.memory_limit)})"


def free_memory(root: Path = Path("/")) -> int | None:
    """Bytes that this process's host and control groups can still provide; None if neither is known."""
    rooms = [*_cgroup_rooms(root)]
    with contextlib.suppress(OSError, ValueError, KeyError):
        lines = (root / "proc/meminfo").read_text().splitlines()
        rooms.append(int(dict(line.split(":") for line in lines)["MemAvailable"].split()[0]) * 1024)
    if not rooms:
        with contextlib.suppress(ImportError, OSError):
            import psutil

            rooms.append(int(psutil.virtual_memory().available))
    return min(rooms, default=None)


def _cgroup_rooms(root: Path) -> list[int]:
    """What each control group of this process leaves: its limit minus used memory that cannot be reclaimed at will."""
    names = {
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        2: ("memory.max", "memory.current", "inactive_file"),
    }
    rooms = (_group_room(group, *names[version]) for version, group in control_groups("memory", root))
    return [room for room in rooms if room is not None]


def _group_room(group: Path, limit: str, used: str, droppable: str) -> int | None:
    try:
        bound = (group / limit).read_text().strip()
        if bound == "max" or int(bound) >= 1 << 60:
            return None
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return max(0, int(bound) - int((group / used).read_text()) + int(stat.get(droppable, 0)))
    except (OSError, ValueError):
        return None
