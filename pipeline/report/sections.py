"""The content of each section of the report, as plain data for the template; any part of the summary may be missing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.report.charts import NARROW, WIDE, Curve, line_chart, short
from pipeline.report.page import Table
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
    stage_rows,
    title_of,
)
from pipeline.safety.values import as_written

GOOD = ("complete", "finished", "ok")


def header(summary: Summary, before: Summary | None) -> dict[str, Any]:
    """Title, status, one sentence, where it was made, and the figures with their change since the previous run."""
    tokens, shape = get(summary, "corpus.tokens"), get(summary, "vectors.shape")
    worked = sum(seconds for _, _, seconds, _, cached in stage_rows(summary) if seconds and not cached)
    lead = []
    if is_number(tokens):
        lead.append(f"{tokens:,} tokens of text")
    if isinstance(shape, list | tuple) and len(shape) == 2:
        lead.append(f"{shape[0]:,} vectors of {shape[1]:,} dimensions")
    if worked:
        lead.append(f"in {duration(worked)}")
    made = [(name, get(summary, f"made.{key}")) for name, key in (("made", "at"), ("on", "host"), ("by", "command"))]
    status = str(get(summary, "status", "unknown"))
    return {
        "title": title_of(summary), "status": status, "good": status in GOOD, "lead": lead,
        "made": [(name, value) for name, value in made if value], "figures": list(_figures(summary, before)),
    }  # fmt: skip


def _figures(summary: Summary, before: Summary | None) -> Iterator[tuple[str, str, str, str]]:
    """(label, value, change, class of the change)"""
    scores = {(test, measure): score for test, measure, score, _ in evaluation_rows(before or {})}
    rows: list[tuple[str, Any, Any, int]] = [
        (label, get(summary, key), get(before, key), better)
        for label, key, better in (
            ("Corpus tokens", "corpus.tokens", 0),
            ("Vocabulary", "vocab.size", 0),
            ("Raw tokens/s", "train.raw_tokens_per_s", 1),
            ("Final loss", "train.final_loss", -1),
        )
    ]
    found = [row for row in evaluation_rows(summary) if row[0] != "analogies, all" or is_number(row[2])]
    rows += [(test, score, scores.get((test, measure)), 1) for test, measure, score, _ in found[:4]]
    for label, value, earlier, better in rows:
        if is_number(value):
            change, direction = _change(value, earlier, better)
            whole = isinstance(value, int)
            yield label, short(value) if whole else f"{value:.4f}" if label == "Final loss" else decimal(value), change, direction


def _change(value: float, earlier: object, better: int) -> tuple[str, str]:
    if not is_number(earlier) or value == earlier:
        return "", ""
    step = value - earlier
    text = f"{step / earlier:+.1%}" if isinstance(value, int) and earlier else f"{step:+.3f}"
    return text.replace("-", "−"), "up" if step * better > 0 else "down" if step * better < 0 else ""


def stages(summary: Summary) -> dict[str, Any]:
    rows = stage_rows(summary)
    worked = [seconds for _, _, seconds, _, cached in rows if seconds and not cached]
    longest = max(worked, default=0) or 1
    return {
        "stages": [
            {
                "name": name, "cached": cached, "tokens": "–" if tokens is None else short(tokens),
                "speed": "–" if speed is None else short(speed), "time": "–" if seconds is None else duration(seconds),
                "share": 0 if cached or not seconds else 100 * seconds / longest,
            }
            for name, tokens, seconds, speed, cached in rows
        ],
        "total": duration(sum(worked)),
    }  # fmt: skip


def training(summary: Summary, curves: Sequence[Curve]) -> dict[str, Any]:
    """The charts with at least two points, the first across the page, and the workers' load if it was recorded."""
    drawn = [(curve, line_chart(curve, WIDE if place == 0 else NARROW)) for place, curve in enumerate(curves)]
    loads = get(summary, "workers", [])
    header: tuple[str, ...] = ("worker", "processor", "memory", "kept tokens/s", "waiting and merging")
    rows: list[tuple[object, ...]] = [
        (
            f"worker {load.get('worker')}", f"{load['cpu_percent']:.0f} % of a core", f"{load['memory_bytes'] / 2**20:,.0f} MiB",
            round(load["tokens_per_s"]), percent(load["waiting_share"]),
        )
        for load in loads
    ]  # fmt: skip
    if any(load.get("gpu_memory_bytes") for load in loads):
        header = (*header, "GPU memory")
        rows = [(*row, f"{(load.get('gpu_memory_bytes') or 0) / 2**20:,.0f} MiB") for row, load in zip(rows, loads, strict=True)]
    return {"curves": [pair for pair in drawn if pair[1]], "workers": Table("Workers", header, rows) if rows else None}


def scores(summary: Summary, before: Summary | None) -> dict[str, Any]:
    """Every score with its coverage, beside the previous run's, and the sections of each analogy set."""
    earlier = {(test, measure): score for test, measure, score, _ in evaluation_rows(before or {})}
    rows: list[tuple[object, ...]] = []
    for test, measure, score, known in evaluation_rows(summary):
        row: tuple[object, ...] = (test, measure, score, percent(known))
        if before:
            then = earlier.get((test, measure))
            row += (then, score - then if is_number(score) and is_number(then) else None)
        rows.append(row)
    sets = []
    for name, found in mapping(summary, "evaluation.sets.analogy").items():
        sections = [row for row in get(found, "sections", []) if get(row, "total")]
        if sections:
            sets.append({"name": name, "rows": sections, "examples": list(_examples(sections))})
    return {"scores": rows, "sections": sets}


def _examples(sections: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, list[tuple[str, ...]]]]:
    """Some questions answered right and some answered wrong, a few from every section."""
    for key, label in (("right", "Some answered right"), ("wrong", "Some answered wrong")):
        rows = [tuple(map(str, question[:5])) for section in sections for question in get(section, key, [])[:2]]
        if rows:
            yield label, rows


CORPUS_FACTS = (
    ("files", "files"), ("bytes_read", "bytes read"), ("text_bytes", "bytes of text"), ("sentences", "sentences"),
    ("tokens", "tokens"), ("dropped_long_tokens", "dropped: tokens too long"), ("empty_files", "empty files"),
    ("invalid_utf8", "places that were not UTF-8"),
)  # fmt: skip


BYTES = {
    "bytes.sentences": "bytes in sentences", "bytes.wordless": "bytes of lines without a word", "bytes.put_in": "bytes put in",
    "bytes.long_tokens": "bytes of tokens too long", "bytes.not_text": "bytes not text", "bytes.marks": "bytes of marks",
    "bytes.bad_records": "bytes of records without text", "bytes.outside": "bytes outside the texts",
}  # fmt: skip
"""Labels of what became of every byte of the text; see `losses` for their meaning."""
TOLD = ("bytes.read",)
"""Left out: shown above, or without further information."""


def corpus(summary: Summary) -> list[tuple[str, object]]:
    """(label, value): what the corpus held, what was kept, and what was dropped and why."""
    found, vocab = mapping(summary, "corpus"), mapping(summary, "vocab")
    facts: list[tuple[str, object]] = []
    if inputs := get(summary, "config.corpus.inputs"):
        facts.append(("inputs", ", ".join(map(str, inputs[:8])) + (f" and {len(inputs) - 8} more" if len(inputs) > 8 else "")))
    facts += [(label, found[key]) for key, label in CORPUS_FACTS if found.get(key)]
    known = {key for key, _ in CORPUS_FACTS}
    facts += [
        (BYTES.get(key, key.replace("_", " ").replace(".", ": ")), value)
        for key, value in flatten({key: value for key, value in found.items() if key not in known and key != "notes"})
        if value not in (0, "", None, False) and key not in TOLD
    ]
    tokens, kept = get(vocab, "corpus_tokens"), get(vocab, "tokens")
    if is_number(tokens) and is_number(kept) and tokens:
        rare, words = tokens - kept, get(vocab, "distinct_words", 0) - get(vocab, "size", 0)
        facts += [
            ("different words", get(vocab, "distinct_words")),
            ("in the vocabulary", get(vocab, "size")),
            ("dropped: too rare (vocab.min_count, max_size)", f"{rare:,} tokens, {rare / tokens:.1%}, of {words:,} words"),
        ]
        sampled = get(summary, "shards.kept_tokens")
        if is_number(sampled) and kept:
            facts.append(("kept by subsampling (first epoch)", f"{sampled:,} of {kept:,} tokens, {sampled / kept:.1%}"))
    return facts


def zipf(counts: Sequence[int]) -> str:
    """The chart of counts over ranks, both logarithmic; `counts` start with the most frequent word. Empty for fewer than two."""
    if len(counts) < 2:
        return ""
    last = len(counts)
    ranks = sorted({round(math.exp(math.log(last) * place / 80)) for place in range(81)} | {1, last})
    points = [(float(rank), float(counts[rank - 1])) for rank in ranks if 1 <= rank <= last and counts[rank - 1] > 0]
    return line_chart(Curve("Zipf", points, "rank", "occurrences", logarithmic=True), NARROW)


def provenance(summary: Summary) -> tuple[list[tuple[str, object]], list[tuple[str, list[tuple[str, object]]]]]:
    """(facts, folded tables)"""
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
    artefacts = [(f"{name} artefact", get(row, "fingerprint")) for name, row in mapping(summary, "stages").items()]
    folded = [
        ("Configuration", flatten(as_written(mapping(summary, "config")))), ("Software", flatten(mapping(summary, "versions"))),
        ("Artefacts", [(name, value) for name, value in artefacts if value]),
    ]  # fmt: skip
    return [fact for fact in facts if fact[1] is not None], [pair for pair in folded if pair[1]]


def differing_settings(summary: Summary, before: Summary) -> list[tuple[str, object, object]]:
    """(key, before, now) of the settings that differ, except where a run ran and how it was tracked."""
    then, now = (dict(flatten(as_written(mapping(one, "config")))) for one in (before, summary))
    skipped = ("run.workdir", "tracking.", "cluster.", "storage.")
    keys = [key for key in {**then, **now} if not key.startswith(skipped) and then.get(key) != now.get(key)]
    return [(key, then.get(key), now.get(key)) for key in keys]


def counts_of(summary: Summary) -> list[int]:
    """The count of each word, most frequent first; empty if the vectors come without counts."""
    import numpy as np

    path = Path(str(get(summary, "vectors.path", ""))) / "counts.npy"
    try:
        counts: list[int] = np.load(path, allow_pickle=False).tolist()
    except (OSError, ValueError):
        return []
    return counts
