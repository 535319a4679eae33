"""The memory plan names every need and every limit that is too low, and it matches what training really takes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.cluster.opening import open_workers
from pipeline.cluster.room import DriverRoom, Room, free_memory, measure_room
from pipeline.cluster.workers import InProcess
from pipeline.config import Cluster, load_config, parse_config
from pipeline.errors import CapacityError, amount
from pipeline.progress import Progress
from pipeline.run import run
from pipeline.stream.sizes import HELD_TOKENS, KEPT_BYTES, PART_BYTES, PIECE_TOKENS, STREAM_BYTES
from pipeline.training.arithmetic import numbers_of
from pipeline.training.capacity import (
    CHECKPOINTS_AT_ONCE,
    MemoryPlan,
    TrainingSizes,
    check_room,
    describe,
    explain_shortfalls,
    plan_memory,
)
from pipeline.training.placement import AHEAD, PIECE_BYTES, Place
from tests.roots import write_files
from tests.tiny import tiny_config, write_corpus

GB = 10**9
MILLION = TrainingSizes(
    vocab_size=1_000_000, vector_size=300, row_floats=304, lanes=8, copies=8, lane_tokens=50_000_000,
    epoch_tokens=400_000_000, epochs=5,
    window=5, noise_bytes=1 << 26,
)  # fmt: skip
PAIR = 2 * 1_000_000 * 304 * 4
AMPLE = Room(used=GB // 4, limit=None, limit_name="no limit", host=1000 * GB, shared=1000 * GB, shared_place="/dev/shm")
AMPLE_DRIVER = DriverRoom(memory=1000 * GB, disk=1000 * GB, workdir="runs/large")


def places_on(*hosts: str, lanes: int = 8) -> tuple[Place, ...]:
    count = len(hosts)
    return tuple(
        Place(
            address=f"tcp://{index}", host=host, threads=1,
            first_copy=lanes * index // count, last_copy=lanes * (index + 1) // count,
        )
        for index, host in enumerate(hosts)
    )  # fmt: skip


def rooms_of(plan: MemoryPlan, room: Room = AMPLE) -> dict[str, Room]:
    return {worker.address: room for worker in plan.workers}


def test_a_host_holds_one_copy_a_lane_and_the_base_whether_its_workers_are_one_or_many() -> None:
    alone = plan_memory(MILLION, places_on("a"))
    assert alone.hosts[0].shared_bytes == 0
    assert 9 * PAIR < alone.hosts[0].private_bytes < 9 * PAIR + 1 * GB
    together = plan_memory(MILLION, places_on(*"aaaa"))
    assert together.hosts[0].shared_bytes == 9 * PAIR
    assert together.hosts[0].private_bytes < 5 * GB
    assert plan_memory(replace(MILLION, lanes=1, copies=1), places_on("a", lanes=1)).hosts[0].private_bytes < PAIR + 1 * GB


def test_lanes_that_share_a_copy_need_little_more_than_one_copy() -> None:
    """32 lanes on one host may take two copies of the parameters and 64 MB per lane."""
    sizes = replace(MILLION, vocab_size=500_000, vector_size=100, row_floats=104, lanes=32, copies=1, noise_bytes=4_000_000)
    (host,) = plan_memory(sizes, places_on("a", lanes=1)).hosts
    assert host.shared_bytes == 0
    assert host.private_bytes < 2 * sizes.pair_bytes + 32 * (64 << 20)


def test_the_needs_of_several_hosts_are_their_own_lanes_and_the_blocks_they_fold() -> None:
    two_hosts = plan_memory(MILLION, places_on(*"aabb"))
    assert [host.shared_bytes for host in two_hosts.hosts] == [5 * PAIR, 5 * PAIR]
    needs = dict(two_hosts.workers[0].private)
    assert needs["rows of 4 copies on other hosts in a merge"] == 4 * AHEAD * PIECE_BYTES
    assert "rows of 4 copies on other hosts in a merge" not in dict(plan_memory(MILLION, places_on(*"aaaa")).workers[0].private)


def test_a_worker_is_resident_with_its_lanes_the_base_and_the_rows_it_folds_at_most_the_whole_host() -> None:
    for workers in range(2, 9):
        plan = plan_memory(MILLION, places_on(*"a" * workers))
        for worker, place in zip(plan.workers, places_on(*"a" * workers), strict=True):
            shared = sum(size for what, size in worker.touched if not what.startswith("mapped shards"))
            assert (1 + len(place.copies)) * PAIR < shared <= 9 * PAIR


@pytest.mark.parametrize(
    ("epochs", "corpus", "epoch_tokens", "kept"),
    [(5, 1000, 100, 1600), (5, 10 * GB, 100, KEPT_BYTES), (5, 1000, GB, KEPT_BYTES), (2, 1000, 100, 600), (1, 1000, 100, None)],
)  # fmt: skip
def test_what_a_worker_may_keep_for_the_next_epoch_is_planned(
    epochs: int, corpus: int, epoch_tokens: int, kept: int | None
) -> None:
    plan = plan_memory(replace(MILLION, epochs=epochs, sentence_bytes=corpus, epoch_tokens=epoch_tokens), places_on("a", "b"))
    assert [dict(worker.private).get("the corpus, kept for the next epoch") for worker in plan.workers] == [kept, kept]


def test_the_stream_of_a_later_epoch_is_in_memory_a_stretch_at_a_time() -> None:
    few, many = (replace(MILLION, epochs=2, lane_tokens=tokens, epoch_tokens=8 * tokens) for tokens in (1000, 10**8))
    for sizes, most in ((few, 8000 * STREAM_BYTES), (many, (HELD_TOKENS + 2 * (5 + PIECE_TOKENS)) * STREAM_BYTES)):
        (worker,) = plan_memory(sizes, places_on("a")).workers
        assert dict(worker.private)["a later epoch's stream for 8 lanes"] == 8 * most
    (worker,) = plan_memory(replace(MILLION, epochs=1), places_on("a")).workers
    assert not any("later epoch" in what for what, _ in worker.private)


def test_the_parts_that_threads_draw_from_at_a_time_are_planned() -> None:
    (place,) = places_on("a")
    for threads, corpus, planned in ((1, GB, None), (2, GB, PART_BYTES), (64, GB, 7 * PART_BYTES), (64, 1000, 7000)):
        (worker,) = plan_memory(replace(MILLION, sentence_bytes=corpus), [replace(place, threads=threads)]).workers
        assert next((size for what, size in worker.private if "draw from" in what), None) == planned


def test_what_fits_is_not_refused() -> None:
    plan = plan_memory(MILLION, places_on(*"aabb"))
    check_room(plan, rooms_of(plan), AMPLE_DRIVER)


def test_the_line_on_memory_says_how_many_of_the_workers_train() -> None:
    def begins(hosts: str, present: int) -> str:
        plan = plan_memory(MILLION, places_on(*hosts))
        return describe(plan, rooms_of(plan), present).partition(", ")[0]

    assert re.fullmatch(r"memory: 4 workers with up to [\d.]+ GB each", begins("aabb", 4))
    assert re.fullmatch(r"memory: 2 of 4 workers with up to [\d.]+ GB each", begins("ab", 4))
    assert re.fullmatch(r"memory: 1 of 2 workers with up to [\d.]+ GB", begins("a", 2))
    assert re.fullmatch(r"memory: 1 worker with up to [\d.]+ GB", begins("a", 1))


def test_a_worker_limit_below_the_need_is_refused_with_both_numbers_the_largest_needs_and_a_way_out() -> None:
    plan = plan_memory(MILLION, places_on(*"aabb"))
    need = plan.workers[0].resident_bytes + AMPLE.used
    enough = rooms_of(plan, replace(AMPLE, limit=need, limit_name="the size at which Dask pauses it"))
    check_room(plan, enough, AMPLE_DRIVER)
    little = replace(AMPLE, limit=need - 1, limit_name="the size at which Dask pauses it")
    with pytest.raises(CapacityError) as refused:
        check_room(plan, rooms_of(plan) | {"tcp://0": little}, AMPLE_DRIVER)
    assert refused.value.exit_code == 71
    lines = str(refused.value).splitlines()
    assert len(lines) == 2
    assert f"worker tcp://0 needs {amount(need)} (parameters of 2 copies 4.9 GB, " in lines[1]
    assert f"but the size at which Dask pauses it is {amount(need - 1)}: raise its memory limit" in lines[1]
    assert "lower train.lanes, train.vector_size or vocab.max_size" in lines[1]


def test_every_limit_that_is_too_low_is_named_at_once() -> None:
    plan = plan_memory(MILLION, places_on(*"aab"))
    tight = replace(AMPLE, limit=GB, limit_name="the limit", host=10 * GB, shared=64 << 20)
    found = explain_shortfalls(plan, rooms_of(plan, tight), DriverRoom(memory=1 << 20, disk=GB, workdir="runs/large"))
    assert len(found) == 3 + 2 + 1 + 1 + 1
    shared = amount(plan.hosts[0].shared_bytes)
    together = "the 2 workers on the host of tcp://0 together need"
    assert f"{together} shared memory for parameters of {shared}, but /dev/shm has 67 MB free: enlarge it" in "\n".join(found)
    assert f"runs/large: training needs {amount(plan.disk_bytes)} of disk (checkpoints " in found[-1]
    assert any(line.startswith("the driver needs 431 MB (the vocabulary 330 MB") for line in found)


def test_a_limit_of_files_below_a_matrix_is_named_with_the_worker_that_has_it() -> None:
    plan = plan_memory(MILLION, places_on(*"aa"))
    enough, little = replace(AMPLE, file=plan.file_bytes), replace(AMPLE, file=plan.file_bytes - 1)
    assert explain_shortfalls(plan, rooms_of(plan, enough), AMPLE_DRIVER) == []
    (line,) = explain_shortfalls(plan, rooms_of(plan, enough) | {"tcp://1": little}, AMPLE_DRIVER)
    assert line.startswith("worker tcp://1 may write files of up to 1.2 GB, but a matrix has 1.2 GB: raise the limit (ulimit -f)")


def test_a_host_is_judged_by_the_most_that_any_of_its_workers_saw_free() -> None:
    plan = plan_memory(MILLION, places_on(*"aa"))
    later = replace(AMPLE, host=GB)
    assert explain_shortfalls(plan, rooms_of(plan) | {"tcp://1": later}, AMPLE_DRIVER) == []
    (line,) = explain_shortfalls(plan, rooms_of(plan, later), AMPLE_DRIVER)
    assert f"the host or container has {amount(GB)}" in line


def test_a_run_without_workers_is_called_this_process() -> None:
    (place,) = places_on("a")
    plan = plan_memory(MILLION, [replace(place, address=InProcess().members()[0].address)])
    (line,) = explain_shortfalls(plan, rooms_of(plan, replace(AMPLE, host=GB)), AMPLE_DRIVER)
    assert line.startswith("this process needs ")
    assert "the host or container has 1.0 GB: add hosts or memory" in line


def test_the_disk_holds_three_checkpoints_or_two_and_the_vectors() -> None:
    disk = dict(plan_memory(MILLION, places_on("a")).disk)
    assert disk.keys() == {"checkpoints"}
    assert disk["checkpoints"] >= CHECKPOINTS_AT_ONCE * PAIR


def test_the_driver_holds_the_vocabulary_and_the_words_that_analogies_are_looked_for_in_but_no_matrix() -> None:
    places = places_on("a")
    assert plan_memory(MILLION, places).driver_bytes < MILLION.vocab_size * 300 * 4
    usual = plan_memory(replace(MILLION, analogy_words=30_000), places).driver_bytes
    assert usual - plan_memory(MILLION, places).driver_bytes == 30_000 * (300 + 1024) * 4


def test_the_layered_engine_is_planned_with_its_optimizer() -> None:
    sizes = replace(MILLION, layers=True, lanes=1, copies=1)
    sgd, adam = (plan_memory(replace(sizes, moments=moments), places_on("a", lanes=1)) for moments in (0, 2))
    state = 2 * 1_000_000 * 300 * 4
    assert adam.workers[0].private_bytes - sgd.workers[0].private_bytes == 3 * 2 * state
    assert adam.hosts[0].shared_bytes == 0


def test_a_container_gives_what_the_tightest_of_its_control_groups_leaves(tmp_path: Path) -> None:
    write_files(
        tmp_path, **{"proc/meminfo": "MemTotal: 64000 kB\nMemAvailable: 50000 kB\n", "proc/self/cgroup": "0::/job/step\n"}
    )
    assert free_memory(tmp_path) == 50000 * 1024
    group = "sys/fs/cgroup/job"
    write_files(tmp_path, **{f"{group}/memory.max": "9000", f"{group}/memory.current": "5000"})
    write_files(tmp_path, **{f"{group}/memory.stat": "anon 3000\ninactive_file 1500\n"})
    write_files(tmp_path, **{f"{group}/step/memory.max": "max\n", f"{group}/step/memory.current": "1"})
    assert free_memory(tmp_path) == 9000 - 5000 + 1500


def test_control_groups_of_the_first_version_count_too(tmp_path: Path) -> None:
    write_files(tmp_path, **{"proc/self/cgroup": "9:cpu:/x\n4:memory:/docker/abc\n"})
    group = "sys/fs/cgroup/memory"
    write_files(tmp_path, **{f"{group}/memory.limit_in_bytes": "7000", f"{group}/memory.usage_in_bytes": "6500"})
    write_files(tmp_path, **{f"{group}/memory.stat": "total_inactive_file 100\n"})
    assert free_memory(tmp_path) == 600


def test_this_process_has_memory_left_and_no_limit_of_dask() -> None:
    room = measure_room()
    assert room.limit is None
    assert room.used > 10 << 20
    assert room.shared > 0


def test_a_run_states_its_plan_and_puts_it_into_the_summary(tmp_path: Path) -> None:
    inputs = write_corpus(tmp_path / "corpus", sentences=800)
    lines: list[str] = []

    class Listening(Progress):
        def line(self, text: str) -> None:
            lines.append(text)

    config = parse_config(tiny_config(tmp_path / "run", inputs, tracking={"enabled": False}))
    summary = run(config, until="train", workers=InProcess(), progress=Listening(quiet=True))
    assert sum(line.startswith("train: memory: 1 worker with up to ") for line in lines) == 1
    memory = summary["train"]["memory"]
    assert memory["workers"] == 1
    assert memory["worker_bytes"] == sum(memory["worker_needs"].values())
    assert run(config, until="train", workers=InProcess(), progress=Progress(quiet=True))["train"]["memory"] == memory


@pytest.fixture(scope="module")
def wide_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30,000 different words, each three times."""
    path = tmp_path_factory.mktemp("wide") / "corpus.txt"
    path.write_text("".join(" ".join(f"word{(n * 7 + i) % 30_000}" for i in range(10)) + "\n" for n in range(9000)))
    return path


def wide_config(
    directory: Path, corpus: Path, lanes: int = 2, copies: int | None = None, merge_bits: int | None = None
) -> dict[str, Any]:
    train = {"vector_size": 600, "lanes": lanes, "copies": copies, "merge_bits": merge_bits, "epochs": 1}
    return tiny_config(
        directory, [str(corpus)], tracking={"enabled": False}, shards={"sample": 0}, train=train | {"checkpoint_every": 12_000}
    )


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
@pytest.mark.parametrize(("where", "model"), [("alone", "cbow"), ("one of two workers", "cbow"), ("two workers", "skipgram")])
@pytest.mark.turns(10, 12)
def test_training_takes_what_was_planned(where: str, model: str, wide_corpus: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    tree = wide_config(tmp_path / "run", wide_corpus)
    config.write_text(json.dumps(tree | {"train": {**tree["train"], "model": model}}))
    numbers_of(load_config(config).train)  # a process that compiles has taken memory for that, which training then uses
    command = [sys.executable, "-m", "tests.pipeline.measured_training", config, where]
    found = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert found.returncode == 0, found.stderr
    measured = json.loads(found.stdout)
    plan = measured["plan"]
    before = plan["worker_needs"]["in use before"]
    assert plan["workers"] == (2 if where == "two workers" else 1)
    for peak in sorted(measured["peaks"])[-plan["workers"] :]:
        assert 0.7 * (plan["worker_bytes"] - before) < peak - before < plan["worker_bytes"] - before
    # The driver's imports and tables are more than a vocabulary this small, but a matrix of it would show.
    assert measured["driver"] < min(plan["driver_bytes"], 30_000 * 600 * 4)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
@pytest.mark.turns(5, 6)
def test_thirty_two_lanes_on_one_copy_take_less_than_two_of_the_parameters(wide_corpus: Path, tmp_path: Path) -> None:
    config, pair_bytes = tmp_path / "config.yaml", 2 * 30_000 * 600 * 4
    config.write_text(json.dumps(wide_config(tmp_path / "run", wide_corpus, lanes=32, copies=1)))
    command = [sys.executable, "-m", "tests.pipeline.measured_training", config, "alone"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert found.returncode == 0, found.stderr
    measured = json.loads(found.stdout)
    taken = measured["peaks"][0] - measured["before"]
    assert pair_bytes < taken < 2 * pair_bytes, (taken, pair_bytes)
    assert taken < measured["plan"]["worker_bytes"]


@pytest.mark.slow
@pytest.mark.turns(5, 15)
def test_the_copies_of_a_host_are_trained_by_one_worker_if_it_has_the_memory_and_otherwise_by_one_each_with_the_same_bits(
    wide_corpus: Path, tmp_path: Path
) -> None:
    def trained(memory_limit: object) -> dict[str, Any]:
        config = parse_config(wide_config(tmp_path / f"run-{memory_limit}", wide_corpus, lanes=4, copies=4, merge_bits=32))
        with open_workers(Cluster(n_workers=4, options={"memory_limit": memory_limit})) as workers:
            return run(config, until="train", workers=workers, progress=Progress(quiet=True))

    joined = trained("8GB")
    assert joined["train"]["memory"]["workers"] == 1
    apart = trained(int((joined["train"]["memory"]["worker_bytes"] - 100e6) / 0.8))
    assert apart["train"]["memory"]["workers"] == 4
    assert apart["vectors"]["sha256"] == joined["vectors"]["sha256"]


@pytest.mark.slow
@pytest.mark.turns(5, 5)
def test_workers_whose_dask_limit_is_too_low_are_refused_before_the_first_round(wide_corpus: Path, tmp_path: Path) -> None:
    config = parse_config(wide_config(tmp_path / "run", wide_corpus))
    with (
        open_workers(Cluster(n_workers=2, options={"memory_limit": "800MB"})) as workers,
        pytest.raises(CapacityError, match=r"(?s)worker tls://.* needs \d+ MB .*Dask pauses it \(80% of its 800 MB\) is 640 MB"),
    ):
        run(config, until="train", workers=workers, progress=Progress(quiet=True))
    assert not (tmp_path / "run" / "checkpoints").exists()
