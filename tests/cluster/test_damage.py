"""A flipped bit, a cut file, a missing file or manifest: found and named before use, and rebuilt with the same bits."""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import store
from pipeline.cluster.workers import InProcess
from pipeline.history.snapshot import SUMMARY
from pipeline.progress import Progress
from pipeline.run import run
from pipeline.stages.ladder import KINDS
from pipeline.workdir import verify_artefact, verify_workdir
from tests.cluster.disturbed import Bench
from tests.sampling import SEED, sample

FLIPS = 300


def files_of(workdir: Path) -> list[tuple[str, Path, Path]]:
    """(kind, the artefact's directory, file) of every file that a manifest of the workdir lists, and of the manifests."""
    found = []
    for directory in store.iterate_artefacts(workdir):
        manifest = store.load_artefact(directory).manifest
        names = [store.MANIFEST, *(part.name for part in manifest.parts)]
        found += [(manifest.stage, directory, (directory / name).resolve()) for name in names]
    return found


def flip(path: Path, rng: random.Random) -> Callable[[], None]:
    """Flips one bit; returns a function that flips it back."""
    position, bit = rng.randrange(path.stat().st_size), rng.randrange(8)

    def turn() -> None:
        with open(path, "r+b") as file:
            file.seek(position)
            byte = file.read(1)[0]
            file.seek(position)
            file.write(bytes([byte ^ 1 << bit]))

    turn()
    return turn


def copied(bench: Bench, name: str) -> Path:
    shutil.copytree(bench.undisturbed, bench.directory / name, symlinks=True)
    return bench.directory / name


def run_here(bench: Bench, name: str) -> list[str]:
    """Runs the configuration in this process; asserts the digest and an intact workdir, returns the run's notes."""
    summary = run(bench.config(name), workers=InProcess(), progress=Progress(quiet=True))
    assert summary["vectors"]["sha256"] == bench.digest
    assert verify_workdir(bench.directory / name)[1] == []
    return list(summary["notes"])


@pytest.mark.turns(3, 2)
def test_verify_finds_every_flip_in_every_kind_of_file_and_names_it(bench: Bench) -> None:
    workdir = copied(bench, "flipped")
    files = files_of(workdir)
    intact = verify_workdir(workdir)
    assert intact[1] == []
    rng = random.Random(SEED)
    # Every file once, the rest of the flips anywhere.
    chosen = [*files, *rng.choices(files, k=FLIPS - len(files))]
    flipped: Counter[str] = Counter()
    for kind, directory, path in chosen:
        turn_back = flip(path, rng)
        found = verify_artefact(directory)[1]
        assert len(found) == 1, f"W2V_SEED={SEED}: {path}"
        assert path.name in found[0]
        turn_back()
        flipped[kind] += 1
    assert verify_workdir(workdir) == intact
    assert intact[0] > len(files), "reports and summaries too"
    assert set(flipped) == set(KINDS.values())
    print(f"{flipped.total()} of {len(chosen)} flips found: {dict(flipped)}")


@pytest.mark.parametrize("kind", sample(list(KINDS.values()), 3))
def test_the_next_run_names_a_flip_and_comes_to_the_same_bits(bench: Bench, kind: str) -> None:
    workdir = copied(bench, f"flipped-{kind}")
    rng = random.Random(f"{SEED}/{kind}")
    for path in {rng.choice([path for found, _, path in files_of(workdir) if found == kind]) for _ in range(2)}:
        flip(path, rng)
        notes = run_here(bench, workdir.name)
        assert any("damaged, rebuilt" in note and path.name in note for note in notes), notes


@pytest.mark.parametrize("kind", sample(list(KINDS.values()), 3))
def test_a_cut_and_a_missing_file_are_built_again(bench: Bench, kind: str) -> None:
    workdir = copied(bench, f"cut-{kind}")
    rng = random.Random(f"{SEED}/{kind}")
    files = [path for found, _, path in files_of(workdir) if found == kind and path.name != store.MANIFEST]
    path = rng.choice(files)
    os.truncate(path, rng.randrange(path.stat().st_size))
    assert any(path.name in line and "expected" in line for line in verify_workdir(workdir)[1])
    assert any(path.name in note for note in run_here(bench, workdir.name))
    path = rng.choice(files)
    path.unlink()
    assert any(path.name in line and "missing" in line for line in verify_workdir(workdir)[1])
    assert any(path.name in note for note in run_here(bench, workdir.name))


@pytest.mark.parametrize("kind", sample(list(KINDS.values()), 3))
def test_an_artefact_without_its_manifest_is_named_and_built_again(bench: Bench, kind: str) -> None:
    workdir = copied(bench, f"gone-{kind}")
    (directory,) = {directory for found, directory, _ in files_of(workdir) if found == kind}
    (directory / store.MANIFEST).unlink()
    assert [f"{directory}: no manifest.json" in line for line in verify_workdir(workdir)[1]] == [True]
    run_here(bench, workdir.name)


def test_a_damaged_memory_of_the_inputs_is_not_believed(bench: Bench) -> None:
    workdir = copied(bench, "memory")
    rng = random.Random(SEED)
    for _ in range(5):
        flip(workdir / "known_files.json", rng)
        summary = run(bench.config("memory"), workers=InProcess(), progress=Progress(quiet=True))
        assert all(stage["cached"] for stage in summary["stages"].values())


def test_files_that_no_manifest_names_do_not_exist(bench: Bench) -> None:
    workdir = copied(bench, "strays")
    for directory in store.iterate_artefacts(workdir):
        (directory / "part-99999.arrow").write_bytes(b"stale")
        (directory / ".DS_Store").write_bytes(b"")
    assert run_here(bench, "strays") == []


def test_the_command_names_what_is_damaged_and_exits_with_74(bench: Bench) -> None:
    config = bench.config_file("verified", before="publish")
    shutil.copy(bench.undisturbed / SUMMARY, bench.directory / "verified")
    ended = bench.finish(config, command="verify")
    assert ended.code == 74
    assert "exports" in ended.err
    assert "1 damaged; run again to rebuild them" in ended.out
