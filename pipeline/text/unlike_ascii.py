"""Text in which ASCII's bytes do not stand for ASCII's characters, recognised without a mark: UTF-16, UTF-32, and encodings of
seven bits that shift between alphabets (ISO-2022, HZ, UTF-7).
"""

from __future__ import annotations

import codecs
import re
from unicodedata import category

WIDE = ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")
_EAST_ASIAN = re.compile("[\u3000-\u30ff\u3400-\u9fff\uff00-\uffef]")
_EAST_ASIAN_SIGNS = re.compile("[\u3000-\u30ff\uff00-\uffef]")
_EAST_ASIAN_SHARE = 0.9
_CONTROL = bytes(set(range(0x20)) - set(b"\t\n\r"))
_CONTROL_SHARE = 0.01
_SPACE_SHARE = 0.04
_SHIFTING = (
    (re.compile(rb"\x1b\$"), ("iso2022_jp", "iso2022_jp_2", "iso2022_jp_3", "iso2022_kr")),
    (re.compile(rb"~\{[\x21-\x7e]+~\}"), ("hz",)),
    (re.compile(rb"\+[A-Za-z0-9+/]{3,}-?"), ("utf-7",)),
)
"""What begins other letters in text of seven bits, and the encodings in which it does."""
_SHIFTED_SHARE, _SHIFTED_LEAST = 0.02, 4
"""The least share of letters outside ASCII, and how many different ones: `a+bcd` in a program happens to be one in UTF-7. Letters
of Latin, which few bytes of ASCII happen to be, need not differ: French may have no others than é."""


def wide(head: bytes) -> str | None:
    """Which of UTF-16 and UTF-32 the bytes are because most at every second or fourth place are NUL; None if they are not."""
    if head.count(b"\0") < len(head) // 5 or len(head) < 4 or not head.strip(b"\0"):
        return None
    share = [head[at::4].count(b"\0") / len(head[at::4]) for at in range(4)]
    for name, zero, letters in (
        ("utf-32-le", (1, 2, 3), (0,)), ("utf-32-be", (0, 1, 2), (3,)),
        ("utf-16-le", (1, 3), (0, 2)), ("utf-16-be", (0, 2), (1, 3)),
    ):  # fmt: skip
        if all(share[at] > 0.6 for at in zero) and all(share[at] < 0.3 for at in letters):
            return name
    return None


def reads_as(head: bytes, *encodings: str) -> str | None:
    """Which of these gives nothing but letters and signs; in UTF-16, which gives some to most bytes, with characters below U+0100
    (spaces, line ends) among them, or nearly all of them Chinese or Japanese."""
    for name in encodings:
        try:
            text = codecs.getincrementaldecoder(name)().decode(head)
        except UnicodeDecodeError:
            continue
        found = set(text)
        signs = all(_is_seen(char) or char.isspace() for char in found)
        spaced = b"\0" in head and min(found, default="\uffff") < "\u0100"
        if found and signs and (spaced or name.startswith("utf-32") or _is_east_asian(head, text)):
            return name
    return None


def _is_east_asian(head: bytes, text: str) -> bool:
    # The two bytes of a character in Shift-JIS are an ideograph of UTF-16, too, but never control characters, a sign or kana.
    control = len(head) - len(head.translate(None, _CONTROL))
    certain = _EAST_ASIAN_SIGNS.search(text) or control > _CONTROL_SHARE * len(head)
    # A damaged byte between words of ASCII may make such a sign, too, but spaces of ASCII are a byte of few characters there.
    words = head.count(b" ") > _SPACE_SHARE * len(head)
    return bool(certain) and not words and len(_EAST_ASIAN.findall(text)) > _EAST_ASIAN_SHARE * len(text)


def shifting(head: bytes) -> str | None:
    """The encoding of seven bits in which ASCII bytes are, in a noticeable part, letters outside ASCII; None for ASCII text."""
    for begins, names in _SHIFTING if head.isascii() else ():
        for name in names if begins.search(head) else ():
            try:
                text = codecs.getincrementaldecoder(name)().decode(head)
            except UnicodeDecodeError:
                continue
            others = [char for char in text if char >= "\x80"]
            varied = len(set(others)) >= _SHIFTED_LEAST or (len(others) >= _SHIFTED_LEAST and _are_latin(others))
            if varied and len(others) > _SHIFTED_SHARE * len(text) and all(map(_is_seen, others)):
                return name
    return None


def _are_latin(letters: list[str]) -> bool:
    return all("À" <= letter < "ɐ" and letter.isalpha() for letter in letters)


def _is_seen(char: str) -> bool:
    return char.isprintable() or category(char) == "Cf"
