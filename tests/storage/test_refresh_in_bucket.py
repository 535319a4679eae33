"""A refresh with its workdir in a bucket that is killed anywhere and run again has the champion of an undisturbed one."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import yaml

from pipeline.cluster.workers import InProcess
from pipeline.config import RunConfig, parse_config
from pipeline.history.arrival import look
from pipeline.history.latest import champion_of, entries
from pipeline.progress import Progress
from pipeline.refresh.refresh import refresh
from pipeline.run import run
from pipeline.storage.objects import put_object
from pipeline.workdir import verify_workdir
from tests.sampling import ALL, sample
from tests.storage.site import Site, w2v_run

QUIET = Progress(quiet=True)
OPEN_GATES = {"overlap": 0, "drift": None, "vocabulary": 0, "memory": None, "sense": None, "loss": None, "norm": None}
POINTS = [
    "put:known_files.json", "committed:tokens", "was put:vocab.parquet", "commit:shards", "round:0.0",
    "round:1.0", "put:vectors.npy", "committed:vectors", "committed:report", "put:snapshot.json",
    "was put:snapshot.json", "snapshot:written", "decide:refresh", "decided:refresh", "put:latest.json", "was put:latest.json",
    "latest:made", "put:summary.json",
]  # fmt: skip
"""Where the driver is killed: from the first file of the new text to the last object about the new champion."""


def tree(site: Site, name: str, host: str, corpus: str) -> dict[str, object]:
    sections = {"corpus": {"inputs": [f"{site.bucket}/{corpus}/*.txt"]}, "refresh": {"gates": OPEN_GATES}}
    return site.tree(name, host, place=site.place(name), **sections)


def config(site: Site, name: str, host: str = "one", corpus: str = "growing") -> RunConfig:
    return parse_config(tree(site, name, host, corpus))


@pytest.fixture(scope="module")
def halves(site: Site) -> tuple[bytes, bytes]:
    """(the text at first, the new text)."""
    lines = Path(site.inputs[0]).read_bytes().splitlines(keepends=True)
    return b"".join(lines[: len(lines) // 2]), b"".join(lines[len(lines) // 2 :])


def grown(site: Site, name: str, halves: tuple[bytes, bytes]) -> str:
    """Makes a workdir of this name with a champion and adds new text; returns the snapshot of the champion."""
    put_object(site.bucket / name / "a.txt", halves[0], site.storage())
    first = refresh(config(site, name, corpus=name), workers=InProcess(), progress=QUIET)
    assert first["status"] == "promoted"
    put_object(site.bucket / name / "b.txt", halves[1], site.storage())
    return str(first["snapshot"])


@pytest.fixture(scope="module")
def undisturbed(site: Site, halves: tuple[bytes, bytes]) -> str:
    """The digest of the vectors that an undisturbed refresh promotes."""
    name = "refreshed-undisturbed"
    grown(site, name, halves)
    told = refresh(config(site, name, corpus=name), workers=InProcess(), progress=QUIET)
    assert (told["status"], told["start"]) == ("promoted", "warm")
    return digest(site, name)


def digest(site: Site, name: str) -> str:
    """The digest of the champion's vectors, as seen by a host that has not been used before."""
    champion = champion_of(look(config(site, name, "clean", corpus=name)).workdir)
    assert champion is not None
    return str(champion.body["vectors_sha256"])


@pytest.mark.slow
@pytest.mark.parametrize("point", sample(POINTS))
@pytest.mark.turns(10, 8, of="buckets")
def test_a_refresh_that_is_killed_comes_to_the_same_champion_when_run_again(
    point: str, site: Site, halves: tuple[bytes, bytes], undisturbed: str, tmp_path: Path
) -> None:
    name = f"refreshed-{POINTS.index(point)}"
    first = grown(site, name, halves)
    before = digest(site, name)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tree(site, name, "one", name)))
    code, _, err = w2v_run(path, f"{point}=kill,{tmp_path / 'token'}", command="refresh")
    assert code == -signal.SIGKILL, f"{point} was never reached: {err}"
    assert digest(site, name) in (before, undisturbed), "a reader finds a whole champion"
    code, told, err = w2v_run(path, command="refresh")
    assert code == 0, err
    assert told["status"] in ("promoted", "nothing new")
    assert digest(site, name) == undisturbed
    seen = look(config(site, name, "clean", corpus=name)).workdir
    assert [entry["champion"] for entry in entries(seen)] == [first, champion_of(seen).id]  # type: ignore[union-attr]
    assert verify_workdir(seen)[1] == []
    assert refresh(config(site, name, "two", corpus=name), workers=InProcess(), progress=QUIET)["status"] == "nothing new"


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif(not ALL, reason="half a minute: make buckets")
def test_the_demos_corpus_gives_the_bits_of_a_disk(site: Site) -> None:
    # Intervals made for a tiny corpus would write hundreds of checkpoints of 15 MB here.
    as_usual = dict.fromkeys(("merge_every", "hot_rows", "hot_merge_every", "checkpoint_every"))
    sections = {
        "corpus": {"inputs": ["pydocs:"], "block_bytes": 4_000_000}, "vocab": {"min_count": 5}, "shards": {"sample": 1e-4},
        "train": {"vector_size": 32, "epochs": 1, "lanes": 2} | as_usual,
        "evaluate": {"queries": ["server"], "analogy_queries": []},
    }  # fmt: skip
    demo = site.tree("demo", place=site.place("demo"), **sections)
    disk = site.tree("demo-disk", place=None, **sections)
    there, here = (run(parse_config(one), workers=InProcess(2), progress=QUIET) for one in (demo, disk))
    assert there["vectors"]["sha256"] == here["vectors"]["sha256"]
    assert verify_workdir(look(parse_config(demo)).workdir)[1] == []
