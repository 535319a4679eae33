"""Workers that cannot take part in a run: they say why when they come (`guest`), and the run names them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from pipeline.cluster.guest import Guest
from pipeline.errors import ServiceError

ANSWER_S = 20.0
"""How long workers may take to say whether they can take part in a run that begins."""
_PAUSE_S = 0.05
There: TypeAlias = Mapping[str, Mapping[str, Any]]
"""The scheduler's records of workers, by address."""


class Unfit:
    """The workers that a run has left out, each named once. `events` returns the scheduler's events of a topic."""

    def __init__(self, events: Callable[[str], Any], guest: Guest, on_note: Callable[[str], None]) -> None:
        self._events, self._guest, self._on_note = events, guest, on_note
        self._named: dict[str, str] = {}

    def refuse(self, look: Callable[[], There]) -> None:
        """Raises ServiceError if any of the workers that `look` returns cannot take part, after waiting for all to say so."""
        until, unfit = time.monotonic() + ANSWER_S, dict[str, str]()
        while True:
            there = look()
            unfit |= self.new(there)
            if not self.undecided(there) - unfit.keys() or time.monotonic() > until:
                break
            time.sleep(_PAUSE_S)
        if unfit:
            raise ServiceError(f"{len(unfit)} of the workers cannot take part: {explained(unfit)}")

    def undecided(self, there: There) -> set[str]:
        """The workers that have no ticket and were not named. Paused ones are not among them: they get no task."""
        return {
            address
            for address, worker in there.items()
            if not worker["resources"].get(self._guest.ticket) and worker["status"] != "paused" and address not in self._named
        }

    def new(self, there: There) -> dict[str, str]:
        """{address: reason} of those that were not named."""
        if not (undecided := self.undecided(there)):
            return {}
        return {address: why for _, (address, why) in self._events(self._guest.refusals) if address in undecided}

    def name_new(self, there: There) -> None:
        """Notes those that came after the run had begun."""
        for address, why in self.new(there).items():
            self._named[address] = why
            self._on_note(f"left out 1 worker that cannot take part: {address} {why}")

    def among(self, there: There) -> dict[str, str]:
        """{address: reason} of the named ones that are still there."""
        return {address: why for address, why in self._named.items() if address in there}


def explained(unfit: Mapping[str, str]) -> str:
    """One of the workers, its reason, and what is required of every worker."""
    address, why = min(unfit.items())
    return (
        f"{address} {why}; every worker must see corpus and workdir under the same path and run the same version of this program "
        "(restart it after installing that)"
    )
