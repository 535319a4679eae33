"""Which run may train: lanes meet many times a second, so only one of the runs on a scheduler trains at a time.

Two trainings whose workers wait for each other's would each hold the workers that the other needs. Tasks of other stages may
run at any time. The lease belongs to the driver's process. When a driver's connection ends, the scheduler takes the lease back as
soon as the workers have forgotten the run (`guest`); when it falls silent, after half a minute.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pipeline.cluster.guest import TRAINING, Guest

if TYPE_CHECKING:
    from distributed import Client

_ASK_S = 2


class Turn:
    """This run's right to train on a scheduler: taken once, kept until it is given back."""

    def __init__(self, client: Client, guest: Guest, on_note: Callable[[str], None]) -> None:
        self._client = client
        self._departure = guest.departure
        self._on_note = on_note
        self._lease: Any = None

    def take(self) -> None:
        """Returns when no other run trains on this scheduler, and says who does if that takes a while."""
        if self._lease is not None:
            return
        from distributed import Semaphore

        lease = Semaphore(max_leases=1, name=TRAINING, scheduler_rpc=self._client.scheduler, loop=self._client.loop)
        said = False
        while not lease.acquire(timeout=_ASK_S):
            if not said:
                said = True
                holder = self._client.get_metadata([TRAINING], default="a run that has not said its name")
                self._on_note(f"{holder} trains on this cluster now; waiting for its end (one training at a time)")
        self._lease = lease
        self._client.set_metadata([TRAINING], f"{getpass.getuser()} on {socket.gethostname()} (process {os.getpid()})")
        self._client.run_on_scheduler(_noting(self._departure))

    def give_back(self) -> None:
        """Lets the next run train."""
        if self._lease is not None:
            with contextlib.suppress(Exception):  # the scheduler may be gone, and the lease with it
                self._lease.release()
            self._lease = None


def _noting(departure: str) -> Callable[..., None]:
    """Tells the run's plugin on the scheduler which lease to take back: there is one, and it is this run's. Travels by value: a
    scheduler may be without this program."""
    training = TRAINING

    def note(dask_scheduler: Any) -> None:
        (dask_scheduler.plugins[departure].lease,) = dask_scheduler.extensions["semaphores"].leases[training]

    return note
