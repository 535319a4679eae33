"""For each call of the kernel contract on a CUDA device: what to launch, and with which arguments.

Nothing here depends on CuPy: a `Device` allocates and launches. `cupy_kernels` provides one for a GPU; the tests provide one
that runs the same .cu source on the CPU, so everything in this file is tested without a GPU.

`thread_blocks` is the number of blocks of 128 targets that are trained side by side. Every additional block in flight adds 128
targets whose updates a read may miss, so the setting is about quality first and speed second: see `DEFAULT_THREAD_BLOCKS`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from w2v_core.contract import Merge, Noise, Slice, SliceResult, Update
from w2v_core.kernels.checks import check_merge, check_slice, raise_bad_noise, raise_bad_span, raise_bad_word
from w2v_core.reference import BLOCK, GROUP

Mode = Literal["concurrent", "sequential"]
Array = Any
"""An array in host memory (NumPy) or in the device's memory."""

SOURCES = ("device.cu", "groups.cu", "cbow.cu", "skipgram.cu", "stream.cu", "merge.cu")
"""Files of cuda/, joined in this order into one source, because none includes another."""
KERNELS = ("train_cbow", "train_skipgram", "check_spans", "check_words", "merge_rows")
WARP = 32
THREADS = 512
"""16 warps, one for each group of a block: this gives the shortest time from reading a block's rows to writing them."""
DEFAULT_THREAD_BLOCKS = 16
"""2,048 targets in flight: decision 0010 has a table of quality, and says why more are not needed for speed."""
FEWEST_THREAD_BLOCKS = 4
SHORTEST_RUN = 128
"""Blocks of the stream that each thread block should have to itself: runs this far apart share few rare words. Shorter slices
get fewer thread blocks, down to FEWEST_THREAD_BLOCKS, to keep the quality."""
WIDEST_SPAN = 255
ANY_BUILD = (8, 1)
"""(row_floats, negative) for kernels that do not depend on them."""
REPORT = np.dtype([
    ("bad_span", np.uint64), ("bad_word", np.uint64), ("bad_noise", np.uint64), ("first", np.int64), ("last", np.int64),
    ("reach_left", np.uint64), ("reach_right", np.uint64),
])  # fmt: skip
_NOWHERE = (1 << 64) - 1


class Device(Protocol):
    """Where kernels run: allocates memory, and launches kernels of cuda/ compiled for (row_floats, negative)."""

    @property
    def multiprocessors(self) -> int: ...

    @property
    def shared_bytes(self) -> int:
        """Most shared memory that one thread block can have."""
        ...

    def owns(self, array: Array) -> bool:
        """Whether the array lies in this device's memory."""
        ...

    def to_device(self, array: Array) -> Array: ...

    def to_host(self, array: Array) -> NDArray[Any]: ...

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array: ...

    def address(self, array: Array) -> int: ...

    def launch(
        self, kernel: str, build: tuple[int, int], blocks: int, threads: int, shared_bytes: int, arguments: Sequence[Any]
    ) -> None:
        """Starts a kernel on the current stream. The arguments are the device's arrays and NumPy scalars of the exact types."""
        ...


@cache
def source() -> str:
    """The installed CUDA source: the files of SOURCES joined, with `#line` directives for the compiler's messages."""
    folder = resources.files("w2v_core.kernels.cuda")
    return "".join(f'#line 1 "{name}"\n{(folder / name).read_text(encoding="utf-8")}' for name in SOURCES)


def train_slice(
    device: Device, w_in_VD: Array, w_out_VD: Array, targets: Slice, noise: Noise, update: Update, *,
    mode: Mode = "concurrent", thread_blocks: int | None = None,
) -> SliceResult:  # fmt: skip
    """`Kernels.train_slice` on a device. Arrays in host memory are copied to it, and the parameters back.

    Raises as the contract says, and ValueError for more noise words than shared memory can hold, for an unknown mode and for
    fewer than one thread block.
    """
    check_slice(_described(w_in_VD), _described(w_out_VD), *_described_records(targets, noise), update)
    _check_mode(mode, thread_blocks)
    vocab_size, row_floats = w_in_VD.shape
    if targets.start == targets.stop:
        return SliceResult(0.0, 0)
    stream = _Stream.of(device, targets)
    parameters = [_aligned(device, name, matrix) for name, matrix in (("w_in_VD", w_in_VD), ("w_out_VD", w_out_VD))]
    build = (row_floats, update.negative)
    report = _checked_report(device, build, stream, vocab_size, targets)
    found = device.to_host(report).view(REPORT)[0]
    in_slice = math.ceil((targets.stop - targets.start) / BLOCK)
    blocks = 1 if mode == "sequential" else min(thread_blocks or default_thread_blocks(in_slice), in_slice)
    losses, examples = (device.to_device(np.zeros(blocks * THREADS // WARP, dtype)) for dtype in (np.float64, np.int64))
    common = [
        *parameters, stream.tokens, stream.left, stream.right, np.int64(stream.start), np.int64(stream.stop),
        _on_device(device, noise.table_T), np.int64(len(noise.table_T)), _on_device(device, noise.rates_V),
        np.int32(vocab_size), np.uint64(update.seed & _NOWHERE), report, *map(np.float64, update.alphas),
    ]  # fmt: skip
    sequential = np.int32(mode == "sequential")
    if update.model == "cbow":
        most_rows = BLOCK + int(found["reach_left"]) + int(found["reach_right"])
        layout = shared_layout(device.shared_bytes, row_floats, update.negative, most_rows)
        workspace = device.empty((blocks * layout.workspace_floats + 4,), np.float32)
        exact, in_shared = np.int32(update.gradient == "exact"), np.int32(layout.rows_in_shared)
        arguments = [*common, exact, sequential, np.int32(most_rows), workspace, in_shared, losses, examples]
        device.launch("train_cbow", build, blocks, THREADS, layout.shared_bytes, arguments)
    else:
        shared_bytes = shared_layout(device.shared_bytes, 8, update.negative, 0).group_bytes
        device.launch("train_skipgram", build, blocks, THREADS, shared_bytes, [*common, sequential, losses, examples])
    result = SliceResult(float(device.to_host(losses).sum()), int(device.to_host(examples).sum()))
    # Reading the totals has waited for the kernel to finish.
    for host, trained in zip((w_in_VD, w_out_VD), parameters, strict=True):
        if not device.owns(host):
            host[...] = device.to_host(trained)
    _raise_if_bad_noise(device, report, vocab_size)
    return result


def merge_rows(device: Device, base_RD: Array, lanes: Sequence[Array], method: Merge) -> None:
    """`Kernels.merge_rows` on a device, one warp per row; arrays in host memory are copied to it and back."""
    check_merge(base_RD, lanes, method)
    if not base_RD.size:
        return
    arrays = [base_RD, *lanes]
    copies = [_on_device(device, array) for array in arrays]
    addresses = device.to_device(np.array([device.address(copy) for copy in copies[1:]], np.uint64))
    rows, row_floats = base_RD.shape
    arguments = [copies[0], addresses, np.int32(len(lanes)), np.int64(rows), np.int32(row_floats), np.int32(method == "adasum")]
    device.launch("merge_rows", ANY_BUILD, _grid(device, rows * WARP), THREADS, 0, arguments)
    for host, merged in zip(arrays, copies, strict=True):
        if not device.owns(host):
            host[...] = device.to_host(merged)


def default_thread_blocks(blocks: int) -> int:
    """The number of thread blocks that train a slice of `blocks` blocks concurrently."""
    return min(blocks, max(FEWEST_THREAD_BLOCKS, min(DEFAULT_THREAD_BLOCKS, blocks // SHORTEST_RUN)))


@dataclass(frozen=True)
class SharedLayout:
    """Where the CBOW kernel keeps its rows: `rows_in_shared` is 2 if all are in shared memory, 1 if the hidden are, else 0."""

    group_bytes: int
    shared_bytes: int
    rows_in_shared: int
    workspace_floats: int
    """Floats of global memory that each thread block needs."""


def shared_layout(limit_bytes: int, row_floats: int, negative: int, most_rows: int) -> SharedLayout:
    """The fastest layout within `limit_bytes`; raises ValueError if not even the errors and noise words of 16 warps fit."""
    packs = -(-(negative + 1) // 4)
    # struct Group in cuda/groups.cu: errors, noise words, four arrays over the targets, α.
    group_bytes = THREADS // WARP * 4 * (packs * WARP + negative + 4 * GROUP + 1)
    fixed_bytes = -(-(group_bytes + 4 * most_rows) // 16) * 16
    if fixed_bytes > limit_bytes:
        raise ValueError(
            f"negative {negative} with spans of {most_rows} rows needs {fixed_bytes:,} bytes of shared memory a thread block, "
            f"this device has {limit_bytes:,}: lower train.negative or use the numba backend"
        )
    hidden_bytes, prefix_bytes = 4 * BLOCK * row_floats, 4 * (most_rows + 1) * row_floats
    workspace_floats = (BLOCK + most_rows + 1) * row_floats
    if fixed_bytes + hidden_bytes + prefix_bytes <= limit_bytes:
        return SharedLayout(group_bytes, fixed_bytes + hidden_bytes + prefix_bytes, 2, 0)
    if fixed_bytes + hidden_bytes <= limit_bytes:
        return SharedLayout(group_bytes, fixed_bytes + hidden_bytes, 1, workspace_floats)
    return SharedLayout(group_bytes, fixed_bytes, 0, workspace_floats)


@dataclass(frozen=True)
class _Stream:
    """The part of the stream that a slice can read, on the device; position p of the whole stream is row p − offset."""

    tokens: Array
    left: Array
    right: Array
    start: int
    stop: int
    offset: int

    @staticmethod
    def of(device: Device, targets: Slice) -> _Stream:
        # A span has at most 255 rows. The part reaches 255 rows beyond the slice unless the stream ends before, so a span that
        # leaves the part leaves the stream.
        first = max(0, targets.start - WIDEST_SPAN)
        last = min(len(targets.tokens_N), targets.stop + WIDEST_SPAN)
        columns = [column[first:last] for column in (targets.tokens_N, targets.left_N, targets.right_N)]
        tokens, left, right = (_on_device(device, column) for column in columns)
        return _Stream(tokens, left, right, targets.start - first, targets.stop - first, first)


@dataclass(frozen=True)
class _Described:
    """What `check_slice` examines, for an array in either memory: arrays of a device have no `flags.writeable`."""

    dtype: np.dtype[Any]
    ndim: int
    shape: tuple[int, ...]
    c_contiguous: bool
    writeable: bool

    @property
    def flags(self) -> _Described:
        return self

    def __len__(self) -> int:
        return self.shape[0]


def _described(array: Array) -> Any:
    writeable = bool(getattr(array.flags, "writeable", True))
    return _Described(array.dtype, array.ndim, array.shape, bool(array.flags.c_contiguous), writeable)


def _described_records(targets: Slice, noise: Noise) -> tuple[Slice, Noise]:
    tokens, left, right = map(_described, (targets.tokens_N, targets.left_N, targets.right_N))
    return Slice(tokens, left, right, targets.start, targets.stop), Noise(_described(noise.table_T), _described(noise.rates_V))


def _checked_report(device: Device, build: tuple[int, int], stream: _Stream, vocab_size: int, targets: Slice) -> Array:
    """The device's report after both checks of the stream. Raises ValueError for the first bad span or word id."""
    report = device.to_device(np.array([(_NOWHERE, _NOWHERE, 0, stream.start, stream.stop, 0, 0)], REPORT).view(np.uint8))
    count = stream.stop - stream.start
    span = [np.int64(stream.start), np.int64(stream.stop), np.int64(len(stream.tokens))]
    device.launch("check_spans", build, _grid(device, count), THREADS, 0, [stream.left, stream.right, *span, report])
    device.launch("check_words", build, _grid(device, count), THREADS, 0, [stream.tokens, np.int32(vocab_size), report])
    found = device.to_host(report).view(REPORT)[0]
    if int(found["bad_span"]) != _NOWHERE:
        raise_bad_span(targets, int(found["bad_span"]) + stream.offset)
    if int(found["bad_word"]) != _NOWHERE:
        raise_bad_word(targets, int(found["bad_word"]) + stream.offset, vocab_size)
    return report


def _on_device(device: Device, array: Array) -> Array:
    return array if device.owns(array) else device.to_device(array)


def _raise_if_bad_noise(device: Device, report: Array, vocab_size: int) -> None:
    bad = int(device.to_host(report).view(REPORT)[0]["bad_noise"])
    if bad:
        raise_bad_noise(int(np.uint32(bad - 1).astype(np.int32)), vocab_size)


def _aligned(device: Device, name: str, matrix: Array) -> Array:
    if not device.owns(matrix):
        return device.to_device(matrix)
    if device.address(matrix) % 16:
        raise ValueError(f"{name}: expected a device array that starts on 16 bytes, found a view that does not: copy it")
    return matrix


def _check_mode(mode: str, thread_blocks: int | None) -> None:
    if mode not in ("concurrent", "sequential"):
        raise ValueError(f"expected mode concurrent or sequential, found {mode!r}")
    if thread_blocks is not None and thread_blocks < 1:
        raise ValueError(f"expected thread_blocks >= 1, found {thread_blocks}")


def _grid(device: Device, threads: int) -> int:
    """Thread blocks for `threads` items: at most as many as fill the device, since the kernels loop over the items."""
    return max(1, min(math.ceil(threads / THREADS), 4 * device.multiprocessors))
