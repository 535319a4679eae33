"""Links between workers carry rows in order, and end when the peer ends.

The workers are real, with real connections, but all in this process, so that a test takes milliseconds. Workers in
separate processes, TLS and SIGKILL are tested in tests/cluster/test_hosts.py.
"""

from __future__ import annotations

import asyncio
import re
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from distributed import Client
from distributed.comm.core import connect
from numpy.typing import NDArray

from pipeline.cluster.opening import open_workers
from pipeline.cluster.state import WithState, WorkerState
from pipeline.cluster.workers import WorkerLostError
from pipeline.config import Cluster
from pipeline.errors import ServiceError, TemporaryError
from pipeline.exchange.attempts import Attempts, PeerLostError
from pipeline.exchange.links import Link, Links, keep_open, message_of
from pipeline.exchange.network import PLUGIN, Group, join_group, take_socket
from pipeline.exchange.shared_memory import open_meeting_place
from pipeline.planning.merging import connection_with_itself
from tests.pipeline.linked_workers import AT_ONCE_S, PATIENCE_S, ROW_FLOATS, together
from tests.pipeline.linked_workers import client as client


def open_pair(key: str, addresses: list[str], participant: int, patience_s: float = PATIENCE_S) -> tuple[Group, int]:
    other = 1 - participant
    return join_group(key, participant, {other: addresses[other]}, patience_s, Attempts()), other


def rows(count: int, value: float) -> NDArray[np.float32]:
    return np.full((count, ROW_FLOATS), value, np.float32)


# ── links between two workers ────────────────────────────────────────────────────────────────────────────────────────


def swap(key: str, addresses: list[str], participant: int, sizes: list[int]) -> bool:
    group, other = open_pair(key, addresses, participant)
    links = group.links
    for number, size in enumerate(sizes):
        first, second = rows(size, 0), rows(1, 0)
        links.send(other, (number, "rows"), [rows(size, participant + number), rows(1, number)])
        links.send(other, (number, "merged"), [])
        links.expect(other, (number, "rows"), [first, second])
        links.expect(other, (number, "merged"), [])
        links.receive_all()
        links.flush()
        np.testing.assert_array_equal(first, rows(size, other + number))
        np.testing.assert_array_equal(second, rows(1, number))
    group.close()
    return True


def test_arrays_of_all_sizes_arrive_in_the_order_sent(client: Client) -> None:
    assert together(client, swap, [0, 1, 3, 4000, 5000, 400_000, 2]) == [True, True]
    open_groups = client.run(lambda dask_worker: len(dask_worker.plugins[PLUGIN].groups))
    assert set(open_groups.values()) == {0}


async def call_as(address: str, key: str, sender: object) -> None:
    comm = await connect(address)
    await comm.write({"op": "w2v_link", "group": key, "sender": sender, "patience_s": 5, "reply": False})
    await asyncio.sleep(0.1)
    comm.abort()


def swap_among_strangers(key: str, addresses: list[str], participant: int) -> bool:
    if participant == 0:
        time.sleep(0.2)  # the other has opened its group and waits
        for sender in (7, 1, -1, "0", False, [0], None):
            asyncio.run(call_as(addresses[1], key, sender))
    return swap(key, addresses, participant, [3])


def test_who_says_that_it_is_a_peer_nobody_waits_for_is_hung_up_on(client: Client) -> None:
    assert together(client, swap_among_strangers) == [True, True]


def leave_or_wait(key: str, addresses: list[str], participant: int) -> float:
    group, other = open_pair(key, addresses, participant)
    links, started = group.links, time.monotonic()
    if participant == 0:
        links.send(other, (1, "rows"), [rows(1_000_000, 7)])
        group.close()
        return 0.0
    last = rows(1_000_000, 0)
    links.expect(other, (1, "rows"), [last])
    links.receive(other)
    np.testing.assert_array_equal(last, rows(1_000_000, 7))
    try:
        links.expect(other, (2, "rows"), [last])
        links.receive(other)
    finally:
        group.close()
        assert time.monotonic() - started < AT_ONCE_S
    return 0.0


def test_what_was_sent_before_leaving_arrives_and_then_waiting_ends_at_once(client: Client) -> None:
    left, waited = together(client, leave_or_wait)
    assert left == 0.0
    assert re.fullmatch(r"participant 0 at tcp://\S+ left the round before it sent merge 2, rows", waited)


def leave_one_waiting_for_another(key: str, addresses: list[str], participant: int) -> float:
    peers = {peer: address for peer, address in enumerate(addresses) if peer != participant}
    group = join_group(key, participant, peers, PATIENCE_S, Attempts())
    received = rows(1, 0)
    if participant == 2:
        time.sleep(0.3)
        group.links.send(1, (1, "rows"), [rows(1, 5)])
    if participant == 1:
        group.links.expect(2, (1, "rows"), [received])
        group.links.receive(2)
    group.close()
    return float(received[0, 0])


def test_a_peer_that_is_done_and_leaves_disturbs_nobody_who_waits_for_another(client: Client) -> None:
    assert together(client, leave_one_waiting_for_another, count=3) == [0.0, 5.0, 0.0]


def break_off_or_wait(key: str, addresses: list[str], participant: int) -> float:
    group, other = open_pair(key, addresses, participant)
    started = time.monotonic()
    try:
        if participant == 0:
            group.cut(other)
        group.links.expect(other, (1, "rows"), [rows(1, 0)])
        group.links.receive(other)
    finally:
        group.close()
        assert time.monotonic() - started < AT_ONCE_S
    return 0.0


def test_a_link_that_breaks_ends_the_waiting_at_both_ends_at_once(client: Client) -> None:
    broken = together(client, break_off_or_wait)
    assert [text.split(" at ")[0] for text in broken] == ["the link to participant 1", "the link to participant 0"]


def stay_away(key: str, addresses: list[str], participant: int) -> str:
    if participant == 0:
        open_pair(key, addresses, participant, patience_s=1)
    return "not there"


def wait_for_caller(key: str, addresses: list[str], participant: int) -> str:
    if participant == 1:
        open_pair(key, addresses, participant, patience_s=1)
    return "not there"


def test_waiting_for_a_worker_that_never_comes_ends_with_its_name(client: Client) -> None:
    waited, _ = together(client, stay_away)
    assert re.match(r"(waited 1 s for|the link to) participant 1 at tcp://", waited)
    _, waited = together(client, wait_for_caller)
    assert waited.startswith("waited 1 s for participant 0 at tcp://")


def call_nobody(key: str, addresses: list[str], participant: int) -> str:
    join_group(key, 0, {1: "tcp://127.0.0.1:1"}, 0.5, Attempts()).close()
    return "reached it"


def test_a_peer_that_cannot_be_reached_is_named_with_its_address(client: Client) -> None:
    (said,) = together(client, call_nobody, count=1)
    assert "participant 1 at tcp://127.0.0.1:1" in said


def test_workers_whose_connections_have_no_socket_are_refused_with_the_way_out() -> None:
    class Spoken:
        peer_address = "ws://10.0.0.1:1"

    with pytest.raises(ServiceError, match=r"^ws://10.0.0.1:1: copies .* tcp:// or tls:// .*, or set train.copies=1"):
        take_socket(Spoken(), 1.0)  # type: ignore[arg-type]


# ── links over a pair of sockets ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def pair() -> Iterator[tuple[Links, Links]]:
    """Two participants, 0 and 1, and the links to each other."""
    ends = socket.socketpair()
    yield (
        Links({1: Link(ends[0], "participant 1")}, PATIENCE_S, Attempts()),
        Links({0: Link(ends[1], "participant 0")}, PATIENCE_S, Attempts()),
    )
    for end in ends:
        end.close()


def test_both_ends_can_send_more_than_the_network_holds_at_the_same_time(pair: tuple[Links, Links]) -> None:
    received = {}

    def at(links: Links, peer: int) -> None:
        received[peer] = rows(1_000_000, 7)
        links.send(peer, (1, "rows"), [rows(1_000_000, peer)])
        links.expect(peer, (1, "rows"), [received[peer]])
        links.receive_all()
        links.flush()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(at, pair, (1, 0)))
    assert np.all(received[1] == 0)
    assert np.all(received[0] == 1)


def test_a_peer_that_reads_nothing_is_not_written_to_for_ever() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        links = Links({1: Link(ours, "participant 1")}, 1.0, Attempts())
        links.send(1, (1, "rows"), [rows(1_000_000, 1)])
        with pytest.raises(PeerLostError, match=r"^waited 1 s for participant 1, which reads nothing"):
            links.flush()


def test_a_slow_peer_is_waited_for_as_long_as_it_is_allowed_although_its_window_is_full() -> None:
    ours, theirs = connection_with_itself()
    with ours, theirs:
        for end in (ours, theirs):
            keep_open(end, 1.0)
        fast = Links({1: Link(ours, "participant 1")}, 1.0, Attempts())
        slow = Links({0: Link(theirs, "participant 0")}, 1.0, Attempts())
        fast.allow(PATIENCE_S)
        taken = rows(1_000_000, 0)

        def read_late() -> None:
            time.sleep(3)
            slow.expect(0, (1, "rows"), [taken])
            slow.receive(0)

        fast.send(1, (1, "rows"), [rows(1_000_000, 7)])
        with ThreadPoolExecutor(1) as beside:
            reading = beside.submit(read_late)
            fast.flush()
            reading.result()
        assert np.all(taken == 7)


def test_rows_that_are_not_expected_yet_stay_in_the_network(pair: tuple[Links, Links]) -> None:
    fast, slow = pair
    found = rows(1000, 0)
    for number in (1, 2):
        fast.send(1, (number, "rows"), [rows(1000, number)])
    fast.flush()
    for number in (1, 2):
        slow.expect(0, (number, "rows"), [found])
        slow.receive(0)
        assert np.all(found == number)


def test_workers_out_of_step_stop_instead_of_merging_the_wrong_rows(pair: tuple[Links, Links]) -> None:
    ahead, behind = pair
    ahead.send(1, (1, "rows"), [rows(1, 0)])
    ahead.flush()
    behind.expect(0, (0, "rows"), [rows(1, 0)])
    with pytest.raises(PeerLostError, match=r"expected \(0, 'rows'\) with 32 bytes from participant 0, found \(1, 'rows'\)"):
        behind.receive(0)


def test_a_message_of_another_size_is_not_read(pair: tuple[Links, Links]) -> None:
    ahead, behind = pair
    ahead.send(1, (1, "rows"), [rows(2, 9)])
    ahead.flush()
    held = rows(3, 0)
    behind.expect(0, (1, "rows"), [held])
    with pytest.raises(PeerLostError, match=r"with 96 bytes from participant 0, found .* with 64"):
        behind.receive(0)
    assert not held.any()


def test_rows_that_arrive_damaged_are_not_merged(pair: tuple[Links, Links]) -> None:
    _, receiver = pair
    message = bytearray(b"".join([message_of((1, "rows"), [rows(1000, 1)]).header(True), rows(1000, 1).tobytes()]))
    message[-1] ^= 1
    pair[0].to(1).socket.sendall(message)
    receiver.expect(0, (1, "rows"), [rows(1000, 0)])
    with pytest.raises(PeerLostError, match=r"^the link to participant 0 broke \(32,000 bytes of rows arrived damaged\)"):
        receiver.receive(0)


def test_a_link_takes_nothing_but_rows(pair: tuple[Links, Links]) -> None:
    _, receiver = pair
    pair[0].to(1).socket.sendall(b"GET / HTTP/1.1\r\nHost: worker\r\n\r\n")
    receiver.expect(0, (1, "rows"), [rows(1000, 0)])
    with pytest.raises(PeerLostError, match=r"what arrived is not a header of rows"):
        receiver.receive(0)


def test_the_death_of_any_participant_ends_the_waiting_for_another_at_once() -> None:
    silent, dying = socket.socketpair(), socket.socketpair()
    links = Links({1: Link(silent[0], "participant 1"), 2: Link(dying[0], "participant 2")}, PATIENCE_S, Attempts())
    links.expect(1, (1, "rows"), [rows(1, 0)])
    dying[1].close()
    started = time.monotonic()
    with pytest.raises(PeerLostError, match=r"^the link to participant 2 broke \(it was closed at the other end\)"):
        links.receive(1)
    assert time.monotonic() - started < AT_ONCE_S
    for end in (*silent, dying[0]):
        end.close()


# ── workers that never come ──────────────────────────────────────────────────────────────────────────────────────────


def come_or_be_lost(item: tuple[str, int], state: WorkerState) -> None:
    key, participant = item
    if participant == 1:
        raise WorkerLostError("this worker went away before the round")
    open_meeting_place(key, 1, False, PATIENCE_S, state.of(Attempts))


def call_or_be_lost(item: tuple[str, int], state: WorkerState) -> None:
    key, participant = item
    if participant == 1:
        raise WorkerLostError("this worker went away before the round")
    join_group(key, 2, {1: "nowhere"}, PATIENCE_S, state.of(Attempts))


@pytest.mark.parametrize("waiting", [come_or_be_lost, call_or_be_lost])
def test_when_a_worker_is_lost_before_the_round_the_driver_ends_the_waiting_of_the_others(
    client: Client, waiting: Callable[[tuple[str, int], WorkerState], None]
) -> None:
    with open_workers(Cluster(kind="address", address=client.scheduler.address, wait_s=60)) as workers:
        members = workers.members()[:2]
        started = time.monotonic()
        with pytest.raises(TemporaryError, match=r"went away before the round|another worker of the round was lost"):
            workers.together(WithState(waiting), [(uuid.uuid4().hex, 0), ("", 1)], members)
        assert time.monotonic() - started < AT_ONCE_S
