"""Workers with real connections that are all in this process, and tasks that run on several of them at the same time."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from distributed import Client, LocalCluster, Worker

from pipeline.cluster.presence import registered
from pipeline.exchange.attempts import PeerLostError
from pipeline.exchange.network import arrive

WORKERS = 4
ROW_FLOATS = 8
PATIENCE_S = 90.0
AT_ONCE_S = 30.0
"""Much less than PATIENCE_S, after which waiting ends anyway, and more than a busy machine holds a process up."""


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with (
        LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, processes=False, protocol="tcp", host="127.0.0.1",
            dashboard_address=":0", worker_dashboard_address=None, silence_logs=50,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):  # fmt: skip
        client.run(_invite)
        yield client


def _invite(dask_worker: Worker) -> None:
    arrive(dask_worker, "test")


def together(client: Client, function: Callable[..., Any], *arguments: Any, count: int = 2) -> list[Any]:
    """What function(key, addresses, participant, *arguments) gives on so many workers at the same time; an error is
    given back as its text."""
    addresses = sorted(registered(client))[:count]
    key = uuid.uuid4().hex
    futures = [
        client.submit(_guarded, function, key, addresses, index, *arguments, workers=[address], pure=False)
        for index, address in enumerate(addresses)
    ]
    return list(client.gather(futures))


def _guarded(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except PeerLostError as error:
        return str(error)
