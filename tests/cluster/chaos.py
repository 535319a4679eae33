"""`make chaos`: every kill of `kills.KILLS`, and runs that are hit at random, each compared with an undisturbed run.

    python -m tests.cluster.chaos [--random N] [--seed S] [--only TEXT] [--skip N]

Prints a table. Exits with 1 if any run did not end as it should or gave other vectors, or if a failpoint was never reached.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

from tests.cluster.disturbed import Bench
from tests.cluster.kills import KILLS, Row, disturb, disturb_at_random


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--random", type=int, default=20, help="runs that are hit at random")
    parser.add_argument("--seed", type=int, default=int(time.strftime("%Y%m%d")), help="seed of the first of them")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--skip", type=int, default=0, help="so many cases at the beginning")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(Path(directory))
        print(f"undisturbed: {bench.digest}\n{'case':<60} {'exit':>4} {'seconds':>8}  same digest", flush=True)
        started = time.monotonic()
        rows = []
        for number, run in islice(enumerate(_cases(bench, options)), options.skip, None):
            name = f"case-{number:03}"
            row = run(name)
            rows.append(row)
            print(
                f"{row.case:<60} {row.code:>4} {row.seconds:>8.1f}  {'no: ' + row.problem if row.problem else 'yes'}", flush=True
            )
            shutil.rmtree(bench.directory / name, ignore_errors=True)
    wrong = sum(bool(row.problem) for row in rows)
    print(
        f"{len(rows)} cases, {len(rows) - wrong} with the undisturbed digest, {wrong} wrong; {time.monotonic() - started:.0f} s"
    )
    return 1 if wrong or not rows else 0


def _cases(bench: Bench, options: argparse.Namespace) -> Iterator[Callable[[str], Row]]:
    yield from (partial(disturb, bench, kill) for kill in KILLS if options.only in str(kill))
    if not options.only:
        yield from (partial(disturb_at_random, bench, options.seed + index) for index in range(options.random))


if __name__ == "__main__":
    sys.exit(main())
