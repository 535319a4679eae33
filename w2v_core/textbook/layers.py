"""The layers of the word2vec chapter, each with its forward next to its backward pass: readable, exact, usable one by one.

There are two ways to the same model. The plain one: one-hot rows times a matrix (`MatMul`) and a softmax over the whole
vocabulary (`SoftmaxWithLoss`); its cost grows with V. The one that replaces it: a row lookup (`Embedding`), and K + 1 yes/no
questions instead of the softmax (`NegativeSamplingLoss`, made of `EmbeddingDot` and `SigmoidWithLoss`); its cost does not.
Sources: Mikolov et al. 2013a (arXiv 1301.3781, section 3), 2013b (arXiv 1310.4546, section 2.2, equation 4).

Every layer has `forward`, `backward` (upstream gradient in, gradient of the input out), `params` and `grads`; the last two have
the same length. Gradients are true derivatives of the loss; the tests compare each with two-sided differences. The gradient of
a lookup touches few rows, so it is a `RowGradient`, never a V×D array.

Arrays may be NumPy's or CuPy's: a layer takes the array module from the arrays it is given; there is no switch.
Shapes: B examples, C context places, K noise words, P positives of an example, O = P·(1+K) scored words, D vector size,
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
    """The module (numpy or cupy) that `array` belongs to; raises TypeError for anything else, such as a list."""
    name = type(array).__module__.partition(".")[0]
    if name not in ("numpy", "cupy"):
        raise TypeError(f"expected an array of numpy or cupy, found {type(array).__qualname__}: use numpy.asarray first")
    return sys.modules[name]


# --- the plain way: one-hot rows and a full softmax ------------------------------------------------------------------


def one_hot(ids: Array, vocab_size: int, dtype: Any = np.float32) -> Array:
    """Rows of zeros with a single 1 at the id; shape ids.shape + (vocab_size,)."""
    xp = array_module(ids)
    return (ids[..., None] == xp.arange(vocab_size)).astype(dtype)


def softmax(scores: Array) -> Array:
    """exp(scores) / Σ exp(scores) over the last axis; scores are shifted by their maximum so that nothing overflows."""
    xp = array_module(scores)
    exponentials = xp.exp(scores - scores.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


class MatMul:
    """x @ W for x (…, I) and W (I, O): out (…, O). For a one-hot x this is the row W[id], at I times the work."""

    def __init__(self, W: Array) -> None:
        self.params: list[Array] = [W]
        self.grads: list[Any] = [None]
        self._x: Array = None

    def forward(self, x: Array) -> Array:
        self._x = x
        return x @ self.params[0]

    def backward(self, dout: Array) -> Array:
        """d/dx, in the shape of x; the gradient of W, dense (I, O), goes into `grads`."""
        W = self.params[0]
        rows_in, rows_out = W.shape
        self.grads[0] = self._x.reshape(-1, rows_in).T @ dout.reshape(-1, rows_out)
        return dout @ W.T


class SoftmaxWithLoss:
    """Softmax over V scores, and its cross-entropy with the right word: −log p[target], averaged over the batch."""

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
        """The gradient of the scores, (p − one-hot(target)) / B, times `dout`: (B, V)."""
        probabilities_BV, target_B, row_B = self._cache
        dscores_BV = probabilities_BV.copy()
        dscores_BV[row_B, target_B] -= 1
        dscores_BV *= dout / len(target_B)
        return dscores_BV


# --- the lookup and its sparse gradient ------------------------------------------------------------------------------


@dataclass(frozen=True)
class RowIndex:
    """The distinct ids of a lookup, and where each occurs: all that is needed to sum over repeated ids."""

    ids_U: Array
    """int64, ascending, each once."""
    order_N: Array
    """int64: places in the flattened lookup, grouped by id, ascending within a group."""
    starts_U: Array
    """int64: where the group of ids_U[u] starts in order_N."""


def row_index(ids: Array) -> RowIndex:
    """The `RowIndex` of word ids, an array of any shape with at least one id."""
    xp = array_module(ids)
    flat_N = ids.reshape(-1).astype(np.int64)
    # Id and place are packed into one int64, which makes all keys distinct, so the fast unstable sort gives a stable order and
    # repeated ids are summed in the same order on every machine. (np.unique with its inverse costs twice as much.)
    shift = flat_N.size.bit_length()
    keys_N = xp.sort((flat_N << shift) | xp.arange(flat_N.size))
    sorted_N = keys_N >> shift
    new_N = xp.ones(flat_N.size, dtype=bool)
    new_N[1:] = sorted_N[1:] != sorted_N[:-1]
    starts_U = xp.flatnonzero(new_N)
    return RowIndex(sorted_N[starts_U], keys_N & ((1 << shift) - 1), starts_U)


@dataclass(frozen=True)
class RowGradient:
    """The gradient of a V×D matrix, which is zero outside the looked-up rows.

    `parts_ND` holds one gradient row for each *occurrence*; a word that occurs twice gets the sum of both. Assigning
    instead of adding would silently train on only one of them.
    """

    index: RowIndex
    parts_ND: Array
    vocab_size: int

    @property
    def ids_U(self) -> Array:
        return self.index.ids_U

    @cached_property
    def rows_UD(self) -> Array:
        """The summed gradient of each distinct row, (U, D), in the order of `ids_U`."""
        xp = array_module(self.parts_ND)
        return xp.add.reduceat(self.parts_ND[self.index.order_N], self.index.starts_U, axis=0)

    def dense(self) -> Array:
        """The same gradient as a V×D array, for tests and for optimizers that need one."""
        xp = array_module(self.parts_ND)
        full_VD = xp.zeros((self.vocab_size, self.parts_ND.shape[1]), dtype=self.parts_ND.dtype)
        full_VD[self.ids_U] = self.rows_UD
        return full_VD


class Embedding:
    """Looks up rows of W (V, D): ids of shape (…) give (…, D). The same as one-hot @ W, without the multiplications.

    `before_read`, if set, is called with the batch's RowIndex before the rows are read: an optimizer that postpones the
    steps of idle rows (optimizers.RowAdam) brings them up to date there.
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
        """Puts the RowGradient into `grads`; dout: (…, D). Returns nothing, because ids have no derivative.

        Raises RuntimeError before the first `forward`.
        """
        if self._index is None:
            raise RuntimeError("Embedding.backward before forward: run forward on a batch first")
        vocab_size, vector_size = self.params[0].shape
        self.grads[0] = RowGradient(self._index, dout.reshape(-1, vector_size), vocab_size)


class ContextMean:
    """The weighted mean over context places, Σ_c weight[b, c] · rows[b, c]: from (B, C, D) and (B, C) to (B, D)."""

    def __init__(self) -> None:
        self.params: list[Array] = []
        self.grads: list[Any] = []
        self._weights_BC: Array = None

    def forward(self, rows_BCD: Array, weights_BC: Array) -> Array:
        self._weights_BC = weights_BC.astype(rows_BCD.dtype, copy=False)
        return (self._weights_BC[:, None, :] @ rows_BCD)[:, 0]

    def backward(self, dmean_BD: Array) -> Array:
        """The true derivative, (B, C, D): each place gets its weight's share (in word2vec.c every place gets the whole)."""
        return self._weights_BC[:, :, None] * dmean_BD[:, None, :]


# --- negative sampling -----------------------------------------------------------------------------------------------


class EmbeddingDot:
    """The scores of some words, h[b] · W[ids[b, o]], for h (B, D) and ids (B, O) or (B,); scores have the shape of ids."""

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
        """d/dh, (B, D); the row gradient of W goes into `grads`. dscore has the shape of ids."""
        h_BD, rows_BOD = self._cache
        dscore_BO = dscore.reshape(len(h_BD), -1)
        self.embedding.backward(dscore_BO[:, :, None] * h_BD[:, None, :])
        return (dscore_BO[:, None, :] @ rows_BOD)[:, 0]


class SigmoidWithLoss:
    """Sigmoid and binary cross-entropy with labels 1 or 0: summed over an example's columns, averaged over the batch.

    scores, labels and the optional weights are (B,) or (B, O). With y = σ(score) and label t the gradient is y − t.
    """

    def __init__(self) -> None:
        self.params: list[Array] = []
        self.grads: list[Any] = []
        self._difference: Array = None

    def forward(self, scores: Array, labels: Array, weights: Array | None = None) -> float:
        xp = array_module(scores)
        # e^−|score| never overflows, and with log1p the loss of a confident right answer does not round to 0.
        small = xp.exp(-xp.abs(scores))
        losses = xp.maximum(scores, 0) - scores * labels + xp.log1p(small)
        self._difference = xp.where(scores >= 0, 1, small) / (1 + small) - labels
        if weights is not None:
            losses = losses * weights
            self._difference = self._difference * weights
        return float(losses.sum(dtype=np.float64)) / len(scores)

    def backward(self, dout: float = 1.0) -> Array:
        """The gradient of the scores: (y − t) / B, times the weights, if given, and times `dout`."""
        return self._difference * (dout / len(self._difference))


class NegativeSamplingLoss:
    """The loss of telling each positive word from `sample_size` noise words (2013b, equation 4), without a softmax.

    With one positive per example, target is (B,); with several that share h (skip-gram), (B, P). Each positive draws its own
    noise words, each of which is a column; all columns of a batch are looked up and scored together, which gives the sum of
    K + 1 separate EmbeddingDot + SigmoidWithLoss pairs. An untrained model's loss is P·(K + 1)·ln 2.
    """

    def __init__(self, W: Array, sampler: UnigramSampler) -> None:
        self.sampler = sampler
        self.dot = EmbeddingDot(W)
        self.loss = SigmoidWithLoss()
        self.params = self.dot.params
        self.grads = self.dot.grads

    def forward(self, h_BD: Array, target: Array, weights: Array | None = None) -> float:
        """The mean loss of an example. `weights`, shaped like target, scales each positive and its noise words (0: left out)."""
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
