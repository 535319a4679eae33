"""What MLflow shows of a sweep: one run, and below it a run for each combination, with its settings, curve and scores."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pipeline.progress import Progress
from pipeline.sweep.sweep import sweep
from tests.cluster.tracked import all_runs, client_of, is_all_delivered, steps_of
from tests.tiny import tiny_config, write_corpus

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


@pytest.mark.turns(10, 12, of="tracking")
def test_the_runs_of_a_sweep_lie_below_one_run_each_with_its_own_settings_curve_and_loss(tmp_path: Path) -> None:
    tree = tiny_config(tmp_path / "work", write_corpus(tmp_path / "corpus", 400), tracking={"enabled": True})
    tree["cluster"] = {}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tree))
    tried = sweep(tmp_path / "tiny.yaml", ["train.alpha=.02,.05"], Progress(quiet=True))

    assert is_all_delivered(tmp_path / "work")
    client = client_of(tmp_path / "work")
    found = {run.info.run_id: run for run in all_runs(client)}
    assert len(found) == 3
    # By their settings: on a busy machine a run may end before MLflow has given it an id.
    below = {float(run.data.params["train.alpha"]): run for run in found.values() if "train.alpha" in run.data.params}
    children = [below[alpha] for alpha in (0.02, 0.05)]
    told = [one.summary["mlflow"]["run_id"] for one in tried]
    assert all(run_id in (None, run.info.run_id) for run_id, run in zip(told, children, strict=True))
    parents = {run.data.tags["mlflow.parentRunId"] for run in children}
    assert parents == found.keys() - {run.info.run_id for run in children}
    (parent,) = (found[run_id] for run_id in parents)
    assert (parent.info.status, parent.data.params["sweep"]) == ("FINISHED", "train.alpha")
    for one, run, alpha in zip(tried, children, (0.02, 0.05), strict=True):
        assert run.info.status == "FINISHED"
        assert float(one.settings["train.alpha"]) == alpha
        assert run.data.metrics["train.final_loss"] == pytest.approx(one.summary["train"]["final_loss"])
        assert steps_of(client, run.info.run_id)

    again = sweep(tmp_path / "tiny.yaml", ["train.alpha=.02,.05"], Progress(quiet=True))
    assert [one.summary["mlflow"]["run_id"] for one in again] == [run.info.run_id for run in children]
    assert len(all_runs(client)) == 3
