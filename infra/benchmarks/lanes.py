"""What more lanes cost in quality and in merging: the real pipeline, run once for every number of lanes and every merge.

    python infra/benchmarks/lanes.py --corpus FILE --eval DIR [--lanes 1,2,8,32,64/4] [--merge adasum,mean] [--seeds 1,2]
                                     [--epochs 5] [--size 100] [--workers 2] [--workdir DIR] [section.key=value …]

Every row is `pipeline.run` itself: its plan, kernels, merges and evaluation, so the scores are those of any cluster that
runs the same configuration (the number of workers changes no bit). 64/4 is 64 lanes on four copies of the parameters. Without
--workers the lanes take turns in one thread of this process, which is enough for scores, bytes and *work*: the processor
seconds of the training stage for all lanes, relative to those of one lane with the same seed in the same run. Processor time is
used because others may use the machine, too; they still share its caches and memory. Rows of a seed follow one another.
The stages before training are run once in the workdir. DIR contains questions-words.txt, wordsim353.tsv, simlex999.txt.
Prints every row, then medians over the seeds with ratios to one lane (work: the median of the ratios with the same seed) and,
last, one JSON line. A spread of 1 % between seeds is usual.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
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


def warm_up(given: argparse.Namespace) -> None:
    """A small training with one lane and one with eight, so that no row includes compiling, or loading what was compiled."""
    with tempfile.TemporaryDirectory() as scratch:
        text = Path(scratch, "text.txt")
        text.write_text("".join(f"w{n % 97} w{n % 89} w{n % 7} w{n % 11}\n" for n in range(20_000)))
        small = argparse.Namespace(**(vars(given) | {"corpus": text, "epochs": 1, "overrides": []}))
        for lanes in ("1", "8"):
            train(small, Path(scratch, "workdir"), lanes, "adasum", 1)


def medians(rows: list[Row], one_lane: list[Row]) -> Row:
    """The medians of the columns over all seeds; `work` is that of the ratios to one lane's processor time with the same seed."""
    ratios = [row["cpu_s"] / one["cpu_s"] for row, one in zip(rows, one_lane, strict=True)] if one_lane else []
    return {column: statistics.median(row[column] for row in rows) for column in COLUMNS} | (
        {"work": statistics.median(ratios)} if ratios else {}
    )


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


def show(seed: str, lanes: str, merge: str, row: Row, one_lane: Row | None) -> None:
    numbers = f"{row['analogy']:8.4f} {row['ws353']:7.4f} {row['simlex']:7.4f} {row['merged_mb']:10,.0f}"
    seconds = f"{row['train_s']:8.1f} {row['merge_s']:8.1f} {row['cpu_s']:8.1f}"
    work = f"{row.get('work', row['cpu_s'] / one_lane['cpu_s']):6.2f}" if one_lane else ""
    ratios = " ".join(f"{row[name] / one_lane[name]:7.1%}" for name in SCORES) if one_lane else ""
    print(f"{seed:>6} {lanes:>5} {merge:>7} {numbers} {seconds} {work}  {ratios}", flush=True)


def main() -> None:
    given = parse_arguments()
    variants = [(lanes, merge) for lanes in given.lanes for merge in (given.merge if lanes != "1" else ["adasum"])]
    found: dict[tuple[str, str], list[Row]] = {variant: [] for variant in variants}
    one_lane = found.get(("1", "adasum"), [])
    titles = f"{'seed':>6} {'lanes':>5} {'merge':>7} {'analogy':>8} {'WS-353':>7} {'SimLex':>7} {'merged MB':>10}"
    print(f"{titles} {'train s':>8} {'merge s':>8} {'cpu s':>8} {'work':>6}  {'ratios to one lane':>23}")
    warm_up(given)
    with tempfile.TemporaryDirectory() as scratch:
        workdir = given.workdir or Path(scratch)
        # All rows of a seed one after another: the machine may be slower in an hour, and rows are compared with each other.
        for seed in given.seeds:
            for lanes, merge in variants:
                row = train(given, workdir, lanes, merge, seed)
                found[lanes, merge].append(row)
                show(str(seed), lanes, merge if row["merged_mb"] else "-", row, one_lane[-1] if one_lane else None)
    results = []
    of_one_lane = medians(one_lane, one_lane) if one_lane else None
    for lanes, merge in variants:
        row = medians(found[lanes, merge], one_lane)
        show("median", lanes, merge if row["merged_mb"] else "-", row, of_one_lane)
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
