"""A power cut at any step takes away no good result: the decision that is found afterwards names a snapshot that is whole.

The disk is simulated as POSIX allows at worst: of what was written, the names of files and folders are there or not until the
folder that they lie in was flushed, and bytes are garbage until their file was.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import store
from pipeline.history.latest import champion_of, decide, entries
from pipeline.history.snapshot import make_snapshot

STAGES = {"tokenize": "tokens", "vocab": "vocab", "train": "vectors", "publish": "exports"}
CUTS_A_STEP = 2


@dataclass
class Disk:
    """The real folder `root`, and which of its names and bytes a power cut cannot undo."""

    root: Path
    flushed: set[Path] = field(default_factory=set)
    """Files whose bytes, and paths whose names, are on the disk."""
    named: set[Path] = field(default_factory=set)
    steps: int = 0

    def fsync(self, descriptor: int, real: Any = os.fsync) -> None:
        real(descriptor)
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.is_dir():
            self.named |= {path / name for name in os.listdir(path)}
        else:
            self.flushed.add(path)
        self.step()

    def replace(self, source: Path, target: Path, real: Any = os.replace) -> None:
        source, target = Path(source), Path(target)
        real(source, target)
        for paths in (self.flushed, self.named):
            below = {path for path in paths if path == source or source in path.parents}
            paths -= below
            paths |= {target / path.relative_to(source) for path in below if path != source or paths is self.flushed}
        self.named.discard(target)
        self.step()

    def step(self) -> None:
        self.steps += 1

    def after_a_cut(self, target: Path, rng: random.Random) -> None:
        """Makes `target` a folder like one that may be found at `root` after a power cut now."""
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        for folder, names, files in os.walk(self.root):
            names[:] = [name for name in names if self.survives(Path(folder) / name, rng)]
            for name in names:
                path = Path(folder) / name
                if not path.is_symlink():
                    (target / path.relative_to(self.root)).mkdir()
            for path in (Path(folder) / name for name in files):
                if self.survives(path, rng) and not path.is_symlink():
                    data = path.read_bytes() if path in self.flushed else rng.randbytes(path.stat().st_size)
                    (target / path.relative_to(self.root)).write_bytes(data)

    def survives(self, path: Path, rng: random.Random) -> bool:
        return path in self.named or rng.random() < 0.5


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk(tmp_path / "work")
    disk.root.mkdir()
    # The operating system's calls, which whoever writes files has to make.
    monkeypatch.setattr(os, "fsync", disk.fsync)
    monkeypatch.setattr(os, "replace", disk.replace)
    yield disk
    monkeypatch.undo()


def finish_a_run(workdir: Path, number: int) -> str:
    """Writes the artefacts of a result, its snapshot and the decision for it, as a run does; returns the snapshot's id."""
    artefacts = {}
    for place, (stage, kind) in enumerate(STAGES.items()):
        fingerprint = f"{number:016x}{place:048x}"
        path = store.artefact_directory(workdir, kind, fingerprint) / "rows.npy"
        part = store.write_array(path, np.full(50 + number, place))
        store.commit(workdir, store.Manifest(stage=kind, fingerprint=fingerprint, parts=(part,)))
        artefacts[stage] = (kind, fingerprint)
    summary = {
        "run_id": f"r-{number}", "config_digest": f"{number:064x}", "status": "complete", "config": {"train": {}},
        "stages": {stage: {"fingerprint": fingerprint} for stage, (_, fingerprint) in artefacts.items()},
        "corpus": {"tokens": 1, "sentences": 1, "files": 1}, "vectors": {"sha256": "0" * 64},
    }  # fmt: skip
    snapshot = make_snapshot(workdir, summary, artefacts, [["a.txt", 1, "0" * 64]])
    decide(workdir, "run", snapshot.id, {"snapshot": snapshot.id, "status": "promoted"})
    return snapshot.id


def test_after_a_power_cut_the_last_decision_names_a_result_that_is_whole(disk: Disk, tmp_path: Path) -> None:
    rng, found = random.Random(5), tmp_path / "found"
    ids: list[str] = []
    checked = 0

    def cut() -> None:
        nonlocal checked
        for _ in range(CUTS_A_STEP):
            disk.after_a_cut(found, rng)
            champion, decisions = champion_of(found), entries(found)
            if ids and not decisions:
                raise AssertionError("the decision of a run that has ended is gone")
            if decisions:
                assert champion is not None
                assert champion.id == decisions[-1]["champion"], "it fell back although a later decision is there"
                for directory in champion.lasting():
                    assert store.find_damage(store.load_artefact(directory)) == []
                checked += 1

    disk.step = cut  # type: ignore[method-assign]
    for number in range(2):
        ids.append(finish_a_run(disk.root, number))
        assert (champion := champion_of(disk.root)) is not None
        assert champion.id == ids[-1]
    assert checked > 10
