"""Trained word vectors: the words in id order, their counts, one matrix, and the questions one asks of them.

A query reads the matrix once in float32, which gives every cosine to within a proven bound, and computes those that
could be among the answers again in float64, row by row. So the order never depends on the BLAS at hand, equal vectors
score equally, and ties go to the lower word id (the more frequent word). The cosine with a zero vector is 0.
Memory besides the matrix: 8 bytes a word for the norms, made by the first query, and a few floats a word while it runs.
"""

from __future__ import annotations

import difflib
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from w2v_core.vectors import files

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]
Method = Literal["3cosadd", "3cosmul"]
Answers = list[tuple[str, float]]
"""[(word, score)], best first."""

COSMUL_EPSILON = 1e-6
"""Keeps the 3CosMul denominator from 0; Levy and Goldberg 2014 use .001, gensim 1e-6: we keep to gensim."""

_BLOCK_ROWS = 4096
_SPELLING_WORDS, _SPELLING_CANDIDATES = 50_000, 5_000


class UnknownWordError(KeyError):
    """A word that is not in the vocabulary; the message names the nearest spellings that are."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would show the message in quotes


def printable(text: str, limit: int = 80) -> str:
    """Text from data made safe for a terminal: control and bidirectional characters escaped, at most `limit` characters."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:limit])
    return shown if len(shown) <= limit and len(text) <= limit else shown[: limit - 1] + "…"


@dataclass(frozen=True, eq=False, repr=False)
class WordVectors:
    """V words with a vector each. `matrix` is kept as it is given (not copied) behind a read-only view.

    words: V different strings in id order, most frequent first; matrix: float32 (V, D); counts: int64 (V,) or None.
    Raises ValueError for another dtype or shape, no words at all, or a word that comes twice.
    """

    words: Sequence[str]
    matrix: Floats
    counts: Ids | None = None
    _ids: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        words = tuple(self.words)
        matrix = _read_only(self.matrix, np.float32, "matrix", (len(words), None))
        if matrix.size == 0:
            raise ValueError(f"matrix: expected at least one word and one number a word, found shape {matrix.shape}")
        ids = dict(zip(words, range(len(words)), strict=True))
        if len(ids) < len(words):
            twice = next(word for word_id, word in enumerate(words) if ids[word] != word_id)
            raise ValueError(f"words: {len(words) - len(ids):,} come twice, first '{printable(twice)}'; give every word once")
        counts = None if self.counts is None else _read_only(self.counts, np.int64, "counts", (len(words),))
        for name, value in (("words", words), ("matrix", matrix), ("counts", counts), ("_ids", ids)):
            object.__setattr__(self, name, value)

    @property
    def vector_size(self) -> int:
        return int(self.matrix.shape[1])

    def __len__(self) -> int:
        return len(self.words)

    def __repr__(self) -> str:
        return f"WordVectors({len(self):,} words, vector_size={self.vector_size})"

    def __contains__(self, word: object) -> bool:
        return word in self._ids

    def __iter__(self) -> Iterator[str]:
        return iter(self.words)

    def __getitem__(self, word: str) -> Floats:
        """The word's vector (D,), float32, read-only. Raises UnknownWordError."""
        row_D: Floats = self.matrix[self.word_id(word)]
        return row_D

    def word_id(self, word: str) -> int:
        """The word's row in the matrix. Raises UnknownWordError."""
        try:
            return self._ids[word]
        except KeyError:
            raise UnknownWordError(self._explain_unknown(word)) from None

    @cached_property
    def norms(self) -> Doubles:
        """Euclidean lengths (V,), float64. Raises ValueError naming the first word whose vector is not finite."""
        norms_V = np.empty(len(self), np.float64)
        for rows in files.row_blocks(len(self), _BLOCK_ROWS):
            block = self.matrix[rows].astype(np.float64)
            norms_V[rows] = np.sqrt((block * block).sum(axis=1))
        broken = np.flatnonzero(~np.isfinite(norms_V))
        if len(broken):
            word = printable(self.words[int(broken[0])])
            raise ValueError(
                f"matrix: {len(broken):,} vectors hold numbers that are not finite, first that of '{word}'; "
                "training diverged or the file is damaged: train again with a lower alpha, or fetch the file again"
            )
        return norms_V

    def unit_vectors(self, word_ids: npt.ArrayLike) -> Doubles:
        """The vectors of some words at length 1, float64 (n, D); zero vectors stay zero."""
        ids = np.asarray(word_ids, dtype=np.int64)
        return self.matrix[ids].astype(np.float64) / _nonzero(self.norms[ids])[:, None]

    # ── questions ────────────────────────────────────────────────────────────────────────────────────────────────────

    def similarity(self, first: str, second: str) -> float:
        """The cosine of two words, -1 to 1; 0 if one of the vectors is zero. Raises UnknownWordError."""
        unit = self.unit_vectors([self.word_id(first), self.word_id(second)])
        return float(np.clip((unit[0] * unit[1]).sum(), -1.0, 1.0))

    def most_similar(
        self,
        positive: str | Sequence[str] = (),
        negative: str | Sequence[str] = (),
        topn: int = 10,
        restrict_vocab: int | None = None,
    ) -> Answers:
        """[(word, cosine)] nearest to the sum of the positive less the negative words' unit vectors, without those words.

        restrict_vocab: only the first so many words can be answers. Raises UnknownWordError, ValueError without any word.
        """
        plus, minus = self._ids_of(positive), self._ids_of(negative)
        if not plus and not minus:
            raise ValueError("most_similar: give at least one positive or negative word")
        query_D = self.unit_vectors(plus).sum(axis=0) - self.unit_vectors(minus).sum(axis=0)
        return self._nearest(query_D, topn, restrict_vocab, plus + minus)

    def similar_by_vector(self, vector: npt.ArrayLike, topn: int = 10, restrict_vocab: int | None = None) -> Answers:
        """[(word, cosine)] nearest to a vector (D,) of any length. Raises ValueError for another shape or not finite."""
        query_D = np.asarray(vector, dtype=np.float64)
        if query_D.shape != (self.vector_size,) or not np.isfinite(query_D).all():
            raise ValueError(f"vector: expected {self.vector_size} finite numbers, found shape {query_D.shape}")
        return self._nearest(query_D, topn, restrict_vocab, [])

    def analogy(
        self, a: str, b: str, c: str, method: Method = "3cosadd", topn: int = 10, restrict_vocab: int | None = None
    ) -> Answers:
        """[(word, score)] for "a is to b as c is to …"; a, b and c are never answers. Raises UnknownWordError.

        3cosadd: the cosine with b − a + c (unit vectors). 3cosmul: the product of the similarities to b and c over that to
        a, cosines shifted to 0 … 1 (Levy and Goldberg 2014, equation 4); one large similarity decides less there.
        """
        if method == "3cosadd":
            return self.most_similar([b, c], [a], topn, restrict_vocab)
        if method != "3cosmul":
            raise ValueError(f"method: expected 3cosadd or 3cosmul, found {method!r}")
        a_id, b_id, c_id = self._ids_of([a, b, c])
        limit = self._limit(topn, restrict_vocab)
        unit_3D = self.unit_vectors([b_id, c_id, a_id])
        shifted_3V = [(1 + self._rough_cosines(unit_D, limit)) / 2 for unit_D in unit_3D]
        bound = self._error_bound  # of a shifted cosine: half of it, and of a product of two: all of it
        top, bottom = shifted_3V[0] * shifted_3V[1], shifted_3V[2]
        upper = (top + bound) / (np.maximum(bottom - bound, 0) + COSMUL_EPSILON)
        lower = (top - bound) / (bottom + bound + COSMUL_EPSILON)
        ids = _shortlist(lower, upper, topn, [a_id, b_id, c_id])
        to_b, to_c, to_a = ((1 + self._cosines(ids, unit_D)) / 2 for unit_D in unit_3D)
        return self._ranked(ids, to_b * to_c / (to_a + COSMUL_EPSILON), topn)

    def doesnt_match(self, words: Sequence[str]) -> str:
        """The word farthest from the mean direction of all; of equals the first given. Raises ValueError for fewer than 3."""
        ids = self._ids_of(words)
        if len(set(ids)) < 3:
            raise ValueError(f"doesnt_match: expected at least 3 different words, found {len(set(ids))}")
        mean_D = self.unit_vectors(ids).mean(axis=0)
        return self.words[ids[int(np.argmin(self._cosines(np.array(ids), mean_D)))]]

    # ── how answers are found ────────────────────────────────────────────────────────────────────────────────────────

    def _ids_of(self, words: str | Sequence[str]) -> list[int]:
        return [self.word_id(word) for word in ([words] if isinstance(words, str) else words)]

    def _limit(self, topn: int, restrict_vocab: int | None) -> int:
        if topn < 1 or (restrict_vocab is not None and restrict_vocab < 1):
            raise ValueError(f"expected topn and restrict_vocab of at least 1, found {topn} and {restrict_vocab}")
        return len(self) if restrict_vocab is None else min(restrict_vocab, len(self))

    def _nearest(self, query_D: Doubles, topn: int, restrict_vocab: int | None, excluded: list[int]) -> Answers:
        limit = self._limit(topn, restrict_vocab)
        length = float(np.sqrt((query_D * query_D).sum()))
        unit_D = query_D / (length or 1.0)
        rough = self._rough_cosines(unit_D, limit)
        ids = _shortlist(rough - self._error_bound, rough + self._error_bound, topn, excluded)
        return self._ranked(ids, self._cosines(ids, unit_D), topn)

    @property
    def _error_bound(self) -> float:
        """The farthest a float32 cosine of D numbers can be from the true one: a dot product's (D + 2)·2⁻²⁴, rounded up."""
        return (self.vector_size + 8) * 2.0**-24

    def _rough_cosines(self, unit_D: Doubles, limit: int) -> Doubles:
        dots = self.matrix[:limit] @ unit_D.astype(np.float32)
        return dots / _nonzero(self.norms[:limit])

    def _cosines(self, word_ids: Ids, unit_D: Doubles) -> Doubles:
        """Cosines in float64, each row summed in the same order wherever it lies: equal vectors give equal numbers."""
        found = np.empty(len(word_ids), np.float64)
        for rows in files.row_blocks(len(word_ids), _BLOCK_ROWS):
            found[rows] = (self.unit_vectors(word_ids[rows]) * unit_D).sum(axis=1)
        return found

    def _ranked(self, word_ids: Ids, scores: Doubles, topn: int) -> Answers:
        order = np.lexsort((word_ids, -scores))[:topn]
        return [(self.words[word_ids[i]], float(scores[i])) for i in order]

    def _explain_unknown(self, word: str) -> str:
        """The error's text. Looks at a bounded number of frequent words that begin or end alike, so it stays quick."""
        folded = word.casefold()
        alike = (
            (known.casefold(), known)
            for known in itertools.islice(self.words, _SPELLING_WORDS)
            if known and abs(len(known) - len(word)) <= 2 and (known[0].casefold() == folded[:1] or known[-1] == folded[-1:])
        )
        candidates: dict[str, str] = {}
        for key, known in itertools.islice(alike, _SPELLING_CANDIDATES):
            candidates.setdefault(key, known)
        near = [candidates[key] for key in difflib.get_close_matches(folded, list(candidates), n=3, cutoff=0.7)]
        hint = f"nearest spellings: {', '.join(printable(word) for word in near)}" if near else "no known spelling is near"
        return f"'{printable(word)}' is not in the vocabulary of {len(self):,} words; {hint}"

    # ── on disk ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def save(self, directory: str | os.PathLike[str]) -> list[Path]:
        """The files written, each complete or not there, `meta.json` last. The same vectors give the same bytes."""
        return [Path(directory) / file.name for file in files.save(Path(directory), self.words, self.matrix, self.counts)]

    @classmethod
    def load(cls, directory: str | os.PathLike[str], *, verify: bool = False) -> WordVectors:
        """Saved vectors, the matrix mapped from disk. `verify` also reads all of it and compares its SHA-256.

        Raises FileNotFoundError if there are none, ValueError if a file is not what `save` wrote.
        """
        return cls(*files.load(Path(directory), verify=verify))


def _read_only(array: Any, dtype: type, name: str, shape: tuple[int | None, ...]) -> Any:
    found = np.asarray(array)
    matches = len(found.shape) == len(shape) and all(want in (None, size) for size, want in zip(found.shape, shape, strict=True))
    if found.dtype != dtype or not matches:
        wanted = " × ".join("D" if size is None else f"{size:,}" for size in shape)
        raise ValueError(f"{name}: expected {np.dtype(dtype)} of {wanted} (a row a word), found {found.dtype} {found.shape}")
    view = found.view()
    view.flags.writeable = False
    return view


def _nonzero(norms: Doubles) -> Doubles:
    return np.where(norms == 0, 1.0, norms)


def _shortlist(lower: Doubles, upper: Doubles, topn: int, excluded: list[int]) -> Ids:
    """Ids of every word whose true score, known to lie between lower and upper, can be among the topn best."""
    allowed = np.ones(len(lower), bool)
    allowed[[word_id for word_id in excluded if word_id < len(lower)]] = False
    ids = np.flatnonzero(allowed)
    if topn >= len(ids):
        return ids
    least = np.partition(lower[ids], -topn)[-topn]
    return np.compress(upper[ids] >= least, ids)
