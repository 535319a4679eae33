"""Any text: every character by its class, one word after the other.

`splitting.split` takes this way for stretches that are not plain. A character belongs to one of the classes that
`character_classes` lists.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from w2v_core.kernels.cpu.machine_code import compiled
from w2v_core.text.character_classes import IGNORED, INNER, JOINER, MARK, REGIONAL, SOLO, SYMBOL, WORD
from w2v_core.text.hashing import key_of
from w2v_core.text.plain_words import DROPPED, DROPPED_BYTES, LINE, OPENED, SENTENCES, TOKENS, USED


@njit(nogil=True, cache=True, inline="always")
def _character(text, position):  # type: ignore[no-untyped-def]
    """(code point, bytes) of the multi-byte character that begins at `position`."""
    byte = text[position]
    width = np.uint64(1) + np.uint64(byte >= 0xC0) + np.uint64(byte >= 0xE0) + np.uint64(byte >= 0xF0)
    code = np.uint32(byte) & (np.uint32(0x7F) >> np.uint32(width))
    for following in range(position + np.uint64(1), position + width):
        code = (code << np.uint32(6)) | np.uint32(text[following] & 0x3F)
    return code, width


@compiled
def _solo(text, classes, position, folded, used):  # type: ignore[no-untyped-def]
    """(position after it, length in bytes) of the word that begins with a character that is a word by itself."""
    size, length = np.uint64(len(text)), np.uint64(0)
    code, width = _character(text, position)
    kind = classes[code]
    alone = True
    while True:
        for at in range(position, position + width):
            folded[used + length] = text[at]
            length += np.uint64(1)
        position += width
        joined = np.uint64(0)
        while True:
            behind = position + joined
            if behind >= size or text[behind] < 128:
                return position, length
            code, width = _character(text, behind)
            following = classes[code]
            if following == IGNORED and joined == 0:
                position += width
            elif following == JOINER and kind == SYMBOL and joined == 0:
                joined = width
            else:
                break
        if joined > 0:
            if following != SYMBOL:
                return position, length
            width += joined
        elif following == REGIONAL and kind == REGIONAL and alone:
            alone = False
        elif following != MARK:
            return position, length


@njit(nogil=True, cache=True)
def _only_underscores(folded, used, length):  # type: ignore[no-untyped-def]
    """Whether all ASCII characters of the word are underscores."""
    for at in range(used, used + length):  # noqa: SIM110 - compiled
        if folded[at] < 128 and folded[at] != 95:
            return False
    return True


@compiled
def split(  # type: ignore[no-untyped-def]  # noqa: C901 - one loop over bytes, one over words
    text, start, stop, byte_table, classes, max_bytes, folded, keys, offsets, sentence_ends, sentence_lines, samples, state
):
    """Splits text[start:stop], which begins and ends between words: word i is folded[offsets[i]:offsets[i+1]], its key keys[i].

    The first bytes of the first dropped tokens are written to `samples`. `state` is taken up and handed on.
    """
    size = np.uint64(stop)
    one, seven, eight = np.uint64(1), np.uint64(7), np.uint64(8)
    limit = np.uint64(max_bytes)
    position, used = np.uint64(start), np.uint64(state[USED])
    tokens, sentences, dropped, opened, line = state[TOKENS], state[SENTENCES], state[DROPPED], state[OPENED], state[LINE]
    dropped_bytes = np.uint64(0)
    while position < size:
        packed, length = np.uint64(0), np.uint64(0)
        # The begin and end of the last run of joiners; the word ends before it if nothing follows.
        joined_from, joined_to = np.uint64(0), np.uint64(0)
        newline, letters = False, False
        while position < size:
            byte = text[position]
            if byte < 128:
                value = byte_table[byte]
                position += one
                if value > 2:
                    packed |= np.uint64(value) << ((length & seven) << np.uint64(3))
                    folded[used + length] = value
                    length += one
                    continue
                if value < 2:
                    newline = value == 1
                    break
                if length > 0:
                    if joined_to == length:
                        break
                    joined_from = length
                    folded[used + length] = byte
                    packed |= np.uint64(byte) << ((length & seven) << np.uint64(3))
                    length += one
                    joined_to = length
                continue
            code, width = _character(text, position)
            kind = classes[code]
            if kind >= SOLO:
                if length == 0:
                    position, length = _solo(text, classes, position, folded, used)
                    packed, letters = key_of(folded, used, min(length, eight)), True
                break
            if kind == WORD or (kind >= MARK and length > 0):
                if kind >= JOINER:
                    if joined_to != length:
                        joined_from = length
                    elif kind == INNER:
                        position += width
                        break
                    joined_to = length + width
                letters |= kind == WORD
                for at in range(position, position + width):
                    packed |= np.uint64(text[at]) << ((length & seven) << np.uint64(3))
                    folded[used + length] = text[at]
                    length += one
            position += width
            if kind < 2:
                break
        if length > 0 and joined_to == length:
            length = joined_from
            packed = key_of(folded, used, min(length, eight))
        if length > 0 and folded[used] == 95 and not letters and _only_underscores(folded, used, length):
            length = np.uint64(0)
        if length > limit:
            if dropped < len(samples):
                for at in range(min(length, np.uint64(samples.shape[1]))):
                    samples[dropped, at] = folded[used + at]
            dropped += 1
            dropped_bytes += length
        elif length > 0:
            keys[tokens] = packed if length <= eight else key_of(folded, used, length)
            used += length
            tokens += 1
            offsets[tokens] = used
        if newline:
            if tokens > opened:
                sentence_ends[sentences] = tokens
                sentence_lines[sentences] = line
                sentences += 1
                opened = tokens
            line += 1
    state[USED], state[TOKENS], state[SENTENCES], state[DROPPED], state[OPENED], state[LINE] = (
        used, tokens, sentences, dropped, opened, line,
    )  # fmt: skip
    state[DROPPED_BYTES] += np.int64(dropped_bytes)
