"""The words of UTF-8 text as dense ids: text is split, case-folded, hashed and counted without creating any string object.

`WordTable` assigns ids in order of first occurrence, so the ids are a function of the text alone. It makes two passes over a
chunk that fits into the cache: `split` writes the words' bytes end to end and a 64-bit key for each word, `_look_up` turns keys
into ids (a single pass took twice as long: it needed more registers than there are).

The key of a word of at most eight bytes is the word itself, which is exact because no word contains NUL. The key of a longer
word is a hash, and a slot with the same hash is compared byte by byte: two words never share an id, even in a text made for
that purpose. Slots are (key, id + 1) pairs, so looking up a short word touches one cache line.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from w2v_core.kernels.cpu.machine_code import compiled
from w2v_core.text.hashing import key_of, mix
from w2v_core.text.plain_words import PAD_BYTES
from w2v_core.text.splitting import SAMPLES, SHOWN_BYTES, split, word_room

_LONG = np.uint64(1 << 63)
"""Set in a slot's second number if its key is a hash."""


class WordTable:
    """The distinct words seen so far, with their counts; ids are numbered from 0 in order of first occurrence."""

    def __init__(self, max_token_bytes: int) -> None:
        self.max_token_bytes = max_token_bytes
        self.dropped = 0
        """Number of tokens longer than max_token_bytes; they get no id and are not counted."""
        self.dropped_bytes = 0
        self.dropped_samples: list[bytes] = []
        """The first bytes (at most SHOWN_BYTES) of the first three dropped tokens."""
        self._words = 0
        self._slots = np.zeros(2 << 14, np.uint64)
        self._ends = np.zeros(1 << 14, np.int64)
        self._counts = np.zeros(1 << 14, np.int64)
        self._arena = np.zeros(1 << 17, np.uint8)
        self._room = word_room(0)

    def __len__(self) -> int:
        return self._words

    @property
    def slots(self) -> int:
        """Number of slots, used and free, that the table has now."""
        return len(self._slots) // 2

    def words(self) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
        """(data, ends, counts): word i is data[ends[i−1]:ends[i]], UTF-8, and occurred counts[i] times."""
        ends = self._ends[: self._words]
        return self._arena[: ends[-1] if len(ends) else 0], ends, self._counts[: self._words]

    def encode(
        self, text_Y: NDArray[np.uint8], byte_table: NDArray[np.uint8], character_classes: NDArray[np.uint8]
    ) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
        """(ids, exclusive end of each sentence, its line) of valid UTF-8 text. Each line is a sentence; empty lines are left out.

        `byte_table[256]` maps each ASCII byte to its class or to the byte it becomes, `character_classes[0x110000]` every other
        character to its class (it may be empty if the text is ASCII). The last line needs no newline.
        """
        if len(text_Y) + PAD_BYTES > len(self._room.folded):
            self._room = word_room(2 * len(text_Y))
        found = split(text_Y, byte_table, character_classes, self.max_token_bytes, self._room)
        self._drop(found.dropped, found.dropped_bytes, found.samples)
        ids_N = self._look_up(self._room.folded, self._room.offsets, self._room.keys[: found.tokens])
        ends_S, lines_S = self._room.sentence_ends[: found.sentences], self._room.sentence_lines[: found.sentences]
        return ids_N, ends_S.copy(), lines_S.copy()

    def intern(self, data: NDArray[np.uint8], offsets: NDArray[np.int64], occurrences: NDArray[np.int64]) -> NDArray[np.int32]:
        """The ids of distinct words that are already split: word i is data[offsets[i]:offsets[i+1]] and occurs occurrences[i]
        times.

        Words longer than max_token_bytes get the id −1 and are counted as dropped.
        """
        lengths = np.diff(offsets)
        long = np.flatnonzero(lengths > self.max_token_bytes)
        shown = np.repeat(long[:SAMPLES], occurrences[long[:SAMPLES]].clip(max=SAMPLES))[:SAMPLES]
        self._drop(
            int(occurrences[long].sum()),
            int((occurrences[long] * lengths[long]).sum()),
            [bytes(data[offsets[i] : offsets[i] + min(lengths[i], SHOWN_BYTES)]) for i in shown],
        )
        keys = np.empty(len(lengths), np.uint64)
        _key_words(data, offsets, keys)
        ids = np.full(len(lengths), -1, np.int32)
        for start, stop in zip([0, *(long + 1)], [*long, len(ids)], strict=True):
            ids[start:stop] = self._look_up(data, offsets[start : stop + 1], keys[start:stop])
        kept = ids >= 0
        self._counts[ids[kept]] += occurrences[kept] - 1
        return ids

    def _drop(self, count: int, size: int, samples: list[bytes]) -> None:
        self.dropped += count
        self.dropped_bytes += size
        self.dropped_samples = [*self.dropped_samples, *samples][:SAMPLES]

    def _look_up(self, data: NDArray[np.uint8], offsets: NDArray[np.int64], keys_N: NDArray[np.uint64]) -> NDArray[np.int32]:
        ids_N = np.empty(len(keys_N), np.int32)
        position = 0
        while True:
            position, self._words = _look_up(
                data, offsets, keys_N, position, self._words, self._slots, self._ends, self._counts, self._arena, ids_N
            )  # fmt: skip
            if position == len(keys_N):
                return ids_N
            self._grow(int(offsets[position + 1] - offsets[position]))

    def _grow(self, word_bytes: int) -> None:
        """Makes room for at least one word of `word_bytes` bytes; at most half of the slots are ever used."""
        used = len(self.words()[0])
        while len(self._arena) < used + word_bytes:
            self._arena = np.concatenate([self._arena, np.zeros_like(self._arena)])
        if 4 * (self._words + 1) > len(self._slots):
            self._slots = np.zeros(2 * len(self._slots), np.uint64)
            _rehash(self._words, self._ends, self._arena, self._slots)
        if self._words + 1 > len(self._ends):
            self._ends = np.concatenate([self._ends, np.zeros_like(self._ends)])
            self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])


@compiled
def _key_words(data, offsets, keys):  # type: ignore[no-untyped-def]
    for i in range(len(keys)):
        keys[i] = key_of(data, offsets[i], offsets[i + 1] - offsets[i])


@compiled
def _look_up(data, offsets, keys, position, words, slots, ends, counts, arena, ids):  # type: ignore[no-untyped-def]
    """Writes the ids of the words from `position` on, up to the end or to a new word for which there is no room; returns
    (position reached, number of distinct words)."""
    one = np.uint64(1)
    mask = np.uint64(len(slots) // 2 - 1)
    at, stop = np.uint64(position), np.uint64(len(keys))
    while at < stop:
        key = keys[at]
        long = np.uint64(offsets[at + one] - offsets[at] > 8) << np.uint64(63)
        slot = mix(key) & mask
        while True:
            found, entry = slots[slot + slot], slots[slot + slot + one]
            if entry == 0:
                if not _has_room(words, slots, ends, arena, offsets[at + one] - offsets[at]):
                    return np.int64(at), words
                word_id = np.uint64(words)
                _append(words, ends, arena, data, offsets[at], offsets[at + one])
                slots[slot + slot] = key
                slots[slot + slot + one] = (word_id + one) | long
                words += 1
                break
            if found == key and entry & _LONG == long:
                word_id = (entry & ~_LONG) - one
                if long == 0 or _same(ends, arena, np.int64(word_id), data, offsets[at], offsets[at + one]):
                    break
            slot = (slot + one) & mask
        counts[word_id] += 1
        ids[at] = word_id
        at += one
    return np.int64(at), words


@njit(nogil=True, cache=True)
def _has_room(words, slots, ends, arena, length):  # type: ignore[no-untyped-def]
    used = ends[words - 1] if words > 0 else 0
    return 4 * (words + 1) <= len(slots) and words < len(ends) and used + length <= len(arena)


@njit(nogil=True, cache=True)
def _append(words, ends, arena, data, start, stop):  # type: ignore[no-untyped-def]
    used = ends[words - 1] if words > 0 else 0
    for at in range(stop - start):
        arena[used + at] = data[start + at]
    ends[words] = used + stop - start


@njit(nogil=True, cache=True)
def _same(ends, arena, word_id, data, start, stop):  # type: ignore[no-untyped-def]
    """Whether the word `word_id` is data[start:stop]."""
    first = ends[word_id - 1] if word_id > 0 else 0
    if ends[word_id] - first != stop - start:
        return False
    for at in range(stop - start):  # noqa: SIM110 - compiled
        if arena[first + at] != data[start + at]:
            return False
    return True


@compiled
def _rehash(words, ends, arena, slots):  # type: ignore[no-untyped-def]
    mask = np.uint64(len(slots) // 2 - 1)
    start = 0
    for word_id in range(words):
        length = ends[word_id] - start
        key = key_of(arena, start, length)
        start = ends[word_id]
        slot = mix(key) & mask
        while slots[slot + slot + np.uint64(1)] != 0:
            slot = (slot + np.uint64(1)) & mask
        slots[slot + slot] = key
        slots[slot + slot + np.uint64(1)] = np.uint64(word_id + 1) | (_LONG if length > 8 else np.uint64(0))
