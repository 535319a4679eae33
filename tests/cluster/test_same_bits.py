"""One worker or three, killed or not, at any place: the vectors do not change by one bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.cluster import InProcess
from pipeline.config import parse_config
from pipeline.progress import Progress
from pipeline.run import run
from tests.tiny import tiny_config, write_corpus

UNTRACKED: dict[str, object] = {"enabled": False}


class Bench:
    """A corpus, the digest of an undisturbed run over it, and fresh workdirs to disturb."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.inputs = write_corpus(directory / "corpus", sentences=3000)
        config = parse_config(tiny_config(directory / "undisturbed", self.inputs, tracking=UNTRACKED))
        summary = run(config, workers=InProcess(), progress=Progress(quiet=True))
        self.digest = summary["vectors"]["sha256"]

    def config_file(self, name: str, **sections: dict[str, object]) -> Path:
        path = self.directory / f"{name}.yaml"
        path.write_text(yaml.safe_dump(tiny_config(self.directory / name, self.inputs, tracking=UNTRACKED, **sections)))
        return path

    def w2v(self, config: Path, *, failpoint: str = "", **options: Any) -> subprocess.Popen[str]:
        environment = os.environ | {"W2V_FAILPOINT": failpoint, "W2V_TRACEBACK": "1"}
        command = [sys.executable, "-m", "pipeline.cli", "run", str(config), "--json"]
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, **options
        )

    def finish(self, config: Path, failpoint: str = "") -> tuple[int, str, str]:
        with self.w2v(config, failpoint=failpoint) as process:
            out, err = process.communicate(timeout=100)
        return process.returncode, out, err

    def assert_same(self, config: Path) -> None:
        code, out, err = self.finish(config)
        assert code == 0, err
        assert json.loads(out)["vectors"]["sha256"] == self.digest


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_changes_nothing(bench: Bench, workers: int) -> None:
    bench.assert_same(bench.config_file(f"workers-{workers}", cluster={"n_workers": workers}))


DRIVER_KILLS = [
    f"{when}:{stage}"
    for stage in ("tokens", "vocab", "shards", "checkpoints", "vectors", "report", "exports")
    for when in ("commit", "committed")
]
WORKER_KILLS = [
    "written:part-00001.arrow",
    "step:0.0.0",
    "step:0.9.3",
    "step:1.5.1",
    "write:w_in-00000.npy",
    "written:w_out-00000.npy",
]


def sampled(points: list[str], count: int) -> list[str]:
    """A few of the points, chosen by a seed that is printed; W2V_SWEEP=all takes all of them."""
    if os.environ.get("W2V_SWEEP") == "all":
        return points
    seed = int(os.environ.get("W2V_SEED", time.strftime("%Y%m%d")))
    print(f"kill points sampled with W2V_SEED={seed}")
    return sorted(random.Random(seed).sample(points, count))


@pytest.mark.parametrize("point", sampled(DRIVER_KILLS, 3))
def test_a_driver_killed_at_a_commit_continues_to_the_same_bits(bench: Bench, tmp_path: Path, point: str) -> None:
    config = bench.config_file(f"driver-{point.replace(':', '-')}")
    token = tmp_path / "token"
    code, _, _ = bench.finish(config, failpoint=f"{point}=kill,{token}")
    assert token.exists(), "the failpoint was never reached"
    assert code == -signal.SIGKILL
    bench.assert_same(config)


@pytest.mark.parametrize("point", sampled(WORKER_KILLS, 2))
def test_a_worker_killed_at_its_work_changes_nothing(bench: Bench, tmp_path: Path, point: str) -> None:
    config = bench.config_file(f"worker-{point.replace(':', '-')}")
    token = tmp_path / "token"
    code, out, err = bench.finish(config, failpoint=f"{point}=kill,{token}")
    assert token.exists(), "the failpoint was never reached"
    assert code == 0, err
    assert json.loads(out)["vectors"]["sha256"] == bench.digest


def test_a_terminated_run_exits_143_within_ten_seconds_and_resumes(bench: Bench) -> None:
    config = bench.config_file("terminated", train={"checkpoint_every": 2000, "epochs": 2, "lanes": 4, "merge_every": 2000,
                                                    "hot_rows": 32, "hot_merge_every": 500, "vector_size": 16})  # fmt: skip
    with bench.w2v(config) as process:
        wait_for(bench.directory / "terminated" / "checkpoints")
        started = time.monotonic()
        process.terminate()
        _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert time.monotonic() - started < 10
    assert "Resume with" in err
    code, _, err = bench.finish(config)
    assert code == 0, err


def test_ctrl_c_prints_the_command_that_resumes_and_leaves_no_process(bench: Bench) -> None:
    config = bench.config_file("interrupted")
    with bench.w2v(config) as process:
        wait_for(bench.directory / "interrupted" / "vocab")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "w2v run" in err
    assert len(err.splitlines()) <= 15
    deadline = time.monotonic() + 10
    while session_members(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert session_members(process.pid) == []
    bench.assert_same(config)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.02)


def session_members(session: int) -> list[int]:
    """Processes of the session that still live (zombies do not)."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def test_a_second_run_on_the_same_workdir_is_told_to_wait(bench: Bench, tmp_path: Path) -> None:
    config = bench.config_file("twice")
    with bench.w2v(config) as first:
        wait_for(bench.directory / "twice" / ".lock")
        wait_for(bench.directory / "twice" / "tokens")
        code, _, err = bench.finish(config)
        assert code == 73
        assert "another run is working here" in err
        out, _ = first.communicate(timeout=100)
    assert json.loads(out)["vectors"]["sha256"] == bench.digest


def test_damaged_artefacts_are_named_rebuilt_and_the_bits_are_the_same(bench: Bench) -> None:
    config = bench.config_file("damaged")
    bench.assert_same(config)
    workdir = bench.directory / "damaged"
    parts = sorted(path for path in workdir.glob("*/*/*") if path.suffix in (".npy", ".parquet", ".arrow"))
    rng = random.Random(4)
    for path in rng.sample(parts, 4):
        data = bytearray(path.read_bytes())
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
    code, out, err = bench.finish(config)
    assert code == 0, err
    summary = json.loads(out)
    assert summary["vectors"]["sha256"] == bench.digest
    assert any("damaged, rebuilt" in note for note in summary["notes"])


def test_a_changed_setting_rebuilds_exactly_the_stages_that_read_it(bench: Bench) -> None:
    directory = bench.directory / "changed"

    def cached(**sections: dict[str, object]) -> list[str]:
        tree = tiny_config(directory, bench.inputs, tracking=UNTRACKED, **sections)
        summary = run(parse_config(tree), workers=InProcess(), progress=Progress(quiet=True))
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
