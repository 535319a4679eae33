"""Which cases of a sweep the tests run: with `make test` a few, chosen by seed; with `make test-all` (W2V_ALL=1) all of them.

Tests that take seconds of processor time take turns in `make test`: one that is marked with `turns(days, seconds)` runs there on
one of so many days, and its days are chosen so that every day takes about as long as any other and that of each group of tests
(a file, or those with the same `of`) as many run on one day as on another. Without W2V_TURNS=1, which `make test` sets, all of
them run, as they do with `make test-all`."""

from __future__ import annotations

import datetime
import os
import random
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

Case = TypeVar("Case")
ALL = os.environ.get("W2V_ALL") == "1"
TURNS = os.environ.get("W2V_TURNS") == "1" and not ALL
SEED = int(os.environ.setdefault("W2V_SEED", time.strftime("%Y%m%d")))
"""The seed of the samples, which every run of pytest prints. It is set for the processes that pytest starts, so that they agree
even at midnight."""


def sample(cases: Sequence[Case], count: int = 1) -> list[Case]:
    """`count` of the cases by W2V_SEED, the same ones in every process of pytest; all of them with W2V_ALL=1."""
    return list(cases) if ALL else random.Random(f"{SEED} {list(cases)}").sample(list(cases), count)


CYCLE = 60
"""After so many days everything repeats: a multiple of 2, 3, 4, 5 and 10, the days between two runs of a test."""


@dataclass(frozen=True)
class Turn:
    """A test that runs on one of `days` days and then takes about so many seconds of processor time, in the group `of`."""

    days: int
    seconds: float
    of: str


def first_days(tests: Sequence[Turn]) -> list[int]:
    """The first day, counted from 0, of each of the tests: the longest are distributed first, each to the days with the fewest of
    its group and, of those, to the ones on which the least is to be done."""
    seconds, counts = [0.0] * CYCLE, defaultdict[str, list[int]](lambda: [0] * CYCLE)
    found = [0] * len(tests)
    for index in sorted(range(len(tests)), key=lambda index: -tests[index].seconds):
        test = tests[index]
        days = [range(first, CYCLE, test.days) for first in range(test.days)]
        chosen = min(days, key=lambda days: (sum(counts[test.of][day] for day in days), sum(seconds[day] for day in days)))
        for day in chosen:
            seconds[day] += test.seconds
            counts[test.of][day] += 1
        found[index] = chosen.start
    return found


def day_of(seed: int) -> int:
    """The day that a seed is; any number that is no date counts as a day."""
    with suppress(ValueError):
        return datetime.datetime.strptime(str(seed), "%Y%m%d").toordinal()
    return seed
