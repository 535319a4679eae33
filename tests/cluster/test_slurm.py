"""`cluster.kind: slurm` on a real SLURM: jobs that are late, cancelled or orphaned change nothing and leave nothing behind."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.cluster.opening import open_workers
from pipeline.cluster.vendors import vendor_cluster
from pipeline.config import Cluster
from pipeline.errors import PipelineError, ServiceError
from tests.cluster.disturbed import Bench, end_of, wait_for, wait_until
from tests.cluster.slurm_site import SlurmSite, slurm_site
from tests.sampling import ALL

pytestmark = pytest.mark.slow
JOB = {"queue": "main", "cores": 1, "processes": 1, "memory": "1GiB", "walltime": "00:10:00", "interface": "lo"}
ALONE_S = 20


@pytest.fixture(scope="module")
def site() -> Iterator[SlurmSite]:
    with slurm_site() as found:
        yield found


@pytest.fixture
def queue(site: SlurmSite) -> Iterator[None]:
    """A test that fails leaves jobs, which the next ones would take for theirs: they end with it. This is set up before
    `monkeypatch`, with which one test hides SLURM's commands, and so ends after it."""
    yield
    site.cancel_all()


@pytest.fixture(autouse=True)
def found_by_all(queue: None, site: SlurmSite, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{site.environment['PATH']}"  # the jobs' `w2v` is this one
    for name, value in (site.environment | {"PATH": path}).items():
        monkeypatch.setenv(name, value)
    site.set_cores(4)


def section(**options: object) -> dict[str, object]:
    return {"kind": "slurm", "n_workers": 2, "wait_s": 60, "options": JOB | options}


@pytest.mark.turns(10, 14, of="deployment")
def test_a_job_that_comes_late_and_one_that_is_cancelled_in_training_change_no_bit(
    bench: Bench, site: SlurmSite, tmp_path: Path
) -> None:
    config = bench.config_file("slurm", before="shards", cluster=section())
    site.set_cores(1)  # the second job waits for the first one's place
    token = tmp_path / "frozen"
    with bench.w2v(config, failpoint=f"step:1.2.0=stop,{token}") as driver:
        wait_for(token, driver)
        # The frozen worker's job is the one that runs; its place goes to a job submitted anew.
        site.call("scancel", "--signal=KILL", "--full", *site.running())
        site.set_cores(4)
        ended = end_of(driver)
    assert ended.summary["vectors"]["sha256"] == bench.digest
    assert "1 of 2 workers have come; training begins" in ended.err
    for said in (
        r"1 job waiting in SLURM's queue \(.*Resources\)",
        r"round \d+ was interrupted: a worker went away or fell silent .*; training goes on from the",
        r"1 job ended \(\d+: \w+\); another was submitted",
    ):
        assert re.search(said, ended.err), ended.err
    site.wait_until_empty(90)
    assert not list((bench.directory / "slurm").glob(".cluster-*")), "no certificate is left"


@pytest.mark.skipif(not ALL, reason="SLURM looks at walltimes every 30 s: make deployment")
def test_walltime_that_ends_every_job_of_a_run_changes_no_bit(bench: Bench, site: SlurmSite, tmp_path: Path) -> None:
    two_workers_a_job = {**section(cores=2, processes=2, memory="2GiB"), "n_workers": 4, "silent_s": 120}
    config = bench.config_file("walltime", before="shards", cluster=two_workers_a_job)
    token = tmp_path / "frozen"
    with bench.w2v(config, failpoint=f"step:1.2.0=stop,{token}") as driver:
        wait_for(token, driver)
        first = site.running()
        site.end_time_of(first)
        ended = end_of(driver)
    assert ended.summary["vectors"]["sha256"] == bench.digest
    states = site.states()
    assert [states[job] for job in first] == ["TIMEOUT", "TIMEOUT"], states
    assert set(states) > set(first), "others took their place"
    time_over = r"\d+: (TimeLimit|TIMEOUT)"
    assert re.search(rf"2 jobs ended \({time_over}, {time_over}\); others were submitted", ended.err), ended.err
    site.wait_until_empty(90)


def test_jobs_that_end_before_their_worker_has_come_end_the_run_with_their_last_words(site: SlurmSite, tmp_path: Path) -> None:
    cluster = Cluster.model_validate(section(python="/nowhere/python") | {"n_workers": 3})
    words = r"3 jobs in a row ended before .* \(the last: \d+, FAILED; its log ends with: .*/nowhere/python.*\); check"
    with open_workers(cluster, shared=tmp_path) as workers, pytest.raises(ServiceError, match=words):
        workers.members()
    site.wait_until_empty(90)


@pytest.mark.turns(10, 10, of="deployment")
def test_a_driver_that_is_killed_leaves_no_job_and_its_rerun_gives_the_same_bits(
    bench: Bench, site: SlurmSite, tmp_path: Path
) -> None:
    config = bench.config_file("orphans", before="shards", cluster=section(death_timeout=ALONE_S))
    token = tmp_path / "killed"
    with bench.w2v(config, failpoint=f"round:1.0=kill,{token}") as driver:
        driver.communicate()
    assert driver.returncode == -signal.SIGKILL
    killed, orphans = time.time(), set(site.jobs())
    bench.assert_same(config)
    wait_until(lambda: orphans.isdisjoint(site.jobs()), "the killed driver's jobs to end")
    assert [job for job in orphans if site.ended_at(job) - killed > ALONE_S + 30] == []
    site.wait_until_empty(90)


@pytest.mark.turns(10, 9, of="deployment")
def test_a_driver_may_be_a_job_itself(bench: Bench, site: SlurmSite, tmp_path: Path) -> None:
    config = bench.config_file("job", before="shards", cluster=section())
    driver = Path(__file__).parents[2] / "infra" / "slurm" / "driver.sh"
    out = tmp_path / "out"
    site.call("sbatch", "--wait", f"--output={out}", str(driver), str(config), "--json", "--quiet", timeout_s=90)
    assert f'"sha256": "{bench.digest}"' in out.read_text()


def test_a_job_whose_driver_is_gone_ends_after_half_a_minute_unless_told_otherwise(tmp_path: Path) -> None:
    for told, seconds in ((JOB, 30), (JOB | {"death_timeout": ALONE_S}, ALONE_S)):
        with vendor_cluster(Cluster(kind="slurm", n_workers=1, options=told), tmp_path) as made:
            assert f"--death-timeout {seconds} " in made.cluster.job_script()


@pytest.mark.parametrize(
    ("options", "path", "code", "message"),
    [
        ({"queue": "nowhere"}, None, 69, r"cluster\.kind: slurm: .*[Ii]nvalid partition.*; see cluster\.options"),
        ({}, "", 69, r"cluster\.kind: slurm: sbatch cannot be called .*; run this where jobs are submitted"),
        ({"wall_time": "1"}, None, 64, r"cluster\.options\.wall_time: SLURMCluster does not take it; did you mean walltime\?"),
    ],
    ids=["a queue that is not there", "no sbatch", "a misspelt key"],
)
def test_a_job_that_slurm_would_refuse_is_reported_at_once(
    options: dict[str, object], path: str | None, code: int, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if path is not None:
        monkeypatch.setenv("PATH", path)
    began = time.monotonic()
    cluster = Cluster(kind="slurm", n_workers=2, options=JOB | options)
    with pytest.raises(PipelineError, match=message) as refused, open_workers(cluster, shared=tmp_path):
        pass
    assert refused.value.exit_code == code
    assert time.monotonic() - began < 60, "cluster.wait_s is two minutes"
