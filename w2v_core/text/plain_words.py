"""Plain text, which most text is: ASCII that is letters and what separates them, split without a branch a byte.

`splitting.split` takes this way where it can; general_words.py gives the same words. What a processor cannot predict
is where words end; so every byte is written and counted as if one ended there, and the counters decide what stays. Keys are
loads of eight bytes, not sums over letters.
"""

from __future__ import annotations

import sys

import numpy as np
from numba import njit
from numpy.typing import NDArray

from w2v_core.kernels.cpu.machine_code import compiled
from w2v_core.text.character_classes import ASCII_INNER, NEWLINE
from w2v_core.text.hashing import absorb

PAD_BYTES = 8
"""Behind the folded text there must be room for a load of eight bytes that begins at its last one."""
_UNDERSCORE = 95
USED, TOKENS, SENTENCES, LINE, OPENED, DROPPED, DROPPED_BYTES = range(7)
"""How far a text is split, int64[7]: bytes of folded words, words, sentences, lines, the word that the open sentence begins with,
and the over-long words left out with their bytes. It goes from one stretch of a text to the next."""


def has_plain_words(byte_table: NDArray[np.uint8]) -> bool:
    """Whether each byte of ASCII text either belongs to words or not: none is part of words only between two letters."""
    return not (byte_table == ASCII_INNER).any() and sys.byteorder == "little"


def eights_of(data: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """The eight bytes that begin at each byte but the last seven, as a number."""
    return np.ndarray((max(0, len(data) - PAD_BYTES + 1),), np.uint64, data, strides=(1,))


@compiled
def split(text, start, stop, byte_table, folded, offsets, sentence_ends, sentence_lines, state):  # type: ignore[no-untyped-def]
    """Splits text[start:stop], which begins and ends between words: word i's bytes are folded[offsets[i]:offsets[i+1]]. `state`
    is taken up and handed on."""
    used, tokens, inside = np.uint64(state[USED]), np.uint64(state[TOKENS]), np.uint64(0)
    one = np.uint64(1)
    sentences, line, opened = state[SENTENCES], state[LINE], np.uint64(state[OPENED])
    for position in range(np.uint64(start), np.uint64(stop)):
        value = byte_table[text[position]]
        letter = np.uint64(value > NEWLINE)
        folded[used] = value
        used += letter
        offsets[tokens + one] = used
        tokens += inside & (letter ^ one)
        inside = letter
        if value == NEWLINE:
            if tokens > opened:
                sentence_ends[sentences] = tokens
                sentence_lines[sentences] = line
                sentences += 1
                opened = tokens
            line += 1
    tokens += inside
    state[USED], state[TOKENS], state[SENTENCES], state[LINE], state[OPENED] = used, tokens, sentences, line, opened


@compiled
def make_keys(folded, eights, offsets, keys, max_bytes):  # type: ignore[no-untyped-def]
    """Whether all words are words: none longer than `max_bytes`, none of underscores alone; then `keys` has their keys."""
    one, eight, all_bits = np.uint64(1), np.uint64(8), ~np.uint64(0)
    longest, underscored = np.uint64(0), False
    for at in range(np.uint64(len(keys))):
        start = np.uint64(offsets[at])
        length = np.uint64(offsets[at + one]) - start
        longest = max(longest, length)
        first = eights[start]
        underscored |= (first & np.uint64(0xFF)) == _UNDERSCORE
        key = first & (all_bits >> ((eight - min(length, eight)) << np.uint64(3)))
        if length > eight:
            key = _hash(eights, start, length)
        keys[at] = key
    if longest > np.uint64(max_bytes):
        return False
    return not (underscored and _has_underscores_alone(folded, offsets, len(keys)))


@compiled
def _hash(eights, start, length):  # type: ignore[no-untyped-def]
    """As `hashing.key_of` a long word."""
    eight, h = np.uint64(8), np.uint64(0)
    while length > eight:
        h = absorb(h, eights[start])
        start += eight
        length -= eight
    return absorb(h, eights[start] & (~np.uint64(0) >> ((eight - length) << np.uint64(3))))


@njit(nogil=True, cache=True)
def _has_underscores_alone(folded, offsets, tokens):  # type: ignore[no-untyped-def]
    for token in range(tokens):
        alone = True
        for at in range(offsets[token], offsets[token + 1]):
            alone &= folded[at] == _UNDERSCORE
        if alone:
            return True
    return False
