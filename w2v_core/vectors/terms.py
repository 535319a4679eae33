"""What a query is about: words, rows and vectors, each with a weight, in the various ways people write them.

gensim accepts all of these, and so do we:

    "king"      7      a vector      ("king", 0.7)      a list, an array or a column of these      {"king": 0.7, "woman": -1.0}
"""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from w2v_core.vectors.cosines import Candidates, Cosines, Doubles, unit
from w2v_core.vectors.vocabulary import Key, Vocabulary, is_key, listed, shown

Item = Key | npt.NDArray[Any] | tuple[Key | npt.NDArray[Any], float]
Query = Item | Iterable[Item] | Mapping[Key, float] | None

_WANTED = "a word, the number of its row, a vector, or one of them with a weight"

_FLOAT = (float, np.floating)


class Term(NamedTuple):
    """A row, or a vector that belongs to no word, with its weight."""

    row: int | None
    vector_D: Doubles
    """Empty if there is a row."""
    weight: float


def read_terms(vocabulary: Vocabulary, vector_size: int, positive: Query, negative: Query) -> tuple[list[Term], list[Term]]:
    """The terms of either side of a query; items of `negative` without a weight of their own get −1, as in gensim.

    Raises UnknownWordError, which names all unknown words, and TypeError or ValueError for items or weights that cannot be read.
    """
    plus, minus = _items(positive, "positive"), _items(negative, "negative")
    keys = [item[0] if _has_weight(item) else item for item in plus + minus]
    vocabulary.rows([key for key in keys if is_key(key)])  # so that an error names all unknown words
    read_plus = [_read(vocabulary, vector_size, item, 1.0) for item in plus]
    return read_plus, [_read(vocabulary, vector_size, item, -1.0) for item in minus]


def read_vector(value: Any, vector_size: int) -> Doubles:
    """`value` as a float64 vector (D,). Raises ValueError unless it is vector_size finite numbers."""
    try:
        found = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"vector: expected {vector_size} finite numbers, found {shown(value)}") from None
    if found.shape != (vector_size,):
        raise ValueError(f"vector: expected {vector_size} finite numbers, found shape {found.shape}")
    if not np.isfinite(found).all():
        raise ValueError(f"vector: expected {vector_size} finite numbers, found {np.count_nonzero(~np.isfinite(found))} others")
    return found


def rows_of(terms: Iterable[Term]) -> list[int]:
    return [term.row for term in terms if term.row is not None]


def direction(cosines: Cosines, terms: Sequence[Term]) -> Doubles:
    """The direction, a unit vector (D,), of the weighted sum of the terms: rows at length 1, vectors as given, as in gensim."""
    total_D = np.zeros(cosines.matrix.shape[1])
    for term in terms:
        total_D += term.weight * _vector_of(cosines, term)
    return unit(total_D)


def unit_of(cosines: Cosines, term: Term) -> Doubles:
    """The direction of a term, a unit vector (D,), without regard to its weight."""
    return unit(_vector_of(cosines, term))


def _vector_of(cosines: Cosines, term: Term) -> Doubles:
    if term.row is None:
        return term.vector_D
    unit_D: Doubles = cosines.unit_rows([term.row])[0]
    return unit_D


def read_candidates(vocabulary: Vocabulary, restrict: Any, clip_start: int = 0, clip_end: int | None = None) -> Candidates:
    """The rows that may be answers: the first `restrict`, or those of the words it lists, or clip_start … clip_end − 1."""
    if restrict is None:
        start, stop, _ = slice(clip_start or 0, clip_end or None).indices(len(vocabulary.words))
        return slice(start, max(start, stop))
    if isinstance(restrict, str) or not isinstance(restrict, Iterable):
        return slice(0, min(whole_number(restrict, "restrict_vocab", 1), len(vocabulary.words)))
    return np.array(list(dict.fromkeys(vocabulary.row_ids(restrict).tolist())), np.int64)


def whole_number(value: Any, name: str, least: int) -> int:
    """`value` as an int. Raises TypeError if it is not a whole number, ValueError if it is below `least`."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name}: expected a whole number, found {shown(value)} ({type(value).__name__})")
    if int(value) < least:
        raise ValueError(f"{name}: expected at least {least}, found {value}")
    return int(value)


def _items(query: Query, name: str) -> list[Any]:
    if query is None:
        return []
    if is_key(query) or (isinstance(query, np.ndarray) and query.ndim == 1 and query.dtype.kind in "fiu"):
        return [query]
    if isinstance(query, Mapping):
        return list(query.items())
    if isinstance(query, tuple) and len(query) == 2 and isinstance(query[1], _FLOAT) and not isinstance(query[0], _FLOAT):
        return [query]  # with its weight, which is no row
    try:
        items = listed(query)
        return [np.array(items)] if _is_vector(items) else items
    except TypeError:
        raise TypeError(
            f"{name}: expected {_WANTED}, or a list of these; found {shown(query)} ({type(query).__name__})"
        ) from None


def _is_vector(items: list[Any]) -> bool:
    """Whether these are the numbers of one vector; whole numbers alone are rows."""
    return any(isinstance(item, _FLOAT) for item in items) and all(isinstance(item, numbers.Real) for item in items)


def _read(vocabulary: Vocabulary, vector_size: int, item: Any, weight: float) -> Term:
    if _has_weight(item):
        item, weight = item
    if isinstance(weight, bool) or not isinstance(weight, numbers.Real) or not np.isfinite(float(weight)):
        raise TypeError(f"expected a weight that is a finite number, found {shown(weight)}")
    if is_key(item):
        return Term(vocabulary.row(item), np.empty(0), float(weight))
    if isinstance(item, np.ndarray | list | tuple):
        return Term(None, read_vector(item, vector_size), float(weight))
    raise TypeError(f"expected {_WANTED}; found {shown(item)} ({type(item).__name__})")


def _has_weight(item: Any) -> bool:
    """Whether an item is (item, weight); a list of two numbers is a vector."""
    if not isinstance(item, tuple | list) or len(item) != 2:
        return False
    return isinstance(item, tuple) or isinstance(item[0], str | np.ndarray)
