from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.device_arrays import device_module
from w2v_core.textbook.layers import Embedding, RowGradient, row_index
from w2v_core.textbook.optimizers import SGD, Adam, RowAdam, expansion_error

VOCAB, SIZE = 40, 6
KERNELS = ["array", "numba"]


def frequent_and_rare_ids(generator: np.random.Generator) -> np.ndarray:
    """A few ids, some of them repeated; the rarest words are absent for thousands of steps."""
    share = 1 / np.arange(1, VOCAB + 1) ** 2.5
    return generator.choice(VOCAB, size=generator.integers(1, 8), p=share / share.sum())


def dense_and_row_adam(kernels: str, steps: int, dtype: str, gradient_scale: float) -> dict[str, Any]:
    """Trains the same rows by dense Adam and by RowAdam; every read is compared too."""
    generator = np.random.default_rng(0)
    start = generator.standard_normal((VOCAB, SIZE)).astype(dtype)
    dense, layer = start.copy(), Embedding(start.copy())
    adam, row_adam = Adam(), RowAdam([layer], kernels=kernels)
    read_apart = 0.0
    for _ in range(steps):
        ids = frequent_and_rare_ids(generator)
        parts = (gradient_scale * generator.standard_normal((len(ids), SIZE))).astype(dtype)
        read_apart = max(read_apart, float(np.abs(layer.forward(ids) - dense[ids]).max()))
        layer.backward(parts)
        adam.update([dense], [RowGradient(row_index(ids), parts, VOCAB)])
        row_adam.update(layer.params, layer.grads)
    row_adam.flush()
    moved = float(np.abs(dense - start).max())
    return {
        "apart": max(read_apart, float(np.abs(layer.params[0] - dense).max())) / moved,
        "m": np.abs(row_adam.m[0] - adam.m[0]).max() / np.abs(adam.m[0]).max(),
        "v": np.abs(row_adam.v[0] - adam.v[0]).max() / adam.v[0].max(),
    }


# Errors as a share of how far the parameters moved. float64 with every √v far above ε̂ = 1e-7: rounding.
# Smaller gradients leave some or all √v near ε̂, where the expansion is at its weakest: its stated bound. float32: rounding.
@pytest.mark.parametrize(
    ("dtype", "gradient_scale", "tolerance", "steps"),
    [
        ("f8", 1.0, 1e-12, 1100),  # more steps than the history first has room for
        ("f8", 1e-3, 3e-7, 500),
        ("f8", 1e-6, 3e-7, 500),
        ("f8", 1e-9, 3e-7, 500),
        ("f4", 1.0, 1e-4, 500),
    ],
)
@pytest.mark.parametrize("kernels", KERNELS)
def test_row_adam_is_dense_adam(kernels: str, dtype: str, gradient_scale: float, tolerance: float, steps: int) -> None:
    found = dense_and_row_adam(kernels, steps, dtype, gradient_scale)
    assert found["apart"] < tolerance
    moment_tolerance = 1e-12 if dtype == "f8" else 1e-5
    assert found["m"] < moment_tolerance
    assert found["v"] < moment_tolerance


def test_a_sparse_adam_that_skips_idle_rows_would_be_far_off() -> None:
    dense, layer = np.zeros((2, 1)), Embedding(np.zeros((2, 1)))
    adam, row_adam = Adam(), RowAdam([layer], kernels="array")
    for word_id in [0, *[1] * 30]:
        layer.forward(np.array([word_id]))
        layer.backward(np.ones((1, 1)))
        adam.update([dense], [layer.grads[0]])
        row_adam.update(layer.params, layer.grads)
    skipped = layer.params[0][0, 0]
    assert abs(skipped - dense[0, 0]) > 0.001, "not yet read again: all motion but the first step's is postponed"
    caught_up = layer.forward(np.array([0]))[0, 0]
    assert abs(caught_up - dense[0, 0]) < 1e-15


@given(st.lists(st.integers(0, 120), max_size=5))
@settings(max_examples=20, derandomize=True, deadline=None)
def test_flushing_at_any_time_changes_nothing(flush_after: list[int]) -> None:
    results = []
    for flushes in ([], flush_after):
        generator = np.random.default_rng(3)
        layer = Embedding(generator.standard_normal((VOCAB, SIZE)))
        row_adam = RowAdam([layer], kernels="numba")
        for step in range(120):
            ids = frequent_and_rare_ids(generator)
            layer.forward(ids)
            layer.backward(generator.standard_normal((len(ids), SIZE)))
            row_adam.update(layer.params, layer.grads)
            for _ in range(flushes.count(step)):
                row_adam.flush()
        row_adam.flush()
        results.append(layer.params[0])
    np.testing.assert_allclose(results[0], results[1], rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_both_kernels_agree_to_rounding(dtype: str) -> None:
    results = []
    for kernels in KERNELS:
        generator = np.random.default_rng(4)
        layer = Embedding(generator.standard_normal((VOCAB, SIZE)).astype(dtype))
        row_adam = RowAdam([layer], 0.01, kernels=kernels)
        for _ in range(300):
            ids = frequent_and_rare_ids(generator)
            layer.forward(ids)
            layer.backward(generator.standard_normal((len(ids), SIZE)).astype(dtype))
            row_adam.update(layer.params, layer.grads)
        row_adam.flush()
        results.append((layer.params[0], row_adam.m[0], row_adam.v[0]))
    for by_array, by_numba in zip(*results, strict=True):
        np.testing.assert_allclose(by_numba, by_array, rtol=0, atol=2e-6 if dtype == "f4" else 1e-14)


def test_two_matrices_are_each_kept_up_to_date() -> None:
    layers = [Embedding(np.ones((3, 2))), Embedding(np.ones((4, 2)))]
    dense = [np.ones((3, 2)), np.ones((4, 2))]
    adam, row_adam = Adam(), RowAdam(layers)
    for first, second in [(0, 3), (1, 2), (1, 2), (0, 3)]:
        for layer, word_id in zip(layers, (first, second), strict=True):
            layer.forward(np.array([word_id]))
            layer.backward(np.full((1, 2), 0.1 + word_id))
        grads = [layer.grads[0] for layer in layers]
        adam.update(dense, grads)
        row_adam.update([layer.params[0] for layer in layers], grads)
    row_adam.flush()
    for layer, expected in zip(layers, dense, strict=True):
        np.testing.assert_allclose(layer.params[0], expected, rtol=0, atol=1e-15)


def test_adams_first_step_is_the_learning_rate_against_the_gradients_sign() -> None:
    param = np.zeros(3)
    Adam(learning_rate=0.1).update([param], [np.array([5.0, -0.2, 3.0])])
    np.testing.assert_allclose(param, [-0.1, 0.1, -0.1], rtol=2e-5)


def test_adam_follows_its_formula() -> None:
    param, m, v, adam = np.array([1.0]), 0.0, 0.0, Adam(0.01)
    expected = 1.0
    for step, gradient in enumerate([0.3, -0.1, 0.0, 2.0], start=1):
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        expected -= 0.01 * (1 - 0.999**step) ** 0.5 / (1 - 0.9**step) * m / (v**0.5 + 1e-7)
        adam.update([param], [np.array([gradient])])
    np.testing.assert_allclose(param, expected, rtol=1e-14)


@pytest.mark.parametrize("kernels", KERNELS)
def test_sgd_moves_rows_as_it_moves_matrices(kernels: str) -> None:
    ids, parts = np.array([1, 3, 1]), np.arange(6.0).reshape(3, 2)
    gradient = RowGradient(row_index(ids), parts, 5)
    by_rows, by_matrix = np.ones((5, 2)), np.ones((5, 2))
    SGD(0.5, kernels=kernels).update([by_rows], [gradient])
    SGD(0.5).update([by_matrix], [gradient.dense()])
    np.testing.assert_array_equal(by_rows, by_matrix)
    np.testing.assert_array_equal(by_rows[1], 1 - 0.5 * (parts[0] + parts[2]))


@pytest.mark.parametrize("kind", ["dense", "rows"])
def test_adam_continues_from_its_state_bit_for_bit(kind: str) -> None:
    def steps(layer: Embedding, adam: Any, first: int, last: int) -> None:
        for step in range(first, last):
            generator = np.random.default_rng(step)
            ids = frequent_and_rare_ids(generator)
            layer.forward(ids)
            layer.backward(generator.standard_normal((len(ids), SIZE)))
            adam.update(layer.params, layer.grads)
        adam.flush()

    def fresh() -> tuple[Embedding, Any]:
        layer = Embedding(np.ones((VOCAB, SIZE)))
        return layer, Adam() if kind == "dense" else RowAdam([layer])

    whole, adam = fresh()
    steps(whole, adam, 0, 20)
    saved = {name: array.copy() for name, array in adam.state().items()}
    halfway = whole.params[0].copy()
    steps(whole, adam, 20, 50)

    resumed, other = fresh()
    resumed.params[0][:] = halfway
    other.restore(saved)
    steps(resumed, other, 20, 50)
    np.testing.assert_array_equal(resumed.params[0], whole.params[0])


def test_the_bound_of_the_expansion_is_what_the_documentation_says() -> None:
    assert 2e-7 < expansion_error(0.9, 0.999) < 3e-7


@pytest.mark.parametrize(("beta1", "beta2"), [(0.9, 0.9), (0.99, 0.9), (0.0, 0.999), (0.9, 1.0)])
def test_betas_outside_the_expansions_reach_are_refused(beta1: float, beta2: float) -> None:
    with pytest.raises(ValueError, match=r"would leave postponed steps up to .* off, expected at most 1e-06; use the dense"):
        RowAdam([Embedding(np.ones((2, 2)))], beta1=beta1, beta2=beta2)


def test_foreign_parameters_are_refused() -> None:
    layer = Embedding(np.ones((2, 2)))
    with pytest.raises(ValueError, match="expected the very matrices of the layers it was made with"):
        RowAdam([layer]).update([np.ones((2, 2))], layer.grads)


def test_an_unknown_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match="kernels: expected auto, numba or array, found 'cuda'"):
        RowAdam([Embedding(np.ones((2, 2)))], kernels="cuda")


def test_numba_kernels_refuse_device_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    xp = device_module()
    monkeypatch.setitem(sys.modules, "cupy", xp)
    with pytest.raises(ValueError, match='kernels "numba" need NumPy parameters, found CuPy ones; use "array" or "auto"'):
        RowAdam([Embedding(xp.asarray(np.ones((2, 2))))], kernels="numba")
