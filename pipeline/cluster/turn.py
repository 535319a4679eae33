"""Whose turn it is to train: lanes meet many times a second, so of the runs on one scheduler one trains at a time.

Two trainings whose workers wait for each other's would each hold the workers that the other needs. Tasks of other stages may
run at any time. The lease belongs to the driver's process: one that is killed loses it after half a minute.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distributed import Client

_NAME = "w2v-training"
_ASK_S = 2


class Turn:
    """This run's right to train on a scheduler: taken once, kept until it is given back."""

    def __init__(self, client: Client, on_note: Callable[[str], None]) -> None:
        self._client = client
        self._on_note = on_note
        self._lease: Any = None

    def take(self) -> None:
        """Returns when no other run trains on this scheduler, and says who does if that takes a while."""
        if self._lease is not None:
            return
        from distributed import Semaphore

        lease = Semaphore(max_leases=1, name=_NAME, scheduler_rpc=self._client.scheduler, loop=self._client.loop)
        said = False
        while not lease.acquire(timeout=_ASK_S):
            if not said:
                said = True
                holder = self._client.get_metadata([_NAME], default="a run that has not said its name")
                self._on_note(f"{holder} trains on this cluster now; waiting for its end (one training at a time)")
        self._lease = lease
        self._client.set_metadata([_NAME], f"{getpass.getuser()} on {socket.gethostname()} (process {os.getpid()})")

    def give_back(self) -> None:
        """Lets the next run train."""
        if self._lease is not None:
            with contextlib.suppress(Exception):  # the scheduler may be gone, and the lease with it
                self._lease.release()
            self._lease = None
