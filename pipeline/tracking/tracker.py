"""Experiment tracking: reports a run to MLflow in such a way that MLflow can never delay the run.

    tracker = open_tracker(config.tracking, config.workdir, run_name=…, config_digest=…)
    tracker.start(params, tags, Dataset(name, digest, source))
    tracker.log(step, {"train/loss": 3.1, "train/alpha": 0.04})
    state = tracker.finish("FINISHED")

Every call appends to a local spool and returns in microseconds; a shipper process (`pipeline.tracking.shipper`) delivers the
spool to MLflow. MLflow is never imported here. Undelivered events stay in the spool, and the next run with the same workdir and
configuration, or `sync`, delivers them to the same MLflow run, each point exactly once.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from pipeline.config import Tracking
from pipeline.errors import PermissionDeniedError, ServiceError, counted
from pipeline.safety.files import open_inside
from pipeline.safety.seals import canonical_json
from pipeline.store import explain_os_error, file_sha256
from pipeline.tracking.addresses import credentials_of, new_target, tracking_uri
from pipeline.tracking.metrics import METRICS, allowed_name, is_known_metric
from pipeline.tracking.spool import (
    Event,
    Known,
    Spool,
    SpoolWriter,
    Target,
    TrackingState,
    identity,
    open_writer,
    spool_state,
    spools,
    what_is_spooled,
    without_credentials,
)
from pipeline.tracking.ui import serve_ui

__all__ = ["METRICS", "Dataset", "Tracker", "TrackingState", "open_tracker", "serve_ui", "spool_state", "sync", "tracking_uri"]

logger = logging.getLogger(__name__)

Scalar = str | int | float | bool | None
Status = Literal["FINISHED", "FAILED", "KILLED"]

FSYNC_INTERVAL_S = 0.5
WATCH_INTERVAL_S = 1.0
FLUSH_TIMEOUT_S = 10.0
"""How long a run waits for MLflow at its end, at most: it may be 15 s slower than one without tracking."""
UNTOLD_S = 1.0  # a shorter wait is not mentioned
REACH_TIMEOUT_S = 90.0
FAILING_S = 10.0
"""How long the first requests of a run that requires MLflow may fail, as those to a server that starts or is busy do."""
RESPAWN_LIMIT = 3
DIGEST_CHARACTERS = 36
"""MLflow refuses longer dataset digests."""


@dataclass(frozen=True)
class Dataset:
    """The corpus as MLflow shows it. `digest` is cut to 36 characters; credentials are removed from `source`."""

    name: str
    digest: str
    source: str
    profile: Mapping[str, int] = field(default_factory=dict)
    """Figures about it, such as its number of tokens."""


def open_tracker(tracking: Tracking, workdir: Path, *, run_name: str, config_digest: str) -> Tracker:
    """A tracker, opened without waiting unless `tracking.required` is set. Its shipper starts with the first event.

    A workdir that was tracked before with the same configuration and target continues the same MLflow run. With
    `required`, raises ServiceError when MLflow cannot be reached and PermissionDeniedError when it denies access.
    """
    uri = tracking_uri(tracking, workdir)
    key = hashlib.sha256(canonical_json([tracking.uri and uri, tracking.experiment, config_digest])).hexdigest()[:16]
    target = new_target(tracking, uri, run_name, config_digest)
    spool, writer, known = _open_spool(Spool(Path(os.path.abspath(workdir)) / "tracking" / key), target)
    tracker = Tracker(uri=target.uri, spool=spool, writer=writer, known=known, credentials=credentials_of(uri))
    if tracking.required:
        tracker.launch_shipper()
        tracker.wait_until_reached(REACH_TIMEOUT_S)
    return tracker


def _open_spool(spool: Spool, target: Target) -> tuple[Spool, SpoolWriter, Known]:
    """The spool, its writer and what it already contains; an existing spool keeps its token."""
    try:
        spool.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        before = spool.target()
        spool.write_target(replace(target, token=before.token, created_ms=before.created_ms) if before else target)
        return spool, open_writer(spool, FSYNC_INTERVAL_S), what_is_spooled(spool)
    except OSError as error:
        raise explain_os_error(error, spool.directory) from error


@dataclass
class Tracker:
    """The driver's end of the spool. Open one with `open_tracker`; every method returns without waiting for MLflow."""

    uri: str
    spool: Spool
    writer: SpoolWriter
    known: Known
    credentials: dict[str, str] = field(default_factory=dict, repr=False)
    process: subprocess.Popen[bytes] | None = None
    ships: bool = True
    """False: it only writes its spool, for `sync` to deliver."""
    watch_every_s: float = WATCH_INTERVAL_S
    linger_s: float = FLUSH_TIMEOUT_S
    """How long the shipper goes on without success after the run has ended; then it makes one last attempt."""
    _respawned: int = 0
    _watched_at: float = 0.0
    _warned: bool = False
    _started: bool = False
    _finished: bool = False

    def start(self, params: Mapping[str, Scalar], tags: Mapping[str, Scalar], dataset: Dataset | None = None) -> None:
        """Reports the run's parameters, tags and dataset; must be called first.

        The same configuration over another dataset is another result, so it gets its own MLflow run. Parameters cannot change
        in MLflow, so a resumed run that differs gets a tag `resumed.<key>` instead.
        """
        if dataset is not None:
            self._turn_to(dataset.digest[:DIGEST_CHARACTERS])
        self._started = True
        said = {key: _text(value) for key, value in params.items()}
        new = {key: value for key, value in said.items() if key not in self.known.params}
        changed = {f"resumed.{key}": value for key, value in said.items() if self.known.params.get(key, value) != value}
        if new:
            self._append({"type": "params", "params": new})
        self.set_tags(dict(tags) | changed)
        if dataset is not None:
            digest = dataset.digest[:DIGEST_CHARACTERS]
            source = {"name": dataset.name[:500], "digest": digest, "source": without_credentials(dataset.source)[:60000]}
            source |= {"profile": json.dumps(dict(dataset.profile))} if dataset.profile else {}
            if source != self.known.dataset:
                self._append({"type": "dataset", "dataset": source})

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Adds one point per metric. The steps of a metric only grow: a point at an earlier step is a replay and is dropped.

        A value that is not finite is not sent (MLflow stores inf as 1.8e308): the run is tagged `diverged` instead.
        """
        values: dict[str, float] = {}
        broken: list[str] = []
        for name, value in metrics.items():
            name = allowed_name(name)
            if not is_known_metric(name):
                raise ValueError(f"expected a metric of tracking.METRICS, found {name!r}; add it there with its unit")
            if not math.isfinite(value):
                broken.append(f"{name} is {value} at step {step}")
            elif step > self.known.last_step.get(name, -1):
                values[name] = float(value)
        if values:
            self._append({"type": "metrics", "step": step, "values": values})
        if broken and "diverged" not in self.known.tags:
            self.set_tags({"diverged": "; ".join(broken)})
        self._watch()

    def set_tags(self, tags: Mapping[str, Scalar]) -> None:
        new = {key: _text(value) for key, value in tags.items()}
        new = {key: value for key, value in new.items() if self.known.tags.get(key) != value}
        if new:
            self._append({"type": "tags", "tags": new})

    def artifact(self, path: Path, folder: str = "") -> None:
        """Uploads a file, or a folder's files, to `folder` among the run's artefacts; read later, so it must stay in place."""
        self._append_once({"type": "artifact", "path": self.spool.relative(path), "folder": folder, "stamp": _stamp(path)})

    def stage(self, name: str, started_ms: int, ended_ms: int, metrics: Mapping[str, float], tags: Mapping[str, Scalar]) -> None:
        """Reports a stage as a child run of this one, with its times, figures and tags."""
        times = {"start": started_ms, "end": ended_ms}
        said = {key: _text(value) for key, value in tags.items()}
        self._append_once({"type": "stage", "name": name, **times, "values": dict(metrics), "tags": said})

    def register(self, name: str, directory: Path, description: str = "") -> None:
        """Registers saved vectors in MLflow's model registry: a new version of `name` with the alias `challenger`.

        `directory` is what `WordVectors.save` wrote, `description` is Markdown. The same vectors are registered once.
        """
        digest = file_sha256(directory / "meta.json")  # it holds the SHA-256 of every other file
        event = {"type": "register", "name": name, "directory": self.spool.relative(directory), "digest": digest}
        self._append_once(event | {"description": description})

    def finish(
        self, status: Status, timeout_s: float = FLUSH_TIMEOUT_S, on_wait: Callable[[], object] = lambda: None
    ) -> TrackingState:
        """Ends the run, waits at most `timeout_s` for the shipper, and returns whether everything arrived.

        Undelivered events stay in the spool for the next run or `sync`. A run that failed before `start` leaves no trace, in
        particular not in the MLflow run of an earlier corpus. `on_wait` is called after a second of waiting.
        """
        if self._finished:
            return self.state()
        if self._started and self.known.status != status:
            self._append({"type": "finish", "status": status})
        elif self.spool.size() > self.spool.progress().offset:
            self.launch_shipper()
        else:
            # It was started by `make_ready`, but no event followed.
            self._kill_shipper()
        self._replace_dead_shipper()
        self._finished = True
        self.writer.close()
        self._let_shipper_drain(timeout_s, on_wait)
        return self.state()

    def state(self) -> TrackingState:
        """Where the run is tracked, and whether every event so far has arrived."""
        state = spool_state(self.spool)
        lost = counted(self.writer.lost, "events|event")
        problem = f"{lost} lost: the disk of {self.spool.directory} was full" if self.writer.lost else None
        problem = problem or (f"writing {self.spool.events}: {self.writer.error}" if self.writer.error else None)
        return TrackingState(self.uri, state.run_id, state.complete and problem is None, problem or state.message)

    def _turn_to(self, dataset_digest: str) -> None:
        """Switches to the spool of this dataset; the first dataset uses the spool that `open_tracker` opened."""
        before, target = self.known.dataset, self.spool.target()
        if before is None or before["digest"] == dataset_digest or target is None:
            return
        self.writer.close()
        self._close_pipe()
        self.process = None
        directory = self.spool.directory.with_name(f"{self.spool.directory.name}-{dataset_digest[:12]}")
        fresh = replace(target, token=uuid.uuid4().hex, created_ms=_now_ms())
        self.spool, self.writer, self.known = _open_spool(Spool(directory), fresh)

    def make_ready(self) -> None:
        """Starts the shipper before the first event, so that the seconds it takes to import MLflow and create a database pass
        while the run does other work. It opens no MLflow run until the first event."""
        self.launch_shipper(await_events=True)

    def launch_shipper(self, *, await_events: bool = False) -> None:
        """Starts the shipper unless it has been started already."""
        if self.process is None and self.ships and not self._finished:
            self.process = _start_shipper(self.spool, self.credentials, subprocess.PIPE, self.linger_s, await_events=await_events)

    def wait_until_reached(self, timeout_s: float) -> None:
        """Returns once the MLflow run is open; raises ServiceError or PermissionDeniedError if it cannot be opened."""
        assert self.process is not None
        deadline, failing_since = time.monotonic() + timeout_s, math.inf
        while True:
            ended = self.process.poll() is not None
            progress = self.spool.progress()
            if progress.pid == self.process.pid:
                if progress.state == "shipping":
                    return
                if progress.state == "retrying":
                    failing_since = min(failing_since, time.monotonic())
                if progress.state == "refused" or time.monotonic() - failing_since > FAILING_S:
                    problem = progress.message or "no reason given"
                    break
            if ended or time.monotonic() > deadline:
                problem = f"MLflow at {self.uri} was not reached in {timeout_s:.0f} s; see {self.spool.log}"
                break
            time.sleep(0.05)
        self._kill_shipper()
        self.writer.close()
        advice = "tracking.required is true, so nothing was started; fix this, or set tracking.required=false"
        kind = PermissionDeniedError if progress.denied else ServiceError
        raise kind(f"{problem}; {advice}")

    def _append(self, event: Event) -> None:
        event = {"type": event["type"], "time": _now_ms(), **event}
        self.known.add(event)
        self.writer.append(event, time.monotonic())
        self.launch_shipper()

    def _append_once(self, event: Event) -> None:
        if identity(event) not in self.known.other:
            self._append(event)

    def _watch(self) -> None:
        """At most every `watch_every_s`: warns the first time MLflow is in trouble, and restarts a dead shipper."""
        now = time.monotonic()
        if now - self._watched_at < self.watch_every_s or self.process is None:
            return
        self._watched_at = now
        progress = self.spool.progress()
        if progress.state in ("retrying", "refused") and progress.pid == self.process.pid and not self._warned:
            self._warned = True
            logger.warning("tracking: %s; the run goes on, its curves are kept in %s", progress.message, self.spool.directory)
        self._replace_dead_shipper()

    def _replace_dead_shipper(self) -> None:
        """Restarts the shipper if it was killed before it had delivered everything."""
        if self.process is None or self.process.poll() is None or self._respawned >= RESPAWN_LIMIT:
            return
        progress = self.spool.progress()
        if progress.state != "refused" and progress.offset < self.spool.size():
            self._respawned += 1
            self._close_pipe()
            self.process = _start_shipper(self.spool, self.credentials, subprocess.PIPE, self.linger_s)

    def _let_shipper_drain(self, timeout_s: float, on_wait: Callable[[], object]) -> None:
        if self.process is None:
            return
        self._close_pipe()
        try:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(min(timeout_s, UNTOLD_S))
                return
            on_wait()
            self.process.wait(max(0.0, timeout_s - UNTOLD_S))
        except subprocess.TimeoutExpired:
            # An upload goes on by itself; waiting for a server that does not answer would only leave a process behind.
            state = self.spool.progress().state
            if state == "retrying" or (state == "connecting" and not self.uri.startswith("sqlite:")):
                self._kill_shipper()

    def _kill_shipper(self) -> None:
        if self.process is not None:
            self._close_pipe()
            self.process.kill()
            self.process.wait()

    def _close_pipe(self) -> None:
        if self.process is not None and self.process.stdin is not None:
            with suppress(OSError):
                self.process.stdin.close()


def sync(workdir: Path, tracking: Tracking | None = None, timeout_s: float = 60.0) -> list[TrackingState]:
    """Delivers what earlier runs of this workdir left undelivered; returns the state of each spool.

    Gives up on an address after `timeout_s` without success, however many spools wait for it, and starts nothing for spools
    without undelivered events. Credentials come from MLflow's environment variables, or from `tracking.uri` for the spools of
    that server.
    """
    uri = tracking_uri(tracking, workdir) if tracking else ""
    states, silent = list[TrackingState](), set[str]()
    for spool in spools(workdir):
        target, before = spool.target(), spool.progress().offset
        problem = None
        try:
            if target is not None and target.uri not in silent and spool.size() > before and not spool.has_shipper():
                began = time.monotonic()
                credentials = credentials_of(uri) if without_credentials(uri) == target.uri else {}
                _start_shipper(spool, credentials, subprocess.DEVNULL, timeout_s).wait()
                if time.monotonic() - began >= timeout_s and spool.progress().offset == before:
                    silent.add(target.uri)
        except OSError as error:  # the workdir is read-only, or another user's
            problem = f"the rest of it cannot be delivered from here: {spool.directory}: {error.strerror}"
        state = spool_state(spool)
        states.append(replace(state, complete=False, message=problem) if problem else state)
    return states


def _start_shipper(
    spool: Spool, credentials: Mapping[str, str], stdin: int, linger_s: float, *, await_events: bool = False
) -> subprocess.Popen[bytes]:
    """The shipper of a spool, started in its own session, so that Ctrl-C in the terminal reaches only the driver."""
    command = [sys.executable, "-P", "-m", "pipeline.tracking.shipper", str(spool.directory)]
    command += ["--driver-pid", str(os.getpid()), "--linger-s", str(linger_s)]
    command += ["--await-events"] if await_events else []
    environment = os.environ | dict(credentials)
    with open(open_inside(spool.directory, spool.log.name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK), "wb") as log:
        return subprocess.Popen(  # noqa: S603 - this Python, this package
            command, stdin=stdin, stdout=log, stderr=log, env=environment, cwd=spool.directory, start_new_session=True
        )


def _stamp(path: Path) -> list[list[Scalar]]:
    """Name, size and modification time of each file at `path`: an unchanged file is uploaded once."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def _text(value: Scalar) -> str:
    return without_credentials(str(value))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
