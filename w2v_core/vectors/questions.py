"""Question sets for vectors, read from files: word analogies, and word pairs whose similarity people have judged.

Words are kept as they are written; whether case matters is up to the evaluation. Lines that cannot be used are kept too, with
their line numbers, and are counted in every score.
"""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from w2v_core.text.printable import printable
from w2v_core.vectors.files import require_regular

_NUMBER = re.compile(r"[+-]?\d*\.?\d+")
_TAG = re.compile(r"[A-Z]{2,}[A-Z_$]*")
"""A part of speech in MSR's questions: `good better rough JJ_JJR rougher`."""
_COMMENT = re.compile(r"#(?:\s|$)")
_OTHERS = {
    **dict.fromkeys(
        (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ", b"\x04\x22\x4d\x18", b"PK\x03\x04"),
        "it is compressed; decompress it first",
    ),
    **dict.fromkeys((b"<!", b"<html"), "it is a web page, not the file; fetch it again"),
    **dict.fromkeys((b"\xff\xfe", b"\xfe\xff"), "it is UTF-16; convert it to UTF-8"),
    b"PAR1": "it is Parquet; write it as text, with tabs between the columns",
    b"version https://git-lfs": "it is a Git LFS pointer, not the file itself; fetch it with git lfs pull",
}
"""What people take for a set, by its first bytes."""
Words4 = tuple[str, str, str, str]

SYNTACTIC = r"^(gram|[ID]\d\d\b)"
"""Matches the names of sections that ask about grammar: those of the Google set that begin with gram, and those of BATS that
begin with I (inflection) or D (derivation). All other sections ask about the world."""

_NO_JUDGEMENT = {"", "-", "?", "n/a", "na", "n.a.", "nan", "nil", "none", "null", "missing", "unknown", "inf", "infinity"}
"""What people write in place of a missing judgement; a first line with one of these is a malformed line, not a header."""


@dataclass(frozen=True)
class MalformedLine:
    """A line that could not be used: its number, from 1, and its text, made safe to print."""

    number: int
    text: str

    def __str__(self) -> str:
        return f"line {self.number}: {self.text}"


@dataclass(frozen=True)
class AnalogySection:
    name: str
    questions: tuple[Words4, ...]
    """(a, b, c, d): a is to b as c is to d."""
    syntactic: bool = False
    malformed: tuple[MalformedLine, ...] = ()


@dataclass(frozen=True)
class AnalogyQuestions:
    sections: tuple[AnalogySection, ...]
    outside: tuple[MalformedLine, ...] = ()
    """Lines before the first section."""

    @property
    def malformed(self) -> tuple[MalformedLine, ...]:
        """Every line that could not be used."""
        return self.outside + tuple(line for section in self.sections for line in section.malformed)


@dataclass(frozen=True)
class SimilarityPairs:
    pairs: tuple[tuple[str, str, float], ...]
    """(word, word, similarity as judged by people)."""
    malformed: tuple[MalformedLine, ...] = ()
    header: MalformedLine | None = None
    """The first line, if it names the columns."""


def read_questions(path: str | os.PathLike[str], syntactic: str = SYNTACTIC) -> AnalogyQuestions | SimilarityPairs:
    """The set in a file: analogies if it has section lines or if most of its lines are four words, else pairs. Raises as the
    two functions below do."""
    lines = [line for _, line in _lines(path) if line.strip() and not line.startswith("#")]
    fours = sum(
        len(line.split()) == 4 and _parse_pair(line) is None and not any(map(_NUMBER.fullmatch, line.split()[2:]))
        for line in lines
    )
    analogies = any(map(_begins_a_section, lines)) or 2 * fours > len(lines)
    return read_analogies(path, syntactic) if analogies else read_similarity(path)


def read_analogies(path: str | os.PathLike[str], syntactic: str = SYNTACTIC) -> AnalogyQuestions:
    """The questions of a file in Google's format: ": section" lines, each followed by lines of four words.

    Lines with another number of words, and lines before the first section, are kept as malformed; empty lines and lines that
    begin with "# " are not counted.
    A file without section lines (MSR's, for example) becomes one section with the name of the file. syntactic: a regular
    expression that is found in the names of sections that ask about grammar. Raises ValueError if no question is left, OSError
    if the file cannot be read.
    """
    lines = [(number, line) for number, line in _lines(path) if not _COMMENT.match(line)]
    sections: list[tuple[str, list[Words4], list[MalformedLine]]] = []
    outside: list[MalformedLine] = []
    if not any(_begins_a_section(line) for _, line in lines):
        sections.append((Path(path).stem, [], []))
    for number, line in lines:
        words = line.split()
        if _begins_a_section(line):
            sections.append((line.strip().removeprefix(":").strip(), [], []))
        elif len(words) == 4 and sections:
            sections[-1][1].append((words[0], words[1], words[2], words[3]))
        elif words:
            (sections[-1][2] if sections else outside).append(MalformedLine(number, printable(line)))
    questions = AnalogyQuestions(
        tuple(AnalogySection(name, tuple(found), bool(re.search(syntactic, name)), tuple(bad)) for name, found, bad in sections),
        tuple(outside),
    )
    if not any(section.questions for section in questions.sections):
        expected = "': section' lines followed by lines of four words"
        bad = questions.malformed
        hint = _separator_hint([line for _, line in lines if line.strip() and not _begins_a_section(line)], 4)
        raise ValueError(f"{path}: expected {expected}, found no such line{_first_of(bad)}{hint}")
    return questions


def _begins_a_section(line: str) -> bool:
    """Whether the line is `: name`, or `:name`, which is no question of four words and no pair."""
    words = line.split()
    return words[:1] == [":"] or (line.startswith(":") and len(words) < 4 and _parse_pair(line) is None)


def read_similarity(path: str | os.PathLike[str]) -> SimilarityPairs:
    """The pairs of a file with lines of word, word, score, separated by tabs, else commas, else spaces.

    A byte order mark, empty lines and lines that begin with '#' are skipped; a first line that names the columns is kept
    as the header; any other line without two words and a finite number is kept in `malformed`. Raises ValueError if no
    pair is left, OSError if the file cannot be read.
    """
    pairs: list[tuple[str, str, float]] = []
    malformed: list[MalformedLine] = []
    header = None
    first = True
    for number, line in _lines(path):
        if not line.strip() or line.startswith("#"):
            continue
        pair = _parse_pair(line)
        if pair is not None and math.isfinite(pair[2]):
            pairs.append(pair)
        elif first and pair is not None and _names_columns(line):
            header = MalformedLine(number, printable(line))
        else:
            malformed.append(MalformedLine(number, printable(line)))
        first = False
    if not pairs:
        raise ValueError(
            f"{path}: expected lines of word, word, score (tabs, commas or spaces between), found no such line"
            f"{_first_of(malformed)}{_columns_hint(path)}"
        )
    return SimilarityPairs(tuple(pairs), tuple(malformed), header)


def _first_of(malformed: Sequence[MalformedLine]) -> str:
    return f"; first of {len(malformed):,} other lines: {malformed[0]}" if malformed else ""


def _fields(line: str) -> list[str]:
    if "\t" in line:
        fields = [_unquoted(field.strip()) for field in line.split("\t")]
    elif "," in line:
        try:
            fields = next(csv.reader([line]))
        except csv.Error:
            return []
    else:
        fields = line.split()
    return [field.strip() for field in fields]


def _unquoted(field: str) -> str:
    return field[1:-1] if len(field) > 2 and field[0] == field[-1] == '"' else field


def _parse_pair(line: str) -> tuple[str, str, float] | None:
    """(word, word, score), with score NaN if it is not a number; None if there are not three fields or a word is empty."""
    fields = _fields(line)
    if len(fields) != 3 or not fields[0] or not fields[1]:
        return None
    try:
        return fields[0], fields[1], math.nan if "_" in fields[2] else float(fields[2])
    except ValueError:
        return fields[0], fields[1], math.nan


def _names_columns(line: str) -> bool:
    """Whether the third field could be the name of a column rather than a missing or badly written judgement."""
    third = _fields(line)[2].casefold()
    return third not in _NO_JUDGEMENT and bool(re.search(r"[^\W\d_]", third)) and not re.match(r"[\d.,+-]", third)


def _separator_hint(lines: Sequence[str], columns: int) -> str:
    """Which character separates the columns of all lines, if it is one that does not here: words of analogies have spaces
    between, and a comma is for pairs."""
    chars, instead = (";|", "tabs") if columns == 3 else (";|,", "spaces")
    found = next((char for char in chars if lines and all(line.count(char) == columns - 1 for line in lines)), None)
    fields = [field.strip() for line in lines for field in line.split(found)]
    if not found or (columns == 4 and any(not field or _NUMBER.fullmatch(field) for field in fields)):
        return ""
    return f"; its columns are separated by {found!r}: write {instead}"


def _columns_hint(path: str | os.PathLike[str]) -> str:
    """What is wrong with the columns of all lines, and which of them to keep; nothing if they have no fault in common."""
    lines = [line for _, line in _lines(path) if line.strip() and not line.startswith("#")]
    rows = [_fields(line) for line in lines]
    if not rows:
        return "; it is empty"
    if any(len(row) == 3 and re.fullmatch(r"\d+,\d+", row[2]) for row in rows):
        return "; numbers have a point, not a comma"
    if any(len(row) == 3 and re.fullmatch(r"[\d.]+\s*%|\d+/\d+", row[2]) for row in rows):
        return "; a score is a plain number, without % or a fraction"
    if all(len(row) == 3 and any(map(_NUMBER.fullmatch, row[:2])) for row in rows):
        return "; the score comes third, behind the words"
    if any(len(row) == 3 and re.fullmatch(r"[−–]\d*\.?\d+", row[2]) for row in rows):
        return "; a minus is '-', not another dash"
    if hint := _separator_hint(lines, 3) or _separator_hint(lines, 4):
        return hint
    if all(len(row) == 2 and all(row) for row in rows):
        return "; its lines are pairs without a score, as in BATS, whose questions are four words: two pairs"
    if all(len(row) == 5 and not any(map(_NUMBER.fullmatch, row)) for row in rows):
        between = "" if "\t" in lines[0] else "-d' ' "
        kept = "1-3,5" if all(map(_TAG.fullmatch, (row[3] for row in rows))) else "1-4"
        return f"; its lines have 5 columns; analogies have four words: cut {between}-f{kept}"
    wide = rows[-1] if rows and len({len(row) for row in rows}) == 1 and len(rows[-1]) > 3 else []
    if not wide:
        return ""
    words = [column for column, field in enumerate(wide, 1) if field and not _NUMBER.fullmatch(field)][:2]
    score = next((column for column, field in enumerate(wide, 1) if column > 2 and _NUMBER.fullmatch(field)), None)
    between = "" if "\t" in lines[-1] else "-d, " if "," in lines[-1] else "-d' ' "
    keep = f"; keep the words and one score, perhaps: cut {between}-f{words[0]},{words[1]},{score}" if score and words[1:] else ""
    return f"; its lines have {len(wide)} columns{keep}"


def _lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, str]]:
    """(line number from 1, line) for each line of a UTF-8 file, without its byte order mark. Raises ValueError for a compressed
    file and for a line that is not UTF-8, which it names."""
    if Path(path).is_dir():
        raise ValueError(f"{path}: a folder; give the files in it")
    require_regular(Path(path))
    content = Path(path).read_bytes()
    if other := next((what for begin, what in _OTHERS.items() if content.startswith(begin)), None):
        raise ValueError(f"{path}: {other}")
    if 3 * content.count(b"\0") > len(content):
        raise ValueError(f"{path}: every second byte of it is NUL, as in UTF-16; convert it to UTF-8")
    if b"\n" not in content:
        content = content.replace(b"\r", b"\n")  # as old Macs end lines
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        try:
            yield number, line.decode("utf-8").rstrip("\r")
        except UnicodeDecodeError:
            raise ValueError(f"{path}: line {number} is not UTF-8; convert the file") from None
