"""How many words a corpus has, from a sample of it.

Types follow Heaps's law: of ever more tokens ever fewer are new, V(n) ≈ K · n^β. Within the sample V(x) is known for every x: the
words that a random share of it would show (rarefaction). Words that occur `min_count` times or more grow as all words do, but
later: in a text of n tokens there are as many of them as there are words at all in one of n/c. c is read off the sample, so that
for a corpus up to c times the sample's size nothing is extrapolated; beyond, β of the sample's last quadrupling goes on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Growth:
    """A sample's words, as far as their number in more text follows from them."""

    counts: NDArray[np.int64]
    """Of every word of the sample."""

    @property
    def tokens(self) -> int:
        return int(self.counts.sum())

    def words(self, tokens: float) -> float:
        """Distinct words in so many tokens of the same text."""
        n = self.tokens
        if tokens <= n:
            # 1 − (1 − p)^count, and never log(0) where the whole sample is asked for.
            missed = np.log1p(-min(tokens / n, 1 - 1e-12))
            return float(-np.expm1(self.counts * missed).sum())
        return self.words(n) * float((tokens / n) ** self.exponent)

    @property
    def exponent(self) -> float:
        """Heaps's β at the end of the sample."""
        n = self.tokens
        return float(np.log(self.words(n) / max(1.0, self.words(n / 4))) / np.log(4))

    def frequent_words(self, tokens: float, min_count: int) -> float:
        """Words that occur at least `min_count` times in so many tokens."""
        if tokens <= self.tokens:
            return float((self.counts * (tokens / self.tokens) >= min_count).sum())
        return self.words(tokens / self.delay(min_count))

    def rare_tokens(self, tokens: float, min_count: int) -> float:
        """Occurrences of the words that are too rare for a vocabulary, in so many tokens: with Heaps's β, so many of them occur
        once, twice … (Karlin 1967)."""
        shares, share = [], 1.0
        for count in range(1, min_count):
            shares.append(share)
            share *= (count - self.exponent) / (count + 1)
        if not shares:
            return 0.0
        mean = sum(count * share for count, share in enumerate(shares, 1)) / sum(shares)
        return max(0.0, self.words(tokens) - self.frequent_words(tokens, min_count)) * mean

    def delay(self, min_count: int) -> float:
        """How many times as much text it takes until there are as many words of this count as there were words at all."""
        wanted = int((self.counts >= min_count).sum())
        low, high = 1.0, float(self.tokens)
        for _ in range(60):
            middle = (low * high) ** 0.5
            low, high = (middle, high) if self.words(middle) < wanted else (low, middle)
        return self.tokens / high


def vocabulary_counts(sample: NDArray[np.int64], tokens: float, words: int) -> NDArray[np.int64]:
    """Counts of a vocabulary of so many words in so many tokens, most frequent first: the sample's, as often as the text is
    longer; its tail is drawn out over the ranks that the sample does not have, straight on logarithmic scales (Zipf)."""
    ordered = np.sort(sample)[::-1].astype(np.float64) * (tokens / sample.sum())
    reliable = max(2, int((sample >= 10).sum()))
    ranks = np.arange(1, words + 1, dtype=np.float64)
    known = np.arange(1, reliable + 1, dtype=np.float64)
    slope = np.log(ordered[reliable - 1] / ordered[reliable // 4]) / np.log(reliable / (reliable // 4 + 1))
    tail = ordered[reliable - 1] * (ranks / reliable) ** slope
    found = np.where(ranks <= reliable, np.exp(np.interp(np.log(ranks), np.log(known), np.log(ordered[:reliable]))), tail)
    counts: NDArray[np.int64] = np.maximum(1, np.round(found)).astype(np.int64)
    return counts
