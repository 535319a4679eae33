"""What a run tells MLflow, and when: its settings when the corpus is known, a row a round, the scores at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import RunConfig
from pipeline.tracking.tracker import Dataset, Tracker
from pipeline.training.history import RoundRecord, epoch_loss

if TYPE_CHECKING:
    from pipeline.store import Artefact

TRACKED_SECTIONS = ("corpus", "tokenize", "vocab", "shards", "train", "evaluate", "publish")


def tell_start(tracker: Tracker, config: RunConfig, tokens: Artefact, words: Artefact) -> None:
    """What is trained, and on what."""
    tracker.start(
        config_params(config) | {"vocab.words": words.manifest.totals["size"], "corpus.tokens": tokens.manifest.totals["tokens"]},
        {"tokens": tokens.fingerprint, "vocab": words.fingerprint},
        Dataset(config.run.name, tokens.fingerprint, ", ".join(config.corpus.inputs)),
    )


def config_params(config: RunConfig) -> dict[str, str | int | float | None]:
    """The settings that decide the result, as `section.key`. Free-form options stay out: they may hold a secret."""
    fields = config.model_dump(mode="json", by_alias=True)
    params: dict[str, str | int | float | None] = {"run.seed": config.run.seed}
    for section in TRACKED_SECTIONS:
        for key, value in fields[section].items():
            if not isinstance(value, dict):
                params[f"{section}.{key}"] = " ".join(map(str, value)) if isinstance(value, list) else value
    return params


def tell_round(tracker: Tracker, record: RoundRecord, history: Sequence[RoundRecord]) -> None:
    """A round is over; `history` are the rounds so far, this one included."""
    for kept_tokens, loss in record.points:
        tracker.log(kept_tokens, {"train/loss": loss})
    tracker.log(
        record.round,
        {
            "train/round_loss": record.loss,
            "train/alpha": record.alpha,
            "train/epoch": record.epoch,
            "train/tokens_per_s": record.raw_tokens / max(record.seconds, 1e-9),
            "train/kept_tokens": record.kept_tokens,
            "train/merged_bytes": record.merged_bytes,
            "train/merge_seconds": record.merge_seconds,
        },
    )
    if (record.round + 1) % record.rounds_an_epoch == 0:
        tracker.log(record.epoch + 1, {"train/epoch_loss": epoch_loss(history, record.epoch)})


def tell_results(tracker: Tracker, config: RunConfig, summary: Mapping[str, Any]) -> None:
    """Scores, times, the vectors and the report; a new version in the registry where the configuration names a model."""
    tracker.log(len(summary["train"]["rounds"]), _result_metrics(summary))
    tracker.set_tags({"vectors.sha256": summary["vectors"]["sha256"]})
    tracker.artifact(Path(summary["vectors"]["path"]), "vectors")
    tracker.artifact(Path(summary["report"]), "report")
    if config.publish.register_as and "publish" in summary["stages"]:
        tracker.register(config.publish.register_as, Path(summary["vectors"]["path"]))


def _result_metrics(summary: Mapping[str, Any]) -> dict[str, float]:
    metrics = {f"stage/{name}_seconds": row["seconds"] for name, row in summary["stages"].items()}
    metrics |= {f"train/{key}": summary["train"][key] for key in ("final_loss", "raw_tokens_per_s")}
    if memory := summary["train"]["memory"]:
        metrics |= {f"memory/{key}": memory[key] for key in ("worker_bytes", "shared_bytes_a_host", "driver_bytes", "disk_bytes")}
    evaluation = summary.get("evaluation", {})
    scores = {f"eval/{key}": evaluation.get(key) for key in ("analogy", "semantic", "syntactic", "coverage")}
    scores |= {f"eval/similarity/{name}": value for name, value in evaluation.get("similarity", {}).items()}
    return metrics | {name: value for name, value in scores.items() if value is not None}
