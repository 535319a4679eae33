"""Power cuts: data that were not flushed to disk are lost, kept or garbage, and still nothing wrong is ever read.

A simulated disk records what the store flushes and renames while it works on a real directory. For a power cut after any of
these steps it then produces a directory as it may be found afterwards: a name that was not flushed with its folder may exist
or not; bytes that were not flushed are present, cut short or garbage (the three actions of SQLite's crash tests).
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from pipeline import store
from pipeline.errors import DamagedError
from pipeline.training.checkpoints import Checkpoints

CUTS_A_STEP = 3


@dataclass
class Name:
    """What happened to a path at one step: it got a file, or (None) it was removed."""

    path: Path
    data: bytes | None
    bytes_flushed: bool
    name_flushed: bool = False


@dataclass
class Disk:
    """What has happened to the names below `root`, in order, and which of it a power cut cannot undo."""

    root: Path
    names: list[Name] = field(default_factory=list)
    flushed_files: set[Path] = field(default_factory=set)
    on_step: Callable[[], None] = lambda: None

    def fsync(self, descriptor: int, real: Callable[[int], None] = os.fsync) -> None:
        real(descriptor)
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.is_dir():
            for name in self.names:
                name.name_flushed |= name.path.parent == path
        else:
            self.flushed_files.add(path)
        self.on_step()

    def replace(self, source: Path, target: Path, real: Callable[[Path, Path], None] = os.replace) -> None:
        real(source, target)
        self.names.append(Name(target, target.read_bytes(), source in self.flushed_files))
        self.on_step()

    def rmtree(self, directory: Path, ignore_errors: bool = False, real: Callable[..., None] = shutil.rmtree) -> None:
        gone = [directory / store.MANIFEST, *(path for path in directory.rglob("*") if path.is_file())]
        real(directory, ignore_errors=ignore_errors)
        if self.root not in directory.parents:  # what a cut left, not what is written
            return
        self.names += [Name(path, None, True) for path in gone]
        self.on_step()

    def after_a_cut(self, target: Path, rng: random.Random) -> None:
        """Makes `target` a directory like the one that may be found at `root` after a power cut now."""
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        found: dict[Path, bytes | None] = {}
        for name in self.names:
            if name.name_flushed or rng.random() < 0.5:
                found[name.path] = name.data if name.bytes_flushed or name.data is None else spoiled(name.data, rng)
        for path, data in found.items():
            if data is not None:
                copy = target / path.relative_to(self.root)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(data)


def spoiled(data: bytes, rng: random.Random) -> bytes:
    action = rng.choice(["kept", "cut", "garbage"])
    if action == "kept":
        return data
    return data[: rng.randrange(len(data) + 1)] if action == "cut" else rng.randbytes(len(data))


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk(tmp_path / "workdir")
    # The operating system's calls, which whoever writes files has to make.
    monkeypatch.setattr(os, "fsync", disk.fsync)
    monkeypatch.setattr(os, "replace", disk.replace)
    monkeypatch.setattr(shutil, "rmtree", disk.rmtree)
    yield disk
    monkeypatch.undo()


def content(number: int) -> np.ndarray:
    return np.full(200 + number, number, np.int64)


def make_artefact(workdir: Path, number: int, durable: bool) -> None:
    fingerprint = f"{number:064x}"[::-1]
    path = store.artefact_directory(workdir, "things", fingerprint) / "rows.npy"
    part = store.write_file(path, lambda file: np.save(file, content(number), allow_pickle=False), durable=durable)
    store.commit(workdir, store.Manifest(stage="things", fingerprint=fingerprint, parts=(part,)))


@pytest.mark.parametrize("durable", [True, False])
def test_after_a_power_cut_an_artefact_is_as_it_was_written_or_known_to_be_damaged_or_not_there(
    disk: Disk, tmp_path: Path, durable: bool
) -> None:
    rng = random.Random(11)
    committed: list[int] = []
    outcomes = {"intact": 0, "damaged": 0, "not there": 0}

    def cut() -> None:
        for _ in range(CUTS_A_STEP):
            after = tmp_path / "after"
            disk.after_a_cut(after, rng)
            for number in range(len(committed) + 1):
                outcome = look_at(after, number)
                outcomes[outcome] += 1
                assert outcome == "intact" or number not in committed or not durable

    disk.on_step = cut
    for number in range(8):
        make_artefact(disk.root, number, durable)
        committed.append(number)
    assert outcomes["intact"] > 100
    assert outcomes["not there"] > 10
    assert (outcomes["damaged"] > 10) != durable


def look_at(workdir: Path, number: int) -> str:
    try:
        found = store.open_artefact(workdir, "things", f"{number:064x}"[::-1])
    except DamagedError:
        return "damaged"
    if found is None:
        return "not there"
    if store.find_damage(found):
        return "damaged"
    np.testing.assert_array_equal(np.load(found.path("rows.npy")), content(number))
    return "intact"


def test_after_a_power_cut_training_continues_from_an_intact_checkpoint_and_loses_none_that_was_committed(
    disk: Disk, tmp_path: Path
) -> None:
    rng = random.Random(12)
    rounds = 6
    # After the last round there is no checkpoint, but the vectors.
    done = -1

    def checkpoints(workdir: Path) -> Checkpoints:
        return Checkpoints(workdir, "ab" * 32, rounds + 1)

    def cut() -> None:
        for _ in range(CUTS_A_STEP):
            after = tmp_path / "after"
            disk.after_a_cut(after, rng)
            found, _ = checkpoints(after).latest()
            number = -1 if found is None else int(found.manifest.totals["round"])
            assert number >= done
            if found:
                np.testing.assert_array_equal(np.load(found.path("w_in-00000.npy")), content(number))

    disk.on_step = cut
    for number in range(rounds):
        directory = checkpoints(disk.root).directory(number)
        parts = [store.write_array(directory / "w_in-00000.npy", content(number))]
        checkpoints(disk.root).commit(number, parts, [], [])
        done = number
        if number > 1:  # two are kept
            store.discard(checkpoints(disk.root).directory(number - 2))
