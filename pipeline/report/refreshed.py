"""What a refresh changed against the champion, for the report: the decision, its gates, words, scores, and drift of words."""

from __future__ import annotations

from typing import Any

from pipeline.report.charts import NARROW, Curve, line_chart
from pipeline.report.page import Table
from pipeline.report.results import Summary, get, is_number, mapping


def refreshed(summary: Summary) -> dict[str, Any] | None:
    """Title, sentence, tables and a chart of the drift; None for a run that was not a refresh."""
    found = mapping(summary, "refresh")
    if not found:
        return None
    tables = [_gates(found), _sizes(found), _scores(found), _names(found), _most_moved(found)]
    sentence = f"{get(found, 'status', '?')}: {get(found, 'decision', '')}"
    return {
        "title": "Against the champion", "lead": sentence, "tables": [table for table in tables if table.rows],
        "chart": _drift(found),
    }  # fmt: skip


def _gates(found: Summary) -> Table:
    rows = [
        (gate.get("gate"), "held" if gate.get("held") else "not held", gate.get("found"), gate.get("asked"), gate.get("text"))
        for gate in get(found, "gates", [])
    ]
    return Table("Gates", ("gate", "", "found", "asked for", ""), rows)


def _sizes(found: Summary) -> Table:
    words = mapping(found, "words")
    rows: list[tuple[object, ...]] = []
    if words:
        rows.append(("words", words.get("before"), words.get("now")))
        rows += [(f"words {kind}", None, get(words, f"{kind}.words")) for kind in ("gained", "lost")]
    rows += [
        (f"files {kind}", None, get(count, "files")) for kind, count in mapping(found, "delta").items() if get(count, "files")
    ]
    stability = mapping(found, "stability")
    labels = (
        ("overlap", "neighbourhoods that stayed"),
        ("vocabulary", "old text whose words are known"),
        ("drift", "median drift"),
    )
    rows += [(label, None, stability[key]) for key, label in labels if is_number(stability.get(key))]
    return Table("What changed", ("", "before", "now"), rows)


def _scores(found: Summary) -> Table:
    before, now = (mapping(found, f"scores.{when}") for when in ("before", "now"))
    pairs = [("analogy", before.get("analogy"), now.get("analogy"))]
    similarity = mapping(now, "similarity")
    pairs += [(name, get(before, f"similarity.{name}"), score) for name, score in similarity.items()]
    rows = [(name, then, score, score - then) for name, then, score in pairs if is_number(then) and is_number(score)]
    return Table("Scores on the same sets", ("test", "champion", "challenger", "change"), rows)


def _names(found: Summary) -> Table:
    rows = [(kind, ", ".join(map(str, get(found, f"words.{kind}.names", [])))) for kind in ("gained", "lost")]
    return Table("Words", ("", "the most frequent"), [row for row in rows if row[1]])


def _most_moved(found: Summary) -> Table:
    rows = [(word, drift) for word, drift in get(found, "stability.most_moved", [])]
    return Table("Words that turned most (1 − cosine)", ("word", "drift"), rows)


def _drift(found: Summary) -> str:
    """The chart of how many words turned how far, one point per bin."""
    edges, counts = get(found, "stability.drift_histogram.edges", []), get(found, "stability.drift_histogram.words", [])
    points = [((left + right) / 2, count) for left, right, count in zip(edges, edges[1:], counts, strict=False)]
    curve = Curve("Drift", points, "1 − cosine of old and new vector", "words", from_zero=True)
    return line_chart(curve, NARROW)
