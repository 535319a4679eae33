"""Several lanes on one copy of the parameters: waves as defined, and the same bits for any number of threads."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import subprocess
import sys
import textwrap
import threading
from typing import Any

import numpy as np
import pytest

from tests.core.kernel_cases import Case, always, random_case, train
from w2v_core import reference
from w2v_core.contract import MOST_LANE_TARGETS, FloatRows, Kernels, Slice, SliceResult, Workroom
from w2v_core.kernels import load_kernels
from w2v_core.kernels.checks import lane_seeds

BACKENDS = ["numpy", "numba"]
BLOCK = reference.BLOCK


@pytest.fixture(params=BACKENDS)
def kernels(request: pytest.FixtureRequest) -> Kernels:
    return load_kernels(request.param)


def lanes_of(case: Case, cuts: list[int]) -> list[Slice]:
    """The stretches of the case's stream between the cuts, one for each lane."""
    return [dataclasses.replace(case.targets, start=start, stop=stop) for start, stop in itertools.pairwise(cuts)]


def train_lanes(
    kernels: Kernels, case: Case, lanes: list[Slice], threads: int = 1
) -> tuple[FloatRows, FloatRows, list[SliceResult]]:
    w_in_VD, w_out_VD = case.w_in_VD.copy("K"), case.w_out_VD.copy("K")
    with contextlib.closing(Workroom()) as room:
        results = kernels.train_lanes(w_in_VD, w_out_VD, lanes, case.noise, case.update, threads, room)
    return w_in_VD, w_out_VD, results


def assert_as_defined(kernels: Kernels, case: Case, lanes: list[Slice], tolerance: float = 1e-5, threads: int = 1) -> None:
    w_in_VD, w_out_VD, results = train_lanes(kernels, case, lanes, threads)
    expected_in, expected_out = case.w_in_VD.astype(np.float64), case.w_out_VD.astype(np.float64)
    expected = reference.train_lanes(expected_in, expected_out, lanes, case.noise, case.update)
    np.testing.assert_allclose(w_in_VD, expected_in, rtol=0, atol=tolerance)
    np.testing.assert_allclose(w_out_VD, expected_out, rtol=0, atol=tolerance)
    assert [result.examples for result in results] == [examples for _, examples in expected]
    np.testing.assert_allclose([result.loss_sum for result in results], [loss for loss, _ in expected], rtol=1e-6, atol=1e-9)


SHAPES: dict[str, tuple[dict[str, Any], list[int]]] = {
    "most rows are shared": ({"rows": 700}, [0, 230, 470, 700]),
    "few rows are shared": ({"rows": 700, "vocab_size": 3000}, [0, 230, 470, 700]),
    "one lane": ({"rows": 300}, [10, 290]),
    "lanes of unequal length": ({"rows": 900, "vocab_size": 300}, [5, 140, 700, 701, 720, 900]),
    "an empty lane": ({"rows": 300, "vocab_size": 100}, [0, 100, 100, 300]),
    "no targets at all": ({"rows": 30}, [10, 10, 10]),
    "two words": ({"rows": 120, "vocab_size": 2, "scale": 0.2}, [0, 60, 120]),
    "wide windows": ({"rows": 600, "window": 90, "vocab_size": 500, "scale": 0.2}, [0, 150, 300, 600]),
    "many lanes": ({"rows": 1200, "vocab_size": 800, "vector_size": 16}, list(range(0, 1201, 60))),
}


@pytest.mark.parametrize("gradient", ["word2vec", "exact"])
@pytest.mark.parametrize("shape", SHAPES)
def test_lanes_equal_the_definition(kernels: Kernels, shape: str, gradient: str) -> None:
    given, cuts = SHAPES[shape]
    case = random_case(3, gradient=gradient, **given)
    assert_as_defined(kernels, case, lanes_of(case, cuts), tolerance=3e-5)


@pytest.mark.parametrize(("vector_size", "negative"), [(1, 1), (25, 2), (100, 5), (104, 7), (304, 10)])
def test_any_vector_size_and_noise_equal_the_definition(kernels: Kernels, vector_size: int, negative: int) -> None:
    case = random_case(5, rows=400, vocab_size=300, vector_size=vector_size, negative=negative, scale=0.3)
    assert_as_defined(kernels, case, lanes_of(case, [0, 140, 270, 400]), tolerance=3e-5)


def test_seeded_random_lanes_equal_the_definition() -> None:
    kernels, generator = load_kernels("numba"), np.random.default_rng(11)
    for seed in range(15):
        rows, lanes = int(generator.integers(20, 900)), int(generator.integers(1, 9))
        case = random_case(
            seed, rows=rows, vocab_size=int(generator.integers(2, 900)), window=int(generator.integers(1, 12)),
            vector_size=int(generator.integers(4, 40)), negative=int(generator.integers(1, 8)), scale=0.3,
        )  # fmt: skip
        cuts = [0, *sorted(generator.integers(0, rows, lanes - 1).tolist()), rows]
        assert_as_defined(kernels, case, lanes_of(case, cuts), tolerance=3e-5, threads=int(generator.integers(1, 4)))


def test_the_number_of_threads_changes_no_bit() -> None:
    kernels = load_kernels("numba")
    case = random_case(1, rows=6000, vocab_size=700, vector_size=24)
    lanes = lanes_of(case, [0, 700, 1500, 1501, 2600, 4000, 5000, 6000])
    w_in_VD, w_out_VD, results = train_lanes(kernels, case, lanes)
    for threads in (2, 3, 7, 50):
        found_in, found_out, found = train_lanes(kernels, case, lanes, threads)
        assert found_in.tobytes() == w_in_VD.tobytes()
        assert found_out.tobytes() == w_out_VD.tobytes()
        assert found == results


def test_calls_that_share_a_room_give_the_bits_of_calls_that_do_not(kernels: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    if kernels.name == "numba":
        from w2v_core.kernels.cpu import copies_kernels

        monkeypatch.setattr(copies_kernels, "MOST_WAVES", 7)  # marks are cleared in some of the calls
    before, room = threading.active_count(), Workroom()
    for seed, threads in enumerate([1, 1, 3, 3, 3, 3, 2, 1]):
        case = random_case(seed, rows=900, vocab_size=60 + seed // 6, window=3 + seed // 5, vector_size=24)
        lanes = lanes_of(case, [0, 200, 390, 700, 900])
        expected_in, expected_out, expected = train_lanes(kernels, case, lanes)
        results = kernels.train_lanes(case.w_in_VD, case.w_out_VD, lanes, case.noise, case.update, threads, room)
        assert (case.w_in_VD.tobytes(), case.w_out_VD.tobytes(), results) == (
            expected_in.tobytes(), expected_out.tobytes(), expected,
        )  # fmt: skip
    room.close()
    assert threading.active_count() == before


def test_one_lane_is_a_slice_with_the_seed_of_lane_0(kernels: Kernels) -> None:
    case = random_case(2, rows=500)
    w_in_VD, w_out_VD, (result,) = train_lanes(kernels, case, [case.targets])
    alone_in, alone_out, alone = train(kernels, case.but(seed=lane_seeds(case.update.seed, 1)[0]))
    assert (w_in_VD.tobytes(), w_out_VD.tobytes(), result) == (alone_in.tobytes(), alone_out.tobytes(), alone)


def test_lanes_may_have_streams_of_their_own(kernels: Kernels) -> None:
    case = random_case(4, rows=600, vocab_size=200)
    lanes = lanes_of(case, [0, 250, 600])
    apart = []
    for lane in lanes:
        low, high = max(0, lane.start - 5), min(600, lane.stop + 5)
        columns = (column[low:high].copy() for column in (lane.tokens_N, lane.left_N, lane.right_N))
        apart.append(Slice(*columns, lane.start - low, lane.stop - low))
    assert train_lanes(kernels, case, lanes)[0].tobytes() == train_lanes(kernels, case, apart)[0].tobytes()


def test_a_parameter_that_is_not_finite_shows_in_a_lanes_loss(kernels: Kernels) -> None:
    case = random_case(1, rows=400, vocab_size=5, vector_size=8)
    case.w_in_VD[2, :4] = np.nan
    assert not all(np.isfinite(result.loss_sum) for result in train_lanes(kernels, case, lanes_of(case, [0, 200, 400]))[2])


def test_arguments_that_break_the_contract_are_refused_and_no_thread_is_left(kernels: Kernels) -> None:
    case = random_case(1, rows=400)
    lanes = lanes_of(case, [0, 200, 400])
    before = threading.active_count()
    bad_word = case.targets.tokens_N.copy()
    bad_word[390] = 40
    with pytest.raises(ValueError, match="position 390: expected a word id 0 … 39, found 40"):
        train_lanes(kernels, case, [lanes[0], dataclasses.replace(lanes[1], tokens_N=bad_word)], 2)
    with pytest.raises(ValueError, match=r"noise.table_T: .* drew 99"):
        train_lanes(kernels, case.but(table_T=always([99] * 40)), lanes, 2)
    with pytest.raises(ValueError, match="expected model cbow, found 'skipgram'"):
        train_lanes(kernels, case.but(model="skipgram"), lanes)
    with pytest.raises(ValueError, match="at least one lane and one thread, found 0 lanes"):
        train_lanes(kernels, case, [])
    columns = (np.zeros(MOST_LANE_TARGETS + 1, dtype) for dtype in (np.int32, np.uint8, np.uint8))
    with pytest.raises(ValueError, match="train them in several calls"):
        train_lanes(kernels, case, [Slice(*columns, 0, MOST_LANE_TARGETS + 1)])
    assert threading.active_count() == before


def test_if_threads_cannot_be_started_training_fails_and_none_goes_on() -> None:
    """In a process whose memory has room for the stack of one more thread, not of two: like a container's limit on threads."""
    case = random_case(1, rows=900)
    train_lanes(load_kernels("numba"), case, lanes_of(case, [0, 200, 400, 600, 900]), 2)  # compiled here, if at all
    program = """
        import resource, threading
        from pathlib import Path
        from tests.core.kernel_cases import random_case
        from tests.core.test_lanes import lanes_of, train_lanes
        from w2v_core.kernels import load_kernels

        case, kernels = random_case(1, rows=900), load_kernels("numba")
        lanes = lanes_of(case, [0, 200, 400, 600, 900])
        expected = train_lanes(kernels, case, lanes, 2)[0].tobytes()
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        threading.stack_size(256 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (used + (640 << 20), resource.RLIM_INFINITY))
        try:
            train_lanes(kernels, case, lanes, 4)
        except RuntimeError as error:
            print(error)
        print(threading.active_count())
        threading.stack_size(0)
        print(train_lanes(kernels, case, lanes, 4)[0].tobytes() == expected)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines() == ["can't start new thread", "1", "True"]


def test_a_thread_that_fails_ends_the_waiting_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    from w2v_core.kernels.cpu import copies_kernels

    run_thread = copies_kernels.run_thread

    def fail_in_thread_1(thread: int, *arguments: Any) -> None:
        if thread == 1:
            raise MemoryError("no room")
        run_thread(thread, *arguments)

    monkeypatch.setattr(copies_kernels, "run_thread", fail_in_thread_1)
    case = random_case(1, rows=900)
    with pytest.raises(MemoryError, match="no room"):
        train_lanes(load_kernels("numba"), case, lanes_of(case, [0, 300, 600, 900]), 3)
