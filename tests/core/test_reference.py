"""The definition itself: on every branch its updates are the gradient of its loss times the words' rates."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from w2v_core import reference
from w2v_core.contract import Gradient, ModelName, Noise, Slice, Update

V, D = 5, 3
ALPHA = 1e-3
STEP = 1e-5
RATES_V = np.array([0.5, 1.0, 2.0, 0.25, 3.0], np.float32)


Columns = tuple[NDArray[np.int32], NDArray[np.uint8], NDArray[np.uint8]]


def _stream(tokens: list[int], left: list[int], right: list[int]) -> Columns:
    return np.array(tokens, np.int32), np.array(left, np.uint8), np.array(right, np.uint8)


# One target each, so that nothing else moves between its loss and its update. Noise words are drawn from [0, 4] or [4, 4].
BRANCHES = {
    "plain": ([0, 1, 2, 3, 4], [0, 0, 2, 0, 0], [0, 0, 2, 0, 0], [0, 3]),
    "noise equals target": ([0, 1, 4, 3, 1], [0, 0, 2, 0, 0], [0, 0, 2, 0, 0], [4, 4]),
    "one noise word equals the target": ([0, 1, 4, 3, 1], [0, 0, 2, 0, 0], [0, 0, 2, 0, 0], [4, 2]),
    "repeated word in the window": ([1, 1, 2, 1, 3], [0, 0, 2, 0, 0], [0, 0, 2, 0, 0], [0, 3]),
    "target in its own context": ([2, 1, 2, 2, 3], [0, 0, 2, 0, 0], [0, 0, 2, 0, 0], [0, 3]),
    "cut at the left edge": ([0, 1, 2, 3, 4], [0, 0, 0, 0, 0], [2, 0, 0, 0, 0], [1, 3]),
    "cut at the right edge": ([0, 1, 2, 3, 4], [0, 0, 0, 0, 2], [0, 0, 0, 0, 0], [1, 3]),
    "one context word": ([0, 1, 2, 3, 4], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0], [0, 4]),
}


@pytest.mark.parametrize("model", ["cbow", "skipgram"])
@pytest.mark.parametrize("branch", BRANCHES)
def test_exact_updates_are_minus_the_rate_times_the_two_sided_finite_difference_of_the_loss(
    branch: str, model: ModelName
) -> None:
    tokens, left, right, noise = BRANCHES[branch]
    tokens_N, left_N, right_N = _stream(tokens, left, right)
    if model == "skipgram":
        # Pairs of a target are trained one after the other: keep one pair, so that the loss is one function.
        left_N, right_N = np.minimum(left_N, left_N > 0), np.minimum(right_N, (right_N > 0) & (left_N == 0))
        left_N, right_N = left_N.astype(np.uint8), right_N.astype(np.uint8)
    generator = np.random.default_rng(3)
    w_in, w_out = generator.normal(size=(V, D)), generator.normal(size=(V, D))
    table = np.array(noise, np.int32)

    def run(a: NDArray[np.float64], b: NDArray[np.float64], alpha: float) -> float:
        loss, _ = reference.train_slice(
            a, b, Slice(tokens_N, left_N, right_N, 0, len(tokens_N)), Noise(table, RATES_V),
            Update(model, "exact", 3, (alpha, alpha), 11),
        )  # fmt: skip
        return loss

    moved = (w_in.copy(), w_out.copy())
    run(*moved, ALPHA)
    for matrix in (0, 1):
        for index in np.ndindex(V, D):
            losses = []
            for sign in (1, -1):
                shifted = (w_in.copy(), w_out.copy())
                shifted[matrix][index] += sign * STEP
                losses.append(run(*shifted, 0.0))
            slope = (losses[0] - losses[1]) / (2 * STEP)
            step = moved[matrix][index] - (w_in, w_out)[matrix][index]
            assert step == pytest.approx(-ALPHA * float(RATES_V[index[0]]) * slope, abs=1e-9 * ALPHA + 1e-11), (matrix, index)


def test_word2vec_gradient_moves_each_context_row_by_n_times_the_exact_one() -> None:
    tokens_N, left_N, right_N = _stream([0, 1, 2, 3, 4], [0, 0, 2, 0, 0], [0, 0, 1, 0, 0])
    generator = np.random.default_rng(5)
    start = generator.normal(size=(2, V, D))
    changes = {}
    gradients: tuple[Gradient, Gradient] = ("word2vec", "exact")
    for gradient in gradients:
        w_in, w_out = start.copy()
        reference.train_slice(
            w_in, w_out, Slice(tokens_N, left_N, right_N, 0, 5), Noise(np.array([4, 0], np.int32), RATES_V),
            Update("cbow", gradient, 2, (0.1, 0.1), 1),
        )  # fmt: skip
        changes[gradient] = (w_in - start[0], w_out - start[1])
    np.testing.assert_allclose(changes["word2vec"][0], 3 * changes["exact"][0], atol=1e-15)
    np.testing.assert_array_equal(changes["word2vec"][1], changes["exact"][1])


@pytest.mark.parametrize("model", ["cbow", "skipgram"])
def test_targets_without_context_and_empty_slices_train_nothing(model: ModelName) -> None:
    tokens_N, left_N, right_N = _stream([0, 1, 2], [0, 0, 0], [0, 0, 0])
    matrices = np.random.default_rng(0).normal(size=(2, V, D))
    before = matrices.copy()
    for stop in (3, 0):
        loss, examples = reference.train_slice(
            matrices[0], matrices[1], Slice(tokens_N, left_N, right_N, 0, stop), Noise(np.array([0, 4], np.int32), RATES_V),
            Update(model, "exact", 2, (0.1, 0.1), 1),
        )  # fmt: skip
        assert (loss, examples) == (0.0, 0)
    np.testing.assert_array_equal(matrices, before)


def test_one_cbow_target_by_hand() -> None:
    # W_in rows 1 and 2 are the context of word 0; the only noise word is 1. D = 1, so every number can be followed.
    w_in, w_out = np.array([[9.0], [1.0], [3.0]]), np.array([[0.5], [-0.25], [7.0]])
    tokens_N, left_N, right_N = _stream([1, 0, 2], [0, 1, 0], [0, 1, 0])
    loss, examples = reference.train_slice(
            w_in, w_out, Slice(tokens_N, left_N, right_N, 0, 3), Noise(np.array([1, 1], np.int32), RATES_V[:3]),
            Update("cbow", "word2vec", 1, (0.1, 0.1), 1),
        )  # fmt: skip
    target_error = 1 / (1 + math.exp(-1.0)) - 1
    noise_error = 1 / (1 + math.exp(0.5))
    assert examples == 1
    assert loss == pytest.approx(math.log(1 + math.exp(-1.0)) + math.log(1 + math.exp(-0.5)))
    np.testing.assert_allclose(w_out[:, 0], [0.5 - 0.5 * 0.1 * target_error * 2, -0.25 - 0.1 * noise_error * 2, 7.0])
    step = 0.1 * (target_error * 0.5 + noise_error * -0.25)
    np.testing.assert_allclose(w_in[:, 0], [9.0, 1.0 - step, 3.0 - 2.0 * step])


@pytest.mark.parametrize("model", ["cbow", "skipgram"])
def test_noise_equal_to_the_target_is_skipped_in_loss_and_updates(model: ModelName) -> None:
    tokens_N, left_N, right_N = _stream([1, 2], [0, 1], [0, 0])
    w_in, w_out = np.random.default_rng(2).normal(size=(2, V, D))
    logit = float(w_in[1] @ w_out[2])
    before = w_out.copy()
    loss, _ = reference.train_slice(
            w_in, w_out, Slice(tokens_N, left_N, right_N, 0, 2), Noise(np.array([2, 2], np.int32), RATES_V),
            Update(model, "exact", 4, (0.1, 0.1), 1),
        )  # fmt: skip
    assert loss == pytest.approx(math.log1p(math.exp(-logit)))
    np.testing.assert_array_equal(np.flatnonzero((w_out != before).any(1)), [2])


def test_alpha_falls_linearly_from_block_to_block() -> None:
    alphas = [reference.block_alpha(first, 10, 10 + 512, (0.08, 0.04)) for first in range(10, 522, 128)]
    np.testing.assert_allclose(alphas, [0.08, 0.07, 0.06, 0.05])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_loss_of_a_logit_that_is_not_finite_is_not_finite(value: float) -> None:
    assert not math.isfinite(reference.softplus(value))
    assert not math.isfinite(reference.softplus(-value))
