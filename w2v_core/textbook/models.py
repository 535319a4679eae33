"""CBOW and skip-gram as stacks of layers, and the one-hot softmax CBOW that they replace.

A model has `params` and `grads` of equal length, `forward(contexts, target)`, which returns the mean loss of an example as
a float, and `backward()`, which fills `grads`. `word_vecs` is the input matrix, which is kept as the word vectors.
Parameters start as 0.01 · standard normal numbers; they are drawn on the host, so they are the same on every device.

contexts are word ids (B, C), with contexts.PADDING where a window has no word; target is (B,).
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from w2v_core.textbook.layers import (
    Array,
    ContextMean,
    Embedding,
    MatMul,
    NegativeSamplingLoss,
    SoftmaxWithLoss,
    array_module,
    one_hot,
)
from w2v_core.textbook.unigram import UnigramSampler

INITIAL_SCALE = 0.01


class LayeredModel(Protocol):
    params: list[Array]
    grads: list[Any]

    def forward(self, contexts: Array, target: Array) -> float: ...
    def backward(self) -> None: ...


class SamplingModel(LayeredModel, Protocol):
    """A model made of lookups: its matrices are those of `embeddings`, in the order of `params`; `sampler` draws its noise."""

    embeddings: list[Embedding]
    sampler: UnigramSampler


def initial_matrix(rows: int, columns: int, generator: np.random.Generator, dtype: Any = np.float32, xp: Any = np) -> Array:
    """A (rows, columns) matrix of 0.01 · standard normal numbers, on the device of `xp`."""
    return xp.asarray((INITIAL_SCALE * generator.standard_normal((rows, columns))).astype(dtype))


class SimpleCBOW:
    """CBOW with one-hot rows and a softmax over all V words (2013a, section 3.1, without the hierarchy): O(V·D) per example."""

    def __init__(
        self, vocab_size: int, vector_size: int, *, generator: np.random.Generator, dtype: Any = np.float32, xp: Any = np
    ) -> None:
        self.vocab_size = vocab_size
        self.dtype = dtype
        self._in = MatMul(initial_matrix(vocab_size, vector_size, generator, dtype, xp))
        self._mean = ContextMean()
        self._out = MatMul(initial_matrix(vector_size, vocab_size, generator, dtype, xp))
        self._loss = SoftmaxWithLoss()
        self.params: list[Array] = [*self._in.params, *self._out.params]
        self.grads: list[Any] = [None, None]

    @property
    def word_vecs(self) -> Array:
        return self.params[0]

    def forward(self, contexts: Array, target: Array) -> float:
        # A padded place has the id −1, which no column equals, so its one-hot row is all zeros, as it should be.
        rows_BCD = self._in.forward(one_hot(contexts, self.vocab_size, self.dtype))
        hidden_BD = self._mean.forward(rows_BCD, context_weights(contexts, rows_BCD.dtype))
        return self._loss.forward(self._out.forward(hidden_BD), target)

    def backward(self) -> None:
        dhidden_BD = self._out.backward(self._loss.backward())
        self._in.backward(self._mean.backward(dhidden_BD))
        self.grads[:] = [self._in.grads[0], self._out.grads[0]]


class CBOW:
    """CBOW: from the mean of the context rows, tells the target from noise words (2013a, section 3.1; 2013b, section 2.2)."""

    def __init__(
        self,
        vocab_size: int,
        vector_size: int,
        sampler: UnigramSampler,
        *,
        generator: np.random.Generator,
        dtype: Any = np.float32,
        xp: Any = np,
    ) -> None:
        self.sampler = sampler
        self._in = Embedding(initial_matrix(vocab_size, vector_size, generator, dtype, xp))
        self._mean = ContextMean()
        self._loss = NegativeSamplingLoss(initial_matrix(vocab_size, vector_size, generator, dtype, xp), sampler)
        self.embeddings = [self._in, self._loss.dot.embedding]
        self.params: list[Array] = [layer.params[0] for layer in self.embeddings]
        self.grads: list[Any] = [None, None]

    @property
    def word_vecs(self) -> Array:
        return self.params[0]

    def forward(self, contexts: Array, target: Array) -> float:
        xp = array_module(contexts)
        # A padded place reads row 0 with weight 0, which adds nothing to the mean and exactly 0 to that row's gradient.
        rows_BCD = self._in.forward(xp.maximum(contexts, 0))
        hidden_BD = self._mean.forward(rows_BCD, context_weights(contexts, rows_BCD.dtype))
        return self._loss.forward(hidden_BD, target)

    def backward(self) -> None:
        self._in.backward(self._mean.backward(self._loss.backward()))
        self.grads[:] = [layer.grads[0] for layer in self.embeddings]


class SkipGram:
    """Skip-gram: from the target's row, tells each of its context words from noise (2013a, section 3.2; 2013b, section 2.2)."""

    def __init__(
        self,
        vocab_size: int,
        vector_size: int,
        sampler: UnigramSampler,
        *,
        generator: np.random.Generator,
        dtype: Any = np.float32,
        xp: Any = np,
    ) -> None:
        self.sampler = sampler
        self._in = Embedding(initial_matrix(vocab_size, vector_size, generator, dtype, xp))
        self._loss = NegativeSamplingLoss(initial_matrix(vocab_size, vector_size, generator, dtype, xp), sampler)
        self.embeddings = [self._in, self._loss.dot.embedding]
        self.params: list[Array] = [layer.params[0] for layer in self.embeddings]
        self.grads: list[Any] = [None, None]

    @property
    def word_vecs(self) -> Array:
        return self.params[0]

    def forward(self, contexts: Array, target: Array) -> float:
        """The loss of an example, summed over its context words, averaged over the batch."""
        xp = array_module(contexts)
        return self._loss.forward(self._in.forward(target), xp.maximum(contexts, 0), weights=contexts >= 0)

    def backward(self) -> None:
        self._in.backward(self._loss.backward())
        self.grads[:] = [layer.grads[0] for layer in self.embeddings]


def context_weights(contexts: Array, dtype: Any = np.float32) -> Array:
    """The weights of a mean, (B, C): 1/n at each of a row's n context words, 0 at its padding (a row of padding gets zeros)."""
    xp = array_module(contexts)
    present_BC = contexts >= 0
    return (present_BC / xp.maximum(present_BC.sum(axis=1, keepdims=True), 1)).astype(dtype)


MODELS: dict[str, Any] = {"cbow": CBOW, "skipgram": SkipGram}
