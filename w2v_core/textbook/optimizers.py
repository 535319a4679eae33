"""SGD and Adam for dense and for row gradients; `RowAdam` gives the result of dense Adam but touches only the rows in use.

Adam (Kingma & Ba 2015, algorithm 1 in the form of section 2's last paragraph, ε̂ = 1e-7), step t = 1, 2, …:

    m ← β1·m + (1−β1)·g        v ← β2·v + (1−β2)·g²
    α_t = α·√(1−β2^t) / (1−β1^t)        p ← p − α_t·m / (√v + ε̂)

Under dense Adam a word that is absent from a batch (g = 0) still moves along its decaying m. "Sparse" Adams that skip it
compute something else. RowAdam postpones these steps until the row is next read, and then makes up for them in one step. With
g = 0 the j-th missed step after s is −m·w_j / (√v + ε_j), where

    w_j = α_{s+j}·(β1/√β2)^j        ε_j = ε̂·β2^(−j/2)

so the sum of the missed steps depends on the row only through m and √v, and ε_j hardly varies while w_j is not yet negligible.
With W = Σ w_j and the w-weighted mean ε̄ and variance σ² of ε_j, a second-order expansion around ε̄ gives

    Σ w_j / (√v + ε_j) = W / (√v + ε̄) · (1 + σ² / (√v + ε̄)²)

The first-order term vanishes by the choice of ε̄. The error is of third order: for β = (0.9, 0.999) at most 3e-7 of the
postponed sum where √v is below ε̂, and 3e-13 where √v is 100 ε̂ or more; see `expansion_error`. W, ε̄ and σ² are the
same for all rows last touched at step s, so only a few hundred numbers have to be kept up to date for any vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np

from w2v_core.textbook.layers import Array, Embedding, RowGradient, RowIndex, array_module

EPSILON = 1e-7
_NEGLIGIBLE = 1e-17
"""Missed steps whose weight is below this share of the first are left out: less than half a unit in the last place of
float64."""
_VANISHED = 1e-30
"""Smaller decay factors count as 0, which keeps subnormal numbers (100 times slower to compute with) out of m."""
_EXPANSION_LIMIT = 1e-6


class Optimizer(Protocol):
    """Call `update` after each backward pass, `flush` before reading the parameters elsewhere, `state` and `restore` between
    epochs."""

    learning_rate: float

    def update(self, params: Sequence[Array], grads: Sequence[Any]) -> None: ...
    def flush(self) -> None: ...
    def state(self) -> dict[str, Array]: ...
    def restore(self, state: Mapping[str, Array]) -> None: ...


class SGD:
    """p ← p − learning_rate · gradient, in place; a row gradient moves only its rows. `kernels` as for RowAdam."""

    def __init__(self, learning_rate: float = 0.01, *, kernels: str = "auto") -> None:
        self.learning_rate, self.kernels = learning_rate, kernels

    def update(self, params: Sequence[Array], grads: Sequence[Any]) -> None:
        for param, grad in zip(params, grads, strict=True):
            if isinstance(grad, RowGradient):
                _row_kernels(self.kernels, [param]).sgd(param, grad, self.learning_rate)
            else:
                param -= self.learning_rate * grad

    def flush(self) -> None:
        """Nothing is ever postponed."""

    def state(self) -> dict[str, Array]:
        return {}

    def restore(self, state: Mapping[str, Array]) -> None:
        """There is nothing to restore."""


class Adam:
    """Dense Adam, the definition: every element of every parameter moves at every step, in place."""

    def __init__(self, learning_rate: float = 0.001, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = EPSILON) -> None:
        self.learning_rate, self.beta1, self.beta2, self.epsilon = learning_rate, beta1, beta2, epsilon
        self.step = 0
        self.m: list[Array] = []
        self.v: list[Array] = []

    def update(self, params: Sequence[Array], grads: Sequence[Any]) -> None:
        if not self.m:
            self.m = [array_module(param).zeros_like(param) for param in params]
            self.v = [array_module(param).zeros_like(param) for param in params]
        self.step += 1
        rate = step_rate(self.learning_rate, self.beta1, self.beta2, self.step)
        for param, grad, m, v in zip(params, grads, self.m, self.v, strict=True):
            full = grad.dense() if isinstance(grad, RowGradient) else grad
            m += (1 - self.beta1) * (full - m)
            v += (1 - self.beta2) * (full**2 - v)
            param -= rate * m / (array_module(param).sqrt(v) + self.epsilon)

    def flush(self) -> None:
        """Nothing is ever postponed."""

    def state(self) -> dict[str, Array]:
        return _adam_state(self.step, self.m, self.v)

    def restore(self, state: Mapping[str, Array]) -> None:
        self.step = int(state["adam_step"])
        count = sum(name.startswith("adam_m_") for name in state)
        self.m = [state[f"adam_m_{k}"].copy() for k in range(count)]
        self.v = [state[f"adam_v_{k}"].copy() for k in range(count)]


class RowAdam:
    """Adam on the matrices of Embedding layers, in place: the result of dense Adam at the cost of the rows in use.

    It sets each layer's `before_read`, so a row is up to date whenever the layer reads it. Read a matrix in any other way
    only after `flush()`. `kernels`: "array" is the definition in array code; "numba" does the same arithmetic in one fused
    pass over the rows (NumPy parameters only); "auto" is numba for NumPy parameters. The two agree within rounding.
    Raises ValueError for betas for which the postponed steps would be inexact.
    """

    def __init__(
        self,
        embeddings: Sequence[Embedding],
        learning_rate: float = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = EPSILON,
        *,
        kernels: str = "auto",
    ) -> None:
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon
        self.learning_rate = learning_rate
        self.step = 0
        self._params = [layer.params[0] for layer in embeddings]
        self._rows = _row_kernels(kernels, self._params)
        self._missed = MissedSteps(beta1, beta2, epsilon)
        self.m = [array_module(param).zeros_like(param) for param in self._params]
        self.v = [array_module(param).zeros_like(param) for param in self._params]
        self._last_V = [array_module(param).zeros(len(param), dtype=np.int64) for param in self._params]
        for matrix, layer in enumerate(embeddings):
            layer.before_read = partial(self._catch_up, matrix)

    def _catch_up(self, matrix: int, index: RowIndex) -> None:
        """Applies in place the steps that the rows of `index` have missed since they were last touched."""
        self._rows.catch_up(
            self._params[matrix],
            self.m[matrix],
            self.v[matrix],
            self._last_V[matrix],
            index.ids_U,
            self.step,
            self._missed,
        )

    def update(self, params: Sequence[Array], grads: Sequence[Any]) -> None:
        """Takes one step on the rows that their layers have read since the previous step."""
        if len(params) != len(self._params) or any(a is not b for a, b in zip(params, self._params, strict=True)):
            raise ValueError(
                "RowAdam.update: expected the very matrices of the layers it was made with, found others; "
                "make a RowAdam of the model's own embeddings"
            )
        self.step += 1
        rate = step_rate(self.learning_rate, self.beta1, self.beta2, self.step)
        for matrix, grad in enumerate(grads):
            self._rows.step(
                self._params[matrix],
                self.m[matrix],
                self.v[matrix],
                self._last_V[matrix],
                grad,
                self.step,
                (rate, self.beta1, self.beta2, self.epsilon),
            )
        self._missed.append(rate)

    def flush(self) -> None:
        """Brings every row of every matrix up to date, after which nothing is postponed."""
        for matrix, param in enumerate(self._params):
            xp = array_module(param)
            self._catch_up(matrix, RowIndex(xp.arange(len(param)), None, None))
        self._missed.restart(self.step)

    def state(self) -> dict[str, Array]:
        """The step and the moments as plain arrays (views); flushes first, so that no row lags behind."""
        self.flush()
        return _adam_state(self.step, self.m, self.v)

    def restore(self, state: Mapping[str, Array]) -> None:
        self.step = int(state["adam_step"])
        for matrix, last_V in enumerate(self._last_V):
            self.m[matrix][:] = state[f"adam_m_{matrix}"]
            self.v[matrix][:] = state[f"adam_v_{matrix}"]
            last_V[:] = self.step
        self._missed.restart(self.step)


def step_rate(learning_rate: float, beta1: float, beta2: float, step: int) -> float:
    """α_t, the learning rate including both bias corrections."""
    return learning_rate * math.sqrt(1 - beta2**step) / (1 - beta1**step)


def _adam_state(step: int, moments1: Sequence[Array], moments2: Sequence[Array]) -> dict[str, Array]:
    state: dict[str, Array] = {"adam_step": np.asarray(step, dtype=np.int64)}
    state |= {f"adam_m_{k}": m for k, m in enumerate(moments1)}
    return state | {f"adam_v_{k}": v for k, v in enumerate(moments2)}


# --- the steps that a row has missed ---------------------------------------------------------------------------------


class MissedSteps:
    """For every step s since the last flush, W, Σ w·δ and Σ w·δ² over the steps after s (δ_j = ε_j − ε̂), float64.

    Each new step adds one term to the sums of every earlier s, but only for the last few hundred s is it large enough to count.
    """

    def __init__(self, beta1: float, beta2: float, epsilon: float) -> None:
        error = expansion_error(beta1, beta2)
        if not error <= _EXPANSION_LIMIT:
            raise ValueError(
                f"RowAdam: beta1 {beta1:g}, beta2 {beta2:g} would leave postponed steps up to {error:.0e} off, "
                f"expected at most {_EXPANSION_LIMIT:.0e}; use the dense Adam, or betas near 0.9 and 0.999"
            )
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon
        self._terms_3J = _missed_terms(beta1, beta2, epsilon)[:, ::-1].copy()
        self.restart(0)

    def restart(self, step: int) -> None:
        """Forgets everything before `step`: all rows are up to date."""
        self.base = step
        self._length = 1
        self._sums_3S = np.zeros((3, 1024))

    def append(self, rate: float) -> None:
        """Records a step taken at rate α_t: one more missed step for every row that was not in its batch."""
        window = min(self._length, self._terms_3J.shape[1])
        self._sums_3S[:, self._length - window : self._length] += rate * self._terms_3J[:, -window:]
        self._length += 1
        if self._length > self._sums_3S.shape[1]:
            self._sums_3S = np.concatenate([self._sums_3S, np.zeros_like(self._sums_3S)], axis=1)

    def of(self, last_U: Array, step: int) -> tuple[Array, Array, Array, Array, Array]:
        """(W, ε̄, σ², decay factor of m, decay factor of v), each float64 (U,), for rows last touched at the steps `last_U`."""
        xp = array_module(last_U)
        sums_3U = xp.asarray(self._sums_3S[:, : self._length])[:, last_U - self.base]
        weight_U = sums_3U[0]
        divisor_U = xp.where(weight_U > 0, weight_U, 1)
        mean_U = sums_3U[1] / divisor_U
        variance_U = xp.maximum(sums_3U[2] / divisor_U - mean_U**2, 0)
        missed_U = (step - last_U).astype(np.float64)
        decay1_U, decay2_U = self.beta1**missed_U, self.beta2**missed_U
        return weight_U, self.epsilon + mean_U, variance_U, xp.where(decay1_U < _VANISHED, 0, decay1_U), decay2_U

    @property
    def sums_3S(self) -> np.ndarray:
        """The three sums, indexed by s − base, for kernels that look up rows themselves."""
        return self._sums_3S


def _missed_terms(beta1: float, beta2: float, epsilon: float) -> np.ndarray:
    """ρ^j, ρ^j·δ_j and ρ^j·δ_j² for j = 1 … J, float64 (3, J), with ρ = β1/√β2 and J such that ρ^J is negligible."""
    ratio = beta1 / math.sqrt(beta2)
    count = math.ceil(math.log(_NEGLIGIBLE) / math.log(ratio))
    ages_J = np.arange(1, count + 1, dtype=np.float64)
    weight_J = ratio**ages_J
    delta_J = epsilon * np.expm1(-0.5 * math.log(beta2) * ages_J)
    return np.stack([weight_J, weight_J * delta_J, weight_J * delta_J**2])


def expansion_error(beta1: float, beta2: float) -> float:
    """An upper bound of RowAdam's error relative to the postponed sum: the third absolute moment of ε_j / ε̂ about its mean.

    The neglected term is at most E|ε_j − ε̄|³ / (√v + ε̂)³, largest where √v is 0. Infinite if missed steps do not decay.
    """
    if not 0 < beta2 < 1 or not 0 < beta1 < math.sqrt(beta2):
        return math.inf
    terms_3J = _missed_terms(beta1, beta2, 1.0)
    share_J = terms_3J[0] / terms_3J[0].sum()
    delta_J = terms_3J[1] / terms_3J[0]
    return float(share_J @ np.abs(delta_J - share_J @ delta_J) ** 3)


# --- the row operations in array code: the definition -----------------------------------------------------------------


class _ArrayRows:
    """`sgd` and RowAdam's `catch_up` and `step`, in place, on NumPy or CuPy arrays."""

    @staticmethod
    def sgd(param: Array, grad: RowGradient, learning_rate: float) -> None:
        param[grad.ids_U] -= learning_rate * grad.rows_UD

    @staticmethod
    def catch_up(param: Array, m: Array, v: Array, last_V: Array, ids_U: Array, step: int, missed: MissedSteps) -> None:
        xp, dtype = array_module(param), param.dtype
        columns = missed.of(last_V[ids_U], step)
        weight, epsilon, variance, decay1, decay2 = (column[:, None].astype(dtype) for column in columns)
        m_UD, v_UD = m[ids_U], v[ids_U]
        denominator_UD = xp.sqrt(v_UD) + epsilon
        param[ids_U] -= weight * m_UD / denominator_UD * (1 + variance / denominator_UD**2)
        m[ids_U], v[ids_U] = decay1 * m_UD, decay2 * v_UD
        last_V[ids_U] = step

    @staticmethod
    def step(
        param: Array,
        m: Array,
        v: Array,
        last_V: Array,
        grad: RowGradient,
        step: int,
        rates: tuple[float, float, float, float],
    ) -> None:
        xp, ids_U = array_module(param), grad.ids_U
        rate, beta1, beta2, epsilon = rates
        m_UD = m[ids_U]
        v_UD = v[ids_U]
        m_UD += (1 - beta1) * (grad.rows_UD - m_UD)
        v_UD += (1 - beta2) * (grad.rows_UD**2 - v_UD)
        param[ids_U] -= rate * m_UD / (xp.sqrt(v_UD) + epsilon)
        m[ids_U], v[ids_U] = m_UD, v_UD
        last_V[ids_U] = step


def _row_kernels(kernels: str, params: Sequence[Array]) -> Any:
    on_host = all(isinstance(param, np.ndarray) for param in params)
    if kernels == "array" or (kernels == "auto" and not on_host):
        return _ArrayRows
    if kernels not in ("auto", "numba"):
        raise ValueError(f"kernels: expected auto, numba or array, found {kernels!r}")
    if not on_host:
        raise ValueError('kernels "numba" need NumPy parameters, found CuPy ones; use "array" or "auto"')
    from w2v_core.kernels.cpu import optimizer_rows

    return optimizer_rows
