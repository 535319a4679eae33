"""What a second lane gains: `w2v run` with two lanes on two workers, alternating with one lane on one worker.

    python infra/benchmarks/scaling.py --corpus FILE [--size 100|300] [--repeats 3]

Raw tokens per second of the whole training stage, and the share of it that two lanes spend on merging (including waiting for
each other). Prints a row for each repeat and, last, one JSON line with medians.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
from pathlib import Path

from throughput import EPOCHS, SETTINGS, ours

ONE = ["train.lanes=1", "cluster.n_workers=1"]
TWO = ["train.lanes=2", "cluster.n_workers=2"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True, help="plain text, a sentence a line")
    parser.add_argument("--size", type=int, choices=SETTINGS, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    columns: dict[str, list[float]] = {"one_lane": [], "two_lanes": [], "ratio": [], "merging": []}
    print(f"D={given.size} {SETTINGS[given.size]}, {EPOCHS} epochs; raw tokens a second of the training stage")
    print(f"{'repeat':>6} {'one lane':>12} {'two lanes':>12} {'ratio':>6} {'merging':>8}")
    with tempfile.TemporaryDirectory() as scratch:
        for repeat in range(given.repeats):
            one, two = (ours(given.corpus, given.size, Path(scratch), overrides) for overrides in (ONE, TWO))
            rates = [EPOCHS * found["tokens"] / found["train_seconds"] for found in (one, two)]
            row = [*rates, rates[1] / rates[0], two["merge_seconds"] / two["train_seconds"]]
            for name, value in zip(columns, row, strict=True):
                columns[name].append(value)
            print(f"{repeat:>6} {row[0]:12,.0f} {row[1]:12,.0f} {row[2]:6.2f} {row[3]:8.1%}", flush=True)
    medians = {name: round(statistics.median(values), 3) for name, values in columns.items()}
    print(
        json.dumps(
            medians | {"size": given.size, "repeats": given.repeats, "machine": f"{platform.machine()}, {os.cpu_count()} cores"}
        )
    )


if __name__ == "__main__":
    main()
