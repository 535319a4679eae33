"""A test that needs only the corpus: does a word's vector fit the words around it better than those elsewhere?

There are rarely question sets for a company's own words. This probe tests what CBOW is trained for: the mean vector of a window's
words should be nearer to the word in the middle of the window than to the middle word of another window. Both middle words come
from the same distribution, so frequency alone does not help, and uninformed vectors are right half of the time. Both models get
the same questions, over their common words.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import store
from pipeline.errors import DamagedError
from pipeline.refresh.stability import unit_rows
from pipeline.stream.part_files import TokenFiles, token_parts
from w2v_core.vectors import WordVectors

WINDOWS = 20_000
"""Maximum number of questions; the share of right answers is then accurate to about 0.003."""
PARTS = 16
"""Number of parts of a text that windows are drawn from, evenly spaced."""
REACH = 5
"""Words on either side of a window."""
FREQUENT = 1e-3
"""Words more frequent than this share of the text weigh less: f → FREQUENT / (FREQUENT + f), as in Arora et al. 2017."""
FEWEST = 200
"""With fewer windows there is no result."""
LEAST = 0.05
"""A champion with a smaller share of right answers beyond chance is no basis for comparison."""
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Probe:
    """Shares of right answers of both models; chance is 0.5."""

    before: float
    now: float
    windows: int


def probe(tokens: Path, before: WordVectors, now: WordVectors, seed: int) -> Probe | None:
    """The results of champion (`before`) and challenger (`now`) on a text, given its tokens; None if these are gone or too
    few."""
    rows_now = {word: row for row, word in enumerate(now.words)}
    both = {word: (row, rows_now[word]) for row, word in enumerate(before.words) if word in rows_now}
    rng = np.random.default_rng([seed, len(both)])
    try:
        chosen = list(_some_parts(store.load_artefact(tokens)))
        found = [_windows(files, both, 4 * WINDOWS // len(chosen), rng) for files in chosen]
    except (DamagedError, OSError):
        return None
    drawn = [windows for windows in found if windows]
    if not drawn:
        return None
    targets_Q, contexts_QC, weights_QC = (np.concatenate(arrays) for arrays in zip(*drawn, strict=True))
    some = rng.permutation(len(targets_Q))[:WINDOWS]
    targets_Q, contexts_QC, weights_QC = targets_Q[some], contexts_QC[some], weights_QC[some]
    others_Q = np.roll(targets_Q, 1)
    asked = targets_Q != others_Q
    if asked.sum() < FEWEST:
        return None
    rows = np.array(list(both.values()), np.int64)
    right_before, right_now = (
        _right(vectors, rows[:, which], targets_Q[asked], others_Q[asked], contexts_QC[asked], weights_QC[asked])
        for which, vectors in enumerate((before, now))
    )
    return Probe(right_before, right_now, int(asked.sum()))


def beyond_chance(now: float, before: float) -> float | None:
    """The ratio of right answers beyond chance, `now` to `before`; None if `before` has hardly any."""
    return max(0.0, now - 0.5) / (before - 0.5) if before - 0.5 > LEAST else None


def _some_parts(tokens: store.Artefact) -> Iterator[TokenFiles]:
    parts = token_parts(tokens)
    for index in sorted({index * len(parts) // PARTS for index in range(PARTS)}) if parts else ():
        yield TokenFiles.of(tokens.directory / parts[index].name)


def _windows(
    files: TokenFiles, both: dict[str, tuple[int, int]], most: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]] | None:
    """(targets, context words, weights with 0 for missing words) of windows from one part; words are indices into `both`."""
    table = store.read_table(files.words, columns=["word", "count"])
    places = {word: place for place, word in enumerate(both)}
    place_W = np.array([places.get(word, -1) for word in table["word"].to_pylist()], np.int64)
    count_W = store.numbers(table["count"]).astype(np.float64)
    weight_W = FREQUENT / (FREQUENT + count_W / max(1.0, count_W.sum()))
    ids_N, ends_S = files.read_sentences()
    if not len(ids_N) or not len(place_W):
        return None
    # Windows do not cross sentence ends, and words that either model lacks are left out.
    sentence_N = np.repeat(np.arange(len(ends_S)), np.diff(ends_S, prepend=0))
    known_N = place_W[ids_N] >= 0
    ids_N, sentence_N = ids_N[known_N], sentence_N[known_N]
    candidates = rng.permutation(len(ids_N))[:most]
    candidates = candidates[rng.random(len(candidates)) < weight_W[ids_N[candidates]]]
    if not len(candidates):
        return None
    offsets_C = np.array([offset for offset in range(-REACH, REACH + 1) if offset], np.int64)
    around_QC = candidates[:, None] + offsets_C
    inside_QC = (around_QC >= 0) & (around_QC < len(ids_N))
    around_QC = np.clip(around_QC, 0, len(ids_N) - 1)
    inside_QC &= sentence_N[around_QC] == sentence_N[candidates][:, None]
    weights_QC = np.where(inside_QC, weight_W[ids_N[around_QC]], 0).astype(np.float32)
    enough = inside_QC.sum(axis=1) >= 2
    return place_W[ids_N[candidates]][enough], place_W[ids_N[around_QC]][enough], weights_QC[enough]


def _right(vectors: WordVectors, rows: NDArray[Any], targets_Q: Any, others_Q: Any, contexts_QC: Any, weights_QC: Any) -> float:
    """The share of windows whose mean vector is nearer to their own word."""
    right = 0
    for first in range(0, len(targets_Q), _ROWS_AT_ONCE):
        some = slice(first, first + _ROWS_AT_ONCE)
        around_QCD = unit_rows(vectors.matrix[rows[contexts_QC[some]]])
        mean_QD = np.einsum("qc,qcd->qd", weights_QC[some], around_QCD)
        own, other = (
            np.einsum("qd,qd->q", mean_QD, unit_rows(vectors.matrix[rows[words_Q[some]]])) for words_Q in (targets_Q, others_Q)
        )
        right += int((own > other).sum())
    return right / len(targets_Q)
