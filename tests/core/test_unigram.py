from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.device_arrays import device_module
from w2v_core.textbook.unigram import UnigramSampler, noise_masses


def sampler(counts: object, power: float = 0.75, sample_size: int = 5, seed: int = 0) -> UnigramSampler:
    return UnigramSampler(counts, power, sample_size, generator=np.random.default_rng(seed))


def test_probabilities_of_the_textbook_example() -> None:
    found = sampler([0.7, 0.29, 0.01]).probabilities
    np.testing.assert_allclose(found, [0.64196878, 0.33150408, 0.02652714], rtol=0, atol=5e-9)


def test_masses_follow_the_power_law_to_the_last_of_52_bits() -> None:
    counts = np.arange(1, 1001)
    share = counts**0.75 / (counts**0.75).sum()
    np.testing.assert_allclose(noise_masses(counts) / 2.0**52, share, rtol=0, atol=2.0**-52)


@pytest.mark.parametrize("target", range(6))
def test_draws_follow_the_exact_conditional_distribution(target: int) -> None:
    counts = np.array([50, 20, 20, 5, 1, 300])
    drawn = sampler(counts, sample_size=20, seed=target).get_negative_sample(np.full(10_000, target))
    expected = counts**0.75
    expected[target] = 0
    expected *= drawn.size / expected.sum()
    others = np.arange(6) != target
    observed = np.bincount(drawn.reshape(-1), minlength=6)
    assert observed[target] == 0
    chi_square = ((observed - expected)[others] ** 2 / expected[others]).sum()
    assert chi_square < 18.47, "4 degrees of freedom: a right sampler exceeds this once in 1,000 seeds"


@given(
    st.lists(st.integers(0, 10**12), min_size=2, max_size=30).filter(lambda counts: sum(c > 0 for c in counts) >= 2),
    st.floats(-1, 1.5),
    st.integers(0, 2**32),
)
@settings(max_examples=60, derandomize=True, deadline=None)
def test_neither_the_target_nor_a_word_of_count_zero_is_ever_drawn(counts: list[int], power: float, seed: int) -> None:
    targets = np.repeat(np.arange(len(counts)), 50)
    drawn = sampler(counts, power, 4, seed).get_negative_sample(targets)
    assert drawn.shape == (len(targets), 4)
    assert drawn.dtype == np.int32
    assert not (drawn == targets[:, None]).any()
    assert (np.asarray(counts)[drawn] > 0).all()


def test_two_words_always_answer_each_other_even_if_one_has_nearly_all_the_mass() -> None:
    drawn = sampler([10**18, 1], power=1.0).get_negative_sample(np.array([0, 1] * 500))
    np.testing.assert_array_equal(drawn, np.tile([[1] * 5, [0] * 5], (500, 1)))


def test_draws_are_with_replacement() -> None:
    drawn = sampler([1, 1, 1], sample_size=2, seed=3).get_negative_sample(np.zeros(20_000, int))
    repeated = np.mean(drawn[:, 0] == drawn[:, 1])
    assert abs(repeated - 0.5) < 0.02, "of two independent draws from two equal words half agree"


def test_targets_of_any_shape_get_a_row_each() -> None:
    assert sampler([3, 2, 1]).get_negative_sample(np.zeros((4, 2, 3), int)).shape == (4, 2, 3, 5)


def test_the_same_seed_draws_the_same_words_and_another_does_not() -> None:
    target = np.arange(100) % 50
    counts = np.arange(1, 51)
    first, again, other = (sampler(counts, seed=seed).get_negative_sample(target) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_the_device_draws_the_very_words_the_host_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    xp = device_module()
    monkeypatch.setitem(sys.modules, "cupy", xp)
    counts, target = np.arange(1, 40), np.arange(39)
    on_device = UnigramSampler(counts, generator=np.random.default_rng(0), xp=xp)
    drawn = on_device.get_negative_sample(xp.asarray(target))
    np.testing.assert_array_equal(drawn.get(), sampler(counts).get_negative_sample(target))
    np.testing.assert_array_equal(on_device.probabilities, sampler(counts).probabilities)


def test_a_corpus_stands_for_its_counts() -> None:
    made = UnigramSampler.from_corpus([0, 1, 2, 1, 1, 0], generator=np.random.default_rng(0))
    np.testing.assert_array_equal(made.probabilities, sampler([2, 3, 1]).probabilities)


@pytest.mark.parametrize("counts", [[5], [5, 0, 0]])
def test_fewer_than_two_words_is_an_error_not_an_endless_loop(counts: list[int]) -> None:
    with pytest.raises(ValueError, match=r"at least 2 words with a count above 0, found 1: use a larger corpus"):
        sampler(counts)


@pytest.mark.parametrize("counts", [[], [0, 0], [1, -1], [1.0, np.nan], [[1, 2]]])
def test_counts_that_are_not_counts_are_refused(counts: object) -> None:
    with pytest.raises(ValueError, match="expected one finite count >= 0 for each word id"):
        sampler(counts)


def test_a_sample_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="sample_size: expected at least 1 noise word a target, found 0"):
        sampler([1, 2], sample_size=0)
