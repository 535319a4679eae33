"""The quality of vectors: scores on word analogies and word similarity, each with its coverage.

A score without its coverage is misleading: leaving out the words that a small vocabulary lacks makes the questions easier. So
each result says how many questions (or pairs) there were, how many of them could be asked, and what share that is; lines of
the file that could not be used count as questions that could not be asked.

Analogies follow word2vec's `compute-accuracy` and gensim's `evaluate_word_analogies`: only the `restrict_vocab` most
frequent words are considered, a question with any other word is not asked, and its three given words cannot be answers. Case
is ignored unless the caller says otherwise: a word of a question means the word spelt exactly so or, if there is none, the
most frequent of those that differ from it only in case (gensim always takes the most frequent one, "turkey" for "Turkey").

They are fast because many questions use few words: the 19,544 of the Google set use 905 words. The cosines of those words
with all others are one matrix product, and a question is then a sum of three of its rows, so the cost hardly depends on the
vector size. Where several words are within rounding error of the best, their scores are recomputed in float64 and a tie goes
to the more frequent word, so a score does not depend on the BLAS, its threads or `block`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple
from unicodedata import normalize

import numpy as np
import numpy.typing as npt

from w2v_core.text.printable import printable
from w2v_core.vectors.cosines import COSMUL_EPSILON, Doubles, Floats
from w2v_core.vectors.questions import (
    AnalogyQuestions,
    AnalogySection,
    MalformedLine,
    SimilarityPairs,
    Words4,
    read_analogies,
    read_questions,
    read_similarity,
)
from w2v_core.vectors.vocabulary import Ids
from w2v_core.vectors.word_vectors import Method, WordVectors

__all__ = [
 "AnalogyScores", "Score", "SimilarityScore", "evaluate_analogies", "evaluate_similarity", "read_analogies",
 "read_questions", "read_similarity",
]  # fmt: skip

_NAMED = 10
"""How many malformed lines and unknown words are named; all are counted."""
_EXAMPLES = 4
"""How many right and how many wrong answers of each section are kept."""
_COSINE_DECIMALS = 12
_BLOCK_ROWS = 4096


@dataclass(frozen=True)
class Score:
    """`correct` of `asked` questions; `total` also counts those that could not be asked."""

    correct: int
    asked: int
    total: int

    @property
    def accuracy(self) -> float | None:
        """correct / asked, or None if nothing could be asked."""
        return self.correct / self.asked if self.asked else None

    @property
    def coverage(self) -> float:
        return self.asked / self.total if self.total else 0.0

    def to_dict(self) -> dict[str, Any]:
        counts = {"correct": self.correct, "asked": self.asked, "total": self.total}
        return {"accuracy": self.accuracy, "coverage": self.coverage, **counts}


class Answered(NamedTuple):
    """A few questions with their answers, [a, b, c, expected, answered]; answered is None if there was no other word."""

    right: list[list[str | None]]
    wrong: list[list[str | None]]


@dataclass(frozen=True)
class AnalogyScores:
    """The scores of one set of analogies."""

    sections: tuple[tuple[AnalogySection, Score], ...]
    answered: tuple[Answered, ...]
    """A few answers of each section."""
    outside: tuple[MalformedLine, ...]
    """Malformed lines that belong to no section."""
    restrict_vocab: int
    method: Method
    case_insensitive: bool

    @property
    def total(self) -> Score:
        found = _sum(score for _, score in self.sections)
        return Score(found.correct, found.asked, found.total + len(self.outside))

    @property
    def malformed(self) -> tuple[MalformedLine, ...]:
        return self.outside + tuple(line for section, _ in self.sections for line in section.malformed)

    @property
    def semantic(self) -> Score:
        return _sum(score for section, score in self.sections if not section.syntactic)

    @property
    def syntactic(self) -> Score:
        return _sum(score for section, score in self.sections if section.syntactic)

    def to_dict(self) -> dict[str, Any]:
        """Plain data: the accuracies `analogy`, `semantic` and `syntactic` (0 … 1 or None), their coverage, every section."""
        total, semantic, syntactic = self.total, self.semantic, self.syntactic
        return {
            "analogy": total.accuracy, "semantic": semantic.accuracy, "syntactic": syntactic.accuracy,
            "coverage": total.coverage, "semantic_coverage": semantic.coverage, "syntactic_coverage": syntactic.coverage,
            "correct": total.correct, "asked": total.asked, "total": total.total,
            "restrict_vocab": self.restrict_vocab, "method": self.method, "case": _case(self.case_insensitive),
            "sections": [
                {
                    "name": section.name, "kind": "syntactic" if section.syntactic else "semantic", **score.to_dict(),
                    "malformed": len(section.malformed), **answered._asdict(),
                }
                for (section, score), answered in zip(self.sections, self.answered, strict=True)
            ],
            **_malformed_dict(self.malformed),
        }  # fmt: skip


@dataclass(frozen=True)
class SimilarityScore:
    spearman: float | None
    """Rank correlation of cosines with people's judgements, -1 to 1; None if there is none, see `reason`."""
    reason: str | None
    used: int
    total: int
    """All pairs, including malformed lines."""
    unknown: tuple[str, ...]
    """The unknown words because of which pairs were left out, in the order of the file."""
    malformed: tuple[MalformedLine, ...]
    header: MalformedLine | None
    case_insensitive: bool

    @property
    def coverage(self) -> float:
        return self.used / self.total if self.total else 0.0

    def to_dict(self) -> dict[str, Any]:
        return {
            "spearman": self.spearman, "reason": self.reason, "coverage": self.coverage, "used": self.used, "total": self.total,
            "method": "Spearman's ρ of cosines", "case": _case(self.case_insensitive),
            "header": str(self.header) if self.header else None,
            "unknown_words": len(self.unknown), "unknown": [printable(word) for word in self.unknown[:_NAMED]],
            **_malformed_dict(self.malformed),
        }  # fmt: skip


def _sum(scores: Iterable[Score]) -> Score:
    found = list(scores)
    return Score(sum(s.correct for s in found), sum(s.asked for s in found), sum(s.total for s in found))


def _malformed_dict(malformed: Sequence[MalformedLine]) -> dict[str, Any]:
    return {"malformed": len(malformed), "malformed_lines": [str(line) for line in malformed[:_NAMED]]}


def _case(case_insensitive: bool) -> str:
    return "folded, the exact word first" if case_insensitive else "exact"


# ── analogies ────────────────────────────────────────────────────────────────────────────────────────────────────────


def evaluate_analogies(
    vectors: WordVectors,
    questions: AnalogyQuestions,
    restrict_vocab: int = 30_000,
    method: Method = "3cosadd",
    *,
    case_insensitive: bool = True,
    block: int = 512,
) -> AnalogyScores:
    """The share of questions answered correctly: in all, by kind and by section. The module's docstring has the rules.

    restrict_vocab: only this many of the most frequent words are asked about and can be answers (30,000 is customary).
    block: for how many words the cosines with all others are kept at a time, in 4 · block · restrict_vocab bytes.
    Raises ValueError for an unknown method or numbers that are too small.
    """
    if method not in ("3cosadd", "3cosmul") or restrict_vocab < 1 or block < 3:
        raise ValueError(
            "expected method 3cosadd or 3cosmul, restrict_vocab of at least 1 and block of at least 3, "
            f"found {method!r}, {restrict_vocab} and {block}"
        )
    limit = min(restrict_vocab, len(vectors))
    spelling = _Spelling(vectors, limit, case_insensitive)
    search = _Search(vectors, _unit_rows(vectors, limit), spelling.others, method)
    scored, answered = [], []
    for section in questions.sections:
        found = ([spelling.row(word) for word in question] for question in section.questions)
        known = [(question, rows) for question, rows in zip(section.questions, found, strict=True) if None not in rows]
        rows_Q4 = np.array([rows for _, rows in known], dtype=np.int64).reshape(-1, 4)
        predicted_Q = _answer(search, rows_Q4[:, :3], block)
        correct_Q = np.where(predicted_Q < 0, -1, spelling.first_V[predicted_Q]) == spelling.first_V[rows_Q4[:, 3]]
        scored.append((section, Score(int(correct_Q.sum()), len(known), len(section.questions) + len(section.malformed))))
        answered.append(_examples(vectors, [question for question, _ in known], predicted_Q, correct_Q))
    return AnalogyScores(tuple(scored), tuple(answered), questions.outside, restrict_vocab, method, case_insensitive)


class _Spelling:
    """Which row the spelling of a word means, and which rows differ only in case."""

    def __init__(self, vectors: WordVectors, limit: int, case_insensitive: bool) -> None:
        # gensim compares upper-cased words, and so do we; casefold() would unite other words than gensim's users expect.
        self._fold = str.upper if case_insensitive else str
        self._exact, self._limit = vectors.key_to_index, limit
        self._first: dict[str, int] = {}
        first = [self._first.setdefault(self._fold(word), row) for row, word in enumerate(vectors.words[:limit])]
        self.first_V = np.array(first, np.int64)
        """For each row, the first one whose word differs at most in case."""

    def row(self, word: str) -> int | None:
        """The row of the word as it is spelt, else of the most frequent one that differs only in case, else None. An accent may
        be a mark of its own in the set and part of its letter in the vocabulary, or the other way round."""
        forms = (word,) if word.isascii() else (word, normalize("NFC", word), normalize("NFD", word))
        return next((row for form in forms if (row := self._row(form)) is not None), None)

    def _row(self, word: str) -> int | None:
        exact = self._exact.get(word)
        return exact if exact is not None and exact < self._limit else self._first.get(self._fold(word))

    @cached_property
    def others(self) -> dict[int, Ids]:
        """For each row whose word differs from others only in case: all these rows, including its own."""
        order = np.argsort(self.first_V, kind="stable")
        _, starts, counts = np.unique(self.first_V[order], return_index=True, return_counts=True)
        groups = (order[start : start + count] for start, count in zip(starts, counts, strict=True) if count > 1)
        return {row: group for group in groups for row in group.tolist()}


def _examples(vectors: WordVectors, questions: list[Words4], predicted_Q: Ids, correct_Q: npt.NDArray[np.bool_]) -> Answered:
    def some(which: Ids) -> list[list[str | None]]:
        rows = [(questions[i], int(predicted_Q[i])) for i in which[:_EXAMPLES].tolist()]
        return [[*question, vectors.words[row] if row >= 0 else None] for question, row in rows]

    return Answered(some(np.flatnonzero(correct_Q)), some(np.flatnonzero(~correct_Q)))


@dataclass(frozen=True)
class _Search:
    """What every question needs: the V words to consider, their vectors at length 1, and which of them differ only in case."""

    vectors: WordVectors
    unit_VD: Floats
    others: dict[int, Ids]
    method: Method


def _unit_rows(vectors: WordVectors, limit: int) -> Floats:
    unit_VD = np.empty((limit, vectors.vector_size), np.float32)
    for first in range(0, limit, _BLOCK_ROWS):
        ids = np.arange(first, min(first + _BLOCK_ROWS, limit))
        unit_VD[ids] = vectors.unit_vectors(ids)
    return unit_VD


def _answer(search: _Search, rows_Q3: Ids, block: int) -> Ids:
    """The word id that answers each question (a, b, c), or -1 if there is no other word."""
    predicted_Q = np.full(len(rows_Q3), -1, np.int64)
    for questions in _chunks(rows_Q3, block):
        words_W, place_Q3 = np.unique(rows_Q3[questions], return_inverse=True)
        cosines_WV = search.unit_VD[words_W] @ search.unit_VD.T
        if search.method == "3cosmul":
            cosines_WV = (1 + cosines_WV) / 2
        for question, (a, b, c) in enumerate(place_Q3.reshape(-1, 3), start=questions.start):
            asked = rows_Q3[question]
            rivals = _rivals(search, cosines_WV[a], cosines_WV[b], cosines_WV[c], asked)
            predicted_Q[question] = rivals[0] if len(rivals) == 1 else _decide(search, rivals, asked)
    return predicted_Q


def _chunks(rows_Q3: Ids, block: int) -> Iterator[slice]:
    """Slices of consecutive questions that use at most `block` different words together."""
    start, words = 0, set[int]()
    for question, row in enumerate(rows_Q3.tolist()):
        if len(words | set(row)) > block:
            yield slice(start, question)
            start, words = question, set()
        words.update(row)
    if start < len(rows_Q3):
        yield slice(start, len(rows_Q3))


def _rivals(search: _Search, to_a_V: Floats, to_b_V: Floats, to_c_V: Floats, asked: Ids) -> Ids:
    """The word ids, ascending, whose true score can be the best, given cosines with a rounding error of at most `error`."""
    error = np.float32((search.vectors.vector_size + 16) * 2.0**-24)
    if search.method == "3cosadd":
        upper_V = to_b_V + to_c_V
        upper_V -= to_a_V
        lower_V, gap = upper_V, 6 * error
    else:
        top_V, gap = to_b_V * to_c_V, np.float32(0)
        upper_V = (top_V + error) / (np.maximum(to_a_V - error, 0) + np.float32(COSMUL_EPSILON))
        lower_V = (top_V - error) / (to_a_V + error + np.float32(COSMUL_EPSILON))
    for word in asked.tolist():
        upper_V[search.others.get(word, word)] = -np.inf
        lower_V[search.others.get(word, word)] = -np.inf
    best = int(lower_V.argmax())
    if lower_V[best] == -np.inf:
        return np.empty(0, np.int64)
    possible_V = upper_V >= lower_V[best] - gap
    return np.array([best]) if np.count_nonzero(possible_V) == 1 else np.flatnonzero(possible_V)


def _decide(search: _Search, rivals: Ids, asked: Ids) -> int:
    """The rival with the best score in float64, the most frequent word if several are equal; -1 without rivals."""
    if len(rivals) == 0:
        return -1
    unit_D3 = search.vectors.unit_vectors(asked).T
    unit_RD = search.vectors.unit_vectors(rivals)
    if search.method == "3cosadd":
        return int(rivals[(unit_RD * (unit_D3[:, 1] + unit_D3[:, 2] - unit_D3[:, 0])).sum(axis=1).argmax()])
    to_a, to_b, to_c = ((1 + (unit_RD * unit_D3[:, word]).sum(axis=1)) / 2 for word in range(3))
    return int(rivals[(to_b * to_c / (to_a + COSMUL_EPSILON)).argmax()])


# ── similarity ───────────────────────────────────────────────────────────────────────────────────────────────────────


def evaluate_similarity(vectors: WordVectors, pairs: SimilarityPairs, *, case_insensitive: bool = True) -> SimilarityScore:
    """Spearman's rank correlation of the words' cosines with people's judgements; ties get their average rank.

    Pairs with an unknown word are left out and counted. If fewer than two pairs are left, or if all cosines or all judgements
    are equal, there is no correlation: `spearman` is None and `reason` says why.
    """
    spelling = _Spelling(vectors, len(vectors), case_insensitive)
    asked = [(first, second, spelling.row(first), spelling.row(second), score) for first, second, score in pairs.pairs]
    unknown = {
        word: None for *words, one, other, _ in asked for word, row in zip(words, (one, other), strict=True) if row is None
    }
    known = [(one, other, score) for _, _, one, other, score in asked if one is not None and other is not None]
    units = [vectors.unit_vectors(rows) for rows in zip(*(pair[:2] for pair in known), strict=True)]
    # The last digits are rounding errors, which would rank cosines that are equal (each word's cosine with itself is 1).
    cosines = (units[0] * units[1]).sum(axis=1).round(_COSINE_DECIMALS) if units else np.empty(0)
    spearman, reason = _spearman(cosines, np.array([score for _, _, score in known], np.float64))
    total = len(pairs.pairs) + len(pairs.malformed)
    return SimilarityScore(spearman, reason, len(known), total, tuple(unknown), pairs.malformed, pairs.header, case_insensitive)


def _spearman(first: Doubles, second: Doubles) -> tuple[float | None, str | None]:
    if len(first) < 2:
        return None, f"a rank correlation needs at least 2 pairs, {len(first)} have both words in the vocabulary"
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None, f"all {len(first)} {'cosines' if np.ptp(first) == 0 else 'judgements'} are equal, so they have no order"
    ranks = [_average_ranks(values) - (len(first) + 1) / 2 for values in (first, second)]
    covariance, lengths = (ranks[0] * ranks[1]).sum(), np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum())
    return float(np.clip(covariance / lengths, -1.0, 1.0)), None


def _average_ranks(values: Doubles) -> Doubles:
    """Ranks from 1; equal values get the mean of the ranks that they occupy."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Doubles = (last - (counts - 1) / 2)[place]
    return ranks
