"""The parts of a `WordVectors`, checked and read-only; and parts derived from others: fewer words, or more words appended.

Nothing changes in place. All functions return the arguments of `WordVectors`: (words, matrix, counts, context).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from w2v_core.vectors.vocabulary import Ids, Key, Vocabulary, listed, shown


class Parts(NamedTuple):
    """The arguments of `WordVectors`."""

    words: Sequence[str]
    matrix: npt.NDArray[Any]
    counts: Ids | None
    context: npt.NDArray[Any] | None


DTYPES = ("float32", "float16", "float64")
"""The dtypes that a matrix may have. Everything is designed for float32; the others come from files of other programs."""


def checked(words: Sequence[str], matrix: Any, counts: Any, context: Any) -> Parts:
    """Read-only views of the arrays. Raises ValueError for a wrong dtype or shape, and if there are no words or no numbers."""
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
    """The rows of the given words, in their order, each once. Raises UnknownWordError unless missing words are skipped, and
    ValueError if no word is left."""
    if missing not in ("refuse", "skip"):
        raise ValueError(f"missing: expected refuse or skip, found {missing!r}")
    if missing == "refuse":
        rows = vocabulary.rows(keys)
    else:
        rows = [row for key in ([keys] if isinstance(keys, str) else listed(keys)) if (row := vocabulary.find(key)) is not None]
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
    """The existing rows, with new vectors for words given again if `replace`, followed by the rows of new words.

    Output vectors are dropped, because new words have none. New words get the count 0 if counts are known but theirs are not
    given. Raises ValueError for wrong shapes and for a word given twice.
    """
    new = [words] if isinstance(words, str) else listed(words)
    size = parts.matrix.shape[1]
    try:
        rows_ND = np.asarray(vectors, parts.matrix.dtype).reshape(len(new), size)
    except (TypeError, ValueError):
        raise ValueError(f"vectors: expected {len(new)} × {size} numbers, found {shown(vectors)}") from None
    if counts is None:
        counts_N = np.zeros(len(new), np.int64)
    else:
        counts_N = np.asarray(counts).reshape(-1)
        if counts_N.dtype.kind not in "iu":
            raise ValueError(f"counts: expected whole numbers, found {shown(counts)}")
        counts_N = counts_N.astype(np.int64)
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
