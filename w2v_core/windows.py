"""From sentences of word ids to the training stream: subsampling and window widths, drawn for each epoch.

The stream of an epoch is three arrays of equal length N (a shard's columns): `tokens_N` int32 word ids that survived
subsampling, `left_N` and `right_N` uint8: the context of row i is the `left` rows before it and the `right` rows after
it. Spans stop at sentence ends, so a stream can be cut anywhere between sentences. It holds the same context-target
pairs as an N×2·window matrix at 6 bytes a target instead of 44.

Every draw is a pure function of (seed, epoch, position of the token in its part), so any worker makes the same stream.
Over the epochs the draws of a token are spread evenly instead of at random. Each epoch by itself is what it would be,
but an occurrence that is kept with chance 1/2 is in about every second epoch, not in none or all of five, and it is seen
with wide and with narrow windows: 2.5 % more analogies are right, for nothing (infra/decisions/0009-even-draws.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from w2v_core.sampler import mix64

MAX_WINDOW = 255
EPOCH_STEP = round(2**32 * (2**0.5 - 1)) << 32 | round(2**32 * (5**0.5 - 1) / 2)
"""What an epoch adds to every draw: to the width's half √2 − 1, to the half that keeps the golden ratio, as shares of a
turn. The golden ratio's multiples modulo 1 fill the circle more evenly, from the first few on, than those of any other
number (the three-distance theorem: Sós 1958), those of √2 nearly so, and the two keep out of each other's step."""


@dataclass(frozen=True)
class Stream:
    """One part's share of an epoch's stream; N rows."""

    tokens_N: NDArray[np.int32]
    left_N: NDArray[np.uint8]
    right_N: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.tokens_N)


def default_sample(corpus_tokens: int) -> float:
    """The subsampling threshold for a corpus of so many tokens: 1e-4, as gensim's users set it, or 100 in all of its tokens.

    A word that occurs 100 times or less is then always kept. With 1e-4 alone a text of 51 tokens kept 5 and one of 30,000 a
    tenth: what is rare there is everything, and what is dropped is not seen in any other sentence.
    """
    return min(1.0, max(1e-4, 100 / max(1, corpus_tokens)))


def keep_probability(counts_V: NDArray[np.int64], sample: float) -> NDArray[np.float64]:
    """Chance that an occurrence of each word survives subsampling, float64 (V,); all ones for sample = 0.

    √(sample/f) + sample/f, at most 1, with f the word's share of all tokens: the rule of word2vec.c. The paper
    (Mikolov et al. 2013, §2.3) prints √(sample/f) alone; the published results come from the program.
    """
    if sample == 0:
        return np.ones(len(counts_V), np.float64)
    ratio_V = sample * counts_V.sum(dtype=np.int64) / counts_V.astype(np.float64)
    return np.asarray(np.minimum(1.0, np.sqrt(ratio_V) + ratio_V), dtype=np.float64)


def keep_thresholds(probability_V: NDArray[np.float64]) -> NDArray[np.uint32]:
    """Per word the number T with P(32 random bits ≤ T) = probability, to 2⁻³² (uint32, V)."""
    return np.floor(np.clip(probability_V, 0, 1) * 2.0**32 - 1).clip(0, 2**32 - 1).astype(np.uint32)


def epoch_shift(epoch: int) -> np.uint64:
    """What is added to every draw of an epoch."""
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
    """The stream of one part for one epoch, in plain array operations; this is the definition.

    `local_ids_M` are part-local word ids of all sentences one after the other, `sentence_ends_S` the exclusive end of
    each, `global_ids[local]` the vocabulary's id or −1 for a word that is not in it. Words out of the vocabulary and
    those that subsampling drops are gone before windows are laid, so windows reach over them, as in word2vec.c.
    Draw m is mix64(seed, m) + epoch · EPOCH_STEP modulo 2⁶⁴: its low 32 bits decide on keeping token m, its high 32 bits
    the width 1 … window. `first` is the number m of the first token here: a part may be drawn in pieces. (Cranley and
    Patterson 1976 shift a whole point set by one random number; here every token shifts the same few points by its own.)
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
