"""A `slices.Device` that runs the CUDA kernels on the CPU: the .cu files themselves, compiled as C++ over simt.hpp.

This checks the source that a GPU would run and the launches that `slices` makes: indices, barriers, shared memory, argument
types. simt.hpp says what it cannot check. Arrays "on the device" are NumPy arrays of a separate class, so that host and device
arrays cannot be mixed up.
"""

from __future__ import annotations

import ctypes
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from w2v_core.kernels.cuda import slices
from w2v_core.kernels.cuda.slices import ANY_BUILD, KERNELS

HOST_SOURCE = """
#include "simt.hpp"
#include "kernels.cu"
#include <utility>

template <class... A, size_t... I>
void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) { kernel(*(A*)arguments[I]...); }

template <class... A>
int run(
    void (*kernel)(A...), int blocks, int threads, int bytes, unsigned schedule, void** arguments, const int* sizes, int count)
{
    const int expected[] = {(int)sizeof(A)...};
    if (count != (int)sizeof...(A))
        return -1;
    for (int i = 0; i < count; i++)
        if (sizes[i] != expected[i])
            return i + 1;
    simt::launch(blocks, threads, bytes, schedule, [=] { call(kernel, arguments, std::index_sequence_for<A...>{}); });
    return 0;
}

extern "C" int sizeof_group() { return sizeof(Group); }
extern "C" u64 random_bits_of(u64 seed, u64 counter) { return random_bits(seed, counter); }
extern "C" float sigmoid_of(float x) { return sigmoid(x); }
"""
RUN = (
    'extern "C" int run_{0}(int blocks, int threads, int shared_bytes, unsigned schedule, void** arguments, const int* sizes, '
    "int count) {{ return run({0}, blocks, threads, shared_bytes, schedule, arguments, sizes, count); }}\n"
)


class CpuArray(np.ndarray[Any, Any]):
    """An array in "device" memory."""


def compiler() -> str:
    """The C++ compiler; skips the test where there is none."""
    found = shutil.which("g++") or shutil.which("clang++")
    if found is None:
        pytest.skip("no C++ compiler (g++ or clang++) to run the CUDA source on the CPU")
    return found


class CpuDevice:
    """A `slices.Device` on the CPU. `schedule` 0 runs warps in order; any other number is the seed of a random order."""

    def __init__(self, directory: Path, schedule: int = 0, shared_bytes: int = 227 << 10, source: str | None = None) -> None:
        self.directory = directory
        self.schedule = schedule
        self.shared_bytes = shared_bytes
        self.multiprocessors = 132
        self.source = source or slices.source()
        self.launched: list[tuple[str, int, int]] = []

    def owns(self, array: Any) -> bool:
        return isinstance(array, CpuArray)

    def to_device(self, array: Any) -> Any:
        if isinstance(array, CpuArray):
            return array
        # Aligned to 64 bytes, as a device would allocate it.
        raw = np.zeros(array.nbytes + 64, np.uint8)
        first = -raw.ctypes.data % 64
        copy = raw[first : first + array.nbytes].view(array.dtype).reshape(array.shape)
        copy[...] = array
        return copy.view(CpuArray)

    def to_host(self, array: Any) -> Any:
        assert isinstance(array, CpuArray)
        return np.array(array, subok=False)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return self.to_device(np.full(shape, np.nan, dtype))

    def address(self, array: Any) -> int:
        assert isinstance(array, CpuArray)
        return int(array.ctypes.data)

    def launch(
        self, kernel: str, build: tuple[int, int], blocks: int, threads: int, shared_bytes: int, arguments: Sequence[Any]
    ) -> None:
        assert shared_bytes <= self.shared_bytes
        self.launched.append((kernel, blocks, shared_bytes))
        values = [np.uint64(self.address(value)) if isinstance(value, np.ndarray) else value for value in arguments]
        storage = [np.array([value]) for value in values]
        pointers = (ctypes.c_void_p * len(storage))(*(value.ctypes.data for value in storage))
        sizes = (ctypes.c_int * len(storage))(*(value.itemsize for value in storage))
        function = getattr(self.library(*build), f"run_{kernel}")
        wrong = function(blocks, threads, shared_bytes, ctypes.c_uint(self.schedule), pointers, sizes, len(storage))
        assert wrong != -1, f"{kernel} was launched with {len(storage)} arguments, which is not what it takes"
        assert wrong == 0, f"{kernel}: argument {wrong - 1} has {sizes[wrong - 1]} bytes, which is not what the kernel takes"

    def library(self, row_floats: int, negative: int) -> ctypes.CDLL:
        return _library(self.directory, row_floats, negative, self.source)


@cache
def _library(directory: Path, row_floats: int, negative: int, source: str) -> ctypes.CDLL:
    # A source that is run only once is compiled quickly, without optimisation.
    optimisation = "-O1" if source == slices.source() and (row_floats, negative) != ANY_BUILD else "-O0"
    directory.mkdir(parents=True, exist_ok=True)
    made = directory / f"{hashlib.sha256(source.encode()).hexdigest()[:12]}-{row_floats}-{negative}.so"
    if not made.exists():
        with tempfile.TemporaryDirectory(dir=directory) as own:
            _compile(Path(own), source, optimisation, f"-DROW_FLOATS={row_floats}", f"-DNEGATIVE={negative}").rename(made)
    library = ctypes.CDLL(str(made))
    library.random_bits_of.restype = ctypes.c_uint64
    library.random_bits_of.argtypes = [ctypes.c_uint64, ctypes.c_uint64]
    library.sigmoid_of.restype = ctypes.c_float
    library.sigmoid_of.argtypes = [ctypes.c_float]
    return library


def _compile(own: Path, source: str, *options: str) -> Path:
    """The path of the library, which is made in an empty folder."""
    (own / "kernels.cu").write_text(source)
    (own / "host.cpp").write_text(HOST_SOURCE + "".join(RUN.format(kernel) for kernel in KERNELS))
    command = [
        compiler(), "-std=c++17", *options, "-fPIC", "-shared", "-Wno-unknown-pragmas", "-U_FORTIFY_SOURCE",
        f"-I{own}", f"-I{Path(__file__).parent}", str(own / "host.cpp"), "-o", str(own / "kernels.so"),
    ]  # fmt: skip
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return own / "kernels.so"


class CpuCuda:
    """`Kernels` over a `CpuDevice`."""

    name = "cuda source on the CPU"

    def __init__(self, device: CpuDevice, **options: Any) -> None:
        self.device, self.options = device, options

    def train_slice(self, *arguments: Any) -> Any:
        return slices.train_slice(self.device, *arguments, **self.options)

    def to_device(self, array: Any) -> Any:
        return self.device.to_device(array)

    def to_host(self, array: Any) -> Any:
        return array if type(array) is np.ndarray else self.device.to_host(array)

    def merge_rows(self, *arguments: Any) -> None:
        slices.merge_rows(self.device, *arguments)
