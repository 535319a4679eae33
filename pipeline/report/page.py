"""The report as one HTML page that needs nothing else.

It holds no script, loads nothing, and says so in a content security policy with the hash of its one style sheet. Text
from the corpus is escaped twice over: control and bidirectional characters become visible escapes, then HTML's own
characters become entities.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from pipeline.errors import printable
from pipeline.report.charts import NARROW, WIDE, Curve, line_chart, short
from pipeline.report.results import (
    Summary,
    decimal,
    duration,
    evaluation_rows,
    flatten,
    get,
    is_number,
    mapping,
    percent,
    similarity_rows,
    stage_rows,
    title_of,
)

_TEXT_LIMIT = 300
_BAR = (
    '<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true"><rect class="back" width="100" '
    'height="8" rx="2"/><rect class="fill" width="{share:.1f}" height="8" rx="2"/></svg>'
)


@dataclass(frozen=True)
class Table:
    """A further table of the report; numbers are set right, everything else left."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[object]]


def render(summary: Summary, curves: Sequence[Curve], tables: Sequence[Table]) -> str:
    """The whole page."""
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    title = text(title_of(summary))
    sections = (
        _header(summary),
        _notes(summary),
        _stages(summary),
        _charts(curves),
        _evaluation(summary),
        _neighbours(summary),
        _analogies(summary),
        *(section(text(table.title), html_table(table.header, table.rows)) for table in tables),
        _provenance(summary),
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{title}</title>\n<style>{style}</style></head>\n<body>\n"
        + "\n".join(filter(None, sections))
        + "\n</body></html>\n"
    )


def text(value: object, limit: int = _TEXT_LIMIT) -> str:
    """A value as harmless HTML text."""
    return escape(printable(str(value), limit), quote=True)


def cell(value: object) -> str:
    """A value as the content of a table cell: numbers grouped, data isolated from the direction of what surrounds it."""
    if value is None:
        return '<span class="muted">–</span>'
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}" if math.isfinite(value) else str(value)
    return f"<bdi>{text(value)}</bdi>"


def section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>\n{content}\n</section>" if content else ""


def html_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    rows = [list(row) for row in rows]
    if not rows:
        return ""
    numeric = [all(is_number(row[column]) or row[column] is None for row in rows) for column in range(len(header))]
    kind = [' class="n"' if is_numeric else "" for is_numeric in numeric]
    head = "".join(f"<th{kind[column]}>{text(name)}</th>" for column, name in enumerate(header))
    body = "\n".join(
        "<tr>" + "".join(f"<td{kind[column]}>{cell(value)}</td>" for column, value in enumerate(row)) + "</tr>" for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


def _header(summary: Summary) -> str:
    status = str(get(summary, "status", "unknown"))
    tokens, words = get(summary, "corpus.tokens"), get(summary, "vocab.size")
    shape = get(summary, "vectors.shape")
    worked = sum(seconds for _, _, seconds, _, cached in stage_rows(summary) if seconds and not cached)
    facts = []
    if is_number(tokens):
        facts.append(f"{tokens:,} tokens of text")
    if isinstance(shape, list | tuple) and len(shape) == 2:
        facts.append(f"{shape[0]:,} vectors of {shape[1]:,} dimensions")
    if worked:
        facts.append(f"in {duration(worked)}")
    figures: list[tuple[str, str]] = []
    for label, value in (
        ("Corpus tokens", tokens),
        ("Vocabulary", words),
        ("Raw tokens/s", get(summary, "train.raw_tokens_per_s")),
    ):
        if is_number(value):
            figures.append((label, short(value)))
    if is_number(loss := get(summary, "train.final_loss")):
        figures.append(("Final loss", f"{loss:.4f}"))
    if is_number(analogy := get(summary, "evaluation.analogy")):
        figures.append(("Analogies right", f"{analogy:.1%}"))
    for name, score, _ in similarity_rows(summary)[:2]:
        if is_number(score):
            figures.append((text(name, 24), decimal(score)))
    tiles = "".join(f"<div><dt>{label}</dt><dd>{value}</dd></div>" for label, value in figures)
    badge = "status" if status in ("complete", "finished", "ok") else "status not"
    return (
        f'<header><h1><bdi>{text(title_of(summary))}</bdi> <span class="{badge}">{text(status, 40)}</span></h1>\n'
        f'<p class="lead">{", ".join(facts)}</p>\n' + (f'<dl class="figures">{tiles}</dl>' if tiles else "") + "</header>"
    )


def _notes(summary: Summary) -> str:
    notes = "".join(f"<li>{text(note, 1000)}</li>" for note in get(summary, "notes", []))
    return section("Notes on the input", f'<ul class="notes">{notes}</ul>' if notes else "")


def _stages(summary: Summary) -> str:
    rows = stage_rows(summary)
    longest = max((seconds for _, _, seconds, _, cached in rows if seconds and not cached), default=0) or 1
    lines = []
    for name, tokens, seconds, speed, cached in rows:
        share = 0 if cached or not seconds else 100 * seconds / longest
        bar = _BAR.format(share=share)
        took = '<span class="muted">reused</span>' if cached else "–" if seconds is None else duration(seconds)
        numbers = "".join(f'<td class="n">{"–" if value is None else short(value)}</td>' for value in (tokens, speed))
        lines.append(f'<tr><td>{text(name)}</td>{numbers}<td class="n">{took}</td><td class="bars">{bar}</td></tr>')
    total = sum(seconds for _, _, seconds, _, cached in rows if seconds and not cached)
    lines.append(f'<tr class="sum"><td>all</td><td></td><td></td><td class="n">{duration(total)}</td><td></td></tr>')
    head = '<th>stage</th><th class="n">tokens</th><th class="n">tokens/s</th><th class="n">time</th><th></th>'
    table = f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
    return section("Stages", table if rows else "")


def _charts(curves: Sequence[Curve]) -> str:
    figures = [(curve, line_chart(curve, WIDE if number == 0 else NARROW)) for number, curve in enumerate(curves)]
    shown = "".join(
        f"<figure><figcaption>{text(curve.title)}: {text(curve.y_label)}, over {text(curve.x_label)}</figcaption>{svg}</figure>"
        for curve, svg in figures
        if svg
    )
    return section("Training", f'<div class="charts">{shown}</div>' if shown else "")


def _evaluation(summary: Summary) -> str:
    rows = [(test, measure, score, percent(known)) for test, measure, score, known in evaluation_rows(summary)]
    return section("Evaluation", html_table(("test", "measure", "score", "covered"), rows))


def _neighbours(summary: Summary) -> str:
    cards = "".join(
        f'<div class="word"><h3><bdi>{text(word, 60)}</bdi></h3>{_ranking(found, "not in the vocabulary")}</div>'
        for word, found in mapping(summary, "neighbours").items()
    )
    return section("Nearest neighbours (cosine)", f'<div class="words">{cards}</div>' if cards else "")


def _analogies(summary: Summary) -> str:
    cards = "".join(
        f'<div class="word"><h3><bdi>{text(get(item, "question", "?"), 120)}</bdi></h3>'
        f"{_ranking(get(item, 'answers', []), 'a word is not in the vocabulary')}</div>"
        for item in get(summary, "analogies", [])
    )
    return section("Analogies", f'<div class="words">{cards}</div>' if cards else "")


def _ranking(found: Sequence[Sequence[Any]] | None, otherwise: str) -> str:
    if not found:
        return f'<p class="muted">{otherwise}</p>'
    return (
        "<ol>" + "".join(f"<li><bdi>{text(word, 60)}</bdi><span>{decimal(score)}</span></li>" for word, score in found) + "</ol>"
    )


def _provenance(summary: Summary) -> str:
    facts: list[tuple[str, object]] = [
        ("run", get(summary, "run_id")),
        ("configuration digest", get(summary, "config_digest")),
        ("vectors", get(summary, "vectors.path")),
        ("SHA-256 of the vectors", get(summary, "vectors.sha256")),
        ("lanes", get(summary, "train.lanes")),
        ("bytes moved by merging", get(summary, "train.merged_bytes")),
        ("tracked at", get(summary, "mlflow.uri")),
        ("MLflow run", get(summary, "mlflow.run_id")),
    ]
    stages = mapping(summary, "stages")
    facts += [(f"{name} artefact", get(stages[name], "fingerprint")) for name in stages]
    content = _facts_table((name, value) for name, value in facts if value is not None)
    for title, key in (("Software", "versions"), ("Configuration", "config")):
        if rows := _facts_table(flatten(mapping(summary, key))):
            content += f"<h3>{title}</h3>{rows}"
    closing = (
        "<footer>Equal configuration digests and equal inputs give equal vectors, bit for bit, on any number of workers. "
        "<code>w2v verify</code> reads every artefact again and compares it with its SHA-256.</footer>"
    )
    return section("Provenance", content) + closing


def _facts_table(facts: Iterable[tuple[str, object]]) -> str:
    rows = "".join(f'<tr><td class="muted">{text(name)}</td><td class="mono">{cell(value)}</td></tr>' for name, value in facts)
    return f'<div class="scroll"><table><tbody>{rows}</tbody></table></div>' if rows else ""
