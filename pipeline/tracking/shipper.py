"""The shipper: a separate process that delivers a tracking spool to MLflow (`python -m pipeline.tracking.shipper DIRECTORY`).

It is a process rather than a thread because `import mlflow` takes 3 s of interpreter time and MLflow's client blocks (247 s on
a closed port with its default settings); a process keeps both away from training. The tracker starts it with a pipe as its
standard input. While the pipe is open it follows the spool; when the pipe closes, because the run finished or the driver died,
it delivers the rest and exits. There is one shipper per spool: a second one waits for the first one's lock.

What earlier runs of the workdir left over for the same MLflow is delivered after that, by the same process.

A run's end waits for a server that is responding, not for one that is down: once the run is over, the shipper tries once more
and gives up if nothing has got through for `--linger-s`. A server that was down all along delays a run only by that attempt.

Events count as delivered only once the server has confirmed them, and everything may be sent twice: points carry the time at
which they were spooled, parameters and tags stay the same, files overwrite themselves, and a run is created only after
searching for one with the spool's token.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import gc
import logging
import os
import select
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import IO, TYPE_CHECKING, Any, TypeVar

from pipeline.safety.locks import HeldError, held, open_lock
from pipeline.tracking.delivery import (
    Refused,
    RunVanished,
    batches,
    cannot_be_taken,
    check_run,
    connect,
    explain,
    find_or_create_run,
    make_ready,
    may_be_a_collision,
    open_experiment,
    reopen,
    run_is_missing,
    ship,
)
from pipeline.tracking.spool import (
    Delivered,
    Event,
    ShipperState,
    Spool,
    Target,
    read_events,
    spools,
    without_credentials,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)
T = TypeVar("T")

REQUEST_TIMEOUT_S = 5
POLL_S = 0.25
FIRST_EVENT_POLL_S = 0.05
FOLLOW_S = 1.0
"""Pause between two batches while training runs: the curve in the UI lags by about this much."""
FIRST_BACKOFF_S = 0.5
LAST_BACKOFF_S = 30.0
LAST_BACKOFF_DRAINING_S = 2.0
COLLISION_PAUSES_S = (0.1, 0.5, 2.0)
"""Before a request is repeated that may have met another client's."""
ALONE_S = 60.0
"""How long it keeps trying without success after its driver has died, when nobody waits for it any more."""
WHOLE = "W2V_SHIPPER_WHOLE"
"""Set for a shipper that imports MLflow whole."""
LEFT_OUT = ("pandas", "numpy", "pygments")
"""What MLflow and Mako import if it is there, and do without."""
EXIT_DRAINED, EXIT_LEFT_OVER, EXIT_REFUSED = 0, 75, 77


def main(arguments: Sequence[str] | None = None) -> int:
    """Delivers one spool; returns 0 when everything arrived, 75 when something is left over, 77 when the server refuses."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.tracking.shipper", description="Ship a tracking spool to MLflow.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--driver-pid", type=int, required=True, help="the process whose run this is")
    parser.add_argument("--linger-s", type=float, default=60.0, help="after the run: give up after this long without success")
    parser.add_argument("--await-events", action="store_true", help="get ready, but open no MLflow run before the first event")
    options = parser.parse_args(arguments)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    os.umask(0o077)
    with contextlib.suppress(OSError):
        os.nice(10)
    spool = Spool(options.directory)
    target = spool.target()
    if target is None:
        logger.error("%s: no target.json, so this is no tracking spool", spool.directory)
        return 66
    owner = Owner(options.driver_pid)
    with open(open_lock(spool.lock), "ab") as lock:
        if not _acquire(lock, owner, options.linger_s):
            return EXIT_LEFT_OVER
        os.environ.update(client_environment(os.environ))
        with _uncollected():
            try:
                make_ready(target)
            except ImportError:
                start_again_whole()
        status = EXIT_DRAINED
        if not options.await_events or _is_needed(spool, owner):
            status = _deliver(spool, target, owner, options.linger_s)
    if status == EXIT_DRAINED:
        deliver_left_over(spool, target, owner, options.linger_s)
    return status


def _deliver(spool: Spool, target: Target, owner: Owner, linger_s: float) -> int:
    return Shipper(spool, target, owner, linger_s, replace(spool.progress(), pid=os.getpid(), message=None)).work()


def deliver_left_over(done: Spool, target: Target, owner: Owner, linger_s: float) -> None:
    """Delivers what earlier runs of the workdir could not tell the same MLflow, until it no longer answers.

    A refresh of other text has another spool, so nobody would come back to that of a night on which MLflow was away, and what
    it names is removed with its result.
    """
    for spool in spools(done.workdir):
        found = spool.target()
        if found is None or found.uri != target.uri or spool.size() <= spool.progress().offset or spool.directory.is_symlink():
            continue
        try:
            with held(spool.lock):
                status = _deliver(spool, found, owner, linger_s)
        except (HeldError, OSError):  # another shipper's, or another user's
            continue
        if status == EXIT_LEFT_OVER:
            return


def client_environment(environment: os._Environ[str] | dict[str, str]) -> dict[str, str]:
    """Environment variables for MLflow's client: no retries of its own, and no telemetry unless `environment` sets it."""
    settings = {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(REQUEST_TIMEOUT_S),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
        "MLFLOW_SKIP_PIP_REQUIREMENTS_CHECK": "true",
        "MLFLOW_UV_AUTO_DETECT": "false",
        "GIT_PYTHON_REFRESH": "quiet",
    }
    if "MLFLOW_DISABLE_TELEMETRY" not in environment and "DO_NOT_TRACK" not in environment:
        settings |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    return settings


@dataclass
class Owner:
    """The process that started this one, watched through the pipe on standard input and through its process id."""

    pid: int
    released: bool = False
    """Whether the run is over: the pipe was closed, or the driver died."""

    def wait(self, seconds: float, *, rest: bool = True) -> None:
        """Sleeps, waking as soon as the run is over. With `rest`, sleeps on even then, as after an error."""
        deadline = time.monotonic() + seconds
        while not self.released and (left := deadline - time.monotonic()) > 0:
            # The parent changes when the driver dies, even if a forked child still holds the pipe open.
            ready, _, _ = select.select([0], [], [], min(left, POLL_S))
            self.released = bool(ready and not os.read(0, 1)) or self.is_gone()
        if rest and self.released and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, LAST_BACKOFF_DRAINING_S))

    def is_gone(self) -> bool:
        return os.getppid() != self.pid

    def patience_s(self, linger_s: float) -> float:
        """How long to keep trying without success after the run is over."""
        return max(linger_s, ALONE_S) if self.is_gone() else linger_s


def _acquire(lock: IO[bytes], owner: Owner, linger_s: float) -> bool:
    """Whether the spool's lock was acquired, after waiting for an earlier shipper to finish; False if that takes too long."""
    released_at: float | None = None
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if owner.released:
                released_at = released_at or time.monotonic()
                if time.monotonic() - released_at > owner.patience_s(linger_s):
                    return False
            owner.wait(POLL_S)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Suspends garbage collection: importing MLflow and mapping its tables creates no garbage, and searching for it takes a fifth
    of the time. The objects created meanwhile stay to the end, so they are frozen."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _is_needed(spool: Spool, owner: Owner) -> bool:
    """Waits for the first event; True when there is one, False if the run ends without any."""
    while spool.size() <= spool.progress().offset:
        if owner.released:
            return False
        owner.wait(FIRST_EVENT_POLL_S)
    return True


@dataclass
class Shipper:
    """The delivery of one spool; everything that must be remembered is in the spool's own files."""

    spool: Spool
    target: Target
    owner: Owner
    linger_s: float
    progress: Delivered
    backoff_s: float = FIRST_BACKOFF_S
    success_at: float = field(default_factory=time.monotonic)
    reopened: bool = False
    last_type: str | None = None
    """Type of the last event delivered."""
    refused_again: bool = False
    """Whether repeating did not help once: what MLflow refuses then is no collision, and the next refusal is believed at once."""

    def work(self) -> int:
        """Delivers until the spool is drained and the run is over; returns the exit status."""
        client: MlflowClient | None = None
        run_id: str | None = None
        self.note("connecting", None)
        while self.spool.directory.exists():
            # Checked before reading: the pipe closes after the last event, so a spool drained after that is complete.
            released = self.owner.released
            try:
                client = client or connect(self.target)
                run_id = run_id or self.repeated(self.open_run, client)
                drained = self.ship_some(client, run_id)
                if drained and released:
                    self.mark_killed(client, run_id)
                    return EXIT_DRAINED
            except RunVanished:
                logger.info("run %s is gone from the server; delivering everything to a new run", run_id)
                run_id = None
                self.spool.forget_run()
                self.progress = replace(self.progress, offset=0, skipped=0)
                self.wait_longer()
            except Exception as error:
                if (status := self.give_up_or_wait(error)) is not None:
                    return status
            else:
                self.backoff_s, self.success_at = FIRST_BACKOFF_S, time.monotonic()
                if drained:
                    self.owner.wait(FOLLOW_S, rest=False)
        return EXIT_LEFT_OVER

    def give_up_or_wait(self, error: Exception) -> int | None:
        """The exit status if retrying cannot help, otherwise None after a pause."""
        if isinstance(error, ImportError):
            start_again_whole()
        problem = explain(error, self.target.uri)
        if isinstance(problem, Refused):
            self.note("refused", str(problem), denied=problem.denied)
            return EXIT_REFUSED
        logger.info("will try again: %s", problem)
        self.note("retrying", problem)
        if self.owner.released and time.monotonic() - self.success_at > self.owner.patience_s(self.linger_s):
            return EXIT_LEFT_OVER
        self.wait_longer()
        return None

    def wait_longer(self) -> None:
        self.owner.wait(self.backoff_s)
        self.backoff_s = min(2 * self.backoff_s, LAST_BACKOFF_DRAINING_S if self.owner.released else LAST_BACKOFF_S)

    def mark_killed(self, client: MlflowClient, run_id: str) -> None:
        """Ends the run of a driver that died without a finish event, which MLflow would show as running forever."""
        if self.owner.is_gone() and self.last_type not in (None, "finish"):
            client.set_terminated(run_id, status="KILLED")

    def note(self, state: ShipperState, message: str | None, **changes: Any) -> None:
        self.progress = replace(self.progress, state=state, message=message, **changes)
        self.spool.write_progress(self.progress)

    def advance(self, offset: int, skipped: int = 0) -> None:
        """Records that the server has everything before `offset`."""
        self.note("shipping", None, offset=offset, skipped=self.progress.skipped + skipped)
        self.success_at = time.monotonic()

    def open_run(self, client: MlflowClient) -> str:
        """The id of this spool's MLflow run: from run.json, else of the run with the spool's token, else of a new run."""
        run_id = self.spool.run_id()
        if run_id is not None:
            check_run(client, run_id)
        else:
            experiment_id = open_experiment(client, self.target)
            run_id = find_or_create_run(client, experiment_id, self.target)
            self.spool.write_run(run_id, experiment_id)
        self.note("shipping", None)
        return run_id

    def ship_some(self, client: MlflowClient, run_id: str) -> bool:
        """Delivers about a megabyte of events; True when there is nothing left to deliver."""
        events = read_events(self.spool, self.progress.offset)
        for batch, offset in batches(events):
            kind = batch[0]["type"]
            if not self.reopened and kind not in ("finish", "alias"):
                reopen(client, run_id)
                self.reopened = True
            self.advance(offset, self.ship_or_skip(client, run_id, batch))
            if kind != "alias":  # which is moved after the end of a run, and leaves it ended
                self.last_type = kind
            self.reopened = self.reopened and kind != "finish"
        return not events

    def ship_or_skip(self, client: MlflowClient, run_id: str, batch: Sequence[Event]) -> int:
        """Delivers a batch; returns how many of its events the server will never accept."""
        if batch[0]["type"] == "register":
            start_again_whole()
        try:
            self.repeated(ship, client, run_id, batch, self.spool)
        except Exception as error:
            if run_is_missing(error):
                check_run(client, run_id)
            if not cannot_be_taken(error):
                raise
            if len(batch) > 1:
                return sum(self.ship_or_skip(client, run_id, [event]) for event in batch)
            logger.warning("left out %s: %s", batch[0]["type"], without_credentials(str(error)))
            return 1
        return 0

    def repeated(self, request: Callable[..., T], *arguments: Any) -> T:
        """What `request` returns; one that may have met another client's is repeated first."""
        for pause_s in () if self.refused_again else COLLISION_PAUSES_S:
            try:
                return request(*arguments)
            except Exception as error:
                if not may_be_a_collision(error):
                    raise
                logger.info("will repeat what may have met another client's request: %s", without_credentials(str(error)))
                time.sleep(pause_s)
        try:
            return request(*arguments)
        except Exception as error:
            self.refused_again = self.refused_again or may_be_a_collision(error)
            raise


# ── MLflow with less to import ───────────────────────────────────────────────────────────────────────────────────────


def leave_out_unneeded() -> None:
    """Makes MLflow do without pandas and NumPy, as its package mlflow-skinny does, and without FastAPI, of which its client uses
    the name of one error: three tenths less to import (infra/benchmarks/records/text-to-vectors-2026-11-29.md).

    Only for a process that does nothing but deliver. What cannot be done this way is done after `start_again_whole`.
    """
    if WHOLE not in os.environ:
        sys.modules.update(dict.fromkeys(LEFT_OUT))  # type: ignore[arg-type]
        sys.modules["fastapi"] = stand_in = ModuleType("fastapi")
        vars(stand_in)["HTTPException"] = Exception


def start_again_whole() -> None:
    """Replaces this process by a shipper with everything, if it runs without; the spool's files say what has been delivered."""
    if "pandas" in sys.modules and sys.modules["pandas"] is None:
        os.environ[WHOLE] = "1"
        os.execv(sys.executable, [sys.executable, "-P", "-m", "pipeline.tracking.shipper", *sys.argv[1:]])  # noqa: S606


if __name__ == "__main__":
    leave_out_unneeded()
    sys.exit(main())
