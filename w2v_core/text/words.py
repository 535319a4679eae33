"""The words of UTF-8 text as dense ids: text is split, case-folded, hashed and counted without creating any string object.

`WordTable` assigns ids in order of first occurrence, so the ids are a function of the text alone. It makes two passes over a
chunk that fits into the cache: `_scan` writes the words' bytes end to end and a 64-bit key for each word, `_look_up` turns keys
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
from w2v_core.text import plain_words
from w2v_core.text.character_classes import IGNORED, INNER, JOINER, MARK, REGIONAL, SOLO, SYMBOL, WORD
from w2v_core.text.hashing import key_of, mix

SHOWN_BYTES = 120
_SAMPLES = 3
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
        self._scratch = _scratch(0)

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
        if len(text_Y) + plain_words.PAD_BYTES > len(self._scratch[0]):
            self._scratch = _scratch(2 * len(text_Y))
        folded, keys_N, offsets, ends_S, lines_S = self._scratch
        if plain_words.is_plain(byte_table, character_classes):
            tokens, sentences = plain_words.split(text_Y, byte_table, folded, offsets, ends_S, lines_S)
            keys_N = keys_N[:tokens]
            if plain_words.make_keys(folded, plain_words.eights_of(folded), offsets, keys_N, self.max_token_bytes):
                return self._look_up(folded, offsets, keys_N), ends_S[:sentences].copy(), lines_S[:sentences].copy()
            keys_N = self._scratch[1]
        samples = np.zeros((_SAMPLES, SHOWN_BYTES), np.uint8)
        tokens, sentences, dropped, dropped_bytes = _scan(
            text_Y, byte_table, character_classes, self.max_token_bytes, folded, keys_N, offsets, ends_S, lines_S, samples
        )  # fmt: skip
        self._drop(dropped, int(dropped_bytes), [bytes(sample).rstrip(b"\0") for sample in samples[: min(dropped, _SAMPLES)]])
        return self._look_up(folded, offsets, keys_N[:tokens]), ends_S[:sentences].copy(), lines_S[:sentences].copy()

    def intern(self, data: NDArray[np.uint8], offsets: NDArray[np.int64], occurrences: NDArray[np.int64]) -> NDArray[np.int32]:
        """The ids of distinct words that are already split: word i is data[offsets[i]:offsets[i+1]] and occurs occurrences[i]
        times.

        Words longer than max_token_bytes get the id −1 and are counted as dropped.
        """
        lengths = np.diff(offsets)
        long = np.flatnonzero(lengths > self.max_token_bytes)
        shown = np.repeat(long[:_SAMPLES], occurrences[long[:_SAMPLES]].clip(max=_SAMPLES))[:_SAMPLES]
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
        self.dropped_samples = [*self.dropped_samples, *samples][:_SAMPLES]

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


_Scratch = tuple[NDArray[np.uint8], NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def _scratch(text_bytes: int) -> _Scratch:
    """(folded, keys, offsets, sentence ends, their lines) with room for any text of `text_bytes` bytes. Kept between calls,
    because fresh memory pages cost time. A word takes at least two bytes: a letter and a separator, or one character outside
    ASCII."""
    tokens = text_bytes // 2 + 1
    return (
        np.empty(text_bytes + plain_words.PAD_BYTES, np.uint8),
        np.empty(tokens, np.uint64),
        np.empty(tokens + 1, np.int64),
        np.empty(tokens, np.int64),
        np.empty(tokens, np.int64),
    )


@compiled
def _key_words(data, offsets, keys):  # type: ignore[no-untyped-def]
    for i in range(len(keys)):
        keys[i] = key_of(data, offsets[i], offsets[i + 1] - offsets[i])


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
def _scan(  # type: ignore[no-untyped-def]  # noqa: C901 - one loop over bytes, one over words
    text, byte_table, classes, max_bytes, folded, keys, offsets, sentence_ends, sentence_lines, samples
):
    """(tokens, sentences, dropped tokens, their bytes): word i is folded[offsets[i]:offsets[i+1]], its key is keys[i].

    The first bytes of the first dropped tokens are written to `samples`.
    """
    size = np.uint64(len(text))
    one, seven, eight = np.uint64(1), np.uint64(7), np.uint64(8)
    limit = np.uint64(max_bytes)
    position, used = np.uint64(0), np.uint64(0)
    tokens, sentences, dropped, opened, line = 0, 0, 0, 0, 0
    dropped_bytes = np.uint64(0)
    offsets[0] = 0
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
    if tokens > opened:
        sentence_ends[sentences] = tokens
        sentence_lines[sentences] = line
        sentences += 1
    return tokens, sentences, dropped, dropped_bytes


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
