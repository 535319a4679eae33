"""Reading a run's summary for the report and the terminal, whichever parts of it are present.

Every function takes the plain data of summary.json and returns what is known, with None for what is not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeGuard

from pipeline.report.charts import Curve

Summary = Mapping[str, Any]
STAGES = ("tokenize", "vocab", "shards", "train", "evaluate", "publish")


def round_curves(summary: Summary) -> list[Curve]:
    """Loss, learning rate and speed over the rounds of training, with the ends of epochs marked."""
    rounds = [row for row in get(summary, "train.rounds", []) if isinstance(row, Mapping) and is_number(row.get("kept_tokens"))]
    ends: list[float] = []
    means: list[tuple[float, float, float]] = []
    series: dict[str, list[tuple[float, float]]] = {"loss": [], "alpha": [], "speed": []}
    position = 0.0
    epoch = None
    for row in rounds:
        if epoch not in (None, row.get("epoch")):
            ends.append(position)
        epoch = row.get("epoch")
        if is_number(row.get("loss")):
            means.append((position, position + row["kept_tokens"], row["loss"]))
        position += row["kept_tokens"]
        series["loss"] += [(x, y) for x, y, *_ in row.get("points") or [(position, row.get("loss"))] if is_number(y)]
        if is_number(row.get("alpha")):
            series["alpha"].append((position, row["alpha"]))
        if is_number(row.get("raw_tokens")) and is_number(row.get("seconds")) and row["seconds"] > 0:
            series["speed"].append((position, row["raw_tokens"] / row["seconds"]))
    curves = (
        Curve("Loss", series["loss"], "kept tokens", "mean per target, nats (broad strokes: mean of the round)", ends, means),
        Curve("Learning rate", series["alpha"], "kept tokens", "α", ends),
        Curve("Speed", series["speed"], "kept tokens", "raw tokens/s", ends, from_zero=True),
    )
    return [curve for curve in curves if len(curve.points) > 1]


def mapping(tree: Any, path: str) -> Mapping[str, Any]:
    """The mapping at a dotted path; an empty one if there is none."""
    found = get(tree, path, {})
    return found if isinstance(found, Mapping) else {}


def get(tree: Any, path: str, default: Any = None) -> Any:
    """The value at a dotted path of nested mappings, or `default`."""
    for key in path.split("."):
        if not isinstance(tree, Mapping) or tree.get(key) is None:
            return default
        tree = tree[key]
    return tree


def is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def title_of(summary: Summary) -> str:
    return str(get(summary, "name") or get(summary, "config.run.name") or get(summary, "run_id") or "word2vec run")


def stage_rows(summary: Summary) -> list[tuple[str, int | None, float | None, float | None, bool]]:
    """(stage, tokens, seconds, tokens per second, cached) in the order of the pipeline; None for what is not known."""
    stages = mapping(summary, "stages")
    rows = []
    for name in [*(name for name in STAGES if name in stages), *(name for name in stages if name not in STAGES)]:
        seconds, cached = get(stages[name], "seconds"), bool(get(stages[name], "cached", False))
        tokens = get(stages[name], "tokens", get(summary, "train.raw_tokens") if name == "train" else None)
        known = is_number(tokens) and is_number(seconds) and seconds > 0 and not cached
        rows.append((str(name), tokens, seconds, tokens / seconds if known else None, cached))
    return rows


def similarity_rows(summary: Summary) -> list[tuple[str, Any, Any]]:
    """(set, Spearman's rho, coverage or None) of each similarity set."""
    rows: list[tuple[str, Any, Any]] = []
    coverage = mapping(summary, "evaluation.similarity_coverage")
    for name, found in mapping(summary, "evaluation.similarity").items():
        if isinstance(found, Mapping):
            score = next((found[key] for key in ("spearman", "rho", "score") if key in found), None)
            rows.append((str(name), score, found.get("coverage")))
        else:
            rows.append((str(name), found, coverage.get(name)))
    return rows


def evaluation_rows(summary: Summary, *, by_section: bool = False) -> list[tuple[str, str, Any, Any]]:
    """(test, measure, score, coverage) of the whole evaluation, as fractions; None for what is not known.

    Every analogy set has a row in all and one by kind, and with `by_section` one per section (indented); a summary without sets
    has its headline scores.
    """
    coverage = get(summary, "evaluation.coverage")
    part = coverage if isinstance(coverage, Mapping) else {"analogy": coverage}
    rows: list[tuple[str, str, Any, Any]] = []
    for name, found in mapping(summary, "evaluation.sets.analogy").items():
        rows += _analogy_rows(str(name), found, by_section) if is_number(get(found, "total")) else []
    labels = {"analogy": "analogies, all", "semantic": "analogies, semantic", "syntactic": "analogies, syntactic"}
    if not rows:
        rows = [
            (label, "accuracy", get(summary, f"evaluation.{key}"), part.get(key))
            for key, label in labels.items()
            if is_number(get(summary, f"evaluation.{key}"))
        ]
    for name, score, known in similarity_rows(summary):
        rows.append((name, "Spearman's ρ", score, part.get(name, known)))
    return rows


def _analogy_rows(name: str, found: Any, by_section: bool) -> list[tuple[str, str, Any, Any]]:
    method = {"3cosadd": "3CosAdd", "3cosmul": "3CosMul"}.get(str(get(found, "method")), "")
    measure = f"accuracy, {method}" if method else "accuracy"
    rows = [(f"{name}, all", measure, get(found, "analogy"), get(found, "coverage"))]
    sections = [section for section in get(found, "sections", []) if isinstance(section, Mapping)]
    for kind in ("semantic", "syntactic"):
        if any(section.get("kind") == kind for section in sections):
            rows.append((f"{name}, {kind}", "accuracy", get(found, kind), get(found, f"{kind}_coverage")))
    if by_section and len(sections) > 1:
        rows += [
            (f"  {section.get('name')}", "accuracy", section.get("accuracy"), section.get("coverage")) for section in sections
        ]
    return rows


def flatten(tree: object, prefix: str = "") -> list[tuple[str, object]]:
    """(dotted key, value) of nested mappings, in order; lists become text."""
    if not isinstance(tree, Mapping):
        return [(prefix, " ".join(map(str, tree)) if isinstance(tree, list | tuple) else tree)]
    return [pair for key, value in tree.items() for pair in flatten(value, f"{prefix}.{key}" if prefix else str(key))]


def finite(value: Any) -> Any:
    """`value` as strict JSON: non-finite numbers become null, keys become text, and lone surrogates become escapes."""
    if isinstance(value, Mapping):
        return {finite(str(key)): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def duration(seconds: float) -> str:
    """A duration in readable units: 0.42 s, 12.3 s, 4 min 05 s, 2 h 10 min."""
    if seconds < 9.95:
        return f"{seconds:.2f} s"
    if seconds < 119.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def decimal(value: object) -> str:
    """A number with three decimals, or a dash if it is not a finite number."""
    return f"{value:.3f}" if is_number(value) else "–"


def percent(value: object) -> str | None:
    return f"{value:.1%}" if isinstance(value, int | float) and is_number(value) else None
