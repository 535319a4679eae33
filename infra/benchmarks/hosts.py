"""Seconds and bytes of a merge between hosts, beside what the model says: network namespaces on this machine as hosts.

    python infra/benchmarks/hosts.py [--hosts 2 4] [--gbit 10 1] [--rows 1024 8192 67873] [--repeats 30] [--bits 32] [--threads 1]
                                     [--tls] [--stint 20 100] [--json FILE]

Every host is a network namespace with an address of its own and one Dask worker, the scheduler and this program live in another;
a copy of the parameters a host, as `train.copies` = hosts. `tc` limits every cable to the rate, with netem also a delay where the
kernel has it (else the line above the table says what the round trip is). `lane_group.merge` runs as in training.

Hosts with one thread are given the machine's cores in turn and stay on them: left alone, the kernel puts a worker on the core
whose packet wakes it, and two hosts on one core. Four hosts on two cores share them; real ones do not. So processor time is
counted apart from the network's: *wire* is bytes over the rate; *processor* what all hosts together used for a merge, over the
cores that they share (at most one a host). The rest is waiting for each other. Before each merge every copy changes all its rows,
and the hosts line up; neither is timed. *Model* is what `w2v plan` makes of it (`merges.merge_seconds`), with constants measured
just before by merges between two of the namespaces, through their interfaces (`planning.merging`).

With --stint, copies are also trained in stints of so many milliseconds, with the kernel and threads of real training: without any
merge, with a merge after each that training waits for, and with merges beside the next stint; ms a stint, in turn, medians.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import platform
import socket
import statistics
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from distributed import Client
from distributed.security import Security

from pipeline.cluster.presence import registered
from pipeline.config import Train
from pipeline.exchange.attempts import Attempts
from pipeline.exchange.network import LinkPlugin
from pipeline.planning.merges import (
    Machines,
    MergeSpeeds,
    beside_s,
    merge_seconds,
    merge_work_s,
    merged_row_bytes,
    sent_bytes,
    strips_in_use,
)
from pipeline.planning.merging import encrypted, measure_merging
from pipeline.training.lane_group import LaneGroup, merge, open_group
from pipeline.training.placement import Place
from pipeline.training.residency import Residency
from tests.cluster.namespaces import BURST_BYTES, Switch, enter, switch
from w2v_core.kernels import Noise, Slice, Update, load_kernels, padded_size
from w2v_core.sampler import noise_table

PATIENCE_S = 60.0
VECTOR_SIZE = 100
PORT = 8786
COLD_ROWS = 16_384
"""At least so many rows of every copy are changed before a merge, so that those merged are not in a core's own cache, as after
training."""
TURN_NS = 100_000
REST_S = 0.01
"""Before a merge: a process that has just worked waits for its next turn where hosts share a core."""
Measured = list[tuple[float, float]]
"""(seconds, processor seconds of the process) of each merge."""
WINDOW, STINTS = 5, 8
WAYS = ("alone", "waits", "beside")
Stints = dict[str, list[float]]
"""Seconds of a stint, by the way in which copies merge."""


def time_merges(key: str, places: tuple[Place, ...], participant: int, rows: int, repeats: int, bits: int) -> Measured:
    """What each merge took at this participant. Runs as a task on its worker."""
    kernels = load_kernels("auto")
    take_short_turns()
    shape = (max(rows, COLD_ROWS), padded_size(VECTOR_SIZE))
    group = open_group(key, places, participant, shape, PATIENCE_S, Attempts(), bits)
    noise = np.random.default_rng(participant).normal(0, 1e-3, (shape[0], VECTOR_SIZE)).astype(np.float32)
    measured = []
    try:
        for repeat in range(repeats + 3):
            for matrix in group.trained[group.own.start]:
                matrix[:, :VECTOR_SIZE] += np.roll(noise, repeat, axis=0)
            time.sleep(REST_S)
            line_up(group)
            started, worked = time.perf_counter(), time.process_time()
            merge(group, kernels, rows, "adasum")
            measured.append((time.perf_counter() - started, time.process_time() - worked))
            # What a host does next would keep its core from one that has not finished: the kernel, which looks at turns every
            # 4 ms only, would let it go on for all of the 2.4 ms that the changes take.
            line_up(group)
    finally:
        group.close()
    return measured[3:]


def time_stints(key: str, places: tuple[Place, ...], participant: int, rows: int, repeats: int, stint_s: float) -> Stints:
    """Seconds that a stint took at this participant, in turn in every way. Runs as a task on its worker."""
    kernels = load_kernels("auto")
    take_short_turns()
    group = open_group(key, places, participant, (max(rows, COLD_ROWS), padded_size(VECTOR_SIZE)), PATIENCE_S, Attempts(), 8)
    resident = Residency(kernels, group)
    generator, words = np.random.default_rng(participant), len(group.base[0])
    for pair in group.trained.values():
        pair[0][:, :VECTOR_SIZE] = generator.normal(0, 1e-3, (words, VECTOR_SIZE))
    noise = Noise(noise_table(np.ones(words, np.int64), 0.75), np.ones(words, np.float32))

    def train(tokens: int) -> float:
        ids = generator.integers(0, words, tokens + 2 * WINDOW, dtype=np.int32)
        around = np.full(len(ids), WINDOW, np.uint8)
        started = time.perf_counter()
        targets = Slice(ids, around, around, WINDOW, WINDOW + tokens)
        update = Update("cbow", "word2vec", 5, (0.01, 0.01), int(generator.integers(1 << 32)))
        kernels.train_slice(*group.trained[group.own.start], targets, noise, update)
        return time.perf_counter() - started

    found: Stints = {way: [] for way in WAYS}
    try:
        train(10_000)
        tokens = max(100, round(stint_s * 20_000 / statistics.median(train(20_000) for _ in range(5))))
        for _ in range(repeats):
            for way in WAYS:
                line_up(group)
                started = time.perf_counter()
                for _ in range(STINTS):
                    train(tokens)
                    if way != "alone":
                        resident.merge(rows, "adasum", waits=way == "waits")
                resident.end_merge()
                found[way].append((time.perf_counter() - started) / STINTS)
    finally:
        group.close()
    return found


def take_short_turns() -> None:
    """Lets hosts that share a core change every 0.1 ms, as far as the kernel can, so that a host with half a core is slower
    rather than away for milliseconds at a time."""
    attributes = struct.pack("=IIQiIQQQII", 56, 0, 0, os.getpriority(os.PRIO_PROCESS, 0), 0, TURN_NS, 0, 0, 0, 0)
    number = {"x86_64": 314, "aarch64": 274}.get(platform.machine())
    if number is not None:
        ctypes.CDLL(None).syscall(number, 0, ctypes.create_string_buffer(attributes, 56), 0)  # sched_setattr


def line_up(group: LaneGroup) -> None:
    """All hosts pass at the same time, with nothing on its way and nothing left in the token buckets, as after a long merge."""
    links, peers = group.others[0].links, [peer for peer in range(len(group.places)) if peer != group.participant]
    for size in (BURST_BYTES, 8):
        arrays = {peer: np.zeros(size, np.uint8) for peer in peers}
        for peer, array in arrays.items():
            links.send(peer, (group.merges, "hello"), [array])
            links.expect(peer, (group.merges, "hello"), [np.empty_like(array)])
        links.receive_all()
        links.flush()


def answer_bytes(address: str, count: int) -> None:
    """The far end of `round_trip_s`."""
    with socket.create_server((address, PORT + 1)) as server:
        connection, _ = server.accept()
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for _ in range(count):
                connection.sendall(connection.recv(1))


def round_trip_s(address: str, count: int) -> float:
    """Median seconds of a byte there and back, with the waking of both processes."""
    deadline = time.monotonic() + 10
    while True:
        with contextlib.suppress(ConnectionRefusedError):
            connection = socket.create_connection((address, PORT + 1))
            break
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing answers at {address}")
        time.sleep(0.01)
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        taken = []
        for _ in range(count):
            started = time.perf_counter()
            connection.sendall(b".")
            connection.recv(1)
            taken.append(time.perf_counter() - started)
    return statistics.median(taken)


@contextlib.contextmanager
def open_cluster(cables: Switch, security: Security | None, threads: int) -> Iterator[tuple[Client, list[str]]]:
    """A client in the last namespace, where the scheduler is, and the address of the worker in each other one."""
    *workers, driver = cables.hosts
    scheme = "tls" if security else "tcp"
    cores = sorted(os.sched_getaffinity(0))
    with contextlib.ExitStack() as stack:
        files = stack.enter_context(_certificates(security))
        options = [*files, "--protocol", scheme, "--no-dashboard"]

        def start(host: int, *command: str) -> None:
            core = ["taskset", "-c", ",".join(map(str, cores if threads > 1 else [cores[host % len(cores)]]))]
            given = [*core, *cables.on(host), sys.executable, "-m", "dask", *command, "--host", cables.address(host), *options]
            process = subprocess.Popen(given, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.kill)

        scheduler = f"{scheme}://{cables.address(driver)}:{PORT}"
        start(driver, "scheduler", "--port", str(PORT))
        for host in workers:
            start(host, "worker", scheduler, "--nthreads", "1", "--no-nanny", "--name", str(host))
        enter(cables.namespace(driver))
        client = stack.enter_context(Client(scheduler, security=security, timeout=60))
        client.wait_for_workers(len(workers), timeout=60)
        client.register_plugin(LinkPlugin())
        there = registered(client)
        yield client, [address for _, address in sorted((int(worker["name"]), address) for address, worker in there.items())]


@contextlib.contextmanager
def _certificates(security: Security | None) -> Iterator[list[str]]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        options = []
        if security:
            made = {"ca-file": security.tls_ca_file, "cert": security.tls_client_cert, "key": security.tls_client_key}
            for name, text in made.items():
                path = Path(folder, name)
                path.write_text(text)
                options += [f"--tls-{name}", str(path)]
        yield options


def measure(client: Client, addresses: list[str], threads: int, rows: int, repeats: int, bits: int) -> list[Measured]:
    """What every host measured of the same merges."""
    key, places = uuid.uuid4().hex, places_of(addresses, threads)
    futures = [
        client.submit(time_merges, key, places, index, rows, repeats, bits, workers=[place.address], pure=False)
        for index, place in enumerate(places)
    ]
    return client.gather(futures)  # type: ignore[no-any-return]


def places_of(addresses: list[str], threads: int) -> tuple[Place, ...]:
    """A copy on every host."""
    return tuple(
        Place(address=address, host=f"host-{index}", threads=threads, first_copy=index, last_copy=index + 1)
        for index, address in enumerate(addresses)
    )


def measure_round_trip(client: Client, cables: Switch, addresses: list[str]) -> float:
    there = client.submit(answer_bytes, cables.address(1), 200, workers=[addresses[1]], pure=False)
    taken = client.submit(round_trip_s, cables.address(1), 200, workers=[addresses[0]], pure=False).result()
    there.result()
    return float(taken)


def speeds_of(cables: Switch, train: Train, is_encrypted: bool) -> MergeSpeeds:
    """What the model knows of merges, measured over a connection between two of the namespaces."""
    ends = cables.connect(0, 1)
    return measure_merging(train, [encrypted(*ends) if is_encrypted else ends])


def print_stints(client: Client, addresses: list[str], rows: int, stint_s: float, merge: dict[str, Any]) -> dict[str, Any]:
    """Trains beside merges, and prints what stints took and what the model says; `merge` is the same merge's row."""
    key, places = uuid.uuid4().hex, places_of(addresses, 1)
    futures = [
        client.submit(time_stints, key, places, index, rows, 9, stint_s, workers=[place.address], pure=False)
        for index, place in enumerate(places)
    ]
    found = client.gather(futures)
    alone, waits, beside = (
        statistics.median(max(turns) for turns in zip(*(each[way] for each in found), strict=True)) for way in WAYS
    )
    speeds = MergeSpeeds(**merge["speeds"])
    machines = Machines(hosts=len(addresses), cores=1, gbit_s=merge["gbit"], round_trip_s=0)
    row_bytes = merged_row_bytes(Train(vector_size=VECTOR_SIZE, merge_bits=8), padded_size(VECTOR_SIZE))
    work_s = merge_work_s(rows, row_bytes, machines, speeds)
    passed_s = rows * speeds.pass_s
    # The measured merge, which was waited for, without showing its rows and taking its result over.
    merged_s = max(work_s, merge["median_s"] - passed_s)
    model = alone + passed_s + beside_s(alone, merged_s, work_s, 1, 1)
    print(
        f"{'':>20} stints: alone {1e3 * alone:.1f} ms, waiting {1e3 * waits:.1f}, beside {1e3 * beside:.1f} "
        f"(a merge {1e3 * merged_s:.1f}, its work {1e3 * work_s:.1f}; model {1e3 * model:.1f}, {model / beside:.2f})",
        flush=True,
    )
    return {"alone_s": alone, "waits_s": waits, "beside_s": beside, "model_s": model}


def summarise(measured: list[Measured], rows: int, row_bytes: int, machines: Machines, speeds: MergeSpeeds) -> dict[str, Any]:
    """Of one number of hosts, rate and number of rows."""
    hosts, cores = machines.hosts, min(machines.hosts, len(os.sched_getaffinity(0)))
    walls = [max(seconds for seconds, _ in merges) for merges in zip(*measured, strict=True)]
    worked = sum(statistics.median(processor for _, processor in merges) for merges in measured)
    sent = sent_bytes(rows, row_bytes, hosts)
    strips = strips_in_use(rows, padded_size(VECTOR_SIZE), machines)
    model = merge_seconds(rows, row_bytes, machines, speeds, cores / hosts, strips=strips)
    low, median, high = statistics.quantiles(walls, n=4)
    return {
        "hosts": hosts, "strips": strips, "gbit": machines.gbit_s, "rows": rows, "sent_bytes": sent,
        "least_s": min(walls), "median_s": median,
        "quartiles_s": [low, high], "wire_s": sent * 8 / (machines.gbit_s * 1e9), "processor_s": worked / cores,
        "model_s": model, "model_ratio": model / median, "speeds": asdict(speeds),
    }  # fmt: skip


def print_row(row: dict[str, Any]) -> None:
    low, high = (f"{1e3 * value:.2f}" for value in row["quartiles_s"])
    numbers = "".join(f"{1e3 * row[name]:>10.2f}" for name in ("least_s", "median_s"))
    parts = "".join(f"{1e3 * row[name]:>11.2f}" for name in ("wire_s", "processor_s", "model_s"))
    parts += f"{row['model_ratio']:>7.2f}"
    speeds = row["speeds"]
    measured = f"{1e9 * speeds['send_s']:>8.2f}{1e9 * speeds['fold_s']:>8.0f}{1e6 * speeds['peer_s']:>8.0f}"
    sent = f"{row['sent_bytes'] / 1e6:>10.2f}{measured}"
    print(f"{row['hosts']:>5} {row['gbit']:>5g} {row['rows']:>8}{numbers} {low + ' – ' + high:>18}{parts}{sent}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--hosts", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--gbit", type=float, nargs="+", default=[10, 1])
    parser.add_argument("--delay-ms", type=float, default=0.1)
    parser.add_argument("--rows", type=int, nargs="+", default=[1024, 8192, 67_873])
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--bits", type=int, default=8, choices=(8, 32), help="of a number in a merge")
    parser.add_argument("--threads", type=int, default=1, help="of a host, which exchange strips of a merge")
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--stint", type=float, nargs="+", default=[], help="milliseconds of training beside a merge")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results: list[dict[str, Any]] = []
    security = Security.temporary() if options.tls else None
    train = Train(vector_size=VECTOR_SIZE, merge="adasum", merge_bits=options.bits)
    row_bytes = merged_row_bytes(train, padded_size(VECTOR_SIZE))
    with switch(max(options.hosts) + 1) as cables, open_cluster(cables, security, options.threads) as (client, addresses):
        for gbit in options.gbit:
            how = cables.shape(gbit, options.delay_ms)
            round_trip = measure_round_trip(client, cables, addresses)
            print(f"{gbit:g} Gbit/s by {how}; a byte there and back takes {1e6 * round_trip:.0f} µs")
            print("processor time: ns a byte sent, ns a row of a copy folded, µs a merge for each other host")
            print(
                "hosts  Gbit     rows  least ms median ms       quartiles ms    wire ms  proc. ms   model ms  ratio   sent MB"
                "  a byte   a row  a merge"
            )
            for hosts in options.hosts:
                for rows in options.rows:
                    # Again for every row of the table: a virtual machine's speed changes within minutes.
                    speeds = replace(speeds_of(cables, train, options.tls), message_s=round_trip)
                    measured = measure(client, addresses[:hosts], options.threads, rows, options.repeats, options.bits)
                    # The way there and back is in what a message takes.
                    machines = Machines(hosts=hosts, cores=options.threads, gbit_s=gbit, round_trip_s=0)
                    results.append(summarise(measured, rows, row_bytes, machines, speeds))
                    print_row(results[-1])
                    results[-1]["stints"] = [
                        print_stints(client, addresses[:hosts], rows, 1e-3 * stint_ms, results[-1]) for stint_ms in options.stint
                    ]
    document = {
        "tls": options.tls, "bits": options.bits, "threads": options.threads, "vector_size": VECTOR_SIZE, "merge": "adasum",
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(), "python": platform.python_version(), "results": results,
    }  # fmt: skip
    print(json.dumps(document))
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
