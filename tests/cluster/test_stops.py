"""SIGTERM, SIGHUP and Ctrl-C: a run ends cleanly, says how to continue, and leaves no process behind."""

from __future__ import annotations

import os
import signal
import time

import pytest
from distributed import LocalCluster

from pipeline.cluster.vendors import closed_at_the_end
from pipeline.errors import DataError
from tests.cluster.disturbed import Bench, assert_no_process_is_left, end_of, stopped_at, thaw
from tests.sampling import sample

IN_A_ROUND = "step:0.9.3"


@pytest.mark.parametrize(("number", "code"), sample([(15, 143), (1, 129)]))
@pytest.mark.turns(10, 14)
def test_a_terminated_run_ends_within_ten_seconds_even_with_a_frozen_worker_and_resumes(
    bench: Bench, number: int, code: int
) -> None:
    config = bench.config_file(f"terminated-{number}", before="train")
    token = bench.directory / f"terminated-{number}.token"
    with bench.w2v(config, failpoint=f"{IN_A_ROUND}=stop,{token}") as process:
        stopped_at(token, process)
        started = time.monotonic()
        process.send_signal(number)
        ended = end_of(process)
    assert ended.code == code, ended.err
    assert time.monotonic() - started < 10
    assert "Resume with:\n  w2v run" in ended.err
    assert_no_process_is_left(process.pid)
    bench.assert_continues(config)


@pytest.mark.parametrize("stage", sample(["tokenize", "train"]))
@pytest.mark.turns(10, 14)
def test_ctrl_c_prints_the_command_that_resumes_and_leaves_no_process(bench: Bench, stage: str) -> None:
    config = bench.config_file(f"interrupted-{stage}", before=stage)
    token = bench.directory / f"interrupted-{stage}.token"
    point = {"tokenize": "task:tokenize.3", "train": IN_A_ROUND}[stage]
    with bench.w2v(config, failpoint=f"{point}=stop,{token}") as process:
        worker = stopped_at(token, process)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all processes of the group
        thaw(worker)
        ended = end_of(process)
    assert ended.code == 130, ended.err
    assert "Resume with:\n  w2v run" in ended.err
    assert len(ended.err.splitlines()) <= 15
    assert_no_process_is_left(process.pid)
    bench.assert_same(config)


@pytest.mark.turns(10, 8)
def test_ctrl_c_again_and_again_ends_at_once_and_leaves_no_process(bench: Bench) -> None:
    config = bench.config_file("interrupted-twice", before="train")
    token = bench.directory / "interrupted-twice.token"
    with bench.w2v(config, failpoint=f"{IN_A_ROUND}=stop,{token}") as process:
        worker = stopped_at(token, process)
        while process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(0.05)  # as fast as a person can; two at the same instant would be one
        thaw(worker)
        ended = end_of(process)
    assert ended.code == 130, ended.err
    assert_no_process_is_left(process.pid)
    bench.assert_continues(config)


class NeverQuiteClosed(LocalCluster):  # type: ignore[misc]
    """A cluster that closes, but says what Dask's says if a worker takes too long to die."""

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        raise TimeoutError


def without_workers() -> NeverQuiteClosed:
    # By default, Dask's scheduler listens on port 8787 and on every interface.
    return NeverQuiteClosed(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0", scheduler_kwargs={"dashboard": False})


def test_a_cluster_that_does_not_close_in_time_is_a_note_and_not_the_failure_of_a_complete_run() -> None:
    notes: list[str] = []
    with closed_at_the_end(without_workers(), notes.append) as cluster:
        assert cluster.scheduler_info["workers"] == {}
    assert notes == ["the cluster was not closed in order (TimeoutError); what is left of it ends by itself"]


def test_a_cluster_that_does_not_close_in_time_hides_no_error() -> None:
    notes: list[str] = []
    with pytest.raises(DataError, match="the reason"), closed_at_the_end(without_workers(), notes.append):
        raise DataError("the reason")
    assert len(notes) == 1
