"""SLURM's queue says what happens to jobs: which are over, why, and when to give up. Real jobs are tested in test_slurm."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from sortedcontainers import SortedDict

from pipeline.cluster.jobs import Job, JobKeeper, Seen, last_words

ABSENT = Job("w-0", "17", present=False)
PRESENT = Job("w-0", "17", present=True)


def ended_as(seen: Seen, job: Job, **queue: str) -> str | None:
    """Why the job is over, after one look at this queue (`state reason` by number, prefixed with `j`)."""
    states = {number.removeprefix("j"): (text.split()[0], text.split()[1]) for number, text in queue.items()}
    found = seen.ended([job], states)
    return found[job.name][1] if found else None


@pytest.mark.parametrize("state", ["PENDING Priority", "RUNNING None", "REQUEUED None", "SUSPENDED None", "COMPLETING None"])
def test_a_job_that_waits_or_runs_is_left_alone(state: str) -> None:
    assert ended_as(Seen(), ABSENT, j17=state) is None


@pytest.mark.parametrize("state", ["TIMEOUT", "CANCELLED", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "COMPLETED", "DEADLINE"])
def test_a_job_that_is_over_is_named_with_its_state(state: str) -> None:
    assert ended_as(Seen(), ABSENT, j17=f"{state} None") == state


def test_a_job_that_is_ending_is_over_once_its_worker_has_left() -> None:
    seen = Seen()
    assert seen.notice([PRESENT]) == 1
    assert ended_as(seen, ABSENT, j17="COMPLETING TimeLimit") == "TimeLimit"


def test_a_job_whose_worker_is_there_is_left_alone_whatever_slurm_says() -> None:
    assert ended_as(Seen(), PRESENT, j17="TIMEOUT TimeLimit") is None


def test_a_job_that_slurm_never_named_is_not_taken_for_ended_but_one_that_it_forgot_is() -> None:
    seen = Seen()
    assert ended_as(seen, ABSENT) is None, "it may be another SLURM's"
    assert ended_as(seen, ABSENT, j17="PENDING Priority") is None
    assert ended_as(seen, ABSENT) == "gone from the queue"


def test_jobs_in_a_row_whose_workers_never_came_are_counted_until_one_comes() -> None:
    seen = Seen()
    for number in ("1", "2"):
        seen.ended([Job("w", number, present=False)], {number: ("FAILED", "None")})
    seen.ended([Job("w", "3", present=False)], {"3": ("PREEMPTED", "None")})
    assert seen.barren == 2, "a job that had to make room says nothing about those that come"
    seen.notice([Job("w", "4", present=True)])
    assert seen.barren == 0
    seen.ended([Job("w", "4", present=False)], {"4": ("TIMEOUT", "TimeLimit")})
    assert seen.barren == 0, "its worker had come"


def test_a_job_that_sbatch_did_not_take_is_over() -> None:
    refused = Job("w", None, present=False, refusal="Job violates accounting policy")
    assert Seen().ended([refused], {}) == {"w": ("", "sbatch: Job violates accounting policy")}


def test_a_worker_that_leaves_while_workers_are_listed_does_not_end_the_keeping_of_jobs(tmp_path: Path) -> None:
    class Leaving(SortedDict[str, SimpleNamespace]):
        """One that the scheduler's thread changes while this one reads it."""

        def __iter__(self) -> Iterator[str]:
            names = list(super().__iter__())
            self.pop(names[-1])
            return iter(names)

    workers = Leaving({name: SimpleNamespace(name=name) for name in ("w-0", "w-1")})
    job = SimpleNamespace(job_id="17")
    cluster = SimpleNamespace(scheduler=SimpleNamespace(workers=workers), workers={"w-0": job}, worker_spec={"w-0": {}})
    assert JobKeeper(cluster, 1, tmp_path, print).jobs() == [PRESENT]


def test_the_last_line_of_a_jobs_log_is_found(tmp_path: Path) -> None:
    (tmp_path / "dask-worker-17.err").write_text("one\nNo module named distributed\n\n")
    assert last_words(tmp_path, "17") == "No module named distributed"
    assert last_words(tmp_path, "18") == ""
