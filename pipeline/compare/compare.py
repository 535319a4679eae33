"""The differences between results, as plain data; the others are compared with the first.

settings    {key: [value of each side]} of those that differ, and `text`: what the corpora hold, if they differ
scores      [{test, measure, score: […], coverage: […]}]
seconds     {stage: [seconds of each side, None if it was reused or is not known]}
words       for each later side: the number of common words, the mean overlap of neighbourhoods, and the words that moved most
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.compare.sides import Side
from pipeline.options.paths import portable
from pipeline.refresh.stability import NEIGHBOURS, common_words, neighbour_shares, words_moved
from pipeline.report.results import STAGES, Summary, evaluation_rows, flatten, get, is_number, mapping
from pipeline.safety.values import as_written

FORMAT_VERSION = 1
INPUTS = "corpus.inputs"
MOST_MOVED = 15
NOT_SETTINGS = ("run.workdir", "run.name", "tracking.", "cluster.", "storage.", "publish.")
"""Keys that do not affect vectors: where a run ran, how it was tracked, and how it was published."""


def compare(sides: Sequence[Side]) -> dict[str, Any]:
    """The whole comparison, for JSON, the terminal and the page."""
    first, *others = sides
    return {
        "format_version": FORMAT_VERSION,
        "sides": [_about(side) for side in sides],
        "settings": differing(sides),
        "scores": scores([side.summary for side in sides]),
        "seconds": seconds([side.summary for side in sides]),
        "words": [neighbourhoods(first, other) for other in others],
    }


def _about(side: Side) -> dict[str, Any]:
    return {
        "name": side.name, "source": side.source, "words": len(side.vectors), "vector_size": side.vectors.vector_size,
        "run_id": get(side.summary, "run_id"), "made": get(side.summary, "made.at"), "tokens": get(side.summary, "corpus.tokens"),
        "final_loss": get(side.summary, "train.final_loss"), "tokens_per_s": get(side.summary, "train.raw_tokens_per_s"),
    }  # fmt: skip


def differing(sides: Sequence[Side]) -> dict[str, list[object]]:
    """The settings that differ and, as `text`, what the corpora hold: inputs are no difference if their text is the same, while
    files of the same names may have changed."""
    found = differing_settings([side.summary for side in sides])
    texts = {side.text for side in sides if side.summary}
    if len(texts) == 1 and None not in texts:
        found.pop(INPUTS, None)
    elif texts and None not in texts:
        found["text"] = [side.text for side in sides]
    return found


def differing_settings(summaries: Sequence[Summary]) -> dict[str, list[object]]:
    """The settings whose values differ; None for a side without the key, made by another program or version. Paths other than the
    inputs differ unless they are the same, or the same from the folders of both configurations."""
    settings = [dict(flatten(as_written(mapping(summary, "config")))) for summary in summaries]
    from_folders = [dict(flatten(as_written(_from_folder(summary)))) for summary in summaries]
    keys = {key: None for each in settings for key in each if not key.startswith(NOT_SETTINGS)}
    return {
        key: [each.get(key) for each in settings]
        for key in keys
        if _differs(key, settings) and (key == INPUTS or _differs(key, from_folders))
    }


def _differs(key: str, settings: Sequence[Mapping[str, object]]) -> bool:
    return len({repr(each[key]) for each in settings if key in each}) > 1


def _from_folder(summary: Summary) -> Mapping[str, Any]:
    folder, config = summary.get("folder"), mapping(summary, "config")
    return portable(config, Path(folder)) if isinstance(folder, str) else config


def scores(summaries: Sequence[Summary]) -> list[dict[str, Any]]:
    """Every score that any side has."""
    found = [{(test, measure): (score, known) for test, measure, score, known in evaluation_rows(each)} for each in summaries]
    tests = {test: None for each in found for test in each}
    return [
        {
            "test": test, "measure": measure, "score": [each.get((test, measure), (None, None))[0] for each in found],
            "coverage": [each.get((test, measure), (None, None))[1] for each in found],
        }
        for test, measure in tests
    ]  # fmt: skip


def seconds(summaries: Sequence[Summary]) -> dict[str, list[float | None]]:
    """The seconds each stage took; for training, of all its rounds, including those of earlier runs."""
    rows: dict[str, list[float | None]] = {}
    for stage in STAGES:
        row = []
        for summary in summaries:
            took = None if get(summary, f"stages.{stage}.cached") else get(summary, f"stages.{stage}.seconds")
            took = get(summary, "train.seconds", took) if stage == "train" else took
            row.append(round(float(took), 3) if is_number(took) else None)
        if any(value is not None for value in row):
            rows[stage] = row
    return rows


def neighbourhoods(first: Side, other: Side) -> dict[str, Any]:
    """How the other side's neighbourhoods differ from the first's, over their common words."""
    common = common_words(first.vectors, other.vectors)
    found: dict[str, Any] = {"first": first.name, "other": other.name, "common": len(common.words), "overlap": None, "moved": []}
    found |= dict(words_moved(first.vectors, other.vectors))
    shares = neighbour_shares(first.vectors, other.vectors, common)
    if len(shares) == 0:
        return found
    found |= {"asked": len(shares), "overlap": float(shares.mean()), "neighbours": NEIGHBOURS}
    # A stable sort puts the more frequent of two words that moved equally far first.
    for place in np.argsort(shares, kind="stable")[:MOST_MOVED]:
        if shares[place] >= 1:
            break
        word = common.words[int(place)]
        found["moved"].append({
            "word": word, "kept": float(shares[place]),
            "before": _near(first, word), "now": _near(other, word),
        })  # fmt: skip
    return found


def _near(side: Side, word: str, most: int = 5) -> list[str]:
    return [found for found, _ in side.vectors.most_similar(word, topn=most)]


def is_same(found: Mapping[str, Any]) -> bool:
    """Whether nothing differs: no setting, score, word or neighbour, nor the size of vectors whose settings are not known."""
    same_scores = all(len({repr(score) for score in row["score"]}) == 1 for row in found["scores"])
    same_sizes = len({(side["words"], side["vector_size"]) for side in found["sides"]}) == 1
    return not found["settings"] and same_scores and same_sizes and all(words["overlap"] == 1.0 for words in found["words"])
