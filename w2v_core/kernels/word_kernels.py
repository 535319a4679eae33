"""Words of UTF-8 text as dense ids: one pass that splits, folds case, hashes and counts, without one string object.

`WordTable` hands out ids in order of first occurrence, so the ids are a function of the text alone. The pass
reads each byte once and looks each word up in an open-addressing table whose slots carry 32 bits of the hash beside the
id; a slot that agrees is confirmed byte by byte, so two words never share an id, whatever the text's author wished.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

SEPARATOR, NEWLINE, IGNORED, WORD = 0, 1, 2, 3
"""Classes of a character. In a byte table, a value above IGNORED is the byte that the word receives."""
SHOWN_BYTES = 120
_SAMPLES = 3
_POSITION, _TOKENS, _SENTENCES, _WORDS, _ARENA, _DROPPED, _OPEN = range(7)
"""Cells of the state that survives between two calls of the kernel."""


class WordTable:
    """The distinct words met so far, with their counts; ids count up from 0 in order of first occurrence."""

    def __init__(self, max_token_bytes: int) -> None:
        self.max_token_bytes = max_token_bytes
        self._state = np.zeros(7, np.int64)
        self._slots = np.zeros(1 << 12, np.uint64)
        self._ends = np.zeros(1 << 11, np.int64)
        self._counts = np.zeros(1 << 11, np.int64)
        self._arena = np.zeros(max_token_bytes + (1 << 14), np.uint8)
        self._samples = np.zeros((_SAMPLES, SHOWN_BYTES), np.uint8)

    def __len__(self) -> int:
        return int(self._state[_WORDS])

    @property
    def dropped(self) -> int:
        """How many tokens were longer than max_token_bytes; they have no id and no count."""
        return int(self._state[_DROPPED])

    @property
    def dropped_samples(self) -> list[bytes]:
        """The first bytes (at most SHOWN_BYTES) of the first three tokens dropped."""
        return [bytes(row).rstrip(b"\0") for row in self._samples[: min(_SAMPLES, self.dropped)]]

    def words(self) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
        """(data, ends, counts): word i is the bytes data[ends[i−1]:ends[i]] and occurred counts[i] times."""
        words = len(self)
        return self._arena[: self._state[_ARENA]], self._ends[:words], self._counts[:words]

    def encode(
        self, text_M: NDArray[np.uint8], byte_table: NDArray[np.uint8], character_classes: NDArray[np.uint8]
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """(ids, exclusive end of each sentence) of valid UTF-8 text, a sentence a line, empty lines left out.

        `byte_table[256]` gives each ASCII byte's class or the byte it becomes; `character_classes[0x110000]` the class of
        every other character (it may be empty when the text is ASCII). The last line needs no newline.
        """
        ids_N = np.empty(len(text_M) // 2 + 1, np.int32)
        ends_S = np.empty(len(text_M) // 2 + 1, np.int64)
        self._state[[_POSITION, _TOKENS, _SENTENCES, _OPEN]] = 0
        while self._state[_POSITION] < len(text_M):
            self._make_room()
            _encode(
                text_M, byte_table, character_classes, self.max_token_bytes, self._state, self._slots, self._ends,
                self._counts, self._arena, self._samples, ids_N, ends_S,
            )  # fmt: skip
        tokens, sentences = self._state[_TOKENS], self._state[_SENTENCES]
        if tokens > self._state[_OPEN]:
            ends_S[sentences] = tokens
            sentences += 1
        return ids_N[:tokens].copy(), ends_S[:sentences].copy()

    def intern(
        self, data: NDArray[np.uint8], offsets: NDArray[np.int32], occurrences: NDArray[np.int64]
    ) -> NDArray[np.int32]:
        """Ids of words that are already split: word i is data[offsets[i]:offsets[i+1]] and occurred occurrences[i] times.

        Words longer than max_token_bytes get −1 and are counted as dropped.
        """
        ids = np.empty(len(occurrences), np.int32)
        self._state[_POSITION] = 0
        while self._state[_POSITION] < len(ids):
            self._make_room()
            _intern(
                data, offsets, occurrences, self.max_token_bytes, self._state, self._slots, self._ends, self._counts,
                self._arena, self._samples, ids,
            )  # fmt: skip
        return ids

    def _make_room(self) -> None:
        """Leaves the kernel free to add at least one word: slots under half full, the arena with a word's room."""
        words, used = len(self), int(self._state[_ARENA])
        if len(self._arena) < used + self.max_token_bytes + 1:
            self._arena = np.concatenate([self._arena, np.zeros(len(self._arena), np.uint8)])
        if 2 * (words + 1) > len(self._slots):
            self._slots = np.zeros(4 * len(self._slots), np.uint64)
            _rehash(words, self._ends, self._arena, self._slots)
        if words + 1 > len(self._ends):
            self._ends = np.concatenate([self._ends, np.zeros(len(self._ends), np.int64)])
            self._counts = np.concatenate([self._counts, np.zeros(len(self._counts), np.int64)])


@njit(nogil=True, cache=True, inline="always")
def _step(h, byte):  # type: ignore[no-untyped-def]
    return (h ^ np.uint64(byte)) * np.uint64(0x100000001B3)


@njit(nogil=True, cache=True, inline="always")
def _finish(h):  # type: ignore[no-untyped-def]
    h ^= h >> np.uint64(32)
    h *= np.uint64(0x9E3779B97F4A7C15)
    return h ^ (h >> np.uint64(29))


@njit(nogil=True, cache=True)
def _rehash(words, ends, arena, slots):  # type: ignore[no-untyped-def]
    mask = np.uint64(len(slots) - 1)
    start = 0
    for word_id in range(words):
        h = np.uint64(0xCBF29CE484222325)
        for at in range(start, ends[word_id]):
            h = _step(h, arena[at])
        start = ends[word_id]
        h = _finish(h)
        slot = h & mask
        while slots[slot] != 0:
            slot = (slot + np.uint64(1)) & mask
        slots[slot] = (h & np.uint64(0xFFFFFFFF00000000)) | np.uint64(word_id + 1)


@njit(nogil=True, cache=True, inline="always")
def _find(h, start, length, words, slots, ends, arena):  # type: ignore[no-untyped-def]
    """Id of the word in arena[start:start+length], which is new when the id equals `words` (its slot is then filled)."""
    mask = np.uint64(len(slots) - 1)
    tag = h & np.uint64(0xFFFFFFFF00000000)
    slot = h & mask
    while slots[slot] != 0:
        entry = slots[slot]
        if entry & np.uint64(0xFFFFFFFF00000000) == tag:
            word_id = np.int64(entry & np.uint64(0xFFFFFFFF)) - 1
            first = ends[word_id - 1] if word_id > 0 else 0
            if ends[word_id] - first == length:
                same = 0
                while same < length and arena[first + same] == arena[start + same]:
                    same += 1
                if same == length:
                    return word_id
        slot = (slot + np.uint64(1)) & mask
    slots[slot] = tag | np.uint64(words + 1)
    return words


@njit(nogil=True, cache=True)
def _encode(  # type: ignore[no-untyped-def]
    text, byte_table, classes, max_bytes, state, slots, ends, counts, arena, samples, ids, sentence_ends
):
    """Goes on from state[_POSITION] to the end of the text, or until the table has no room for one more word."""
    size = len(text)
    position, tokens, sentences = state[0], state[1], state[2]
    words, used, opened = state[3], state[4], state[6]
    while position < size:
        if 2 * (words + 1) > len(slots) or words + 1 > len(ends) or used + max_bytes + 1 > len(arena):
            break
        # One word: its bytes go to the arena's free end, where they stay if the word is new.
        h = np.uint64(0xCBF29CE484222325)
        length = 0
        newline = False
        while position < size:
            byte = text[position]
            if byte < 128:
                value = byte_table[byte]
                position += 1
                if value > 2:
                    if length < max_bytes:
                        arena[used + length] = value
                    h = _step(h, value)
                    length += 1
                elif value < 2:
                    newline = value == 1
                    break
                continue
            if byte < 0xE0:
                width, code = 2, np.uint32(byte & 0x1F)
            elif byte < 0xF0:
                width, code = 3, np.uint32(byte & 0x0F)
            else:
                width, code = 4, np.uint32(byte & 0x07)
            for following in range(1, width):
                code = (code << np.uint32(6)) | np.uint32(text[position + following] & 0x3F)
            kind = classes[code]
            if kind == 3:
                for at in range(position, position + width):
                    if length < max_bytes:
                        arena[used + length] = text[at]
                    h = _step(h, text[at])
                    length += 1
            position += width
            if kind < 2:
                break
        if length > max_bytes:
            if state[5] < len(samples):
                for at in range(min(max_bytes, samples.shape[1])):
                    samples[state[5], at] = arena[used + at]
            state[5] += 1
        elif length > 0:
            word_id = _find(_finish(h), used, length, words, slots, ends, arena)
            if word_id == words:
                used += length
                ends[words] = used
                counts[words] = 0
                words += 1
            counts[word_id] += 1
            ids[tokens] = word_id
            tokens += 1
        if newline and tokens > opened:
            sentence_ends[sentences] = tokens
            sentences += 1
            opened = tokens
    state[0], state[1], state[2] = position, tokens, sentences
    state[3], state[4], state[6] = words, used, opened


@njit(nogil=True, cache=True)
def _intern(  # type: ignore[no-untyped-def]
    data, offsets, occurrences, max_bytes, state, slots, ends, counts, arena, samples, ids
):
    """Goes on from state[_POSITION] to the last word, or until the table has no room for one more."""
    position, words, used = state[0], state[3], state[4]
    while position < len(ids):
        if 2 * (words + 1) > len(slots) or words + 1 > len(ends) or used + max_bytes + 1 > len(arena):
            break
        start, length = offsets[position], np.int64(offsets[position + 1] - offsets[position])
        if length > max_bytes:
            for _ in range(min(occurrences[position], len(samples))):
                if state[5] < len(samples):
                    for at in range(min(length, samples.shape[1])):
                        samples[state[5], at] = data[start + at]
                state[5] += 1
            state[5] += max(0, occurrences[position] - len(samples))
            ids[position] = -1
        else:
            h = np.uint64(0xCBF29CE484222325)
            for at in range(length):
                arena[used + at] = data[start + at]
                h = _step(h, data[start + at])
            word_id = _find(_finish(h), used, length, words, slots, ends, arena)
            if word_id == words:
                used += length
                ends[words] = used
                counts[words] = 0
                words += 1
            counts[word_id] += occurrences[position]
            ids[position] = word_id
        position += 1
    state[0], state[3], state[4] = position, words, used
