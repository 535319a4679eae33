"""Splitting, folding, counting and numbering the words of UTF-8 text: the compiled table against plain Python."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from w2v_core.text import plain_words
from w2v_core.text.character_classes import (
    ASCII_INNER,
    IGNORED,
    INNER,
    JOINER,
    MARK,
    NEWLINE,
    REGIONAL,
    SEPARATOR,
    SOLO,
    SYMBOL,
    WORD,
)
from w2v_core.text.hashing import absorb, key_of, mix
from w2v_core.text.splitting import SHOWN_BYTES
from w2v_core.text.words import WordTable

Bytes = NDArray[np.uint8]

SEPARATORS, IGNORED_CHARACTERS = " ,\0\u3000\u2028", "\u00ad\U000e0001"
CLASSES_OF = {
    SEPARATOR: SEPARATORS, IGNORED: IGNORED_CHARACTERS, MARK: "\u0301\U0001f3fb", JOINER: "\u200c\u200d", INNER: "'’",
    SOLO: "中国", SYMBOL: "😀❤", REGIONAL: "🇩🇪",
}  # fmt: skip
FOLDED = {letter: letter.lower() for letter in "ABCXYZ"}
MASK64 = (1 << 64) - 1
FIRST_SLOTS = WordTable(8).slots


def _tables() -> tuple[Bytes, Bytes]:
    """(byte_table, character_classes) of the rules above; every other character belongs to a word."""
    byte_table = np.arange(256, dtype=np.uint8)
    byte_table[[ord(letter) for letter in FOLDED]] = [ord(letter) for letter in FOLDED.values()]
    byte_table[ord("\n")] = NEWLINE
    classes = np.full(0x110000, WORD, np.uint8)
    for kind, characters in CLASSES_OF.items():
        for character in characters:
            if ord(character) < 128:
                byte_table[ord(character)] = ASCII_INNER if kind == INNER else kind
            else:
                classes[ord(character)] = kind
    # 1 and 2 as bytes of a word would be read as classes, so they separate (the tokenizers do the same).
    byte_table[[1, 2]] = SEPARATOR
    return byte_table, classes


BYTE_TABLE, CLASSES = _tables()


def _encode(table: WordTable, text: str) -> tuple[list[int], list[int]]:
    ids, ends, lines = table.encode(np.frombuffer(text.encode(), np.uint8), BYTE_TABLE, CLASSES)
    assert (ids.dtype, ends.dtype, lines.dtype) == (np.int32, np.int64, np.int64)
    assert len(ends) == len(lines)
    return ids.tolist(), ends.tolist()


def _intern(table: WordTable, words: list[bytes], occurrences: list[int] | None = None) -> list[int]:
    offsets = np.cumsum([0, *map(len, words)], dtype=np.int64)
    counts = np.array(occurrences or [1] * len(words), np.int64)
    return table.intern(np.frombuffer(b"".join(words), np.uint8), offsets, counts).tolist()


def _known(table: WordTable) -> dict[bytes, int]:
    """The table's words in order of id, with their counts."""
    data, ends, counts = table.words()
    assert len(ends) == len(counts) == len(table)
    edges = itertools.pairwise([0, *ends.tolist()])
    return {bytes(data[start:end]): int(count) for (start, end), count in zip(edges, counts.tolist(), strict=True)}


def _kind(character: str) -> int:
    if character in "\x01\x02":
        return SEPARATOR
    return next((kind for kind, characters in CLASSES_OF.items() if character in characters), WORD)


def _sentences(text: str) -> list[list[bytes]]:
    """The words of each line by the rules above, empty lines included: plain Python, character by character."""
    return [[word.encode() for word in _words(line)] for line in text.split("\n")]


def _words(line: str) -> list[str]:
    found: list[str] = []
    rest = "".join(character for character in line if _kind(character) != IGNORED)
    while rest:
        word, rest = _first_word(rest)
        if word := "".join(FOLDED.get(character, character) for character in word):
            found.append(word)
    return [word for word in found if any(character != "_" and _kind(character) not in (MARK, JOINER) for character in word)]


def _first_word(rest: str) -> tuple[str, str]:
    """(word, the rest after it); the word may be empty."""
    first = _kind(rest[0])
    if first in (SOLO, SYMBOL, REGIONAL):
        at = 1
        flag = first == REGIONAL
        while at < len(rest):
            kind = _kind(rest[at])
            if kind == MARK:
                at += 1
            elif first == SYMBOL and kind == JOINER and at + 1 < len(rest) and _kind(rest[at + 1]) == SYMBOL:
                at += 2
            elif flag and kind == REGIONAL:
                flag, at = False, at + 1
            else:
                break
        return rest[:at], rest[at:]
    if first != WORD:
        return "", rest[1:]
    at = 1
    while at < len(rest):
        kind = _kind(rest[at])
        if kind in (SEPARATOR, SOLO, SYMBOL, REGIONAL) or (kind == INNER and _kind(rest[at - 1]) in (JOINER, INNER)):
            break
        at += 1
    word = rest[:at]
    while word and _kind(word[-1]) in (JOINER, INNER):
        word = word[:-1]
    return word, rest[at:]


CHARACTERS = st.sampled_from(
    "abcABCXYZ_ '’\n,\0\x01\x02\x7f\x80éß\u07ff\u0800中国한\uffff\U00010000😀❤🇩🇪\U0010ffff\u3000\u2028"
    "\u00ad\U000e0001\u0301\U0001f3fb\u200c\u200d"
)


@given(chunks=st.lists(st.text(CHARACTERS, max_size=60), max_size=4), max_bytes=st.integers(1, 12))
@settings(max_examples=300, derandomize=True, deadline=None)
def test_ids_ends_counts_and_drops_are_those_of_a_plain_reading(chunks: list[str], max_bytes: int) -> None:
    table = WordTable(max_bytes)
    counts: Counter[bytes] = Counter()
    dropped: list[bytes] = []
    for chunk in chunks:
        lines = _sentences(chunk)
        kept = [[word for word in line if len(word) <= max_bytes] for line in lines]
        dropped += [word for line in lines for word in line if len(word) > max_bytes]
        counts.update(itertools.chain.from_iterable(kept))
        ids, ends = _encode(table, chunk)
        known = list(_known(table))
        assert known == list(counts), "ids count up in order of first occurrence"
        assert [known[word_id] for word_id in ids] == [word for line in kept for word in line]
        assert ends == list(itertools.accumulate(len(line) for line in kept if line)), "lines without a word are no sentence"
    assert _known(table) == counts
    assert (table.dropped, table.dropped_samples) == (len(dropped), [word[:SHOWN_BYTES] for word in dropped[:3]])


@pytest.mark.parametrize("text", ["", "\n", " \n\n , \u3000\n", "'\u00ad\n"], ids=["none", "line", "separators", "ignored"])
def test_text_without_words_gives_no_ids_and_no_sentences(text: str) -> None:
    table = WordTable(8)
    assert _encode(table, text) == ([], [])
    assert _known(table) == {}
    assert _intern(table, []) == []


def test_the_last_line_needs_no_newline() -> None:
    table = WordTable(8)
    assert _encode(table, "a b\nc") == _encode(table, "a b\nc\n") == ([0, 1, 2], [2, 3])


def test_an_ignored_character_joins_what_stands_around_it() -> None:
    table = WordTable(16)
    assert _encode(table, "dis\u00adcuss discuss \u00ad \u00ada\n") == ([0, 0, 1], [3])
    assert list(_known(table)) == [b"discuss", b"a"]


def test_an_inner_character_stays_between_two_characters_of_a_word() -> None:
    table = WordTable(16)
    _encode(table, "don't don’t 'a' '' a'' a''b\n")
    assert list(_known(table)) == [b"don't", "don’t".encode(), b"a", b"b"]


def test_a_joiner_at_the_edge_of_a_word_does_not_make_a_second_spelling() -> None:
    table = WordTable(64)
    assert _encode(table, "ab\u200ccd \u200cab\u200c ab ab\u200d\u200c \u200c \u200d longerthan8\u200c longerthan8")[0] == [
        0,
        1,
        1,
        1,
        2,
        2,
    ]


def test_marks_and_underscores_alone_are_no_words() -> None:
    assert _encode(WordTable(64), "\u0301 \u0301\u0301 _ __ ___\u0301 " + "_" * 300) == ([], [])


def test_a_symbol_is_a_word_with_what_is_joined_to_it() -> None:
    table = WordTable(64)
    _encode(table, "a😀b ❤\u200d😀\U0001f3fb😀 🇩🇪🇩 中\u0301国\n")
    assert [word.decode() for word in _known(table)] == ["a", "😀", "b", "❤\u200d😀\U0001f3fb", "🇩🇪", "🇩", "中\u0301", "国"]


def test_a_limit_is_in_bytes_and_a_word_of_just_that_length_is_kept() -> None:
    table = WordTable(6)
    assert _encode(table, "한한 한한한 한a éééé\nééé") == ([0, 1, 2], [2, 3])
    assert list(_known(table)) == ["한한".encode(), "한a".encode(), "ééé".encode()]
    assert table.dropped_samples == ["한한한".encode(), "éééé".encode()]
    assert table.dropped_bytes == 9 + 8


def test_of_a_dropped_token_only_the_first_bytes_are_shown() -> None:
    table = WordTable(8)
    assert _encode(table, "x" * 5_000 + " y\n") == ([0], [1])
    assert (table.dropped, table.dropped_samples) == (1, [b"x" * SHOWN_BYTES])


def test_text_of_ascii_alone_needs_no_classes() -> None:
    ids, _, _ = WordTable(8).encode(np.frombuffer(b"B a b", np.uint8), BYTE_TABLE, np.empty(0, np.uint8))
    assert ids.tolist() == [0, 1, 0]


def test_a_million_equal_words_are_one_word_that_occurred_a_million_times() -> None:
    table = WordTable(8)
    ids, ends = _encode(table, "a " * 1_000_000)
    assert (set(ids), len(ids), ends) == ({0}, 1_000_000, [1_000_000])
    assert _known(table) == {b"a": 1_000_000}


def test_what_was_returned_stays_when_more_text_follows() -> None:
    table = WordTable(8)
    text = np.frombuffer(b"a b\nc\n", np.uint8)
    ids, ends, _ = table.encode(text, BYTE_TABLE, CLASSES)
    _encode(table, "d\ne f g\n")
    assert (ids.tolist(), ends.tolist()) == ([0, 1, 2], [2, 3])


def test_a_word_longer_than_everything_before_it_makes_room_for_itself() -> None:
    table = WordTable(1 << 20)
    long = "é" * 300_000
    assert _encode(table, f"a {long} b {long} {long}x\n")[0] == [0, 1, 2, 1, 3]
    assert _known(table) == {b"a": 1, long.encode(): 2, b"b": 1, long.encode() + b"x": 1}


def test_words_keep_ids_and_counts_while_the_table_grows() -> None:
    words = [f"{'long' * (index % 4)}{index:x}" for index in range(3 * FIRST_SLOTS)]
    table = WordTable(32)
    assert _encode(table, " ".join(words))[0] == list(range(len(words)))
    assert _encode(table, " ".join(reversed(words)))[0] == list(reversed(range(len(words))))
    assert _known(table) == {word.encode(): 2 for word in words}


# ── words that are already split ─────────────────────────────────────────────────────────────────────────────────────


@given(
    words=st.lists(st.binary(min_size=1, max_size=20).filter(lambda word: 0 not in word), unique=True, max_size=40),
    occurrences=st.lists(st.integers(1, 10**12), min_size=40, max_size=40),
    max_bytes=st.integers(1, 20),
)
@settings(max_examples=200, derandomize=True, deadline=None)
def test_words_already_split_get_their_ids_and_counts(words: list[bytes], occurrences: list[int], max_bytes: int) -> None:
    table = WordTable(max_bytes)
    counts = dict(zip(words, occurrences, strict=False))
    kept = {word: count for word, count in counts.items() if len(word) <= max_bytes}
    number = {word: word_id for word_id, word in enumerate(kept)}
    assert _intern(table, words, occurrences[: len(words)]) == [number.get(word, -1) for word in words]
    assert list(_known(table).items()) == list(kept.items())
    long = [word for word in words if word not in kept]
    assert table.dropped == sum(counts[word] for word in long)
    assert table.dropped_samples == [word for word in long for _ in range(min(counts[word], 3))][:3]


def test_split_words_and_text_share_their_ids() -> None:
    table = WordTable(16)
    assert _encode(table, "one two averylongword\n")[0] == [0, 1, 2]
    assert _intern(table, [b"averylongword", b"three", b"one"], [5, 7, 1]) == [2, 3, 0]
    assert _encode(table, "three two")[0] == [3, 1]
    assert _known(table) == {b"one": 2, b"two": 2, b"averylongword": 6, b"three": 8}


# ── keys: words made to meet ─────────────────────────────────────────────────────────────────────────────────────────


def _unmix(mixed: int) -> int:
    """The key that `mix` turns into `mixed`: its steps backwards (x ^= x >> 33 undoes itself)."""
    mixed ^= mixed >> 33
    mixed = mixed * pow(0xC4CEB9FE1A85EC53, -1, 1 << 64) & MASK64
    mixed ^= mixed >> 33
    mixed = mixed * pow(0xFF51AFD7ED558CCD, -1, 1 << 64) & MASK64
    return mixed ^ (mixed >> 33)


def _key_of(word: bytes) -> int:
    return int(key_of(np.frombuffer(word, np.uint8), 0, len(word)))


def _with_key(head: bytes, key: int) -> bytes:
    """`head` (8 or 16 bytes) and the eight bytes after which the hash is `key`."""
    state = np.uint64(0)
    for packed in np.frombuffer(head, np.uint64):
        state = absorb(state, packed)
    last = _unmix((key - 0x9E3779B97F4A7C15) & MASK64) ^ int(state)
    return head + last.to_bytes(8, "little")


@given(word=st.binary(min_size=1, max_size=8))
@settings(max_examples=100, derandomize=True, deadline=None)
def test_the_key_of_a_short_word_is_the_word(word: bytes) -> None:
    assert _key_of(word) == int.from_bytes(word, "little")


def test_three_words_with_one_key_stay_three_words() -> None:
    short = b"12345678"
    hashed = [_with_key(b"abcdefgh", _key_of(short)), _with_key(b"ijklmnopqrstuvwx", _key_of(short))]
    words = [short, *hashed]
    assert [len(word) for word in words] == [8, 16, 24]
    assert len({_key_of(word) for word in words}) == 1, "the words were made to collide"
    for order in itertools.permutations(words):
        table = WordTable(24)
        assert _intern(table, list(order)) == [0, 1, 2]
        assert _intern(table, words, [2, 3, 4]) == [order.index(word) for word in words]
        assert _known(table) == dict(zip(order, [1 + 2 + words.index(word) for word in order], strict=True))


def test_words_that_meet_on_the_last_slot_go_on_from_the_first() -> None:
    keys = (_unmix((high << 32) | (FIRST_SLOTS - 1)) for high in range(1, 200))
    words = [word for key in keys if 0 not in (word := key.to_bytes(8, "little"))]
    assert len(words) > 100
    assert {int(mix(np.uint64(_key_of(word)))) % FIRST_SLOTS for word in words} == {FIRST_SLOTS - 1}
    table = WordTable(8)
    assert _intern(table, words) == list(range(len(words)))
    assert _intern(table, words[::-1]) == list(range(len(words)))[::-1]


def general_and_quick(text: str, classes: Bytes, max_token_bytes: int) -> list[tuple[object, ...]]:
    """All that a table makes of a text on the general way, which a byte inside words (one that the text lacks) makes it take, and
    on the way that is quick where text is plain."""
    found = []
    for inside in (ord("~"), None):
        byte_table = BYTE_TABLE.copy()
        byte_table[byte_table == ASCII_INNER] = SEPARATOR
        if inside is not None:
            byte_table[inside] = ASCII_INNER
        assert plain_words.has_plain_words(byte_table) == (inside is None)
        table = WordTable(max_token_bytes)
        encoded = [
            array.tolist()
            for _ in range(2)
            for array in table.encode(np.frombuffer(text.encode(), np.uint8), byte_table, classes)
        ]
        data, ends, counts = table.words()
        found.append((
            encoded, bytes(data), ends.tolist(), counts.tolist(), table.dropped, table.dropped_bytes, table.dropped_samples,
        ))  # fmt: skip
    return found


@settings(max_examples=200, deadline=None)
@given(st.text("aB_ ,\n\r\0z\x01\x02", max_size=80), st.sampled_from([3, 8, 9, 64]))
def test_plain_text_gives_the_words_of_the_general_way(text: str, max_token_bytes: int) -> None:
    general, quick = general_and_quick(text, np.zeros(0, np.uint8), max_token_bytes)
    assert quick == general


PLAIN = st.lists(st.sampled_from("abc plain,Words of ASCII\n in_a row".split(" ")), max_size=12).map(" ".join)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(CHARACTERS, max_size=12) | PLAIN, max_size=12).map("".join), st.sampled_from([3, 8, 64]))
def test_plain_text_between_other_characters_gives_the_words_of_the_general_way(text: str, max_token_bytes: int) -> None:
    general, quick = general_and_quick(text, CLASSES, max_token_bytes)
    assert quick == general


@pytest.mark.parametrize("length", range(1, 27))
def test_the_key_of_a_plain_word_is_that_of_the_word(length: int) -> None:
    word = ("abcdefghijklmnopqrstuvwxyz" * 2)[:length].encode()
    folded = np.frombuffer(word + b"?" * plain_words.PAD_BYTES, np.uint8)
    keys = np.zeros(1, np.uint64)
    assert plain_words.make_keys(folded, plain_words.eights_of(folded), np.array([0, length]), keys, 64)
    assert keys[0] == key_of(folded, 0, length)
