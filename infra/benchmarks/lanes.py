"""What more lanes cost in quality and in merging: the real pipeline, run once for every number of lanes and every merge.

    python infra/benchmarks/lanes.py --corpus FILE --eval DIR [--lanes 1,2,8,32,64/4] [--merge adasum,mean] [--seeds 1,2]
                                     [--epochs 5] [--size 100] [--workers 2] [--workdir DIR] [section.key=value …]

Every row is `pipeline.run` itself: its plan, kernels, merges and evaluation, so the scores are those of any cluster that
runs the same configuration (the number of workers changes no bit). 64/4 is 64 lanes on four copies of the parameters. Without
--workers the lanes take turns in one thread of this process, which is enough for scores, bytes and *work*: the processor
seconds of the training stage for all lanes, relative to those of one lane with the same seed in the same run. Processor time is
used because others may use the machine, too; they still share its caches and memory.
The stages before training are run once in the workdir. DIR contains questions-words.txt, wordsim353.tsv, simlex999.txt.
Prints medians over the seeds, ratios to one lane and, last, one JSON line. A spread of 1 % between seeds is usual.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.cluster.workers import InProcess
from pipeline.config import parse_config
from pipeline.progress import Progress
from pipeline.run import run

Row = dict[str, float]
SCORES = {"analogy": "analogy", "ws353": "wordsim353", "simlex": "simlex999"}
COLUMNS = ("analogy", "ws353", "simlex", "merged_mb", "train_s", "merge_s", "cpu_s")


def train(given: argparse.Namespace, workdir: Path, lanes: str, merge: str, seed: int) -> Row:
    """One run's scores and merged megabytes, and the seconds, merging seconds and processor seconds of its training stage."""
    count, _, copies = lanes.partition("/")
    evaluation = {"analogies": ["questions-words.txt"], "similarity": ["wordsim353.tsv", "simlex999.txt"]}
    tree: dict[str, Any] = {
        "run": {"name": "lanes", "workdir": str(workdir), "seed": seed},
        "corpus": {"inputs": [str(given.corpus.resolve())]},
        "tokenize": {"tokenizer": "whitespace", "lowercase": False, "normalize": None},
        "train": {
            "vector_size": given.size,
            "epochs": given.epochs,
            "lanes": int(count),
            "copies": int(copies or 0),
            "merge": merge,
        },
        "evaluate": {key: [str((given.eval / name).resolve()) for name in names] for key, names in evaluation.items()},
        "publish": {"formats": []},
        "tracking": {"enabled": False},
        "cluster": {"n_workers": given.workers or 1},
    }
    config = parse_config(tree, given.overrides)
    workers = None if given.workers else InProcess()
    run(config, until="shards", workers=workers, progress=Progress(quiet=True))
    before = time.process_time()
    run(config, until="train", workers=workers, progress=Progress(quiet=True))
    cpu_s = time.process_time() - before
    summary = run(config, until="evaluate", workers=workers, progress=Progress(quiet=True))
    found, trained = summary["evaluation"], summary["train"]
    return {
        "analogy": found["analogy"],
        "ws353": found["similarity"]["wordsim353"],
        "simlex": found["similarity"]["simlex999"],
        "merged_mb": trained["merged_bytes"] / 1e6,
        "train_s": trained["seconds"],
        "merge_s": trained["merge_seconds"],
        "cpu_s": cpu_s,
    }


def median_over_seeds(given: argparse.Namespace, run_one: Callable[[int], Row]) -> Row:
    """The medians of the columns over all seeds."""
    rows = [run_one(seed) for seed in given.seeds]
    return {column: statistics.median(row[column] for row in rows) for column in COLUMNS}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    numbers = lambda text: [int(number) for number in text.split(",")]  # noqa: E731
    parser.add_argument("--corpus", type=Path, required=True, help="plain text, a sentence a line")
    parser.add_argument("--eval", type=Path, required=True, help="folder with the question sets")
    parser.add_argument("--lanes", type=lambda text: text.split(","), default=["1", "2", "8", "32"])
    parser.add_argument("--merge", type=lambda text: text.split(","), default=["adasum"])
    parser.add_argument("--seeds", type=numbers, default=[1])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--size", type=int, default=100)
    parser.add_argument("--workers", type=int, default=0, help="0 = in this process")
    parser.add_argument("--workdir", type=Path, help="kept and reused; without it a temporary folder")
    parser.add_argument("overrides", nargs="*", help="section.key=value for all runs")
    return parser.parse_args()


def show(lanes: str, merge: str, row: Row, one_lane: Row | None) -> None:
    numbers = f"{row['analogy']:8.4f} {row['ws353']:7.4f} {row['simlex']:7.4f} {row['merged_mb']:10,.0f}"
    seconds = f"{row['train_s']:8.1f} {row['merge_s']:8.1f} {row['cpu_s']:8.1f}"
    work = f"{row['cpu_s'] / one_lane['cpu_s']:6.2f}" if one_lane else ""
    ratios = " ".join(f"{row[name] / one_lane[name]:7.1%}" for name in SCORES) if one_lane else ""
    print(f"{lanes:>5} {merge:>7} {numbers} {seconds} {work}  {ratios}", flush=True)


def main() -> None:
    given = parse_arguments()
    results = []
    one_lane: Row | None = None
    titles = f"{'lanes':>5} {'merge':>7} {'analogy':>8} {'WS-353':>7} {'SimLex':>7} {'merged MB':>10}"
    print(f"{titles} {'train s':>8} {'merge s':>8} {'cpu s':>8} {'work':>6}  {'ratios to one lane':>23}")
    with tempfile.TemporaryDirectory() as scratch:
        workdir = given.workdir or Path(scratch)
        for lanes in given.lanes:
            for merge in given.merge if lanes != "1" else ["adasum"]:
                row = median_over_seeds(given, lambda seed, lanes=lanes, merge=merge: train(given, workdir, lanes, merge, seed))  # type: ignore[misc]
                one_lane = row if lanes == "1" else one_lane
                show(lanes, merge if row["merged_mb"] else "-", row, one_lane)
                results.append({"lanes": lanes, "merge": merge, **{name: round(value, 4) for name, value in row.items()}})
    print(
        json.dumps({
            "corpus": given.corpus.name, "epochs": given.epochs, "size": given.size, "seeds": given.seeds,
            "workers": given.workers, "overrides": given.overrides, "rows": results,
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        })
    )  # fmt: skip


if __name__ == "__main__":
    main()
