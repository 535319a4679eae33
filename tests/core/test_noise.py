"""Counter-based draws and the noise table: exact formulas, right frequencies, independent streams."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2v_core.sampler import mix64, noise_distribution, noise_table, random_bits, stream_seed


def test_draws_are_splitmix64() -> None:
    # First outputs of Vigna's splitmix64.c for the seed 1234567.
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    assert [random_bits(1234567, counter) for counter in range(5)] == expected


@given(seed=st.integers(-(2**70), 2**70), counter=st.integers(0, 2**64 - 1))
@settings(derandomize=True, max_examples=50, deadline=None)
def test_array_draws_equal_single_draws(seed: int, counter: int) -> None:
    assert int(mix64(seed, np.array([counter], np.uint64))[0]) == random_bits(seed, counter)


def test_stream_seeds_differ_by_seed_value_order_and_length_of_path() -> None:
    paths = [(), (0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (-1,), (2**40,)]
    seeds = {stream_seed(seed, *path) for seed in (0, 1, 2) for path in paths}
    assert len(seeds) == 3 * len(paths)
    assert all(0 <= seed < 2**64 for seed in seeds)
    assert stream_seed(7, 1, 2, 3) == stream_seed(7, 1, 2, 3)


def test_streams_of_different_seeds_share_no_more_draws_than_chance_gives() -> None:
    table = np.arange(1 << 16)
    words = [table[mix64(stream_seed(1, lane), np.arange(65536, dtype=np.uint64)) >> np.uint64(48)] for lane in range(4)]
    for a in range(4):
        for b in range(a):
            # 65,536 positions, each equal with chance 2**-16: Poisson with mean 1, above 12 once in 10**10.
            assert np.count_nonzero(words[a] == words[b]) <= 12


def _zipf_counts(words: int) -> np.ndarray:
    return np.maximum((1e7 / np.arange(1, words + 1)).astype(np.int64), 5)


def test_distribution_is_counts_to_the_exponent() -> None:
    np.testing.assert_allclose(noise_distribution(np.array([16, 1, 0]), 0.75), [8 / 9, 1 / 9, 0.0])
    np.testing.assert_allclose(noise_distribution(np.array([16, 1, 0]), 0.0), [0.5, 0.5, 0.0])


@pytest.mark.parametrize("words", [2, 3, 1000, 67_873])
def test_table_frequencies_keep_the_stated_bounds(words: int) -> None:
    counts = _zipf_counts(words)
    table = noise_table(counts, 0.75)
    exact = noise_distribution(counts, 0.75)
    slots = np.bincount(table, minlength=words)
    assert table.dtype == np.int32
    assert len(table) & (len(table) - 1) == 0
    assert len(table) >= 16 * words
    assert slots.min() >= 1
    assert np.abs(slots / len(table) - exact).max() <= 1 / len(table)
    assert 0.5 * np.abs(slots / len(table) - exact).sum() <= words / (4 * len(table))


def test_every_counted_word_keeps_a_slot_even_in_the_smallest_table() -> None:
    counts = np.array([10**12, 10**9, 0, *[1] * 29])
    table = noise_table(counts, 1.0, size=32)
    slots = np.bincount(table, minlength=len(counts))
    assert slots[2] == 0
    assert (np.delete(slots, 2) >= 1).all()
    assert slots.sum() == 32


@given(counts=st.lists(st.integers(0, 10**9), min_size=1, max_size=40).filter(any), exponent=st.floats(-1.0, 2.0))
@settings(derandomize=True, max_examples=60, deadline=None)
def test_table_of_any_counts_has_all_counted_words_and_no_other(counts: list[int], exponent: float) -> None:
    table = noise_table(np.array(counts), exponent, size=64)
    assert len(table) == 64
    assert set(table.tolist()) == {word for word, count in enumerate(counts) if count}


def test_draws_from_the_table_follow_the_distribution_by_chi_square() -> None:
    counts = _zipf_counts(500)
    exact = noise_distribution(counts, 0.75)
    table = noise_table(counts, 0.75)
    shift = np.uint64(64 - (len(table).bit_length() - 1))
    draws = 400_000
    observed = np.bincount(table[mix64(99, np.arange(draws, dtype=np.uint64)) >> shift], minlength=500)
    chi_square = float(((observed - draws * exact) ** 2 / (draws * exact)).sum())
    # 499 degrees of freedom: mean 499, deviation 31.6; both tails at four deviations.
    assert 499 - 4 * 31.6 < chi_square < 499 + 4 * 31.6


@pytest.mark.parametrize("counts", [[], [0, 0], [3, -1]])
def test_counts_that_give_no_distribution_are_refused(counts: list[int]) -> None:
    with pytest.raises(ValueError, match="expected one count >= 0 for each word with at least one above 0, found shape"):
        noise_distribution(np.array(counts, np.int64), 0.75)


@pytest.mark.parametrize("size", [48, 1, 4, 1 << 32])
def test_table_sizes_that_cannot_work_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"at least one for each of 5 words and at most 2\\*\\*31, found size {size}"):
        noise_table(np.arange(1, 6), 0.75, size=size)
