"""Bytes in some encoding → valid UTF-8, with every byte that is no text counted; and which encoding fits bytes best."""

from __future__ import annotations

import codecs
import threading
from collections.abc import Iterator

from pipeline.errors import DataError, printable
from pipeline.text.losses import NOT_TEXT, PUT_IN, READ, ReadCounts

UTF8 = "utf-8"
_REPLACEMENT = "\ufffd"
_COUNTING = "pipeline.count_and_replace"
_GUESS_BYTES = 1 << 15
_LIKELY = ("cp1252", "cp1250", "cp1251", "gb18030", "big5", "cp932", "euc_jp", "cp949")
"""Asked first when several fit: of the encodings in use, those that most text that is not UTF-8 is in."""


class _Tally(threading.local):
    sequences = 0
    size = 0


_tally = _Tally()


def _count_and_replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    _tally.sequences += 1
    _tally.size += error.end - error.start
    return _REPLACEMENT, error.end


codecs.register_error(_COUNTING, _count_and_replace)


def repair(chunk: bytes, counts: ReadCounts, place: int) -> bytes:
    """The chunk as valid UTF-8: what is none becomes U+FFFD, as Python replaces it, and is counted."""
    if chunk.isascii():
        return chunk
    _tally.sequences = _tally.size = 0
    text = codecs.decode(chunk, UTF8, _COUNTING)
    if not _tally.sequences:
        return chunk
    _book(counts, place)
    return text.encode()


def _book(counts: ReadCounts, place: int) -> None:
    counts.drop(place, NOT_TEXT, _tally.size, _tally.sequences)
    counts.add(place, PUT_IN, _tally.sequences * len(_REPLACEMENT.encode()))


def transcode(blocks: Iterator[bytes], encoding: str, counts: ReadCounts, place: int, path: str, strict: bool) -> Iterator[bytes]:
    """Blocks of UTF-8 from blocks in another encoding; books what is read, measured in UTF-8, and what is no text."""
    decoder = codecs.getincrementaldecoder(encoding)("strict" if strict else _COUNTING)
    for last, block in _with_end(blocks):
        _tally.sequences = _tally.size = 0
        try:
            text = decoder.decode(block, last)
        except UnicodeError as error:
            raise DataError(
                f"{printable(path, 300)}: not {encoding} ({printable(str(error), 200)}); corpus.encoding_errors is strict: "
                "set corpus.encoding to what it is, or encoding_errors to replace"
            ) from None
        # A lone surrogate, which utf-16 with errors can hold, is no character; it is repaired and counted like other bytes.
        data = text.encode("utf-8", "surrogatepass")
        counts.add(place, READ, len(data) - _tally.sequences * len(_REPLACEMENT.encode()) + _tally.size)
        if _tally.sequences:
            _book(counts, place)
        if data:
            yield data


def _with_end(blocks: Iterator[bytes]) -> Iterator[tuple[bool, bytes]]:
    for block in blocks:
        yield False, block
    yield True, b""


def invalid_share(head: bytes) -> float:
    """Which share of these bytes is not UTF-8; a character cut off at the end is none of them."""
    if head.isascii():
        return 0.0
    _tally.sequences = _tally.size = 0
    codecs.getincrementaldecoder(UTF8)(_COUNTING).decode(head, False)
    return _tally.size / len(head)


def fitting_encoding(head: bytes) -> str | None:
    """The encoding in which these bytes read best, by their statistics (charset-normalizer); None when none does."""
    from charset_normalizer import from_bytes

    found = [match.encoding for match in from_bytes(head[:_GUESS_BYTES])]
    fitting = [name for name in found if name not in ("utf_8", "ascii")]
    if not fitting:
        return None
    likely = [name for name in _LIKELY if name in fitting]
    return (likely or fitting)[0]
