"""A process is killed before any one of the system calls that write an artefact: no one ever sees half of it.

strace counts the calls of an undisturbed writer, then kills the writer at the n-th. `make test` takes a few of them, by a seed
that it prints (W2V_SEED=n replays it); `make crashes` takes all.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import store
from tests.sampling import ALL, SEED

SAMPLE = 6
FINGERPRINT = "f" * 64
CALLS = "mkdir,openat,write,ftruncate,fsync,fdatasync,close,rename,renameat,renameat2,unlink,unlinkat"
WRITER = f"""
import sys
from pathlib import Path
from pipeline import store
workdir = Path(sys.argv[1])
directory = store.artefact_directory(workdir, "tokens", "{FINGERPRINT}")
open(workdir / "begin", "wb").close()
parts = tuple(store.write_bytes(directory / name, name.encode() * 50_000) for name in ("one", "two"))
store.commit(workdir, store.Manifest(stage="tokens", fingerprint="{FINGERPRINT}", parts=parts, totals={{"rows": 1}}))
"""


def write_artefact(workdir: Path, *strace: str) -> int:
    """The exit status of a writer, run under strace if options are given."""
    workdir.mkdir(exist_ok=True)
    tracer = ["strace", "-qq", f"--trace={CALLS}", *strace] if strace else []
    environment = os.environ | {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [*tracer, sys.executable, "-c", WRITER, str(workdir)]
    return subprocess.run(command, env=environment, check=False, capture_output=True, timeout=60).returncode


def can_trace() -> bool:
    return (
        bool(shutil.which("strace"))
        and subprocess.run(["strace", "-qq", "true"], check=False, capture_output=True).returncode == 0
    )


def calls_of_a_writer(workdir: Path, log: Path) -> list[tuple[str, int]]:
    """(name, number among the calls of that name) of every call, starting with the first one that writes."""
    assert write_artefact(workdir, f"--output={log}") == 0
    counts: dict[str, int] = {}
    found = []
    for line in log.read_text().splitlines():
        if name := re.match(r"(\w+)\(", line):
            counts[name[1]] = counts.get(name[1], 0) + 1
            found.append((name[1], counts[name[1]], line))
    begin = next(index for index, (_, _, line) in enumerate(found) if "/begin" in line)
    return [(name, which) for name, which, _ in found[begin:]]


def content_of(workdir: Path) -> dict[str, bytes]:
    return {str(path.relative_to(workdir)): path.read_bytes() for path in sorted(workdir.rglob("*")) if path.is_file()}


@pytest.mark.skipif(not can_trace(), reason="needs strace and the right to trace; test_same_bits kills at failpoints without")
@pytest.mark.parametrize("is_there_before", [False, True], ids=["into nothing", "over a whole artefact"])
@pytest.mark.turns(5, 7)
def test_a_writer_killed_at_any_system_call_leaves_an_artefact_whole_or_not_there(tmp_path: Path, is_there_before: bool) -> None:
    whole = tmp_path / "whole"
    assert write_artefact(whole) == 0
    expected = content_of(whole)
    begin = whole if is_there_before else tmp_path / "nothing"
    begin.mkdir(exist_ok=True)
    calls = calls_of_a_writer(shutil.copytree(begin, tmp_path / "counted"), tmp_path / "calls")
    assert {"openat", "write", "fsync", "rename"} <= {name for name, _ in calls}
    if not ALL:
        print(f"sampled with W2V_SEED={SEED}")
        calls = random.Random(SEED).sample(calls, SAMPLE)
    for name, which in calls:
        point = f"killed before {name} number {which}"
        workdir = shutil.copytree(begin, tmp_path / f"{name}-{which}")
        assert write_artefact(workdir, f"--inject={name}:signal=KILL:when={which}") != 0, f"not {point}"
        found = store.open_artefact(workdir, "tokens", FINGERPRINT)
        assert found or not is_there_before, f"{point}: gone"
        assert not found or store.find_damage(found) == [], f"{point}: damaged"
        store.remove_unfinished(workdir)
        assert write_artefact(workdir) == 0
        assert content_of(workdir) == expected, f"{point}: another one afterwards"
