"""Lanes on several hosts, on an existing scheduler under TLS: the same bits as in one process, whoever dies.

The "hosts" are workers on this machine with different values of W2V_HOST_KEY: they share no memory and exchange rows over
their connections, like workers on different machines.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cluster.opening import open_workers
from pipeline.cluster.state import WorkerState
from pipeline.cluster.workers import InProcess
from pipeline.config import Cluster
from pipeline.errors import ServiceError
from pipeline.progress import Progress
from pipeline.run import run
from pipeline.training.lanes import HeldLanes
from pipeline.training.placement import choose_workers
from tests.cluster.disturbed import Bench
from tests.cluster.tls_cluster import TlsCluster


@pytest.mark.turns(10, 12, of="hosts")
def test_a_run_on_an_existing_tls_scheduler_with_two_hosts_gives_the_bits_of_one_process(
    cluster: TlsCluster, bench: Bench
) -> None:
    for host in ("a", "b", "b"):
        cluster.start_worker(host)
    with cluster.connect(workers=3) as workers:
        assert [member.host for member in choose_workers(workers.members(), 4)] == ["a", "b", "b"]
    address: dict[str, object] = {"kind": "address", "address": cluster.address, "tls": cluster.tls}
    summary = run(bench.config("whole", cluster=address), progress=Progress(quiet=True))
    assert summary["vectors"]["sha256"] == bench.digest


@pytest.mark.turns(10, 14, of="hosts")
def test_three_hosts_that_become_two_in_the_middle_of_a_round_give_the_same_bits(
    cluster: TlsCluster, bench: Bench, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    for host in ("a", "b", "b", "c"):
        cluster.start_worker(host, f"step:0.9.6=kill,{token}")
    with cluster.connect(workers=4) as workers:
        assert bench.train("killed", workers) == bench.digest
        assert token.exists(), "the failpoint was never reached"
        assert [member.host for member in workers.members()] == ["a", "b", "b"]


@pytest.mark.turns(10, 12, of="hosts")
def test_odd_lanes_on_workers_with_one_two_and_five_threads_give_the_bits_of_one_process(
    cluster: TlsCluster, bench: Bench
) -> None:
    odd: dict[str, object] = {"lanes": 7, "copies": 3, "merge_bits": 8}
    bench.prepare("odd-here")
    here = bench.resume("odd-here", InProcess(), train=odd)["vectors"]["sha256"]
    for host, threads in (("a", 1), ("b", 2), ("b", 5)):
        cluster.start_worker(host, threads=threads)
    with cluster.connect(workers=3) as workers:
        bench.prepare("odd-there")
        assert bench.resume("odd-there", workers, train=odd)["vectors"]["sha256"] == here


def test_after_training_a_process_holds_no_lanes_any_more(bench: Bench) -> None:
    state = WorkerState()
    assert bench.train("released", InProcess(state=state)) == bench.digest
    assert state.of(HeldLanes).group is None


def test_a_driver_without_certificates_is_turned_away(cluster: TlsCluster) -> None:
    with (
        pytest.raises(ServiceError, match=r"check cluster.address and cluster.tls"),
        open_workers(Cluster(kind="address", address=cluster.address.replace("tls:", "tcp:"), wait_s=5)),
    ):
        pass
