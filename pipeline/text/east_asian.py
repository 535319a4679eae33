"""In which Chinese, Japanese or Korean encoding bytes read as a language: by the rows of characters that they use.

The standards put frequent characters into rows of their own, so the first byte of a character tells how likely it is: nearly
all Korean is syllables in 0xB0 … 0xC8 of EUC-KR, half of Japanese is kana in one row, and rare ideographs come last everywhere.
A few words are enough, where statistics of text need a page.
"""

from __future__ import annotations

import codecs
import math
from collections.abc import Iterator

_ROWS: dict[str, tuple[tuple[int, int, float], ...]] = {
    "gb18030": ((0xA1, 0xA1, 0.06), (0xA3, 0xA3, 0.06), (0xB0, 0xD7, 0.85), (0xD8, 0xF7, 0.03)),
    "big5": ((0xA1, 0xA1, 0.12), (0xA4, 0xC6, 0.85), (0xC9, 0xF9, 0.02)),
    "cp932": ((0x81, 0x81, 0.1), (0x82, 0x82, 0.48), (0x83, 0x83, 0.08), (0x88, 0x97, 0.32), (0x98, 0xEA, 0.015)),
    "euc_jp": ((0xA1, 0xA1, 0.1), (0xA4, 0xA4, 0.48), (0xA5, 0xA5, 0.08), (0xB0, 0xCF, 0.32), (0xD0, 0xF4, 0.015)),
    "cp949": ((0xA1, 0xA1, 0.02), (0xB0, 0xC8, 0.96), (0xCA, 0xFD, 0.01)),
}
"""The share of a text's characters whose first byte is from … to, by encoding."""
_SECONDS = {"gb18030": 94, "big5": 157, "cp932": 188, "euc_jp": 94, "cp949": 94}
"""How many second bytes are usual."""
_RARE, _HALF_WIDTH = math.log(2e-5), math.log(2e-3)
_LIKELY = {"gb18030": -8.55, "big5": -8.9, "cp932": -8.3, "euc_jp": -8.3, "cp949": -8.2}
"""The least mean logarithm of a character's probability in text that is in this encoding."""
_LEAST = 4
"""Fewer characters than these can be anything."""


def best_reading(data: bytes) -> str | None:
    """The encoding of these five in which the characters outside ASCII are the most likely; None if they are not likely in any,
    or fewer than the letters of ASCII."""
    scores = {name: _score(data, name) for name in _ROWS}
    best = max(scores, key=lambda name: scores[name])
    return best if scores[best] > _LIKELY[best] else None


def _score(data: bytes, name: str) -> float:
    try:
        text = codecs.getincrementaldecoder(name)().decode(data)  # half a character at the end is no fault
    except UnicodeDecodeError:
        return -math.inf
    found = list(_probabilities(text, name))
    enough = len(found) >= max(_LEAST, sum(char.isascii() and char.isalpha() for char in text))
    return sum(found) / len(found) if enough else -math.inf


def _probabilities(text: str, name: str) -> Iterator[float]:
    """The logarithm of the probability of every character outside ASCII, twice that if it takes one byte only."""
    rows = _ROWS[name]
    for char in text:
        if char < "\x80":
            continue
        code = char.encode(name)
        if len(code) == 1:
            yield 2 * _HALF_WIDTH
            continue
        share = next((share / (last - first + 1) for first, last, share in rows if first <= code[0] <= last), 0.0)
        usual = len(code) == 2 and (_SECONDS[name] > 94 or code[1] > 0xA0)
        yield math.log(share / _SECONDS[name]) if share and usual else _RARE + _HALF_WIDTH
