"""Admission of workers to a run: each proves that it can take part before it gets work, and forgets the run when it is over.

Each run registers one plugin on every worker. The plugin checks that the worker has the driver's source files and sees its
workdir and corpus; only then it calls the run's hooks and gives the worker the run's *ticket*, a Dask resource that every task of
the run requires. So a worker that joins later and is unfit gets no work from this run, and goes on working for others; it says
why in an event on the scheduler.

The plugin is pickled by value, so that a worker without this program can load it and say so. When the driver's connection ends,
in order or by SIGKILL, the scheduler removes the plugin from all workers, which release what they kept for the run.
"""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cluster.sources import source_digest
from pipeline.cluster.state import state_of
from pipeline.storage.copies import join
from pipeline.storage.local_files import copy_of

if TYPE_CHECKING:
    from distributed import SchedulerPlugin, Worker, WorkerPlugin

TRAINING = "w2v-training"
"""The semaphore whose single lease a run holds while it trains (`turn`)."""
Hook = tuple[Callable[["Worker", Any], None], Any]
"""A module-level function, and its argument besides the worker."""
Proof = tuple[Callable[[Any], str | None], Any]
"""A module-level function that returns why a machine cannot take part, None if it can; and its argument."""
TASKS_AT_ONCE = 1 << 20
RELEASE_S = 60.0
"""How long a worker that is to forget a run waits for the run's last task; after that, what it keeps is left to the next run."""


@dataclass(frozen=True)
class Guest:
    """The run, as known to workers and scheduler."""

    run: str
    sources: str
    """Digest that a worker's source files must have; empty if they are this machine's own."""
    seen: Path | None
    """A file in the workdir that only this run has written; None if no folder is shared."""
    bucket: tuple[str, bytes, str] | None = None
    """The arguments of `storage.copies.join` for a workdir in a bucket."""

    @property
    def plugin(self) -> str:
        return f"w2v-{self.run}"

    @property
    def departure(self) -> str:
        """Name of the scheduler's plugin."""
        return f"w2v-{self.run}-departure"

    @property
    def ticket(self) -> str:
        """The resource of the workers that may work for this run."""
        return f"w2v-{self.run}"

    @property
    def topic(self) -> str:
        """The topic of messages from this run's tasks to its driver."""
        return f"w2v-{self.run}"

    @property
    def refusals(self) -> str:
        """The topic under which workers that cannot take part say why: (address, reason)."""
        return f"w2v-{self.run}-refusals"


def arrival_plugin(guest: Guest, hooks: Sequence[Hook], proofs: Sequence[Proof] = ()) -> WorkerPlugin:
    """The plugin for every worker, including those that come later. Its `refusal` says why a worker gets no work, or is None."""
    from distributed import WorkerPlugin

    from pipeline.exchange import network

    # Unpickled only if the program is the same, since hooks are pickled by reference.
    calls = pickle.dumps([(network.arrive, guest.run), *hooks])
    leave, asked = pickle.dumps((forget, guest.run)), pickle.dumps([*_sees_workdir(guest), *proofs])
    digest_of_sources, ours = source_digest(), guest.sources
    ticket, tasks_at_once, refusals = guest.ticket, TASKS_AT_ONCE, guest.refusals

    class Arrival(WorkerPlugin):
        name = guest.plugin

        def __init__(self) -> None:
            self.refusal: str | None = "has not been checked yet"

        async def setup(self, worker: Any) -> None:
            import pickle

            self.refusal = self.why_not()
            if self.refusal is not None:
                worker.log_event(refusals, [worker.contact_address or worker.address, self.refusal])
                return
            for function, argument in pickle.loads(calls):  # noqa: S301 - from the driver, as every task is
                function(worker, argument)
            await worker.set_resources(**{ticket: tasks_at_once})

        def why_not(self) -> str | None:
            found = digest_of_sources() if ours else ours
            if found != ours:
                return f"has other source files of this program ({found or 'none'}) than the driver ({ours})"
            import pickle

            return next(filter(None, (proof(argument) for proof, argument in pickle.loads(asked))), None)  # noqa: S301

        async def teardown(self, worker: Any) -> None:
            import pickle

            if self.refusal is None:
                self.refusal = "the run is over"
                await worker.set_resources(**{ticket: 0})
                function, argument = pickle.loads(leave)  # noqa: S301
                await function(worker, argument)

    return Arrival()


def _sees_workdir(guest: Guest) -> list[Proof]:
    if guest.bucket is not None:
        return [(_why_no_bucket, guest.bucket)]
    return [] if guest.seen is None else [(_why_no_workdir, (str(guest.seen), guest.run))]


def _why_no_workdir(asked: tuple[str, str]) -> str | None:
    seen, run = asked
    try:
        with open(seen, encoding="ascii") as file:
            return None if file.read() == run else f"sees another {seen} than the driver"
    except OSError as error:
        return f"does not see what the driver wrote to {seen} ({error.strerror})"


def _why_no_bucket(bucket: tuple[str, bytes, str]) -> str | None:
    return join(*bucket)


async def forget(worker: Worker, run: str) -> None:
    """Releases what the worker kept, once its last task has ended and if no other run uses it."""
    import asyncio
    import time

    from pipeline.exchange import network

    network.leave(worker, run)
    deadline = time.monotonic() + RELEASE_S
    while worker.state.executing and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
    if not worker.state.executing and not network.has_guests(worker):
        state_of(worker).release()


def departure_plugin(guest: Guest, client_id: str, closes_after_s: float | None = None) -> SchedulerPlugin:
    """The plugin for the scheduler. It tells the driver which of its tasks were lost with a worker. When the driver's connection
    ends, it removes the run's plugin from all workers and then, if the run trained, releases its lease, so that the next run may
    train. With `closes_after_s`, the scheduler then closes itself and its workers after so many seconds: for a cluster of this
    run alone, which the driver would have closed."""
    from distributed import SchedulerPlugin

    plugin, own, training, topic, losses = guest.plugin, guest.departure, TRAINING, guest.topic, _losses()

    class Departure(SchedulerPlugin):
        name = own
        lease: str | None = None

        async def start(self, scheduler: Any) -> None:
            self.threads = {address: there.nthreads for address, there in scheduler.workers.items()}

        def add_worker(self, scheduler: Any, worker: str) -> None:
            self.threads[worker] = scheduler.workers[worker].nthreads

        def remove_worker(self, scheduler: Any, worker: str, **_: Any) -> None:
            driver, threads = scheduler.clients.get(client_id), self.threads.pop(worker, 1)
            if driver is not None and (told := losses(scheduler, worker, {task.key for task in driver.wants_what}, threads)):
                scheduler.log_event(topic, told)

        def remove_client(self, scheduler: Any, client: str) -> None:
            import asyncio

            async def clean() -> None:
                if plugin in scheduler.worker_plugins:
                    await scheduler.unregister_worker_plugin(None, name=plugin)
                semaphores = scheduler.extensions["semaphores"]
                if self.lease in semaphores.leases.get(training, ()):
                    semaphores.release(name=training, lease_id=self.lease)
                if own in scheduler.plugins:
                    await scheduler.unregister_scheduler_plugin(name=own)
                if closes_after_s is not None:
                    await asyncio.sleep(closes_after_s)
                    await scheduler.close(reason="its driver is gone")

            if client == client_id:
                self.cleaning = asyncio.ensure_future(clean())

    return Departure()


def _losses() -> Callable[[Any, str, set[Any], int], dict[str, Any] | None]:
    """A function that returns the message about a worker that was just lost: which of the tasks `wanted` were on it, and which of
    these it was working on, since it takes tasks in the order of their priority: none if it announced its end, as nannies let it
    do for batch systems, autoscalers and people, since then no task is to blame. The scheduler gives the tasks to others. Pickled
    by value, since the scheduler may not have this program."""

    def announced(events: Sequence[Any]) -> bool:
        for _, event in reversed(events):
            if isinstance(event, dict) and event.get("action") in ("worker-status-change", "add-worker"):
                return str(event.get("status")).startswith("closing")
        return False

    def losses(scheduler: Any, worker: str, wanted: set[Any], threads: int) -> dict[str, Any] | None:
        events = scheduler.get_events(worker)
        said = events[-1][1] if events else {}
        given = [scheduler.tasks[key] for key in said.get("processing-tasks", ()) if key in scheduler.tasks]
        lost = sorted(map(str, wanted & {*said.get("processing-tasks", ()), *said.get("lost-computed-tasks", ())}))
        first = [] if announced(events) else sorted(given, key=lambda task: task.priority)[:threads]
        begun = [str(task.key) for task in first if task.key in wanted]
        return {"worker": worker, "lost": lost, "begun": begun} if lost else None

    return losses


@contextlib.contextmanager
def sign_of_life(workdir: Path | None, run: str) -> Iterator[tuple[Path | None, tuple[str, bytes, str] | None]]:
    """(`Guest.seen`, `Guest.bucket`): a file in the workdir, or an object in its bucket, by which workers prove that they see the
    workdir; removed at the end."""
    if workdir is None:
        yield None, None
        return
    name = f".seen-by-{run}"
    if copy := copy_of(workdir):
        with copy.sign(name) as invitation:
            yield None, invitation
        return
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / name
    path.write_text(run, encoding="ascii")
    try:
        yield path, None
    finally:
        path.unlink(missing_ok=True)
