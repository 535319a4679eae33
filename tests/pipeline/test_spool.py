"""The tracking spool as a file format, and what tracking lets through, without MLflow."""

from __future__ import annotations

import fcntl
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.commands.listed import commands
from pipeline.config import Tracking, load_config
from pipeline.safety.locks import open_lock
from pipeline.store import write_json
from pipeline.tracking.addresses import new_target
from pipeline.tracking.delivery import METRICS_PER_BATCH, batches
from pipeline.tracking.metrics import METRICS, allowed_name, is_known_metric
from pipeline.tracking.spool import Delivered, Known, Spool, open_writer, read_events, spool_state, without_credentials
from pipeline.tracking.tracker import Tracker, sync, tracking_uri
from pipeline.workdir import status_lines, status_of


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    directory = tmp_path / "run" / "tracking" / "key"
    directory.mkdir(parents=True)
    return Spool(directory)


def point(step: int, value: float = 1.0) -> dict[str, object]:
    return {"type": "metrics", "time": 7, "step": step, "values": {"train/loss": value}}


def steps(spool: Spool) -> list[int]:
    return [event["step"] for event, _ in read_events(spool, 0) if event is not None]


def test_what_is_appended_is_read_back_with_the_offsets_where_reading_goes_on(spool: Spool) -> None:
    writer = open_writer(spool, 0.5)
    for step in range(5):
        writer.append(point(step), now=0.0)
    found = read_events(spool, 0)
    assert [event["step"] for event, _ in found if event] == [0, 1, 2, 3, 4]
    assert [event["step"] for event, _ in read_events(spool, found[2][1]) if event] == [3, 4]
    assert found[-1][1] == spool.size()
    writer.close()


def test_a_line_longer_than_a_read_is_still_read_whole(spool: Spool) -> None:
    writer = open_writer(spool, 0.5)
    writer.append({"type": "tags", "tags": {"long": "x" * 10_000}}, now=0.0)
    writer.close()
    ((event, offset),) = read_events(spool, 0, limit_bytes=100)
    assert event is not None
    assert len(event["tags"]["long"]) == 10_000
    assert offset == spool.size()


@given(cut=st.integers(1, 60), before=st.integers(0, 3))
@settings(deadline=None)
def test_a_line_that_a_power_loss_cut_is_removed_and_never_read(
    tmp_path_factory: pytest.TempPathFactory, cut: int, before: int
) -> None:
    directory = tmp_path_factory.mktemp("spool")
    spool = Spool(directory)
    lines = [json.dumps(point(step)).encode() + b"\n" for step in range(before + 1)]
    spool.events.write_bytes(b"".join(lines[:-1]) + lines[-1][:cut])
    assert steps(spool) == list(range(before))
    writer = open_writer(spool, 0.5)
    writer.append(point(99), now=0.0)
    writer.close()
    assert steps(spool) == [*range(before), 99]


def test_a_line_of_garbage_is_passed_over_and_does_not_hide_what_follows(spool: Spool) -> None:
    spool.events.write_bytes(b'{"type": "metrics", "st\x00\xff\n[]\n' + json.dumps(point(3)).encode() + b"\n")
    assert [event if event is None else event["step"] for event, _ in read_events(spool, 0)] == [None, None, 3]
    assert [(len(batch), offset) for batch, offset in batches(read_events(spool, 0))] == [(1, spool.size())]


@pytest.fixture
def file_size_limit() -> Iterator[None]:
    """No file of this process may exceed 1,000 bytes: a write fails in the middle of a line."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_keeps_events_in_memory_and_writes_each_once_when_there_is_room(spool: Spool, file_size_limit: None) -> None:
    writer = open_writer(spool, 0.5)
    for step in range(30):
        writer.append(point(step), now=0.0)
    assert writer.error is not None
    held = steps(spool)
    assert held == list(range(len(held)))
    assert len(held) < 30
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    writer.append(point(30), now=0.0)
    assert writer.error is None
    assert writer.lost == 0
    assert steps(spool) == list(range(31))
    writer.close()


def test_metrics_go_in_batches_of_at_most_the_servers_limit_and_in_order() -> None:
    values = {f"system/worker {lane}/cpu_percent": 1.0 for lane in range(300)}
    events = [({"type": "metrics", "time": 1, "step": step, "values": values}, step + 1) for step in range(10)]
    events.insert(5, ({"type": "tags", "tags": {}}, 5))
    sizes = [
        (batch[0]["type"], sum(len(event.get("values", ())) for event in batch), offset) for batch, offset in batches(events)
    ]
    assert all(points <= METRICS_PER_BATCH for _, points, _ in sizes)
    assert [kind for kind, _, _ in sizes] == ["metrics", "metrics", "tags", "metrics", "metrics"]
    assert sum(points for _, points, _ in sizes) == 3000
    assert [offset for *_, offset in sizes] == sorted(offset for *_, offset in sizes)


def test_log_refuses_a_metric_that_the_table_does_not_name(spool: Spool) -> None:
    tracker = Tracker(uri="sqlite:////x", spool=spool, writer=open_writer(spool, 0.5), known=Known(), _finished=True)
    with pytest.raises(ValueError, match=r"expected a metric of tracking.METRICS, found 'trian/loss'"):
        tracker.log(1, {"trian/loss": 1.0})
    tracker.writer.close()


def test_one_logged_round_costs_the_driver_less_than_a_millisecond(spool: Spool) -> None:
    tracker = Tracker(uri="sqlite:////x", spool=spool, writer=open_writer(spool, 60), known=Known(), _finished=True)
    begun = time.perf_counter()
    for step in range(1000):
        tracker.log(step, {"train/loss": 1.0, "train/alpha": 0.05, "train/tokens_per_s": 1e6})
    assert (time.perf_counter() - begun) / 1000 < 1e-3
    tracker.writer.close()


def test_names_from_data_become_metrics_that_mlflow_allows() -> None:
    name = allowed_name("eval.similarity/wörd sim[353]\n.tsv")
    assert name == "eval.similarity/w_rd sim_353__.tsv"
    assert is_known_metric(name)
    assert is_known_metric("stage.tokenize_seconds")
    assert not is_known_metric("stage._seconds")
    assert not is_known_metric("eval.[x]")
    assert all(is_known_metric(key.replace("*", "x")) for key in METRICS)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("http://me:pw@host:5000/x", "http://host:5000/x"),
        ("https://host/x?token=pw#pw", "https://host/x"),
        ("two: s3://key:pw@bucket/a, ftp://pw@h/b", "two: s3://bucket/a, ftp://h/b"),
        ("http://me:p@w@host/x", "http://host/x"),
        ("sqlite:////data/mlflow.db", "sqlite:////data/mlflow.db"),
        ("http://[pw", "[an address that cannot be parsed]"),
        ("no address: a@b", "no address: a@b"),
    ],
)
def test_credentials_are_removed_from_every_address(text: str, clean: str) -> None:
    assert without_credentials(text) == clean


def test_the_default_uri_is_a_database_beside_the_workdir_and_paths_become_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert tracking_uri(Tracking(uri=None, experiment="x"), tmp_path / "runs" / "demo") == f"sqlite:///{tmp_path}/runs/mlflow.db"
    assert tracking_uri(Tracking(uri="sqlite:///x.db", experiment="x"), tmp_path) == f"sqlite:///{tmp_path}/x.db"
    assert tracking_uri(Tracking(uri="http://host:5000/", experiment="x"), tmp_path) == "http://host:5000"


def test_a_server_that_does_not_answer_is_waited_for_once_however_many_runs_wait_for_it(tmp_path: Path) -> None:
    tracking = Tracking(uri="http://127.0.0.1:9", experiment="x")
    for name in ("one", "three", "two"):
        spool = Spool(tmp_path / "tracking" / name)
        spool.directory.mkdir(parents=True)
        write_json(spool.directory / "target.json", asdict(new_target(tracking, "http://127.0.0.1:9", name, name)))
        writer = open_writer(spool, 0.0)
        writer.append(point(1), 1.0)
        writer.close()
    states = sync(tmp_path, tracking, timeout_s=1.0)
    assert [state.complete for state in states] == [False] * 3
    assert [Spool(tmp_path / "tracking" / name).log.exists() for name in ("one", "three", "two")] == [True, False, False]


def test_the_status_counts_runs_that_have_arrived_and_names_those_that_have_not(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("corpus: {inputs: [texts]}\nrun: {workdir: work}\ntracking: {uri: http://127.0.0.1:9}\n")
    config = load_config(tmp_path / "mine.yaml")

    def tracked(runs: int) -> list[str]:
        for number in range(runs):
            spool = Spool(tmp_path / "work" / "tracking" / f"run-{number}")
            spool.directory.mkdir(parents=True, exist_ok=True)
            spool.write_target(new_target(config.tracking, "http://127.0.0.1:9", "mine", "digest"))
            spool.write_run(f"id-{number}", "1")
            spool.write_progress(Delivered(skipped=number // 4))
        return [line for line in status_lines(status_of(config)) if "tracked: " in line]

    assert [line.partition(" run ")[2] for line in tracked(2)] == ["id-0", "id-1"]
    refused, counted = tracked(5)
    assert "run id-4, not complete: 1 event was refused by MLflow" in refused
    assert counted == "  tracked: 4 runs that have arrived completely (w2v sync lists them)"


def test_what_is_being_delivered_needs_nobody_to_deliver_it(spool: Spool) -> None:
    spool.write_target(new_target(Tracking(), "http://127.0.0.1:9", "mine", "digest"))
    spool.events.write_text("{}\n")
    with open(open_lock(spool.lock), "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert f"it is being delivered from {spool.directory}" in str(spool_state(spool).message)
    assert f"the next run or `w2v sync` delivers the rest, kept in {spool.directory}" in str(spool_state(spool).message)


def test_who_promotes_a_version_is_told_of_runs_that_have_not_reached_the_registry(tmp_path: Path) -> None:
    """The newest may be among them, and an older version would be made champion."""
    (tmp_path / "mine.yaml").write_text("corpus: {inputs: [texts]}\nrun: {workdir: work}\npublish: {register: words}\n")
    config, spool = load_config(tmp_path / "mine.yaml"), Spool(tmp_path / "work" / "tracking" / "run")
    uri = tracking_uri(config.tracking, config.workdir)
    spool.directory.mkdir(parents=True)
    spool.write_target(new_target(Tracking(), uri, "mine", "digest"))
    spool.events.write_text("{}\n")

    def said() -> tuple[str, str]:
        done = CliRunner().invoke(commands, ["promote", str(tmp_path / "mine.yaml")], standalone_mode=False)
        return done.stderr, str(done.exception)

    note, error = said()
    assert note == (
        f"note: 1 run of this workdir has not reached {uri} completely yet, so a version may be missing there; "
        "w2v sync delivers the rest\n"
    )
    assert "no tracked runs yet" in error
    spool.write_progress(Delivered(offset=spool.size()))
    assert said() == ("", error)


def test_the_driver_never_imports_mlflow() -> None:
    code = "import sys, pipeline.tracking.tracker, pipeline.report.report, pipeline.text.fetch; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
