"""Questions to ask of vectors, read from their files: word analogies, and pairs of words that people have compared.

Words stay as they are written; whether case matters is the evaluation's question. What cannot be used is kept beside what
can, with its line number, and counted in every score that is made from it.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from w2v_core.text.printable import printable

Words4 = tuple[str, str, str, str]

SYNTACTIC_PREFIX = "gram"
"""Sections of the Google set whose name begins so ask about grammar; all others ask about the world."""


@dataclass(frozen=True)
class MalformedLine:
    """A line that could not be used: its number (from 1) and what it says, made safe to print."""

    number: int
    text: str


@dataclass(frozen=True)
class AnalogySection:
    name: str
    questions: tuple[Words4, ...]
    """(a, b, c, d): a is to b as c is to d."""

    @property
    def syntactic(self) -> bool:
        return self.name.startswith(SYNTACTIC_PREFIX)


@dataclass(frozen=True)
class AnalogyQuestions:
    sections: tuple[AnalogySection, ...]
    malformed: tuple[MalformedLine, ...] = ()


@dataclass(frozen=True)
class SimilarityPairs:
    pairs: tuple[tuple[str, str, float], ...]
    """(word, word, how alike people found them)."""
    malformed: tuple[MalformedLine, ...] = ()


def read_analogies(path: str | os.PathLike[str]) -> AnalogyQuestions:
    """The questions of a file in Google's format: ": section" lines, then four words a line. Words stay as they are written.

    A line of another number of words, or one before the first section, is kept in `malformed`; empty lines are not counted.
    Raises ValueError if no question is left, OSError if the file cannot be read.
    """
    sections: list[tuple[str, list[Words4]]] = []
    malformed: list[MalformedLine] = []
    for number, line in _lines(path):
        words = line.split()
        if words and words[0] == ":":
            sections.append((line.strip().removeprefix(":").strip(), []))
        elif len(words) == 4 and sections:
            sections[-1][1].append((words[0], words[1], words[2], words[3]))
        elif words:
            malformed.append(MalformedLine(number, printable(line)))
    if not any(questions for _, questions in sections):
        first = f", first of {len(malformed):,} other lines: {malformed[0].number} ({malformed[0].text})" if malformed else ""
        raise ValueError(f"{path}: expected ': section' lines followed by lines of four words, found no such line{first}")
    return AnalogyQuestions(tuple(AnalogySection(name, tuple(found)) for name, found in sections), tuple(malformed))


def read_similarity(path: str | os.PathLike[str]) -> SimilarityPairs:
    """The pairs of a file with lines of word, word, score, separated by tabs, commas or spaces (in this order of choice).

    A byte order mark, empty lines, lines that begin with '#', and a first line whose third field is no number (a header)
    are passed over; any other line without two words and a finite number is kept in `malformed`. Raises ValueError if no
    pair is left, OSError if the file cannot be read.
    """
    pairs: list[tuple[str, str, float]] = []
    malformed: list[MalformedLine] = []
    first = True
    for number, line in _lines(path):
        if not line.strip() or line.startswith("#"):
            continue
        pair = _parse_pair(line)
        if pair is not None and math.isfinite(pair[2]):
            pairs.append(pair)
        elif pair is None or not first:
            malformed.append(MalformedLine(number, printable(line)))
        first = False
    if not pairs:
        raise ValueError(f"{path}: expected lines of word, word, score (tabs, commas or spaces between), found no such line")
    return SimilarityPairs(tuple(pairs), tuple(malformed))


def _parse_pair(line: str) -> tuple[str, str, float] | None:
    """(word, word, score), the score NaN if it is no number; None if there are not three fields or a word is empty."""
    if "\t" in line:
        fields = line.split("\t")
    elif "," in line:
        try:
            fields = next(csv.reader([line]))
        except csv.Error:
            return None
    else:
        fields = line.split()
    fields = [field.strip() for field in fields]
    if len(fields) != 3 or not fields[0] or not fields[1]:
        return None
    try:
        return fields[0], fields[1], float(fields[2])
    except ValueError:
        return fields[0], fields[1], math.nan


def _lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, str]]:
    """(line number from 1, line) of a UTF-8 file, its byte order mark removed; raises ValueError naming a line that is not."""
    for number, line in enumerate(Path(path).read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        try:
            yield number, line.decode("utf-8").rstrip("\r")
        except UnicodeDecodeError:
            raise ValueError(f"{path}: line {number} is not UTF-8; convert the file") from None
