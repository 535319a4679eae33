"""A full disk in any stage: a message with the path, the free and the needed space; then the same command continues."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.cluster.workers import InProcess
from pipeline.errors import CapacityError, StorageError
from pipeline.progress import Progress
from pipeline.run import run
from pipeline.workdir import verify_workdir
from tests.cluster.disturbed import Bench
from tests.sampling import sample

FULL = (
    r"/[\w./-]+: (the disk is full \([\d,]+ bytes free there, at least [\d,]+ needed\); make space"
    r"|training needs .* free: make space)"
)
"""The message: a file found no room or, if there is not even enough for the checkpoints, the plan of training says so."""


@pytest.mark.parametrize("free_kb", sample([0, 8, 60, 200, 350, 450, 600], 3))
def test_a_full_disk_stops_the_run_with_a_message_and_with_more_space_it_continues_to_the_same_bits(
    bench: Bench, small_disk: Path, free_kb: int
) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free - free_kb * 1024))
    config = bench.config("on-small-disk", run={"workdir": str(small_disk / "run")})
    with pytest.raises((StorageError, CapacityError), match=FULL):
        run(config, workers=InProcess(), progress=Progress(quiet=True))
    assert verify_workdir(small_disk / "run")[1] == []
    ballast.unlink()
    assert run(config, workers=InProcess(), progress=Progress(quiet=True))["vectors"]["sha256"] == bench.digest


@pytest.mark.turns(5, 4)
def test_a_disk_without_an_inode_left_is_told_from_one_without_bytes_and_with_more_the_run_continues_to_the_same_bits(
    bench: Bench, small_disk: Path
) -> None:
    subprocess.run(["mount", "-o", "remount,size=100m,nr_inodes=50", small_disk], check=True)
    config = bench.config("few-inodes", run={"workdir": str(small_disk / "run")})
    with pytest.raises(
        StorageError, match=r"the file system has no room for another file, whatever its size \([\d,]+ bytes free"
    ):
        run(config, workers=InProcess(), progress=Progress(quiet=True))
    assert verify_workdir(small_disk / "run")[1] == []
    subprocess.run(["mount", "-o", "remount,size=100m,nr_inodes=5000", small_disk], check=True)
    assert run(config, workers=InProcess(), progress=Progress(quiet=True))["vectors"]["sha256"] == bench.digest


@pytest.mark.parametrize(
    ("stage", "file"), sample([("shards", "part-00002.arrow"), ("train", "w_in-00000.npy"), ("publish", "vectors.bin")])
)
@pytest.mark.turns(10, 15)
def test_a_disk_that_is_full_under_a_worker_or_the_driver_ends_the_command_with_74(bench: Bench, stage: str, file: str) -> None:
    config = bench.config_file(f"full-{stage}", before=stage)
    ended = bench.finish(config, failpoint=f"write:{file}=ENOSPC,{bench.directory / f'full-{stage}.token'}")
    assert ended.code == 74, ended.err
    assert f"{file}: the disk is full" in ended.err
    bench.assert_same(config)


@pytest.mark.turns(10, 8)
def test_a_disk_that_fails_while_a_worker_flushes_a_file_ends_the_command_and_commits_nothing(bench: Bench) -> None:
    config = bench.config_file("failing", before="train")
    ended = bench.finish(config, failpoint=f"write:w_out-00000.npy=EIO,{bench.directory / 'failing.token'}")
    assert ended.code == 74, ended.err
    assert "w_out-00000.npy: writing failed (Input/output error); nothing was committed, run the same command" in ended.err
    assert verify_workdir(bench.directory / "failing")[1] == []
    bench.assert_continues(config)
