"""`w2v sweep`: a run for every combination of settings, in one workdir, so that shared stages run once.

    train.alpha=.025,.05 train.lanes=1,4      four combinations; text is tokenized once, shards are drawn once

Vectors, scores and pages of all combinations stay in the workdir (`w2v gc` and `w2v prune` remove them). The champion does not
change; to make one of them the champion, run it with `w2v run`.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import RunConfig, load_config
from pipeline.errors import CapacityError, DataError, PipelineError, UsageError
from pipeline.history.gc import SWEEPS
from pipeline.progress import Progress
from pipeline.run import go_through_stages, report_and_track
from pipeline.safety.seals import canonical_json
from pipeline.session import holding, open_session
from pipeline.tracking.tracker import open_tracker

MOST = 1000
PARENT_S = 60.0
"""How long MLflow may take to create the parent run; without it the runs are shown side by side."""


@dataclass(frozen=True)
class Tried:
    """One combination and its result."""

    settings: dict[str, str]
    """The settings that vary, as given."""
    summary: dict[str, Any]
    """Empty for a combination that cannot be trained."""
    problem: PipelineError | None = None

    def row(self) -> dict[str, Any]:
        """Settings, loss, seconds and every score; for a combination that cannot be trained, why."""
        if self.problem:
            return self.settings | {"problem": str(self.problem)}
        evaluation = self.summary.get("evaluation") or {}
        scores = {name: evaluation[name] for name in ("analogy",) if evaluation.get(name) is not None}
        train = self.summary["train"]
        similarity: dict[str, Any] = evaluation.get("similarity", {})
        return self.settings | {"loss": train["final_loss"], "seconds": train["seconds"]} | scores | similarity


def sweep(path: Path, arguments: Sequence[str], progress: Progress) -> list[Tried]:
    """Every combination, trained and scored, in order; one that diverges, or for which the text or the machine is too small, is
    told as such and does not end the others. Raises ConfigError for an invalid one before the first begins, UsageError if nothing
    varies, and the first one's problem if none can be trained."""
    combinations = combine(arguments)
    loaded = [load_config(path, overrides) for overrides in combinations]
    configs = [_named(config, number) for number, config in enumerate(loaded, start=1)]
    varied = [argument.partition("=")[0] for argument in arguments if len(choices(argument)) > 1]
    for key in varied:
        if key in ("run.name", "run.workdir"):
            raise UsageError(f"sweep: {key} cannot vary; all combinations share one workdir and have numbers for names")
    seen: dict[str, tuple[str, ...]] = {}
    for config, overrides in zip(loaded, combinations, strict=True):
        if (before := seen.setdefault(config.digest, overrides)) is not overrides:
            raise UsageError(f"sweep: {' '.join(before)} and {' '.join(overrides)} would be the same run; give every value once")
    tried = list[Tried]()
    with holding(configs[0]):
        parent = _parent(configs, varied)
        for config, overrides in zip(configs, combinations, strict=True):
            settings = {key: value for key, _, value in (override.partition("=") for override in overrides) if key in varied}
            progress.line("sweep: " + ", ".join(f"{key} = {value}" for key, value in settings.items()))
            try:
                tried.append(Tried(settings, _try(config, settings, parent, progress)))
            except (DataError, CapacityError) as error:
                progress.line(f"sweep: {error}")
                tried.append(Tried(settings, {}, error))
    problems = [one.problem for one in tried if one.problem]
    if len(problems) == len(tried):
        raise problems[0]
    return tried


def _try(config: RunConfig, settings: dict[str, str], parent: str | None, progress: Progress) -> dict[str, Any]:
    """The summary of one combination."""
    with open_session(config, "evaluate", None, progress) as session:
        go_through_stages(session, "evaluate")
        if session.tracker and parent:
            session.tracker.set_tags({"mlflow.parentRunId": parent})
        place = config.workdir / SWEEPS / config.digest[:12]
        return report_and_track(session, place, {"sweep": settings}, register=False)


def combine(arguments: Sequence[str]) -> list[tuple[str, ...]]:
    """The overrides of every combination, the last argument varying fastest."""
    found = list(itertools.product(*map(choices, arguments)))
    if len(found) < 2:
        raise UsageError("sweep: nothing varies; give values with commas, for example train.alpha=.025,.05")
    if len(found) > MOST:
        raise UsageError(f"sweep: {len(found):,} combinations, but at most {MOST:,} are allowed; vary fewer values")
    return found


def choices(argument: str) -> list[str]:
    """The overrides that an argument stands for, one per value; commas inside brackets or quotes do not separate values."""
    key, equals, text = argument.partition("=")
    values, depth, quote = [""], 0, ""
    for character in text:
        if character == "," and not depth and not quote:
            values.append("")
            continue
        values[-1] += character
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        depth += (character in "[{") - (character in "]}")
    return [f"{key}{equals}{value.strip()}" for value in values]


def _named(config: RunConfig, number: int) -> RunConfig:
    """The same configuration under its own name, in the common workdir."""
    update = {"name": f"{config.run.name[:56]}.{number}", "workdir": config.run.workdir or str(config.workdir)}
    return config.model_copy(update={"run": config.run.model_copy(update=update)})


def _parent(configs: Sequence[RunConfig], varied: Sequence[str]) -> str | None:
    """The id of the parent MLflow run of all combinations; None if nothing is tracked or MLflow cannot be reached."""
    first = configs[0]
    if not first.tracking.enabled:
        return None
    digest = hashlib.sha256(canonical_json([config.digest for config in configs])).hexdigest()
    name = f"{first.run.name.rpartition('.')[0]} sweep"
    tracker = open_tracker(first.tracking, first.workdir, run_name=name, config_digest=digest)
    tracker.start({"sweep": " ".join(varied), "sweep.combinations": len(configs)}, {})
    return tracker.finish("FINISHED", timeout_s=PARENT_S).run_id


def table(tried: Sequence[Tried]) -> list[str]:
    """The lines of a table with one row per combination, the best score in each column marked."""
    rows = [one.row() for one in tried]
    columns = list(dict.fromkeys(key for row in rows for key in row if key != "problem"))
    settings = set(tried[0].settings)
    best = {column: _best(column, rows) for column in columns if column not in settings and column != "seconds"}
    shown = [[_shown(row.get(column), row.get(column) == best.get(column, row)) for column in columns] for row in rows]
    widths = [max(len(line[index]) for line in [columns, *shown]) for index in range(len(columns))]
    return ["  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)) for line in [columns, *shown]]


def _best(column: str, rows: Sequence[dict[str, Any]]) -> Any:
    found = [row[column] for row in rows if row.get(column) is not None]
    return min(found, default=None) if column == "loss" else max(found, default=None)


def _shown(value: Any, is_best: bool) -> str:
    text = "–" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
    return f"{text} *" if is_best and value is not None else f"{text}  "
