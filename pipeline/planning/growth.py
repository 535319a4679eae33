"""The number of words in a corpus, estimated from a sample of it.

The number of distinct words follows Heaps's law, V(n) ≈ K · n^β. Within the sample, V(x) is known for every x: the expected
number of words in a random share of it (rarefaction). The number of words that occur at least `min_count` times grows like that
of all words, but later: a text of n tokens has as many of them as a text of n/c tokens has words of any count. c is determined
from the sample, so nothing is extrapolated for a corpus up to c times the sample's size; beyond that, β of the sample's last
quadrupling is used.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Growth:
    """The counts of a sample's words, from which the number of words in more text follows."""

    counts: NDArray[np.int64]
    """Count of every word in the sample."""

    @property
    def tokens(self) -> int:
        return int(self.counts.sum())

    def words(self, tokens: float) -> float:
        """The expected number of distinct words in `tokens` tokens of the same text."""
        n = self.tokens
        if tokens <= n:
            # 1 − (1 − p)^count, without log(0) for the whole sample.
            missed = np.log1p(-min(tokens / n, 1 - 1e-12))
            return float(-np.expm1(self.counts * missed).sum())
        return self.words(n) * float((tokens / n) ** self.exponent)

    @property
    def exponent(self) -> float:
        """Heaps's β at the end of the sample."""
        n = self.tokens
        return float(np.log(self.words(n) / max(1.0, self.words(n / 4))) / np.log(4))

    def frequent_words(self, tokens: float, min_count: int) -> float:
        """The expected number of words that occur at least `min_count` times in `tokens` tokens."""
        if tokens <= self.tokens:
            return float((self.counts * (tokens / self.tokens) >= min_count).sum())
        return self.words(tokens / self.delay(min_count))

    def rare_tokens(self, tokens: float, min_count: int) -> float:
        """The expected number of occurrences, in `tokens` tokens, of words below `min_count`; Heaps's β gives the shares of words
        that occur once, twice … (Karlin 1967)."""
        shares, share = [], 1.0
        for count in range(1, min_count):
            shares.append(share)
            share *= (count - self.exponent) / (count + 1)
        if not shares:
            return 0.0
        mean = sum(count * share for count, share in enumerate(shares, 1)) / sum(shares)
        return max(0.0, self.words(tokens) - self.frequent_words(tokens, min_count)) * mean

    def delay(self, min_count: int) -> float:
        """c: how many times as much text it takes for as many words to reach this count as there were distinct words before."""
        wanted = int((self.counts >= min_count).sum())
        low, high = 1.0, float(self.tokens)
        for _ in range(60):
            middle = (low * high) ** 0.5
            low, high = (middle, high) if self.words(middle) < wanted else (low, middle)
        return self.tokens / high


def vocabulary_counts(sample: NDArray[np.int64], tokens: float, words: int) -> NDArray[np.int64]:
    """Estimated counts of a vocabulary of `words` words in `tokens` tokens, most frequent first: the sample's counts scaled up,
    and for ranks beyond its reliable ones a power law (Zipf)."""
    ordered = np.sort(sample)[::-1].astype(np.float64) * (tokens / sample.sum())
    reliable = max(2, int((sample >= 10).sum()))
    ranks = np.arange(1, words + 1, dtype=np.float64)
    known = np.arange(1, reliable + 1, dtype=np.float64)
    slope = np.log(ordered[reliable - 1] / ordered[reliable // 4]) / np.log(reliable / (reliable // 4 + 1))
    tail = ordered[reliable - 1] * (ranks / reliable) ** slope
    found = np.where(ranks <= reliable, np.exp(np.interp(np.log(ranks), np.log(known), np.log(ordered[:reliable]))), tail)
    counts: NDArray[np.int64] = np.maximum(1, np.round(found)).astype(np.int64)
    return counts
