"""The stream of an epoch: every kept token once, windows inside sentences, draws that depend on seed and epoch alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2v_core.kernels.cpu import window_kernels
from w2v_core.windows import Stream, draw_stream, keep_probability, keep_thresholds

KEEP_ALL = np.full(50, 2**32 - 1, np.uint32)
IDENTITY = np.arange(50, dtype=np.int32)


def ends_of(lengths: list[int]) -> np.ndarray:
    return np.cumsum(lengths, dtype=np.int64)


def compiled(ids: np.ndarray, ends: np.ndarray, mapping: np.ndarray, thresholds: np.ndarray, *rest: int) -> Stream:
    """What `draw_stream` defines, by the compiled kernel."""
    return window_kernels.draw_stream(ids, ends, window_kernels.word_draws(mapping, thresholds), *rest)


def assert_equal(left: Stream, right: Stream) -> None:
    np.testing.assert_array_equal(left.tokens_N, right.tokens_N)
    np.testing.assert_array_equal(left.left_N, right.left_N)
    np.testing.assert_array_equal(left.right_N, right.right_N)


def test_fixed_windows_reach_to_the_sentence_ends_and_no_further() -> None:
    stream = draw_stream(np.array([1, 2, 3, 4, 5, 6, 7], np.int32), ends_of([4, 0, 3]), IDENTITY, KEEP_ALL, 2, False, 9, 0)
    assert stream.tokens_N.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert stream.left_N.tolist() == [0, 1, 2, 2, 0, 1, 2]
    assert stream.right_N.tolist() == [2, 2, 1, 0, 2, 1, 0]


def test_words_outside_the_vocabulary_are_removed_before_windows_are_laid_out() -> None:
    mapping = np.array([0, -1, 1, 2], np.int32)
    stream = draw_stream(np.array([0, 1, 2, 1, 3], np.int32), ends_of([5]), mapping, KEEP_ALL, 1, False, 9, 0)
    assert stream.tokens_N.tolist() == [0, 1, 2]
    assert stream.left_N.tolist() == [0, 1, 1]
    assert stream.right_N.tolist() == [1, 1, 0]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    lengths=st.lists(st.integers(0, 12), max_size=12),
    window=st.sampled_from([1, 2, 5, 255]),
    shrink=st.booleans(),
    seed=st.integers(0, 2**64 - 1),
    epoch=st.integers(0, 2**40),
    first=st.integers(0, 2**40),
    share=st.floats(0, 1),
)
def test_the_compiled_stream_equals_its_definition(
    lengths: list[int], window: int, shrink: bool, seed: int, epoch: int, first: int, share: float
) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 50, sum(lengths)).astype(np.int32)
    mapping = np.where(rng.random(50) < 0.2, -1, IDENTITY).astype(np.int32)
    thresholds = keep_thresholds(np.full(50, share))
    arguments = (ids, ends_of(lengths), mapping, thresholds, window, shrink, seed, epoch, first)
    assert_equal(compiled(*arguments), draw_stream(*arguments))


@given(
    lengths=st.lists(st.integers(0, 30), min_size=1, max_size=12), cut=st.floats(0, 1), epoch=st.integers(0, 9),
    seed=st.integers(0, 2**64 - 1),
)  # fmt: skip
@settings(max_examples=100, deadline=None, derandomize=True)
def test_a_part_drawn_in_two_pieces_is_the_part_drawn_at_once(lengths: list[int], cut: float, epoch: int, seed: int) -> None:
    ids = np.random.default_rng(seed).integers(0, 50, sum(lengths)).astype(np.int32)
    half, ends = keep_thresholds(np.full(50, 0.6)), ends_of(lengths)
    sentences = round(cut * len(lengths))
    first = sum(lengths[:sentences])
    whole = compiled(ids, ends, IDENTITY, half, 4, True, seed, epoch)
    pieces = [
        compiled(ids[:first], ends[:sentences], IDENTITY, half, 4, True, seed, epoch),
        compiled(ids[first:], ends[sentences:] - first, IDENTITY, half, 4, True, seed, epoch, first),
    ]
    columns = [(piece.tokens_N, piece.left_N, piece.right_N) for piece in pieces]
    assert_equal(Stream(*(np.concatenate(column) for column in zip(*columns, strict=True))), whole)


@given(
    lengths=st.lists(st.integers(0, 30), max_size=12), steps=st.lists(st.integers(1, 40), min_size=1, max_size=20),
    window=st.sampled_from([1, 4, 255]), seed=st.integers(0, 2**64 - 1),
)  # fmt: skip
@settings(max_examples=200, deadline=None, derandomize=True)
def test_a_stream_drawn_step_by_step_is_the_stream_drawn_at_once(
    lengths: list[int], steps: list[int], window: int, seed: int
) -> None:
    ids = np.random.default_rng(seed).integers(0, 50, sum(lengths)).astype(np.int32)
    words = window_kernels.word_draws(IDENTITY, keep_thresholds(np.full(50, 0.6)))
    drawing = window_kernels.Drawing(ids, ends_of(lengths), words, window, True, seed, 3)
    left = sum(lengths)
    for tokens in [*steps, sum(lengths)]:
        left = max(0, left - tokens)
        assert drawing.advance(tokens) == (left > 0)
    assert_equal(drawing.stream, window_kernels.draw_stream(ids, ends_of(lengths), words, window, True, seed, 3))


@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_window_widths_of_every_epoch_are_uniform(epoch: int) -> None:
    from scipy import stats  # takes a second, in every process of pytest

    size = 60_000
    stream = compiled(np.zeros(size, np.int32), ends_of([size]), IDENTITY, KEEP_ALL, 5, True, 3, epoch)
    widths = np.bincount(stream.left_N[10:-10], minlength=6)[1:]
    assert stats.chisquare(widths).pvalue > 1e-3


@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_subsampling_of_every_epoch_keeps_each_word_with_its_probability(epoch: int) -> None:
    size = 200_000
    probability = np.array([0.01, 0.5, 1.0])
    ids = np.repeat(np.arange(3, dtype=np.int32), size)
    thresholds = keep_thresholds(probability)
    stream = compiled(ids, ends_of([3 * size]), IDENTITY, thresholds, 5, True, 11, epoch)
    kept = np.bincount(stream.tokens_N, minlength=3)
    spread = np.sqrt(size * probability * (1 - probability))
    np.testing.assert_array_less(np.abs(kept - size * probability), 4 * spread + 1e-9)
    assert kept[2] == size


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.8])
def test_over_the_epochs_an_occurrence_is_kept_about_as_often_as_its_probability_says(probability: float) -> None:
    size, epochs = 5_000, 10
    thresholds = keep_thresholds(np.full(size, probability))
    ids = np.arange(size, dtype=np.int32)
    streams = [draw_stream(ids, ends_of([size]), ids, thresholds, 5, True, 3, epoch) for epoch in range(epochs)]
    kept = np.bincount(np.concatenate([stream.tokens_N for stream in streams]), minlength=size)
    assert np.abs(kept - epochs * probability).max() < 2
    assert kept.var() < 0.4 * epochs * probability * (1 - probability), "no more even than independent draws"


def test_over_the_epochs_an_occurrence_is_seen_with_wide_and_with_narrow_windows() -> None:
    size, epochs, window = 5_000, 5, 5
    ids = np.zeros(size, np.int32)
    streams = [draw_stream(ids, ends_of([size]), IDENTITY, KEEP_ALL, window, True, 3, epoch) for epoch in range(epochs)]
    mean_width = np.mean([stream.left_N[window:] for stream in streams], axis=0)
    independent = (window**2 - 1) / 12 / epochs
    assert mean_width.var() < 0.4 * independent


def test_other_seeds_draw_other_streams() -> None:
    ids = np.zeros(1000, np.int32)
    half = keep_thresholds(np.full(50, 0.5))
    first, second = (compiled(ids, ends_of([1000]), IDENTITY, half, 5, True, seed, 0) for seed in (1, 2))
    assert len(first) != len(second) or (first.left_N != second.left_N).any()


def test_keep_probability_is_that_of_word2vec_c() -> None:
    counts = np.array([10_000, 100, 1], np.int64)
    share = counts / counts.sum()
    expected = np.minimum(1, (np.sqrt(share / 1e-3) + 1) * 1e-3 / share)
    np.testing.assert_allclose(keep_probability(counts, 1e-3), expected)
    assert keep_probability(counts, 0).tolist() == [1, 1, 1]


@pytest.mark.parametrize("probability", [0.0, 2**-32, 0.25, 1.0])
def test_thresholds_are_exact_to_one_part_in_2_to_the_32(probability: float) -> None:
    threshold = int(keep_thresholds(np.array([probability]))[0])
    assert abs((threshold + 1) / 2**32 - probability) <= 2**-32
