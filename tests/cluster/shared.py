"""`make shared`: two runs at once, beside a stranger's tasks, on one scheduler, again and again, each run with its own seed.

    python -m tests.cluster.shared [--times N] [--seed S] [--threads N …]

Exits with 1 if a run did not end as it does alone, or if a stranger's task or data was lost.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.cluster.workers import InProcess
from pipeline.progress import Progress
from pipeline.run import run
from tests.cluster import disturbed
from tests.cluster.disturbed import Bench, end_of, kill_session
from tests.cluster.tls_cluster import TlsCluster

PATIENCE_S = 900
"""Longer than a test waits, which pytest bounds anyway: a sweep of an hour goes on where a machine stands still for minutes."""


@dataclass(frozen=True)
class Shared:
    """The outcome of two runs at once: their digests, what a stranger lost, and what is left of the runs."""

    digests: list[str]
    lost: list[str]
    left: list[str]


def share(
    cluster: TlsCluster, bench: Bench, names: Sequence[str], seeds: Sequence[int], apart_s: float = 0,
    patience_s: float = disturbed.PATIENCE_S,
) -> Shared:  # fmt: skip
    """Runs with these names and seeds, started `apart_s` apart, on a cluster on which a stranger works and keeps data."""
    configs = [
        bench.config_file(name, before="shards", cluster=cluster.section, run=bench.run_section(name, seed))
        for name, seed in zip(names, seeds, strict=True)
    ]
    with cluster.client() as stranger:
        kept = stranger.scatter(b"data of somebody else", hash=False)
        drivers = []
        try:
            for config in configs:
                drivers.append(bench.w2v(config))
                time.sleep(apart_s)
            busy = [stranger.submit(time.sleep, 0.5, pure=False) for _ in range(8)]
            ended = [end_of(driver, patience_s) for driver in drivers]
        finally:
            for driver in drivers:
                if driver.poll() is None:
                    kill_session(driver.pid)
        lost = [str(future.key) for future in busy if future.exception(timeout=60) is not None]
        lost += [] if kept.result(timeout=60) == b"data of somebody else" else ["data"]
        return Shared([one.summary["vectors"]["sha256"] for one in ended], lost, guests(stranger))


def guests(client: Any) -> list[str]:
    """The names of the plugins that runs have registered on the scheduler."""
    names: list[str] = client.run_on_scheduler(
        lambda dask_scheduler: [
            name for name in (*dask_scheduler.worker_plugins, *dask_scheduler.plugins) if name.startswith("w2v")
        ]
    )
    return names


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1, help="of the first run; each has the next one")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 4], help="of each of the two workers")
    options = parser.parse_args()
    wrong, number = 0, options.seed
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(Path(directory))
        for threads in options.threads:
            (folder := Path(directory) / f"cluster-{threads}").mkdir()
            cluster = TlsCluster(folder)
            try:
                for _ in range(2):
                    cluster.start_worker("", threads=threads)
                cluster.wait_for_workers(2)
                for _ in range(options.times):
                    seeds = (number, number + 1)
                    number += 2
                    wrong += _one(cluster, bench, threads, seeds)
            finally:
                cluster.stop()
    total = 2 * options.times * len(options.threads)
    print(f"{total} runs, {total - wrong} with the digest they have alone, {wrong} not")
    return 1 if wrong else 0


def _one(cluster: TlsCluster, bench: Bench, threads: int, seeds: tuple[int, int]) -> int:
    """How many of two runs did not end as they do alone; prints a line that says which and why."""
    names = [f"shared-{threads}-{seed}" for seed in seeds]
    expected = []
    for name, seed in zip(names, seeds, strict=True):
        config = bench.config(f"{name}-alone", run=bench.run_section(f"{name}-alone", seed))
        expected.append(run(config, workers=InProcess(), progress=Progress(quiet=True))["vectors"]["sha256"])
    apart_s, began = random.Random(seeds[0]).uniform(0, 3), time.monotonic()
    try:
        found = share(cluster, bench, names, seeds, apart_s, PATIENCE_S)
    except AssertionError as error:
        print(f"2 x {threads} threads, seeds {seeds}, {apart_s:.2f} s apart: {error}", flush=True)
        return 2
    same = [one == other for one, other in zip(found.digests, expected, strict=True)]
    print(
        f"2 x {threads} threads, seeds {seeds}, {apart_s:.2f} s apart: {' '.join(one[:12] for one in found.digests)} "
        f"{'same as alone' if all(same) else 'OTHERWISE THAN ALONE'}, lost {found.lost}, left {found.left}, "
        f"{time.monotonic() - began:.1f} s",
        flush=True,
    )
    return 2 if found.lost or found.left else same.count(False)


if __name__ == "__main__":
    sys.exit(main())
