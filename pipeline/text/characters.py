"""The class of every character for a tokenizer: part of a word, between words, or invisible.

The tables follow Unicode's rules for words (UAX #29) as far as a single character decides. They list ranges only where Python's
`unicodedata` lacks the property, each with its source, so that the same text gives the same words on every Python.

- Invisible marks (Default_Ignorable_Code_Point: variation selectors, direction marks, soft hyphen, byte order mark …) are
  removed and split no word. U+200B is the exception: it ends a word.
- The joiners U+200C and U+200D belong to a word when they stand between two of its characters, as Persian and Indic words need,
  but not at its edges, where they would give one word two spellings.
- A combining mark belongs to the character before it and never begins a word.
- Ideographs, Hiragana and the letters of scripts that Unicode calls complex (Thai, Lao, Khmer, Myanmar …) are written without
  spaces. Finding words in them takes a dictionary (segmenters.py); without one, each letter is a word.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from w2v_core.text.character_classes import IGNORED, INNER, JOINER, MARK, REGIONAL, SEPARATOR, SOLO, SYMBOL, WORD

WHITESPACE = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
)
"""Unicode's White_Space property and the four ASCII information separators, fixed here, independent of any library's version."""
ZERO_WIDTH_SPACE = "\u200b"
JOINERS = "\u200c\u200d"
Ranges = tuple[tuple[int, int], ...]
IGNORABLE: Ranges = (
    (0xAD, 0xAD), (0x34F, 0x34F), (0x61C, 0x61C), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x200E, 0x200F),
    (0x202A, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFFB), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0000, 0xE0FFF),
)  # fmt: skip
"""Default_Ignorable_Code_Point of DerivedCoreProperties.txt without U+200B–U+200D, and the interlinear annotation marks."""
IDEOGRAPHS: Ranges = (
    (0x3005, 0x3007), (0x3021, 0x3029), (0x3038, 0x303B), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)  # fmt: skip
HIRAGANA: Ranges = ((0x3041, 0x3096), (0x309D, 0x309F), (0x1B001, 0x1B11F), (0x1B150, 0x1B152))
COMPLEX: dict[str, Ranges] = {
    "Thai": ((0xE00, 0xE7F),),
    "Lao": ((0xE80, 0xEFF),),
    "Myanmar": ((0x1000, 0x109F), (0xA9E0, 0xA9FF), (0xAA60, 0xAA7F)),
    "Khmer": ((0x1780, 0x17FF),),
    "Tai": ((0x1950, 0x19DF), (0x1A20, 0x1AAF), (0xAA80, 0xAADF), (0x11700, 0x1174F)),
}
"""Scripts whose letters have Line_Break=Complex_Context (UAX #14): UAX #29 leaves them to dictionaries."""
UNSPACED: dict[str, Ranges] = {"Chinese or Japanese": (*IDEOGRAPHS, *HIRAGANA), **COMPLEX}
STRIPPED: dict[str, Ranges] = {
    "arabic": ((0x610, 0x61A), (0x64B, 0x65F), (0x670, 0x670), (0x6D6, 0x6DC), (0x6DF, 0x6E8), (0x6EA, 0x6ED), (0x8D3, 0x8FF)),
    "hebrew": ((0x591, 0x5BD), (0x5BF, 0x5BF), (0x5C1, 0x5C2), (0x5C4, 0x5C5), (0x5C7, 0x5C7)),
    "tatweel": ((0x640, 0x640),),
}
"""What `tokenize.strip` removes: vowel and cantillation marks, and the tatweel that stretches Arabic words."""
_ASSIGNED: Ranges = ((0, 0x33FFF), (0xE0000, 0xE0FFF))
_SKIN_TONES, _FLAG_LETTERS = (0x1F3FB, 0x1F3FF), (0x1F1E6, 0x1F1FF)


def pattern_of(ranges: Sequence[tuple[int, int]]) -> str:
    """The inside of an `re` character class with these ranges."""
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges)


INVISIBLE = re.compile(f"[{pattern_of(IGNORABLE)}]+")


@cache
def character_classes(tokenizer: str, inner: str = "", emoji: bool = False, strip: tuple[str, ...] = ()) -> NDArray[np.uint8]:
    """The class of every character for `simple` or `whitespace`, uint8[0x110000]."""
    categories = _categories()
    if tokenizer == "whitespace":
        classes = np.full(0x110000, WORD, np.uint8)
        classes[[ord(character) for character in WHITESPACE]] = SEPARATOR
        classes[categories[:, 0] == ord("M")] = MARK
    else:
        classes = _letters(categories[:, 0])
        if emoji:
            classes[(categories == list(b"So")).all(1)] = SYMBOL
            _set(classes, (_SKIN_TONES,), MARK)
            _set(classes, (_FLAG_LETTERS,), REGIONAL)
    classes[[ord(character) for character in JOINERS]] = JOINER
    classes[ord(ZERO_WIDTH_SPACE)] = SEPARATOR
    classes[[ord(character) for character in inner]] = INNER
    _set(classes, IGNORABLE, IGNORED)
    for name in strip:
        _set(classes, STRIPPED.get(name, ()), IGNORED)
    return classes


def _letters(category: NDArray[np.uint8]) -> NDArray[np.uint8]:
    classes = np.full(0x110000, SEPARATOR, np.uint8)
    unspaced = np.zeros(0x110000, np.bool_)
    for ranges in UNSPACED.values():
        for first, last in ranges:
            unspaced[first : last + 1] = True
    classes[category == ord("M")] = MARK
    classes[(category == ord("L")) | (category == ord("N"))] = WORD
    classes[unspaced & (category == ord("L"))] = SOLO
    _set(classes, ((0x3007, 0x3007), (0x3021, 0x3029)), SOLO)  # ideographs that are numbers
    return classes


def _categories() -> NDArray[np.uint8]:
    """The two letters of every character's general category, uint8[0x110000, 2]. Asking for all would take a third of a second;
    outside _ASSIGNED all are of category C, whose characters all tokenizers treat alike."""
    letters = np.full((0x110000, 2), list(b"Cn"), np.uint8)
    for first, last in _ASSIGNED:
        named = "".join(map(unicodedata.category, map(chr, range(first, last + 1)))).encode()
        letters[first : last + 1] = np.frombuffer(named, np.uint8).reshape(-1, 2)
    return letters


def _set(classes: NDArray[np.uint8], ranges: Ranges, kind: int) -> None:
    for first, last in ranges:
        classes[first : last + 1] = kind


def unspaced_scripts(data: NDArray[np.uint8], ends: NDArray[np.int64], counts: NDArray[np.int64]) -> dict[str, int]:
    """{script written without spaces: occurrences of words that begin with one of its letters}, for the scripts that occur.

    Word i is data[ends[i−1]:ends[i]] and occurred counts[i] times, as returned by a `WordTable`.
    """
    if not len(ends) or not (data >= 0x80).any():
        return {}
    codes = _first_codes(data, np.append(0, ends[:-1]))
    found = {}
    for name, ranges in UNSPACED.items():
        inside = np.zeros(len(codes), np.bool_)
        for first, last in ranges:
            inside |= (codes >= first) & (codes <= last)
        if total := int(counts[inside].sum()):
            found[name] = total
    return found


def _first_codes(data: NDArray[np.uint8], starts: NDArray[np.int64]) -> NDArray[np.uint32]:
    padded = np.append(data, np.zeros(4, np.uint8))
    first, second, third, fourth = (padded[starts + at].astype(np.uint32) for at in range(4))
    tail = (second & 0x3F, third & 0x3F, fourth & 0x3F)
    return np.select(
        [first < 0x80, first < 0xE0, first < 0xF0],
        [first, (first & 0x1F) << 6 | tail[0], (first & 0xF) << 12 | tail[0] << 6 | tail[1]],
        (first & 7) << 18 | tail[0] << 12 | tail[1] << 6 | tail[2],
    ).astype(np.uint32)
