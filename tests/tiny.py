"""A corpus small enough for a test and regular enough to learn from, made from a seed."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

TOPICS, WORDS_A_TOPIC, COMMON = 20, 40, 60
IN_THREADS: dict[str, object] = {"n_workers": None, "options": {}}
"""A section `cluster` that starts no processes: small runs then use threads, in less than half the processor time."""


def write_corpus(directory: Path, sentences: int = 6000, seed: int = 5) -> list[str]:
    """Writes three files (one gzipped) of sentences about topics and returns their paths. 1,000 sentences are about 70 kB."""
    rng = np.random.default_rng(seed)
    lines = []
    for _ in range(sentences):
        topic = rng.integers(TOPICS)
        own = rng.zipf(1.4, 7) % WORDS_A_TOPIC
        common = rng.zipf(1.3, 5) % COMMON
        words = [f"topic{topic}word{word}" for word in own] + [f"common{word}" for word in common]
        rng.shuffle(words)
        lines.append(" ".join(words))
    directory.mkdir(parents=True, exist_ok=True)
    thirds = [lines[index::3] for index in range(3)]
    paths = [directory / "a.txt", directory / "b.txt.gz", directory / "c.txt"]
    for path, third in zip(paths, thirds, strict=True):
        data = ("\n".join(third) + "\n").encode()
        path.write_bytes(_gzipped(data) if path.suffix == ".gz" else data)
    return [str(path) for path in paths]


def _gzipped(data: bytes) -> bytes:
    """The same bytes on every Python: from 3.13 on, the header's tenth byte, the operating system, says that it is unknown."""
    compressed = bytearray(gzip.compress(data, mtime=0))
    compressed[9] = 3
    return bytes(compressed)


def tiny_config(directory: Path, inputs: list[str], **sections: dict[str, object]) -> dict[str, object]:
    """A configuration for such a corpus: two lanes on each of four copies, 2 epochs of 3 rounds, merges of hot and of all rows.
    If the caller sets lanes, the number of copies follows from them."""
    tree: dict[str, dict[str, object]] = {
        "run": {"name": "tiny", "workdir": str(directory), "seed": 3},
        "corpus": {"inputs": inputs, "block_bytes": 40_000},
        "vocab": {"min_count": 2},
        "shards": {"sample": 1e-2},
        "train": {
            "vector_size": 16, "epochs": 2, "lanes": 8, "copies": 4, "merge_every": 2000, "hot_rows": 32, "hot_merge_every": 500,
            "checkpoint_every": 2000,
        },
        "evaluate": {"queries": ["topic1word1"], "analogy_queries": ["topic1word1:topic1word2=topic2word1"]},
        # The scheduler's dashboard takes half a second to import, in every run.
        "cluster": {"n_workers": 2, "options": {"scheduler_kwargs": {"dashboard": False}}},
    }  # fmt: skip
    chosen = sections.get("train", {})
    if "lanes" in chosen:
        del tree["train"]["copies"]
    if chosen.get("engine") == "layers":  # which would read none of these, and says so
        tree["train"] = {key: value for key, value in tree["train"].items() if not key.startswith(("merge", "hot", "checkpoint"))}
    if sections.get("cluster", {}).get("kind", "local") != "local":
        tree["cluster"] = {}
    return {name: tree.get(name, {}) | sections.get(name, {}) for name in tree.keys() | sections.keys()}
