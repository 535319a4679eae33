"""Valid UTF-8 from bytes in any encoding, with every invalid byte counted; and which encoding fits given bytes best."""

from __future__ import annotations

import codecs
import importlib
import re
from collections.abc import Iterator

from pipeline.errors import DataError, printable
from pipeline.text import alphabets, east_asian
from pipeline.text.losses import NOT_TEXT, PUT_IN, READ, ReadCounts

UTF8 = "utf-8"
_REPLACEMENT = "\ufffd".encode()
_GUESS_BYTES = 1 << 15
_WITH_LINE_ENDS = (
    "utf-8", "ascii", "iso8859-1", "gb2312", "gbk", "gb18030", "big5", "big5hkscs", "cp932", "cp949", "cp950", "shift_jis",
    "shift_jis_2004", "shift_jisx0213", "euc_jp", "euc_jis_2004", "euc_jisx0213", "euc_kr", "johab",
)  # fmt: skip
"""Multi-byte encodings in which 0x0A always ends a line, since the second byte of a character is 0x30 or more; single-byte
encodings are checked by their tables."""
_LIKELY = (
    "cp1252", "cp1250", "cp1251", "koi8_r", "cp1253", "cp1254", "cp1256", "gb18030", "big5", "cp932", "euc_jp", "cp949",
)  # fmt: skip
"""Preferred, in this order, when several fit equally well: the encodings that most text outside UTF-8 is in."""
_SEVERAL = 2
"""So many characters outside ASCII in a line that is UTF-8 throughout are hardly an accident."""
_ASCII = bytes(range(0x80))
_RUN = re.compile(rb"[\x80-\xff]{2,}")
_AS_CLEAN = 0.02
"""How much higher than the best one's an encoding's chaos (charset-normalizer's measure, 0 … 1) may be for it to fit as well. In
text that is mostly ASCII too few other letters remain to judge by, so any encoding that can decode it fits."""


def repair(chunk: bytes, counts: ReadCounts, place: int) -> bytes:
    """The chunk as valid UTF-8: invalid sequences become U+FFFD, as with Python's `replace`, and are counted."""
    if chunk.isascii():
        return chunk
    try:
        chunk.decode()
        return chunk
    except UnicodeDecodeError:
        repaired = chunk.decode(UTF8, "replace").encode()
    sequences = repaired.count(_REPLACEMENT) - chunk.count(_REPLACEMENT)
    _book(counts, place, sequences, len(chunk) - (len(repaired) - sequences * len(_REPLACEMENT)))
    return repaired


def _book(counts: ReadCounts, place: int, sequences: int, size: int) -> None:
    counts.drop(place, NOT_TEXT, size, sequences)
    counts.add(place, PUT_IN, sequences * len(_REPLACEMENT))


def transcode(blocks: Iterator[bytes], encoding: str, counts: ReadCounts, place: int, path: str, strict: bool) -> Iterator[bytes]:
    """Blocks of UTF-8 from blocks in another encoding. Counts what is read, in bytes of UTF-8, and invalid sequences, as one byte
    each."""
    decoder = codecs.getincrementaldecoder(encoding)("strict" if strict else "replace")
    for last, block in _with_end(blocks):
        try:
            data = decoder.decode(block, last).encode("utf-8", "surrogatepass")
        except UnicodeError as error:
            raise DataError(
                f"{printable(path, 300)}: not {encoding} ({printable(str(error), 200)}); corpus.encoding_errors is strict: "
                "set corpus.encoding to what it is, or encoding_errors to replace"
            ) from None
        sequences = data.count(_REPLACEMENT)
        counts.add(place, READ, len(data) - sequences * (len(_REPLACEMENT) - 1))
        if sequences:
            _book(counts, place, sequences, sequences)
        if data:
            yield data


def _with_end(blocks: Iterator[bytes]) -> Iterator[tuple[bool, bytes]]:
    for block in blocks:
        yield False, block
    yield True, b""


def has_line_ends(encoding: str) -> bool:
    """Whether the byte 0x0A always ends a line, so that a file can be cut after it: not in UTF-16 and UTF-32, where it can be
    part of a character, nor in stateful encodings (ISO-2022, HZ, UTF-7)."""
    if encoding in _WITH_LINE_ENDS:
        return True
    try:
        table = importlib.import_module(f"encodings.{encoding.replace('-', '_')}")
    except ImportError:
        return False
    return getattr(table, "decoding_table", "")[10:11] == "\n"


def invalid_share(head: bytes) -> float:
    """The share of these bytes that is not UTF-8; a character cut off at the end does not count."""
    if head.isascii():
        return 0.0
    decoder = codecs.getincrementaldecoder(UTF8)("ignore")
    good = decoder.decode(head, False).encode()
    return (len(head) - len(good) - len(decoder.getstate()[0])) / len(head)


def is_mixed(head: bytes) -> bool:
    """Whether many of the lines that are not ASCII are UTF-8 with several such characters, and many are not UTF-8."""
    lines = [line for line in head.split(b"\n")[:-1] if not line.isascii()]
    good = sum(invalid_share(line) == 0 and len(line) - len(line.decode(UTF8, "replace")) >= _SEVERAL for line in lines)
    bad = sum(invalid_share(line) > 0 for line in lines)
    return min(good, bad) > len(lines) // 10


def fitting_encoding(head: bytes) -> str | None:
    """The encoding in which these bytes read best, by the characters (east_asian.py) and letters (alphabets.py) of languages
    and by their statistics (charset-normalizer); None if none fits."""
    from charset_normalizer import from_bytes

    head = head[:_GUESS_BYTES]
    # Half a character at the end fits nothing; these bytes are never its second half.
    head = head[: max(head.rfind(byte) for byte in (b"\n", b" ", b".", b",")) + 1] or head
    if set(head.translate(None, _ASCII)) == {0xFF}:
        return None  # not a letter that any language has alone, but what a broken program puts where it has none
    if name := east_asian.best_reading(head):
        return name
    found = [match for match in from_bytes(head) if match.encoding not in ("utf_8", "ascii")]
    if not found:
        return None
    if 2 * sum(byte < 0x80 for byte in head) < len(head):
        cleanest = min(match.chaos for match in found)
        found = [match for match in found if match.chaos <= cleanest + _AS_CLEAN]
    fitting = [name for match in found for name in match.could_be_from_charset]
    name = next((name for name in _LIKELY if name in fitting), fitting[0])
    # A character of two bytes is rarely alone; a letter of a single one often is, between letters of ASCII.
    if name in _WITH_LINE_ENDS and 2 * len(b"".join(_RUN.findall(head))) > sum(byte >= 0x80 for byte in head):
        return name
    return alphabets.best_reading(head, (name,)) or name
