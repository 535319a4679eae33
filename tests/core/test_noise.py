"""Counter-based draws and the noise table: exact formulas, correct frequencies, independent streams."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2v_core.kernels.cpu.random_numbers import random_bits as numba_random_bits
from w2v_core.kernels.numpy_kernels import draw_noise
from w2v_core.sampler import MOST_RATE, mix64, noise_distribution, noise_table, noise_word, random_bits, stream_seed, word_rates


def test_draws_are_splitmix64() -> None:
    # First outputs of Vigna's splitmix64.c for the seed 1234567.
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    assert [random_bits(1234567, counter) for counter in range(5)] == expected


@given(seed=st.integers(-(2**70), 2**70), counter=st.integers(0, 2**64 - 1))
@settings(derandomize=True, max_examples=50, deadline=None)
def test_array_draws_equal_single_draws(seed: int, counter: int) -> None:
    assert int(mix64(seed, np.array([counter], np.uint64))[0]) == random_bits(seed, counter)


@given(seed=st.integers(0, 2**64 - 1), counter=st.integers(0, 2**64 - 1))
@settings(derandomize=True, max_examples=50, deadline=None)
def test_compiled_draws_equal_single_draws(seed: int, counter: int) -> None:
    assert int(numba_random_bits(np.uint64(seed), np.uint64(counter))) == random_bits(seed, counter)


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


def test_rare_words_have_higher_rates_and_a_kept_occurrence_has_rate_one_on_average() -> None:
    counts_V = _zipf_counts(1000)
    keep_V = np.minimum(1.0, 2000 / counts_V)
    rates_V = word_rates(counts_V, keep_V, 0.3)
    assert rates_V.dtype == np.float32
    assert np.all(np.diff(rates_V) >= 0)
    np.testing.assert_allclose(rates_V[:-1] / rates_V[-1], (counts_V[:-1] / counts_V[-1]) ** -0.3, rtol=2e-3)
    assert np.average(rates_V, weights=counts_V * keep_V) == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize("exponent", [0.0, 1.0])
def test_rates_are_one_where_words_or_the_exponent_make_no_difference(exponent: float) -> None:
    counts_V = _zipf_counts(50) if exponent == 0.0 else np.full(50, 7)
    assert np.all(word_rates(counts_V, np.ones(50), exponent) == 1.0)


def test_no_word_moves_by_more_than_most_rate_allows() -> None:
    counts_V = np.array([10**9, 10**6, 1000, 5])
    rates_V = word_rates(counts_V, np.ones(4), 0.5)
    assert rates_V.tolist()[2:] == [MOST_RATE, MOST_RATE]
    assert rates_V[0] < 1 < MOST_RATE < (10**9 / 1000) ** 0.5


def test_rates_are_coarse_enough_to_be_the_same_on_every_processor() -> None:
    counts_V = _zipf_counts(67_873)
    rates_V = word_rates(counts_V, np.ones(len(counts_V)), 0.3).astype(np.float64)
    assert np.all(rates_V * 4096 == np.rint(rates_V * 4096))
    # Far from halfway between two of them compared with what the last bits of powers and sums can do.
    exact = counts_V**-0.3
    exact *= counts_V.sum() / (counts_V @ exact)
    assert np.min(np.abs(np.abs(exact * 4096 - np.rint(exact * 4096)) - 0.5)) > 1e-9


def test_rates_of_words_that_never_occur_are_refused() -> None:
    with pytest.raises(ValueError, match="expected a count >= 1 for each word, found 0"):
        word_rates(np.array([3, 0]), np.ones(2), 0.3)
    with pytest.raises(ValueError, match="found no word"):
        word_rates(np.array([], np.int64), np.ones(0), 0.3)


def _probabilities(table: np.ndarray) -> np.ndarray:
    """The probability of every word if cells are equally likely and low bits uniform; exact, in units of 2⁻³² / T."""
    thresholds, aliases = (table >> np.uint64(32)).astype(np.int64), (table & np.uint64(0xFFFFFFFF)).astype(np.int64)
    masses = thresholds.copy()
    np.add.at(masses, aliases, (1 << 32) - thresholds)
    return masses / (len(table) * 2.0**32)


@pytest.mark.parametrize("words", [1, 2, 3, 1000, 67_873])
def test_the_table_holds_the_distribution_to_the_stated_bound(words: int) -> None:
    counts = _zipf_counts(words)
    table = noise_table(counts, 0.75)
    error = _probabilities(table) - noise_distribution(counts, 0.75)
    assert table.dtype == np.uint64
    assert len(table) == words
    # All are rounded down, except the most frequent word, which takes the rest.
    assert np.abs(error[1:]).max(initial=0) <= 2.0**-32 / words + 1e-15
    assert abs(error[0]) <= 2.0**-32 + 1e-15


@given(counts=st.lists(st.integers(0, 10**9), min_size=1, max_size=40).filter(any), exponent=st.floats(-1.0, 2.0))
@settings(derandomize=True, max_examples=200, deadline=None)
def test_a_table_of_any_counts_holds_their_distribution_and_no_word_of_count_0(counts: list[int], exponent: float) -> None:
    found = _probabilities(noise_table(np.array(counts), exponent))
    np.testing.assert_allclose(found, noise_distribution(np.array(counts), exponent), rtol=0, atol=2.0**-31)
    assert not found[np.array(counts) == 0].any()


@pytest.mark.parametrize(
    "counts", [[5, 5, 5, 5], [6, 4, 2], [3, 3, 0, 0], [8, 8, 4, 0, 0], [1, 7, 0, 4], [0, 0, 0, 9], [2, 6, 6, 2, 4]]
)
def test_words_that_give_exactly_what_they_have_too_much_keep_a_whole_cell(counts: list[int]) -> None:
    found = _probabilities(noise_table(np.array(counts), 1.0))
    np.testing.assert_allclose(found, np.array(counts) / sum(counts), rtol=0, atol=2.0**-31)


def test_draws_from_the_table_follow_the_distribution_by_chi_square() -> None:
    counts = _zipf_counts(500)
    exact = noise_distribution(counts, 0.75)
    draws = 400_000
    observed = np.bincount(draw_noise(noise_table(counts, 0.75), 99, np.arange(draws), 500), minlength=500)
    chi_square = float(((observed - draws * exact) ** 2 / (draws * exact)).sum())
    # 499 degrees of freedom: mean 499, deviation 31.6; both tails at four deviations.
    assert 499 - 4 * 31.6 < chi_square < 499 + 4 * 31.6


def test_the_low_bits_choose_between_the_words_of_the_cell_that_the_high_bits_choose() -> None:
    table = np.array([7 << 32 | 2, 0 << 32 | 0, (1 << 32) - 1 << 32 | 1], np.uint64)
    third, lows = (1 << 32) // 3 + 1, (0, 6, 7, (1 << 32) - 1)
    drawn = [[noise_word(table, cell * third << 32 | low) for low in lows] for cell in range(3)]
    assert drawn == [[0, 0, 2, 2], [0, 0, 0, 0], [2, 2, 2, 1]]


@pytest.mark.parametrize("counts", [[], [0, 0], [3, -1], [1.0, np.inf]])
def test_counts_that_give_no_distribution_are_refused(counts: list[float]) -> None:
    with pytest.raises(ValueError, match="expected one finite count >= 0 for each word id, at least one above 0, found shape"):
        noise_distribution(np.array(counts), 0.75)
