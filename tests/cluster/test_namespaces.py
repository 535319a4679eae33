"""Several hosts, as far as one machine allows: each is a network namespace with an address of its own, on one switch.

A scheduler, two hosts with one worker each, an `mlflow server` and the driver have nothing in common but the disk. Certificates
and commands are those of `w2v cluster certs`.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.disturbed import Bench, end_of, environment_with, stopped_at, wait_until
from tests.cluster.namespaces import NoNamespacesError, Switch, switch
from tests.cluster.test_certificates import by_command
from tests.cluster.test_live_tracking import Server, server_answers
from tests.cluster.test_tracking_servers import kill_server, start_server
from tests.cluster.tracked import deliver_the_rest
from tests.debian import program

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # MLflow's own warnings

SCHEDULER, TRACKING, DRIVER, *HOSTS = range(5)
SCHEDULER_PORT, TRACKING_PORT = 8786, 5000
STEP, ROUND = "1.3.6", 2
"""A step of the second epoch, and its round."""


@pytest.fixture
def cables() -> Iterator[Switch]:
    program("ip", "iproute2")
    with contextlib.ExitStack() as stack:
        try:
            made = stack.enter_context(switch(5))
        except NoNamespacesError as error:
            pytest.skip(f"no network namespaces here: {error}")
        yield made


@pytest.mark.turns(10, 22, of="tracking")
def test_a_worker_host_cut_off_in_the_middle_of_training_and_brought_back_changes_no_bit_and_no_point_of_the_curve(
    cables: Switch, bench: Bench, tmp_path: Path, migrated_database: Path
) -> None:
    shutil.copy(migrated_database, tmp_path / "mlflow.db")
    host = cables.address(TRACKING)
    with contextlib.ExitStack() as stack:
        server = start_server(tmp_path, TRACKING_PORT, host, cables.on(TRACKING))
        stack.callback(kill_server, server)
        mlflow = Server(TRACKING_PORT, host=host)
        workers, section = start_cluster(cables, tmp_path, stack)
        wait_until(lambda: cables.ask(DRIVER, lambda: server_answers(mlflow)), "MLflow to answer")
        config = bench.config_file(
            "namespaces", before="train", cluster=section | {"silent_s": 2},
            tracking={"uri": mlflow.address, "required": True},
        )  # fmt: skip
        # The driver stops itself when it has found the attempt lost and before it tries the round again.
        found_lost = tmp_path / "found-lost"
        driver = stack.enter_context(start_driver(cables, config, f"round:{ROUND}.1=stop,{found_lost}"))
        stack.callback(driver.kill)
        frozen = stopped_at(tmp_path / "in-a-step", driver)
        lost = HOSTS[[worker.pid for worker in workers].index(frozen.pid)]
        cables.cut_off(lost)
        frozen.resume()
        stopped_at(found_lost, driver)
        cables.bring_back(lost)
        driver.send_signal(signal.SIGCONT)
        ended = end_of(driver)
        summary = ended.summary
        deliver_the_rest(summary, config, cables.on(DRIVER))
        curve = cables.ask(DRIVER, lambda: mlflow.curve("train/loss"))
    assert summary["vectors"]["sha256"] == bench.digest
    assert f"`ssh -L 8787:127.0.0.1:8787 {cables.address(SCHEDULER)}` brings it here" in ended.err
    assert re.search(rf"round \d+ was interrupted: a worker .* \(tls://{cables.address(lost)}:", ended.err), ended.err
    undisturbed = json.loads((bench.undisturbed / "summary.json").read_text())
    points = [point for record in undisturbed["train"]["rounds"] for point in record["points"]]
    assert len(points) >= 30
    assert curve == [(step, loss) for step, loss, *_ in points]


def start_cluster(
    cables: Switch, folder: Path, stack: contextlib.ExitStack
) -> tuple[list[subprocess.Popen[bytes]], dict[str, Any]]:
    """(the workers, the section `cluster` that connects to them) once all are there; the first to reach STEP freezes."""
    commands, section = by_command(folder / "certs", cables.address(SCHEDULER), cables.address(HOSTS[0]), SCHEDULER_PORT)
    scheduler, worker = commands
    # One worker per host, in a process known by its id: two cores do the work of all these machines.
    worker = worker.replace("--nworkers 2 --nthreads 2", "--no-nanny --nthreads 1")
    environment = environment_with(f"step:{STEP}=stop,{folder / 'in-a-step'}")
    processes = []
    log = folder / "cluster.log"
    for place, command in zip([SCHEDULER, *HOSTS], [scheduler, worker, worker], strict=True):
        words = [*cables.on(place), str(Path(sys.executable).with_name("dask")), *shlex.split(command)[1:]]
        with log.open("ab") as out:
            processes.append(subprocess.Popen(words, stdout=out, stderr=out, cwd=folder, env=environment))
        stack.callback(processes[-1].wait)
        stack.callback(processes[-1].kill)
    wait_until(lambda: log.read_text().count("Registered to:") == len(HOSTS), "the workers to find their scheduler")
    return processes[1:], section


def start_driver(cables: Switch, config: Path, failpoint: str) -> subprocess.Popen[str]:
    command = [*cables.on(DRIVER), sys.executable, "-m", "pipeline.cli", "run", str(config), "--json"]
    return subprocess.Popen(
        command,
        env=environment_with(failpoint),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
