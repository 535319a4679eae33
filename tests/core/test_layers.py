from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.device_arrays import device_module
from tests.core.gradient_check import assert_gradient
from w2v_core.textbook.layers import (
    ContextMean,
    Embedding,
    EmbeddingDot,
    MatMul,
    NegativeSamplingLoss,
    RowGradient,
    SigmoidWithLoss,
    SoftmaxWithLoss,
    array_module,
    one_hot,
    row_index,
    softmax,
)
from w2v_core.textbook.unigram import UnigramSampler

VOCAB, SIZE = 7, 3
IDS = np.array([[2, 5, 2], [0, 2, 6]], dtype=np.int32)
"""Word 2 occurs three times, within a row and across rows."""


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def test_one_hot_times_a_matrix_is_the_row_lookup() -> None:
    W = numbers(VOCAB, SIZE)
    by_product = MatMul(W).forward(one_hot(IDS, VOCAB, np.float64))
    np.testing.assert_array_equal(by_product, Embedding(W).forward(IDS))


def test_one_hot_and_lookup_have_the_same_gradient() -> None:
    W, dout = numbers(VOCAB, SIZE), numbers(2, 3, SIZE, seed=1)
    plain, lookup = MatMul(W), Embedding(W)
    plain.forward(one_hot(IDS, VOCAB, np.float64))
    plain.backward(dout)
    lookup.forward(IDS)
    lookup.backward(dout)
    np.testing.assert_allclose(lookup.grads[0].dense(), plain.grads[0], rtol=0, atol=1e-15)


# --- gradients by two-sided differences -------------------------------------------------------------------------------


def test_matmul_gradients() -> None:
    x, W, upstream = numbers(2, 4, 5), numbers(5, SIZE, seed=1), numbers(2, 4, SIZE, seed=2)
    layer = MatMul(W)

    def loss() -> float:
        return float((layer.forward(x) * upstream).sum())

    loss()
    dx = layer.backward(upstream)
    assert_gradient(loss, x, dx)
    assert_gradient(loss, W, layer.grads[0])


def test_softmax_with_loss_gradient() -> None:
    scores, target = numbers(4, VOCAB), np.array([1, 0, 6, 1])
    layer = SoftmaxWithLoss()
    layer.forward(scores, target)
    assert_gradient(lambda: 3.0 * layer.forward(scores, target), scores, layer.backward(3.0))


def test_embedding_gradient_with_repeated_ids() -> None:
    W, upstream = numbers(VOCAB, SIZE), numbers(2, 3, SIZE, seed=1)
    layer = Embedding(W)
    layer.forward(IDS)
    layer.backward(upstream)
    assert_gradient(lambda: float((layer.forward(IDS) * upstream).sum()), W, layer.grads[0].dense())


def test_context_mean_gradient() -> None:
    rows, weights, upstream = numbers(2, 4, SIZE), np.abs(numbers(2, 4, seed=1)), numbers(2, SIZE, seed=2)
    layer = ContextMean()
    layer.forward(rows, weights)
    assert_gradient(lambda: float((layer.forward(rows, weights) * upstream).sum()), rows, layer.backward(upstream))


@pytest.mark.parametrize("ids", [IDS, IDS[:, 0]], ids=["several words", "one word"])
def test_embedding_dot_gradients(ids: np.ndarray) -> None:
    h, W, upstream = numbers(2, SIZE), numbers(VOCAB, SIZE, seed=1), numbers(*ids.shape, seed=2)
    layer = EmbeddingDot(W)

    def loss() -> float:
        return float((layer.forward(h, ids) * upstream).sum())

    loss()
    dh = layer.backward(upstream)
    gradient = layer.grads[0].dense()
    assert_gradient(loss, h, dh)
    assert_gradient(loss, W, gradient)


@pytest.mark.parametrize("weighted", [False, True])
def test_sigmoid_with_loss_gradient(weighted: bool) -> None:
    scores, labels = numbers(4, 3), np.eye(4, 3)
    weights = np.abs(numbers(4, 3, seed=1)) if weighted else None
    layer = SigmoidWithLoss()
    layer.forward(scores, labels, weights)
    assert_gradient(lambda: 2.0 * layer.forward(scores, labels, weights), scores, layer.backward(2.0))


@pytest.mark.parametrize("target", [np.array([3, 3]), np.array([[3, 0], [0, 0]])], ids=["one", "several"])
def test_negative_sampling_loss_gradients(target: np.ndarray) -> None:
    h, W = numbers(2, SIZE), numbers(VOCAB, SIZE, seed=1)
    weights = None if target.ndim == 1 else np.array([[1.0, 0.0], [0.5, 2.0]])
    sampler = UnigramSampler(np.arange(1, VOCAB + 1), sample_size=4, generator=np.random.default_rng(0))
    layer = NegativeSamplingLoss(W, sampler)

    def loss() -> float:
        sampler.generator = np.random.default_rng(5)  # the same noise words each time
        return layer.forward(h, target, weights)

    loss()
    dh = layer.backward()
    gradient = layer.grads[0].dense()
    assert_gradient(loss, h, dh)
    assert_gradient(loss, W, gradient)


# --- closed forms and the classic mistakes ----------------------------------------------------------------------------


def test_a_repeated_id_gets_the_sum_of_its_gradients() -> None:
    layer = Embedding(np.zeros((VOCAB, 1)))
    layer.forward(np.array([4, 1, 4, 4]))
    layer.backward(np.array([[1.0], [10.0], [100.0], [1000.0]]))
    np.testing.assert_array_equal(layer.grads[0].dense()[:, 0], [0, 10, 0, 0, 1101, 0, 0])


def test_every_id_of_the_batch_gets_its_gradient_not_only_the_first() -> None:
    layer = Embedding(np.zeros((VOCAB, 1)))
    layer.forward(np.arange(VOCAB))
    layer.backward(np.arange(1.0, VOCAB + 1)[:, None])
    np.testing.assert_array_equal(layer.grads[0].dense()[:, 0], np.arange(1.0, VOCAB + 1))


@given(st.lists(st.integers(0, 12), min_size=1, max_size=60), st.integers(0, 999))
@settings(max_examples=50, derandomize=True, deadline=None)
def test_a_row_gradient_is_what_add_at_would_give(ids: list[int], seed: int) -> None:
    ids_N, parts_ND = np.array(ids, dtype=np.int32), numbers(len(ids), 4, seed=seed)
    expected = np.zeros((13, 4))
    np.add.at(expected, ids_N, parts_ND)
    gradient = RowGradient(row_index(ids_N), parts_ND, 13)
    np.testing.assert_array_equal(gradient.ids_U, np.unique(ids_N))
    np.testing.assert_allclose(gradient.dense(), expected, rtol=0, atol=1e-13)


def test_repeats_are_summed_in_the_order_of_their_places() -> None:
    index = row_index(np.array([[3, 1], [3, 3], [1, 0]], dtype=np.int32))
    assert index.ids_U.tolist() == [0, 1, 3]
    assert index.order_N.tolist() == [5, 1, 4, 0, 2, 3]
    assert index.starts_U.tolist() == [0, 1, 3]


def test_sigmoid_gradient_is_y_minus_t_over_the_batch() -> None:
    scores, labels = np.array([0.0, 2.0, -1.0]), np.array([1, 0, 0])
    layer = SigmoidWithLoss()
    layer.forward(scores, labels)
    np.testing.assert_allclose(layer.backward(), (1 / (1 + np.exp(-scores)) - labels) / 3, rtol=1e-15)


def test_losses_stay_finite_and_exact_at_extreme_scores() -> None:
    scores = np.array([[1000.0, -1000.0]], dtype=np.float32)
    assert SigmoidWithLoss().forward(scores, np.array([[0, 1]])) == 2000
    assert SigmoidWithLoss().forward(scores, np.array([[1, 0]])) == 0
    assert SoftmaxWithLoss().forward(scores, np.array([1])) == 2000
    np.testing.assert_array_equal(softmax(scores), [[1, 0]])


def test_softmax_sums_to_one() -> None:
    np.testing.assert_allclose(softmax(numbers(5, 9)).sum(axis=1), 1, rtol=1e-15)


def test_negative_sampling_is_the_sum_of_separate_questions_one_a_column() -> None:
    h, W, target = numbers(5, SIZE), numbers(VOCAB, SIZE, seed=1), np.array([0, 1, 2, 3, 3])
    counts = np.arange(1, VOCAB + 1)
    layer = NegativeSamplingLoss(W, UnigramSampler(counts, sample_size=4, generator=np.random.default_rng(1)))
    loss = layer.forward(h, target)
    dh = layer.backward()

    noise = UnigramSampler(counts, sample_size=4, generator=np.random.default_rng(1)).get_negative_sample(target)
    expected_loss, expected_dh, expected_gradient = 0.0, np.zeros_like(h), np.zeros_like(W)
    for column, label in [(target, 1), *((noise[:, k], 0) for k in range(4))]:
        dot, question = EmbeddingDot(W), SigmoidWithLoss()
        expected_loss += question.forward(dot.forward(h, column), np.full(5, label))
        expected_dh += dot.backward(question.backward())
        expected_gradient += dot.grads[0].dense()
    assert math.isclose(loss, expected_loss, rel_tol=1e-14)
    np.testing.assert_allclose(dh, expected_dh, rtol=0, atol=1e-15)
    np.testing.assert_allclose(layer.grads[0].dense(), expected_gradient, rtol=0, atol=1e-15)


def test_the_loss_of_an_untrained_layer_is_ln_2_per_question() -> None:
    sampler = UnigramSampler(np.ones(VOCAB), sample_size=5, generator=np.random.default_rng(1))
    loss = NegativeSamplingLoss(np.zeros((VOCAB, SIZE)), sampler).forward(numbers(4, SIZE), np.arange(4))
    assert math.isclose(loss, 6 * math.log(2), rel_tol=1e-15)


def test_a_weight_of_zero_leaves_a_positive_and_its_noise_out() -> None:
    W, h = numbers(VOCAB, SIZE), numbers(1, SIZE, seed=1)

    def trained(weights: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        layer = NegativeSamplingLoss(W, UnigramSampler(np.ones(VOCAB), generator=np.random.default_rng(2)))
        loss = layer.forward(h, np.array([[1, 2, 3]]), weights)
        return loss, layer.backward(), layer.grads[0].dense()

    whole = trained(np.array([[1, 1, 1]]))
    parts = [trained(row[None]) for row in np.eye(3)]
    for total, pieces in zip(whole, zip(*parts, strict=True), strict=True):
        np.testing.assert_allclose(total, sum(pieces), rtol=0, atol=1e-14)


def test_float32_stays_float32() -> None:
    W = numbers(VOCAB, SIZE).astype(np.float32)
    layer = NegativeSamplingLoss(W, UnigramSampler(np.ones(VOCAB), generator=np.random.default_rng(2)))
    layer.forward(W[:2], np.array([1, 2]))
    assert layer.backward().dtype == np.float32
    assert layer.grads[0].rows_UD.dtype == np.float32


def test_before_read_sees_the_distinct_ids_before_the_rows_are_read() -> None:
    layer = Embedding(np.zeros((VOCAB, 1)))

    def raise_rows(index: Any) -> None:
        layer.params[0][index.ids_U] += 1

    layer.before_read = raise_rows
    np.testing.assert_array_equal(layer.forward(np.array([2, 2, 5])), np.ones((3, 1)))


# --- devices and misuse -----------------------------------------------------------------------------------------------


def gradients_of_every_layer(xp: Any) -> list[Any]:
    """Loss and gradients of both ways to the model, computed with the arrays of `xp`."""
    asarray: Callable[[Any], Any] = xp.asarray
    sampler = UnigramSampler(np.arange(1, VOCAB + 1), generator=np.random.default_rng(0), xp=xp)
    embedding, mean = Embedding(asarray(numbers(VOCAB, SIZE))), ContextMean()
    last = NegativeSamplingLoss(asarray(numbers(VOCAB, SIZE, seed=1)), sampler)
    hidden = mean.forward(embedding.forward(asarray(IDS)), asarray(np.full((2, 3), 1 / 3)))
    loss = last.forward(hidden, asarray(np.array([1, 2])))
    embedding.backward(mean.backward(last.backward()))
    matmul, softmax_loss = MatMul(asarray(numbers(SIZE, VOCAB))), SoftmaxWithLoss()
    full_loss = softmax_loss.forward(matmul.forward(hidden), asarray(np.array([1, 2])))
    dhidden = matmul.backward(softmax_loss.backward())
    return [loss, embedding.grads[0].dense(), last.grads[0].dense(), full_loss, dhidden, matmul.grads[0]]


def test_device_arrays_give_the_numbers_of_the_host_without_ever_meeting_it(monkeypatch: pytest.MonkeyPatch) -> None:
    xp = device_module()
    monkeypatch.setitem(sys.modules, "cupy", xp)
    for on_device, on_host in zip(gradients_of_every_layer(xp), gradients_of_every_layer(np), strict=True):
        np.testing.assert_array_equal(on_device if isinstance(on_device, float) else on_device.get(), on_host)


def test_backward_before_forward_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"Embedding.backward before forward: run forward on a batch first"):
        Embedding(np.zeros((2, 2))).backward(np.zeros((1, 2)))


def test_a_list_is_not_accepted_as_an_array() -> None:
    with pytest.raises(TypeError, match=r"expected an array of numpy or cupy, found list: use numpy.asarray first"):
        array_module([1, 2])
