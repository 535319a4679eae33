"""Sentences held by a program, written to files that the stages can read, so that a repeated run finds its parts.

lists of words                  written unchanged, and later split at white space only
lines of text                   tokenized like those of any file
a table (Arrow, pandas, Polars) the lines of one column, or a column by itself, without missing values; also a table at a time
a Dask bag or data frame        of either kind, a partition at a time, the next ones computed meanwhile if there is a cluster
"""

from __future__ import annotations

import contextlib
import itertools
import numbers
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

from pipeline import store
from pipeline.errors import DataError, InputError, printable
from pipeline.text.formats.records import same_but_for_case

FILE_BYTES = 16 << 20
AS_THEY_ARE = {"tokenizer": "whitespace", "lowercase": False, "normalize": None}
"""Settings of `tokenize` for text that is already split into words."""
_SPACE = re.compile(r"\s")
_LIKE_A_PATH = re.compile(r"pydocs:|\S*://|\S*[/*?]|\S*\.[A-Za-z0-9]{1,10}$")
_EXPECTED = "paths, sentences (lists of words or lines of text), a table or a Dask bag"
_ONE_VALUE = {("dask.bag.core", "Item"), ("distributed.client", "Future"), ("distributed.actor", "ActorFuture")}
_END = object()


def in_order(source: Any) -> Any:
    """The source; a set sorted, since its own order differs from process to process, and an iterator over nothing but paths
    (`Path.glob`, `iglob`), which would be read as lines of text, as a list of them."""
    if isinstance(source, AbstractSet):
        with contextlib.suppress(TypeError):  # of what cannot be sorted, its sentences are refused
            return sorted(source)
    if not isinstance(source, Iterator) or _columns_of(source) is not None:
        return source
    begun = []
    for item in source:
        begun.append(item)
        if not _names_file(item):
            return itertools.chain(begun, source)
    return begun


def paths_in(source: Any) -> list[str]:
    """The paths, patterns and addresses that `source` consists of; none if it holds sentences.

    Strings in a list are paths if every one of them exists, or if they look like file names (`a.txt`, `texts/*`, `s3://…`) or
    exist, without white space in any: lines of text have some.
    """
    if isinstance(source, (str, os.PathLike)):
        return [os.fspath(source)]
    if not isinstance(source, (list, tuple)) or not source:
        return []
    return [os.fspath(item) for item in source] if all(map(_names_file, source)) else []


def _names_file(item: object) -> bool:
    return isinstance(item, os.PathLike) or (isinstance(item, str) and _is_path(item))


def _is_path(text: str) -> bool:
    return (_SPACE.search(text) is None and _LIKE_A_PATH.match(text) is not None) or os.path.exists(text)


def sentences_of(source: Any, text_field: str) -> Iterator[Any]:
    """The sentences of a source that is not a path, one by one: lines of text, or sequences of words. Raises InputError."""
    if _is_one_value(source):
        raise InputError(
            f"expected {_EXPECTED}, found a single value ({type(source).__name__}); pass what its {_method(source)}() returns"
        )
    columns = _columns_of(source)
    if hasattr(source, "to_delayed"):
        for partition in _partitions_of(source):
            yield from sentences_of(partition, text_field)
    elif columns is not None:
        if text_field not in columns:
            near = same_but_for_case(columns, text_field)
            way_out = f"did you mean {near!r}? give text_field={near!r}" if near else "give text_field"
            raise InputError(f"the table has no column {text_field!r}, it has {', '.join(columns)}; {way_out}")
        if columns.count(text_field) > 1:
            raise InputError(f"the table has {columns.count(text_field)} columns {text_field!r}; rename all but the one to read")
        # Only readers, which yield a table at a time, cannot be asked for a column.
        for table in [source] if hasattr(source, "__getitem__") else _tables_of(source):
            yield from _present(table[text_field])
    elif callable(getattr(source, "dropna", None)) or hasattr(source, "to_pylist"):
        yield from _present(source)
    elif isinstance(source, Iterable) and not isinstance(source, (bytes, bytearray, Mapping)):
        for item in source:
            if isinstance(item, (str, list, tuple)) or _is_one_value(item) or _columns_of(item) is None:
                yield item
            else:
                yield from sentences_of(item, text_field)
    else:
        hint = "; pass what it returns" if callable(source) else ""
        raise InputError(f"expected {_EXPECTED}, found {type(source).__name__}{hint}")


def _is_one_value(source: Any) -> bool:
    """Whether it is a single value that Dask has yet to compute, which answers to every name: what a bag's `count()` returns."""
    kind = type(source)
    return kind.__module__ == "dask.delayed" or (kind.__module__, kind.__name__) in _ONE_VALUE


def _method(value: Any) -> str:
    return "result" if type(value).__module__.startswith("distributed.") else "compute"


def _partitions_of(source: Any) -> Iterator[Any]:
    """The partitions of a bag or data frame, in order. If Dask would compute them on a cluster, as many as it has threads are
    computed ahead: they wait in its memory, and this process holds one."""
    from dask.base import get_scheduler

    left = deque(source.to_delayed())
    client = getattr(get_scheduler(), "__self__", None)
    if client is None or client.asynchronous or client.status != "running":
        yield from (partition.compute() for partition in left)
        return
    ahead, under_way = sum(client.nthreads().values()), deque[Any]()
    try:
        while left or under_way:
            while left and len(under_way) <= ahead:
                under_way.append(client.compute(left.popleft()))
            yield under_way[0].result()
            under_way.popleft()
    finally:
        # After an error, what nobody will read would be computed to its end, and stay in the cluster's memory.
        for future in under_way:
            future.release()


def _columns_of(source: Any) -> list[str] | None:
    """The names of a table's columns; None if the source is not a table."""
    for names in ("column_names", "columns", "schema"):  # Arrow's tables; pandas and Polars; Arrow's readers
        if hasattr(source, names):
            found = getattr(source, names)
            return [str(name) for name in getattr(found, "names", found)] if names == "schema" else [str(name) for name in found]
    return None


def _tables_of(reader: Any) -> Iterator[Any]:
    """The tables of a reader, one at a time; those of a file of Parquet and of a dataset come from a method."""
    methods = [getattr(reader, name) for name in ("to_batches", "iter_batches") if hasattr(reader, name)]
    return iter(methods[0]() if methods else reader)


def _present(column: Any) -> Iterator[Any]:
    """The values of a column that are not missing as Python's own, those of Arrow a chunk at a time."""
    if hasattr(column, "to_pylist"):
        rows = itertools.chain.from_iterable(chunk.to_pylist() for chunk in getattr(column, "chunks", [column]))
    else:
        rows = iter(column.dropna() if callable(getattr(column, "dropna", None)) else column)
    return (row for row in rows if row is not None)


def lines_of(sentences: Iterator[Any]) -> tuple[Iterator[str], bool]:
    """The sentences as lines, and whether they are sequences of words. The first is read at once, so that what holds no sentences
    is refused before anything is written.

    Raises InputError if there are none, DataError for a sentence of another kind and a word that contains white space.
    """
    first = next(sentences, _END)
    if first is _END:
        raise InputError("there are no sentences to train on; note that a generator yields its sentences only once")
    as_words = not isinstance(first, str)
    begun = [_line(first, 0, as_words)]
    return itertools.chain(begun, (_line(sentence, at, as_words) for at, sentence in enumerate(sentences, start=1))), as_words


def write_lines(lines: Iterator[str], folder: Path, on_block: Callable[[int], None]) -> None:
    """Writes the lines as `part-00000.txt` and so on into `folder`, replacing earlier ones. `on_block` is called with the bytes
    of every block written. Raises InputError if all of them are blank."""
    count, blank = 0, True
    for count, data in enumerate(_blocks(lines), start=1):
        store.write_bytes(folder / f"part-{count - 1:05d}.txt", data)
        blank = blank and data.isspace()
        on_block(len(data))
    for path in folder.glob("part-*.txt"):
        if int(path.stem.partition("-")[2]) >= count:
            path.unlink()
    if blank:
        raise InputError("there is no word to train on: all sentences are empty")


def _line(sentence: Any, number: int, as_words: bool) -> str:
    if not as_words and isinstance(sentence, str):
        return sentence.replace("\n", " ").replace("\r", " ")
    if _is_one_value(sentence):
        raise DataError(
            f"sentence {number:,}: expected a sequence of words or a line of text, found a value that Dask has yet to compute "
            f"({type(sentence).__name__}); pass what its {_method(sentence)}() returns"
        )
    if isinstance(sentence, (str, bytes, bytearray, Mapping)) or not as_words or not isinstance(sentence, Iterable):
        like = "a sequence of words like the first" if as_words else "a line of text like the first"
        expected = like if number else "a sequence of words or a line of text"
        raise DataError(f"sentence {number:,}: expected {expected}, found {type(sentence).__name__}{_way_out(sentence)}")
    words = list(sentence)
    with contextlib.suppress(TypeError):
        line = " ".join(words)
        if line.split() == words and "\0" not in line:
            return line
    for word in words:
        if not isinstance(word, str):
            found = f"{printable(repr(word), 60)} ({type(word).__name__})"
            raise DataError(f"sentence {number:,}: expected words, found {found}{_way_out(word)}")
        if not word or _SPACE.search(word) or "\0" in word:
            raise DataError(
                f"sentence {number:,}: expected words without white space and NUL, found {printable(repr(word), 60)}; "
                "join the words of a phrase with _"
            )
    return " ".join(words)


def _way_out(value: Any) -> str:
    """How text is made of what is none."""
    if isinstance(value, (bytes, bytearray)):
        return "; decode() makes text of it"
    if isinstance(value, Mapping):
        return "; give the text in it: (record['text'] for record in …)"
    if isinstance(value, numbers.Number) or hasattr(value, "as_py"):  # the latter: Arrow's values
        return "; str() makes text of it"
    return ""


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
