"""A process uses the cores that it may use, not all that it sees, and knows which others share its host's memory."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.exchange.host import host_key, usable_cores
from tests.roots import write_files

SEEN = len(os.sched_getaffinity(0))
CORES = "from pipeline.exchange.host import usable_cores; print(usable_cores())"
CPU_GROUPS = (Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup"))


@pytest.fixture
def host_of_64_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))


@pytest.fixture
def group_with_half_a_core() -> Iterator[Path]:
    """A real control group of this machine."""
    for mount in CPU_GROUPS:
        group = mount / f"w2v-test-{os.getpid()}"
        if not (mount / "cpu.cfs_quota_us").exists() and not (mount / "cgroup.controllers").exists():
            continue
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if (group / "cpu.max").exists():
                (group / "cpu.max").write_text("50000 100000")
            else:
                (group / "cpu.cfs_quota_us").write_text("50000")
            yield group
            return
        except OSError:
            continue
        finally:
            group.rmdir()
    pytest.skip("no control group can be made here (needs root)")


@pytest.mark.usefixtures("host_of_64_cores")
@pytest.mark.parametrize(("quota", "cores"), [("200000", 2), ("150000", 2), ("20000", 1), ("max", 64), ("9900000", 64)])
def test_a_container_uses_as_many_cores_as_its_quota_allows_rounded_up(tmp_path: Path, quota: str, cores: int) -> None:
    write_files(tmp_path, **{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": f"{quota} 100000\n"})
    assert usable_cores(tmp_path) == cores


@pytest.mark.usefixtures("host_of_64_cores")
@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
def test_quotas_of_control_groups_of_the_first_version_count_too(tmp_path: Path, mount: str) -> None:
    group = f"sys/fs/cgroup/{mount}/docker/abc"
    write_files(tmp_path, **{"proc/self/cgroup": "9:name=systemd:/x\n4:cpu,cpuacct:/docker/abc\n"})
    write_files(tmp_path, **{f"{group}/cpu.cfs_quota_us": "-1\n", f"{group}/cpu.cfs_period_us": "100000\n"})
    assert usable_cores(tmp_path) == 64
    write_files(tmp_path, **{f"{group}/cpu.cfs_quota_us": "300000\n"})
    assert usable_cores(tmp_path) == 3


@pytest.mark.usefixtures("host_of_64_cores")
def test_the_tightest_quota_of_all_groups_around_a_process_counts(tmp_path: Path) -> None:
    write_files(tmp_path, **{"proc/self/cgroup": "0::/kubepods/pod/container\n"})
    write_files(tmp_path, **{"sys/fs/cgroup/kubepods/pod/container/cpu.max": "max 100000\n"})
    write_files(tmp_path, **{"sys/fs/cgroup/kubepods/pod/cpu.max": "400000 100000\n"})
    write_files(tmp_path, **{"sys/fs/cgroup/kubepods/cpu.max": "3200000 100000\n"})
    assert usable_cores(tmp_path) == 4


@pytest.mark.parametrize("content", ["", "nonsense\n", "100000 0\n", "100000\n"])
def test_a_quota_that_cannot_be_read_limits_nothing(tmp_path: Path, content: str) -> None:
    assert usable_cores(tmp_path) == SEEN
    write_files(tmp_path, **{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": content})
    assert usable_cores(tmp_path) == SEEN


def test_a_process_in_a_group_with_half_a_core_uses_one(group_with_half_a_core: Path) -> None:
    entering = f"import os; open({str(group_with_half_a_core / 'cgroup.procs')!r}, 'w').write(str(os.getpid())); {CORES}"
    found = subprocess.run([sys.executable, "-c", entering], capture_output=True, text=True, check=True)
    assert found.stdout == "1\n"


def test_a_process_that_may_run_on_one_core_uses_one() -> None:
    bound = f"import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); {CORES}"
    assert subprocess.run([sys.executable, "-c", bound], capture_output=True, text=True, check=True).stdout == "1\n"


def test_the_host_key_is_the_same_in_every_process_of_this_host() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(host_key) == host_key()
