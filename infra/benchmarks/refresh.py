"""Cost and scores of a warm refresh compared with a cold build: 80 % of a corpus first, then the other 20 % arrive.

    python infra/benchmarks/refresh.py --corpus FILE --eval DIR [--seeds 1,2,3] [--epochs 1,2] [--alphas .05,.03,.02]
                                       [--lanes 2] [--workers 2] [--workdir DIR] [section.key=value …]

For every seed: the vectors of the first 80 % (the champion), a cold build of everything, and warm builds of everything from the
champion: as `w2v refresh` does by default, or, to choose that default, one for each of the given epochs and α. Every row is a run
of the pipeline itself. Prints scores and seconds of the training stage, and both relative to the cold build's, as means over the
seeds, and, last, one JSON line. DIR contains questions-words.txt, wordsim353.tsv, simlex999.txt.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import tempfile
from pathlib import Path
from typing import Any

from pipeline.cluster.workers import InProcess
from pipeline.config import RunConfig, parse_config
from pipeline.history.latest import champion_of
from pipeline.progress import Progress
from pipeline.refresh.refresh import refresh
from pipeline.run import run

SCORES = {"analogy": "analogy", "ws353": "wordsim353", "simlex": "simlex999"}
FIRST_SHARE = 0.8
Row = dict[str, float]


def split(corpus: Path, place: Path) -> tuple[Path, Path]:
    """The first 80 % of the corpus's bytes and the rest, cut at the end of a line."""
    old, new = place / "a-old.txt", place / "b-new.txt"
    if not new.exists():
        place.mkdir(parents=True, exist_ok=True)
        text = corpus.read_bytes()
        cut = text.index(b"\n", int(len(text) * FIRST_SHARE)) + 1
        old.write_bytes(text[:cut])
        new.write_bytes(text[cut:])
    return old, new


def configure(given: argparse.Namespace, workdir: Path, inputs: list[Path], seed: int, train: dict[str, Any]) -> RunConfig:
    sets = {"analogies": ["questions-words.txt"], "similarity": ["wordsim353.tsv", "simlex999.txt"]}
    tree: dict[str, Any] = {
        "run": {"name": "refresh", "workdir": str(workdir), "seed": seed},
        "corpus": {"inputs": [str(path) for path in inputs]},
        "tokenize": {"tokenizer": "whitespace", "lowercase": False, "normalize": None},
        "train": {"vector_size": given.size, "lanes": given.lanes} | train,
        "evaluate": {key: [str((given.eval / name).resolve()) for name in names] for key, names in sets.items()},
        "publish": {"formats": []},
        "tracking": {"enabled": False},
        "cluster": {"n_workers": given.workers or 1},
    }
    return parse_config(tree, given.overrides)


def build(given: argparse.Namespace, workdir: Path, inputs: list[Path], seed: int, train: dict[str, Any]) -> dict[str, Any]:
    """The summary of one run up to its scores."""
    workers = None if given.workers else InProcess()
    return run(configure(given, workdir, inputs, seed, train), until="evaluate", workers=workers, progress=Progress(quiet=True))


def refresh_twice(given: argparse.Namespace, workdir: Path, files: tuple[Path, Path], seed: int) -> tuple[dict[str, Any], ...]:
    """The summaries of two refreshes in a new workdir, over a folder with the first file, then with both."""
    folder, summaries = workdir / "corpus", []
    folder.mkdir(parents=True)
    for file in files:
        os.link(file, folder / file.name)
        config = configure(given, workdir / "work", [folder], seed, {})
        told = refresh(config, workers=None if given.workers else InProcess(), progress=Progress(quiet=True))
        assert told["status"] == "promoted", told["decision"]
        champion = champion_of(config.workdir)
        assert champion is not None
        summaries.append(champion.summary())
    return tuple(summaries)


def row_of(summary: dict[str, Any]) -> Row:
    found = summary["evaluation"]
    scores = {"analogy": found["analogy"], "ws353": found["similarity"]["wordsim353"], "simlex": found["similarity"]["simlex999"]}
    return scores | {"seconds": summary["train"]["seconds"], "kept_tokens": summary["train"]["kept_tokens"]}


def show(name: str, row: Row, cold: Row) -> None:
    scores = " ".join(f"{row[key]:8.4f}" for key in SCORES)
    ratios = " ".join(f"{row[key] / cold[key]:7.3f}" for key in (*SCORES, "seconds", "kept_tokens"))
    print(f"{name:<28} {scores} {row['seconds']:8.2f}  {ratios}", flush=True)


def setting(text: str) -> tuple[str, Any]:
    key, _, value = text.partition("=")
    return key, json.loads(value)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--corpus", type=Path, required=True, help="plain text, a sentence a line")
    parser.add_argument("--eval", type=Path, required=True, help="folder with the question sets")
    parser.add_argument("--seeds", type=lambda text: [int(number) for number in text.split(",")], default=[1, 2, 3])
    parser.add_argument("--epochs", type=lambda text: [int(number) for number in text.split(",")], default=[])
    parser.add_argument("--alphas", type=lambda text: [float(number) for number in text.split(",")], default=[0.03])
    parser.add_argument("--min-alphas", type=lambda text: [float(number) for number in text.split(",")], default=[0.0125])
    parser.add_argument("--warm", type=setting, action="append", default=[], help="KEY=VALUE of train, for warm builds only")
    parser.add_argument("--size", type=int, default=100)
    parser.add_argument("--lanes", type=int, default=2)
    parser.add_argument("--workers", type=int, default=0, help="0 = in this process")
    parser.add_argument("--workdir", type=Path, help="kept and reused; without it a temporary folder")
    parser.add_argument("overrides", nargs="*", help="section.key=value for all runs")
    return parser.parse_args()


def warm_settings(epochs: int, alpha: float, min_alpha: float) -> tuple[str, dict[str, Any]]:
    name = f"warm, {epochs} epochs, α {alpha:g} → {min_alpha:g}"
    return name, {"epochs": epochs, "alpha": alpha, "min_alpha": min(alpha, min_alpha)}


def as_refreshed(given: argparse.Namespace, place: Path, files: tuple[Path, Path], seed: int) -> dict[str, Row]:
    """Two refreshes, and a cold build in a separate workdir: every stage runs in each of them, as in a nightly refresh."""
    first, second = refresh_twice(given, place / f"refreshed-{seed}", files, seed)
    cold = build(given, place / f"cold-{seed}", list(files), seed, {})
    return {"champion (80 %)": row_of(first), "cold": row_of(cold), "warm, by w2v refresh": row_of(second)}


def grid(given: argparse.Namespace, place: Path, files: tuple[Path, Path], seed: int) -> dict[str, Row]:
    """Warm builds with each of the given settings; they share the stages before training, so their seconds say little."""
    champion = build(given, place / "work", [files[0]], seed, {})
    rows = {"champion (80 %)": row_of(champion), "cold": row_of(build(given, place / "work", list(files), seed, {}))}
    for point in itertools.product(given.epochs, given.alphas, given.min_alphas):
        name, train = warm_settings(*point)
        start = {"start_from": champion["vectors"]["path"]} | dict(given.warm)
        rows[name] = row_of(build(given, place / "work", list(files), seed, train | start))
    return rows


def main() -> None:
    given = parse_arguments()
    found: dict[str, list[Row]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        place = given.workdir or Path(scratch)
        files = split(given.corpus, place)
        for seed in given.seeds:
            rows = grid(given, place, files, seed) if given.epochs else as_refreshed(given, place, files, seed)
            for name, row in rows.items():
                found.setdefault(name, []).append(row)
                show(f"seed {seed} {name}", row, rows["cold"])
    means = {name: {key: statistics.fmean(row[key] for row in rows) for key in rows[0]} for name, rows in found.items()}
    print(
        f"\n{'means':<28} {'analogy':>8} {'WS-353':>8} {'SimLex':>8} {'train s':>8}  ratios to cold: scores, seconds, kept tokens"
    )
    for name, row in means.items():
        show(name, row, means["cold"])
    print(
        json.dumps({
            "corpus": given.corpus.name, "size": given.size, "seeds": given.seeds, "lanes": given.lanes, "workers": given.workers,
            "overrides": given.overrides, "rows": {name: {k: round(v, 4) for k, v in row.items()} for name, row in means.items()},
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        })
    )  # fmt: skip


if __name__ == "__main__":
    main()
