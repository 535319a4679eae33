"""Negative-sampling training on arrays: one contract, one module for each kind of machine.

What is computed is defined by `w2v_core.reference`; a backend may round differently, and nothing else.

    w_in_VD, w_out_VD   float32 (V, padded_size(vector_size)), C-contiguous; padding columns are zero and stay zero
    tokens_N            int32 (N,), word ids 0 … V−1
    left_N, right_N     uint8 (N,), context rows before and after each row; inside the stream for every trained target
    noise_table         uint64 (T,), the cells of `sampler.noise_table`
    rates_V             float32 (V,), `sampler.word_rates`: what α is multiplied by where a word's rows move
    start, stop         targets trained; rows outside are read as context only

    numpy_kernels.py        plain array operations
    cpu/numba_kernels.py    CPUs: the slice as a whole, with its loops and the LLVM code of its rows beside it
    cuda/cupy_kernels.py    GPUs: launches of cuda/*.cu, arranged by cuda/slices.py

Arrays may also be of the backend's device, see `Kernels.to_device`; NumPy arrays are then copied in and out at every call.
The same arguments give the same bits on the same machine, in any thread and process. Kernels hold no state, and the CPU
kernels release the GIL, so that lanes may run as threads on parameters of their own.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from w2v_core.sampler import mix64

Model = Literal["cbow", "skipgram"]
Gradient = Literal["word2vec", "exact"]
Merge = Literal["adasum", "mean"]
Backend = Literal["auto", "numba", "numpy", "cupy"]
FloatRows = NDArray[np.float32]

ROW_FLOATS = 8
"""Rows are whole vectors of 8 float32, one AVX register; 16 would cost 8 % more arithmetic at D = 100 and save no cache line."""
ALIGNMENT_BYTES = 64


@dataclass(frozen=True)
class SliceResult:
    loss_sum: float
    """Negative-sampling loss summed over the examples, each before its update; not finite if any logit was not."""
    examples: int
    """CBOW: targets with at least one context word. Skip-gram: (target, context word) pairs."""


class Kernels(Protocol):
    """A backend. Its modules satisfy this: `load_kernels("numpy")` is the module `numpy_kernels`."""

    @property
    def name(self) -> str: ...

    def train_slice(
        self, w_in_VD: FloatRows, w_out_VD: FloatRows,
        tokens_N: NDArray[np.int32], left_N: NDArray[np.uint8], right_N: NDArray[np.uint8],
        start: int, stop: int, noise_table: NDArray[np.uint64], *,
        model: Model, gradient: Gradient, negative: int, alpha_start: float, alpha_end: float, seed: int,
        rates_V: NDArray[np.float32],
    ) -> SliceResult:  # fmt: skip
        """Trains the targets [start, stop) in place; α falls linearly, block by block, from alpha_start to alpha_end.

        Raises ValueError or TypeError for arrays that break the contract, naming the first position and value. A noise
        word outside the vocabulary is found only when it is drawn: then the parameters are half trained.
        """
        ...

    def merge_rows(self, base_RD: FloatRows, lanes: Sequence[FloatRows], method: Merge) -> None:
        """Folds the lanes' changes since `base_RD`, row by row, and writes the merged rows to the base and every lane.

        Changes are folded pairwise in lane order, (0,1), (2,3) …, an odd one passes to the next level. Each row is
        independent of the others, so any split of the rows among callers gives the same bits.
        """
        ...

    def to_device(self, array: Any) -> Any:
        """The array where these kernels work without copying: in their device's memory, or as it is on a CPU."""
        ...

    def to_host(self, array: Any) -> NDArray[Any]:
        """The array as NumPy's, when what writes it is done; a NumPy array is returned as it is."""
        ...

    def mark_touched(
        self, marks_in_V: NDArray[np.uint8], marks_out_V: NDArray[np.uint8],
        tokens_N: NDArray[np.int32], left_N: NDArray[np.uint8], right_N: NDArray[np.uint8],
        start: int, stop: int, noise_table: NDArray[np.uint64], *, model: Model, negative: int, seed: int,
    ) -> None:  # fmt: skip
        """Sets to 1 the marks of all rows `train_slice` writes with the same arguments, by replaying its draws.

        A few more may be marked: every row of the span of stream the slice reads counts as context.
        """
        ...


BACKENDS = {
    "numpy": "w2v_core.kernels.numpy_kernels",
    "numba": "w2v_core.kernels.cpu.numba_kernels",
    "cupy": "w2v_core.kernels.cuda.cupy_kernels",
}


def load_kernels(backend: Backend = "auto") -> Kernels:
    """The kernels of `backend`. "auto": CuPy if it finds a usable device, else Numba if it is installed, else NumPy."""
    if backend == "auto":
        backend = "cupy" if _has_device() else "numba" if importlib.util.find_spec("numba") else "numpy"
    if backend not in BACKENDS:
        raise ValueError(f"expected backend auto, numba, numpy or cupy, found {backend!r}")
    try:
        return cast(Kernels, importlib.import_module(BACKENDS[backend]))
    except ModuleNotFoundError as error:
        install = {"cupy": "pip install 'dask-word2vec[gpu12]' or '[gpu13]'", "numba": "pip install numba", "numpy": ""}[backend]
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


def padded_size(vector_size: int) -> int:
    """Floats from one row to the next: vector_size rounded up to whole vectors."""
    if vector_size < 1:
        raise ValueError(f"expected vector_size >= 1, found {vector_size}")
    return -(-vector_size // ROW_FLOATS) * ROW_FLOATS


def allocate_parameters(vocab_size: int, vector_size: int) -> tuple[FloatRows, FloatRows]:
    """(w_in_VD, w_out_VD), both zero, C-contiguous and aligned to cache lines."""
    return _aligned_zeros(vocab_size, padded_size(vector_size)), _aligned_zeros(vocab_size, padded_size(vector_size))


def initial_parameters(vocab_size: int, vector_size: int, seed: int) -> tuple[FloatRows, FloatRows]:
    """(w_in_VD, w_out_VD): W_in uniform in [−½, ½)/D, W_out zero, as in word2vec.c.

    Value (v, d) is a function of (seed, v, d, vector_size) alone.
    """
    w_in_VD, w_out_VD = allocate_parameters(vocab_size, vector_size)
    fill_initial(w_in_VD, 0, vector_size, seed)
    return w_in_VD, w_out_VD


def fill_initial(w_in_RD: FloatRows, first_row: int, vector_size: int, seed: int) -> None:
    """Writes the initial values of rows first_row … of W_in into `w_in_RD`, which is zero (so is W_out's beginning)."""
    rows_at_once = max(1, (1 << 13) // vector_size)
    for first in range(0, len(w_in_RD), rows_at_once):
        rows_RD = w_in_RD[first : first + rows_at_once, :vector_size]
        begin = (first_row + first) * vector_size
        counters = np.arange(begin, begin + rows_RD.size, dtype=np.uint64).reshape(rows_RD.shape)
        uniform = (mix64(seed, counters) >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
        rows_RD[:] = (uniform - np.float32(0.5)) / np.float32(vector_size)


def _aligned_zeros(rows: int, row_floats: int) -> FloatRows:
    raw = np.zeros(rows * row_floats + ALIGNMENT_BYTES // 4, np.float32)
    first = -raw.ctypes.data % ALIGNMENT_BYTES // 4
    return raw[first : first + rows * row_floats].reshape(rows, row_floats)


def check_slice(
    w_in_VD: FloatRows, w_out_VD: FloatRows,
    tokens_N: NDArray[np.int32], left_N: NDArray[np.uint8], right_N: NDArray[np.uint8],
    start: int, stop: int, noise_table: NDArray[np.uint64],
    *, model: str, gradient: str, negative: int, alpha_start: float, alpha_end: float, rates_V: NDArray[np.float32],
) -> None:  # fmt: skip
    """Raises if shapes, dtypes or options break the contract. Word ids and spans are checked by `check_stream`."""
    named: list[tuple[str, NDArray[Any], type[np.generic], int]] = [
        ("w_in_VD", w_in_VD, np.float32, 2), ("w_out_VD", w_out_VD, np.float32, 2), ("tokens_N", tokens_N, np.int32, 1),
        ("left_N", left_N, np.uint8, 1), ("right_N", right_N, np.uint8, 1), ("noise_table", noise_table, np.uint64, 1),
        ("rates_V", rates_V, np.float32, 1),
    ]  # fmt: skip
    for name, array, dtype, dimensions in named:
        if array.dtype != dtype or array.ndim != dimensions or not array.flags.c_contiguous:
            raise TypeError(
                f"{name}: expected a C-contiguous {np.dtype(dtype)} array of {dimensions} dimensions, "
                f"found {array.dtype} {array.shape}, contiguous: {array.flags.c_contiguous}"
            )
    for name, array in (("w_in_VD", w_in_VD), ("w_out_VD", w_out_VD)):
        if not array.flags.writeable:
            raise ValueError(f"{name}: training works in place and needs a writeable array, found a read-only one")
    if w_in_VD.shape != w_out_VD.shape or w_in_VD.shape[1] % ROW_FLOATS or not w_in_VD.shape[1]:
        raise ValueError(
            f"expected two matrices of one shape (V, multiple of {ROW_FLOATS}), found {w_in_VD.shape} and {w_out_VD.shape}: "
            "make them with allocate_parameters"
        )
    if not len(tokens_N) == len(left_N) == len(right_N):
        raise ValueError(f"expected a stream of equal columns, found {len(tokens_N)}, {len(left_N)}, {len(right_N)} rows")
    if not 0 <= start <= stop <= len(tokens_N):
        raise ValueError(f"expected 0 <= start <= stop <= {len(tokens_N)}, found start {start}, stop {stop}")
    _check_words(noise_table, rates_V, len(w_in_VD))
    if model not in ("cbow", "skipgram") or gradient not in ("word2vec", "exact"):
        raise ValueError(
            f"expected model cbow or skipgram and gradient word2vec or exact, found model {model!r}, gradient {gradient!r}"
        )
    if negative < 1:
        raise ValueError(f"expected negative >= 1 noise words, found {negative}")
    if not (np.isfinite(alpha_start) and np.isfinite(alpha_end)):
        raise ValueError(f"expected finite learning rates, found alpha_start {alpha_start}, alpha_end {alpha_end}")


def _check_words(noise_table: NDArray[np.uint64], rates_V: NDArray[np.float32], vocab_size: int) -> None:
    if not len(noise_table):
        raise ValueError("noise_table: expected one cell for each word, found none")
    if len(rates_V) != vocab_size:
        raise ValueError(f"rates_V: expected one rate for each of {vocab_size} words, found {len(rates_V)}")


def check_stream(
    tokens_N: NDArray[np.int32], left_N: NDArray[np.uint8], right_N: NDArray[np.uint8], start: int, stop: int, vocab_size: int
) -> tuple[int, int]:
    """(first, last): the half-open run of rows the slice reads. Raises ValueError at the first bad span or word id."""
    positions = np.arange(start, stop)
    first_N, last_N = positions - left_N[start:stop], positions + right_N[start:stop]
    bad = (first_N < 0) | (last_N >= len(tokens_N))
    if bad.any():
        raise_bad_span(tokens_N, left_N, right_N, start + int(np.argmax(bad)))
    first, last = (int(first_N.min()), int(last_N.max()) + 1) if stop > start else (start, start)
    ids = tokens_N[first:last]
    bad = (ids < 0) | (ids >= vocab_size)
    if bad.any():
        raise_bad_word(tokens_N, first + int(np.argmax(bad)), vocab_size)
    return first, last


def raise_bad_span(tokens_N: NDArray[np.int32], left_N: NDArray[np.uint8], right_N: NDArray[np.uint8], position: int) -> None:
    raise ValueError(
        f"target at position {position}: its context of {left_N[position]} rows before and {right_N[position]} after "
        f"leaves the stream of {len(tokens_N)} rows; read the slice with its halo"
    )


def raise_bad_word(tokens_N: NDArray[np.int32], position: int, vocab_size: int) -> None:
    raise ValueError(
        f"position {position}: expected a word id 0 … {vocab_size - 1}, found {tokens_N[position]}; "
        "the stream and the parameters belong to different vocabularies"
    )


def raise_bad_noise(word_id: int, vocab_size: int) -> None:
    raise ValueError(
        f"noise_table: expected word ids 0 … {vocab_size - 1}, drew {word_id}; "
        "the table and the parameters belong to different vocabularies. The parameters are half trained: load them again"
    )
