"""Noise words for negative sampling: drawn from counts**power, never the target, by the same rule on every device.

Mikolov et al. 2013, "Distributed Representations of Words and Phrases", section 2.2: K noise words for each positive, from
the unigram distribution raised to 3/4. The usual textbook class draws without replacement and excludes the target on the CPU,
but draws with replacement and includes the target on the GPU. Here every draw is with replacement (equation 4 is a sum of K
independent expectations) and the target is excluded exactly, on every device.

Method: probabilities become whole-number masses on a line of length about 2**52. To draw for a target, its segment is cut out
of the line: a position is drawn on what remains and, if it lies at or behind the cut, moved on by the length of the cut. That
is one draw and one search without a rejection loop, and the distribution is P(word | word != target) within 2**-50.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from w2v_core.sampler import noise_distribution

Array = Any
"""An array of NumPy or of a module with the same names (CuPy)."""

_TOTAL_MASS = 2.0**52
"""Below 2**53, so that every mass, cut and remaining length is exact in float64 as well as in int64."""


def noise_masses(counts: Array, power: float = 0.75) -> np.ndarray:
    """Whole-number noise masses, int64 (V,), proportional to counts**power, with a sum of about 2**52.

    A word with a count above 0 has at least mass 1; a word with count 0 is never drawn. Raises ValueError for a negative or
    non-finite count, and if fewer than 2 words can be drawn, because then nothing is left once the target is excluded.
    """
    probabilities_V = noise_distribution(np.asarray(counts), power)
    drawable_V = np.asarray(counts) > 0
    if np.count_nonzero(drawable_V) < 2:
        raise ValueError(
            "negative sampling needs at least 2 words with a count above 0, "
            f"found {np.count_nonzero(drawable_V)}: use a larger corpus or a lower vocab.min_count"
        )
    masses_V = np.rint(probabilities_V * _TOTAL_MASS).astype(np.int64)
    return np.where(drawable_V, np.maximum(masses_V, 1), 0)


class UnigramSampler:
    """Draws `sample_size` noise words for each target; usable by itself and by the loss layer.

    `counts` is (V,), by word id. `generator` is a seeded NumPy generator; it may be replaced between epochs. It draws the
    uniform numbers on the host for any `xp`, so CuPy gets the same noise words as NumPy. Raises ValueError for a `sample_size`
    below 1 and for the counts that `noise_masses` refuses.
    """

    def __init__(
        self,
        counts: Array,
        power: float = 0.75,
        sample_size: int = 5,
        *,
        generator: np.random.Generator,
        xp: Any = np,
    ) -> None:
        if sample_size < 1:
            raise ValueError(f"sample_size: expected at least 1 noise word a target, found {sample_size}")
        masses_V = noise_masses(counts, power)
        self.sample_size = sample_size
        self.generator = generator
        self.xp = xp
        self._masses_V = xp.asarray(masses_V)
        self._ends_V = xp.asarray(np.cumsum(masses_V))
        self._total = int(masses_V.sum())

    @classmethod
    def from_corpus(
        cls,
        corpus: Array,
        power: float = 0.75,
        sample_size: int = 5,
        *,
        generator: np.random.Generator,
        xp: Any = np,
    ) -> UnigramSampler:
        """A sampler over the word ids 0 … max(corpus), with their counts in `corpus` (ids, one dimension)."""
        counts_V = np.bincount(np.asarray(corpus, dtype=np.int64))
        return cls(counts_V, power, sample_size, generator=generator, xp=xp)

    @property
    def probabilities(self) -> np.ndarray:
        """P(word) before any target is excluded: float64, (V,), sum 1."""
        masses_V = self._masses_V if self.xp is np else self._masses_V.get()
        return np.asarray(masses_V / self._total, dtype=np.float64)

    def get_negative_sample(self, target: Array) -> Array:
        """Noise word ids, int32, of shape target.shape + (sample_size,); no row contains its own target.

        `target`: word ids of any shape, on the device of `xp`. Draws are independent, so a row may contain a word twice.
        """
        xp = self.xp
        cut_length = self._masses_V[target][..., None]
        cut_start = self._ends_V[target][..., None] - cut_length
        remaining = (self._total - cut_length).astype(np.float64)
        # u <= 1 - 2**-53 and remaining <= 2**53, so the product rounds below `remaining` and its floor is a position.
        uniform = xp.asarray(self.generator.random((*target.shape, self.sample_size)))
        position = (uniform * remaining).astype(np.int64)
        position += xp.where(position >= cut_start, cut_length, 0)
        found = xp.searchsorted(self._ends_V, position.reshape(-1), side="right")
        return found.astype(np.int32).reshape(position.shape)
