"""Seconds of one merge by number of rows, for every way in which lanes can exchange them.

    python infra/benchmarks/exchange.py [--rows 1024 8192 67873] [--participants 2] [--lanes 2] [--repeats 30] [--json FILE]

    threads   all lanes in one process, one thread per participant
    memory    one process per participant on one host: shared memory and a barrier
    tcp, tls  one process per participant, each a separate host: links between workers, plain and encrypted
    hosts     two hosts of participants/2 processes each, over TLS (with four participants or more)

Every way runs `lane_group.merge` as training does, in the processes of a local Dask cluster; "hosts" are processes that do not
share memory, so the wire is the loopback device and all of them share this machine's cores. Before each merge every lane changes
all its rows, and a merge of one row synchronises the participants; neither is timed. The ways alternate, so that a noisy machine
disturbs all of them alike. Prints least, median and quartiles in milliseconds, the processor time of one participant, and the
bytes that each host sends.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from distributed import Client, LocalCluster, get_worker

from pipeline.cluster.presence import registered
from pipeline.exchange.attempts import Attempts
from pipeline.exchange.network import LinkPlugin
from pipeline.training.lane_group import merge, open_group
from pipeline.training.placement import Place, merge_role
from pipeline.training.plan import assign_copies
from w2v_core.kernels import load_kernels, padded_size

VECTOR_SIZE = 100
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Way:
    name: str
    hosts: tuple[str, ...]
    """The host of every participant."""
    threads: int
    is_encrypted: bool


def ways_for(participants: int) -> list[Way]:
    apart = tuple(f"host-{index}" for index in range(participants))
    ways = [
        Way("threads", ("here",), participants, False),
        Way("memory", ("here",) * participants, 1, False),
        Way("tcp", apart, 1, False),
        Way("tls", apart, 1, True),
    ]
    if participants >= 4:
        half = participants // 2
        ways.append(Way("hosts", ("host-0",) * half + ("host-1",) * (participants - half), 1, True))
    return ways


def places_of(way: Way, addresses: list[str], lanes: int) -> tuple[Place, ...]:
    return tuple(
        Place(address=address, host=host, threads=way.threads, first_copy=run.start, last_copy=run.stop)
        for address, host, run in zip(addresses, way.hosts, assign_copies(lanes, len(way.hosts)), strict=False)
    )


def time_merges(key: str, places: tuple[Place, ...], participant: int, rows: int, repeats: int) -> list[tuple[float, float]]:
    """(seconds, processor seconds of this process) of each merge at this participant. Runs as a task on a worker."""
    assert get_worker().address == places[participant].address
    kernels = load_kernels("auto")
    group = open_group(key, places, participant, (rows, padded_size(VECTOR_SIZE)), PATIENCE_S, Attempts())
    generator = np.random.default_rng(participant)
    noise = generator.normal(0, 1e-3, (rows, VECTOR_SIZE)).astype(np.float32)
    seconds = []
    try:
        for repeat in range(repeats + 2):
            for lane in group.own:
                for matrix in group.trained[lane]:
                    matrix[:, :VECTOR_SIZE] += np.roll(noise, 7 * lane + repeat, axis=0)
            merge(group, kernels, 1, "adasum")
            started, worked = time.perf_counter(), time.process_time()
            merge(group, kernels, rows, "adasum")
            seconds.append((time.perf_counter() - started, time.process_time() - worked))
    finally:
        group.close()
    return seconds[2:]


def bytes_sent_by_a_host(places: tuple[Place, ...], rows: int) -> int:
    """The bytes that participant 0's host sends in one merge, without headers: its lanes' rows of the others' blocks, and its own
    merged blocks once to every other host."""
    role = merge_role(places, 0)
    row_bytes = 2 * padded_size(VECTOR_SIZE) * 4
    owned = rows * len(role.host) // len(places)
    return row_bytes * ((rows - owned) * len(role.copies) + owned * len(role.agents))


@contextlib.contextmanager
def open_cluster(workers: int, is_encrypted: bool) -> Iterator[tuple[Client, list[str]]]:
    with (
        LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=":0", host="127.0.0.1",
            security=is_encrypted or None, protocol="tls://" if is_encrypted else "tcp://",
        ) as cluster,
        Client(cluster) as client,
    ):  # fmt: skip
        client.register_plugin(LinkPlugin())
        yield client, sorted(registered(client))


def measure(client: Client, places: tuple[Place, ...], rows: int, repeats: int) -> list[tuple[float, float]]:
    key = uuid.uuid4().hex
    futures = [
        client.submit(time_merges, key, places, index, rows, repeats, workers=[place.address], pure=False)
        for index, place in enumerate(places)
    ]
    return client.gather(futures)[0]  # type: ignore[no-any-return]


def summarise(times: list[tuple[float, float]]) -> dict[str, Any]:
    seconds = [wall for wall, _ in times]
    low, median, high = statistics.quantiles(seconds, n=4)
    worked = statistics.median(processor for _, processor in times)
    return {"least_s": min(seconds), "median_s": median, "quartiles_s": [low, high], "processor_s": worked}


def print_table(results: list[dict[str, Any]]) -> None:
    print("    rows  way       least ms  median ms       quartiles ms  processor ms  MB a host sends")
    for row in results:
        low, high = (f"{1e3 * value:.2f}" for value in row["quartiles_s"])
        least, median, worked = (1e3 * row[f"{name}_s"] for name in ("least", "median", "processor"))
        print(
            f"{row['rows']:>8}  {row['way']:8} {least:>9.2f} {median:>10.2f} {low + ' – ' + high:>18} {worked:>13.2f} "
            f"{row['host_bytes'] / 1e6:>16.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1024, 8192, 67_873])
    parser.add_argument("--participants", type=int, default=2)
    parser.add_argument("--lanes", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    ways = ways_for(options.participants)
    results: list[dict[str, Any]] = []
    with open_cluster(options.participants, False) as plain, open_cluster(options.participants, True) as encrypted:
        for rows in options.rows:
            times: dict[str, list[tuple[float, float]]] = {way.name: [] for way in ways}
            for _ in range(options.turns):
                for way in ways:
                    client, addresses = encrypted if way.is_encrypted else plain
                    places = places_of(way, addresses, options.lanes)
                    times[way.name] += measure(client, places, rows, -(-options.repeats // options.turns))
            for way in ways:
                _, addresses = encrypted if way.is_encrypted else plain
                sent = bytes_sent_by_a_host(places_of(way, addresses, options.lanes), rows)
                results.append({"way": way.name, "rows": rows} | summarise(times[way.name]) | {"host_bytes": sent})
    print_table(results)
    document = {
        "participants": options.participants, "lanes": options.lanes, "vector_size": VECTOR_SIZE, "merge": "adasum",
        "cores": len(os.sched_getaffinity(0)), "python": platform.python_version(), "results": results,
    }  # fmt: skip
    print(json.dumps(document))
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
