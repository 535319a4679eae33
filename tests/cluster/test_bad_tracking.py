"""A whole run with an MLflow server that is absent, slow, full, refuses, or disappears and returns: its bits and its curve.

`make test` takes one of the five states, by a seed that it prints (W2V_SEED=n replays it, W2V_ALL=1 takes all). `make tracking`
measures the seconds, on a machine that does nothing else; here other tests run at the same time.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.bad_tracking import STATES, Bench, NoSmallDiskError, check
from tests.sampling import SEED, sample

pytestmark = pytest.mark.filterwarnings("default")  # connections of the slow server are left to end by themselves


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.turns(10, 21, of="tracking")
def test_a_server_that_is_unwell_changes_no_bit_and_once_it_is_back_no_point_is_missing_or_doubled(tmp_path: Path) -> None:
    names = sample(list(STATES))
    print(f"W2V_SEED={SEED}: {', '.join(names)}")
    bench = Bench(tmp_path, epochs=6, sentences=2000)
    plain = bench.run(None)
    missing = ""
    for name in names:
        try:
            check(name, bench, plain, timed=False)
        except NoSmallDiskError as error:  # of one state only: the others are still to be tried
            missing = str(error)
    if missing:
        pytest.skip(missing)
