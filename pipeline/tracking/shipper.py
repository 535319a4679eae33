"""The shipper: a process of its own that carries a tracking spool to MLflow (`python -m pipeline.tracking.shipper DIRECTORY`).

It is a process and not a thread because `import mlflow` takes 3 s of the interpreter's time and because MLflow's client
blocks (247 s on a closed port with its own settings): here neither is felt by training. The tracker starts it with a
pipe as its standard input. While the pipe is open it follows the spool; when the pipe closes, because the run finished
or the driver died, it ships what is left and ends. One shipper a spool: a second one waits for the first one's lock.

Who waits for it waits for a server that is at work, not for one that is away: once the run is over, one more try is made, and
when nothing has got through for `--linger-s` by then, it gives up. A server that was away all along delays a run by that try.

Nothing is counted as shipped before the server said so, and everything may be sent twice: points carry the time at
which they were spooled, parameters and tags are equal, files overwrite themselves, the run is looked up by the spool's
token before one is created.
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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pipeline.safety.locks import open_lock
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
    open_experiment,
    reopen,
    run_is_missing,
    ship,
)
from pipeline.tracking.spool import Delivered, Event, ShipperState, Spool, Target, read_events, without_credentials

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

REQUEST_TIMEOUT_S = 5
POLL_S = 0.25
FIRST_EVENT_POLL_S = 0.05
FOLLOW_S = 1.0
"""Between two batches of a running training: the curve in the UI is about this old."""
FIRST_BACKOFF_S = 0.5
LAST_BACKOFF_S = 30.0
LAST_BACKOFF_DRAINING_S = 2.0
ALONE_S = 60.0
"""How long it goes on trying without success when its driver is gone: nobody waits for it any more."""
WHOLE = "W2V_SHIPPER_WHOLE"
"""Set for a shipper that has MLflow with pandas."""
EXIT_DRAINED, EXIT_LEFT_OVER, EXIT_REFUSED = 0, 75, 77


def main(arguments: Sequence[str] | None = None) -> int:
    """Ships one spool; returns 0 when everything arrived, 75 when something is left over, 77 when refused."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.tracking.shipper", description="Ship a tracking spool to MLflow.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--driver-pid", type=int, required=True, help="the process whose run this is")
    parser.add_argument("--linger-s", type=float, default=60.0, help="end after so long without success when the run is over")
    parser.add_argument("--await-events", action="store_true", help="get ready, and open no MLflow run before the first event")
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
            make_ready(target)
        if options.await_events and not _is_needed(spool, owner):
            return EXIT_DRAINED
        return Shipper(spool, target, owner, options.linger_s, replace(spool.progress(), pid=os.getpid(), message=None)).work()


def client_environment(environment: os._Environ[str] | dict[str, str]) -> dict[str, str]:
    """Settings MLflow's client is started with, over `environment`: no telemetry unless asked for, no retries but ours."""
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
    """True once the run is over: the pipe was closed, or the driver died."""

    def wait(self, seconds: float, *, rest: bool = True) -> None:
        """Sleeps, but wakes at once when the owner lets go. `rest`: also sleeps on when it has, as after an error."""
        deadline = time.monotonic() + seconds
        while not self.released and (left := deadline - time.monotonic()) > 0:
            # The parent changes when the driver dies, also where a forked child of it still holds the pipe open.
            ready, _, _ = select.select([0], [], [], min(left, POLL_S))
            self.released = bool(ready and not os.read(0, 1)) or self.is_gone()
        if rest and self.released and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, LAST_BACKOFF_DRAINING_S))

    def is_gone(self) -> bool:
        return os.getppid() != self.pid

    def patience_s(self, linger_s: float) -> float:
        """How long to go on without success now that the run is over."""
        return max(linger_s, ALONE_S) if self.is_gone() else linger_s


def _acquire(lock: IO[bytes], owner: Owner, linger_s: float) -> bool:
    """Takes the spool's lock, waiting for an earlier shipper to finish; False when that takes too long."""
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
    """No garbage collection meanwhile: importing MLflow and mapping its tables makes none, and looking for it takes a fifth of
    the time. What is there afterwards stays to the end, and is never looked at again."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _is_needed(spool: Spool, owner: Owner) -> bool:
    """True with the first event, False when the run is over without one."""
    while spool.size() <= spool.progress().offset:
        if owner.released:
            return False
        owner.wait(FIRST_EVENT_POLL_S)
    return True


@dataclass
class Shipper:
    """One spool being carried over; everything it must remember is in the spool's own files."""

    spool: Spool
    target: Target
    owner: Owner
    linger_s: float
    progress: Delivered
    backoff_s: float = FIRST_BACKOFF_S
    success_at: float = field(default_factory=time.monotonic)
    reopened: bool = False
    last_type: str | None = None
    """Of the last event that was shipped."""

    def work(self) -> int:
        """Ships until the spool is drained and its owner has let go; returns the exit status."""
        client: MlflowClient | None = None
        run_id: str | None = None
        self.note("connecting", None)
        while self.spool.directory.exists():
            # Asked before reading: the pipe closes after the last event, so what is drained then is all there will be.
            released = self.owner.released
            try:
                client = client or connect(self.target)
                run_id = run_id or self.open_run(client)
                drained = self.ship_some(client, run_id)
                if drained and released:
                    self.mark_killed(client, run_id)
                    return EXIT_DRAINED
            except RunVanished:
                logger.info("run %s is not at the server any more; everything is shipped into a new run", run_id)
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
        """The exit status when trying again is no use, else None after a pause."""
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
        """Ends the run of a driver that died without a word, which MLflow would show as running for ever."""
        if self.owner.is_gone() and self.last_type not in (None, "finish"):
            client.set_terminated(run_id, status="KILLED")

    def note(self, state: ShipperState, message: str | None, **changes: Any) -> None:
        self.progress = replace(self.progress, state=state, message=message, **changes)
        self.spool.write_progress(self.progress)

    def advance(self, offset: int, skipped: int = 0) -> None:
        """Everything before `offset` is at the server."""
        self.note("shipping", None, offset=offset, skipped=self.progress.skipped + skipped)
        self.success_at = time.monotonic()

    def open_run(self, client: MlflowClient) -> str:
        """The id of this spool's MLflow run: the one in run.json, else the one with its token, else a new one."""
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
        """Ships about a megabyte of events; True when there is nothing more to ship."""
        events = read_events(self.spool, self.progress.offset)
        for batch, offset in batches(events):
            if not self.reopened and batch[0]["type"] != "finish":
                reopen(client, run_id)
                self.reopened = True
            self.advance(offset, self.ship_or_skip(client, run_id, batch))
            self.last_type = batch[0]["type"]
            self.reopened = self.reopened and self.last_type != "finish"
        return not events

    def ship_or_skip(self, client: MlflowClient, run_id: str, batch: Sequence[Event]) -> int:
        """Ships a batch; returns how many of its events the server will never take."""
        if batch[0]["type"] == "register":
            start_again_whole()
        try:
            ship(client, run_id, batch, self.spool)
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


# ── MLflow without pandas ────────────────────────────────────────────────────────────────────────────────────────────


def leave_out_pandas() -> None:
    """Has MLflow do without pandas, as its package mlflow-skinny does: a fourth less to import (1.4 s of processor).

    Only for a process that ships and does nothing else. Entering a model needs pandas: `start_again_whole`.
    """
    if WHOLE not in os.environ:
        sys.modules["pandas"] = None  # type: ignore[assignment]


def start_again_whole() -> None:
    """Becomes a shipper with all of MLflow if this one does without pandas; what was delivered is in the spool's files."""
    if "pandas" in sys.modules and sys.modules["pandas"] is None:
        os.environ[WHOLE] = "1"
        os.execv(sys.executable, [sys.executable, "-P", "-m", "pipeline.tracking.shipper", *sys.argv[1:]])  # noqa: S606


if __name__ == "__main__":
    leave_out_pandas()
    sys.exit(main())
