"""A real run and a real `mlflow server`, whose REST API is queried during training; the driver is killed halfway."""

from __future__ import annotations

import fnmatch
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import RunConfig, parse_config
from pipeline.errors import InputError
from pipeline.tracking.aliases import promote, roll_back
from pipeline.tracking.metrics import METRICS
from pipeline.tracking.moves import parse_moves
from tests.cluster.test_tracking_servers import kill_server, start_server
from tests.cluster.tracked import deliver_the_rest, fastest_s, wait_for
from tests.exposure import beyond_loopback, files_with, listening, shown_by_ps
from tests.ports import free_port
from tests.tiny import tiny_config, write_corpus

pytestmark = pytest.mark.filterwarnings("default")

PASSWORD = "correct-horse-battery"
TRAIN = {"vector_size": 16, "epochs": 4, "lanes": 2, "checkpoint_every": 6_000}


class Server:
    """MLflow's REST API, as any client sees it."""

    def __init__(self, port: int, experiment: str = "word2vec", host: str = "127.0.0.1") -> None:
        self.address, self.experiment = f"http://{host}:{port}", experiment

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.address}/api/2.0/mlflow/{path}", data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())

    def runs(self) -> list[Any]:
        try:
            found = self.ask("experiments/search?max_results=10")["experiments"]
            ids = [experiment["experiment_id"] for experiment in found if experiment["name"] == self.experiment]
            return list(self.ask("runs/search", {"experiment_ids": ids}).get("runs", [])) if ids else []
        except urllib.error.URLError:
            return []

    def curve(self, name: str) -> list[tuple[int, float]]:
        """(step, value) of every point of the only run's metric."""
        runs = self.runs()
        if not runs:
            return []
        (run,) = runs
        found = self.ask(f"metrics/get-history?run_id={run['info']['run_id']}&metric_key={name}&max_results=5000")
        return [(int(point["step"]), point["value"]) for point in found.get("metrics", [])]


@pytest.mark.slow
@pytest.mark.turns(10, 32, of="tracking")
def test_a_server_shows_the_loss_while_a_run_trains_and_one_whole_curve_after_the_driver_was_killed(workdir: Path) -> None:
    port = free_port()
    config = tiny_config(workdir, write_corpus(workdir.parent / "corpus"), train=TRAIN, publish={"register": "words"})
    config["tracking"] = {"uri": f"http://ann:{PASSWORD}@127.0.0.1:{port}"}
    file = workdir.parent / "run.yaml"
    file.write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "pipeline.cli", "run", str(file), "--quiet"]
    process_server = start_server(workdir.parent, port)
    server, driver = Server(port), None
    try:
        wait_for(lambda: server_answers(server), 180)
        watch_a_run_that_nobody_stops(Server(port, "free"), config, workdir.parent / "free")
        # The driver stops itself before its eighth round, so that there is time to look, however fast the machine is.
        token = workdir.parent / "stopped"
        frozen = os.environ | {"W2V_FAILPOINT": f"round:7.0=stop,{token}"}
        driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True, env=frozen)
        wait_for(lambda: token.exists() and len(server.curve("train/loss")) >= 3, 90)
        assert driver.poll() is None
        assert len(listening(driver.pid)) >= 3, "the scheduler and two workers"
        assert beyond_loopback(driver.pid) == []
        assert shown_by_ps(PASSWORD) == []
        seen = server.curve("train/loss")
        assert [step for step, _ in seen] == sorted({step for step, _ in seen})
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
        done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=90)
        assert done.returncode == 0, done.stderr
        summary = json.loads(done.stdout)
        deliver_the_rest(summary, file)
        (run,) = server.runs()
        assert run["info"]["run_id"] == summary["mlflow"]["run_id"]
        assert run["info"]["status"] == "FINISHED"
        points = {point[0]: point[1] for record in summary["train"]["rounds"] for point in record["points"]}
        found = server.curve("train/loss")
        assert len({step for step, _ in found}) == len(found), "a point came twice"
        assert dict(found) == points
        assert found[: len(seen)] == seen, "what was shown while it trained is what is there in the end"
        check_what_people_see(run, config)
        move_champion(server, parse_config(config))
        assert files_with(PASSWORD, workdir.parent) == [file], "neither workdir nor report nor what MLflow keeps"
        assert files_with("PRIVATE KEY", workdir.parent) == []
        assert PASSWORD not in done.stdout + done.stderr
    finally:
        if driver is not None:
            driver.kill()
            driver.wait()
        kill_server(process_server)


def watch_a_run_that_nobody_stops(server: Server, config: dict[str, Any], workdir: Path) -> None:
    """A driver that trains as fast as it can, for longer than anyone looks: its loss curve grows under the reader's eyes."""
    train = TRAIN | {"epochs": 20_000, "vector_size": 100, "checkpoint_every": None}
    tracking = config["tracking"] | {"experiment": "free"}
    free = config | {"run": {"name": "free", "workdir": str(workdir)}, "train": train, "tracking": tracking, "publish": {}}
    file = workdir.parent / "free.yaml"
    file.write_text(yaml.safe_dump(free))
    command = [sys.executable, "-m", "pipeline.cli", "run", str(file), "--quiet"]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        seen: list[list[tuple[int, float]]] = [[]]

        def has_grown() -> bool:
            assert driver.poll() is None, "it trains all the while"
            curve = server.curve("train/loss")
            if len(curve) > len(seen[-1]):
                assert curve[: len(seen[-1])] == seen[-1]
                seen.append(curve)
            return len(seen) > 3

        wait_for(has_grown, 90)
        steps = [step for step, _ in seen[-1]]
        assert len(steps) >= 3
        assert steps == sorted(set(steps))
        driver.terminate()
        assert driver.wait(60) == 143
    finally:
        driver.kill()
        driver.wait()
        file.unlink()


def server_answers(server: Server) -> bool:
    try:
        server.ask("experiments/search?max_results=1")
    except OSError:
        return False
    return True


def move_champion(server: Server, config: RunConfig) -> None:
    """The server's registry has the run's model, and `champion` moves over its REST API."""
    model = server.ask("registered-models/get?name=words")["registered_model"]
    assert [(alias["alias"], alias["version"]) for alias in model["aliases"]] == [("challenger", "1")]
    assert str(promote(config, None, "the only one")) == "champion is version 1"
    model = server.ask("registered-models/get?name=words")["registered_model"]
    assert {alias["alias"] for alias in model["aliases"]} == {"challenger", "champion"}
    assert [move.why for move in parse_moves(model["tags"][0]["value"])] == ["the only one"]
    with pytest.raises(InputError, match="version 1 had no champion before it"):
        roll_back(config, "")
    with pytest.raises(InputError, match="words has no version 2; there are 1"):
        promote(config, "2", "")
    assert fastest_s([lambda: promote(config, "1", "once more")] * 4) < 1


def check_what_people_see(run: Any, config: Any) -> None:
    """A readable source, corpus and description; single values without a slash, so that curves come first."""
    tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
    assert tags["mlflow.source.type"] == "LOCAL"
    assert "run.yaml" in tags["mlflow.source.name"]
    assert "**Corpus.**" in tags["mlflow.note.content"]
    assert "WordVectors.load" in tags["mlflow.note.content"]
    (dataset,) = run["inputs"]["dataset_inputs"]
    assert dataset["dataset"]["name"] == "a.txt, b.txt.gz and 1 more"
    assert json.loads(dataset["dataset"]["profile"])["tokens"] == 72_000
    names = {metric["key"] for metric in run["data"]["metrics"]}
    assert {"train/loss", "train/alpha", "train/lane_spread", "train/tokens_per_s", "train/merge_seconds"} <= names
    assert {"system/worker 0/cpu_percent", "system/worker 1/memory_bytes", "system/worker 0/waiting_share"} <= names
    assert {name.split("/")[0] for name in names if "/" in name} == {"train", "system"}
    # No name is dead: what this run did not write takes a GPU, or sets of questions. A name that is not in the table is refused.
    silent = {name for name in METRICS if not any(fnmatch.fnmatchcase(written, name) for written in names)}
    assert silent == {"system/worker */gpu_memory_bytes", "eval.*"}
    assert {metric["step"] for metric in run["data"]["metrics"] if "/" not in metric["key"]} <= {0, "0"}
