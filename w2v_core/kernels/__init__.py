"""Fast negative-sampling training: one module for each kind of machine, all of which keep `w2v_core.contract`.

    checks.py               what the arguments of a call must be, and the errors when they are not
    initial.py              the parameters: how their rows lie in memory, and their initial values
    numpy_kernels.py        plain array operations
    cpu/numba_kernels.py    CPUs: whole slices; the loops and the LLVM code of row operations stand beside it
    cuda/cupy_kernels.py    GPUs: launches of cuda/*.cu, arranged by cuda/slices.py

This module exports what the rest of the system uses.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Literal, cast

from w2v_core.contract import (
    MOST_LANE_TARGETS,
    FloatRows,
    Gradient,
    Kernels,
    LocalTraining,
    Merge,
    ModelName,
    Noise,
    Slice,
    SliceResult,
    Update,
    Workroom,
)
from w2v_core.extras import install_command
from w2v_core.kernels.initial import (
    ROW_FLOATS,
    aligned_zeros,
    allocate_parameters,
    fill_initial,
    initial_parameters,
    padded_size,
)

__all__ = [
    "BACKENDS",
    "MOST_LANE_TARGETS",
    "ROW_FLOATS",
    "Backend",
    "FloatRows",
    "Gradient",
    "Kernels",
    "LocalTraining",
    "Merge",
    "ModelName",
    "Noise",
    "Slice",
    "SliceResult",
    "Update",
    "Workroom",
    "aligned_zeros",
    "allocate_parameters",
    "fill_initial",
    "initial_parameters",
    "load_kernels",
    "padded_size",
]  # fmt: skip

Backend = Literal["auto", "numba", "numpy", "cupy"]
BACKENDS = {
    "numpy": "w2v_core.kernels.numpy_kernels",
    "numba": "w2v_core.kernels.cpu.numba_kernels",
    "cupy": "w2v_core.kernels.cuda.cupy_kernels",
}


def load_kernels(backend: Backend = "auto") -> Kernels:
    """The kernels of `backend`; "auto" is CuPy if it finds a usable device, else Numba if it is installed, else NumPy.

    Raises ValueError for an unknown backend, ModuleNotFoundError, with the command that installs it, for a missing package.
    """
    if backend == "auto":
        backend = "cupy" if _has_device() else "numba" if importlib.util.find_spec("numba") else "numpy"
    if backend not in BACKENDS:
        raise ValueError(f"expected backend auto, numba, numpy or cupy, found {backend!r}")
    try:
        return cast(Kernels, importlib.import_module(BACKENDS[backend]))
    except ModuleNotFoundError as error:
        cupy = f"{install_command('gpu13')} (CUDA 13) or '…[gpu12]' (CUDA 12)"
        install = {"cupy": cupy, "numba": "pip install numba", "numpy": ""}[backend]
        raise ModuleNotFoundError(
            f"the {backend} backend needs the module {error.name!r}, which is not installed: {install}, or set backend to auto",
            name=error.name,
        ) from error


def _has_device() -> bool:
    if not importlib.util.find_spec("cupy") or not importlib.util.find_spec("w2v_core.kernels.cuda.cupy_kernels"):
        return False
    import cupy

    # Importing CuPy succeeds without a GPU; only this call asks the driver.
    return bool(cupy.cuda.is_available())
