"""The rules of the house that a machine can check: who imports whom, what importing costs, how long a file may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = sorted((ROOT / "w2v_core").rglob("*.py"))
PIPELINE = sorted((ROOT / "pipeline").rglob("*.py"))
COMPILED = {"numba", "llvmlite", "cupy"}


def imports(path: Path) -> set[str]:
    """Top-level packages that a file imports anywhere."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def module_level_imports(path: Path) -> set[str]:
    """What importing the file imports at once; imports inside functions and under TYPE_CHECKING do not count."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("path", CORE, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_core_knows_arrays_and_nothing_of_files_clusters_or_tracking(path: Path) -> None:
    assert not imports(path) & {"pipeline", "dask", "distributed", "pyarrow", "mlflow", "pydantic", "yaml", "click"}
    if not {"kernels", "text"} & {folder.name for folder in path.parents}:
        assert not module_level_imports(path) & COMPILED


@pytest.mark.parametrize("path", PIPELINE, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_driver_never_imports_mlflow_and_heavy_packages_only_inside_functions(path: Path) -> None:
    if path.stem not in ("delivery", "shipper", "registry", "served_model"):
        assert "mlflow" not in imports(path)
    # Two files are about what they import: the model that MLflow loads, and the links between Dask's workers.
    if path.stem not in ("served_model", "network"):
        assert not module_level_imports(path) & {"mlflow", "dask", "distributed", "cupy"}


def test_the_plan_of_training_needs_no_cluster_and_no_clock() -> None:
    assert not imports(ROOT / "pipeline" / "training" / "plan.py") & {
        "distributed",
        "dask",
        "time",
        "datetime",
        "socket",
        "numpy",
    }


def test_importing_the_core_imports_nothing_but_numpy() -> None:
    code = "import sys, w2v_core, w2v_core.vectors, w2v_core.vectors.evaluation, w2v_core.textbook.layers; print(*sys.modules)"
    loaded = {name.split(".")[0] for name in subprocess.check_output([sys.executable, "-c", code], text=True).split()}
    assert not loaded & {"dask", "distributed", "pyarrow", "mlflow", "numba", "cupy", "pandas", "scipy"}


@pytest.mark.parametrize("path", [*CORE, *PIPELINE], ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_one_story(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 500
    assert path.stem not in {"utils", "util", "helpers", "common", "misc"}
    assert ast.get_docstring(ast.parse(path.read_text())), "a file begins with what it gives and why it is this way"
