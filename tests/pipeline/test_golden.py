"""Golden losses: the loss of a tiny corpus after each epoch, for each engine, model and backend.

A change that should not alter results leaves them unchanged. One that should says so in CHANGELOG.md and writes them anew:

    W2V_WRITE_GOLDEN=1 python -m pytest tests/pipeline/test_golden.py

Backends share one row, because they differ only in their last bits. A processor without fused multiply-add rounds differently,
too; the bounds are wide enough for that and far too narrow for different draws, another order or another α.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest

from pipeline import store
from pipeline.cluster.workers import InProcess
from pipeline.config import parse_config
from pipeline.progress import Progress
from pipeline.run import run
from pipeline.training.history import epoch_loss, history_of
from tests.tiny import tiny_config, write_corpus

LOSSES = Path(__file__).parents[1] / "golden" / "losses.json"
KERNELS: dict[str, dict[str, Any]] = {
    "cbow, one lane": {"lanes": 1},
    "cbow, one lane, exact gradient": {"lanes": 1, "gradient": "exact"},
    "cbow, four lanes": {"lanes": 4},
    "cbow, four lanes on one copy": {"lanes": 4, "copies": 1},
    "skipgram, one lane": {"lanes": 1, "model": "skipgram"},
    "skipgram, four lanes": {"lanes": 4, "model": "skipgram"},
}
LAYERS: dict[str, dict[str, Any]] = {
    "layers, cbow, sgd": {"optimizer": "sgd", "alpha": 1.0, "min_alpha": 0.1},
    "layers, cbow, adam": {"optimizer": "adam", "alpha": 0.01, "min_alpha": 0.001},
    "layers, skipgram, adam": {"optimizer": "adam", "alpha": 0.01, "min_alpha": 0.001, "model": "skipgram"},
}
WITHIN = {"numba": 1e-4, "numpy": 1e-4, "layers": 1e-4, "cupy": 0.02}
"""Relative; a GPU trains blocks side by side, in a different order every time."""
CASES = [
    pytest.param(row, backend, marks=pytest.mark.turns(4, 5.5) if (backend, row[:8]) == ("numpy", "skipgram") else ())
    for row, backend in [*itertools.product(KERNELS, ("numba", "numpy", "cupy")), *((row, "layers") for row in LAYERS)]
]


def has_device() -> bool:
    if not importlib.util.find_spec("cupy"):
        return False
    import cupy

    return bool(cupy.cuda.is_available())


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workdir whose first three stages are made once for all tests."""
    return tmp_path_factory.mktemp("golden")


def losses_of(row: str, backend: str, workdir: Path) -> list[float]:
    """The mean loss of each epoch."""
    if backend == "layers":
        train = LAYERS[row] | {"engine": "layers", "lanes": 1, "vector_size": 16, "epochs": 2, "batch_size": 32}
    else:
        train = KERNELS[row] | {"backend": backend, "vector_size": 16, "epochs": 2}
    inputs = write_corpus(workdir / "corpus", sentences=600)
    tree = tiny_config(workdir / "run", inputs, tracking={"enabled": False}) | {"train": train}
    summary = run(parse_config(tree), until="train", workers=InProcess(), progress=Progress(quiet=True))
    history = history_of(store.load_artefact(Path(summary["vectors"]["path"])))
    return [epoch_loss(history, epoch) for epoch in (0, 1)]


@pytest.mark.parametrize(("row", "backend"), CASES)
def test_a_tiny_corpus_trains_to_its_golden_losses(row: str, backend: str, workdir: Path) -> None:
    if backend == "cupy" and not has_device():
        pytest.skip("CuPy finds no CUDA device")
    found = losses_of(row, backend, workdir)
    golden: dict[str, list[float]] = json.loads(LOSSES.read_text())
    if os.environ.get("W2V_WRITE_GOLDEN") and backend in ("numba", "layers"):
        golden[row] = [float(f"{loss:.7g}") for loss in found]
        LOSSES.write_text(json.dumps(golden, indent=1, sort_keys=True) + "\n")
    assert found == pytest.approx(golden[row], rel=WITHIN[backend])
    assert found[1] < found[0], "it learns"


def test_every_golden_row_is_tested() -> None:
    assert json.loads(LOSSES.read_text()).keys() == KERNELS.keys() | LAYERS.keys()
