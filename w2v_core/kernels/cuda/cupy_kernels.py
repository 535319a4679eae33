"""The kernels on an NVIDIA GPU, through CuPy, compiled from cuda/*.cu for the vector size and number of noise words in use.

    w_in, w_out, table = (to_device(array) for array in (w_in_VD, w_out_VD, table_T))
    train_slice(w_in, w_out, Slice(tokens_N, left_N, right_N, 0, n), Noise(table, rates_V), update)
    w_in_VD = to_host(w_in)

Keep parameters and noise table on the device between calls; the stream may stay on the host. NumPy parameters are accepted
and copied in and out at every call: correct, but slow (two matrices of 100,000 × 128 are 100 MB each way, which takes ten
times as long as training 100,000 tokens).
The stream is 6 bytes per target, 0.6 GB/s at 100 M targets a second: 1 to 3 % of what PCIe carries, so its copies are not
overlapped with the kernels. One lane per device: a second one would only compete for the same multiprocessors.

One difference from the CPU backends is intended: `mode="concurrent"` (the default) trains blocks of the stream side by side
on shared parameters, so two runs differ in their last bits and, over time, in more. `mode="sequential"` uses one thread block
and is far slower, but gives the same bits every time on one kind of device. Draws, groups and updates are the same in both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cache
from typing import Any

import cupy
import numpy as np
from numpy.typing import NDArray

from w2v_core.contract import FloatRows, Merge, Noise, Slice, SliceResult, Update, Workroom
from w2v_core.extras import install_command
from w2v_core.kernels.checks import check_lanes, lane_seeds
from w2v_core.kernels.cuda import slices
from w2v_core.kernels.cuda.slices import Array, Mode
from w2v_core.kernels.initial import fill_initial

name = "cupy"
train_copies = None
__all__ = ["fill_initial", "merge_rows", "name", "to_device", "to_host", "train_copies", "train_lanes", "train_slice"]

COMPILE_OPTIONS = ("-std=c++17",)
"""The source includes no files, so no header directory is needed; no fast math, so that NaN and infinity are preserved."""


def train_slice(
    w_in_VD: FloatRows, w_out_VD: FloatRows, targets: Slice, noise: Noise, update: Update, *,
    mode: Mode = "concurrent", thread_blocks: int | None = None,
) -> SliceResult:  # fmt: skip
    """See `Kernels.train_slice`. Every array may be NumPy's or CuPy's; waits for the device.

    `thread_blocks`: blocks of 128 targets in flight (default `slices.default_thread_blocks`: 4 to 16 by length).
    Raises RuntimeError without a usable device.
    """
    return slices.train_slice(current_device(), w_in_VD, w_out_VD, targets, noise, update, mode=mode, thread_blocks=thread_blocks)


def train_lanes(
    w_in_VD: FloatRows, w_out_VD: FloatRows, lanes: Sequence[Slice], noise: Noise, update: Update, threads: int,
    room: Workroom,
) -> list[SliceResult]:  # fmt: skip
    """See `Kernels.train_lanes`. Trains one lane after another: one lane has enough blocks in flight to fill the device."""
    check_lanes(lanes, update, threads)
    return [
        train_slice(w_in_VD, w_out_VD, targets, noise, dataclasses.replace(update, seed=seed))
        for targets, seed in zip(lanes, lane_seeds(update.seed, len(lanes)), strict=True)
    ]


def merge_rows(base_RD: FloatRows, lanes: Sequence[FloatRows], method: Merge) -> None:
    """See `Kernels.merge_rows`. The same bits every time; equal to the CPU backends within rounding."""
    slices.merge_rows(current_device(), base_RD, lanes, method)


def to_device(array: Any) -> Any:
    """The array in the memory of CuPy's current device, C-contiguous; the array itself if it is already there."""
    return current_device().to_device(array)


def to_host(array: Any) -> NDArray[Any]:
    """The array as a NumPy array, once pending writes to it are done; a NumPy array is returned as it is."""
    return array if isinstance(array, np.ndarray) else current_device().to_host(array)


def current_device() -> CupyDevice:
    """CuPy's current device; raises RuntimeError with the driver's reason where there is none."""
    if not cupy.cuda.is_available():
        raise RuntimeError(f"the cupy backend needs a CUDA device: {_driver_says()}; set train.backend to auto or numba")
    return _device(cupy.cuda.Device().id)


def _driver_says() -> str:
    try:
        return f"{cupy.cuda.runtime.getDeviceCount()} devices"
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return str(error)


class CupyDevice:
    """A GPU, as a `slices.Device`."""

    def __init__(self, number: int, attributes: dict[str, int]) -> None:
        self.number = number
        self.multiprocessors = attributes["MultiProcessorCount"]
        self.shared_bytes = attributes["MaxSharedMemoryPerBlockOptin"]

    def owns(self, array: Array) -> bool:
        if not isinstance(array, cupy.ndarray):
            return False
        if array.device.id != self.number:
            raise ValueError(f"expected arrays on CUDA device {self.number}, found one on device {array.device.id}")
        return True

    def to_device(self, array: Array) -> Any:
        return cupy.ascontiguousarray(cupy.asarray(array))

    def to_host(self, array: Array) -> NDArray[Any]:
        host: NDArray[Any] = array.get()
        return host

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return cupy.empty(shape, dtype)

    def address(self, array: Array) -> int:
        return int(array.data.ptr)

    def launch(
        self, kernel: str, build: tuple[int, int], blocks: int, threads: int, shared_bytes: int, arguments: Sequence[Any]
    ) -> None:
        function = _module(self.number, *build).get_function(kernel)
        if shared_bytes > function.max_dynamic_shared_size_bytes:
            function.max_dynamic_shared_size_bytes = shared_bytes
        function((blocks,), (threads,), tuple(arguments), shared_mem=shared_bytes)


@cache
def _device(number: int) -> CupyDevice:
    return CupyDevice(number, cupy.cuda.Device(number).attributes)


@cache
def _module(number: int, row_floats: int, negative: int) -> Any:
    """The compiled and loaded CUDA source; CuPy also keeps the compiled code in its kernel cache on disk.

    Raises RuntimeError if the source does not compile or NVRTC cannot be loaded.
    """
    options = (*COMPILE_OPTIONS, f"-DROW_FLOATS={row_floats}", f"-DNEGATIVE={negative}")
    module = cupy.RawModule(code=slices.source(), options=options, backend="nvrtc")
    try:
        module.compile()
    except cupy.cuda.compiler.CompileException as error:
        raise RuntimeError(
            f"w2v_core/kernels/cuda does not compile for device {number} with {' '.join(options)}; "
            f"the compiler needs no headers, so this is its version or the source:\n{error}"
        ) from error
    except (ImportError, RuntimeError, OSError) as error:
        raise RuntimeError(
            f"CuPy cannot load NVRTC, CUDA's run-time compiler: {error}. Install it with "
            f"{install_command('gpu13')} or '…[gpu12]', whichever matches the installed CuPy"
        ) from error
    return module
