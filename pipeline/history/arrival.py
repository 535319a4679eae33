"""Access to a workdir, to work in it or to look at it: a folder directly, a place in a bucket through its local copy."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from pipeline import store
from pipeline.config import RunConfig
from pipeline.errors import ConfigError, PermissionDeniedError
from pipeline.history.latest import champion_of, link_latest
from pipeline.history.snapshot import link_artefacts, snapshots
from pipeline.safety.locks import WORKDIR_LOCK, held, holder, refuse_file
from pipeline.safety.values import why_unwritable
from pipeline.storage import lease
from pipeline.storage.copies import Copy, begin
from pipeline.storage.objects import require_bucket

PULL_LOCK = ".pull-lock"
"""Held by who brings a copy up to date to look at it; other lookers, and runs that begin, wait for that."""


@contextlib.contextmanager
def arrive(config: RunConfig) -> Iterator[None]:
    """Holds the workdir for this process while the block runs. Raises BusyError, naming the holder, and ConfigError for a path
    that summaries and manifests could not name."""
    if reason := why_unwritable(str(config.workdir)):
        raise ConfigError(f"run.workdir: {config.workdir} {reason}")
    if config.place is None:
        with store.lock(config.workdir):
            yield
        return
    copy = begin(config.place, config.storage)
    require_bucket(copy.place, copy.storage)
    with contextlib.ExitStack() as stack:
        with held(copy.root / PULL_LOCK, wait=True):
            stack.enter_context(store.lock(copy.root))
        stack.enter_context(lease.held(copy.place, copy.storage, copy.root))
        _pull(copy)
        yield


def look(config: RunConfig) -> RunConfig:
    """The configuration, with its workdir ready to be read: the copy of one in a bucket is brought up to date, unless a run on
    this machine is working in it and keeps it so. Raises PermissionDeniedError for a folder that this user may not read, which
    would otherwise look empty."""
    if config.place is None:
        refuse_file(config.workdir)
        if config.workdir.is_dir() and not os.access(config.workdir, os.R_OK | os.X_OK):
            raise PermissionDeniedError(
                f"{config.workdir}: this user may not read what is in it; change the rights of the folder"
            )
    else:
        copy = begin(config.place, config.storage)
        with held(copy.root / PULL_LOCK, wait=True):
            if holder(copy.root / WORKDIR_LOCK) is None:
                require_bucket(copy.place, copy.storage)
                _pull(copy)
    return config


def is_empty(config: RunConfig) -> bool:
    """Whether nothing is in the workdir, perhaps because its file system is not mounted. Who would only remove or change
    something there has nothing to do, and leaves no folder and no lock. Of a workdir in a bucket it is not known."""
    return config.place is None and not (config.workdir.is_dir() and any(config.workdir.iterdir()))


def _pull(copy: Copy) -> None:
    copy.pull()
    for snapshot in snapshots(copy.root):
        link_artefacts(snapshot.directory, snapshot.body["artefacts"].values())
    if champion := champion_of(copy.root):
        link_latest(copy.root, champion.id)
