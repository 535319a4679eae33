"""Question sets by name, and the scores of vectors on them: for the stage `evaluate`, and for `w2v evaluate VECTORS SET…`.

A set is named after its file, without extension, preceded by as much of its path as is needed to distinguish it from others: two
`pairs.tsv` are `en/pairs` and `other/pairs`, so neither score hides the other.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import DataError, InputError, as_list, printable
from pipeline.safety.files import open_regular
from w2v_core.vectors import WordVectors, evaluation
from w2v_core.vectors.questions import SYNTACTIC, AnalogyQuestions, SimilarityPairs
from w2v_core.vectors.word_vectors import Method


@dataclass(frozen=True)
class Rules:
    """How sets are scored; see the configuration's section `evaluate`."""

    restrict_vocab: int = 30_000
    method: Method = "3cosadd"
    case_insensitive: bool = True
    syntactic: str = SYNTACTIC


def set_names(paths: Sequence[str]) -> dict[str, str]:
    """{name: path} with the shortest distinct names, in the order of the paths; a path given twice is included once."""
    places = {path: Path(path).absolute() for path in paths}
    named: dict[str, str] = {}
    for path, place in places.items():
        others = [other for other in places.values() if other != place]
        length = next(k for k in itertools.count() if all(_label(other, k) != _label(place, k) for other in others))
        named.setdefault(_label(place, length), path)
    return named


def _label(place: Path, length: int) -> str:
    """The `length`-th of ever longer names of a file: pairs, pairs.tsv, en/pairs, en/pairs.tsv, … up to its whole path."""
    depth = min(length // 2, len(place.parts) - 1)
    return "/".join([*place.parts[-1 - depth : -1], place.name if length % 2 else place.stem])


def refuse_unusable(analogies: Sequence[str], similarity: Sequence[str], syntactic: str | None) -> None:
    """Raises InputError or DataError for the first set that cannot be used, hours before it would be needed."""
    for key, paths in (("analogies", analogies), ("similarity", similarity)):
        for path in paths:
            try:
                os.close(open_regular(path))
                if key == "analogies":
                    evaluation.read_analogies(path, syntactic or SYNTACTIC)
                else:
                    evaluation.read_similarity(path)
            except OSError as error:
                raise InputError(
                    f"evaluate.{key}: cannot read {path} ({error.strerror}); correct the path or remove it{as_list(path)}"
                ) from None
            except ValueError as error:
                raise DataError(f"evaluate.{key}: {error}") from None


def score_analogies(vectors: WordVectors, path: str, rules: Rules) -> dict[str, Any]:
    """The scores of a file of analogies as plain data. Raises DataError, InputError."""
    return _score(vectors, lambda: evaluation.read_analogies(path, rules.syntactic), path, rules)


def score_similarity(vectors: WordVectors, path: str, rules: Rules) -> dict[str, Any]:
    """The score of a file of pairs as plain data. Raises DataError, InputError."""
    return _score(vectors, lambda: evaluation.read_similarity(path), path, rules)


def score_sets(vectors: WordVectors, paths: Sequence[str], rules: Rules) -> dict[str, Any]:
    """{analogy: {name: scores}, similarity: …, notes} of sets whose kind is recognised from their files."""
    scores: dict[str, Any] = {"analogy": {}, "similarity": {}}
    for name, path in set_names(paths).items():
        found = _score(vectors, lambda path=path: evaluation.read_questions(path, rules.syntactic), path, rules)
        scores["analogy" if "sections" in found else "similarity"][name] = found
    return scores | {"notes": notes(scores)}


def _score(vectors: WordVectors, read: Any, path: str, rules: Rules) -> dict[str, Any]:
    try:
        questions: AnalogyQuestions | SimilarityPairs = read()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); correct the path or remove it") from None
    except ValueError as error:
        raise DataError(str(error)) from error
    if isinstance(questions, SimilarityPairs):
        return evaluation.evaluate_similarity(vectors, questions, case_insensitive=rules.case_insensitive).to_dict()
    return evaluation.evaluate_analogies(
        vectors, questions, rules.restrict_vocab, rules.method, case_insensitive=rules.case_insensitive
    ).to_dict()


def notes(scores: Mapping[str, Any]) -> list[str]:
    """Notes about the sets: lines that could not be used, and sets without a score."""
    told = []
    for name, found in (*scores["analogy"].items(), *scores["similarity"].items()):
        shown = printable(name)
        if found["malformed"]:
            share = found["malformed"] / found["total"]
            told.append(
                f"{shown}: {found['malformed']:,} of {found['total']:,} lines ({share:.1%}) could not be used and count "
                f"against the coverage, first {found['malformed_lines'][0]}"
            )
        if found.get("reason"):
            told.append(f"{shown}: no score: {found['reason']}")
        elif not found.get("asked", True):
            told.append(f"{shown}: no score: no question has all its words in the vocabulary")
    return told
