"""A lease on a place in a bucket, since buckets have no locks: each run puts an object there and renews it while it lives.

    <place>/.lease/<name>.json      process and machine; its modification time in the bucket is the last sign of life

A run that wants the lease watches the existing claims until none has changed for LEASE_S by its own clock, puts its own claim,
lists again, and backs off if there is another. Listings show every completed put, so of two simultaneous runs at least one sees
the other. infra/decisions/0025-buckets.md says what this does not guarantee.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import BusyError, InputError, PipelineError, TemporaryError, printable
from pipeline.options.storage import Storage
from pipeline.safety.files import json_object
from pipeline.storage.addresses import Address
from pipeline.storage.objects import ListedObject, listing, put_object, read_object, remove_object

RENEW_S, LEASE_S, LOOK_S = 10.0, 45.0, 1.0
CLAIMS, UNTIL = ".lease", ".lease-until"


@contextlib.contextmanager
def held(place: Address, storage: Storage, root: Path, on_note: Callable[[str], None] = lambda text: None) -> Iterator[None]:
    """Holds the place for this process, which already holds the lock of its copy `root`. Raises BusyError, naming the holder."""
    who = f"pid {os.getpid()} on {socket.gethostname()}"
    here = f"{socket.gethostname()}:{root}"
    _wait_for_others(place, storage, here, on_note)
    name = f"{CLAIMS}/{uuid.uuid4().hex}.json"
    claim = json.dumps({"who": who, "here": here}).encode()
    put_object(place / name, claim, storage)
    stop = threading.Event()
    renewing = threading.Thread(target=_renew, args=(place / name, claim, storage, root, stop), name="lease", daemon=True)
    try:
        if others := [other for other in _claims(place, storage) if not other.key.endswith(name)]:
            raise _busy(place, storage, others[0])
        note_until(root)
        renewing.start()
        yield
    finally:
        stop.set()
        if renewing.is_alive():
            renewing.join()
        (root / UNTIL).unlink(missing_ok=True)
        with contextlib.suppress(PipelineError):
            remove_object(place / name, storage)


def require(root: Path) -> None:
    """Raises TemporaryError if this process held the place and may have lost it."""
    try:
        pid, _, until = (root / UNTIL).read_text().partition(" ")
    except FileNotFoundError:
        return
    if int(pid) == os.getpid() and _now() > float(until):
        raise TemporaryError(
            f"this run could not renew its lease in the bucket for {LEASE_S:.0f} s, so another may be working there; run it again"
        )


def holder(place: Address, storage: Storage) -> str | None:
    """The run that holds the place, or was killed less than LEASE_S ago; None if there is none."""
    return next((_who(place, storage, claim) for claim in _claims(place, storage)), None)


def _wait_for_others(place: Address, storage: Storage, here: str, on_note: Callable[[str], None]) -> None:
    """Returns when no live claim is left; raises BusyError for one that was renewed."""
    first = {claim.key: claim.modified_ns for claim in _claims(place, storage)}
    deadline, told = _now() + LEASE_S, False
    while first:
        for claim in _claims(place, storage):
            body = _body(place, storage, claim)
            # From this machine, without the lock of the copy: dead.
            if body.get("here") == here or (_now() > deadline and first.get(claim.key) == claim.modified_ns):
                remove_object(place.at(claim.key), storage)
            elif first.get(claim.key) != claim.modified_ns:
                raise _busy(place, storage, claim)
            elif not told:
                told = True
                on_note(f"{place}: {_who(place, storage, claim)} was working here; waiting {LEASE_S:.0f} s for a sign of life")
        first = {key: seen for key, seen in first.items() if key in {claim.key for claim in _claims(place, storage)}}
        if first:
            time.sleep(LOOK_S)


def _claims(place: Address, storage: Storage) -> list[ListedObject]:
    return list(listing(place / CLAIMS, storage))


def _body(place: Address, storage: Storage, claim: ListedObject) -> dict[str, Any]:
    try:
        return json_object(read_object(place.at(claim.key), storage))
    except (FileNotFoundError, ValueError, InputError):
        return {}


def _who(place: Address, storage: Storage, claim: ListedObject) -> str:
    return printable(str(_body(place, storage, claim).get("who", "somebody")), 120)


def _busy(place: Address, storage: Storage, claim: ListedObject) -> BusyError:
    who = _who(place, storage, claim)
    return BusyError(f"{place}: another run is working here ({who}); wait for it or choose another run.workdir")


def _renew(address: Address, claim: bytes, storage: Storage, root: Path, stop: threading.Event) -> None:
    while not stop.wait(RENEW_S):
        with contextlib.suppress(PipelineError, OSError):
            started = _now()
            put_object(address, claim, storage)
            note_until(root, started)


def note_until(root: Path, renewed: float | None = None) -> None:
    """Notes how long the lease on the copy `root` holds, for `require`: counted from `renewed`, by default from now."""
    until = (_now() if renewed is None else renewed) + LEASE_S - RENEW_S
    # Replaced whole: while the lease is renewed, threads that put files read it.
    fresh = root / f"{UNTIL}.{uuid.uuid4().hex[:12]}.tmp"
    fresh.write_text(f"{os.getpid()} {until}")
    os.replace(fresh, root / UNTIL)


def _now() -> float:
    """Monotonic seconds, including the time that the machine was suspended."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)
