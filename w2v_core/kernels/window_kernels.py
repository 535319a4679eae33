"""`windows.draw_stream` compiled: one pass over the tokens, the same bits as its definition (a test compares them)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from w2v_core.windows import Stream, epoch_shift


@njit(nogil=True, cache=True, inline="always")
def _mix(seed: Any, counter: Any) -> Any:
    z = seed + (counter + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(nogil=True, cache=True)
def _draw(
    local_ids_M: Any, sentence_ends_S: Any, words: Any, window: Any, shrink: Any, seed: Any, shift: Any, number: Any,
    tokens_N: Any, left_N: Any, right_N: Any,
) -> Any:  # fmt: skip
    # Unsigned, so that no index can be negative: Numba would look for that at every one of them.
    row: Any = np.uint64(0)
    position: Any = np.uint64(0)
    one, wide = np.uint64(1), np.uint64(window)
    for sentence in range(sentence_ends_S.shape[0]):
        first, end = row, np.uint64(sentence_ends_S[sentence])
        while position < end:
            word = words[np.uint64(local_ids_M[position])]
            word_id = np.int32(np.int64(word) >> np.int64(32))
            draw = _mix(seed, number + position) + shift
            width = one + ((draw >> np.uint64(32)) * wide >> np.uint64(32)) if shrink else wide
            # Written whether kept or not, and counted if kept: half of all tokens are dropped, in no order that a
            # processor could predict, and a wrong guess costs more than the three stores.
            tokens_N[row] = word_id
            left_N[row] = np.uint8(min(width, row - first))
            right_N[row] = np.uint8(width)
            row += np.uint64((draw & np.uint64(0xFFFFFFFF)) <= (word & np.uint64(0xFFFFFFFF))) & np.uint64(word_id >= 0)
            position += one
        # Only the last `window` rows of a sentence can reach past its end.
        last = np.int64(row)
        for tail in range(max(np.int64(first), last - window), last):
            right_N[tail] = np.uint8(min(np.int64(right_N[tail]), last - 1 - tail))
    return np.int64(row)


def word_draws(global_ids: NDArray[np.int32], thresholds_V: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """Id and threshold of each part-local word side by side: one place in memory to look at for a token. An id that is not in
    the vocabulary becomes −1, which is never kept."""
    ids = np.where(global_ids < len(thresholds_V), global_ids, np.int32(-1))
    words = ids.astype(np.uint32).astype(np.uint64) << np.uint64(32)
    words[ids >= 0] |= thresholds_V[ids[ids >= 0]].astype(np.uint64)
    return words


def draw_stream(
    local_ids_M: NDArray[np.int32],
    sentence_ends_S: NDArray[np.int64],
    words: NDArray[np.uint64],
    window: int,
    shrink_windows: bool,
    seed: int,
    epoch: int,
    first: int = 0,
) -> Stream:
    """As `windows.draw_stream`, with the words of `word_draws`; the arrays may have more memory than rows behind them."""
    size = len(local_ids_M)
    tokens_N, left_N, right_N = np.empty(size + 1, np.int32), np.empty(size + 1, np.uint8), np.empty(size + 1, np.uint8)
    rows = _draw(
        local_ids_M, sentence_ends_S, words, np.int64(window), bool(shrink_windows), np.uint64(seed),
        epoch_shift(epoch), np.uint64(first), tokens_N, left_N, right_N,
    )  # fmt: skip
    return Stream(tokens_N[:rows], left_N[:rows], right_N[:rows])
