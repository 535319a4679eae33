"""The run report: `index.html` for people, `report.json` for programs, and a short form for the terminal.

All three show the same facts; any part of the summary may be missing, and is then left out.
"""

from __future__ import annotations

import json
import textwrap
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.errors import printable
from pipeline.report import sections
from pipeline.report.charts import Curve, short
from pipeline.report.figures import FOLDER, write_figures
from pipeline.report.page import Table, map_data, render
from pipeline.report.recipes import recipes
from pipeline.report.refreshed import refreshed
from pipeline.report.results import (
    Summary,
    decimal,
    duration,
    evaluation_rows,
    finite,
    get,
    mapping,
    percent,
    round_curves,
    stage_rows,
    title_of,
)
from pipeline.safety.files import MAX_JSON_BYTES, read_bounded
from pipeline.safety.seals import SEAL, seal_of
from pipeline.store import write_bytes, write_json

FORMAT_VERSION = 2
PAGE, DATA = "index.html", "report.json"
SECTIONS = ("map", "training", "scores", "neighbours", "analogies", "changes", "corpus", "stages", "use", "provenance")
"""The sections in the page's table of contents, in order."""
KEPT_OF_BEFORE = ("name", "run_id", "config_digest", "config", "corpus", "vocab", "evaluation", "made", "vectors")
"""What is kept of the previous run, besides the figures of its training."""


def write_report(directory: Path, summary: Summary, curves: Sequence[Curve] | None = None, tables: Sequence[Table] = ()) -> Path:
    """The path of `index.html`, written with `report.json` and `figures/*.png` into `directory`; a report already there is shown
    as the previous run.

    `summary` has the shape of summary.json plus `neighbours: {word: [[word, cosine], …]}`, `analogies: [{question,
    answers: [[word, score], …]}]`, `notes: [text]`, `map: path` (of `layout.map_of_words`) and `train.rounds: [{epoch, loss,
    alpha, kept_tokens, raw_tokens, seconds, points: [[kept tokens so far, loss], …]}]`; `config` and `versions` are shown as
    provenance. Without `curves`, the curves are drawn from the rounds. `tables` follow the stages.
    """
    write_json(directory / SEAL, seal_of(directory, []))  # names no file: whoever is killed on the way leaves no damage
    before = run_before(directory / DATA, summary)
    drawn = round_curves(summary) if curves is None else list(curves)
    body = {
        "format_version": FORMAT_VERSION,
        "summary": summary,
        "curves": [asdict(curve) for curve in drawn],
        "tables": [asdict(table) for table in tables],
        "before": before,
    }
    write_json(directory / DATA, finite(body))
    words = _read_json(Path(str(get(summary, "map", ""))))
    page = report_page(summary, drawn, tables, before, words, sections.counts_of(summary))
    write_bytes(directory / PAGE, page.encode())
    figures = write_figures(directory / FOLDER, drawn, words)
    write_json(directory / SEAL, seal_of(directory, [directory / PAGE, directory / DATA, *figures]))
    return directory / PAGE


def report_page(
    summary: Summary, curves: Sequence[Curve], tables: Sequence[Table] = (), before: Summary | None = None,
    words: Mapping[str, Any] | None = None, counts: Sequence[int] = (),
) -> str:  # fmt: skip
    """The page as HTML; `words` is the result of `layout.map_of_words`, `counts` the count of every word, most frequent first."""
    facts, folded = sections.provenance(summary)
    shown = dict(words or {}) | ({"counts": list(counts[: len((words or {}).get("words", ()))])} if counts else {})
    context: dict[str, Any] = {
        **sections.header(summary, before), **sections.stages(summary), **sections.training(summary, curves),
        **sections.scores(summary, before), "before": before and {"name": _name(before)},
        "notes": get(summary, "notes", []), "map": map_data(shown), "tables": tables,
        "neighbours": list(mapping(summary, "neighbours").items()), "analogies": get(summary, "analogies", []),
        "changes": refreshed(summary) or _changes(summary, before),
        "corpus": sections.corpus(summary), "zipf": sections.zipf(counts),
        "use": recipes(summary), "provenance": facts, "settings": folded,
    }  # fmt: skip
    there = {**context, "training": context["curves"]}
    contents = [(key, "Use it" if key == "use" else key.capitalize()) for key in SECTIONS if there[key]]
    return render("page.html.j2", contents=contents, **context)


def _changes(summary: Summary, before: Summary | None) -> dict[str, Any] | None:
    if before is None:
        return None
    settings = sections.differing_settings(summary, before)
    tables = [Table("Settings that differ", ("key", "before", "now"), settings)] if settings else []
    return {"title": f"Since the previous run ({_name(before)})", "lead": "" if settings else "The settings are the same.",
            "tables": tables, "chart": ""}  # fmt: skip


def _name(summary: Summary) -> str:
    made = get(summary, "made.at")
    return f"{title_of(summary)}, {made}" if made else str(get(summary, "run_id", title_of(summary)))


def run_before(path: Path, summary: Summary) -> dict[str, Any] | None:
    """What the report at `path` records of the last run with other vectors; None if there was none."""
    body = _read_json(path) or {}
    last = body.get("summary")
    if not isinstance(last, dict) or not get(last, "vectors.sha256"):
        return None
    if get(last, "vectors.sha256") == get(summary, "vectors.sha256"):
        kept = body.get("before")
        return kept if isinstance(kept, dict) else None
    train = {key: get(last, f"train.{key}") for key in ("final_loss", "raw_tokens_per_s")}
    return {key: last[key] for key in KEPT_OF_BEFORE if key in last} | {"train": train}


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        body = json.loads(read_bounded(path, MAX_JSON_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def format_summary(summary: Summary, width: int = 80) -> str:
    """The summary as plain text of at most `width` columns (paths may be longer); text from data is sanitised."""
    blocks = (
        [f"{plain(title_of(summary), 60)}: {plain(get(summary, 'status', 'unknown'), 40)}"],
        _stage_lines(summary),
        evaluation_lines(summary),
        _ranking_lines("neighbours", mapping(summary, "neighbours").items(), width),
        _ranking_lines("analogies", [(get(i, "question", "?"), get(i, "answers")) for i in get(summary, "analogies", [])], width),
        [line for note in get(summary, "notes", []) for line in _wrapped("note: " + plain(note, 1000), width)],
        _place_lines(summary),
    )
    return "\n\n".join("\n".join(block) for block in blocks if block)


def plain(value: object, limit: int = 40) -> str:
    """A value as terminal text, without control or bidirectional characters."""
    return printable(str(value), limit)


def columns(shown: str) -> int:
    """The width of a text in terminal columns: Hangul, kana and ideographs take two, combining marks none."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in shown)


def pad(shown: str, width: int) -> str:
    return shown + " " * max(0, width - columns(shown))


def _stage_lines(summary: Summary) -> list[str]:
    rows = stage_rows(summary)
    if not rows:
        return []
    lines = [f"{'stage':<10}{'tokens':>10}{'time':>14}{'tokens/s':>12}"]
    for name, tokens, seconds, speed, cached in rows:
        took = "reused" if cached else "–" if seconds is None else duration(seconds)
        count, rate = ("" if value is None else short(value) for value in (tokens, speed))
        lines.append(f"{plain(name):<10}{count:>10}{took:>14}{rate:>12}".rstrip())
    worked = sum(seconds for _, _, seconds, _, cached in rows if seconds and not cached)
    return [*lines, f"{'all':<10}{'':>10}{duration(worked):>14}"]


def evaluation_lines(summary: Summary) -> list[str]:
    """The scores of every set and section, one per line; text from data is sanitised."""
    rows = [
        (plain(test, 40), measure, decimal(score), percent(known))
        for test, measure, score, known in evaluation_rows(summary, by_section=True)
    ]
    widest = max((columns(test) for test, *_ in rows), default=0)
    covered = (f"  ({known} covered)" if known else "" for *_, known in rows)
    return [
        f"{pad(test, widest)}  {score:>6}  {measure}{known}"
        for (test, measure, score, _), known in zip(rows, covered, strict=True)
    ]


def _ranking_lines(title: str, found: Iterable[tuple[str, Any]], width: int) -> list[str]:
    """One line per word, with as many of its ranked words as fit."""
    rows = [(plain(word, 30), ranked) for word, ranked in found]
    widest = max((columns(word) for word, _ in rows), default=0)
    lines = [title] if rows else []
    for word, ranked in rows:
        line = f"  {pad(word, widest)} "
        for other, score in ranked or []:
            shown = f" {plain(other, 30)} {decimal(score).replace('0.', '.', 1)}"
            if columns(line + shown) > width:
                break
            line += shown
        lines.append(line if ranked else line + " not in the vocabulary")
    return lines


def _place_lines(summary: Summary) -> list[str]:
    tracked = get(summary, "mlflow.uri")
    run = get(summary, "mlflow.run_id")
    places = (
        ("bucket", get(summary, "place")),
        ("vectors", get(summary, "vectors.path")),
        ("report", get(summary, "report")),
        ("tracked", f"{tracked} run {run}" if tracked and run else get(summary, "mlflow.message")),
    )
    lines = [f"{name:<8} {plain(place, 4000)}" for name, place in places if place]
    if run and (message := get(summary, "mlflow.message")):
        lines.append(f"{'':<8} {plain(message, 1000)}")
    return lines


def _wrapped(line: str, width: int) -> list[str]:
    return textwrap.wrap(line, width, subsequent_indent="      ")
