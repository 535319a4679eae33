"""vectors/ → report/: analogies, word similarity and neighbours, every score with its coverage.

The scores come from `w2v_core.vectors.evaluation`, the names of sets and notes from `sets`; this module writes the questions with
their answers to `scores.json`, and the map of words for the report to `map.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline import store
from pipeline.config import RunConfig
from pipeline.errors import InputError
from pipeline.formats.trained import load_vectors
from pipeline.report.layout import map_file
from pipeline.stages import sets
from pipeline.stages.work import Done, Identity, Told, Work
from w2v_core.vectors import WordVectors
from w2v_core.vectors.questions import SYNTACTIC

STAGE = "report"
STAGE_VERSION = 3
SCORES, MAP = "scores.json", "map.json"
NEIGHBOURS = 8


def identity(config: RunConfig, vectors: store.Artefact) -> Identity:
    """(fingerprint, fields read, inputs) of the scores; question files count by content. Raises InputError for a missing one."""
    fields = config.evaluate.model_dump()
    for key in ("analogies", "similarity"):
        fields[key] = [[name, _digest(path, key)] for name, path in sets.set_names(fields[key]).items()]
    inputs = (vectors.fingerprint,)
    return store.fingerprint(STAGE, STAGE_VERSION, fields, inputs), fields, inputs


def _digest(path: str, key: str) -> str:
    try:
        return store.file_sha256(Path(path))
    except OSError as error:
        raise InputError(f"evaluate.{key}: cannot read {path} ({error.strerror}); correct the path or remove it") from None


def build(work: Work, vectors: store.Artefact) -> store.Artefact:
    """The committed scores of these vectors."""
    config, workdir = work.config, work.workdir
    fingerprint, fields, inputs = identity(config, vectors)
    loaded = load_vectors(vectors)
    scores, directory = score(config, loaded), store.artefact_directory(workdir, STAGE, fingerprint)
    parts = (store.write_json(directory / SCORES, scores), store.write_bytes(directory / MAP, map_file(loaded)))
    return store.commit(
        workdir,
        store.Manifest(
            stage=STAGE, fingerprint=fingerprint, parts=parts, totals=scores, fields=fields, inputs=inputs,
        ),
    )  # fmt: skip


def describe(done: Done) -> Told:
    scores = done.totals
    found = {"evaluation": headline(scores), "neighbours": scores["neighbours"], "analogies": scores["analogies"]}
    found["map"] = str(done.artefact.path(MAP))
    asked = len(scores["analogy"]) + len(scores["similarity"])
    told = f"{asked} question set{'s' * (asked > 1)}" if asked else "no question sets (evaluate.analogies, evaluate.similarity)"
    return Told(told, sections=found)


def headline(scores: Mapping[str, Any]) -> dict[str, Any]:
    """The headline scores: those of the first analogy set, and Spearman's ρ by similarity set, each with its coverage."""
    result: dict[str, Any] = {
        "analogy": None, "semantic": None, "syntactic": None, "coverage": None,
        "similarity": {name: found["spearman"] for name, found in scores["similarity"].items()},
        "similarity_coverage": {name: found["coverage"] for name, found in scores["similarity"].items()},
        "sets": {"analogy": scores["analogy"], "similarity": scores["similarity"]},
    }  # fmt: skip
    for found in list(scores["analogy"].values())[:1]:
        result |= {key: found[key] for key in ("analogy", "semantic", "syntactic", "coverage")}
    return result


def score(config: RunConfig, vectors: WordVectors) -> dict[str, Any]:
    """All scores as plain data: `analogy` and `similarity` by set, `neighbours` by word, answered `analogies`, `notes`."""
    wanted, rules = config.evaluate, rules_of(config)
    scores: dict[str, Any] = {"analogy": {}, "similarity": {}}
    for kind, paths, ask in (
        ("analogy", wanted.analogies, sets.score_analogies), ("similarity", wanted.similarity, sets.score_similarity),
    ):  # fmt: skip
        scores[kind] = {name: ask(vectors, path, rules) for name, path in sets.set_names(paths).items()}
    return scores | {
        "neighbours": {word: _neighbours(vectors, word) for word in wanted.queries},
        "analogies": [_answer(vectors, question) for question in wanted.analogy_queries],
        "notes": sets.notes(scores),
    }


def rules_of(config: RunConfig) -> sets.Rules:
    """The scoring rules of this configuration."""
    wanted = config.evaluate
    syntactic = SYNTACTIC if wanted.syntactic is None else wanted.syntactic
    return sets.Rules(wanted.restrict_vocab, wanted.method, wanted.case_insensitive, syntactic)


def _neighbours(vectors: WordVectors, word: str) -> list[list[Any]] | None:
    """[[word, cosine], …], or None for a word that is not in the vocabulary."""
    if word not in vectors:
        return None
    return [[found, round(float(cosine), 4)] for found, cosine in vectors.most_similar(word, topn=NEIGHBOURS)]


def _answer(vectors: WordVectors, question: str) -> dict[str, Any]:
    a, rest = question.split(":", 1)
    b, c = rest.split("=", 1)
    missing = [word for word in (a, b, c) if word not in vectors]
    answers = [] if missing else vectors.analogy(a, b, c, topn=3)
    return {
        "question": question,
        "answers": [[word, round(float(cosine), 4)] for word, cosine in answers],
        "missing": missing,
    }
