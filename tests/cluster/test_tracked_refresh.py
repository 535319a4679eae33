"""What MLflow shows of a refresh: one run with its stages below it, the corpus as dataset, the alias on the new champion."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.tracked import client_of, is_all_delivered
from tests.pipeline.changing_corpus import ChangingCorpus

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

TRACKED: dict[str, dict[str, object]] = {"tracking": {"enabled": True}, "publish": {"register": "words"}}


@pytest.mark.turns(10, 12, of="tracking")
def test_a_refresh_is_one_run_with_its_stages_below_the_snapshot_as_dataset_and_the_alias_moved(
    workdir: Path, tmp_path: Path
) -> None:
    corpus = ChangingCorpus(tmp_path / "base", seed=1)
    sections = TRACKED | {"run": {"workdir": str(workdir), "name": "changing", "seed": 3}}
    first = corpus.refresh(**sections)
    corpus.add()
    told = corpus.refresh(**sections)
    assert told["status"] == "promoted"
    assert is_all_delivered(workdir)
    client = client_of(workdir)
    experiment = client.get_experiment_by_name("word2vec")
    runs = client.search_runs([experiment.experiment_id])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 2
    (run,) = [run for run in parents if run.data.tags["refresh.start"] == "warm"]
    below = [child for child in runs if child.data.tags.get("mlflow.parentRunId") == run.info.run_id]
    assert {child.info.run_name for child in below} == set(told["stages"])
    assert all(child.info.status == "FINISHED" and child.info.end_time >= child.info.start_time for child in below)
    assert run.inputs.dataset_inputs[0].dataset.digest
    assert run.data.tags["refresh.decision"] == told["decision"]
    versions = {version.version: version.run_id for version in client.search_model_versions("name = 'words'")}
    champion = client.get_model_version_by_alias("words", "champion")
    assert versions[champion.version] == run.info.run_id
    assert first["snapshot"] != told["snapshot"]
