"""What word vectors are made of, checked and read-only, and others made from some: fewer words, other words behind them.

Nothing changes in place. All functions give what `WordVectors` takes: (words, matrix, counts, context).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from w2v_core.vectors.vocabulary import Ids, Key, Vocabulary, shown


class Parts(NamedTuple):
    """What a `WordVectors` is made of."""

    words: Sequence[str]
    matrix: npt.NDArray[Any]
    counts: Ids | None
    context: npt.NDArray[Any] | None


DTYPES = ("float32", "float16", "float64")
"""What a matrix may hold. float32 is what everything is made for; the others are what somebody's file held."""


def checked(words: Sequence[str], matrix: Any, counts: Any, context: Any) -> Parts:
    """The same arrays behind read-only views. Raises ValueError for another dtype or shape, or nothing at all."""
    found = _read_only(matrix, DTYPES, "matrix", (len(words), None))
    if found.size == 0:
        raise ValueError(f"matrix: expected at least one word and one number a word, found shape {found.shape}")
    return Parts(
        words,
        found,
        None if counts is None else _read_only(counts, ("int64",), "counts", (len(words),)),
        None if context is None else _read_only(context, DTYPES, "context", found.shape),
    )


def _read_only(array: Any, dtypes: Sequence[str], name: str, shape: tuple[int | None, ...]) -> Any:
    found = np.asarray(array)
    matches = len(found.shape) == len(shape) and all(want in (None, size) for size, want in zip(found.shape, shape, strict=True))
    if found.dtype.name not in dtypes or not matches:
        wanted = " × ".join("D" if size is None else f"{size:,}" for size in shape)
        raise ValueError(f"{name}: expected {dtypes[0]} of {wanted} (a row a word), found {found.dtype} {found.shape}")
    view = found.view()
    view.flags.writeable = False
    return view


def take(parts: Parts, vocabulary: Vocabulary, keys: Iterable[Key], missing: Literal["refuse", "skip"]) -> Parts:
    """The rows of some words in the order given, each once. Raises UnknownWordError unless missing ones are skipped,
    ValueError if none is left."""
    if missing not in ("refuse", "skip"):
        raise ValueError(f"missing: expected refuse or skip, found {missing!r}")
    if missing == "refuse":
        rows = vocabulary.rows(keys)
    else:
        rows = [row for key in ([keys] if isinstance(keys, str) else keys) if (row := vocabulary.find(key)) is not None]
    ids = np.array(list(dict.fromkeys(rows)), np.int64)
    if not len(ids):
        raise ValueError("expected at least one word of the vocabulary, found none")
    words = [vocabulary.words[row] for row in ids.tolist()]
    counts, context = (None if array is None else array[ids] for array in (parts.counts, parts.context))
    return Parts(words, parts.matrix[ids], counts, context)


def add(
    parts: Parts,
    vocabulary: Vocabulary,
    words: Sequence[str] | str,
    vectors: npt.ArrayLike,
    counts: npt.ArrayLike | None,
    replace: bool,
) -> Parts:
    """The rows that are there, changed where `replace` says so, and those of words that are new behind them.

    Output vectors are dropped: new words have none. New words count 0 where counts are known and theirs are not given.
    """
    new = [words] if isinstance(words, str) else list(words)
    size = parts.matrix.shape[1]
    try:
        rows_ND = np.asarray(vectors, parts.matrix.dtype).reshape(len(new), size)
    except (TypeError, ValueError):
        raise ValueError(f"vectors: expected {len(new)} × {size} numbers, found {shown(vectors)}") from None
    if counts is None:
        counts_N = np.zeros(len(new), np.int64)
    else:
        counts_N = np.asarray(counts).reshape(-1).astype(np.int64, casting="safe")
        if len(counts_N) != len(new):
            raise ValueError(f"counts: expected {len(new)}, found {len(counts_N)}")
    Vocabulary(new)  # refuses a word given twice
    known = np.array([vocabulary.find(word) is not None for word in new], bool)
    matrix = np.concatenate([parts.matrix, rows_ND[~known]])
    old_counts = parts.counts if parts.counts is not None or counts is None else np.zeros(len(parts.words), np.int64)
    all_counts = None if old_counts is None else np.concatenate([old_counts, counts_N[~known]])
    if replace:
        ids = vocabulary.rows([word for word, there in zip(new, known, strict=True) if there])
        matrix[ids] = rows_ND[known]
        if all_counts is not None and counts is not None:
            all_counts[ids] = counts_N[known]
    return Parts([*parts.words, *(word for word, there in zip(new, known, strict=True) if not there)], matrix, all_counts, None)
