from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tests.core.gradient_check import assert_gradient
from w2v_core.contexts import PADDING
from w2v_core.layers import ContextMean, Embedding, MatMul, SoftmaxWithLoss
from w2v_core.models import CBOW, MODELS, SimpleCBOW, SkipGram, context_weights
from w2v_core.optimizers import SGD
from w2v_core.unigram import UnigramSampler

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


def test_skip_gram_ignores_what_stands_at_padded_places() -> None:
    built = model("skipgram")
    built.forward(np.array([[PADDING, PADDING]]), np.array([3]))
    built.backward()
    assert not built.grads[0].dense().any()
    assert not built.grads[1].dense().any()


def test_an_untrained_model_loses_ln_2_for_each_question() -> None:
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
