"""A corpus that keeps changing, and refreshes of it in this process: shared by the tests of refresh."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import yaml

from pipeline import store
from pipeline.cluster.workers import InProcess
from pipeline.config import RunConfig, load_config
from pipeline.history.snapshot import Snapshot
from pipeline.progress import Progress
from pipeline.refresh.refresh import refresh
from pipeline.run import run

OPEN_GATES: dict[str, object] = {
    "score_tolerance": 1, "coverage_tolerance": 1, "vocabulary": 0, "overlap": 0, "drift": None, "memory": None, "sense": None,
    "loss": None, "norm": None,
}  # fmt: skip
TOPICS, WORDS = 8, 12


def sentence(rng: random.Random) -> str:
    """A few words of one topic among common ones."""
    topic = rng.randrange(TOPICS)
    words = [f"topic{topic}word{min(int(rng.expovariate(0.4)), WORDS - 1)}" for _ in range(6)]
    words += [f"common{min(int(rng.expovariate(0.2)), 20)}" for _ in range(4)]
    rng.shuffle(words)
    return " ".join(words)


class ChangingCorpus:
    """A folder of files, each with a marker word, a configuration for it, and changes that can be made to it."""

    def __init__(self, directory: Path, seed: int, files: int = 8, sentences: int = 60) -> None:
        self.directory, self.folder = directory, directory / "corpus"
        self.rng = random.Random(seed)
        self.sentences, self.made = sentences, 0
        self.folder.mkdir(parents=True)
        for _ in range(files):
            self.add()

    def files(self) -> list[Path]:
        return sorted(self.folder.iterdir())

    def add(self) -> None:
        self.made += 1
        path = self.folder / f"{self.rng.choice('abcdefgh')}{self.made:03}.txt"
        lines = [sentence(self.rng) for _ in range(self.sentences)]
        path.write_text("\n".join([*lines, f"marker{self.made} " * 3]) + "\n")

    def add_large(self) -> None:
        """A file of several blocks."""
        before, self.sentences = self.sentences, 800
        self.add()
        self.sentences = before

    def edit_inside(self) -> None:
        """Lines inserted and removed in the middle of the largest file."""
        path = max(self.files(), key=lambda path: path.stat().st_size)
        lines = path.read_text().splitlines()
        at = self.rng.randrange(len(lines))
        lines[at : at + self.rng.randrange(3)] = [sentence(self.rng) for _ in range(self.rng.randrange(1, 3))]
        path.write_text("\n".join(lines) + "\n")

    def append(self) -> None:
        with open(self.rng.choice(self.files()), "a") as file:
            file.write("\n".join(sentence(self.rng) for _ in range(5)) + "\n")

    def edit_unseen(self) -> None:
        """Other text of the same size, with the same modification time."""
        path = self.rng.choice(self.files())
        before = path.stat()
        text = path.read_text()
        path.write_text(text.replace("common1", "common2", 20) if "common1" in text else text[::-1])
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert path.stat().st_size == before.st_size

    def rename(self) -> None:
        path = self.rng.choice(self.files())
        path.rename(path.with_name(f"{self.rng.choice('abcdefgh')}-moved-{path.name}"))

    def delete(self) -> None:
        if len(self.files()) > 3:
            self.rng.choice(self.files()).unlink()

    def happen(self) -> str:
        """Makes one or several random changes."""
        ways = [self.add, self.append, self.edit_unseen, self.edit_inside, self.rename, self.delete]
        chosen = [self.rng.choice(ways) for _ in range(self.rng.randint(1, 3))]
        for way in chosen:
            way()
        return ", ".join(way.__name__ for way in chosen)

    def config(self, workdir: str = "work", **sections: dict[str, Any]) -> RunConfig:
        tree: dict[str, dict[str, Any]] = {
            "run": {"name": "changing", "workdir": str(self.directory / workdir), "seed": 3},
            "corpus": {"inputs": [str(self.folder)], "block_bytes": 16_384},
            "vocab": {"min_count": 2},
            "shards": {"sample": 0, "window": 2},
            "train": {"vector_size": 8, "epochs": 2, "lanes": 2, "negative": 2},
            "refresh": {"gates": OPEN_GATES, "epochs": 1},
            "tracking": {"enabled": False},
        }
        path = self.directory / "config.yaml"
        path.write_text(yaml.safe_dump({key: tree.get(key, {}) | sections.get(key, {}) for key in tree.keys() | sections.keys()}))
        return load_config(path)

    def refresh(self, *, cold: bool = False, **sections: dict[str, Any]) -> dict[str, Any]:
        return refresh(self.config(**sections), cold=cold, workers=InProcess(), progress=Progress(quiet=True))

    def clean_build(self, until: str = "shards", **sections: dict[str, Any]) -> dict[str, dict[str, str]]:
        """The digests of a clean build of the present files."""
        self.made += 1
        config = self.config(f"clean-{self.made}", **sections)
        summary = run(config, until=until, workers=InProcess(), progress=Progress(quiet=True))
        return {
            name: digests(config.workdir / kind / row["fingerprint"][:16])
            for name, kind in (("tokenize", "tokens"), ("vocab", "vocab"), ("shards", "shards"), ("train", "vectors"))
            if (row := summary["stages"].get(name))
        }


def digests(directory: Path) -> dict[str, str]:
    """The SHA-256 of every file of an artefact, as it is on disk now."""
    artefact = store.load_artefact(directory)
    return {part.name: store.file_sha256(directory / part.name) for part in artefact.manifest.parts}


def snapshot_digests(snapshot: Snapshot, stages: tuple[str, ...] = ("tokenize", "vocab", "shards")) -> dict[str, dict[str, str]]:
    return {
        name: digests(store.artefact_directory(snapshot.workdir, *snapshot.body["artefacts"][name])) for name in stages
    }  # fmt: skip


def words_of(snapshot: Snapshot) -> set[str]:
    """All words of the text and the vocabulary from which a snapshot was made."""
    found: set[str] = set()
    for name in ("tokenize", "vocab"):
        directory = store.artefact_directory(snapshot.workdir, *snapshot.body["artefacts"][name])
        for part in store.load_artefact(directory).manifest.parts:
            if part.name.endswith((".words.parquet", "vocab.parquet")):
                found |= set(store.read_table(directory / part.name, columns=["word"])["word"].to_pylist())
    return found
