"""`w2v ui` opens on the runs of the experiment with a column for every score, and on MLflow's first page where it cannot."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

from pipeline.tracking.start_page import TAG, start_page

TABLES = """
CREATE TABLE experiments (experiment_id INTEGER, name TEXT, lifecycle_stage TEXT);
CREATE TABLE experiment_tags (key TEXT, value TEXT, experiment_id INTEGER, PRIMARY KEY (key, experiment_id));
CREATE TABLE runs (run_uuid TEXT, experiment_id INTEGER);
CREATE TABLE latest_metrics (key TEXT, run_uuid TEXT);
INSERT INTO experiments VALUES (7, 'words', 'active'), (8, 'gone', 'deleted');
INSERT INTO runs VALUES ('a', 7), ('b', 8);
INSERT INTO latest_metrics VALUES ('eval.analogy', 'a'), ('eval.similarity.ws', 'a'), ('train/loss', 'a'), ('eval.other', 'b');
"""


def database_of(folder: Path) -> Path:
    path = folder / "mlflow.db"
    with sqlite3.connect(path) as opened:
        opened.executescript(TABLES)
    opened.close()
    return path


def test_the_link_names_the_experiment_and_the_columns_are_its_scores(tmp_path: Path) -> None:
    path = database_of(tmp_path)
    for _ in range(2):
        page = start_page(path, "words")
    assert page == "/#/experiments/7/runs?viewStateShareKey=w2v&workflowType=machine_learning"
    with sqlite3.connect(path) as opened:
        ((value, experiment_id),) = opened.execute("SELECT value, experiment_id FROM experiment_tags WHERE key = ?", (TAG,))
    opened.close()
    assert experiment_id == 7
    columns = json.loads(value)["selectedColumns"]
    metrics = [column for column in columns if column.startswith("metrics.")]
    assert metrics == ["metrics.`eval.analogy`", "metrics.`eval.similarity.ws`", "metrics.`train.final_loss`"]
    assert "attributes.`Source`" in columns


def test_without_the_experiment_or_with_another_database_it_is_the_first_page(tmp_path: Path) -> None:
    path = database_of(tmp_path)
    assert start_page(path, "gone") == "/"
    assert start_page(path, "never made") == "/"
    assert start_page(tmp_path / "absent.db", "words") == "/"
    (tmp_path / "text.db").write_text("this is no database, and long enough to be read as one" * 100)
    assert start_page(tmp_path / "text.db", "words") == "/"
