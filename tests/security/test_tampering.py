"""A sample of `python -m tests.security.tampering`: tampering with a file of a workdir is found and named, or changes no bit."""

from __future__ import annotations

import random

import pytest

from tests.security.tampering import WAYS, Bench, files, make_bench, try_cell

CELLS = 12


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return make_bench(tmp_path_factory.mktemp("tampering"))


@pytest.mark.turns(4, 5, of="bytes of others")
def test_what_is_done_to_a_file_of_a_workdir_is_found_and_named_or_changes_no_bit(bench: Bench) -> None:
    kinds = files(bench.workdir)
    assert len(kinds) > 15
    cells = [(kind, inside, way) for kind, inside in kinds.items() for way in WAYS]
    failed = []
    for kind, inside, way in random.Random(19).sample(cells, CELLS):
        cell = try_cell(bench, kind, inside, way)
        if cell and not cell.good:
            failed.append((kind, way, cell))
    assert failed == []
