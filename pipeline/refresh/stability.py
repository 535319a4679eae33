"""How much two sets of vectors differ: neighbourhoods, coordinate frame, and vocabulary.

Users index vectors and compare last week's with today's. Warm training keeps the frame; training from scratch ends in another
rotation of it, which orthogonal Procrustes over the common words can undo (Schönemann 1966).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from w2v_core.vectors import WordVectors

Floats = NDArray[np.float32]
PROBES = 1000
"""Number of the most frequent common words that are compared."""
AMONG = 20_000
"""Number of common words among which neighbours are searched."""
NEIGHBOURS = 10
SHOWN = 20


@dataclass(frozen=True)
class Common:
    """The common words of two sets of vectors, most frequent first, ordered by the worse of their two ranks."""

    words: tuple[str, ...]
    before: NDArray[np.int64]
    """Their rows in the older vectors."""
    now: NDArray[np.int64]
    """Their rows in the newer vectors."""


def common_words(before: WordVectors, now: WordVectors, most: int = AMONG) -> Common:
    """At most `most` common words; both vocabularies must be sorted by frequency."""
    rows_before = {word: row for row, word in enumerate(before.words)}
    both = [(max(row, rows_before[word]), row, word) for row, word in enumerate(now.words) if word in rows_before]
    chosen = sorted(both)[:most]
    return Common(
        tuple(word for *_, word in chosen),
        np.array([rows_before[word] for *_, word in chosen], np.int64),
        np.array([row for _, row, _ in chosen], np.int64),
    )


def rotation(before: WordVectors, now: WordVectors, common: Common) -> NDArray[np.float64]:
    """The orthogonal matrix (D, D) that rotates `now` onto `before` with the least squared distance of the common words."""
    moved_DD = unit_rows(now.matrix[common.now]).astype(np.float64).T @ unit_rows(before.matrix[common.before]).astype(np.float64)
    left_DD, _, right_DD = np.linalg.svd(moved_DD)
    found: NDArray[np.float64] = left_DD @ right_DD
    return found


def overlap(before: WordVectors, now: WordVectors, common: Common) -> float:
    """The mean share of a frequent word's nearest words that stayed, 0 … 1; 1 if there are too few words."""
    shares = neighbour_shares(before, now, common)
    return float(shares.mean()) if len(shares) else 1.0


def neighbour_shares(before: WordVectors, now: WordVectors, common: Common) -> NDArray[np.float64]:
    """For each of the first PROBES common words, the share of its nearest common words that stayed."""
    nearest = min(NEIGHBOURS, len(common.words) - 1)
    if nearest < 1:
        return np.zeros(0)
    both = [_nearest(unit_rows(vectors.matrix[rows]), nearest) for vectors, rows in ((before, common.before), (now, common.now))]
    return np.array([len(set(old) & set(new)) / nearest for old, new in zip(*both, strict=True)])


def drift(before: WordVectors, now: WordVectors, common: Common) -> NDArray[np.float64]:
    """1 − cosine between the old and the new vector of each of the first PROBES common words; 0 = unchanged direction."""
    old, new = unit_rows(before.matrix[common.before[:PROBES]]), unit_rows(now.matrix[common.now[:PROBES]])
    turned: NDArray[np.float64] = 1.0 - np.einsum("wd,wd->w", old.astype(np.float64), new.astype(np.float64))
    return turned


def norm_ratio(before: WordVectors, now: WordVectors, common: Common) -> float | None:
    """The ratio of the median norms, new to old, of the vectors of the first PROBES common words; None without any."""
    lengths = [
        float(np.median(np.linalg.norm(vectors.matrix[rows[:PROBES]], axis=1))) if len(rows) else 0.0
        for vectors, rows in ((before, common.before), (now, common.now))
    ]
    return lengths[1] / lengths[0] if lengths[0] and np.isfinite(lengths[1]) else None


def words_moved(before: WordVectors, now: WordVectors) -> Mapping[str, Any]:
    """The numbers of words gained and lost, with the most frequent of each."""
    old, new = set(before.words), set(now.words)
    gained = [word for word in now.words if word not in old]
    lost = [word for word in before.words if word not in new]
    return {
        "gained": {"words": len(gained), "names": gained[:SHOWN]},
        "lost": {"words": len(lost), "names": lost[:SHOWN]},
    }


def known_tokens(before: WordVectors, now: WordVectors) -> dict[str, int] | None:
    """Tokens of words in the vocabulary before and now, and those gained and lost, counted word by word, so that text that only
    moved is neither; None for vectors without counts."""
    if before.counts is None or now.counts is None:
        return None
    change = dict(zip(now.words, now.counts.tolist(), strict=True))
    for word, count in zip(before.words, before.counts.tolist(), strict=True):
        change[word] = change.get(word, 0) - count
    return {
        "before": int(before.counts.sum()), "now": int(now.counts.sum()),
        "gained": sum(n for n in change.values() if n > 0), "lost": -sum(n for n in change.values() if n < 0),
    }  # fmt: skip


def _nearest(unit_WD: Floats, nearest: int) -> NDArray[np.intp]:
    """The nearest other rows of each of the first PROBES rows, unordered."""
    cosine = unit_WD[:PROBES] @ unit_WD.T
    np.fill_diagonal(cosine, -np.inf)
    return np.argpartition(-cosine, nearest - 1, axis=1)[:, :nearest]


def unit_rows(rows: Floats) -> Floats:
    """The rows (along the last axis) at length 1; rows of zeros stay zero."""
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.asarray(rows / np.where(norms == 0, 1, norms), np.float32)
