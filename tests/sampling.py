"""Which cases of a sweep the tests run: with `make test` a few, chosen by seed; with `make test-all` (W2V_ALL=1) all of them."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence
from typing import TypeVar

Case = TypeVar("Case")
ALL = os.environ.get("W2V_ALL") == "1"
SEED = int(os.environ.setdefault("W2V_SEED", time.strftime("%Y%m%d")))
"""The seed of the samples, which every run of pytest prints. It is set for the processes that pytest starts, so that they agree
even at midnight."""


def sample(cases: Sequence[Case], count: int = 1) -> list[Case]:
    """`count` of the cases by W2V_SEED, the same ones in every process of pytest; all of them with W2V_ALL=1."""
    return list(cases) if ALL else random.Random(f"{SEED} {list(cases)}").sample(list(cases), count)
