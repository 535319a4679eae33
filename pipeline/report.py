"""The run report: one HTML file that needs nothing else, the same facts as JSON, and a short form for the terminal.

The page holds no script, loads nothing, and says so in a content security policy with the hash of its one style sheet.
All text from the corpus is escaped twice over: control and bidirectional characters become visible escapes, then HTML's
own characters become entities. Any part of the summary may be missing; the page shows what there is.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

from pipeline.charts import Curve, line_chart, short
from pipeline.errors import printable
from pipeline.store import write_bytes, write_json

Summary = Mapping[str, Any]
STAGES = ("tokenize", "vocab", "shards", "train", "evaluate", "publish")
FORMAT_VERSION = 1
_TEXT_LIMIT = 300


@dataclass(frozen=True)
class Table:
    """A further table of the report; numbers are set right, everything else left."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[object]]


def write_report(
    directory: Path, summary: Summary, curves: Sequence[Curve] | None = None, tables: Sequence[Table] = ()
) -> Path:
    """The path of `report.html`, written with `report.json` into `directory`.

    `summary` has the shape of summary.json plus `neighbours: {word: [[word, cosine], …]}`, `analogies: [{question,
    answers: [[word, score], …]}]`, `notes: [text]` and `train.rounds: [{round, epoch, loss, alpha, tokens_per_s}]`;
    `config` and `versions` (flat mappings) are shown as provenance. Without `curves`, those of the rounds are drawn.
    """
    drawn = round_curves(summary) if curves is None else list(curves)
    body = {
        "format_version": FORMAT_VERSION,
        "summary": summary,
        "curves": [asdict(curve) for curve in drawn],
        "tables": [asdict(table) for table in tables],
    }
    write_json(directory / "report.json", finite(body))
    write_bytes(directory / "report.html", render(summary, drawn, tables).encode())
    return directory / "report.html"


def finite(value: Any) -> Any:
    """`value` as strict JSON knows it: numbers that are not finite become null, keys text, and lone surrogates escapes."""
    if isinstance(value, Mapping):
        return {finite(str(key)): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def round_curves(summary: Summary) -> list[Curve]:
    """Loss, learning rate and speed over the rounds of training; epochs' ends are marked."""
    rounds = [row for row in get(summary, "train.rounds", []) if isinstance(row, Mapping)]
    ends = [float(this["round"]) for this, after in zip(rounds, rounds[1:], strict=False) if this.get("epoch") != after.get("epoch")]
    kinds = (
        ("loss", "Loss", "mean loss a target (nats)"),
        ("alpha", "Learning rate", "α"),
        ("tokens_per_s", "Speed", "raw tokens/s"),
    )
    curves = []
    for key, title, unit in kinds:
        points = [(float(row["round"]), float(row[key])) for row in rounds if is_number(row.get(key)) and is_number(row.get("round"))]
        curves.append(Curve(title, points, "round", unit, ends))
    return [curve for curve in curves if len(curve.points) > 1]


def get(tree: Any, path: str, default: Any = None) -> Any:
    """The value at a dotted path of nested mappings, or `default`."""
    for key in path.split("."):
        if not isinstance(tree, Mapping) or tree.get(key) is None:
            return default
        tree = tree[key]
    return tree


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


# ── the page ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def render(summary: Summary, curves: Sequence[Curve], tables: Sequence[Table]) -> str:
    """The whole page."""
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    title = text(get(summary, "name", "word2vec run"))
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
        f"<title>{title}</title>\n<style>{style}</style></head>\n<body>\n" + "\n".join(filter(None, sections)) + "\n</body></html>\n"
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
    seconds = [get(summary, f"stages.{name}.seconds", 0) for name in get(summary, "stages", {})]
    facts = []
    if is_number(tokens):
        facts.append(f"{tokens:,} tokens of text")
    if isinstance(shape, list | tuple) and len(shape) == 2:
        facts.append(f"{shape[0]:,} word vectors of {shape[1]:,} numbers")
    if any(map(is_number, seconds)):
        facts.append(f"{duration(sum(filter(is_number, seconds)))} of work")
    figures: list[tuple[str, str]] = []
    for label, value in (("Corpus tokens", tokens), ("Vocabulary", words), ("Raw tokens/s", get(summary, "train.raw_tokens_per_s"))):
        if is_number(value):
            figures.append((label, short(value)))
    if is_number(loss := get(summary, "train.final_loss")):
        figures.append(("Final loss", f"{loss:.4f}"))
    if is_number(analogy := get(summary, "evaluation.analogy")):
        figures.append(("Analogies right", f"{analogy:.1%}"))
    for name, score, _ in similarity_rows(summary)[:2]:
        figures.append((text(name, 24), f"{score:.3f}" if is_number(score) else "–"))
    tiles = "".join(f"<div><dt>{label}</dt><dd>{value}</dd></div>" for label, value in figures)
    badge = "status" if status in ("complete", "finished", "ok") else "status not"
    return (
        f'<header><h1><bdi>{text(get(summary, "name", "word2vec run"))}</bdi> <span class="{badge}">{text(status, 40)}</span></h1>\n'
        f'<p class="lead">{" → ".join(facts)}</p>\n' + (f'<dl class="figures">{tiles}</dl>' if tiles else "") + "</header>"
    )


def _notes(summary: Summary) -> str:
    notes = "".join(f"<li>{text(note, 1000)}</li>" for note in get(summary, "notes", []))
    return section("Notes on the input", f'<ul class="notes">{notes}</ul>' if notes else "")


def stage_rows(summary: Summary) -> list[tuple[str, int | None, float | None, float | None, bool]]:
    """(stage, tokens, seconds, tokens a second, cached) in the order of the pipeline; None where not known."""
    stages = get(summary, "stages", {})
    rows = []
    for name in [*(name for name in STAGES if name in stages), *(name for name in stages if name not in STAGES)]:
        seconds, cached = get(stages[name], "seconds"), bool(get(stages[name], "cached", False))
        tokens = get(stages[name], "tokens", get(summary, "train.raw_tokens") if name == "train" else None)
        known = is_number(tokens) and is_number(seconds) and seconds > 0 and not cached
        rows.append((str(name), tokens, seconds, tokens / seconds if known else None, cached))
    return rows


def _stages(summary: Summary) -> str:
    rows = stage_rows(summary)
    longest = max((seconds for _, _, seconds, _, cached in rows if seconds and not cached), default=0) or 1
    lines = []
    for name, tokens, seconds, speed, cached in rows:
        share = 0 if cached or not seconds else 100 * seconds / longest
        bar = f'<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true"><rect class="back" width="100" height="8" rx="2"/><rect class="fill" width="{share:.1f}" height="8" rx="2"/></svg>'
        took = '<span class="muted">reused</span>' if cached else "–" if seconds is None else duration(seconds)
        numbers = "".join(f'<td class="n">{"–" if value is None else short(value)}</td>' for value in (tokens, speed))
        lines.append(f'<tr><td>{text(name)}</td>{numbers}<td class="n">{took}</td><td>{bar}</td></tr>')
    total = sum(seconds for _, _, seconds, _, cached in rows if seconds and not cached)
    lines.append(f'<tr class="sum"><td>all</td><td></td><td></td><td class="n">{duration(total)}</td><td></td></tr>')
    head = '<th>stage</th><th class="n">tokens</th><th class="n">tokens/s</th><th class="n">time</th><th></th>'
    table = f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
    return section("Stages", table if rows else "")


def _charts(curves: Sequence[Curve]) -> str:
    figures = [(curve, line_chart(curve)) for curve in curves]
    shown = "".join(
        f"<figure><figcaption>{text(curve.title)}: {text(curve.y_label)}</figcaption>{svg}</figure>" for curve, svg in figures if svg
    )
    return section("Training", f'<div class="charts">{shown}</div>' if shown else "")


def similarity_rows(summary: Summary) -> list[tuple[str, Any, Any]]:
    """(set, Spearman's rho, coverage or None) of each similarity set."""
    rows: list[tuple[str, Any, Any]] = []
    for name, found in get(summary, "evaluation.similarity", {}).items():
        if isinstance(found, Mapping):
            score = next((found[key] for key in ("spearman", "rho", "score") if key in found), None)
            rows.append((str(name), score, found.get("coverage")))
        else:
            rows.append((str(name), found, None))
    return rows


def evaluation_rows(summary: Summary) -> list[tuple[str, str, Any, Any]]:
    """(test, measure, score, coverage) of the whole evaluation, fractions; None where not known."""
    coverage = get(summary, "evaluation.coverage")
    part = coverage if isinstance(coverage, Mapping) else {"analogy": coverage}
    labels = {"analogy": "analogies, all", "semantic": "analogies, semantic", "syntactic": "analogies, syntactic"}
    rows: list[tuple[str, str, Any, Any]] = [
        (label, "accuracy", get(summary, f"evaluation.{key}"), part.get(key))
        for key, label in labels.items()
        if is_number(get(summary, f"evaluation.{key}"))
    ]
    for name, score, known in similarity_rows(summary):
        rows.append((name, "Spearman's ρ", score, part.get(name, known)))
    return rows


def _evaluation(summary: Summary) -> str:
    rows = [(test, measure, score, percent(known)) for test, measure, score, known in evaluation_rows(summary)]
    return section("Evaluation", html_table(("test", "measure", "score", "covered"), rows))


def _neighbours(summary: Summary) -> str:
    cards = "".join(
        f"<div class=\"word\"><h3><bdi>{text(word, 60)}</bdi></h3>{_ranking(found, 'not in the vocabulary')}</div>"
        for word, found in get(summary, "neighbours", {}).items()
    )
    return section("Nearest neighbours (cosine)", f'<div class="words">{cards}</div>' if cards else "")


def _analogies(summary: Summary) -> str:
    cards = "".join(
        f"<div class=\"word\"><h3><bdi>{text(get(item, 'question', '?'), 120)}</bdi></h3>"
        f"{_ranking(get(item, 'answers', []), 'a word is not in the vocabulary')}</div>"
        for item in get(summary, "analogies", [])
    )
    return section("Analogies", f'<div class="words">{cards}</div>' if cards else "")


def _ranking(found: Sequence[Sequence[Any]], otherwise: str) -> str:
    if not found:
        return f'<p class="muted">{otherwise}</p>'
    return "<ol>" + "".join(f"<li><bdi>{text(word, 60)}</bdi><span>{score:.3f}</span></li>" for word, score in found) + "</ol>"


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
    lines = "".join(
        f'<tr><td class="muted">{name}</td><td class="mono">{cell(value)}</td></tr>' for name, value in facts if value is not None
    )
    content = f'<div class="scroll"><table><tbody>{lines}</tbody></table></div>' if lines else ""
    for title, key in (("Software", "versions"), ("Configuration", "config")):
        flat = [(name, value) for name, value in flatten(get(summary, key, {}))]
        if flat:
            rows = "".join(f'<tr><td class="muted">{text(name)}</td><td class="mono">{cell(value)}</td></tr>' for name, value in flat)
            content += f'<h3>{title}</h3><div class="scroll"><table><tbody>{rows}</tbody></table></div>'
    closing = (
        "<footer>Equal configuration digests and equal inputs give equal vectors, bit for bit, on any number of workers. "
        "<code>w2v verify</code> reads every artefact again and compares it with its SHA-256.</footer>"
    )
    return section("Provenance", content) + closing


def flatten(tree: object, prefix: str = "") -> list[tuple[str, object]]:
    """(dotted key, value) of nested mappings in their order; lists become text."""
    if not isinstance(tree, Mapping):
        return [(prefix, " ".join(map(str, tree)) if isinstance(tree, list | tuple) else tree)]
    return [pair for key, value in tree.items() for pair in flatten(value, f"{prefix}.{key}" if prefix else str(key))]


def percent(value: object) -> str | None:
    return f"{value:.1%}" if isinstance(value, int | float) and is_number(value) else None


def duration(seconds: float) -> str:
    """Seconds as a person says them: 0.42 s, 12.3 s, 4 min 05 s, 2 h 10 min."""
    if seconds < 9.95:
        return f"{seconds:.2f} s"
    if seconds < 119.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"
