"""Sentences held by a program, written to files that the stages can read, so that a repeated run finds its parts.

lists of words                  written unchanged, and later split at white space only
lines of text                   tokenized like those of any file
an Arrow table                  the lines of one column
a Dask bag                      of either kind, one partition at a time
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pipeline import store
from pipeline.errors import DataError, InputError, printable

FILE_BYTES = 16 << 20
AS_THEY_ARE = {"tokenizer": "whitespace", "lowercase": False, "normalize": None}
"""Settings of `tokenize` for text that is already split into words."""
_SPACE = re.compile(r"\s")


def sentences_of(source: Any, text_field: str) -> Iterator[Any]:
    """The sentences of a source that is not a path, one by one: lines of text, or sequences of words."""
    if hasattr(source, "to_delayed"):
        for partition in source.to_delayed():
            yield from partition.compute()
    elif hasattr(source, "column_names"):
        if text_field not in source.column_names:
            raise InputError(f"the table has no column {text_field!r}, it has {', '.join(source.column_names)}; give text_field")
        for chunk in source.column(text_field).chunks:
            yield from (line for line in chunk.to_pylist() if line is not None)
    elif isinstance(source, Iterable):
        yield from source
    else:
        raise InputError(f"expected paths, sentences, an Arrow table or a Dask bag, found {type(source).__name__}")


def write_sentences(sentences: Iterator[Any], folder: Path) -> bool:
    """Writes the sentences as `part-00000.txt` and so on into `folder`, replacing earlier ones; returns whether they are
    sequences of words.

    Raises InputError if there are none, DataError for a word that contains white space.
    """
    first = next(sentences, None)
    if first is None:
        raise InputError("there are no sentences to train on; note that a generator yields its sentences only once")
    as_words = not isinstance(first, str)
    lines = (_line(sentence, number, as_words) for number, sentence in enumerate(itertools.chain([first], sentences)))
    count = 0
    for count, data in enumerate(_blocks(lines), start=1):
        store.write_bytes(folder / f"part-{count - 1:05d}.txt", data)
    for path in folder.glob("part-*.txt"):
        if int(path.stem.partition("-")[2]) >= count:
            path.unlink()
    return as_words


def _line(sentence: Any, number: int, as_words: bool) -> str:
    if isinstance(sentence, str) is as_words:
        expected = "a sequence of words" if as_words else "a line of text"
        raise DataError(f"sentence {number:,}: expected {expected} like the first, found {type(sentence).__name__}")
    if not as_words:
        return str(sentence).replace("\n", " ").replace("\r", " ")
    words = list(sentence)
    for word in words:
        if not isinstance(word, str):
            raise DataError(f"sentence {number:,}: expected words, found {printable(repr(word), 60)} ({type(word).__name__})")
        if not word or _SPACE.search(word):
            raise DataError(
                f"sentence {number:,}: expected words without white space, found {printable(repr(word), 60)}; "
                "join the words of a phrase with _"
            )
    return " ".join(words)


def _blocks(lines: Iterable[str]) -> Iterator[bytes]:
    """The lines as UTF-8, in blocks of at least FILE_BYTES except for the last."""
    block, size = [], 0
    for line in lines:
        block.append(line.encode("utf-8", "surrogatepass") + b"\n")
        size += len(block[-1])
        if size >= FILE_BYTES:
            yield b"".join(block)
            block, size = [], 0
    if block:
        yield b"".join(block)
