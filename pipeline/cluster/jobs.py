"""The jobs of a SLURM cluster, kept at the requested number: a job without a worker is looked up in SLURM's queue.

Dask's own `adapt` replaces a worker that the scheduler has lost, but neither a job with several workers nor a job whose worker
never connected: a job cancelled in the queue is never replaced, and a job that fails at its start looks like one that waits. So
each job is looked up by its number. A job that has ended is replaced, and a note gives its number and SLURM's reason; jobs that
repeatedly end before a worker connects end the run. SLURM is queried only while a worker is missing: every few seconds after
the start or a loss, then twice a minute.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import counted, printable

LOOK_S = 1.0
"""Time between two looks at the scheduler's list of workers, which cost nothing."""
SOON_S, LATER_S, SOON_FOR_S = 3.0, 30.0, 60.0
"""While a worker is missing, SLURM is queried every SOON_S for SOON_FOR_S after the start or a loss, then every LATER_S."""
BARREN_JOBS = 3
"""After this many jobs in a row that ended before a worker connected, the run ends."""
ANSWER_S = 30
WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SUSPENDED", "RESIZING", "RUNNING", "STOPPED", "SIGNALING")
ENDING = ("COMPLETING", "STAGE_OUT")
NO_FAULT = ("PREEMPTED", "NODE_FAIL", "BOOT_FAIL")
"""Endings that are not the job's own fault."""


@dataclass(frozen=True)
class Job:
    """A requested job."""

    name: str
    """Its name in the cluster object; its workers have this name, with a suffix if there are several."""
    number: str | None
    """Its number in SLURM; None if sbatch refused the job."""
    present: bool
    """One of its workers is connected."""
    refusal: str = ""
    """The message of sbatch if it refused the job."""


@dataclass
class Seen:
    """The history of jobs, by their numbers."""

    came: set[str] = field(default_factory=set)
    """Jobs of which a worker was connected at some time."""
    listed: set[str] = field(default_factory=set)
    """Jobs that SLURM has listed at some time."""
    barren: int = 0
    """Number of jobs in a row that ended before a worker connected."""

    def notice(self, jobs: Iterable[Job]) -> int:
        """The number of jobs with a connected worker; remembers which."""
        present = {job.number for job in jobs if job.present and job.number}
        self.barren = 0 if present else self.barren
        self.came |= present
        return len(present)

    def ended(self, jobs: Iterable[Job], queue: Mapping[str, tuple[str, str]]) -> dict[str, tuple[str, str]]:
        """{name: (number, why)} of the jobs that have ended. `queue` has state and reason by number."""
        over = {}
        for job in jobs:
            if job.number is None:
                over[job.name] = ("", f"sbatch: {job.refusal}")
            elif not job.present and (why := self._why_over(job.number, queue)):
                over[job.name] = (job.number, why)
                self.barren += job.number not in self.came and why not in NO_FAULT
        self.listed |= queue.keys()
        return over

    def _why_over(self, number: str, queue: Mapping[str, tuple[str, str]]) -> str | None:
        if number not in queue:
            # SLURM forgets jobs. One that it never listed may belong to another SLURM cluster (sbatch --clusters).
            return "gone from the queue" if number in self.listed else None
        state, reason = queue[number]
        if state in WAITING:
            return None
        if state in ENDING:
            # Its worker will not come back. If none ever came, how the job ends is not known yet.
            return (state if reason == "None" else reason) if number in self.came else None
        return state


@dataclass
class JobKeeper:
    """Keeps the jobs of a cluster at the requested number; `trouble` is set when there is no point in submitting more."""

    cluster: Any
    workers: int
    """The requested number."""
    logs: Path
    on_note: Callable[[str], None]
    trouble: str | None = None
    _seen: Seen = field(default_factory=Seen)
    _over: threading.Event = field(default_factory=threading.Event)
    _waits: str = ""

    @contextlib.contextmanager
    def keeping(self) -> Iterator[None]:
        """Submits the jobs, and keeps their number until the context ends."""
        self.cluster.scale(n=self.workers)
        thread = threading.Thread(target=self._keep, name="w2v-jobs", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join(ANSWER_S)

    def _keep(self) -> None:
        there, left = 0, time.monotonic()
        asked = left
        while not self._over.wait(LOOK_S) and self.trouble is None:
            jobs, now = self.jobs(), time.monotonic()
            present = self._seen.notice(jobs)
            left, there = (now if present < there else left), present
            if present < len(self.cluster.worker_spec) and now - asked >= (SOON_S if now - left < SOON_FOR_S else LATER_S):
                asked = now
                self._look(jobs)

    def jobs(self) -> list[Job]:
        """The requested jobs, and whether a worker of each is connected."""
        # The scheduler's thread may remove a worker meanwhile. As a dict, its sorted dict is copied in one step.
        here = {str(worker.name) for worker in list(dict.values(self.cluster.scheduler.workers))}
        made, found = dict(self.cluster.workers), []
        for name, asked_for in dict(self.cluster.worker_spec).items():
            if name in made:  # else it is being submitted
                names = {f"{name}{suffix}" for suffix in asked_for.get("group", [""])}
                job = made[name]
                found.append(Job(name, job.job_id, not here.isdisjoint(names), getattr(job, "refusal", "")))
        return found

    def _look(self, jobs: list[Job]) -> None:
        queue = _ask_slurm()
        if queue is None:  # SLURM's own daemons may be down for a while; jobs continue
            return
        over = self._seen.ended(jobs, queue)
        for name in over:
            self.cluster.worker_spec.pop(name, None)
        if self._seen.barren >= BARREN_JOBS:
            self.trouble = self._why_barren(over)
            return
        self._forget(over)
        self.cluster.scale(n=self.workers)
        if over:
            why = ", ".join(f"{number}: {why}" if number else why for number, why in over.values())
            ended = counted(len(over), "jobs|job")
            self.on_note(f"{ended} ended ({why}); {'another was' if len(over) == 1 else 'others were'} submitted")
        self._tell_who_waits(jobs, queue)

    def _forget(self, over: Mapping[str, Any]) -> None:
        """Waits until Dask has let go of ended jobs. It gives a new job the name of the last one if that is free, and submits
        nothing while it still holds a job by that name."""
        if over:
            self.cluster.scale(jobs=len(self.cluster.worker_spec))
        deadline = time.monotonic() + ANSWER_S
        while over.keys() & dict(self.cluster.workers).keys() and time.monotonic() < deadline and not self._over.wait(0.05):
            pass

    def _tell_who_waits(self, jobs: list[Job], queue: Mapping[str, tuple[str, str]]) -> None:
        """Notes once how many jobs SLURM has not started, and why."""
        states = [queue.get(job.number or "", ("", "")) for job in jobs]
        reasons = [reason for state, reason in states if state == "PENDING"]
        queued, why = counted(len(reasons), "jobs|job"), ", ".join(sorted(set(reasons)))
        waits = f"{queued} waiting in SLURM's queue ({why})" if reasons else ""
        if waits and waits != self._waits:
            self.on_note(waits)
        self._waits = waits

    def _why_barren(self, over: Mapping[str, tuple[str, str]]) -> str:
        number, why = max(over.values(), key=lambda job: int(job[0] or 0))
        said = last_words(self.logs, number)
        return (
            f"{self._seen.barren} jobs in a row ended before one of their workers connected (the last: {number}, {why}"
            + (f"; its log ends with: {said}" if said else "")
            + f"); check the logs in {self.logs}, and that the nodes have this environment"
        )


def reporting_job() -> type[Any]:
    """SLURMJob, except that a refusal by sbatch is kept for `JobKeeper` instead of becoming a traceback on the terminal."""
    from dask_jobqueue.slurm import SLURMJob
    from distributed.deploy.spec import ProcessInterface

    class ReportingJob(SLURMJob):
        refusal = ""

        async def start(self) -> None:
            try:
                await super().start()  # type: ignore[no-untyped-call]
            except RuntimeError as error:
                self.refusal = printable(str(error).strip().rpartition("\n")[2], 200)
                await ProcessInterface.start(self)  # marks it as started: there is no process to wait for

    return ReportingJob


def last_words(logs: Path, number: str) -> str:
    """The last non-empty line that a job wrote to standard error; "" if there is none."""
    for path in sorted(logs.glob(f"*-{number}*.err")):
        with contextlib.suppress(OSError):
            if lines := [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]:
                return printable(lines[-1].strip(), 200)
    return ""


def _ask_slurm() -> dict[str, tuple[str, str]] | None:
    """{number: (state, reason)} of this user's jobs, including ended ones that SLURM still lists; None if it does not answer."""
    command = ["squeue", "--noheader", "--states=all", f"--user={os.getuid()}", "--format=%A %T %r"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_S, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode:
        return None
    lines = (line.split(" ", 2) for line in done.stdout.splitlines())
    return {words[0]: (words[1], words[2]) for words in lines if len(words) == 3}
