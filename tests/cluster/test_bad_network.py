"""Networks that are slow, cut in two, or cut off the driver: no one waits for ever, and no bit changes.

All processes are real and speak TLS; proxies between them hold back what is sent, without telling anyone, like a network that
has been cut in the middle.
"""

from __future__ import annotations

import contextlib
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.workdir import verify_workdir
from tests.cluster.bad_network import Detour, Proxy
from tests.cluster.disturbed import Bench, end_of, files_of, stopped_at
from tests.cluster.tls_cluster import TlsCluster
from tests.sampling import SEED, sample

pytestmark = pytest.mark.slow
WAIT_S = 5


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[TlsCluster]:
    cluster = TlsCluster(tmp_path)
    yield cluster
    cluster.stop()


@pytest.fixture
def detour(cluster: TlsCluster) -> Iterator[Detour]:
    detour = Detour(cluster.address)
    yield detour
    detour.close()


@pytest.mark.parametrize("how", sample(["cut-off", "deaf", "mute"]))
@pytest.mark.turns(10, 20)
def test_a_worker_cut_off_in_the_middle_of_a_round_is_given_up_and_changes_nothing_when_the_network_is_back(
    bench: Bench, cluster: TlsCluster, detour: Detour, tmp_path: Path, how: str
) -> None:
    """Deaf: what it sends arrives. Mute: what is sent to it arrives."""
    config = bench.config_file(how, before="train", cluster=cluster.section | {"silent_s": 2})
    cluster.start_worker("a")
    cut_off = cluster.start_worker("b", f"step:1.3.6=stop,{tmp_path / 'token'}", detour=detour)
    cluster.wait_for_workers(2)
    with bench.w2v(config) as process:
        there = stopped_at(tmp_path / "token", process)
        detour.hold(sent=how != "deaf", received=how != "mute")
        there.resume()
        ended = end_of(process)
    assert ended.summary["vectors"]["sha256"] == bench.digest
    before = files_of(bench.directory / how)
    detour.release()
    cluster.wait_until_done(cut_off, workers=2)
    assert files_of(bench.directory / how) == before
    assert verify_workdir(bench.directory / how)[1] == []


@pytest.mark.turns(10, 14)
def test_a_slow_network_makes_a_run_slow_and_nobody_dead(bench: Bench, cluster: TlsCluster, detour: Detour) -> None:
    detour.delay(0.03)
    config = bench.config_file("slow", before="train", cluster=cluster.section)
    cluster.start_worker("a")
    cluster.start_worker("b", detour=detour)
    cluster.wait_for_workers(2)
    ended = bench.finish(config)
    assert ended.summary["vectors"]["sha256"] == bench.digest
    assert ended.summary["train"]["memory"]["hosts"] == 2
    assert "lost" not in ended.err


@pytest.mark.turns(10, 16)
def test_a_network_that_comes_and_goes_changes_nothing(bench: Bench, cluster: TlsCluster, detour: Detour) -> None:
    print(f"moments of W2V_SEED={SEED}")
    moments = random.Random(SEED)
    config = bench.config_file("clogged", before="train", cluster=cluster.section | {"silent_s": 2})
    cluster.start_worker("a")
    cluster.start_worker("b", detour=detour)
    cluster.wait_for_workers(2)
    with bench.w2v(config) as process:
        for _ in range(4):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(moments.uniform(0.1, 1.0))
            detour.hold()
            time.sleep(moments.uniform(0.1, 2.7))
            detour.release()
        ended = end_of(process)
    # It may have been lost too often in a row; then it says so.
    assert ended.code in (0, 75), ended.err
    bench.assert_same(config)


@pytest.mark.parametrize("how", sample(["held", "cut"]))
@pytest.mark.turns(10, 17)
def test_a_driver_cut_off_from_its_cluster_ends_with_75_and_the_same_command_continues(
    bench: Bench, cluster: TlsCluster, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A scheduler that does not notice the end of a driver grants the right to train to the next one once the lease has run out.
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__LOCKS__LEASE_TIMEOUT", "6s")
    between = Proxy(cluster.address)
    section = cluster.section | {"address": between.address, "silent_s": 2, "wait_s": WAIT_S}
    config = bench.config_file(f"driver-{how}", before="train", cluster=section)
    for _ in range(2):
        cluster.start_worker("", f"step:1.3.0=stop,{tmp_path / 'token'}")
    cluster.wait_for_workers(2)
    with bench.w2v(config) as process:
        there = stopped_at(tmp_path / "token", process)
        if how == "held":
            between.hold()
        else:
            between.close()
        there.resume()
        cut_off = time.monotonic()
        ended = end_of(process)
    assert ended.code == 75, ended.err
    assert time.monotonic() - cut_off < 2 * WAIT_S + 10
    assert "run the same command again, it continues" in ended.err
    config.write_text(config.read_text().replace(between.address, cluster.address))
    bench.assert_same(config)
    if how == "held":
        between.close()
