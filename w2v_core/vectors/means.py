"""Means of vectors, and questions answered with them: how similar two lists of words are, and which word is the odd one out."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from w2v_core.vectors.cosines import Cosines, Doubles, unit
from w2v_core.vectors.terms import read_vector
from w2v_core.vectors.vocabulary import Ids, Key, UnknownWordError, UnknownWordsNote, Vocabulary, is_key, listed, shown


def mean_vector(
    cosines: Cosines,
    vocabulary: Vocabulary,
    keys: Any,
    weights: npt.ArrayLike | None,
    *,
    pre_normalize: bool,
    ignore_missing: bool,
) -> Doubles:
    """Σ weight · vector / Σ |weight| over the known keys, float64 (D,); zeros if no key is known.

    keys: words, rows and vectors; vectors are taken as they are. pre_normalize: words and rows are scaled to length 1.
    Raises ValueError for no keys or a wrong number of weights, UnknownWordError for unknown keys if not ignore_missing.
    """
    items = [keys] if is_key(keys) else listed(keys)
    if not items:
        raise ValueError("mean vector: expected at least one word, row or vector, found none")
    try:
        weights_N = np.ones(len(items)) if weights is None else np.asarray(weights, np.float64)
    except (TypeError, ValueError):
        weights_N = np.full(len(items), np.nan)
    if weights_N.shape != (len(items),):
        raise ValueError(f"mean vector: expected a weight for each of {len(items)} keys, found shape {weights_N.shape}")
    if not np.isfinite(weights_N).all():
        raise ValueError(f"mean vector: expected weights that are finite numbers, found {shown(weights)}")
    size = cosines.matrix.shape[1]
    total_D, total_weight = np.zeros(size), 0.0
    for item, weight in zip(items, weights_N.tolist(), strict=True):
        if is_key(item):
            row = vocabulary.find(item) if ignore_missing else vocabulary.row(item)
            if row is None:
                continue
            vector_D = cosines.unit_rows([row])[0] if pre_normalize else cosines.matrix[row].astype(np.float64)
        else:
            vector_D = read_vector(item, size)
        total_D += weight * vector_D
        total_weight += abs(weight)
    return total_D / total_weight if total_weight > 0 else total_D


def similarity_of_lists(cosines: Cosines, vocabulary: Vocabulary, first: Iterable[Any], second: Iterable[Any]) -> float:
    """The cosine of the mean vectors of two lists. Raises ValueError if no word of a list is known."""
    units = []
    for name, keys in (("first", first), ("second", second)):
        known = [key for key in ([keys] if is_key(keys) else listed(keys)) if not is_key(key) or vocabulary.find(key) is not None]
        if not known:
            raise ValueError(f"n_similarity: expected at least one known word in the {name} list, found none")
        units.append(unit(mean_vector(cosines, vocabulary, known, None, pre_normalize=False, ignore_missing=False)))
    return float(np.clip((units[0] * units[1]).sum(), -1.0, 1.0))


def known_rows(vocabulary: Vocabulary, words: Key | Iterable[Key], at_least: int = 1) -> list[int]:
    """The rows of the known words; warns of the others. Raises UnknownWordError if none is known, ValueError if fewer
    than `at_least` different ones are."""
    keys: list[Key] = [words] if is_key(words) else listed(words)
    rows = [vocabulary.find(key) for key in keys]
    unknown = [key for key, row in zip(keys, rows, strict=True) if row is None]
    known = [row for row in rows if row is not None]
    if unknown and not known:
        raise UnknownWordError(vocabulary.explain_unknown(unknown))
    if len(set(known)) < at_least:
        left_out = f"; {vocabulary.explain_unknown(unknown)}" if unknown else ""
        wanted = "1 known word" if at_least == 1 else f"{at_least} different known words"
        raise ValueError(f"expected at least {wanted}, found {len(set(known))}{left_out}")
    if unknown:
        warnings.warn(f"left out: {vocabulary.explain_unknown(unknown)}", UnknownWordsNote, stacklevel=3)
    return known


def centrality(cosines: Cosines, rows: Sequence[int], *, use_norm: bool) -> tuple[Ids, Doubles]:
    """(rows, similarities), sorted by nearness to the mean of all, the nearest first; equal ones in reverse order.

    use_norm: rows are scaled to length 1, so that similarities are cosines; otherwise they are dot products with the direction
    of the mean.
    """
    ids = np.asarray(rows, np.int64)
    vectors_ND = cosines.unit_rows(ids) if use_norm else cosines.matrix[ids].astype(np.float64)
    mean_D = unit(vectors_ND.mean(axis=0))
    found_N = (vectors_ND * mean_D).sum(axis=1)
    if use_norm:
        np.clip(found_N, -1.0, 1.0, out=found_N)
    order = np.lexsort((-np.arange(len(ids)), -found_N))
    return ids[order], found_N[order]
