"""Numba's cache of the kernels: kept between processes, and never older than any source it was made from."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import w2v_core
from tests.core.kernel_cases import random_case, train
from w2v_core.kernels.cpu import numba_kernels, wave_kernels

MERGE = """
import numpy as np
from w2v_core.kernels.cpu import merge_kernels
base = np.zeros((1, 8), np.float32)
lanes = [np.full((1, 8), 2, np.float32), np.full((1, 8), 4, np.float32), np.full((1, 8), 6, np.float32)]
merge_kernels.merge_rows(base, lanes, "mean")
print(float(base[0, 0]), sum(merge_kernels._merge.stats.cache_hits.values()))
"""


def _merge_in_a_new_process(package_parent: Path) -> tuple[float, int]:
    """(mean of 2, 4, 6 as the package there computes it, machine code taken from the cache)."""
    environment = os.environ | {"PYTHONPATH": str(package_parent), "NUMBA_CACHE_DIR": str(package_parent / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", MERGE], cwd=package_parent, env=environment, capture_output=True, text=True, check=True
    )
    value, hits = done.stdout.split()
    return float(value), int(hits)


def test_machine_code_is_kept_and_made_anew_when_a_file_it_was_built_from_changes(tmp_path: Path) -> None:
    copied = tmp_path / "w2v_core"
    shutil.copytree(Path(w2v_core.__file__).parent, copied, ignore=shutil.ignore_patterns("__pycache__"))
    assert _merge_in_a_new_process(tmp_path) == (4.0, 0)
    assert _merge_in_a_new_process(tmp_path) == (4.0, 1)
    # `add_rows` lies in another file than the function whose machine code is kept.
    operations = copied / "kernels" / "cpu" / "change_operations.py"
    source = operations.read_text()
    changed = source.replace("e.builder.fadd(e.load(a, columns.index), e.load(b, columns.index))", "e.load(a, columns.index)")
    assert changed != source
    operations.write_text(changed)
    value, hits = _merge_in_a_new_process(tmp_path)
    assert (round(value, 3), hits) == (round(2 / 3, 3), 0)


@pytest.mark.parametrize("model", ["cbow", "skipgram"])
def test_one_machine_code_serves_streams_that_can_and_that_cannot_be_written(model: str) -> None:
    case = random_case(1, model=model)
    of_writable = train(numba_kernels, case)
    targets, noise = case.targets, case.noise
    for array in (targets.tokens_N, targets.left_N, targets.right_N, noise.table_T, noise.rates_V):
        array.flags.writeable = False
    of_read_only = train(numba_kernels, case)
    for matrix in (0, 1):
        np.testing.assert_array_equal(of_writable[matrix], of_read_only[matrix])
    kernel = wave_kernels._run_thread if model == "cbow" else numba_kernels._train_skipgram
    assert len(kernel.signatures) == 1
