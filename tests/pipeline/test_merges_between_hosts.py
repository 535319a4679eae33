"""Merges between hosts give the bits of a single process, beside training what their definition gives, and end when a peer ends.

The workers are real, with real connections, but all in this process, so that a test takes milliseconds. Workers in
separate processes, TLS and SIGKILL are tested in tests/cluster/test_hosts.py.
"""

from __future__ import annotations

import threading
import time
import uuid

import numpy as np
import pytest
from distributed import Client
from numpy.typing import NDArray

from pipeline.exchange.attempts import Attempts, PeerLostError
from pipeline.training.lane_group import LaneGroup, merge, open_group
from pipeline.training.placement import Place, pieces_of, strips_of
from pipeline.training.plan import assign_copies
from pipeline.training.residency import Residency
from tests.pipeline.linked_workers import AT_ONCE_S, PATIENCE_S, ROW_FLOATS, together
from tests.pipeline.linked_workers import client as client
from tests.pipeline.test_residency import Apart
from tests.sampling import sample
from w2v_core.kernels import Merge, load_kernels
from w2v_core.kernels.cpu.change_bytes import merge_changes, pack_changes, packed_row_bytes

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
    everywhere = together(client, train_beside_merges, layout, 5, apart, count=len(layout))
    assert {number for found in everywhere for number in found} == set(expected)
    for found in everywhere:
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
