"""What a run reports to MLflow, and when: its settings once the corpus is known, points while it trains, the scores at the end.

Every curve has kept tokens as its step, so runs with other corpora, lanes and rounds can be overlaid. A single value is logged
once, at step 0 and without a slash in its name: MLflow's page of a run then opens with the curves, followed by bars for the
single values, and every score is a column in the table of runs.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import RunConfig
from pipeline.exchange.host import user_name
from pipeline.tracking.card import model_card
from pipeline.tracking.spool import without_credentials
from pipeline.tracking.tracker import Dataset, Tracker
from pipeline.training.history import RoundRecord, epoch_loss, kept_tokens

if TYPE_CHECKING:
    from pipeline.store import Artefact
    from pipeline.training.live import Live
    from pipeline.training.stretches import Point

TRACKED_SECTIONS = ("corpus", "tokenize", "vocab", "shards", "train", "evaluate", "publish")
REFRESH_TAGS = ("status", "decision", "start", "parent")
DATASET_CHARACTERS = 200
_UNTOLD = re.compile(r"((?:cluster\.options|refresh\.on_finish)[^=]*=).*", re.DOTALL)
"""Overrides whose values `RunConfig.told` leaves out, too."""


# ── at the start ─────────────────────────────────────────────────────────────────────────────────────────────────────


def tell_start(tracker: Tracker, config: RunConfig, tokens: Artefact, words: Artefact) -> None:
    """Reports the settings, the dataset and the origin of the run."""
    totals, size = tokens.manifest.totals, words.manifest.totals["size"]
    tracker.start(
        config_params(config) | {"vocab.words": size, "corpus.tokens": totals["tokens"]},
        {"tokens": tokens.fingerprint, "vocab": words.fingerprint} | source_tags(),
        Dataset(
            dataset_name(config), tokens.fingerprint, ", ".join(config.corpus.inputs),
            {"tokens": totals["tokens"], "sentences": totals["sentences"], "words": size},
        ),
    )  # fmt: skip
    tracker.set_tags({"mlflow.note.content": model_card(config, {"corpus": dict(totals), "vocab": {"size": size}})})


def source_tags() -> dict[str, str]:
    """The tags that MLflow shows as "Source" and "Created by"."""
    tags = {"mlflow.source.name": command_line(), "mlflow.source.type": "LOCAL", "mlflow.user": user_name()}
    return tags


def command_line() -> str:
    """The command that started this process, as one would type it, without what may be a secret: user names and passwords in
    addresses, the values of settings that no report shows, and the arguments of other programs."""
    name = Path(sys.argv[0]).name
    first = {"cli.py": "w2v", "-c": "python", "-m": "python", "": "python"}.get(name, name)
    shown = [_UNTOLD.sub(r"\1…", argument) for argument in sys.argv[1:]] if first == "w2v" else []
    return without_credentials(shlex.join([first, *shown]))


def dataset_name(config: RunConfig) -> str:
    """A readable name of the corpus: the names of its first two inputs without their folders, and how many more there are."""
    names = [os.path.basename(text.rstrip("/")) or text for text in config.corpus.inputs]
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return (", ".join(names[:2]) + more)[:DATASET_CHARACTERS]


def config_params(config: RunConfig) -> dict[str, str | int | float | None]:
    """The settings that decide the result, as `section.key`. Free-form options stay out: they may hold a secret."""
    fields = config.model_dump(mode="json", by_alias=True)
    params: dict[str, str | int | float | None] = {"run.seed": config.run.seed}
    for section in TRACKED_SECTIONS:
        for key, value in fields[section].items():
            if not isinstance(value, dict):
                params[f"{section}.{key}"] = " ".join(map(str, value)) if isinstance(value, list) else value
    return params


# ── while it trains ──────────────────────────────────────────────────────────────────────────────────────────────────


def tell_live(tracker: Tracker, live: Live, history: Sequence[RoundRecord]) -> None:
    """Reports a round in progress; `history` holds the rounds before it."""
    _tell_points(tracker, live.points)
    if live.points:
        merged = sum(record.merge_seconds for record in history) + live.merge_seconds
        tracker.log(live.kept_tokens, {"train/tokens_per_s": live.raw_tokens_per_s, "train/merge_seconds": merged})
    for load in live.loads:
        values = {
            "cpu_percent": load.cpu_percent, "memory_bytes": load.memory_bytes, "tokens_per_s": load.tokens_per_s,
            "waiting_share": load.waiting_share, "gpu_memory_bytes": load.gpu_memory_bytes,
        }  # fmt: skip
        known = {f"system/worker {load.worker}/{name}": value for name, value in values.items() if value is not None}
        tracker.log(live.kept_tokens, known)


def tell_round(tracker: Tracker, record: RoundRecord, history: Sequence[RoundRecord]) -> None:
    """Reports a finished round; `history` holds all rounds so far, including this one. Points already reported are skipped."""
    _tell_points(tracker, record.points)
    values = {"train/tokens_per_s": record.raw_tokens / max(record.seconds, 1e-9), "train/round_loss": record.loss}
    if record.merges:
        values["train/merge_seconds"] = sum(earlier.merge_seconds for earlier in history)
        values["train/merged_bytes"] = sum(earlier.merged_bytes for earlier in history)
    if (record.round + 1) % record.rounds_an_epoch == 0:
        values["train/epoch_loss"] = epoch_loss(history, record.epoch)
    tracker.log(kept_tokens(history), values)


def _tell_points(tracker: Tracker, points: Sequence[Point]) -> None:
    for point in points:
        values = {"train/loss": point.loss, "train/alpha": point.alpha, "train/lane_spread": point.spread}
        tracker.log(point.kept_tokens, {name: value for name, value in values.items() if value is not None})


# ── at the end ───────────────────────────────────────────────────────────────────────────────────────────────────────


def tell_results(tracker: Tracker, config: RunConfig, summary: Mapping[str, Any]) -> None:
    """Reports scores, times, the vectors and the report; registers a new version if the configuration names a model."""
    vectors, card = Path(summary["vectors"]["path"]), model_card(config, summary)
    tracker.log(0, dict(single_values(summary)))
    tracker.set_tags({"vectors.sha256": summary["vectors"]["sha256"], "mlflow.note.content": card})
    if refreshed := summary.get("refresh"):
        tracker.set_tags({f"refresh.{key}": str(refreshed[key]) for key in REFRESH_TAGS if refreshed.get(key)})
        tell_stages(tracker, summary)
    report = Path(summary["report"])
    tracker.artifact(report, "report")
    if (figures := report.with_name("figures")).is_dir():
        tracker.artifact(figures, "figures")
    if config.publish.register_as and "publish" in summary["stages"]:
        tracker.register(config.publish.register_as, vectors, card)
    else:
        tracker.artifact(vectors, "vectors")


def tell_stages(tracker: Tracker, summary: Mapping[str, Any]) -> None:
    """Reports each stage that was not reused as a child run of the refresh."""
    for name, row in summary["stages"].items():
        if row["cached"]:
            continue
        started = round(row["started"] * 1000)
        figures = {key: float(row[key]) for key in ("seconds", "tokens", "tokens_per_s", "bytes") if row.get(key) is not None}
        tags = {"fingerprint": row["fingerprint"], "stage": name}
        tracker.stage(name, started, started + round(row["seconds"] * 1000), figures, tags)


def single_values(summary: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """(name, value) of every figure of a run that is a single number."""
    for name, row in summary["stages"].items():
        yield f"stage.{name}_seconds", row["seconds"]
    for key in ("final_loss", "raw_tokens_per_s"):
        yield f"train.{key}", summary["train"][key]
    for key in ("worker_bytes", "shared_bytes_a_host", "driver_bytes", "disk_bytes"):
        if summary["train"].get("memory"):
            yield f"memory.{key}", summary["train"]["memory"][key]
    evaluation = summary.get("evaluation", {})
    scores = {f"eval.{key}": evaluation.get(key) for key in ("analogy", "semantic", "syntactic", "coverage")}
    scores |= {f"eval.similarity.{name}": value for name, value in evaluation.get("similarity", {}).items()}
    analogies = evaluation.get("sets", {}).get("analogy", {})
    scores |= {f"eval.analogy.{name}": found["analogy"] for name, found in analogies.items()}
    yield from ((name, value) for name, value in scores.items() if value is not None)
