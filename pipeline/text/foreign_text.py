"""Text that is not sentences although every byte of it is text: data written as characters, notations of programs, escapes.

`problem` says why it is refused, `remarks` what is read but looks odd, so that no word comes from it without a note.
"""

from __future__ import annotations

import csv
import re

_ROWS = 20
_VECTORS, _VECTOR_SIZE = 3, 8
"""So many lines with so many numbers are no table in a text."""
_POINTED = re.compile(rb"-?\d*\.\d+(?:[eE][+-]?\d+)?")
_PYTHON = re.compile(rb"\s*(?:\[\s*)*\{\s*'[^'\n]{1,200}'\s*:\s*['\"\d\[{(TFN-]")
"""How `print` writes a dictionary, or a list of them."""
_TIMES = re.compile(rb"\d\d:\d\d[,.]\d{3} --> (?:\d\d:)?\d\d:\d\d[,.]\d{3}")
_DATA_WORD = re.compile(rb"[A-Za-z0-9+/_-]{60,}={0,2}|[0-9a-fA-F]{32,}")
_DATA_BYTES = 32
"""No shorter word is one."""
_HEXADECIMAL = re.compile(rb"[0-9a-f]+|[0-9A-F]+")
_UUENCODED = re.compile(rb"begin [0-7]{3} [^\n]+\nM[\x20-\x60]{60}\r?\n")
_EAST_ASIAN = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3\uff66-\uff9f]+")
_SANDWICHED = re.compile(f"(?<=[A-Za-z]){_EAST_ASIAN.pattern[:-1]}{{1,2}}(?=[A-Za-z])")
_GLANCE_BYTES = 1 << 13
_ENOUGH = 3
"""Lines from which on all lines alike are no accident."""
_ESCAPES = re.compile(
    rb"\\u[0-9a-fA-F]{4}|%[C-E][0-9A-F]%[89AB][0-9A-F]|=[C-E][0-9A-F]=[89AB][0-9A-F]|\x1b\[[0-9;]*m|[a-z.,!?]\\n(?:\\n)?[A-Z]"
)
"""Characters as JSON, addresses and mail write them, colours of a terminal, and line ends as two characters."""
_ESCAPES_BEGIN = (b"\\u", b"\\n", b"%C", b"%D", b"%E", b"=C", b"=D", b"=E", b"\x1b[")
"""Counting these takes less than half the time of the pattern, where there are none: 0.6 ms of 64 KiB instead of 1.5."""
_TWICE = re.compile(
    rb"\xc3[\x82-\x9f\xa0-\xaf](?:\xc2(?!\xa0|\xab|\xbb)[\x80-\xbf]|\xe2\x82\xac|\xe2\x80[\x93-\xba]|\xc5[\x92\x93\xa0\xa1\xb8\xbd\xbe])"
)
"""A leading byte of UTF-8 and a following one, both read as characters of cp1252 or Latin-1. French has a quotation mark (« »)
behind a letter with an accent, with or without a space that does not break."""


def problem(head: bytes) -> str | None:
    """Why this is not read as lines, and what to do; None for sentences."""
    if _is_vectors(head):
        return "looks like word vectors, whose numbers would become words; leave it out with corpus.exclude"
    if _PYTHON.match(head):
        return "looks like Python's notation of dictionaries, whose keys would become words; write it as JSON (json.dumps)"
    if head.startswith(b"WARC/"):
        return "looks like a WARC archive of web pages, whose headers would become words; extract its text first"
    if head.count(b" --> ") > 2 and len(_TIMES.findall(head)) > 2 and 20 * len(_TIMES.findall(head)) > head.count(b"\n"):
        return "looks like subtitles, whose times would become words; extract their text first"
    if _UUENCODED.match(head) or _is_written_data(head):
        return "holds data written as characters (base64, hexadecimal or uuencode), not words; decode it first"
    return None


def _is_vectors(head: bytes) -> bool:
    """Whether line after line is a word and numbers with a point, many and equally many."""
    lines = head.split(b"\n", _ROWS)[:_ROWS]
    rows = [line.split() for line in lines[: len(lines) - 1]]
    if rows and len(rows[0]) == 2 and all(map(bytes.isdigit, rows[0])):
        rows = rows[1:]
    widths = {len(row) for row in rows}
    alike = len(rows) >= _VECTORS and len(widths) == 1 and min(widths) > _VECTOR_SIZE
    return alike and all(_POINTED.fullmatch(number) for row in rows for number in row[1:])


def _is_written_data(head: bytes) -> bool:
    """Whether most of it is long words of letters and digits in an order that no language has: base64 in lines of any length, or
    hexadecimal."""
    head = head[:_GLANCE_BYTES]
    long = [word for word in head.split() if len(word) >= _DATA_BYTES]
    size = sum(len(word) for word in long if _DATA_WORD.fullmatch(word) and _is_mixed(word))
    return 2 * size > len(head)


def _is_mixed(word: bytes) -> bool:
    digits = len(word) - len(word.translate(None, b"0123456789"))
    return digits > 0 and (_HEXADECIMAL.fullmatch(word) is not None or (word.lower() != word and word.upper() != word))


def remarks(head: bytes, a_few: int) -> list[str]:
    """What the user should know of text that is read; `a_few` oddities are none."""
    found = []
    if sum(map(head.count, _ESCAPES_BEGIN)) > a_few and len(_ESCAPES.findall(head)) > a_few:
        found.append(
            "hold|holds characters written as escapes (\\u00e9, %C3%A9, =C3=A9, \\n, colours of a terminal), whose letters "
            "become words; decode them first"
        )
    if not head.isascii() and len(_TWICE.findall(head)) > a_few:
        others = sum(char >= "\x80" for char in head.decode("utf-8", "ignore"))
        if 4 * len(_TWICE.findall(head)) > others:
            found.append("look|looks like UTF-8 that was read as another encoding and written again (Ã¼ for ü); undo that first")
    if _has_columns(head):
        found.append(
            "have|has the same columns in every line and no header, and all columns are read as words; corpus.format: tsv or "
            "csv, with a header or a column's number as corpus.text_field, reads one"
        )
    return found


def is_sandwiched(text: str) -> bool:
    """Whether most East Asian characters stand alone inside words of ASCII, as `größe` does, read as GB18030."""
    alone = len(_SANDWICHED.findall(text))
    return alone >= _ENOUGH and 2 * alone > len(_EAST_ASIAN.findall(text))


def _has_columns(head: bytes) -> bool:
    """Whether every line has as many tabs, or as many commas or semicolons around numbers in one place."""
    lines = [line for line in head.decode("utf-8", "replace").splitlines()[:_ROWS] if line.strip()]
    if len(lines) < _ENOUGH:
        return False
    if "\t" in lines[0].strip():
        return len({line.count("\t") for line in lines[:-1]}) == 1
    for delimiter in ",;|":
        if delimiter not in lines[0]:
            continue
        try:
            rows = list(csv.reader(lines, delimiter=delimiter))[:-1]
        except csv.Error:
            continue
        equal = len({len(row) for row in rows}) == 1
        if (
            equal
            and len(rows) >= _ENOUGH - 1
            and any(all(cell.strip().isdigit() for cell in column) for column in zip(*rows, strict=True))
        ):
            return True
    return False
