from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2v_core.textbook.contexts import PADDING, create_contexts_target, expand_shard, matrix_batches, shard_batches

Columns = tuple[np.ndarray, np.ndarray, np.ndarray]


@st.composite
def shards(draw: st.DrawFn) -> tuple[Columns, int]:
    """A shard's columns with windows that never leave their sentence, and its window."""
    window = draw(st.integers(1, 4))
    lengths = draw(st.lists(st.integers(1, 7), min_size=1, max_size=6))
    left, right = [], []
    for length in lengths:
        for position in range(length):
            width = draw(st.integers(1, window))
            left.append(min(width, position))
            right.append(min(width, length - 1 - position))
    tokens = draw(st.lists(st.integers(0, 50), min_size=len(left), max_size=len(left)))
    return (np.array(tokens, np.int32), np.array(left, np.uint8), np.array(right, np.uint8)), window


def test_the_chapters_example() -> None:
    contexts, target = create_contexts_target([0, 1, 2, 3, 4, 1, 5, 6], window_size=1)
    assert contexts.tolist() == [[0, 2], [1, 3], [2, 4], [3, 1], [4, 5], [1, 6]]
    assert target.tolist() == [1, 2, 3, 4, 1, 5]


def test_a_window_of_two() -> None:
    contexts, target = create_contexts_target(np.arange(10, 16), window_size=2)
    assert contexts.tolist() == [[10, 11, 13, 14], [11, 12, 14, 15]]
    assert target.tolist() == [12, 13]


@given(st.lists(st.integers(0, 20), min_size=9, max_size=40), st.integers(1, 4))
@settings(max_examples=40, derandomize=True, deadline=None)
def test_a_shard_of_fixed_windows_expands_to_the_textbooks_matrices(corpus: list[int], window: int) -> None:
    position = np.arange(len(corpus))
    left, right = np.minimum(position, window), np.minimum(position[::-1], window)
    expanded = expand_shard(corpus, left, right, window, full_windows_only=True)
    for found, expected in zip(expanded, create_contexts_target(corpus, window), strict=True):
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == np.int32


@given(shards())
@settings(max_examples=60, derandomize=True, deadline=None)
def test_a_shard_expands_to_the_pairs_its_spans_name(shard: tuple[Columns, int]) -> None:
    (tokens, left, right), window = shard
    contexts, target = expand_shard(tokens, left, right, window)
    rows = [row for row in range(len(tokens)) if left[row] or right[row]]
    assert target.tolist() == [tokens[row] for row in rows]
    for found, row in zip(contexts.tolist(), rows, strict=True):
        before = tokens[row - left[row] : row].tolist()
        after = tokens[row + 1 : row + 1 + right[row]].tolist()
        padded_before = [PADDING] * (window - len(before)) + before
        assert found == padded_before + after + [PADDING] * (window - len(after))


@given(shards(), st.integers(1, 9), st.integers(0, 99))
@settings(max_examples=40, derandomize=True, deadline=None)
def test_batches_hold_every_example_once(shard: tuple[Columns, int], batch_size: int, seed: int) -> None:
    columns, window = shard
    contexts, target = expand_shard(*columns, window)
    in_order = sorted([*row, word] for row, word in zip(contexts.tolist(), target.tolist(), strict=True))
    streams = [
        shard_batches(*columns, window, batch_size, np.random.default_rng(seed)),
        matrix_batches(contexts, target, batch_size, np.random.default_rng(seed)),
    ]
    listed = [[[*row, word] for c, t in stream for row, word in zip(c.tolist(), t.tolist(), strict=True)] for stream in streams]
    assert listed[0] == listed[1], "a shard and its matrices are batched alike"
    assert sorted(listed[0]) == in_order


def test_all_batches_but_the_last_have_the_size_asked_for() -> None:
    contexts, target = create_contexts_target(np.arange(12), 1)
    sizes = [len(t) for _, t in matrix_batches(contexts, target, 4, np.random.default_rng(0))]
    assert sizes == [4, 4, 2]


def test_a_corpus_shorter_than_a_window_is_refused() -> None:
    with pytest.raises(ValueError, match=r"window_size 2 needs a corpus of at least 5 word ids .* found shape \(4,\)"):
        create_contexts_target([1, 2, 3, 4], 2)


@pytest.mark.parametrize(("left", "right", "row"), [([1, 0], [0, 0], 0), ([0, 1], [1, 1], 1), ([0, 0], [2, 0], 0)])
def test_a_span_that_leaves_the_shard_or_the_window_is_named(left: list[int], right: list[int], row: int) -> None:
    with pytest.raises(ValueError, match=f"shard row {row}: expected a span inside window 1 and inside the 2 rows"):
        expand_shard([5, 6], left, right, 1)


def test_columns_of_unequal_length_are_refused() -> None:
    with pytest.raises(ValueError, match="token, left and right: expected three columns of one length"):
        expand_shard([5, 6], [0], [0], 1)


def test_an_empty_batch_size_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size: expected at least 1, found 0"):
        list(matrix_batches(np.zeros((1, 2), np.int32), np.zeros(1, np.int32), 0, np.random.default_rng(0)))
