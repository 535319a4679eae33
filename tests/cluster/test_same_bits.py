"""One worker or three, killed or not, at any place: the vectors do not change by one bit.

`make test` takes a few of the kills, by a seed that it prints (W2V_SEED=n replays it); `make chaos` takes all.
"""

from __future__ import annotations

import random
import signal

import pytest

from pipeline.cluster.workers import InProcess
from pipeline.config import parse_config
from pipeline.progress import Progress
from pipeline.run import run
from pipeline.training import plan
from tests.cluster.disturbed import Bench, wait_for
from tests.cluster.kills import KILLS, Kill, disturb, disturb_at_random
from tests.sampling import SEED, sample
from tests.tiny import IN_THREADS
from w2v_core.kernels import checks


def sampled(victims: str, stages: str, count: int) -> list[Kill]:
    found = [kill for kill in KILLS if kill.victim in victims.split("|") and kill.stage in stages.split("|")]
    return random.Random(SEED).sample(found, count)


SAMPLE = [
    *sampled("itself", "tokenize|vocab|shards", 1),
    *sampled("itself", "train", 2),
    *sampled("itself", "evaluate|publish", 1),
    *sampled("driver|all workers", "tokenize|vocab|shards|train", 2),
    *sampled("scheduler", "tokenize|vocab|shards|train", 1),
]


@pytest.mark.parametrize("workers", sample([1, 3]))
@pytest.mark.turns(5, 6)
def test_the_number_of_workers_changes_nothing(bench: Bench, workers: int) -> None:
    bench.assert_same(bench.config_file(f"workers-{workers}", cluster={"n_workers": workers}))


def test_threads_of_the_driver_instead_of_workers_change_nothing(bench: Bench) -> None:
    bench.assert_same(bench.config_file("threads", cluster=IN_THREADS))


@pytest.mark.turns(10, 11)
def test_lanes_that_share_one_copy_give_the_same_bits_in_threads_on_workers_and_after_kills(bench: Bench) -> None:
    shared: dict[str, object] = {"lanes": 8, "copies": 1}
    here = run(bench.config("shared", train=shared), until="train", workers=InProcess(), progress=Progress(quiet=True))
    assert (here["train"]["copies"], here["train"]["merged_bytes"]) == (1, 0)
    expected, token = here["vectors"]["sha256"], bench.directory / "shared.token"
    threads = bench.config("shared-threads", train=shared)
    summary = run(threads, until="train", workers=InProcess(threads=3), progress=Progress(quiet=True))
    assert summary["vectors"]["sha256"] == expected
    config = bench.config_file("shared-workers", before="train", train=shared, cluster={"n_workers": 3})
    # One worker trains, with the threads of all three; when it is killed another one does.
    killed = bench.finish(config, failpoint=f"step:1.5.6=kill,{token}")
    assert token.exists(), "the failpoint was never reached"
    assert killed.summary["vectors"]["sha256"] == expected


def test_what_is_too_long_for_one_call_of_the_kernels_gives_the_same_bits_with_any_number_of_threads(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (plan, checks):
        monkeypatch.setattr(module, "MOST_LANE_TARGETS", 150)
    digests = [bench.train(f"long-{threads}", InProcess(threads=threads)) for threads in (1, 3)]
    assert digests[0] == digests[1] != bench.digest


@pytest.mark.parametrize("kill", SAMPLE, ids=str)
@pytest.mark.turns(10, 11)
def test_a_killed_process_changes_nothing(bench: Bench, kill: Kill) -> None:
    print(f"sampled with W2V_SEED={SEED}")
    row = disturb(bench, kill, f"killed-{SAMPLE.index(kill)}")
    assert not row.problem, row.problem


@pytest.mark.turns(10, 12)
def test_a_run_hit_at_random_moments_comes_to_the_same_bits(bench: Bench) -> None:
    row = disturb_at_random(bench, SEED, "random")
    print(row.case)
    assert not row.problem, row.problem


@pytest.mark.turns(10, 10)
def test_a_second_run_on_the_same_workdir_is_told_to_wait(bench: Bench) -> None:
    config = bench.config_file("twice", before="train")
    token = bench.directory / "twice.token"
    with bench.w2v(config, failpoint=f"round:1.0=stop,{token}") as first:
        wait_for(token, first)
        second = bench.finish(config)
        assert second.code == 73
        assert "another run is working here" in second.err
        first.send_signal(signal.SIGCONT)
        out, _ = first.communicate(timeout=200)
    assert bench.digest in out


@pytest.mark.turns(5, 4)
def test_a_changed_setting_rebuilds_exactly_the_stages_that_read_it(bench: Bench) -> None:
    def cached(**sections: dict[str, object]) -> list[str]:
        config = parse_config(bench.tree("changed", **sections))
        summary = run(config, workers=InProcess(), progress=Progress(quiet=True))
        return [name for name, stage in summary["stages"].items() if not stage["cached"]]

    assert cached() == ["tokenize", "vocab", "shards", "train", "evaluate", "publish"]
    assert cached() == []
    assert cached(evaluate={"queries": ["topic2word1"]}) == ["evaluate"]
    assert cached(publish={"formats": ["npy"]}) == ["publish"]
    assert cached(train={"alpha": 0.04}) == ["train", "evaluate", "publish"]
    assert cached(shards={"window": 3}) == ["shards", "train", "evaluate", "publish"]
    assert cached(vocab={"min_count": 3}) == ["vocab", "shards", "train", "evaluate", "publish"]
    assert cached(tokenize={"lowercase": False}) != []
    assert cached(cluster={"wait_s": 60.0}, run={"name": "other"}) == []
