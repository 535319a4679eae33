"""Several copies of the parameters, trained and merged in one call: the bits of a call for each step."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import threading
from collections.abc import Callable

import numpy as np
import pytest

from tests.core.kernel_cases import Case, random_case
from w2v_core.contract import (
    MOST_LANE_TARGETS,
    MOST_STRETCHES,
    FloatRows,
    LocalTraining,
    Merge,
    Slice,
    SliceResult,
    TrainCopies,
    Update,
    Workroom,
)
from w2v_core.kernels import load_kernels

kernels = load_kernels("numba")
Pair = tuple[FloatRows, FloatRows]
STRETCHES = 6
ROWS = [7, 0, 200, 1, 0, 200]
"""Rows merged after each stretch."""


@pytest.fixture
def train_copies() -> TrainCopies:
    assert kernels.train_copies
    return kernels.train_copies


def two_thousand_rows() -> Case:
    return random_case(5, rows=2000, vocab_size=200, vector_size=24)


def copies_of(case: Case, lanes: list[int]) -> tuple[Pair, list[LocalTraining]]:
    """The bases, and copies with so many lanes each, which share the case's targets unequally."""
    ends = np.linspace(0, 1, sum(lanes) + 1) ** 1.3 * len(case.targets.tokens_N)
    slices = [dataclasses.replace(case.targets, start=start, stop=stop) for start, stop in itertools.pairwise(ends.astype(int))]
    copies = []
    for number, first in enumerate(itertools.accumulate(lanes[:-1], initial=0)):
        own = slices[first : first + lanes[number]]
        bounds = [np.linspace(lane.start, lane.stop, STRETCHES + 1).astype(np.int64) for lane in own]
        updates = [
            dataclasses.replace(case.update, alphas=(0.05 - s / 200, 0.045 - s / 200), seed=10 * s + number)
            for s in range(STRETCHES)
        ]
        pair = case.w_in_VD.copy("K"), case.w_out_VD.copy("K")
        copies.append(LocalTraining(*pair, own, np.stack(bounds, axis=1), updates))
    return (case.w_in_VD.copy("K"), case.w_out_VD.copy("K")), copies


def call_by_call(case: Case, lanes: list[int], method: Merge) -> tuple[list[bytes], list[list[list[SliceResult]]]]:
    bases, copies = copies_of(case, lanes)
    results: list[list[list[SliceResult]]] = []
    for stretch, rows in enumerate(ROWS):
        results.append([])
        for copy in copies:
            bounds = copy.bounds_SL[stretch : stretch + 2].T.tolist()
            own = [dataclasses.replace(lane, start=a, stop=b) for lane, (a, b) in zip(copy.lanes, bounds, strict=True)]
            pair, update = (copy.w_in_VD, copy.w_out_VD), copy.updates[stretch]
            if len(own) == 1:
                results[-1].append([kernels.train_slice(*pair, own[0], case.noise, update)])
            else:
                with contextlib.closing(Workroom()) as room:
                    results[-1].append(kernels.train_lanes(*pair, own, case.noise, update, 1, room))
        if rows:
            kernels.merge_rows(bases[0][:rows], [copy.w_in_VD[:rows] for copy in copies], method)
            kernels.merge_rows(bases[1][:rows], [copy.w_out_VD[:rows] for copy in copies], method)
    return bits_of(bases, copies), results


def bits_of(bases: Pair, copies: list[LocalTraining]) -> list[bytes]:
    return [matrix.tobytes() for matrix in (*bases, *(matrix for copy in copies for matrix in (copy.w_in_VD, copy.w_out_VD)))]


@pytest.mark.parametrize("method", ["adasum", "mean"])
@pytest.mark.parametrize("lanes", [[1, 1], [4, 4], [2, 1, 3], [5]], ids=str)
def test_one_call_gives_the_bits_of_a_call_for_each_step_on_any_number_of_threads(
    train_copies: TrainCopies, lanes: list[int], method: Merge
) -> None:
    case = two_thousand_rows()
    expected = call_by_call(case, lanes, method)
    for threads in (1, 2, 3, 6, 9):
        bases, copies = copies_of(case, lanes)
        with contextlib.closing(Workroom()) as room:
            results, merging_s = train_copies(bases, copies, ROWS, case.noise, method, threads, room)
        assert (bits_of(bases, copies), results) == expected
        assert merging_s > 0


def test_calls_that_share_a_room_go_on_where_the_last_one_ended(
    train_copies: TrainCopies, monkeypatch: pytest.MonkeyPatch
) -> None:
    from w2v_core.kernels.cpu import copies_kernels

    monkeypatch.setattr(copies_kernels, "MOST_WAVES", 9)  # marks are cleared in some of the calls
    case, before = two_thousand_rows(), threading.active_count()
    expected = call_by_call(case, [3, 4], "adasum")[0]
    bases, copies = copies_of(case, [3, 4])
    with contextlib.closing(Workroom()) as room:
        for first, last, threads in ((0, 2, 2), (2, 3, 5), (3, 6, 1)):
            some = [
                dataclasses.replace(copy, bounds_SL=copy.bounds_SL[first : last + 1], updates=copy.updates[first:last])
                for copy in copies
            ]
            train_copies(bases, some, ROWS[first:last], case.noise, "adasum", threads, room)
    assert bits_of(bases, copies) == expected
    assert threading.active_count() == before


Break = Callable[[LocalTraining], LocalTraining]


def with_bad_word(copy: LocalTraining) -> LocalTraining:
    tokens_N = copy.lanes[1].tokens_N.copy()
    tokens_N[copy.lanes[1].stop - 3] = 200
    return dataclasses.replace(copy, lanes=[copy.lanes[0], dataclasses.replace(copy.lanes[1], tokens_N=tokens_N)])


def with_long_window(copy: LocalTraining) -> LocalTraining:
    right_N = copy.lanes[1].right_N.copy()
    right_N[copy.lanes[1].stop - 2] = 255
    return dataclasses.replace(copy, lanes=[copy.lanes[0], dataclasses.replace(copy.lanes[1], right_N=right_N)])


def with_updates(copy: LocalTraining, update: Update) -> LocalTraining:
    return dataclasses.replace(copy, updates=[update] * STRETCHES)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (with_bad_word, "expected a word id 0 … 199, found 200"),
        (with_long_window, "its context of . rows before and 255 after leaves the stream of 2000 rows"),
        (lambda copy: dataclasses.replace(copy, bounds_SL=copy.bounds_SL[::-1]), "copy 1, lane 0: expected ascending bounds"),
        (lambda copy: dataclasses.replace(copy, bounds_SL=copy.bounds_SL[1:]), r"copy 1: expected 6 updates and bounds \(7, 2\)"),
        (lambda copy: dataclasses.replace(copy, bounds_SL=copy.bounds_SL + 1), "copy 1, lane 0: expected ascending bounds"),
        (
            lambda copy: with_updates(copy, dataclasses.replace(copy.updates[0], negative=9)),
            "copy 1: expected updates that differ in alphas and seed only",
        ),
        (
            lambda copy: with_updates(copy, dataclasses.replace(copy.updates[0], alphas=(0, np.nan))),
            "expected finite learning rates",
        ),
    ],
)
def test_what_breaks_the_contract_is_refused_before_anything_is_trained(
    train_copies: TrainCopies, broken: Break, message: str
) -> None:
    case = two_thousand_rows()
    bases, copies = copies_of(case, [2, 2])
    before = bits_of(bases, copies)
    with contextlib.closing(Workroom()) as room, pytest.raises(ValueError, match=message):
        train_copies(bases, [copies[0], broken(copies[1])], ROWS, case.noise, "adasum", 3, room)
    assert bits_of(bases, copies) == before


def test_lanes_that_take_turns_for_more_waves_than_can_be_numbered_are_refused(train_copies: TrainCopies) -> None:
    """Three lanes, of which each trains the most targets that a lane may, in a stretch of its own."""
    case = two_thousand_rows()
    tokens_N, spans_N = np.zeros(MOST_LANE_TARGETS, np.int32), np.zeros(MOST_LANE_TARGETS, np.uint8)
    lanes = [Slice(tokens_N, spans_N, spans_N, 0, MOST_LANE_TARGETS)] * 3
    bounds_SL = MOST_LANE_TARGETS * np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]], np.int64)
    copy = LocalTraining(case.w_in_VD, case.w_out_VD, lanes, bounds_SL, [case.update] * 3)
    with (
        contextlib.closing(Workroom()) as room,
        pytest.raises(ValueError, match="at most 65,535 waves in all stretches, found 98,304"),
    ):
        train_copies((case.w_in_VD, case.w_out_VD), [copy], [0, 0, 0], case.noise, "adasum", 2, room)


def test_too_many_rows_and_too_many_stretches_are_refused(train_copies: TrainCopies) -> None:
    case = two_thousand_rows()
    bases, copies = copies_of(case, [1, 1])
    with contextlib.closing(Workroom()) as room, pytest.raises(ValueError, match="expected 0 … 200 merged rows, found"):
        train_copies(bases, copies, [0, 0, 0, 0, 0, 201], case.noise, "adasum", 2, room)
    with contextlib.closing(Workroom()) as room, pytest.raises(ValueError, match="at most 16,384 stretches, found 16,385"):
        train_copies(bases, copies, [0] * (MOST_STRETCHES + 1), case.noise, "adasum", 2, room)
