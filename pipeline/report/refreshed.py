"""What a refresh changed against the champion, for the report: the decision, its gates, words, scores, and drift of words."""

from __future__ import annotations

from typing import Any

from pipeline.report.charts import Curve, line_chart
from pipeline.report.page import Table
from pipeline.report.results import Summary, get, is_number, mapping

FILES_SHOWN = 5


def refreshed(summary: Summary) -> dict[str, Any] | None:
    """Title, sentence, tables and a chart of the drift; None for a run that was not a refresh."""
    found = mapping(summary, "refresh")
    if not found:
        return None
    tables = [_gates(found), _sizes(found), _files(found), _scores(found), _stability(found), _names(found), _most_moved(found)]
    lead = f"{get(found, 'status', '?')}: {get(found, 'decision', '')} ({get(found, 'start', '?')}: {get(found, 'why', '')})"
    return {
        "title": "Against the champion", "lead": lead, "tables": [table for table in tables if table.rows],
        "chart": _drift(found),
    }  # fmt: skip


def _gates(found: Summary) -> Table:
    """Those that did not hold first; the sentence has both numbers, in the units that people read."""
    gates = sorted(get(found, "gates", []), key=lambda gate: bool(gate.get("held")))
    rows = [(gate.get("gate"), "held" if gate.get("held") else "NOT held", gate.get("text")) for gate in gates]
    return Table("Gates", ("gate", "", "what was found"), rows)


def _sizes(found: Summary) -> Table:
    words, rows = mapping(found, "words"), []
    sizes = [
        (kind, get(found, f"corpus.before.{kind}"), get(found, f"corpus.now.{kind}")) for kind in ("files", "sentences", "tokens")
    ]
    known = mapping(found, "known_tokens")
    moved = {
        "files": (get(found, "delta.added.files"), get(found, "delta.deleted.files")),
        "tokens of known words": (known.get("gained"), known.get("lost")),
        "words": (get(words, "gained.words"), get(words, "lost.words")),
    }
    sizes.append(("tokens of known words", known.get("before"), known.get("now")))
    for name, before, now in [*sizes, ("words", words.get("before"), words.get("now"))]:
        if now is not None:
            rows.append((name, before, now, *moved.get(name, (None, None))))
    return Table("What changed", ("", "before", "now", "gained", "lost"), rows)


def _files(found: Summary) -> Table:
    """The first of each kind by name."""
    rows = []
    for kind, some in mapping(found, "delta").items():
        names = [" → ".join(map(_file_name, name if isinstance(name, list) else [name])) for name in get(some, "names", [])]
        if names:
            more = get(some, "files", 0) - len(names[:FILES_SHOWN])
            rows.append((kind, get(some, "files"), ", ".join(names[:FILES_SHOWN]) + (f" and {more:,} more" if more else "")))
    return Table("Files", ("", "files", "names"), rows)


def _file_name(path: object) -> str:
    return str(path).rsplit("/", 1)[-1]


def _stability(found: Summary) -> Table:
    stability = mapping(found, "stability")
    labels = (
        ("overlap", "neighbours that stayed"),
        ("vocabulary", "old text whose words are known"),
        ("drift", "median drift"),
    )
    return Table("Stability", ("", "share"), [(label, stability[key]) for key, label in labels if is_number(stability.get(key))])


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
    return line_chart(curve)
