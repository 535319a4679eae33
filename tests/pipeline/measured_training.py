"""Trains in separate processes and prints, as JSON, how much memory was planned and how much was used.

python -m tests.pipeline.measured_training CONFIG (alone | one of two workers | two workers)
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path

import pyarrow as pa

from pipeline.cluster.opening import open_workers
from pipeline.cluster.workers import InProcess
from pipeline.config import Cluster, load_config
from pipeline.progress import Progress
from pipeline.run import run


def peak_bytes(_: int) -> int:
    """The largest resident size of this process since `forget_peak`, including mapped and shared pages."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def forget_peak(_: int) -> None:
    Path("/proc/self/clear_refs").write_text("5")


def give_back() -> None:
    """Returns what earlier stages have freed to the system: what training uses of it again would not be counted as taken."""
    pa.default_memory_pool().release_unused()
    ctypes.CDLL(None).malloc_trim(0)


def main(config_path: str, where: str) -> None:
    config, quiet = load_config(config_path), Progress(quiet=True)
    if where == "alone":
        run(config, until="shards", workers=InProcess(), progress=quiet)
        give_back()
        forget_peak(0)
        before = peak_bytes(0)
        summary = run(config, until="train", workers=InProcess(), progress=quiet)
        peaks, driver = [peak_bytes(0)], 0
    else:
        with open_workers(Cluster(n_workers=2)) as workers:
            run(config, until="shards", workers=workers, progress=quiet)
            members = workers.members()
            workers.together(forget_peak, [0] * 2, members)
            forget_peak(0)
            before = peak_bytes(0)
            summary = run(config, until="train", workers=workers, progress=quiet)
            peaks, driver = workers.together(peak_bytes, [0] * 2, members), peak_bytes(0) - before
    print(json.dumps({"plan": summary["train"]["memory"], "before": before, "peaks": peaks, "driver": driver}))


if __name__ == "__main__":
    main(*sys.argv[1:])
