from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tests.core.gradient_check import assert_gradient
from w2v_core import reference
from w2v_core.contract import Noise, Slice, Update
from w2v_core.sampler import random_bits
from w2v_core.textbook.contexts import PADDING, expand_rows
from w2v_core.textbook.layers import ContextMean, Embedding, MatMul, SoftmaxWithLoss
from w2v_core.textbook.models import CBOW, MODELS, SimpleCBOW, SkipGram, context_weights
from w2v_core.textbook.optimizers import SGD
from w2v_core.textbook.unigram import UnigramSampler

VOCAB, SIZE = 9, 4
CONTEXTS = np.array([[1, 2, 2, 3], [PADDING, 2, 0, PADDING], [8, 8, 8, 8]], dtype=np.int32)
"""A full window with a repeated word, a window cut on both sides that holds word 0, and one word four times."""
TARGET = np.array([2, 1, 8], dtype=np.int32)
"""Target 2 is also in its own context, target 8 is its whole context."""


def sampler(seed: int = 0, sample_size: int = 3) -> UnigramSampler:
    return UnigramSampler(np.arange(1, VOCAB + 1), sample_size=sample_size, generator=np.random.default_rng(seed))


def model(name: str, **options: Any) -> Any:
    built = MODELS[name](VOCAB, SIZE, sampler(), generator=np.random.default_rng(1), dtype=np.float64, **options)
    for param in built.params:
        param *= 50  # away from zero, where derivatives of the two matrices would vanish together
    return built


@pytest.mark.parametrize("name", ["cbow", "skipgram"])
@pytest.mark.parametrize("matrix", [0, 1], ids=["w_in", "w_out"])
def test_gradients_with_repeats_padding_and_target_in_its_context(name: str, matrix: int) -> None:
    built = model(name)

    def loss() -> float:
        built.sampler.generator = np.random.default_rng(7)
        return float(built.forward(CONTEXTS, TARGET))

    loss()
    built.backward()
    assert_gradient(loss, built.params[matrix], built.grads[matrix].dense())


@pytest.mark.parametrize("matrix", [0, 1], ids=["w_in", "w_out"])
def test_gradients_of_the_one_hot_model(matrix: int) -> None:
    built = SimpleCBOW(VOCAB, SIZE, generator=np.random.default_rng(1), dtype=np.float64)
    for param in built.params:
        param *= 50
    built.forward(CONTEXTS, TARGET)
    built.backward()
    assert_gradient(lambda: built.forward(CONTEXTS, TARGET), built.params[matrix], built.grads[matrix])


def test_one_hot_cbow_is_lookup_and_softmax() -> None:
    built = SimpleCBOW(VOCAB, SIZE, generator=np.random.default_rng(1), dtype=np.float64)
    contexts = np.maximum(CONTEXTS, 0)
    rows = Embedding(built.params[0]).forward(contexts)
    hidden = ContextMean().forward(rows, np.full(contexts.shape, 0.25))
    expected = SoftmaxWithLoss().forward(MatMul(built.params[1]).forward(hidden), TARGET)
    assert math.isclose(built.forward(contexts, TARGET), expected, rel_tol=1e-14)


TOKENS = np.array([4, 2, 7, 2, 2, 0, 8, 1, 4, 2, 3, 3], dtype=np.int32)
LEFT = np.array([0, 1, 2, 3, 3, 1, 3, 0, 3, 3, 3, 2], dtype=np.uint8)
RIGHT = np.array([3, 3, 3, 3, 2, 0, 3, 2, 3, 2, 1, 0], dtype=np.uint8)
"""Full and cut windows, words repeated in a window, targets in their own context."""


def table_that_draws(noise_K: np.ndarray, seed: int) -> np.ndarray:
    """A noise table from which the reference's first draws under `seed` are these words."""
    bits = 20
    cells = [random_bits(seed, draw) >> (64 - bits) for draw in range(len(noise_K))]
    assert len(set(cells)) == len(cells), "two draws fall on one cell: take another seed"
    table = np.zeros(1 << bits, dtype=np.uint64)
    table[cells] = noise_K
    return table


@pytest.mark.parametrize("positions", [[3], [0], [11], list(range(12))], ids=["full", "left edge", "right edge", "batch"])
def test_a_step_of_layered_cbow_is_the_reference_step_of_each_example_added_up(positions: list[int]) -> None:
    """A slice of a single target is one block and one group, so the reference shares neither noise nor old rows."""
    alpha, noise_seed = 0.1, 5
    built = model("cbow")
    start = [param.copy() for param in built.params]
    contexts, target = expand_rows(TOKENS, LEFT, RIGHT, np.array(positions), window=3)
    built.sampler.generator = np.random.default_rng(noise_seed)
    loss = built.forward(contexts, target)
    built.backward()
    gradients = [gradient.dense() for gradient in built.grads]
    SGD(alpha * len(target)).update(built.params, built.grads)  # the layers' loss is the mean of a batch, alpha is an example's

    noise_BK = sampler(noise_seed).get_negative_sample(target)
    losses, changes = [], [np.zeros_like(param) for param in start]
    for position, noise_K in zip(positions, noise_BK, strict=True):
        moved = [param.copy() for param in start]
        example_loss, examples = reference.train_slice(
            moved[0], moved[1], Slice(TOKENS, LEFT, RIGHT, position, position + 1),
            Noise(table_that_draws(noise_K, seed=1), np.ones(len(start[0]), np.float32)),
            Update("cbow", "exact", len(noise_K), (alpha, alpha), seed=1),
        )  # fmt: skip
        assert examples == 1
        losses.append(example_loss)
        for change, after, before in zip(changes, moved, start, strict=True):
            change += after - before
    assert math.isclose(loss, np.mean(losses), rel_tol=1e-13)
    for param, gradient, before, change in zip(built.params, gradients, start, changes, strict=True):
        assert np.abs(change).max() > 1e-3
        np.testing.assert_allclose(param, before + change, rtol=0, atol=1e-14)
        np.testing.assert_allclose(gradient, -change / (alpha * len(positions)), rtol=0, atol=1e-14)


def test_context_weights_average_over_the_words_that_are_there() -> None:
    contexts = np.array([[1, 2, 3, 4], [PADDING, 5, PADDING, PADDING], [PADDING] * 4])
    np.testing.assert_array_equal(context_weights(contexts), [[0.25] * 4, [0, 1, 0, 0], [0] * 4])


def test_padding_is_the_same_as_a_shorter_window() -> None:
    losses, gradients = [], []
    for contexts in (np.array([[PADDING, 3, 4, PADDING]]), np.array([[3, 4]])):
        built = model("cbow")
        losses.append(built.forward(contexts, np.array([0])))
        built.backward()
        gradients.append([gradient.dense() for gradient in built.grads])
    assert losses[0] == losses[1]
    for padded, short in zip(*gradients, strict=True):
        np.testing.assert_allclose(padded, short, rtol=0, atol=1e-15)


def test_skip_gram_ignores_padded_places() -> None:
    built = model("skipgram")
    built.forward(np.array([[PADDING, PADDING]]), np.array([3]))
    built.backward()
    assert not built.grads[0].dense().any()
    assert not built.grads[1].dense().any()


def test_the_loss_of_an_untrained_model_is_ln_2_per_question() -> None:
    options: dict[str, Any] = {"generator": np.random.default_rng(1)}
    cbow = CBOW(VOCAB, SIZE, sampler(sample_size=5), **options)
    skip_gram = SkipGram(VOCAB, SIZE, sampler(sample_size=5), **options)
    assert abs(cbow.forward(CONTEXTS, TARGET) - 6 * math.log(2)) < 1e-3
    assert abs(skip_gram.forward(CONTEXTS, TARGET) - 10 / 3 * 6 * math.log(2)) < 1e-3, "10 context words in 3 rows"


def test_parameters_start_as_small_float32_noise() -> None:
    built = CBOW(2000, 50, sampler(), generator=np.random.default_rng(1))
    assert built.word_vecs is built.params[0]
    for param in built.params:
        assert param.dtype == np.float32
        assert abs(param.std() - 0.01) < 1e-4
        assert abs(param.mean()) < 1e-4


@pytest.mark.parametrize("name", ["simple", "cbow", "skipgram"])
def test_every_model_learns_a_corpus_that_repeats(name: str) -> None:
    built = SimpleCBOW(VOCAB, SIZE, generator=np.random.default_rng(1)) if name == "simple" else model(name)
    target = np.arange(VOCAB)
    contexts = np.stack([(target - 1) % VOCAB, (target + 1) % VOCAB], axis=1)
    losses = []
    for _ in range(400):
        losses.append(built.forward(contexts, target))
        built.backward()
        SGD(2.0).update(built.params, built.grads)
    assert np.mean(losses[-20:]) < 0.5 * losses[0]
