"""A workdir where this process can work on it or look at it: a folder as it is, a place in a bucket by way of its copy."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from pipeline import store
from pipeline.config import RunConfig
from pipeline.history.latest import champion_of, link_latest
from pipeline.history.snapshot import link_artefacts, snapshots
from pipeline.safety.locks import WORKDIR_LOCK, HeldError, held
from pipeline.storage import lease
from pipeline.storage.copies import Copy, begin
from pipeline.storage.objects import require_bucket


@contextlib.contextmanager
def arrive(config: RunConfig) -> Iterator[None]:
    """The workdir belongs to this process as long as the block lasts. Raises BusyError, naming who works there."""
    if config.place is None:
        with store.lock(config.workdir):
            yield
        return
    copy = begin(config.place, config.storage)
    require_bucket(copy.place, copy.storage)
    with store.lock(copy.root), lease.held(copy.place, copy.storage, copy.root):
        _pull(copy)
        yield


def look(config: RunConfig) -> RunConfig:
    """The configuration, whose workdir can be looked at now: the copy of one in a bucket is brought up to date, unless a run of
    this machine works on it, which keeps it so."""
    if config.place:
        copy = begin(config.place, config.storage)
        with contextlib.suppress(HeldError), held(copy.root / WORKDIR_LOCK):
            _pull(copy)
    return config


def _pull(copy: Copy) -> None:
    copy.pull()
    for snapshot in snapshots(copy.root):
        link_artefacts(snapshot.directory, snapshot.body["artefacts"].values())
    if champion := champion_of(copy.root):
        link_latest(copy.root, champion.id)
