"""The text of a record, by the same rules in every format.

`text_field` names a field, or as `a.b` a field inside a field. Its value is a string, UTF-8 bytes, a list of strings (a sentence
already split into words) or a list of such lists. A record in which it is null, missing or of any other type has no text: it is
skipped and counted, or stops the run (`corpus.bad_records`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.errors import DataError, printable
from pipeline.text.losses import BAD_RECORDS, HALVES, PUT_IN, ReadCounts

ABSENT = object()
_HALF = re.compile("[\ud800-\udfff]")


class NoText(Exception):
    """A record without text; the message says why."""


def text_of(record: Any, field: str) -> tuple[str | bytes, int]:
    """(the record's text, bytes inserted between the words of a list); raises NoText."""
    value = _at(record, field)
    if isinstance(value, str | bytes):
        return value, 0
    if isinstance(value, list | tuple):
        return _joined(value, field)
    if not isinstance(record, Mapping):
        raise NoText(f'expected an object, found {_kind(record)}; write {{"{printable(field)}": …}} around each')
    if value is ABSENT:
        if holder := _list_on_the_way(record, field):
            raise NoText(
                f"{printable(holder)!r} holds a list, which corpus.text_field does not enter; give each item of it a line of its "
                f"own, perhaps: jq -c '.{printable(holder)}[]'"
            )
        raise NoText(f"no field {printable(field)!r}; {what_it_has(_fields(record), field, 100)}")
    raise NoText(f"expected a string in {printable(field)!r}, found {_kind(value)}{_way_in(value, field)}")


def what_it_has(names: Sequence[str], wanted: str, most: int, advice: str = "corpus.text_field") -> str:
    """What a record or table has in the place of the field `wanted`, its names in `most` characters, and what to set."""
    if not names:
        return "it has no fields"
    near = same_but_for_case(names, wanted)
    way_out = f"did you mean {printable(near)!r}? set corpus.text_field: {printable(near)}" if near else f"set {advice}"
    return f"it has {printable(', '.join(names), most)}; {way_out}"


def same_but_for_case(names: Sequence[str], wanted: str) -> str | None:
    return next((name for name in names if name.casefold() == wanted.casefold()), None)


def _way_in(value: Any, field: str) -> str:
    """What to do where the text is in a field of `value`; empty if there is none."""
    names = [name for name, inner in value.items() if isinstance(inner, str)] if isinstance(value, Mapping) else []
    return f"; set corpus.text_field: {printable(f'{field}.{names[0]}')}" if names else ""


def _at(record: Any, field: str) -> Any:
    """The value of a field; a field whose own name contains the dots takes precedence over a path."""
    if not isinstance(record, Mapping):
        return ABSENT
    if field in record:
        return record[field]
    head, dot, rest = field.partition(".")
    while dot:
        if head in record:
            return _at(record[head], rest)
        step, dot, rest = rest.partition(".")
        head = f"{head}.{step}"
    return ABSENT


def _fields(record: Mapping[str, Any]) -> list[str]:
    """The names of the fields, and of those inside one, as `text_field` takes them."""
    return [
        name
        for field, value in record.items()
        for name in ([f"{field}.{inner}" for inner in value] if isinstance(value, Mapping) and value else [str(field)])
    ]


def _list_on_the_way(record: Mapping[str, Any], field: str) -> str | None:
    """The first part of the path `field` that ends at a list of records; None if there is none."""
    steps = field.split(".")
    for length in range(1, len(steps)):
        found = _at(record, ".".join(steps[:length]))
        if isinstance(found, list) and any(isinstance(item, Mapping) for item in found):
            return ".".join(steps[:length])
    return None


def _joined(value: list[Any] | tuple[Any, ...], field: str) -> tuple[str, int]:
    sentences = value if value and all(isinstance(item, list | tuple) for item in value) else [value]
    for sentence in sentences:
        for word in sentence:
            if not isinstance(word, str):
                raise NoText(f"expected a list of strings in {printable(field)!r}, found one of {_kind(word)}")
    # A line end inside a word would end the sentence.
    text = "\n".join(" ".join(word.replace("\n", " ") for word in sentence) for sentence in sentences)
    return text, sum(max(0, len(sentence) - 1) for sentence in sentences) + max(0, len(sentences) - 1)


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def encoded(text: str | bytes, book: RecordBook | None = None) -> bytes:
    """The text's bytes. A lone surrogate, which JSON can spell, becomes invalid UTF-8, which is repaired and counted like any
    other; `book` counts also that it was one, except those that stand for a byte in Python."""
    if isinstance(text, bytes):
        return text
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        if book is not None:
            book.counts.add(book.place, HALVES, 3 * len(_HALF.findall(text)))
        return text.encode("utf-8", "surrogatepass")


class RecordBook:
    """Counts the records of one file: their texts, the bytes inserted between them, and records without text."""

    def __init__(
        self, path: str, place: int, counts: ReadCounts, stop: bool, max_ratio: int, *, whole: bool = True
    ) -> None:  # fmt: skip
        self.path = path
        self.whole = whole
        """Whether the file is one piece. Otherwise notes name no line, so that they hold wherever the piece lies in its file."""
        self.place = place
        self.counts = counts
        self.stop = stop
        self.max_ratio = max_ratio
        self.text_bytes = 0
        """Bytes of the records' texts so far, without inserted ones."""
        self.bad_bytes = 0

    def good(self, text_bytes: int, put_in: int, records: int = 1) -> None:
        """Counts `records` records with `text_bytes` bytes of text, `put_in` of them inserted; a newline follows each record."""
        self.counts.record(self.place, records=records)
        self.counts.add(self.place, PUT_IN, put_in + records)
        self.text_bytes += text_bytes - put_in

    def bad(self, where: str, problem: str, size: int, records: int = 1) -> None:
        """Counts records without text, `size` bytes in all; raises DataError if such a record stops the run."""
        told = f"{where}: {problem}"
        if self.stop:
            raise DataError(
                f"{printable(self.path, 300)}: {told}; nothing of this part was kept: correct the file, or set "
                "corpus.bad_records: skip"
            )
        self.counts.record(self.place, told if self.whole else f"a record: {problem}", records)
        self.counts.drop(self.place, BAD_RECORDS, size, records)
        self.bad_bytes += size
