"""Predicting the word in the middle of a context, from the output vectors, which are the other half of a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from w2v_core.vectors import files
from w2v_core.vectors.cosines import Doubles

_BLOCK_ROWS = 4096


def output_probabilities(matrix: npt.NDArray[Any], context: npt.NDArray[Any], rows: Sequence[int]) -> Doubles:
    """The probability of each word, float64 (V,), given context words: the softmax of the dot products of the output vectors
    with the mean of the context words' vectors, as in gensim. Summed row by row, so equal vectors are equally probable."""
    hidden_D = matrix[np.asarray(rows, np.int64)].astype(np.float64).mean(axis=0)
    products_V = np.empty(len(context), np.float64)
    for block in files.row_blocks(len(context), _BLOCK_ROWS):
        products_V[block] = (context[block].astype(np.float64) * hidden_D).sum(axis=1)
    odds_V = np.exp(products_V - products_V.max())
    probabilities_V: Doubles = odds_V / odds_V.sum()
    return probabilities_V
