"""Every place where something is killed; the result must have the digest of the undisturbed run.

A kill names the failpoint at which a process is stopped, and what dies at that moment: the process itself, the driver, all
workers at once, or the scheduler. `disturb` carries it out with real processes and real signals.
"""

from __future__ import annotations

import random
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from tests.cluster.disturbed import (
    Bench,
    Ended,
    assert_no_process_is_left,
    end_of,
    kill_session,
    stopped_at,
    wait_until,
    workers_of,
)
from tests.cluster.tls_cluster import TlsCluster

Victim = Literal["itself", "driver", "all workers", "scheduler"]
EXPECTED_CODES = {"driver": -signal.SIGKILL, "all workers": 0, "scheduler": 75}
SHARDS_0 = "task:shards of epoch 0"


@dataclass(frozen=True)
class Kill:
    """One kill. The stages before `stage` are taken from the undisturbed run: only the stage of the kill has to be run."""

    stage: str
    point: str
    victim: Victim = "itself"

    def __str__(self) -> str:
        who = {"itself": "who gets there", "scheduler": "the scheduler"}.get(self.victim, self.victim)
        return f"{self.point}: {who}"


_DRIVER_POINTS = {
    "tokenize": ("stage:tokenize", "written:known_files.json", "commit:tokens", "committed:tokens"),
    "vocab": ("stage:vocab", "write:vocab.parquet", "written:noise_table.npy", "commit:vocab", "committed:vocab"),
    "shards": ("stage:shards", "commit:shards", "committed:shards"),
    "train": ("stage:train", "round:0.0", "round:2.0", "commit:checkpoints", "committed:checkpoints", "commit:vectors",
              "committed:vectors"),
    "evaluate": ("stage:evaluate", "write:scores.json", "commit:report", "committed:report"),
    "publish": ("stage:publish", "write:vectors.bin", "written:vectors.bin", "commit:exports", "committed:exports",
                "write:index.html", "write:corpus.json", "snapshot:written", "decide:run", "decided:run", "latest:made",
                "written:summary.json"),
}  # fmt: skip
_WORKER_POINTS = {
    "tokenize": ("task:tokenize.0", "task:tokenize.6"),
    "vocab": ("task:count.0",),
    "shards": (f"{SHARDS_0}.3", "write:part-00001.arrow", "written:part-00007.arrow"),
    "train": ("ahead:1.2", "meet:0", "meet:1", "step:0.0.0", "step:0.7.2", "step:0.9.6", "step:1.5.3", "step:1.12.5",
              "merge:1.0", "merge:3.1", "merged:3.0", "merged:5.1", "write:w_in-00000.npy", "written:w_in-00000.npy",
              "write:w_out-00000.npy", "written:w_out-00000.npy", "write:vectors.npy", "written:context.npy"),
}  # fmt: skip
_OTHERS: dict[Victim, dict[str, tuple[str, ...]]] = {
    "driver": {
        "tokenize": ("task:tokenize.3",),
        "vocab": ("task:count.0",),
        "shards": (f"{SHARDS_0}.5",),
        "train": ("step:0.9.2", "merged:4.1", "written:w_in-00000.npy"),
    },
    "all workers": {
        "tokenize": ("task:tokenize.5",),
        "vocab": ("task:count.0",),
        "shards": (f"{SHARDS_0}.4",),
        "train": ("ahead:1.1", "step:0.3.0", "merge:6.0", "write:w_out-00000.npy"),
    },
    "scheduler": {
        "tokenize": ("task:tokenize.2",),
        "vocab": ("task:count.0",),
        "shards": (f"{SHARDS_0}.0",),
        "train": ("step:0.5.1", "merge:4.1", "written:w_in-00000.npy"),
    },
}

KILLS = [
    *(Kill(stage, point) for points in (_DRIVER_POINTS, _WORKER_POINTS) for stage, found in points.items() for point in found),
    *(Kill(stage, point, who) for who, stages in _OTHERS.items() for stage, found in stages.items() for point in found),
]


@dataclass(frozen=True)
class Row:
    """The outcome of one case."""

    case: str
    code: int
    """Exit code of the disturbed run."""
    seconds: float
    """Seconds of the disturbed run and of the one that finished it."""
    problem: str = ""
    """Empty if the digest is the same, the exit code as expected, and nothing is left behind."""


def disturb(bench: Bench, kill: Kill, name: str) -> Row:
    """Runs the case in a workdir called `name`."""
    started = time.monotonic()
    token = bench.directory / f"{name}.token"
    ended, problem = Ended(-1, "", ""), ""
    try:
        if kill.victim == "scheduler":
            ended, config = _kill_scheduler(bench, kill, name, token)
            expected = EXPECTED_CODES["scheduler"]
        else:
            config = bench.config_file(name, before=kill.stage)
            action = "kill" if kill.victim == "itself" else "stop"
            with bench.w2v(config, failpoint=f"{kill.point}={action},{token}") as process:
                if action == "stop":
                    _hit(kill.victim, stopped_at(token, process), process)
                ended = end_of(process)
            assert token.exists(), f"the failpoint was never reached\n{ended.err}"
            is_driver = kill.victim == "driver" or int(token.read_text()) == process.pid
            expected = EXPECTED_CODES["driver" if is_driver else "all workers"]
            assert_no_process_is_left(process.pid)
        assert ended.code == expected, f"expected exit code {expected}, found {ended.code}\n{ended.err}"
        finished = ended if ended.code == 0 else bench.finish(config)
        assert finished.summary["vectors"]["sha256"] == bench.digest, "other vectors"
        if ended.code:
            left = [str(path) for path in (bench.directory / name).rglob(".*.tmp")]
            assert not left, f"left behind: {left}"
    except (AssertionError, psutil.Error) as error:
        problem = str(error) or type(error).__name__
    return Row(str(kill), ended.code, time.monotonic() - started, problem)


def _hit(victim: Victim, frozen: psutil.Process, driver: psutil.Popen) -> None:
    if victim == "driver":
        driver.kill()
        # The stopped worker notices only when it runs again, the others at once.
        frozen.resume()
    else:
        for worker in workers_of(driver):
            worker.kill()


def _kill_scheduler(bench: Bench, kill: Kill, name: str, token: Path) -> tuple[Ended, Path]:
    """(how a run ended whose scheduler, on a cluster of its own, was killed; a configuration to finish it with)."""
    config = bench.config_file(name, before=kill.stage)
    with tempfile.TemporaryDirectory(dir=bench.directory) as directory:
        cluster = TlsCluster(Path(directory))
        try:
            for _ in range(2):
                cluster.start_worker("", failpoint=f"{kill.point}=stop,{token}")
            text = config.read_text()
            on_cluster = bench.config_file(f"{name}-on-cluster", cluster=cluster.section)
            on_cluster.write_text(
                on_cluster.read_text().replace(str(bench.directory / f"{name}-on-cluster"), str(bench.directory / name))
            )
            with bench.w2v(on_cluster) as process:
                frozen = stopped_at(token, process)
                cluster.scheduler.kill()
                frozen.resume()
                ended = end_of(process)
            assert " - ERROR - " not in ended.err, "of a scheduler that is gone the run tells, and Dask nothing"
            config.write_text(text)
            return ended, config
        finally:
            cluster.stop()


# ── at random ────────────────────────────────────────────────────────────────────────────────────────────────────────


def disturb_at_random(bench: Bench, seed: int, name: str) -> Row:
    """A run that is hit one to three times, at random moments, and started again whenever it dies."""
    rng = random.Random(seed)
    started = time.monotonic()
    config = bench.config_file(name, before=rng.choice(["tokenize", "train", "train"]), cluster={"n_workers": 2, "silent_s": 3})
    hits = [
        (rng.uniform(0.5, 4.0), rng.choice(["driver", "a worker", "all workers", "freeze"])) for _ in range(rng.randint(1, 3))
    ]
    case = f"seed {seed}: " + ", ".join(f"{who} after {after:.1f} s" for after, who in hits)
    code, problem = 0, ""
    try:
        for attempt in range(len(hits) + 1):
            with bench.w2v(config) as process:
                while hits and process.poll() is None:
                    after, who = hits.pop(0)
                    if _ended_within(process, after):
                        break
                    _hit_at_random(who, rng, process)
                ended = end_of(process)
            assert_no_process_is_left(process.pid)
            code = code or ended.code
            assert ended.code in (0, -signal.SIGKILL), f"attempt {attempt}: exit code {ended.code}\n{ended.err}"
            if ended.code == 0:
                break
        assert ended.summary["vectors"]["sha256"] == bench.digest, "other vectors"
    except AssertionError as error:
        problem = str(error) or "failed"
        kill_session(process.pid)
    return Row(case, code, time.monotonic() - started, problem)


def _ended_within(process: psutil.Popen, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    wait_until(lambda: process.poll() is not None or time.monotonic() > deadline, "the moment")
    return process.poll() is not None


def _hit_at_random(who: str, rng: random.Random, process: psutil.Popen) -> None:
    workers = workers_of(process)
    chosen = {"driver": [], "all workers": workers}.get(who, workers[:1] if rng.random() < 0.5 else workers[-1:])
    if who == "driver":
        process.kill()
    for worker in chosen:
        try:
            worker.suspend() if who == "freeze" else worker.kill()
            if who == "freeze":
                _ended_within(process, rng.uniform(0.5, 6))
                worker.resume()
        except psutil.NoSuchProcess:
            continue
