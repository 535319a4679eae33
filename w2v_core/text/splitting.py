"""The words of UTF-8 text with their keys: plain stretches of it split by plain_words.py, the others by general_words.py."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from w2v_core.kernels.cpu.machine_code import compiled
from w2v_core.text import general_words, plain_words
from w2v_core.text.character_classes import NEWLINE
from w2v_core.text.plain_words import DROPPED, DROPPED_BYTES, LINE, OPENED, SENTENCES, TOKENS
from w2v_core.text.stretches import odd_stretches

SHOWN_BYTES = 120
SAMPLES = 3
_NONE = np.zeros(0, np.int64)


class WordRoom(NamedTuple):
    """Room for the words of a text, kept between texts, because fresh memory pages cost time. A word takes at least two bytes: a
    letter and a separator, or one character outside ASCII."""

    folded: NDArray[np.uint8]
    keys: NDArray[np.uint64]
    offsets: NDArray[np.int64]
    sentence_ends: NDArray[np.int64]
    sentence_lines: NDArray[np.int64]


class Split(NamedTuple):
    """Word i is room.folded[room.offsets[i]:room.offsets[i+1]]; sentence s ends before word room.sentence_ends[s]."""

    tokens: int
    sentences: int
    dropped: int
    dropped_bytes: int
    samples: list[bytes]


def word_room(text_bytes: int) -> WordRoom:
    tokens = text_bytes // 2 + 1
    return WordRoom(
        np.empty(text_bytes + plain_words.PAD_BYTES, np.uint8),
        np.empty(tokens, np.uint64),
        np.empty(tokens + 1, np.int64),
        np.empty(tokens, np.int64),
        np.empty(tokens, np.int64),
    )


def split(
    text: NDArray[np.uint8], byte_table: NDArray[np.uint8], classes: NDArray[np.uint8], max_token_bytes: int, room: WordRoom
) -> Split:
    """The words of a text in `room`, without those longer than `max_token_bytes`."""
    whole = (np.zeros(1, np.int64), np.full(1, len(text), np.int64))
    if plain_words.has_plain_words(byte_table):
        odd = odd_stretches(text, byte_table <= NEWLINE) if len(classes) else (_NONE, _NONE)
        found = _split_by(text, *odd, byte_table, classes, max_token_bytes, room)
        keys = room.keys[: found.tokens]
        if plain_words.make_keys(room.folded, plain_words.eights_of(room.folded), room.offsets, keys, max_token_bytes):
            return found
    return _split_by(text, *whole, byte_table, classes, max_token_bytes, room)


def _split_by(
    text: NDArray[np.uint8], starts: NDArray[np.int64], stops: NDArray[np.int64], byte_table: NDArray[np.uint8],
    classes: NDArray[np.uint8], max_token_bytes: int, room: WordRoom,
) -> Split:  # fmt: skip
    samples, state = np.zeros((SAMPLES, SHOWN_BYTES), np.uint8), np.zeros(7, np.int64)
    _split_stretches(text, starts, stops, byte_table, classes, max_token_bytes, *room, samples, state)
    dropped = int(state[DROPPED])
    shown = [bytes(sample).rstrip(b"\0") for sample in samples[: min(dropped, SAMPLES)]]
    return Split(int(state[TOKENS]), int(state[SENTENCES]), dropped, int(state[DROPPED_BYTES]), shown)


@compiled
def _split_stretches(  # type: ignore[no-untyped-def]
    text, starts, stops, byte_table, classes, max_bytes, folded, keys, offsets, sentence_ends, sentence_lines, samples, state
):
    """Splits text[starts[i]:stops[i]] the general way, all between them the plain one. `keys` has keys of the former only."""
    offsets[0] = 0
    after = 0
    for i in range(len(starts) + 1):
        last = starts[i] if i < len(starts) else len(text)
        if last > after:
            plain_words.split(text, after, last, byte_table, folded, offsets, sentence_ends, sentence_lines, state)
        if i < len(starts):
            after = stops[i]
            general_words.split(
                text, last, after, byte_table, classes, max_bytes, folded, keys, offsets, sentence_ends, sentence_lines,
                samples, state,
            )  # fmt: skip
    if state[TOKENS] > state[OPENED]:
        sentence_ends[state[SENTENCES]] = state[TOKENS]
        sentence_lines[state[SENTENCES]] = state[LINE]
        state[SENTENCES] += 1
