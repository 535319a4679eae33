"""Links between workers carry rows in order, end when the peer ends, and give merges the bits of a single process.

The workers are real, with real connections, but all in this process, so that a test takes milliseconds. Workers in
separate processes, TLS and SIGKILL are tested in tests/cluster/test_hosts.py.
"""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from distributed import Client, LocalCluster, Worker
from distributed.comm.core import connect
from numpy.typing import NDArray

from pipeline.cluster.opening import open_workers
from pipeline.cluster.presence import registered
from pipeline.cluster.state import WithState, WorkerState
from pipeline.cluster.workers import WorkerLostError
from pipeline.config import Cluster
from pipeline.errors import ServiceError, TemporaryError
from pipeline.exchange.attempts import Attempts, PeerLostError
from pipeline.exchange.links import Link, Links, keep_open, message_of
from pipeline.exchange.network import PLUGIN, Group, arrive, join_group, take_socket
from pipeline.exchange.shared_memory import open_meeting_place
from pipeline.planning.merging import connection_with_itself
from pipeline.training.lane_group import LaneGroup, merge, open_group
from pipeline.training.placement import Place, pieces_of, strips_of
from pipeline.training.plan import assign_copies
from pipeline.training.residency import Residency
from tests.pipeline.test_residency import Apart
from tests.sampling import sample
from w2v_core.kernels import Merge, load_kernels
from w2v_core.kernels.cpu.change_bytes import merge_changes, pack_changes, packed_row_bytes

WORKERS = 4
ROW_FLOATS = 8
PATIENCE_S = 90.0
AT_ONCE_S = 30.0
"""Much less than PATIENCE_S, after which waiting ends anyway, and more than a busy machine holds a process up."""


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with (
        LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, processes=False, protocol="tcp", host="127.0.0.1",
            dashboard_address=":0", worker_dashboard_address=None, silence_logs=50,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):  # fmt: skip
        client.run(_invite)
        yield client


def _invite(dask_worker: Worker) -> None:
    arrive(dask_worker, "test")


def together(client: Client, function: Callable[..., Any], *arguments: Any, count: int = 2) -> list[Any]:
    """What function(key, addresses, participant, *arguments) gives on so many workers at the same time; an error is
    given back as its text."""
    addresses = sorted(registered(client))[:count]
    key = uuid.uuid4().hex
    futures = [
        client.submit(_guarded, function, key, addresses, index, *arguments, workers=[address], pure=False)
        for index, address in enumerate(addresses)
    ]
    return list(client.gather(futures))


def _guarded(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except PeerLostError as error:
        return str(error)


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


# ── merges over them ─────────────────────────────────────────────────────────────────────────────────────────────────

VOCAB = 41
LAYOUTS = ["ab", "aab", "abb", "abc", "aabb", "abcd", "aabc", "aaaa"]


def changed(group: LaneGroup, lane: int, number: int) -> None:
    generator = np.random.default_rng((lane, number))
    for matrix in group.trained[lane]:
        matrix += generator.normal(size=matrix.shape).astype(np.float32)


def places_for(layout: str, addresses: list[str], lanes: int, threads: int = 1) -> tuple[Place, ...]:
    return tuple(
        Place(address=address, host=host, threads=threads + index % 2, first_copy=run.start, last_copy=run.stop)
        for index, (host, address, run) in enumerate(zip(layout, addresses, assign_copies(lanes, len(layout)), strict=True))
    )


def merge_often(
    key: str, addresses: list[str], participant: int, layout: str, lanes: int, method: Merge, bits: int, cuts: list[int],
    vocab: int = VOCAB, threads: int = 1,
) -> bytes:  # fmt: skip
    """The base after some merges, as bytes; all copies on this host must equal it in the rows merged last."""
    places = places_for(layout, addresses, lanes, threads)
    group = open_group(key, places, participant, (vocab, ROW_FLOATS), PATIENCE_S, Attempts(), bits)
    kernels = load_kernels("numpy")
    for number, count in enumerate(cuts):
        for lane in group.own:
            changed(group, lane, number)
        merge(group, kernels, count, method)
        for pair in group.trained.values():
            for matrix in (0, 1):
                np.testing.assert_array_equal(pair[matrix][:count], group.base[matrix][:count])
        group.barrier.wait()
    merged = b"".join(matrix.tobytes() for matrix in group.base)
    group.close()
    return merged


@pytest.mark.parametrize("method", ["adasum", "mean"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bits", [32, 8])
def test_merges_between_hosts_give_the_bits_of_one_process(client: Client, bits: int, layout: str, method: Merge) -> None:
    lanes, cuts = 5, [VOCAB, 7, 2, 1, 20, VOCAB]
    alone = merge_often(uuid.uuid4().hex, ["here"], 0, "a", lanes, method, bits, cuts)
    found = together(client, merge_often, layout, lanes, method, bits, cuts, count=len(layout))
    assert all(merged == alone for merged in found)


@pytest.mark.parametrize(("threads", "pieces"), sample([(1, 2), (2, 2), (3, 3), (9, 4)]))
@pytest.mark.parametrize("bits", [32, 8])
@pytest.mark.turns(2, 2)
def test_blocks_of_many_pieces_give_the_bits_of_one_process(client: Client, bits: int, threads: int, pieces: int) -> None:
    vocab, lanes = 100_000, 4
    # Blocks of pieces for all strips, of one piece, of several, and of one row or none.
    cuts = [vocab, 20_000, 60_001, 3, vocab]
    places = places_for("aabc", ["here"] * 4, lanes, threads)
    assert strips_of(places) == min(threads, 4)
    assert len(pieces_of(0, vocab // 4, ROW_FLOATS, strips_of(places))) == pieces
    alone = merge_often(uuid.uuid4().hex, ["here"], 0, "a", lanes, "adasum", bits, cuts, vocab)
    found = together(client, merge_often, "aabc", lanes, "adasum", bits, cuts, vocab, threads, count=4)
    assert all(merged == alone for merged in found)


STINTS = [(20, False), (41, False), (7, False), (0, True), (41, False), (3, False), (41, True), (2, False), (9, True)]
"""(rows merged after a stint, whether training waits for the merge)"""


def train_beside_merges(
    key: str, addresses: list[str], participant: int, layout: str, lanes: int, apart: bool
) -> dict[int, bytes]:
    """The participant's copies after some stints with merges beside them, as bytes, and under −1 the base."""
    places = places_for(layout, addresses, lanes, 2)
    group = open_group(key, places, participant, (VOCAB, ROW_FLOATS), PATIENCE_S, Attempts(), 8)
    resident = Residency(Apart() if apart else load_kernels("numpy"), group)
    try:
        for number, (rows, waits) in enumerate(STINTS):
            for lane, pair in resident.copies.items():
                for matrix, moved in zip(pair, moved_by(lane, number), strict=True):
                    matrix += moved
            if rows:
                resident.merge(rows, "adasum", waits=waits)
            else:
                resident.end_merge()
        resident.bring_home(all_merged=False)
        state = {-1: group.base, **group.trained}
        return {number: b"".join(matrix.tobytes() for matrix in pair) for number, pair in state.items()}
    finally:
        group.close()


def moved_by(lane: int, number: int) -> NDArray[np.float32]:
    """By how much a stint moves the rows of both matrices."""
    return np.random.default_rng((lane, number)).normal(size=(2, VOCAB, ROW_FLOATS)).astype(np.float32)


def trained_by_definition(lanes: int) -> dict[int, bytes]:
    """A merge folds what copies were when it began; they gain what the base has gained over that when the next one begins."""
    base = np.zeros((2, VOCAB, ROW_FLOATS), np.float32)
    copies = np.zeros((lanes, 2, VOCAB, ROW_FLOATS), np.float32)
    shown, under_way = copies.copy(), 0
    for number, (rows, waits) in enumerate(STINTS):
        for lane, copy in enumerate(copies):
            copy += moved_by(lane, number)
        if under_way:
            merge_rows_by_definition(base[:, :under_way], shown[:, :, :under_way])
            copies[:, :, :under_way] += base[:, :under_way] - shown[:, :, :under_way]
        shown, under_way = copies.copy(), rows
        if rows and waits:
            merge_rows_by_definition(base[:, :rows], shown[:, :, :rows])
            copies[:, :, :rows], under_way = base[:, :rows], 0
    return {-1: base.tobytes()} | {lane: copy.tobytes() for lane, copy in enumerate(copies)}


def merge_rows_by_definition(base: NDArray[np.float32], copies: NDArray[np.float32]) -> None:
    for matrix in (0, 1):
        changes = [np.empty((base.shape[1], packed_row_bytes(ROW_FLOATS)), np.uint8) for _ in copies]
        for packed, copy in zip(changes, copies, strict=True):
            pack_changes(packed, copy[matrix], base[matrix])
        merge_changes(base[matrix], changes, None, "adasum")


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("layout", [*LAYOUTS, "a"])
def test_merges_beside_training_give_what_their_definition_gives_wherever_the_copies_are(
    client: Client, layout: str, apart: bool
) -> None:
    expected = trained_by_definition(5)
    for found in together(client, train_beside_merges, layout, 5, apart, count=len(layout)):
        assert found == {number: expected[number] for number in found}


def merge_until_lost(
    key: str, addresses: list[str], participant: int, leaver: int, vocab: int, threads: int, beside: bool
) -> float:
    places, bits = places_for("aab", addresses, 4, threads), 8 if beside else 32
    group = open_group(key, places, participant, (vocab, ROW_FLOATS), PATIENCE_S, Attempts(), bits)
    resident = Residency(load_kernels("numpy"), group)
    started = time.monotonic()
    try:
        for number in range(50):
            if participant == leaver and number == 3:
                return 0.0
            resident.merge(vocab, "adasum", waits=not beside)
        return -1.0
    except PeerLostError:
        return time.monotonic() - started
    finally:
        group.close()


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize(("vocab", "threads"), [(VOCAB, 1), (60_000, 2)])
@pytest.mark.parametrize("leaver", [0, 1, 2])
def test_when_one_worker_leaves_the_others_on_all_hosts_learn_of_it_at_once(
    client: Client, leaver: int, vocab: int, threads: int, beside: bool
) -> None:
    waited = together(client, merge_until_lost, leaver, vocab, threads, beside, count=3)
    assert waited.pop(leaver) == 0.0
    assert all(0 < seconds < AT_ONCE_S for seconds in waited)


STOPPED = threading.Event()
"""Set once participant 0 no longer waits for the other."""


def merge_with_nobody(key: str, addresses: list[str], participant: int) -> float:
    """Participant 1 opens the group and does not merge; 0 merges in two strips until its attempt is called lost."""
    attempts = Attempts()
    with attempts.part_of("attempt"):
        group = open_group(key, places_for("ab", addresses, 2, 2), participant, (60_000, ROW_FLOATS), PATIENCE_S, attempts)
        started = time.monotonic()
        try:
            if participant == 1:
                STOPPED.wait(PATIENCE_S)
                return 0.0
            threading.Timer(0.3, attempts.abandon, [["attempt"]]).start()
            merge(group, load_kernels("numpy"), 60_000, "adasum")
            return -1.0
        except PeerLostError:
            return time.monotonic() - started
        finally:
            group.close()
            STOPPED.set()


def test_all_strips_of_a_lost_attempt_stop_waiting(client: Client) -> None:
    STOPPED.clear()
    waited, _ = together(client, merge_with_nobody)
    assert 0.3 <= waited < AT_ONCE_S


def leave_a_merge(key: str, addresses: list[str], participant: int) -> float:
    """Participant 1 opens the group and does not merge; 0 leaves while its merge is under way. Seconds that leaving took."""
    group = open_group(key, places_for("ab", addresses, 2, 2), participant, (60_000, ROW_FLOATS), PATIENCE_S, Attempts(), 8)
    if participant == 0:
        Residency(load_kernels("numpy"), group).merge(60_000, "adasum", waits=False)
        time.sleep(0.3)
        STOPPED.set()
    else:
        STOPPED.wait(PATIENCE_S)
    started = time.monotonic()
    group.close()
    return time.monotonic() - started


def test_a_worker_whose_training_fails_leaves_the_merge_beside_it(client: Client) -> None:
    STOPPED.clear()
    assert max(together(client, leave_a_merge)) < AT_ONCE_S
