"""A SLURM installation with one node on loopback: a real munged, slurmctld and slurmd in a temporary folder.

Its node claims more cores than the machine has (`config_overrides`), because the tests are about which jobs run and when.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster.disturbed import wait_until
from tests.debian import program
from tests.ports import free_port

UP_S = 90


@dataclass(frozen=True)
class SlurmSite:
    """A running SLURM; with `environment`, its commands and their callers find it."""

    directory: Path
    environment: dict[str, str]

    def call(self, *command: str, timeout_s: float = 60) -> str:
        """The output of one of SLURM's commands; raises CalledProcessError if it fails."""
        environment = os.environ | self.environment | {"PATH": os.environ["PATH"]}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=timeout_s).stdout

    def jobs(self) -> dict[str, str]:
        """The states, by number, of the jobs that wait or run; jobs that are ending count as over."""
        lines = self.call("squeue", "--noheader", "--format=%i %T").splitlines()
        states = dict(line.split() for line in lines)
        return {job: state for job, state in states.items() if state not in ("COMPLETING", "COMPLETED", "CANCELLED", "TIMEOUT")}

    def running(self) -> list[str]:
        """The numbers of the jobs that run."""
        return [job for job, state in self.jobs().items() if state == "RUNNING"]

    def states(self) -> dict[str, str]:
        """States by number of all jobs that SLURM still knows."""
        lines = self.call("squeue", "--noheader", "--states=all", "--format=%i %T").splitlines()
        return dict(line.split() for line in lines)

    def ended_at(self, job: str) -> float:
        """The time at which a job ended, in seconds since 1970."""
        found = self.call("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%e")
        return datetime.datetime.fromisoformat(found.strip()).timestamp()

    def end_time_of(self, jobs: list[str]) -> None:
        """The walltime of these jobs is over now; SLURM sees that within half a minute, and ends them as it does then."""
        self.call("scontrol", "update", f"jobid={','.join(jobs)}", "endtime=now")

    def set_cores(self, cores: int) -> None:
        """Sets how many one-core jobs may run at a time from now on."""
        self.call("scontrol", "update", "partitionname=main", f"maxcpuspernode={cores}")

    def wait_until_empty(self, seconds: float) -> float:
        """Seconds until no job waits or runs; fails after `seconds`."""
        started = time.monotonic()
        while jobs := self.jobs():
            assert time.monotonic() - started < seconds, f"jobs are left after {seconds} s: {jobs}"
            time.sleep(0.2)
        return time.monotonic() - started

    def cancel_all(self) -> None:
        """Ends all jobs with their processes; after a test that waited until there is none, this does nothing."""
        if jobs := self.jobs():
            self.call("scancel", *jobs)
        wait_until(lambda: not self.call("squeue", "--noheader"), "the processes of the cancelled jobs to end")


_CONFIG = """
ClusterName=w2v
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket={root}/munge/socket
CredType=cred/munge
SlurmUser=root
SlurmctldPort={controller}
SlurmdPort={node}
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1
ReturnToService=2
MpiDefault=none
KillWait=2
OverTimeLimit=0
MinJobAge=300
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=16000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@contextlib.contextmanager
def slurm_site() -> Iterator[SlurmSite]:
    """A SLURM that accepts jobs; skips the test if it is not available."""
    daemons = {
        name: program(name, package)
        for name, package in (("munged", "munge"), ("slurmctld", "slurm-wlm"), ("slurmd", "slurm-wlm"))
    }
    if os.geteuid() != 0:
        pytest.skip("slurmd starts jobs as their owners, which takes root")
    # Not in the test's own folder, which is closed to the user that munged runs as.
    root = Path(tempfile.mkdtemp(prefix="w2v-slurm."))
    root.chmod(0o755)
    host = socket.gethostname().split(".")[0]
    munge = root / "munge"
    for folder in (munge, root / "state", root / "spool"):
        folder.mkdir(mode=0o755)
    (munge / "key").write_bytes(os.urandom(1024))
    (munge / "key").chmod(0o400)
    owner = pwd.getpwnam("munge")
    for path in (munge, munge / "key"):
        os.chown(path, owner.pw_uid, owner.pw_gid)
    (root / "slurm.conf").write_text(_CONFIG.format(root=root, host=host, controller=free_port(), node=free_port()))
    environment = os.environ | {"SLURM_CONF": str(root / "slurm.conf")}
    site = SlurmSite(root, environment)
    names = ("key-file", "socket", "pid-file", "log-file", "seed-file")
    files = [f"--{name}={munge / name.removesuffix('-file')}" for name in names]
    as_munge = ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]
    commands = (
        [*as_munge, daemons["munged"], "--foreground", *files],
        [daemons["slurmctld"], "-D", "-c"],
        [daemons["slurmd"], "-D", "-c"],
    )
    running: list[subprocess.Popen[bytes]] = []
    try:
        with (root / "daemons.log").open("wb") as log:
            for command in commands:
                running.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True))
                if command is commands[0]:
                    _wait_for((munge / "socket").exists, root)
        _wait_for(lambda: _answers(site), root)
        yield site
    finally:
        for process in reversed(running):
            process.terminate()
        for process in running:
            try:
                process.wait(timeout=2)  # slurmctld takes longer to write down what nobody will read
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(root, ignore_errors=True)


def _answers(site: SlurmSite) -> bool:
    try:
        return "idle" in site.call("sinfo", "--noheader", "--format=%t")
    except subprocess.CalledProcessError:
        return False


def _wait_for(there: Callable[[], bool], root: Path) -> None:
    deadline = time.monotonic() + UP_S
    while not there():
        logs = "\n".join(path.read_text(errors="replace")[-500:] for path in sorted(root.glob("*.log")))
        assert time.monotonic() < deadline, f"SLURM did not come up:\n{logs}"
        time.sleep(0.1)
