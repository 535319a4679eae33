"""Fixtures of the tests that start clusters."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.tls_cluster import Bench, TlsCluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsCluster]:
    """A scheduler under TLS, without workers: a test starts its own and stops them."""
    cluster = TlsCluster(tmp_path_factory.mktemp("tls"))
    yield cluster
    cluster.stop()


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))
