"""The start page of `w2v ui`: the table of runs of the configured experiment, with a column for every score.

MLflow 3 opens an experiment in its view of traces, and its table of runs shows no metrics by default. A link can set both: the
view through `workflowType`, the columns through the key of a shared view, whose content is a tag of the experiment.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

VIEW = "w2v"
TAG = f"mlflow.sharedViewState.{VIEW}"
ATTRIBUTES = ("Created", "Dataset", "Source", "Models")
"""Kept few, because MLflow shows them before the scores."""
MOST_SCORES = 12


def start_page(database: Path, experiment: str) -> str:
    """The path of the page; MLflow's home page if there is no such experiment yet or the database cannot be used."""
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=rw", uri=True, timeout=5)) as opened, opened:
            found = opened.execute(
                "SELECT experiment_id FROM experiments WHERE name = ? AND lifecycle_stage = 'active'", (experiment,)
            ).fetchone()
            if found is None:
                return "/"
            columns = [f"attributes.`{name}`" for name in ATTRIBUTES]
            columns += [f"metrics.`{name}`" for name in _scores(opened, found[0])]
            state = {
                "selectedColumns": columns, "runsExpanded": {}, "runsPinned": [], "runsHidden": [], "runListHidden": False,
                "viewMaximized": False,
            }  # fmt: skip
            opened.execute(
                "INSERT OR REPLACE INTO experiment_tags (key, value, experiment_id) VALUES (?, ?, ?)",
                (TAG, json.dumps(state), found[0]),
            )
    except sqlite3.Error:
        return "/"
    return f"/#/experiments/{found[0]}/runs?viewStateShareKey={VIEW}&workflowType=machine_learning"


def _scores(opened: sqlite3.Connection, experiment_id: int) -> list[str]:
    """The names of the scores of the experiment's runs, and of their final loss."""
    found = opened.execute(
        "SELECT DISTINCT m.key FROM latest_metrics m JOIN runs r ON r.run_uuid = m.run_uuid "
        "WHERE r.experiment_id = ? AND m.key LIKE 'eval.%' ORDER BY m.key LIMIT ?",
        (experiment_id, MOST_SCORES),
    )
    return [*(name for (name,) in found), "train.final_loss"]
