"""The model card, which MLflow shows as the description of a run and of a registered version, in Markdown.

Names of files and scores are data: everything in them that Markdown or HTML could interpret is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pipeline.config import RunConfig
from pipeline.errors import printable

LONGEST = 4900
"""Characters; a description may have 5,000."""


def model_card(config: RunConfig, summary: Mapping[str, Any]) -> str:
    """What these vectors are, what they were trained on, how good they are, and how to use them, as far as known."""
    sections = (_what(config, summary), _corpus(config, summary), _scores(summary), _use(config, summary))
    return "\n\n".join(filter(None, sections))[:LONGEST]


def _what(config: RunConfig, summary: Mapping[str, Any]) -> str:
    train, shape = config.train, summary.get("vectors", {}).get("shape")
    lanes = summary.get("train", {}).get("lanes", train.lanes)
    size = f"{shape[0]:,} words × {shape[1]:,} dimensions. " if shape else ""
    model = {"cbow": "CBOW", "skipgram": "Skip-gram"}[train.model]
    return (
        f"**Word vectors `{_code(config.run.name)}`.** {size}{model} with {train.negative} negative samples, window "
        f"{config.shards.window}, {train.vector_size} dimensions, {train.epochs} epochs, "
        f"α {train.alpha:g} → {train.min_alpha:g}, {lanes} lane{'s' if lanes > 1 else ''}, seed {config.run.seed}."
    )


def _corpus(config: RunConfig, summary: Mapping[str, Any]) -> str:
    corpus = summary.get("corpus", {})
    inputs = ", ".join(f"`{_code(text)}`" for text in config.corpus.inputs[:5])
    more = f" and {len(config.corpus.inputs) - 5} more" if len(config.corpus.inputs) > 5 else ""
    return (
        f"**Corpus.** {inputs}{more}: {corpus.get('tokens', 0):,} tokens in {corpus.get('sentences', 0):,} sentences; "
        f"{summary.get('vocab', {}).get('size', 0):,} words occur at least {config.vocab.min_count} times."
    )


def _scores(summary: Mapping[str, Any]) -> str:
    evaluation = summary.get("evaluation", {})
    sets = evaluation.get("sets", {})
    lines = [
        f"| {_text(name)} | {what} | {_number(found.get(score))} | {_number(found.get('coverage'))} |"
        for kind, what, score in (("analogy", "analogies, accuracy", "analogy"), ("similarity", "Spearman's ρ", "spearman"))
        for name, found in sets.get(kind, {}).items()
    ]
    if not lines:
        return ""
    return "\n".join(["**Scores.**", "", "| set | measure | score | covered |", "| --- | --- | --- | --- |", *lines])


def _use(config: RunConfig, summary: Mapping[str, Any]) -> str:
    if "vectors" not in summary:
        return ""
    name = config.publish.register_as
    lines = ["from w2v_core.vectors import WordVectors"]
    source = f"models:/{name}@champion" if name else "…/vectors"
    lines.append(f'vectors = WordVectors.load("{source}")' + ("" if name else "  # downloaded from this run's artefacts"))
    lines.append('vectors.most_similar("king")')
    served = f"\n\n    mlflow models serve -m models:/{name}@champion --env-manager local" if name else ""
    return "**Use.**\n\n" + "\n".join(f"    {line}" for line in lines) + served


def _number(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else "–"


def _text(value: str) -> str:
    """Data as literal Markdown text."""
    return re.sub(r"([\\`*_{}\[\]()#+!|<>&~-])", r"\\\1", printable(value, 100)).replace("\\<", "&lt;").replace("\\&", "&amp;")


def _code(value: str) -> str:
    """Data for use inside a code span."""
    return printable(value, 200).replace("`", "'").replace("<", "‹").replace("&", "＆")
