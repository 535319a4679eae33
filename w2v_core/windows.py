"""From sentences of word ids to the training stream: subsampling and window widths, drawn anew for each epoch.

The stream of an epoch is three arrays of length N (the columns of a shard): `tokens_N`, int32, the word ids that survived
subsampling; `left_N` and `right_N`, uint8: the context of row i is the `left` rows before it and the `right` rows after
it. Spans stop at sentence ends, so a stream can be cut anywhere between sentences. It holds the same context-target pairs
as an N × 2·window matrix, in 6 bytes per target instead of 44 (with window 5).

Every draw is a pure function of (seed, epoch, position of the token in its part), so every worker makes the same stream.
A token's draws are spread evenly over the epochs instead of at random. Taken by itself, each epoch is as random as before,
but an occurrence that is kept with probability 1/2 is in about every second epoch, not in none or all of five, and it is seen
with wide and with narrow windows: 2.5 % more analogies are right, at no cost (infra/decisions/0009-even-draws.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from w2v_core.sampler import mix64

EPOCH_STEP = round(2**32 * (2**0.5 - 1)) << 32 | round(2**32 * (5**0.5 - 1) / 2)
"""What each epoch adds to every draw, as fractions of a full turn: √2 − 1 to the half that decides the width, the golden ratio
to the half that decides on keeping. From the first few on, the multiples of the golden ratio modulo 1 fill the circle more
evenly than those of any other number (the three-distance theorem: Sós 1958), those of √2 nearly as evenly, and the two
sequences never run in step."""


@dataclass(frozen=True)
class Stream:
    """The share of one part in an epoch's stream; N rows."""

    tokens_N: NDArray[np.int32]
    left_N: NDArray[np.uint8]
    right_N: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.tokens_N)


def default_sample(corpus_tokens: int) -> float:
    """The subsampling threshold for a corpus of `corpus_tokens` tokens: 1e-4, as gensim's users set it, or 100 / corpus_tokens
    if that is larger.

    Words that occur at most 100 times are then always kept. With 1e-4 alone a text of 51 tokens kept 5 of them, and one of
    30,000 a tenth: in small texts every word is rare, and a dropped one is not seen in any other sentence.
    """
    return min(1.0, max(1e-4, 100 / max(1, corpus_tokens)))


def keep_probability(counts_V: NDArray[np.int64], sample: float) -> NDArray[np.float64]:
    """The probability that an occurrence of each word survives subsampling, float64 (V,); 1 for all words if sample is 0.

    √(sample/f) + sample/f, at most 1, where f is the word's share of all tokens: the rule of word2vec.c. The paper
    (Mikolov et al. 2013, §2.3) prints √(sample/f) alone; its published results come from the program.
    """
    if sample == 0:
        return np.ones(len(counts_V), np.float64)
    ratio_V = sample * counts_V.sum(dtype=np.int64) / counts_V.astype(np.float64)
    return np.asarray(np.minimum(1.0, np.sqrt(ratio_V) + ratio_V), dtype=np.float64)


def keep_thresholds(probability_V: NDArray[np.float64]) -> NDArray[np.uint32]:
    """For each word the number T with P(32 random bits ≤ T) = probability, within 2⁻³²: uint32 (V,)."""
    return np.floor(np.clip(probability_V, 0, 1) * 2.0**32 - 1).clip(0, 2**32 - 1).astype(np.uint32)


def epoch_shift(epoch: int) -> np.uint64:
    """The number that is added to every draw of an epoch, modulo 2⁶⁴."""
    return np.uint64(epoch * EPOCH_STEP & 2**64 - 1)


def draw_stream(
    local_ids_M: NDArray[np.int32],
    sentence_ends_S: NDArray[np.int64],
    global_ids: NDArray[np.int32],
    thresholds_V: NDArray[np.uint32],
    window: int,
    shrink_windows: bool,
    seed: int,
    epoch: int,
    first: int = 0,
) -> Stream:
    """The stream of one part for one epoch, in plain array operations: the definition.

    `local_ids_M` are the part-local word ids of all sentences in a row, `sentence_ends_S` the exclusive end of each sentence,
    `global_ids[local]` the id in the vocabulary, or −1 for a word that is not in it. Words outside the vocabulary and words
    that subsampling drops are removed before windows are laid out, so windows reach across them, as in word2vec.c.
    Draw m is mix64(seed, m) + epoch · EPOCH_STEP modulo 2⁶⁴: its low 32 bits decide whether token m is kept, its high 32 bits
    the width 1 … window. `first` is the number m of the first token given: a part may be drawn in pieces. (Cranley and
    Patterson 1976 shift a whole point set by one random number; here each token shifts the same few points by a number of
    its own.)
    """
    draws_M = mix64(seed, np.arange(first, first + len(local_ids_M), dtype=np.uint64)) + epoch_shift(epoch)
    ids_M = global_ids[local_ids_M]
    low_M = (draws_M & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    kept_M = (ids_M >= 0) & (low_M <= thresholds_V[np.maximum(ids_M, 0)])
    positions_N = np.flatnonzero(kept_M)
    sentence_N = np.searchsorted(sentence_ends_S, positions_N, side="right")
    row_N = np.arange(len(positions_N), dtype=np.int64)
    first_N = np.searchsorted(sentence_N, sentence_N, side="left")
    end_N = np.searchsorted(sentence_N, sentence_N, side="right")
    if shrink_windows:
        width_N = 1 + ((draws_M[positions_N] >> np.uint64(32)) * np.uint64(window) >> np.uint64(32)).astype(np.int64)
    else:
        width_N = np.full(len(positions_N), window, np.int64)
    return Stream(
        ids_M[positions_N].astype(np.int32, copy=False),
        np.minimum(width_N, row_N - first_N).astype(np.uint8),
        np.minimum(width_N, end_N - 1 - row_N).astype(np.uint8),
    )
