"""Which run may train: lanes merge many times a second, so only one of the runs on a scheduler trains at a time.

Otherwise two trainings could deadlock, each holding workers that the other needs. Tasks of other stages may run at any time. The
lease belongs to the driver's process. When a driver's connection ends, the scheduler releases the lease as soon as the workers
have forgotten the run (`guest`); when the driver falls silent, after half a minute. A driver that then speaks again looks before
each round, and waits for its turn anew.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pipeline.cluster.guest import TRAINING, Guest
from pipeline.exchange.host import user_name

if TYPE_CHECKING:
    from distributed import Client

_ASK_S = 2


class Turn:
    """This run's right to train on a scheduler: taken once, and held until `give_back`."""

    def __init__(self, client: Client, guest: Guest, on_note: Callable[[str], None], shared: bool = True) -> None:
        """`shared`: others may use the scheduler too."""
        self._client = client
        self._shared = shared
        self._departure = guest.departure
        self._on_note = on_note
        self._lease: Any = None

    def take(self) -> None:
        """Waits until no other run trains on this scheduler, noting who does if that takes a while."""
        if self._lease is not None:
            if not self._shared or self._client.run_on_scheduler(_holds(self._departure)):
                return
            self._on_note("the scheduler heard nothing of this run for so long that another may train now")
            self.give_back()
        from distributed import Semaphore

        lease = Semaphore(max_leases=1, name=TRAINING, scheduler_rpc=self._client.scheduler, loop=self._client.loop)
        said = False
        while not lease.acquire(timeout=_ASK_S):
            if not said:
                said = True
                holder = self._client.get_metadata([TRAINING], default="another run")
                self._on_note(f"{holder} is training on this cluster now; waiting for it to end (one training at a time)")
        self._lease = lease
        self._client.set_metadata([TRAINING], f"{user_name()} on {socket.gethostname()} (process {os.getpid()})")
        self._client.run_on_scheduler(_noting(self._departure))

    def give_back(self) -> None:
        """Releases the lease, so that the next run may train."""
        if self._lease is not None:
            with contextlib.suppress(Exception):  # the scheduler may be gone, and the lease with it
                self._lease.release()
            self._lease = None


def _noting(departure: str) -> Callable[..., None]:
    """A function that tells the run's plugin on the scheduler which lease to release: the first, which is this run's. Pickled by
    value, since the scheduler may not have this program."""
    training = TRAINING

    def note(dask_scheduler: Any) -> None:
        dask_scheduler.plugins[departure].lease = next(iter(dask_scheduler.extensions["semaphores"].leases[training]))

    return note


def _holds(departure: str) -> Callable[..., bool]:
    """A function that tells whether the run's lease is the first. A lease that has run out is put behind the others when its
    driver speaks again."""
    training = TRAINING

    def holds(dask_scheduler: Any) -> bool:
        leases = dask_scheduler.extensions["semaphores"].leases[training]
        return bool(next(iter(leases), None) == dask_scheduler.plugins[departure].lease)

    return holds
