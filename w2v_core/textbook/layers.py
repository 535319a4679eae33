"""The layers of the word2vec chapter, each forward beside its backward: readable, exact, usable one by one.

Two roads to the same model stand here. The plain one: one-hot rows times a matrix (`MatMul`) and a softmax over the whole
vocabulary (`SoftmaxWithLoss`); its cost grows with V. The one that replaces it: a row lookup (`Embedding`), and instead of
the softmax K + 1 yes/no questions (`NegativeSamplingLoss`, made of `EmbeddingDot` and `SigmoidWithLoss`); its cost does not.
Sources: Mikolov et al. 2013a (arXiv 1301.3781, section 3), 2013b (arXiv 1310.4546, section 2.2, equation 4).

Every layer has `forward`, `backward` (upstream gradient in, gradient of the input out) and, if it has parameters, `params`
and `grads` of equal length. Gradients are true derivatives of the loss; the tests hold each to two-sided differences.
A lookup's gradient touches few rows, so it is a `RowGradient` and never a V×D array.

Arrays may be NumPy's or CuPy's: a layer takes the array module from the arrays it is given, there is no switch.
Shapes: B examples, C context places, K noise words, P positives of an example, S = P·(1+K) scored words, D vector size,
V vocabulary; N looked-up ids of a batch, U distinct ones.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from w2v_core.textbook.unigram import UnigramSampler

Array = Any
"""An array of NumPy or of a module with the same names (CuPy)."""


def array_module(array: Array) -> Any:
    """The module (numpy or cupy) that `array` belongs to; raises TypeError for anything else, a list say."""
    name = type(array).__module__.partition(".")[0]
    if name not in ("numpy", "cupy"):
        raise TypeError(f"expected an array of numpy or cupy, found {type(array).__qualname__}: use numpy.asarray first")
    return sys.modules[name]


# --- the plain road: one-hot and full softmax ------------------------------------------------------------------------


def one_hot(ids: Array, vocab_size: int, dtype: Any = np.float32) -> Array:
    """Rows with a single 1 at the id: ids.shape + (vocab_size,)."""
    xp = array_module(ids)
    return (ids[..., None] == xp.arange(vocab_size)).astype(dtype)


def softmax(scores: Array) -> Array:
    """exp(scores) / Σ exp(scores) over the last axis, shifted by the maximum so that nothing overflows."""
    xp = array_module(scores)
    exponentials = xp.exp(scores - scores.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


class MatMul:
    """x @ W for x (…, I) and W (I, O): out (…, O). Of a one-hot x this is the row W[id], at I times the work."""

    def __init__(self, W: Array) -> None:
        self.params: list[Array] = [W]
        self.grads: list[Any] = [None]
        self._x: Array = None

    def forward(self, x: Array) -> Array:
        self._x = x
        return x @ self.params[0]

    def backward(self, dout: Array) -> Array:
        """d/dx, same shape as x; the matrix's gradient, dense (I, O), in `grads`."""
        W = self.params[0]
        rows_in, rows_out = W.shape
        self.grads[0] = self._x.reshape(-1, rows_in).T @ dout.reshape(-1, rows_out)
        return dout @ W.T


class SoftmaxWithLoss:
    """Softmax over V scores and cross-entropy with the right word: −log p[target], averaged over the batch."""

    def __init__(self) -> None:
        self.params: list[Array] = []
        self.grads: list[Any] = []
        self._cache: Any = None

    def forward(self, scores_BV: Array, target_B: Array) -> float:
        xp = array_module(scores_BV)
        shifted_BV = scores_BV - scores_BV.max(axis=1, keepdims=True)
        exponentials_BV = xp.exp(shifted_BV)
        sums_B = exponentials_BV.sum(axis=1)
        row_B = xp.arange(len(target_B))
        self._cache = (exponentials_BV / sums_B[:, None], target_B, row_B)
        losses_B = xp.log(sums_B) - shifted_BV[row_B, target_B]
        return float(losses_B.mean(dtype=np.float64))

    def backward(self, dout: float = 1.0) -> Array:
        """(p − one-hot(target)) / B: (B, V)."""
        probabilities_BV, target_B, row_B = self._cache
        dscores_BV = probabilities_BV.copy()
        dscores_BV[row_B, target_B] -= 1
        dscores_BV *= dout / len(target_B)
        return dscores_BV


# --- the lookup and its sparse gradient ------------------------------------------------------------------------------


@dataclass(frozen=True)
class RowIndex:
    """The distinct ids of a lookup, ascending, and where each occurs: everything that a sum over repeats needs."""

    ids_U: Array
    """int64, ascending, each once."""
    order_N: Array
    """int64: places in the flattened lookup, grouped by id, ascending inside a group."""
    starts_U: Array
    """int64: where the group of ids_U[u] starts in order_N."""


def row_index(ids: Array) -> RowIndex:
    """The `RowIndex` of word ids of any shape (at least one id)."""
    xp = array_module(ids)
    flat_N = ids.reshape(-1).astype(np.int64)
    # Id and place packed in one int64 make all keys distinct: the fast unstable sort then gives the stable order, so that
    # repeats are summed in the same order on every machine. (np.unique with its inverse costs twice as much.)
    shift = flat_N.size.bit_length()
    keys_N = xp.sort((flat_N << shift) | xp.arange(flat_N.size))
    sorted_N = keys_N >> shift
    new_N = xp.ones(flat_N.size, dtype=bool)
    new_N[1:] = sorted_N[1:] != sorted_N[:-1]
    starts_U = xp.flatnonzero(new_N)
    return RowIndex(sorted_N[starts_U], keys_N & ((1 << shift) - 1), starts_U)


@dataclass(frozen=True)
class RowGradient:
    """The gradient of a V×D matrix that is zero outside the looked-up rows.

    `parts_ND` holds one gradient row for each *occurrence*; a word that occurs twice gets the sum of both. Assigning
    instead of adding would silently train on one occurrence only.
    """

    index: RowIndex
    parts_ND: Array
    vocab_size: int

    @property
    def ids_U(self) -> Array:
        return self.index.ids_U

    @cached_property
    def rows_UD(self) -> Array:
        """The summed gradient of each distinct row, beside `ids_U`."""
        xp = array_module(self.parts_ND)
        return xp.add.reduceat(self.parts_ND[self.index.order_N], self.index.starts_U, axis=0)

    def dense(self) -> Array:
        """The same gradient as a V×D array: for tests and for optimizers that want one."""
        xp = array_module(self.parts_ND)
        full_VD = xp.zeros((self.vocab_size, self.parts_ND.shape[1]), dtype=self.parts_ND.dtype)
        full_VD[self.ids_U] = self.rows_UD
        return full_VD


class Embedding:
    """Picks rows of W (V, D): ids of shape (…) give (…, D). The same as one-hot @ W without the V multiplications.

    `before_read`, if set, is called with the batch's RowIndex before the rows are read: an optimizer that postpones the
    motion of idle rows (optimizers.RowAdam) brings them up to date there.
    """

    def __init__(self, W: Array) -> None:
        self.params: list[Array] = [W]
        self.grads: list[Any] = [None]
        self.before_read: Callable[[RowIndex], None] | None = None
        self._index: RowIndex | None = None

    def forward(self, ids: Array) -> Array:
        self._index = row_index(ids)
        if self.before_read is not None:
            self.before_read(self._index)
        return self.params[0].take(ids, axis=0)

    def backward(self, dout: Array) -> None:
        """Leaves the RowGradient in `grads`; dout: (…, D). Ids have no derivative, so nothing comes back."""
        if self._index is None:
            raise RuntimeError("Embedding.backward before forward: run forward on a batch first")
        vocab_size, vector_size = self.params[0].shape
        self.grads[0] = RowGradient(self._index, dout.reshape(-1, vector_size), vocab_size)


class ContextMean:
    """Weighted mean over context places: Σ_c weight[b, c] · rows[b, c], (B, C, D) and (B, C) to (B, D)."""

    def __init__(self) -> None:
        self.params: list[Array] = []
        self.grads: list[Any] = []
        self._weights_BC: Array = None

    def forward(self, rows_BCD: Array, weights_BC: Array) -> Array:
        self._weights_BC = weights_BC.astype(rows_BCD.dtype, copy=False)
        return (self._weights_BC[:, None, :] @ rows_BCD)[:, 0]

    def backward(self, dmean_BD: Array) -> Array:
        """The true derivative, each place its weight's share (word2vec.c gives every place the whole): (B, C, D)."""
        return self._weights_BC[:, :, None] * dmean_BD[:, None, :]


# --- negative sampling -----------------------------------------------------------------------------------------------


class EmbeddingDot:
    """Scores of some words: h[b] · W[ids[b, s]] for h (B, D) and ids (B, S) or (B,); scores have the shape of ids."""

    def __init__(self, W: Array) -> None:
        self.embedding = Embedding(W)
        self.params = self.embedding.params
        self.grads = self.embedding.grads
        self._cache: Any = None

    def forward(self, h_BD: Array, ids: Array) -> Array:
        rows_BOD = self.embedding.forward(ids.reshape(len(h_BD), -1))
        self._cache = (h_BD, rows_BOD)
        return (rows_BOD @ h_BD[:, :, None]).reshape(ids.shape)

    def backward(self, dscore: Array) -> Array:
        """d/dh (B, D); the row gradient of W in `grads`. dscore has the shape of ids."""
        h_BD, rows_BOD = self._cache
        dscore_BO = dscore.reshape(len(h_BD), -1)
        self.embedding.backward(dscore_BO[:, :, None] * h_BD[:, None, :])
        return (dscore_BO[:, None, :] @ rows_BOD)[:, 0]


class SigmoidWithLoss:
    """Sigmoid and binary cross-entropy with labels 1 or 0: summed over an example's columns, averaged over the batch.

    scores, labels and (optional) weights are (B,) or (B, S). With y = σ(score) and label t the gradient is y − t.
    """

    def __init__(self) -> None:
        self.params: list[Array] = []
        self.grads: list[Any] = []
        self._difference: Array = None

    def forward(self, scores: Array, labels: Array, weights: Array | None = None) -> float:
        xp = array_module(scores)
        # e^−|score| never overflows, and log1p of it keeps the loss of a confident right answer from rounding to 0.
        small = xp.exp(-xp.abs(scores))
        losses = xp.maximum(scores, 0) - scores * labels + xp.log1p(small)
        self._difference = xp.where(scores >= 0, 1, small) / (1 + small) - labels
        if weights is not None:
            losses = losses * weights
            self._difference = self._difference * weights
        return float(losses.sum(dtype=np.float64)) / len(scores)

    def backward(self, dout: float = 1.0) -> Array:
        """(y − t) / B, times the weight of its column if there was one."""
        return self._difference * (dout / len(self._difference))


class NegativeSamplingLoss:
    """Loss of telling each positive word from `sample_size` noise words (2013b, equation 4), without a softmax.

    One positive: target (B,). Several positives that share h (skip-gram): target (B, P). Each positive draws its own
    noise words, each a column of its own; all columns of a batch are looked up and scored together, which is the sum of
    K + 1 separate EmbeddingDot + SigmoidWithLoss pairs. An untrained model's loss is P·(K + 1)·ln 2.
    """

    def __init__(self, W: Array, sampler: UnigramSampler) -> None:
        self.sampler = sampler
        self.dot = EmbeddingDot(W)
        self.loss = SigmoidWithLoss()
        self.params = self.dot.params
        self.grads = self.dot.grads

    def forward(self, h_BD: Array, target: Array, weights: Array | None = None) -> float:
        """Mean loss of an example. `weights`, shaped as target, scales a positive and its noise words (0: left out)."""
        xp = array_module(h_BD)
        words = xp.concatenate([target[..., None], self.sampler.get_negative_sample(target)], axis=-1)
        labels = xp.zeros(words.shape, dtype=h_BD.dtype)
        labels[..., 0] = 1
        if weights is not None:
            weights = xp.broadcast_to(weights[..., None], words.shape).reshape(len(h_BD), -1).astype(h_BD.dtype)
        scores_BO = self.dot.forward(h_BD, words.reshape(len(h_BD), -1))
        return self.loss.forward(scores_BO, labels.reshape(len(h_BD), -1), weights)

    def backward(self, dout: float = 1.0) -> Array:
        """d/dh, (B, D)."""
        return self.dot.backward(self.loss.backward(dout))
