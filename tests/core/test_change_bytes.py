"""Changes in eight bits: each number is rounded to the nearest of 255 steps that are evenly spread over its row's range."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from w2v_core.contract import Merge
from w2v_core.kernels.cpu.change_bytes import add_changes, catch_up, merge_changes, pack_changes, packed_row_bytes
from w2v_core.kernels.numpy_kernels import merge_rows


def there_and_back(changes_RD: NDArray[np.float32]) -> NDArray[np.float32]:
    packed_RB = np.empty((len(changes_RD), packed_row_bytes(changes_RD.shape[1])), np.uint8)
    found_RD = np.zeros_like(changes_RD)
    pack_changes(packed_RB, changes_RD, found_RD)
    add_changes(found_RD, packed_RB)
    return found_RD


@settings(max_examples=50, deadline=None, derandomize=True)
@given(rows=st.integers(0, 20), floats=st.sampled_from([8, 16, 104]), exponent=st.integers(-35, 35), seed=st.integers(0, 99))
def test_a_change_is_the_nearest_of_255_steps_over_the_largest_of_its_row(
    rows: int, floats: int, exponent: int, seed: int
) -> None:
    changes = np.random.default_rng(seed).normal(0, 10.0**exponent, (rows, floats)).astype(np.float32)
    largest = np.abs(changes).max(axis=1, keepdims=True)
    step = largest / np.float32(127)
    np.testing.assert_array_equal(there_and_back(changes), np.rint(changes * (np.float32(127) / largest)) * step)
    assert (np.abs(there_and_back(changes) - changes) <= 0.5001 * step).all()


def test_what_did_not_change_and_what_changed_alike_stays() -> None:
    changes = np.zeros((3, 8), np.float32)
    changes[1], changes[2, 3] = -0.25, 7.5
    np.testing.assert_array_equal(there_and_back(changes), changes)


def test_what_is_brought_to_eight_bits_once_does_not_change_again() -> None:
    once = there_and_back(np.random.default_rng(1).normal(size=(50, 104)).astype(np.float32))
    np.testing.assert_allclose(there_and_back(once), once, rtol=1e-6)


@pytest.mark.parametrize("what", [np.nan, np.inf, -np.inf])
def test_a_row_with_something_that_is_no_number_arrives_as_no_numbers(what: float) -> None:
    changes = np.ones((3, 16), np.float32)
    changes[1, 5] = what
    found = there_and_back(changes)
    assert np.isnan(found[1]).all()
    np.testing.assert_array_equal(found[::2], 1)


def packed(rows_RD: NDArray[np.float32], base_RD: NDArray[np.float32]) -> NDArray[np.uint8]:
    packed_RB = np.empty((len(rows_RD), packed_row_bytes(rows_RD.shape[1])), np.uint8)
    pack_changes(packed_RB, rows_RD, base_RD)
    return packed_RB


@pytest.mark.parametrize("method", ["adasum", "mean"])
def test_copies_merge_to_the_merge_of_their_changes_in_eight_bits_here_and_where_the_answer_arrives(method: Merge) -> None:
    generator = np.random.default_rng(3)
    base, *copies = generator.normal(size=(4, 30, 24)).astype(np.float32)
    merged, folded = base.copy(), np.zeros_like(base)
    merge_rows(folded, [there_and_back(copy - base) for copy in copies], method)
    answer = np.empty_like(packed(base, base))
    merge_changes(merged, [packed(copy, base) for copy in copies], answer, method)
    # Where the fold is rounded otherwise a number may fall to the step beside.
    step = np.abs(folded).max(axis=1, keepdims=True) / 127
    assert (np.abs(merged - base - there_and_back(folded)) <= 1.001 * step).all()
    assert (np.abs(merged - base - folded) <= 0.51 * step).all()
    elsewhere = base.copy()
    add_changes(elsewhere, answer)
    np.testing.assert_array_equal(elsewhere, merged)


def test_rows_catch_up_by_what_the_base_has_gained_over_what_they_had_shown() -> None:
    base, shown, rows = np.random.default_rng(5).normal(size=(3, 7, 24)).astype(np.float32)
    caught_up = rows.copy()
    catch_up(caught_up, base, shown)
    np.testing.assert_array_equal(caught_up, rows + (base - shown))


def test_packed_changes_of_another_size_are_refused() -> None:
    base, wrong = np.zeros((3, 16), np.float32), np.zeros((3, 16), np.uint8)
    for call in (lambda: pack_changes(wrong, base, base), lambda: merge_changes(base, [wrong], None, "mean")):
        with pytest.raises(ValueError, match=r"^expected packed changes of shape \(3, 20\), found \(3, 16\)$"):
            call()
