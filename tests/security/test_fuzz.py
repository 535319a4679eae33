"""A sample of `make fuzz`: seeded mutations of all that is read are either read or give a clear error."""

from __future__ import annotations

import pytest

from tests.security.fuzz import Tally, kinds, try_case
from tests.security.fuzz_bench import Bench, make_bench

SLOW = {"workdirs": 4, "resealed histories": 6, "resealed workdirs": 4}
CASES = 25


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return make_bench(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.turns(10, 10, of="bytes of others")
def test_no_mutation_of_any_kind_of_input_is_a_bug_of_this_program(bench: Bench) -> None:
    tallies = {}
    for name, case in kinds(bench).items():
        tallies[name] = Tally()
        for number in range(SLOW.get(name, CASES)):
            tallies[name].note(f"{name}, seed 7, case {number}", *try_case(case, name, 7, number))
    failures = [failure for tally in tallies.values() for failure in tally.failures]
    assert failures == []
    assert {name for name, tally in tallies.items() if len(tally.endings) > 1} >= {"overrides", "yaml files", "vector files"}
