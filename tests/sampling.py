"""Which cases of a sweep the tests run: with `make test` a few, chosen by seed; with `make test-all` (W2V_ALL=1) all of them.

Tests that take seconds of processor time for clusters and servers of their own take turns in `make test`: a test marked with
`turns(n)` runs there every nth day, and of all that are marked in one file, or with the same `of`, one runs every day. Without
W2V_TURNS=1, which `make test` sets, all of them run, as they do with `make test-all`."""

from __future__ import annotations

import datetime
import os
import random
import time
from collections.abc import Sequence
from contextlib import suppress
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


def their_turn(turns: Sequence[int], seed: int = SEED) -> list[bool]:
    """Which tests of one group run on the day that the seed is, given the days between two runs of each: each at least once in so
    many days, and if that number is the same for all, one of them on every day."""
    day = seed
    with suppress(ValueError):  # any other number counts as a day
        day = datetime.datetime.strptime(str(seed), "%Y%m%d").toordinal()
    return [(index + day) % min(days, len(turns)) == 0 for index, days in enumerate(turns)]
