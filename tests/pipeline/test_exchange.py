"""Lanes in real processes meet at a barrier and in shared memory, notice a death at once, and leave nothing behind."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import signal
import socket
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import pytest

from pipeline.exchange import shared_memory
from pipeline.exchange.attempts import Attempts, PeerLostError
from pipeline.exchange.shared_memory import (
    SocketBarrier,
    make_shared_array,
    meet,
    open_meeting_place,
    open_shared_array,
    remove_deserted_places,
)

SPAWN = multiprocessing.get_context("spawn")
PATIENCE_S = 90
AT_ONCE_S = 30
"""Much less than PATIENCE_S, after which waiting ends anyway, and more than a busy machine holds a process up."""


def take_part(
    key: str, participant: int, participants: int, rounds: int, pipe: Connection, attempts: Attempts | None = None
) -> None:
    """Every participant adds 1 to every cell of its row; after each barrier all participants must see equal rows."""
    try:
        attempts = attempts or Attempts()
        place = open_meeting_place(key, 1 << 16, participant == 0, PATIENCE_S, attempts)
        barrier = meet(place.path, participant, participants, PATIENCE_S, attempts)
        rows = make_shared_array(place.path / "rows", (participants, 1024)) if participant == 0 else None
        barrier.wait()
        if rows is None:
            rows = open_shared_array(place.path / "rows", (participants, 1024))
        barrier.wait()
        place.close()
        for done in range(rounds):
            if participant == 1 and done == 7:
                pipe.send("seven")
            rows[participant] += 1
            barrier.wait()
            if not (rows == done + 1).all():
                pipe.send(f"row differs in round {done}")
                return
            barrier.wait()
        pipe.send("done")
    except PeerLostError as error:
        pipe.send(f"lost: {error}")


def start(participants: int, rounds: int) -> tuple[list[multiprocessing.process.BaseProcess], list[Connection], Path]:
    key = f"test-{os.getpid()}-{time.monotonic_ns()}"
    pipes = [SPAWN.Pipe(duplex=False) for _ in range(participants)]
    processes = [
        SPAWN.Process(target=take_part, args=(key, index, participants, rounds, pipe[1])) for index, pipe in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    for _, sender in pipes:
        sender.close()
    return list(processes), [receiver for receiver, _ in pipes], Path(key)


def two_at_a_barrier(ours: socket.socket, theirs: socket.socket) -> tuple[SocketBarrier, SocketBarrier]:
    return (
        SocketBarrier([ours], True, 2, PATIENCE_S, Attempts()),
        SocketBarrier([theirs], False, 2, PATIENCE_S, Attempts()),
    )


def test_a_participant_does_other_work_while_it_waits_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "usable_cores", lambda: 2)
    ours, theirs = socket.socketpair()
    barrier, other = two_at_a_barrier(ours, theirs)
    came, done = threading.Thread(target=other.wait), []

    def work() -> bool:
        done.append(1)
        if len(done) == 20:
            came.start()
        return True

    with ours, theirs:
        barrier.wait(work)
        came.join()
    assert len(done) >= 20, "it works all the time, not once"


def test_with_fewer_cores_than_participants_a_waiting_one_yields_its_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "usable_cores", lambda: 1)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        barrier, other = two_at_a_barrier(ours, theirs)
        came = threading.Timer(0.05, other.wait)
        came.start()
        barrier.wait(lambda: pytest.fail("it worked"))
        came.join()


def test_a_slow_participant_is_waited_for_as_long_as_it_is_allowed() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        barrier, other = (
            SocketBarrier([ours], True, 2, 0.1, Attempts()),
            SocketBarrier([theirs], False, 2, PATIENCE_S, Attempts()),
        )
        barrier.allow(PATIENCE_S)
        came = threading.Timer(0.5, other.wait)
        came.start()
        barrier.wait()
        came.join()
        barrier.allow(0.0)
        with pytest.raises(PeerLostError, match="did not reach the merge in time"):
            barrier.wait()


def test_a_waiting_participant_without_other_work_still_notices_arrivals_and_departures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "usable_cores", lambda: 2)
    ours, theirs = socket.socketpair()
    barrier, other = two_at_a_barrier(ours, theirs)
    left = [3]

    def work() -> bool:
        left[0] -= 1
        return left[0] >= 0

    with ours, theirs:
        came = threading.Timer(0.1, other.wait)
        came.start()
        barrier.wait(work)
        came.join()
        theirs.close()
        with pytest.raises(PeerLostError, match="went away in the middle of a round"):
            barrier.wait(work)


def test_three_processes_see_each_others_rows_after_every_barrier() -> None:
    processes, pipes, _ = start(participants=3, rounds=200)
    said = []
    for pipe in pipes:
        while (word := pipe.recv()) == "seven":
            continue
        said.append(word)
    for process in processes:
        process.join(PATIENCE_S)
    assert said == ["done"] * 3


@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.turns(2, 1)
def test_a_killed_process_is_noticed_at_once_by_the_others(victim: int) -> None:
    processes, pipes, _ = start(participants=3, rounds=10**9)
    assert pipes[1].recv() == "seven"
    started = time.monotonic()
    os.kill(processes[victim].pid or 0, signal.SIGKILL)
    for survivor in {0, 1, 2} - {victim}:
        assert pipes[survivor].poll(AT_ONCE_S), "a survivor still waits for a dead process"
        assert pipes[survivor].recv().startswith("lost")
    assert time.monotonic() - started < AT_ONCE_S
    for process in processes:
        process.join(PATIENCE_S)


def test_a_participant_that_is_alone_does_not_wait_for_ever(tmp_path: Path) -> None:
    with pytest.raises(PeerLostError, match="only 1 of 2 workers came"):
        meet(tmp_path, 0, 2, 0.2, Attempts())
    with pytest.raises(PeerLostError, match="the first worker of the round did not show up"):
        meet(tmp_path, 1, 2, 0.2, Attempts())
    with pytest.raises(PeerLostError, match="the first worker of the round did not show up"):
        open_meeting_place("nobody", 1, False, 0.1, Attempts())


def test_lanes_meet_in_a_process_with_thousands_of_open_files(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(4096, before[0]), before[1]))
    with contextlib.ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        for _ in range(1100):
            stack.enter_context(open(os.devnull, "rb"))
        pool = stack.enter_context(ThreadPoolExecutor(2))
        met = pool.map(lambda participant: meet(tmp_path, participant, 2, PATIENCE_S, Attempts()), range(2))
        barriers = [stack.enter_context(contextlib.closing(barrier)) for barrier in met]
        late = pool.submit(barriers[1].wait)
        time.sleep(10 * shared_memory.SPIN_S)
        barriers[0].wait()
        late.result()


def test_the_meeting_place_is_private_to_this_user() -> None:
    place = open_meeting_place(f"private-{os.getpid()}", 1, True, 1, Attempts())
    try:
        assert place.path.stat().st_mode & 0o777 == 0o700
        place.path.chmod(0o755)
        with pytest.raises(Exception, match="nobody else can enter"):
            open_meeting_place(f"private-{os.getpid()}", 1, False, 1, Attempts())
    finally:
        place.close()


def hold_place(key: str, folder: Path, pipe: Connection) -> None:
    shared_memory.PLACES = (folder,)
    place = open_meeting_place(key, 1, True, 1, Attempts())
    make_shared_array(place.path / "rows", (3, 16))
    pipe.send(str(place.path))
    time.sleep(100)


def test_what_a_killed_first_participant_left_is_removed_by_the_next_group_and_a_living_one_keeps_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In a folder of its own, because the groups of all programs on this machine remove what they find in the common one.
    monkeypatch.setattr(shared_memory, "PLACES", (tmp_path,))
    receiver, sender = SPAWN.Pipe(duplex=False)
    holder = SPAWN.Process(target=hold_place, args=(f"killed-{os.getpid()}", tmp_path, sender))
    holder.start()
    place = Path(receiver.recv())
    remove_deserted_places()
    assert (place / "rows").exists()
    holder.kill()
    holder.join(PATIENCE_S)
    assert place.exists()
    open_meeting_place(f"next-{os.getpid()}", 1, True, 1, Attempts()).close()
    assert not place.exists()


@pytest.mark.parametrize("name", ["w2v-{}-runs", "enwiki-w2v-{}-0123456789abcdef", "w2v-{}-0123456789abcdef.bak", ".w2v-{}-mine"])
def test_folders_of_the_user_with_similar_names_are_never_removed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_memory, "PLACES", (tmp_path,))
    theirs = tmp_path / name.format(os.getuid())
    theirs.mkdir(mode=0o700)
    remove_deserted_places()
    assert theirs.exists()


def wait_until_told(key: str, told: Event, pipe: Connection) -> None:
    attempts = Attempts()

    def pass_on() -> None:
        told.wait()
        attempts.abandon(["lost attempt"])

    threading.Thread(target=pass_on, daemon=True).start()
    with attempts.part_of("lost attempt"):
        take_part(key, 0, 2, 10**9, pipe, attempts)


def test_waiting_for_a_frozen_process_stops_when_the_attempt_is_abandoned() -> None:
    key, told = f"frozen-{os.getpid()}", SPAWN.Event()
    pipes = [SPAWN.Pipe(duplex=False) for _ in range(2)]
    frozen = SPAWN.Process(target=take_part, args=(key, 1, 2, 10**9, pipes[1][1]))
    waiting = SPAWN.Process(target=wait_until_told, args=(key, told, pipes[0][1]))
    for process in (frozen, waiting):
        process.start()
    try:
        assert pipes[1][0].recv() == "seven"
        os.kill(frozen.pid or 0, signal.SIGSTOP)
        told.set()
        assert pipes[0][0].poll(AT_ONCE_S), "it still waits, although the attempt was abandoned"
        assert "another worker of the round was lost" in pipes[0][0].recv()
    finally:
        frozen.kill()
        waiting.join(PATIENCE_S)


def test_shared_arrays_start_at_zero_and_are_one_memory() -> None:
    with tempfile.TemporaryDirectory() as directory:
        first = make_shared_array(Path(directory) / "x", (3, 16))
        second = open_shared_array(Path(directory) / "x", (3, 16))
        assert not first.any()
        first[1, 2] = 5
        assert second[1, 2] == 5
        assert first.flags.c_contiguous
        assert first.dtype == np.float32


def test_too_little_shared_memory_is_an_error_before_anything_is_mapped(small_disk: Path) -> None:
    with pytest.raises(Exception, match="cannot reserve 40,000,000 bytes of shared memory"):
        make_shared_array(small_disk / "x", (100_000, 100))


def test_a_meeting_place_that_went_away_is_a_lost_round_that_can_be_run_again(tmp_path: Path) -> None:
    with pytest.raises(PeerLostError, match=r"gone went away before all workers of the round had met there"):
        open_shared_array(tmp_path / "gone" / "x", (3, 16))
