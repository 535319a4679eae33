"""The processor time of merges, measured with training's own merges between both ends of a connection in this process.

Small and large merges give the fixed cost and the cost per row: packing, sending, receiving, folding, writing to base and copies.
Folding is also measured alone, because with more hosts each host sends more but folds as much. Merges in several strips at once
tell how much of the work waits for the interpreter, which one thread of a process uses at a time.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import statistics
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain

from pipeline.config import Train
from pipeline.errors import ServiceError
from pipeline.exchange.attempts import Attempts
from pipeline.exchange.host import usable_cores
from pipeline.exchange.links import Link, Links
from pipeline.exchange.shared_memory import NoBarrier
from pipeline.planning.merges import MergeSpeeds, merged_row_bytes
from pipeline.training.lane_group import LaneGroup, begin_merge, end_merge, merge, show, take_over
from pipeline.training.placement import Place, merge_role
from w2v_core.kernels import Kernels, aligned_zeros, load_kernels, padded_size

SMALL_ROWS, LARGE_ROWS = 16, 32_768
"""Rows of the timed merges. The large one does not fit into a cache, because in training these rows are not cached either."""
PATIENCE_S = 20.0
Ends = tuple[socket.socket, socket.socket]
"""Both ends of a connection."""


@dataclass(frozen=True)
class _Peers:
    """A `network.Group` without a cluster."""

    links: Links

    def give_up(self) -> None:
        self.links.give_up()

    def close(self) -> None:
        self.links.close()


def connection_with_itself() -> Ends:
    """Both ends of a connection over this machine's loopback device. Raises ServiceError if it has none."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            ours = socket.create_connection(server.getsockname())
            theirs, _ = server.accept()
    except OSError as error:
        raise ServiceError(
            f"merges between hosts are timed over 127.0.0.1, which does not answer here ({error.strerror or error}): "
            "bring the loopback device up (ip link set lo up)"
        ) from None
    return ours, theirs


def encrypted(ours: socket.socket, theirs: socket.socket) -> Ends:
    """The same ends with TLS, using a throw-away certificate."""
    from distributed.security import Security

    security, found = Security.temporary(), {}
    called: ssl.SSLContext = security.get_listen_args("scheduler")["ssl_context"]
    caller: ssl.SSLContext = security.get_connection_args("client")["ssl_context"]

    def answer() -> None:
        found["theirs"] = called.wrap_socket(theirs, server_side=True)

    other = threading.Thread(target=answer)
    other.start()
    wrapped = caller.wrap_socket(ours)
    other.join()
    return wrapped, found["theirs"]


def measure_merging(train: Train, connections: Sequence[Ends]) -> MergeSpeeds:
    """The speed of merges on this processor over the first of these connections, and over all of them at the same time, one per
    strip; then they are closed. Takes a second or two."""
    kernels = load_kernels(train.backend)
    shape = (LARGE_ROWS, padded_size(train.vector_size))
    fold_s, pass_s = _seconds_of_folding(train, kernels, shape)
    with contextlib.ExitStack() as stack:
        for end in chain(*connections):
            stack.enter_context(end).setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        message_s = _seconds_of_a_message(*connections[0])
        groups = _groups(train, shape, connections[:1])
        # In turn, because the speed of a virtual machine changes from one moment to the next.
        turns = [
            [
                _seconds_of_merging(train, kernels, groups, rows, repeats)[0]
                for rows, repeats in ((SMALL_ROWS, 40), (LARGE_ROWS, 3), (SMALL_ROWS, 40))
            ]
            for _ in range(5)
        ]
        few, many, few_again = zip(*turns, strict=True)
        # Whatever disturbs merges of a few rows takes longer than they do.
        small_s, large_s = min(few + few_again), statistics.median(many)
        serial = 0.0
        if len(connections) > 1 and usable_cores() > 1:
            strips = _groups(train, shape, connections)
            serial = _serial_part(
                2 * large_s, min(_seconds_of_merging(train, kernels, strips, LARGE_ROWS, 1)[1] for _ in range(8))
            )
    a_row = (large_s - small_s) / (LARGE_ROWS - SMALL_ROWS)
    # With two hosts, each sends one row's bytes per row, half of them of its copy's rows and half of merged ones, and folds half
    # the rows of both copies.
    send_s = max(0.2 * a_row, a_row - fold_s - pass_s) / merged_row_bytes(train, shape[1])
    return MergeSpeeds(
        send_s=send_s, fold_s=fold_s, peer_s=max(0.0, small_s - SMALL_ROWS * a_row), message_s=message_s, serial=serial,
        pass_s=pass_s,
    )  # fmt: skip


def _serial_part(work_s: float, elapsed_s: float) -> float:
    """Amdahl's serial part of merges that take `work_s` of one core and `elapsed_s` in as many strips as there are cores. Both
    ends of the merges are in this process, so all its cores can have work."""
    cores = usable_cores()
    return min(1.0, max(0.0, (cores * elapsed_s / work_s - 1) / (cores - 1)))


def _groups(train: Train, shape: tuple[int, int], connections: Sequence[Ends]) -> list[LaneGroup]:
    return [_group(train, number, shape, ends) for number, ends in enumerate(zip(*connections, strict=True))]


def _group(train: Train, number: int, shape: tuple[int, int], ends: Sequence[socket.socket]) -> LaneGroup:
    places = tuple(
        Place(address=name, host=name, threads=len(ends), first_copy=at, last_copy=at + 1) for at, name in enumerate("ab")
    )
    links = tuple(_Peers(Links({1 - number: Link(end, "this machine")}, PATIENCE_S, Attempts())) for end in ends)
    return _open(train, places, number, shape, links)


def _open(train: Train, places: tuple[Place, ...], number: int, shape: tuple[int, int], others: tuple[_Peers, ...]) -> LaneGroup:
    pairs = [(aligned_zeros(*shape), aligned_zeros(*shape)) for _ in range(1 + len(places[number].copies))]
    return LaneGroup(
        key="plan", places=places, participant=number, role=merge_role(places, number), base=pairs[0],
        copies=dict(zip(places[number].copies, pairs[1:], strict=True)), barrier=NoBarrier(), others=others,  # type: ignore[arg-type]
        pool=ThreadPoolExecutor(max(1, places[number].threads - 1)), bits=train.merge_bits or 32,
    )  # fmt: skip


def _seconds_of_a_message(ours: socket.socket, theirs: socket.socket) -> float:
    """Median elapsed seconds of a byte there and back."""
    times, taken = 50, []

    def answer() -> None:
        for _ in range(times):
            theirs.sendall(theirs.recv(1))

    other = threading.Thread(target=answer)
    other.start()
    for _ in range(times):
        started = time.perf_counter()
        ours.sendall(b".")
        ours.recv(1)
        taken.append(time.perf_counter() - started)
    other.join()
    return statistics.median(taken)


def _seconds_of_folding(train: Train, kernels: Kernels, shape: tuple[int, int]) -> tuple[float, float]:
    """Processor seconds per row of both matrices of a copy, with two copies on this host: of a fold, and of showing it to the
    merge and catching up with the result, if copies are trained meanwhile."""
    group = _open(train, (Place(address="a", host="a", threads=1, first_copy=0, last_copy=2),), 0, shape, ())
    folded, passed, rows = [], [], shape[0]
    for _ in range(4):
        started = time.process_time()
        if group.trains_meanwhile:
            show(group, rows)
            shown = time.process_time()
            begin_merge(group, kernels, rows, train.merge)
            end_merge(group)
            merged = time.process_time()
            take_over(group, rows, wholly=False)
            ended = time.process_time()
            folded.append(merged - shown)
            passed.append(shown - started + ended - merged)
        else:
            merge(group, kernels, rows, train.merge)
            folded.append(time.process_time() - started)
            passed.append(0.0)
    group.close()
    return min(folded) / (2 * rows), min(passed) / (2 * rows)


def _seconds_of_merging(train: Train, kernels: Kernels, groups: list[LaneGroup], rows: int, repeats: int) -> tuple[float, float]:
    """(processor seconds per end, elapsed seconds) of a merge of `rows` rows; the numbers in them do not affect the time."""

    def merge_some(group: LaneGroup, times: int) -> None:
        for _ in range(times):
            merge(group, kernels, rows, train.merge)

    def together(times: int) -> None:
        other = threading.Thread(target=merge_some, args=(groups[1], times))
        other.start()
        merge_some(groups[0], times)
        other.join()

    together(2)
    processor, clock = time.process_time(), time.perf_counter()
    together(repeats)
    return (time.process_time() - processor) / (2 * repeats), (time.perf_counter() - clock) / repeats
