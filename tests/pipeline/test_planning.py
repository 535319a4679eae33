"""`w2v plan`: its arithmetic against counting one by one, its estimates against real runs, and its output."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import yaml

from pipeline import store
from pipeline.cluster.workers import InProcess
from pipeline.commands.planning import Number
from pipeline.config import Train, parse_config
from pipeline.errors import DataError, InputError
from pipeline.planning import growth
from pipeline.planning.estimate import Asked, last_run, make_plan
from pipeline.planning.forecast import Text, lanes_on
from pipeline.planning.growth import Growth, vocabulary_counts
from pipeline.planning.merges import (
    LANE_S,
    Machines,
    MergeSpeeds,
    Step,
    merge_seconds,
    merged_row_bytes,
    merges_of,
    sent_bytes,
    strips_in_use,
    traffic_of,
)
from pipeline.planning.merging import connection_with_itself, encrypted, measure_merging
from pipeline.planning.sample import take_sample
from pipeline.planning.shown import as_data, as_text, shortfalls
from pipeline.progress import Progress
from pipeline.run import run
from pipeline.stages.preloading import COMPILING
from pipeline.training.plan import choose_lanes, choose_schedule, plan_epoch

SPEEDS = MergeSpeeds(send_s=5e-10, fold_s=1e-7, peer_s=1e-4, message_s=5e-5)


# ── merges ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("copies", [2, 3, 8, 16])
@pytest.mark.parametrize("bits", [8, 32])
@pytest.mark.parametrize(("vocab_size", "tokens"), [(5_000, 300_000), (70_000, 9_000_000)])
def test_the_merges_of_an_epoch_are_those_of_training(copies: int, bits: Any, vocab_size: int, tokens: int) -> None:
    train = Train(lanes=copies, copies=copies, merge_bits=bits)
    schedule = choose_schedule(train, vocab_size, tokens)
    for epoch in range(3):
        plan = plan_epoch(train, schedule, vocab_size, epoch, tokens)
        one_by_one = [rows for step in range(schedule.steps) if (rows := plan.merged_rows(step))]
        found = merges_of(plan)
        assert sum((Counter({merge.rows: times}) for merge, times in found.items()), Counter()) == Counter(one_by_one)
        if schedule.spares:
            stints = [stint for a_round in plan.rounds for stint in plan.stints(a_round)]
            beside = [after.last - after.first for before, after in pairwise(stints) if not before.waits]
            assert sum(merge.beside * times for merge, times in found.items()) == sum(beside) > 0


def test_one_copy_merges_nothing_and_a_long_epoch_is_counted_in_no_time() -> None:
    alone, many = Train(lanes=8, copies=1), Train(lanes=512, copies=16)
    assert not merges_of(plan_epoch(alone, choose_schedule(alone, 10**6, 1e9), 10**6, 0, 10**9))
    long = plan_epoch(many, choose_schedule(many, 10**7, 2e11), 10**7, 4, 2 * 10**11)
    assert merges_of(long).total() > 1_000_000
    few_words = plan_epoch(many, choose_schedule(many, 1_000, 1e18), 1_000, 4, 10**18)
    assert merges_of(few_words)[Step(1_000, 0)] == merges_of(few_words).total() > 10**12


@pytest.mark.parametrize("every", [{"hot_merge_every": 300, "merge_every": 5_000}, {"checkpoint_every": 40_000}])
def test_an_epoch_with_many_merges_of_all_rows_has_the_merges_of_training(every: dict[str, int]) -> None:
    train = Train(lanes=2, copies=2, merge_bits=32, **every)
    schedule = choose_schedule(train, 5_000, 900_000)
    assert schedule.steps > 10 * schedule.full_every_steps > 10
    for epoch in range(3):
        plan = plan_epoch(train, schedule, 5_000, epoch, 900_000)
        one_by_one = Counter(rows for step in range(schedule.steps) if (rows := plan.merged_rows(step)))
        assert Counter({merge.rows: times for merge, times in merges_of(plan).items()}) == one_by_one


def test_every_copy_gets_the_lanes_of_its_share_of_the_tokens() -> None:
    assert [choose_lanes(Train(copies=4), tokens, 10_000).lanes for tokens in (10**6, 10**7, 4 * 10**7, 2 * 10**9)] == [
        4,
        32,
        32,
        128,
    ]
    assert choose_lanes(Train(model="skipgram", copies=4), 10**8, 10_000).lanes == 4


def test_a_merge_takes_as_long_as_the_slower_of_network_and_work_and_a_host_alone_sends_nothing() -> None:
    slow = Machines(hosts=2, cores=1, gbit_s=1, round_trip_s=1e-4)
    fast = Machines(hosts=2, cores=1, gbit_s=1000, round_trip_s=1e-4)
    rows, row_bytes = 67_873, merged_row_bytes(Train(), 104)
    assert (row_bytes, merged_row_bytes(Train(merge_bits=8), 104)) == (832, 216)
    assert sent_bytes(rows, row_bytes, 2) == rows * row_bytes
    assert sent_bytes(rows, row_bytes, 4) * 2 == 3 * rows * row_bytes
    assert sent_bytes(rows, row_bytes, 1) == 0
    assert merge_seconds(rows, row_bytes, slow, SPEEDS) > 0.45
    assert merge_seconds(rows, row_bytes, fast, SPEEDS) < 0.1
    assert merge_seconds(rows, row_bytes, fast, SPEEDS, cores_a_host=0.5) > 1.8 * merge_seconds(rows, row_bytes, fast, SPEEDS)


def test_only_a_merge_that_training_waits_for_takes_the_time_in_which_rows_are_shown_and_taken_over() -> None:
    machines, speeds, row_bytes = Machines(hosts=2, cores=4, gbit_s=10, round_trip_s=0), replace(SPEEDS, pass_s=4e-7), 216

    def seconds(speeds: MergeSpeeds, waits: bool, cores: float = 4, copies: float = 1) -> float:
        return merge_seconds(10_000, row_bytes, machines, speeds, cores, copies, waits=waits)

    assert seconds(speeds, waits=False) == seconds(SPEEDS, waits=False) == seconds(SPEEDS, waits=True)
    assert seconds(speeds, waits=True) - seconds(speeds, waits=False) == pytest.approx(10_000 * 4e-7 / 4)
    assert seconds(speeds, True, copies=3) - seconds(speeds, False, copies=3) == pytest.approx(10_000 * 3 * 4e-7 / 4)
    assert seconds(speeds, True, 0.5) - seconds(speeds, False, 0.5) == pytest.approx(2 * 10_000 * 4e-7 / 4)


def test_strips_share_the_work_of_a_merge_but_for_its_serial_part() -> None:
    machines, row_bytes, floats = Machines(hosts=4, cores=32, gbit_s=1000, round_trip_s=0), merged_row_bytes(Train(), 104), 104
    assert [strips_in_use(rows, floats, machines) for rows in (1, 2048, 4096, 67_873)] == [1, 1, 2, 4]
    assert strips_in_use(67_873, floats, replace(machines, cores=2)) == 2

    def work_s(cores: float, strips: int, serial: float = 0.0) -> float:
        speeds = MergeSpeeds(send_s=5e-10, fold_s=1e-7, peer_s=0, message_s=0, serial=serial)
        return merge_seconds(67_873, row_bytes, replace(machines, gbit_s=1e9), speeds, cores, strips=strips)

    assert work_s(32, 4) == pytest.approx(work_s(32, 1) / 4, rel=1e-3)
    assert work_s(32, 4, 0.2) == pytest.approx(work_s(32, 1) * 1.6 / 4, rel=1e-3)
    assert work_s(1, 4) == work_s(32, 4, 1.0) == work_s(1, 1)


def test_merges_on_one_host_are_folded_by_all_its_threads_and_cost_time_for_every_lane() -> None:
    def seconds(cores: int, lanes: int, fold_s: float = 1e-7) -> tuple[int, int, float]:
        machines, speeds = Machines(hosts=1, cores=cores, gbit_s=10, round_trip_s=1), replace(SPEEDS, fold_s=fold_s)
        found = traffic_of(Train(lanes=lanes, copies=2, merge_bits=32), 67_873, 10**8, 104, machines, speeds, 100.0)
        return found.merges, found.rows, found.seconds

    merges, rows, on_one_core = seconds(1, 16)
    assert on_one_core == pytest.approx(rows * 2e-7 + merges * 16 * LANE_S)
    assert seconds(8, 16)[2] == pytest.approx(rows * 2e-7 / 8 + merges * 16 * LANE_S)
    assert seconds(64, 16) == seconds(16, 16)
    assert seconds(16, 16, fold_s=0)[2] == pytest.approx(merges * 16 * LANE_S)


@pytest.mark.parametrize("bits", [8, 32])
@pytest.mark.parametrize("is_encrypted", [False, True])
@pytest.mark.turns(2, 1)
def test_what_merges_cost_is_measured_by_merges(bits: Any, is_encrypted: bool) -> None:
    connections = [connection_with_itself() for _ in range(2)]
    if is_encrypted:
        connections = [encrypted(*ends) for ends in connections]
    found = measure_merging(Train(vector_size=16, merge_bits=bits), connections)
    assert 1e-11 < found.send_s < 1e-7
    assert 1e-9 < found.fold_s < 1e-5
    assert 1e-6 < found.peer_s < 0.02
    assert 0 <= found.message_s < 0.1
    assert 0 <= found.serial <= 1


# ── words ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def zipf_text(tokens: int, words: int = 3_000_000, seed: int = 1) -> np.ndarray[Any, Any]:
    shares = 1 / np.arange(3, words + 3) ** 1.6
    return np.random.default_rng(seed).choice(words, tokens, p=shares / shares.sum())


@pytest.mark.parametrize("min_count", [1, 5, 20])
def test_the_words_of_a_corpus_are_told_from_a_tenth_of_it(min_count: int) -> None:
    text = zipf_text(2_000_000)
    counts = np.bincount(text)
    seen = Growth(np.sort(found := np.bincount(text[:200_000]))[::-1][: int((found > 0).sum())].astype(np.int64))
    assert seen.frequent_words(len(text), min_count) == pytest.approx(int((counts >= min_count).sum()), rel=0.15)
    rare = int(counts[(counts > 0) & (counts < min_count)].sum())
    assert seen.rare_tokens(len(text), min_count) == pytest.approx(rare, rel=0.3, abs=1)


def test_within_the_sample_words_are_counted_as_a_random_share_of_it_would_show_them() -> None:
    text = zipf_text(100_000)
    counts = np.bincount(text)
    seen = Growth(counts[counts > 0].astype(np.int64))
    assert seen.words(len(text)) == pytest.approx((counts > 0).sum(), rel=1e-6)
    assert seen.words(10_000) == pytest.approx(len(set(np.random.default_rng(3).permutation(text)[:10_000])), rel=0.03)


def test_the_counts_of_a_vocabulary_fall_and_have_its_length() -> None:
    counts = np.bincount(zipf_text(50_000))
    made = vocabulary_counts(counts[counts > 0].astype(np.int64), 5e6, 100_000)
    assert len(made) == 100_000
    assert made.min() >= 1
    assert np.all(np.diff(made) <= 0)
    few = growth.vocabulary_counts(counts[counts > 0].astype(np.int64), 5e6, 1000)
    assert np.array_equal(few, made[:1000])


# ── samples ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def write_lines(path: Path, lines: int, seed: int = 1) -> str:
    words = zipf_text(lines * 12, 5_000, seed)
    text = "\n".join(" ".join(f"w{word}" for word in words[line * 12 : line * 12 + 12]) for line in range(lines)) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return text


def corpus_of(*inputs: Path) -> Any:
    return parse_config({"run": {"name": "p", "workdir": "unused"}, "corpus": {"inputs": [str(path) for path in inputs]}}).corpus


def test_a_sample_is_whole_lines_from_all_over_the_corpus(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    lines = set()
    for name in ("a", "b", "c"):
        lines |= set(write_lines(tmp_path / "in" / f"{name}.txt", 20_000, ord(name)).splitlines())
    sample = take_sample(corpus_of(tmp_path / "in"), tmp_path / "out", tmp_path / "none", budget=1 << 20)
    files = sorted((tmp_path / "out").iterdir())
    taken = [line for file in files for line in file.read_text().splitlines()]
    assert len(files) == 3
    assert set(taken) <= lines
    assert sample.stored_bytes == sum(file.stat().st_size for file in files)
    assert 0.7 < sample.stored_bytes / (1 << 20) < 1.1
    assert sample.corpus_bytes == sum(path.stat().st_size for path in (tmp_path / "in").iterdir())


def test_of_a_compressed_file_the_beginning_is_taken_and_counted_in_stored_bytes(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    text = write_lines(tmp_path / "a.txt.gz", 20_000)
    sample = take_sample(corpus_of(tmp_path / "a.txt.gz"), tmp_path / "out", tmp_path / "none", budget=1 << 16)
    (file,) = (tmp_path / "out").iterdir()
    assert text.startswith(file.read_text())
    assert sample.times == pytest.approx(len(text) / file.stat().st_size, rel=0.35)


def test_a_corpus_without_a_byte_cannot_be_planned(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    with pytest.raises(InputError, match=r"^corpus.inputs: no text to plan with"):
        take_sample(corpus_of(tmp_path / "empty.txt"), tmp_path, tmp_path / "none")


# ── plans ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("planned")
    write_lines(folder / "text.txt", 40_000)
    tree = {
        "run": {"name": "planned", "workdir": str(folder / "run")}, "corpus": {"inputs": [str(folder / "text.txt")]},
        "tokenize": {"tokenizer": "whitespace"}, "train": {"vector_size": 32, "epochs": 3}, "tracking": {"enabled": False},
        "publish": {"formats": []},
    }  # fmt: skip
    (folder / "planned.yaml").write_text(yaml.safe_dump(tree))
    return parse_config(tree)


@pytest.mark.turns(5, 3, of="large")
def test_a_plan_of_a_corpus_that_is_all_sample_says_what_the_run_then_leaves(config: Any) -> None:
    plan = make_plan(config, Asked(hosts=(1, 4), price=3.0))
    assert not config.workdir.exists()
    assert last_run(config) is None
    summary = run(config, workers=InProcess(), progress=Progress(quiet=True))
    taken = last_run(config)
    assert taken is not None
    assert (plan.text.tokens, plan.text.words) == (summary["corpus"]["tokens"], summary["vocab"]["size"])
    assert plan.text.kept_tokens == pytest.approx(taken.kept_tokens, rel=0.05)
    for stage in plan.here.stages[:4]:
        assert stage.disk_bytes == pytest.approx(taken.disk_bytes[stage.name], rel=0.25), stage.name
    text = as_text(plan, taken)
    assert "all of it read" in text
    assert "last run" in text
    assert "it fits" in text or "network: 4 hosts reach" in text
    many = replace(plan.there[0], traffic=replace(plan.there[0].traffic, merges=1_234_567_890))
    assert " 1,234,567,890 " in as_text(replace(plan, there=(many,)), taken)  # not one word with the column before it
    data = json.loads(json.dumps(as_data(plan, taken)))
    assert [row["machines"]["hosts"] for row in data["hosts"]] == [1, 4]
    assert data["hosts"][0]["money"] == pytest.approx(3.0 * data["hosts"][0]["seconds"] / 3600)
    assert not list(store.artefact_directory(config.workdir, "tokens", "x").parent.parent.glob("w2v-plan*"))


@pytest.mark.turns(10, 9, of="large")
def test_what_is_compiled_for_a_plan_is_told_and_is_no_part_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "compiling_words.py").write_text(
        "import time, numba\n"
        "def factory():\n"
        "    def split(lines):\n"
        "        if not compiled:\n"
        "            compiled.append(numba.njit(lambda number: number + 1)(1))\n"
        "            time.sleep(5)\n"
        "        return [line.split() for line in lines]\n"
        "    return split\n"
        "compiled = []\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    write_lines(tmp_path / "text.txt", 2000)
    steps: list[str] = []
    plan = make_plan(
        parse_config({
            "run": {"workdir": str(tmp_path / "run")}, "corpus": {"inputs": [str(tmp_path / "text.txt")]},
            "tokenize": {"tokenizer": "compiling_words:factory"}, "train": {"vector_size": 8, "backend": "numpy"},
        }), Asked(), steps.append,
    )  # fmt: skip
    assert steps.count(COMPILING) == 1
    assert plan.speeds.start_s < 5


@pytest.mark.turns(10, 8, of="large")
def test_a_trillion_tokens_and_ten_million_words_get_a_plan_that_says_what_does_not_fit_and_what_to_change(config: Any) -> None:
    asked = Asked(tokens=1e12, words=10**7, hosts=(1, 16), cores=32, memory_bytes=10**10, disk_bytes=10**12)
    plan = make_plan(config, asked)
    assert (plan.text.tokens, plan.text.words) == (10**12, 10**7)
    found = "\n".join(shortfalls(plan))
    assert "memory: a worker needs up to" in found
    assert "set vocab.max_size=" in found
    assert "disk: " in found
    fitting = int(found.split("vocab.max_size=")[1].split(",")[0].replace("_", ""))
    smaller = make_plan(
        config, Asked(tokens=1e12, words=fitting, hosts=(1, 16), cores=32, memory_bytes=10**10, disk_bytes=10**14)
    )
    assert "memory:" not in "\n".join(shortfalls(smaller))


@pytest.mark.turns(4, 5, of="large")
def test_the_command_prints_a_table_and_refuses_hosts_that_are_no_numbers(config: Any) -> None:
    path = config.workdir.parent / "planned.yaml"

    def w2v(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pipeline.cli", "plan", str(path), *arguments], capture_output=True, text=True, check=False
        )

    shown = w2v("--hosts", "1,2", "--cores", "32")
    assert shown.returncode == 0, shown.stderr
    assert "hosts of 32 cores, 10 Gbit/s between them" in shown.stdout
    refused = w2v("--hosts", "two")
    expected = "w2v: --hosts: expected numbers of hosts like 1,2,4, at most 1,000, found 'two'\n"
    assert (refused.returncode, refused.stderr) == (64, expected)


@pytest.mark.parametrize(
    ("text", "sections", "message"),
    [
        ("the cat sat\n" * 50, {"vocab": {"min_count": 51}}, "no word reaches vocab.min_count=51, .* usable value here is 50"),
        ('{"text": "a b"}\n{"txt": "c d"}\n', {"corpus": {"format": "jsonl"}}, "line 2: no field 'text'; it has txt"),
    ],
    ids=["rare words", "a bad record"],
)
def test_a_plan_of_a_corpus_that_is_all_sample_refuses_what_the_run_would(
    tmp_path: Path, text: str, sections: dict[str, dict[str, Any]], message: str
) -> None:
    (tmp_path / "text.jsonl").write_text(text)
    tree: dict[str, dict[str, Any]] = {
        "run": {"workdir": str(tmp_path / "run")}, "corpus": {"inputs": [str(tmp_path / "text.jsonl")], "sniff": False},
        "vocab": {"min_count": 1}, "tracking": {"enabled": False},
    }  # fmt: skip
    config = parse_config({name: section | sections.get(name, {}) for name, section in tree.items()})
    for planned_or_run in (
        lambda: make_plan(config, Asked()),
        lambda: run(config, workers=InProcess(), progress=Progress(quiet=True)),
    ):
        with pytest.raises(DataError, match=message):
            planned_or_run()


@pytest.mark.parametrize("train", [{"lanes": 4}, {"engine": "layers", "batch_size": 10**6}], ids=["kernels", "layers"])
@pytest.mark.turns(3, 6, of="large")
def test_a_single_sentence_and_more_words_than_fit_into_memory_get_a_plan(train: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("the cat sat on the mat\n")
    config = parse_config(
        {
            "run": {"name": "little", "workdir": str(tmp_path / "run")}, "corpus": {"inputs": [str(tmp_path / "text.txt")]},
            "vocab": {"min_count": 1}, "train": {"vector_size": 32} | train, "tracking": {"enabled": False},
        }
    )  # fmt: skip
    words = 2**31 - 1 if "lanes" in train else None
    plan = make_plan(config, Asked(words=words, hosts=(1, 4, 16), memory_bytes=0, disk_bytes=0))
    assert plan.text.words == (words or 5)
    assert 0 < plan.speeds.train_s < 1
    assert [each.machines.hosts for each in plan.there] == ([1, 4] if "lanes" in train else [1])
    found = "\n".join(shortfalls(plan))
    assert "0 bytes are there" in found
    assert "0 bytes are free where run.workdir is" in found
    assert f"hosts: of 16 hosts {plan.there[-1].machines.hosts} would train, because " in found


@pytest.mark.parametrize(
    ("train", "hosts"),
    [({}, 16), ({"lanes": 4}, 4), ({"lanes": 4, "copies": 2}, 2), ({"model": "skipgram"}, 8), ({"engine": "layers"}, 1)],
)  # fmt: skip
def test_no_host_is_planned_without_lanes_to_train(train: dict[str, Any], hosts: int) -> None:
    text = Text(
        stored_bytes=10**8, tokens=2 * 10**7, sentences=10**6, words=10**5, distinct_words=10**6, kept_tokens=10**7,
        token_bytes=4.0, shard_bytes=6.0, word_bytes=8.0,
    )  # fmt: skip
    chosen = lanes_on(16, Train(**train), text)
    assert min(16, chosen.copies) == hosts
    assert chosen.lanes >= chosen.copies


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "0.5", "2e15", "many"])
def test_a_number_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Number(min=1, max=1e15).convert(text, None, None)


def test_merges_cannot_be_timed_without_a_network_which_is_said() -> None:
    asked = [sys.executable, "-c", "from pipeline.planning.merging import connection_with_itself as connect; connect()"]
    alone = subprocess.run(["unshare", "--net", *asked], capture_output=True, text=True, check=False)
    if "unshare" in alone.stderr:
        pytest.skip(f"a network of its own takes root: {alone.stderr.strip()}")
    assert "ServiceError: merges between hosts are timed over 127.0.0.1, which does not answer here" in alone.stderr
