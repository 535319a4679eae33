"""`windows.draw_stream`, compiled: one pass over the tokens, with the same bits as the definition (a test compares them)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from w2v_core.kernels.cpu.machine_code import compiled
from w2v_core.kernels.cpu.random_numbers import random_bits
from w2v_core.windows import Stream, epoch_shift

_SENTENCE, _POSITION, _ROW, _FIRST = range(4)
"""Indices of a drawing's state: the sentence and the token to continue with, the rows written, the rows before the sentence."""


@compiled
def _draw(
    local_ids_M: Any, sentence_ends_S: Any, words: Any, window: Any, shrink: Any, seed: Any, shift: Any, number: Any,
    tokens_N: Any, left_N: Any, right_N: Any, state: Any, stop: Any,
) -> None:  # fmt: skip
    """Draws the tokens from the position in `state` up to `stop`."""
    # Unsigned, so that no index can be negative: Numba would check every one of them for that.
    row: Any = np.uint64(state[_ROW])
    first: Any = np.uint64(state[_FIRST])
    position: Any = np.uint64(state[_POSITION])
    sentence: Any = np.int64(state[_SENTENCE])
    one, wide = np.uint64(1), np.uint64(window)
    while sentence < sentence_ends_S.shape[0] and position < np.uint64(stop):
        end = np.uint64(sentence_ends_S[sentence])
        until = min(end, np.uint64(stop))
        while position < until:
            word = words[np.uint64(local_ids_M[position])]
            word_id = np.int32(np.int64(word) >> np.int64(32))
            draw = random_bits(seed, number + position) + shift
            width = one + ((draw >> np.uint64(32)) * wide >> np.uint64(32)) if shrink else wide
            # Every token is written, and counted only if it is kept: half of all tokens are dropped, in an order that no
            # processor can predict, and a mispredicted branch costs more than the three stores.
            tokens_N[row] = word_id
            left_N[row] = np.uint8(min(width, row - first))
            right_N[row] = np.uint8(width)
            row += np.uint64((draw & np.uint64(0xFFFFFFFF)) <= (word & np.uint64(0xFFFFFFFF))) & np.uint64(word_id >= 0)
            position += one
        if position < end:
            break
        # Only the windows of the last `window` rows of a sentence can reach past its end.
        last = np.int64(row)
        for tail in range(max(np.int64(first), last - window), last):
            right_N[tail] = np.uint8(min(np.int64(right_N[tail]), last - 1 - tail))
        first = row
        sentence += 1
    state[_SENTENCE], state[_POSITION], state[_ROW], state[_FIRST] = sentence, np.int64(position), np.int64(row), np.int64(first)


def word_draws(global_ids: NDArray[np.int32], thresholds_V: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """Each part-local word's id << 32 | threshold, so that a token needs one look into memory. A word outside the vocabulary
    gets the id −1 and is never kept."""
    ids = np.where(global_ids < len(thresholds_V), global_ids, np.int32(-1))
    words = ids.astype(np.uint32).astype(np.uint64) << np.uint64(32)
    words[ids >= 0] |= thresholds_V[ids[ids >= 0]].astype(np.uint64)
    return words


class Drawing:
    """`windows.draw_stream` in steps, with the words of `word_draws`; the same arguments give the same stream."""

    def __init__(
        self, local_ids_M: NDArray[np.int32], sentence_ends_S: NDArray[np.int64], words: NDArray[np.uint64], window: int,
        shrink_windows: bool, seed: int, epoch: int, first: int = 0,
    ) -> None:  # fmt: skip
        self._size = len(local_ids_M)
        # A row is written before it is known whether it is kept.
        room = self._size + 1
        self._columns = np.empty(room, np.int32), np.empty(room, np.uint8), np.empty(room, np.uint8)
        self._state = np.zeros(4, np.int64)
        self._arguments = (
            local_ids_M, sentence_ends_S, words, np.int64(window), bool(shrink_windows), np.uint64(seed), epoch_shift(epoch),
            np.uint64(first), *self._columns, self._state,
        )  # fmt: skip

    def advance(self, tokens: int) -> bool:
        """Draws the next `tokens` tokens, or as many as there are; returns whether any are left."""
        stop = min(self._size, int(self._state[_POSITION]) + tokens)
        _draw(*self._arguments, np.int64(stop))
        return stop < self._size

    @property
    def stream(self) -> Stream:
        """The rows drawn so far, as views of larger arrays."""
        tokens_N, left_N, right_N = self._columns
        rows = int(self._state[_ROW])
        return Stream(tokens_N[:rows], left_N[:rows], right_N[:rows])


def draw_stream(
    local_ids_M: NDArray[np.int32], sentence_ends_S: NDArray[np.int64], words: NDArray[np.uint64], window: int,
    shrink_windows: bool, seed: int, epoch: int, first: int = 0,
) -> Stream:  # fmt: skip
    """The stream of a whole part: a `Drawing` done in one step."""
    drawing = Drawing(local_ids_M, sentence_ends_S, words, window, shrink_windows, seed, epoch, first)
    drawing.advance(len(local_ids_M))
    return drawing.stream
