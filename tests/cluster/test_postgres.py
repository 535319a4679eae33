"""MLflow on PostgreSQL, both real: two runs at once, each with its own live curve and its own version in the registry."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import parse_config
from pipeline.tracking.aliases import promote
from tests.cluster.disturbed import end_of, environment_with, stopped_at
from tests.cluster.postgres_site import postgres
from tests.cluster.test_live_tracking import Server, server_answers
from tests.cluster.test_tracking_servers import kill_server
from tests.cluster.tracked import deliver_the_rest, fastest_s, wait_for
from tests.exposure import files_with, shown_by_ps
from tests.ports import free_port
from tests.tiny import tiny_config, write_corpus

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]
TRAIN: dict[str, object] = {"vector_size": 16, "epochs": 4, "lanes": 2, "checkpoint_every": 6_000}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """An `mlflow server` on PostgreSQL that gets the address as in infra/compose: never on a command line."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--artifacts-destination", str(tmp_path / "artefacts"), "-w", "2"]
    with postgres() as address, (tmp_path / "server.log").open("wb") as log:
        environment = os.environ | {"MLFLOW_BACKEND_STORE_URI": address, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
        try:
            server = Server(port)
            wait_for(lambda: server_answers(server), 180)
            password = address.split(":")[2].partition("@")[0]
            assert shown_by_ps(password) == []
            yield server
            assert files_with(password, tmp_path) == []
        finally:
            kill_server(process)


def curve(server: Server, run: Any) -> list[tuple[int, float]]:
    found = server.ask(f"metrics/get-history?run_id={run['info']['run_id']}&metric_key=train/loss&max_results=5000")
    return [(int(point["step"]), point["value"]) for point in found.get("metrics", [])]


@pytest.mark.turns(10, 16, of="tracking")
def test_two_runs_at_once_show_their_own_curves_live_and_both_enter_the_registry(server: Server, tmp_path: Path) -> None:
    inputs = write_corpus(tmp_path / "corpus")
    trees = {name: tiny_config(tmp_path / "runs" / name, inputs, train=TRAIN, publish={"register": "words"}) for name in "ab"}
    drivers, tokens = {}, {name: tmp_path / f"stopped-{name}" for name in trees}
    for seed, (name, tree) in enumerate(trees.items()):
        tree |= {"run": {"name": name, "workdir": str(tmp_path / "runs" / name), "seed": seed}, "cluster": {}}
        tree["tracking"] = {"uri": server.address}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(tree))
        command = [sys.executable, "-m", "pipeline.cli", "run", str(tmp_path / f"{name}.yaml"), "--json"]
        drivers[name] = subprocess.Popen(
            command, env=environment_with(f"round:7.0=stop,{tokens[name]}"), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, start_new_session=True,
        )  # fmt: skip
    for name, driver in drivers.items():
        stopped_at(tokens[name], driver)
    # Both are stopped in the middle of training: what is visible now was sent while they worked.
    wait_for(lambda: len(server.runs()) == 2 and all(len(curve(server, run)) >= 3 for run in server.runs()), 90)
    seen = {run["info"]["run_name"]: curve(server, run) for run in server.runs()}
    for driver in drivers.values():
        os.kill(driver.pid, signal.SIGCONT)
    summaries = {name: end_of(driver).summary for name, driver in drivers.items()}
    for name, summary in summaries.items():
        deliver_the_rest(summary, tmp_path / f"{name}.yaml")
    runs = {run["info"]["run_id"]: run for run in server.runs()}
    assert len(runs) == 2
    for name, summary in summaries.items():
        run = runs[summary["mlflow"]["run_id"]]
        assert (run["info"]["run_name"], run["info"]["status"]) == (name, "FINISHED")
        points = {point[0]: point[1] for record in summary["train"]["rounds"] for point in record["points"]}
        found = curve(server, run)
        assert len(found) == len(points)
        assert dict(found) == points
        assert found[: len(seen[name])] == seen[name]
    assert {summary["vectors"]["sha256"] for summary in summaries.values()}.__len__() == 2
    assert str(promote(parse_config(trees["a"]), "1", "the first")) == "champion is version 1"
    assert fastest_s([lambda: promote(parse_config(trees["a"]), "1", "once more")] * 4) < 2
    model = server.ask("registered-models/get?name=words")["registered_model"]
    assert {(one["alias"], one["version"]) for one in model["aliases"]} == {("champion", "1"), ("challenger", "2")}
    versions = server.ask("model-versions/search?filter=" + "name%3D%27words%27")["model_versions"]
    assert sorted(one["run_id"] for one in versions) == sorted(runs)
    assert json.dumps(versions).count('"READY"') == 2
