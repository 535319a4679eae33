"""The workers of a Dask cluster as `Workers`: finished, lost and silent tasks become results and errors."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from pipeline.cluster.endings import ENDED_FULL, Ending, Endings, Pieces, cancel
from pipeline.cluster.guest import Guest
from pipeline.cluster.messages import Listener, Mailbox, heard_by, ignore
from pipeline.cluster.presence import Presence, restart
from pipeline.cluster.state import Item, Result, Task, run_task, state_of
from pipeline.cluster.turn import Turn
from pipeline.cluster.unfit import Unfit, explained
from pipeline.cluster.workers import Member, WorkerLostError
from pipeline.errors import PipelineError, ServiceError, TemporaryError, counted
from pipeline.exchange.attempts import Attempts
from pipeline.exchange.host import host_key
from pipeline.failpoints import reach

if TYPE_CHECKING:
    from distributed import Client, Future

PRESENCE_CHECK_S = 0.5
SAY_AFTER_S = 10.0
"""How long no worker may be ready before the run notes it."""
BUSY_S = 10.0
"""How long a round waits for a worker that is busy with others' tasks."""
_PAUSE_S = 0.1


class DaskWorkers:
    """The workers of a Dask cluster, through one client."""

    def __init__(
        self, client: Client, guest: Guest, wait_s: float, silent_s: float = 30.0, *,
        own: bool = True, asked_for: int = 0, on_note: Callable[[str], None] = lambda text: None,
        trouble: Callable[[], str | None] = lambda: None,
    ) -> None:  # fmt: skip
        """`own`: the cluster was started for this run; other clusters' workers are never restarted. `asked_for`: how many workers
        were requested. `trouble`: why no more workers will come, None while some may."""
        self.client = client
        self.guest = guest
        self.turn = Turn(client, guest, on_note, shared=not own)
        self._own = own
        self._asked_for = asked_for
        self._on_note = on_note
        self._trouble = trouble
        self.wait_s = wait_s
        self._presence = Presence(silent_s)
        self._scheduler = ""
        """Its id, from the first answer on."""
        self._lost: set[str] = set()
        """The workers that are silent or stuck."""
        self._unfit = Unfit(self._events, guest, on_note)
        self._busy: dict[str, Future[tuple[str, str]]] = {}
        self._mailbox = Mailbox(client, guest.topic)

    def map(
        self,
        task: Task[Item, Result],
        items: Sequence[Item],
        *,
        label: str,
        on_done: Callable[[Result], None] | None = None,
    ) -> list[Result]:
        pieces = Pieces(self.client, self.guest.ticket, task, items, label)
        waiting, before, told = _Waiting(self.wait_s, self._on_note), set[str](), set[str]()

        def tell_of_loss(gone: Iterable[str]) -> None:
            if new := sorted(set(gone) - told):
                told.update(new)
                self._on_note(f"{label}: {_lost(new)}; other workers repeat the lost tasks")

        # Dask repeats lost tasks by itself, often before this process has seen that a worker is missing.
        hear_of_losses = self._mailbox.hand_over_to(lambda message: tell_of_loss(pieces.lost_in(message)))
        try:
            with _dask_errors(label):
                while not pieces.done:
                    ended = pieces.next(PRESENCE_CHECK_S)
                    hear_of_losses()
                    pieces.repeat_suspects(len(before))
                    if ended:
                        waiting.begin_anew()
                        if on_done:
                            on_done(ended[0])
                        continue
                    # A scheduler that is not ours may wait for a worker forever.
                    there = self._answering()
                    able = self._able(there)
                    tell_of_loss(before - there.keys())
                    before = set(able)
                    if able:
                        waiting.begin_anew()
                        pieces.offer_to(able)
                    elif waiting.is_over():
                        raise self._no_worker(label, there)
                    else:
                        self._expect_more()
                    self._unfit.name_new(there)
                    if not self._own:
                        pieces.give_to_others(self._lost, list(able))
                if pieces.guilty:
                    raise pieces.deadly({event["worker"] for _, event in self._events(ENDED_FULL)})
        except BaseException:
            pieces.cancel()
            raise
        return pieces.results

    def _able(self, there: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
        """The responding workers that may work for this run and are not paused."""
        return {
            address: worker
            for address, worker in there.items()
            if worker["status"] in ("running", "init") and worker["resources"].get(self.guest.ticket)
        }

    def refuse_unfit(self) -> None:
        """Raises ServiceError if any current worker cannot take part, naming one and why."""
        self._unfit.refuse(self._answering)

    def members(self) -> list[Member]:
        with _dask_errors("looking for workers"):
            self._answering()  # or the turn would be asked for of a scheduler that was started anew
            self.turn.take()
        waiting = _Waiting(self.wait_s, self._on_note)
        while True:
            with _dask_errors("looking for workers"):
                there = self._answering()
                able = self._able(there)
                self._unfit.name_new(there)
                known = self._identities(able)
            if known:
                # Sorted by host first, so that neighbours in lane order share memory if they can.
                found = [Member(address, host, able[address]["nthreads"], own) for address, (host, own) in known.items()]
                self._tell_who_is_missing(len(found))
                return sorted(found, key=lambda member: (member.host, member.address))
            if waiting.is_over() and not self._busy:
                raise self._no_worker("looking for workers", there)
            self._expect_more()
            time.sleep(_PAUSE_S)

    def _expect_more(self) -> None:
        """Raises ServiceError if no more workers will come."""
        if why := self._trouble():
            raise ServiceError(why)

    def _tell_who_is_missing(self, came: int) -> None:
        """Notes once, at the first training, if fewer workers have come than were requested."""
        if came < self._asked_for:
            self._on_note(f"{came} of {self._asked_for} workers have come; training begins, and those that come later join it")
        self._asked_for = 0

    def _no_worker(self, what: str, there: Mapping[str, Mapping[str, Any]]) -> PipelineError:
        again = "run the same command again, it continues"
        paused = sorted(address for address, worker in there.items() if worker["status"] == "paused")
        if paused:
            full = counted(len(paused), "workers|worker are|is there, paused because their|its memory is full")
            return TemporaryError(f"{what}: {full} ({paused[0]} …); free some or start others, and {again}")
        if unfit := self._unfit.among(there):
            return ServiceError(
                f"{what}: no worker there can take part ({counted(len(unfit), 'workers|worker')}): {explained(unfit)}"
            )
        none = f"none of {self._asked_for} workers" if self._asked_for else "no worker"
        return TemporaryError(f"{what}: {none} came within {self.wait_s:g} s (cluster.wait_s); start workers and {again}")

    def _identities(self, addresses: Collection[str]) -> dict[str, tuple[str, str]]:
        """{address: (host key, process)} of the workers that respond. On a cluster of others, a worker that is busy with their
        tasks is not waited for longer than BUSY_S, if another responds; it may join a later round."""
        for address in [address for address, asked in self._busy.items() if asked.done() or address not in addresses]:
            del self._busy[address]
        # As tasks, not as a broadcast, which would wait for a worker that dies meanwhile.
        asked = {
            self.client.submit(_identity, workers=[address], pure=False, key=f"who-{uuid.uuid4().hex[:12]}"): address
            for address in addresses
            if address not in self._busy
        }
        known: dict[str, tuple[str, str]] = {}
        for future, ending in self._pinned_endings(dict(asked), patience_s=None if self._own else BUSY_S):
            address = asked.pop(future)
            if ending:
                known[address] = ending.result()
        for future, address in asked.items():
            self._busy[address] = future
            self._on_note(f"{address} is busy with others' tasks; the round begins without it, and it joins a later one")
        return known

    def together(
        self,
        task: Task[Item, Result],
        items: Sequence[Item],
        members: Sequence[Member],
        on_message: Listener | None = None,
    ) -> list[Result]:
        hand_over = self._mailbox.hand_over_to(on_message) if on_message else None
        key, topic = "round-{}".format, self.guest.topic if on_message else None
        futures = {
            self.client.submit(
                _take_part, task, item, topic, member, key=key(uuid.uuid4().hex[:12]), pure=False, workers=[member.address]
            ): member.address
            for item, member in zip(items, members, strict=True)
        }
        results: dict[Future[Any], Result] = {}
        lost: TemporaryError | None = None
        try:
            for future, ending in self._pinned_endings(futures, hand_over):
                try:
                    if not ending:
                        raise WorkerLostError(_lost_part(futures[future]))
                    with _dask_errors("training"):
                        results[future] = ending.result()
                except TemporaryError as error:
                    if not lost:
                        # One loss stops the others too; wait for them, since one of them may report the real reason.
                        lost = error
                        self._abandon(futures)
            if lost:
                raise lost
            return [results[future] for future in futures]
        except BaseException:
            cancel(self.client, list(futures))
            raise

    def _abandon(self, attempt: Iterable[Future[Any]]) -> None:
        """Notifies all workers, without waiting for them, that not all participants of an attempt will come."""
        names = [str(future.key) for future in attempt]

        def tell() -> None:
            with contextlib.suppress(Exception):  # it only spares the others some waiting
                self.client.run(_abandon_here, names, on_error="ignore")

        # In a thread, because a broadcast waits for a worker that dies meanwhile.
        threading.Thread(target=tell, name="abandon", daemon=True).start()

    def _pinned_endings(
        self, addresses: Mapping[Future[Any], str], meanwhile: Callable[[], None] | None = None, patience_s: float | None = None
    ) -> Iterator[tuple[Future[Any], Ending | None]]:
        """(task, ending) in the order in which they end; the ending is None if its worker is gone, silent or stuck. After
        `patience_s`, if any has ended, the others are not waited for.

        A task pinned to a worker that died would wait for that address forever (and one allowed elsewhere is forgotten if for a
        moment there is no worker at all), and so would a finished result that has not been fetched yet.
        """
        endings = Endings(self.client, addresses)
        waiting, has_ended, began = set(addresses), False, time.monotonic()
        while waiting:
            ended = endings.next(PRESENCE_CHECK_S)
            if meanwhile:
                meanwhile()
            if ended:
                if ended[0] in waiting:
                    waiting.remove(ended[0])
                    has_ended = True
                    yield ended
                continue
            if has_ended and patience_s is not None and time.monotonic() - began > patience_s:
                return
            with _dask_errors("training"):
                there = self._answering()
            for future in [future for future in waiting if addresses[future] in self._lost or addresses[future] not in there]:
                waiting.remove(future)
                yield future, None

    def _answering(self) -> dict[str, Mapping[str, Any]]:
        """The scheduler's records of the responding workers, by address."""
        self._expect_scheduler()
        found = self._ask_scheduler()
        self._expect_scheduler()
        self._scheduler = self._scheduler or found["id"]
        if found["id"] != self._scheduler:
            raise WorkerLostError(
                "the scheduler was started anew and knows nothing of this run; run the same command again, it continues"
            )
        workers = found["workers"]
        answering = self._presence.answering(workers, time.monotonic())
        stuck = self._presence.stuck
        before, self._lost = self._lost, (workers.keys() - answering.keys()) | stuck
        # On another user's cluster, a silent worker may be busy with that user's task.
        if self._own and (new := sorted(self._lost - before)):
            if stuck := stuck & {*new}:
                self._on_note(f"{min(stuck)} does nothing since its memory is full, and is started again")
            restart(self.client, new)
        return answering

    def _ask_scheduler(self) -> dict[str, Any]:
        """The scheduler's state and workers, as from Client.scheduler_info, which would wait forever on a network that drops
        packets."""
        scheduler: Any = self.client.scheduler
        return cast(dict[str, Any], self._ask(scheduler.identity, n_workers=-1))

    def _events(self, topic: str) -> Any:
        scheduler: Any = self.client.scheduler
        return self._ask(scheduler.events, topic=topic)

    def _ask(self, function: Callable[..., Any], **arguments: Any) -> Any:
        """The scheduler's answer. Raises WorkerLostError if none comes in time."""
        try:
            return self.client.sync(function, callback_timeout=self.wait_s, **arguments)
        except OSError as error:  # a TimeoutError is one too
            why = str(error) or f"nothing came within {self.wait_s:g} s (cluster.wait_s)"
            raise WorkerLostError(
                f"the scheduler does not answer ({why}); check that it runs and can be reached, and run the same command again, "
                "it continues"
            ) from None

    def _expect_scheduler(self) -> None:
        # A restarted scheduler knows nothing of our tasks, and until it is queried the client returns stale data.
        if self.client.status != "running":
            raise WorkerLostError(
                "the connection to the scheduler was lost; check that it runs and run the same command again, it continues"
            )


class _Waiting:
    """Waiting for a worker that can take tasks: has a deadline, and notes once that it takes long."""

    def __init__(self, wait_s: float, on_note: Callable[[str], None]) -> None:
        self._wait_s, self._on_note = wait_s, on_note
        self.begin_anew()

    def begin_anew(self) -> None:
        self._since, self._said = time.monotonic(), False

    def is_over(self) -> bool:
        waited = time.monotonic() - self._since
        if waited > SAY_AFTER_S and not self._said and self._wait_s > 2 * SAY_AFTER_S:
            self._said = True
            self._on_note(f"no worker is ready; waiting for one, {self._wait_s:g} s at most (cluster.wait_s)")
        return waited > self._wait_s


def _lost(addresses: Sequence[str]) -> str:
    """What to report of workers that have disappeared."""
    if len(addresses) == 1:
        return f"the worker at {addresses[0]} went away or fell silent"
    return f"{len(addresses)} workers went away or fell silent ({', '.join(addresses[:3])}{' …' if addresses[3:] else ''})"


def _lost_part(address: str) -> str:
    return f"a worker went away or fell silent before its part of the round was done ({address})"


def _take_part(task: Task[Item, Result], item: Item, topic: str | None, member: Member) -> Result:
    from distributed import get_worker

    reach("part", "begins")
    worker = get_worker()
    if worker.id != member.process:
        # Dask gives a lost worker's task to the next process at its address, which the driver would not notice.
        raise WorkerLostError(f"{_lost_part(member.address)}, and another came to its address")
    state = state_of(worker)
    with (
        state.of(Attempts).part_of(str(worker.get_current_task())),
        heard_by(functools.partial(worker.log_event, topic) if topic else ignore),
    ):
        return run_task(task, item, state)


def _abandon_here(names: Sequence[str], dask_worker: Any) -> None:
    state_of(dask_worker).of(Attempts).abandon(names)


def _identity() -> tuple[str, str]:
    from distributed import get_worker

    return host_key(), str(get_worker().id)


@contextlib.contextmanager
def _dask_errors(what: str) -> Iterator[None]:
    """Converts Dask's own errors to ours; errors of the tasks pass through."""
    from distributed import KilledWorker
    from distributed.client import FutureCancelledError, FuturesCancelledError
    from distributed.comm.core import CommClosedError
    from distributed.scheduler import NoValidWorkerError

    try:
        yield
    except KilledWorker as error:
        raise TemporaryError(
            f"{what}: the same task took down {error.allowed_failures + 1} workers one after the other; check the workers' logs "
            "(memory?), then run the same command again, it continues"
        ) from error
    except NoValidWorkerError as error:
        raise TemporaryError(f"{what}: no worker is left and none came back; run the same command again, it continues") from error
    except (FutureCancelledError, FuturesCancelledError, CommClosedError) as error:
        raise WorkerLostError(
            f"{what}: the connection to the cluster was lost; run the same command again, it continues"
        ) from error
