"""Cosines of a query with the rows of a matrix: exact where it matters, fast everywhere else.

A query reads the matrix once in float32, which gives every cosine within a proven bound, and recomputes in float64, row by
row, those that could be among the answers. So the order never depends on the BLAS in use, equal vectors score equally, and
ties go to the lower row (the more frequent word). The cosine with a zero vector is 0, and no cosine leaves [−1, 1]. Memory
besides the matrix: 8 bytes per row for the norms, which the first query computes, and a few floats per row during a query.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from w2v_core.text.printable import printable
from w2v_core.vectors import files
from w2v_core.vectors.vocabulary import Ids

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Candidates = slice | Ids
"""Rows that may be answers: a contiguous range, or an array of row numbers."""

COSMUL_EPSILON = 1e-6
"""Keeps the 3CosMul denominator above 0; Levy and Goldberg 2014 use .001, gensim 1e-6: we follow gensim."""

_BLOCK_ROWS, _BLOCK_SCORES = 4096, 256
_EXACT_ROWS = 256
"""So few that their numbers in float64 stay in a core's cache."""


@dataclass(frozen=True, eq=False)
class Cosines:
    """The cosines of the rows of `matrix` (V, D), float16, float32 or float64; `name_of` names a row in errors."""

    matrix: npt.NDArray[Any]
    name_of: Callable[[int], str]

    @cached_property
    def norms(self) -> Doubles:
        """Euclidean lengths, float64 (V,), read-only. Raises ValueError naming the first row that is not finite."""
        norms_V = np.empty(len(self.matrix), np.float64)
        for rows in files.row_blocks(len(self.matrix), _BLOCK_ROWS):
            with np.errstate(over="ignore", invalid="ignore"):
                block = self.matrix[rows].astype(np.float64)
                norms_V[rows] = np.sqrt((block * block).sum(axis=1))
        # Norms beyond float32 would overflow in the fast cosines; only a float64 matrix or a damaged one has them.
        broken = np.flatnonzero(~(norms_V <= np.finfo(np.float32).max))
        if len(broken):
            word = printable(self.name_of(int(broken[0])))
            raise ValueError(
                f"{len(broken):,} of {len(norms_V):,} vectors hold numbers that are not finite, first that of '{word}'; "
                "training diverged or the file is damaged: train again with a lower alpha, or fetch the file again"
            )
        norms_V.flags.writeable = False
        return norms_V

    def unit_rows(self, ids: npt.ArrayLike) -> Doubles:
        """The rows `ids` scaled to length 1, float64 (n, D); zero vectors stay zero."""
        found = np.asarray(ids, dtype=np.int64)
        norms = _nonzero(self.norms[found])  # first, because it refuses numbers that cannot be cast
        return self.matrix[found].astype(np.float64) / norms[:, None]

    def between(self, first: int, second: int) -> float:
        """The cosine of two rows; exactly 1 for equal vectors, because √(x·x) is exactly x."""
        a_D, b_D = self.matrix[[first, second]].astype(np.float64)
        if not self.norms[first] * self.norms[second]:
            return 0.0
        cosine = (a_D * b_D).sum() / np.sqrt((a_D * a_D).sum() * (b_D * b_D).sum())
        return min(1.0, max(-1.0, float(cosine)))

    def exact(self, rows: Candidates, unit_D: Doubles) -> Doubles:
        """Cosines in float64. Each row is summed in the same order wherever it lies, so equal vectors give equal numbers."""
        norms, taken = _nonzero(self.norms[rows]), self.matrix[rows]  # norms first, as in `unit_rows`
        found, room = np.empty(len(norms), np.float64), np.empty((_EXACT_ROWS, self.matrix.shape[1]), np.float64)
        for block in files.row_blocks(len(norms), _EXACT_ROWS):
            unit_rows = np.divide(taken[block], norms[block, None], out=room[: block.stop - block.start])
            unit_rows *= unit_D
            found[block] = unit_rows.sum(axis=1)
        return np.clip(found, -1.0, 1.0, out=found)

    def nearest(self, unit_D: Doubles, topn: int, rows: Candidates, excluded: Sequence[int]) -> tuple[Ids, Doubles]:
        """(ids, cosines) of the `topn` rows nearest to a direction, best first, without the excluded ones."""
        rough = self._rough(unit_D, rows)
        rough[_places_of(excluded, rows)] = -np.inf
        # Those left out stay out: no cosine is as low as −1.5.
        least = max(_kth_largest(rough, topn) - 2 * self._error_bound, -1.5)
        near = np.flatnonzero(rough >= least)
        ids = near + rows.start if isinstance(rows, slice) else rows[near]
        return _ranked(ids, self.exact(ids, unit_D), topn)

    def nearest_by_product(
        self, plus: Sequence[Doubles], minus: Sequence[Doubles], *, topn: int | None, rows: Candidates, excluded: Sequence[int]
    ) -> tuple[Ids, Doubles]:
        """(ids, scores) by 3CosMul (Levy and Goldberg 2014, equation 4), best first: the product of the similarities to the
        directions in `plus` divided by the product of those to the directions in `minus`, with cosines shifted to 0 … 1.
        If topn is None, all rows are scored, in row order."""
        if topn is None:
            ids = ids_of(rows)
            return ids, self._product(ids, plus) / (self._product(ids, minus) + COSMUL_EPSILON)
        top, bottom = self._rough_product(rows, plus), self._rough_product(rows, minus)
        top_error, bottom_error = (len(units) * 0.51 * self._error_bound for units in (plus, minus))
        upper = (top + top_error) / (np.maximum(bottom - bottom_error, 0) + COSMUL_EPSILON)
        lower = (top - top_error) / (bottom + bottom_error + COSMUL_EPSILON)
        ids = _shortlist(ids_of(rows), lower, upper, topn, excluded)
        return _ranked(ids, self._product(ids, plus) / (self._product(ids, minus) + COSMUL_EPSILON), topn)

    def above(self, unit_D: Doubles, least: float) -> Ids:
        """The rows, ascending, whose cosine with a direction is greater than `least`."""
        rough = self._rough(unit_D, slice(0, len(self.matrix)))
        surely = rough - self._error_bound > least
        perhaps = np.flatnonzero(~surely & (rough + self._error_bound > least))
        surely[perhaps] = self.exact(perhaps, unit_D) > least
        return np.flatnonzero(surely)

    @property
    def _error_bound(self) -> float:
        """The largest error of a float32 cosine over D numbers: (D + 2)·2⁻²⁴ for the dot product and one more 2⁻²⁴ for a matrix
        that had to be rounded to float32, rounded up."""
        return float((self.matrix.shape[1] + 8) * 2.0**-24)

    def _rough(self, unit_D: Doubles, rows: Candidates) -> Doubles:
        taken, unit = self.matrix[rows], unit_D.astype(np.float32)
        if taken.dtype == np.float32:
            dots = taken @ unit
        else:
            dots = np.empty(len(taken), np.float32)
            for block in files.row_blocks(len(taken), _BLOCK_ROWS):
                dots[block] = taken[block].astype(np.float32) @ unit
        cosines: Doubles = dots / _nonzero(self.norms[rows])
        return cosines

    def _rough_product(self, rows: Candidates, units: Sequence[Doubles]) -> Doubles:
        product = np.ones(len(ids_of(rows)))
        for unit_D in units:
            product *= np.clip((1 + self._rough(unit_D, rows)) / 2, 0, 1)
        return product

    def _product(self, ids: Ids, units: Sequence[Doubles]) -> Doubles:
        product = np.ones(len(ids))
        for unit_D in units:
            product *= (1 + self.exact(ids, unit_D)) / 2
        return product


def unit(vector_D: npt.ArrayLike) -> Doubles:
    """A vector scaled to length 1, float64, however long or short it is; a zero vector stays zero."""
    found = np.asarray(vector_D, np.float64)
    largest = float(np.abs(found).max(initial=0.0))
    if largest == 0:
        return found
    found = found / largest  # so that no square overflows or vanishes
    scaled: Doubles = found / np.sqrt((found * found).sum())
    return scaled


def ids_of(rows: Candidates) -> Ids:
    return np.arange(rows.start, rows.stop, dtype=np.int64) if isinstance(rows, slice) else rows


def _nonzero(norms: Doubles) -> Doubles:
    return norms if norms.all() else np.where(norms == 0, 1.0, norms)


def _places_of(some: Sequence[int], rows: Candidates) -> Ids:
    """Where some rows stand among the candidates, if they do."""
    if isinstance(rows, slice):
        return np.array([row - rows.start for row in some if rows.start <= row < rows.stop], np.int64)
    return np.flatnonzero(np.isin(rows, np.asarray(some, np.int64)))


def _kth_largest(scores: Doubles, k: int) -> float:
    """The k-th largest number, or −∞ if there are fewer. Of many numbers only those are sorted that are as large as the k-th
    largest of the blocks' maxima: what it is of all cannot be less."""
    if k > len(scores):
        return -np.inf
    blocks = scores[: len(scores) // _BLOCK_SCORES * _BLOCK_SCORES].reshape(-1, _BLOCK_SCORES)
    if k <= len(blocks):
        scores = scores[scores >= np.partition(blocks.max(axis=1), -k)[-k]]
    return float(np.partition(scores, -k)[-k])


def _shortlist(ids: Ids, lower: Doubles, upper: Doubles, topn: int, excluded: Sequence[int]) -> Ids:
    """The ids of all rows whose true score, known to lie between lower and upper, can be among the topn best."""
    if len(excluded):
        allowed = ~np.isin(ids, np.asarray(excluded, np.int64))
        ids, lower, upper = ids[allowed], lower[allowed], upper[allowed]
    if topn >= len(ids):
        return ids
    least = np.partition(lower, -topn)[-topn]
    return np.compress(upper >= least, ids)


def _ranked(ids: Ids, scores: Doubles, topn: int) -> tuple[Ids, Doubles]:
    order = np.lexsort((ids, -scores))[:topn]
    return ids[order], scores[order]
