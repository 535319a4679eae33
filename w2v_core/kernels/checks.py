"""Checks that a call keeps the contract; errors name the argument, the position and the value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from w2v_core.contract import MOST_LANE_TARGETS, MOST_STRETCHES, FloatRows, LocalTraining, Noise, Slice, Update
from w2v_core.kernels.initial import ROW_FLOATS
from w2v_core.reference import BLOCK
from w2v_core.sampler import random_bits


def check_slice(w_in_VD: FloatRows, w_out_VD: FloatRows, targets: Slice, noise: Noise, update: Update) -> None:
    """Raises if shapes, dtypes or options break the contract. Word ids and spans are checked by `check_stream`."""
    check_arguments(w_in_VD, w_out_VD, noise, update)
    check_targets(targets)


def check_arguments(w_in_VD: FloatRows, w_out_VD: FloatRows, noise: Noise, update: Update) -> None:
    """`check_slice` for all but the slice."""
    _check_array("w_in_VD", w_in_VD, _FLOAT, 2)
    _check_array("w_out_VD", w_out_VD, _FLOAT, 2)
    _check_array("noise.table_T", noise.table_T, _CELL, 1)
    _check_array("noise.rates_V", noise.rates_V, _FLOAT, 1)
    for name, array in (("w_in_VD", w_in_VD), ("w_out_VD", w_out_VD)):
        if not array.flags.writeable:
            raise ValueError(f"{name}: training works in place and needs a writeable array, found a read-only one")
    if w_in_VD.shape != w_out_VD.shape or w_in_VD.shape[1] % ROW_FLOATS or not w_in_VD.shape[1]:
        raise ValueError(
            f"expected two matrices of one shape (V, multiple of {ROW_FLOATS}), found {w_in_VD.shape} and {w_out_VD.shape}: "
            "make them with allocate_parameters"
        )
    _check_noise(noise, len(w_in_VD))
    _check_update(update)


_FLOAT, _CELL, _WORD, _SPAN = np.dtype(np.float32), np.dtype(np.uint64), np.dtype(np.int32), np.dtype(np.uint8)


def _check_array(name: str, array: NDArray[Any], dtype: np.dtype[Any], dimensions: int) -> None:
    if array.dtype != dtype or array.ndim != dimensions or not array.flags.c_contiguous:
        raise TypeError(
            f"{name}: expected a C-contiguous {dtype} array of {dimensions} dimensions, "
            f"found {array.dtype} {array.shape}, contiguous: {array.flags.c_contiguous}"
        )


_MOST_LANES = 1 << 16
MOST_WAVES = (1 << 16) - 1
"""Waves that the marks of a copy's rows can tell apart, from the first one on (`cpu.sharing.Marks`)."""


def check_lanes(lanes: Sequence[Slice], update: Update, threads: int) -> None:
    """Raises if lanes cannot be trained on one copy; each lane's slice is checked by `check_slice`."""
    if not lanes or threads < 1:
        raise ValueError(f"expected at least one lane and one thread, found {len(lanes)} lanes, {threads} threads")
    if update.model != "cbow":
        raise ValueError(f"expected model cbow, found {update.model!r}: its lanes need a copy of the parameters each")
    longest = max(targets.stop - targets.start for targets in lanes)
    if longest > MOST_LANE_TARGETS or len(lanes) > _MOST_LANES:
        raise ValueError(
            f"expected at most {_MOST_LANES:,} lanes of {MOST_LANE_TARGETS:,} targets each, found {len(lanes):,} lanes, the "
            f"longest of {longest:,}; train them in several calls"
        )


def check_copies(
    bases: Sequence[FloatRows],
    copies: Sequence[LocalTraining],
    merged_rows: Sequence[int],
    noise: Noise,
    method: str,
    threads: int,
) -> None:
    """Raises if copies cannot be trained and merged together; words and spans are checked while they are read."""
    if not copies or not merged_rows:
        raise ValueError(f"expected at least one copy and one stretch, found {len(copies)} copies, {len(merged_rows)} stretches")
    if len(merged_rows) > MOST_STRETCHES:
        raise ValueError(
            f"expected at most {MOST_STRETCHES:,} stretches, found {len(merged_rows):,}; train them in several calls"
        )
    first = copies[0].updates[0]
    for number, copy in enumerate(copies):
        check_arguments(copy.w_in_VD, copy.w_out_VD, noise, first)
        check_lanes(copy.lanes, first, threads)
        if len(copy.updates) != len(merged_rows) or copy.bounds_SL.shape != (len(merged_rows) + 1, len(copy.lanes)):
            raise ValueError(
                f"copy {number}: expected {len(merged_rows)} updates and bounds ({len(merged_rows) + 1}, {len(copy.lanes)}), "
                f"found {len(copy.updates)} and {copy.bounds_SL.shape}"
            )
        for update in copy.updates:
            if (update.model, update.gradient, update.negative) != (first.model, first.gradient, first.negative):
                raise ValueError(
                    f"copy {number}: expected updates that differ in alphas and seed only, found {first} and {update}"
                )
            _check_alphas(update)
        for lane, targets in enumerate(copy.lanes):
            check_targets(targets)
            bounds = [targets.start, *copy.bounds_SL[:, lane].tolist(), targets.stop]
            if bounds != sorted(bounds):
                raise ValueError(
                    f"copy {number}, lane {lane}: expected ascending bounds from {targets.start} to {targets.stop}, "
                    f"found {bounds[1:-1]}"
                )
        # Each stretch has as many waves as its longest share; lanes of unequal shares together have more than any of them.
        waves = int((-(-np.diff(copy.bounds_SL, axis=0).max(axis=1) // BLOCK)).sum())
        if waves > MOST_WAVES:
            raise ValueError(
                f"copy {number}: expected at most {MOST_WAVES:,} waves in all stretches, found {waves:,}; train them in several "
                "calls, or in shares that are equal in each stretch"
            )
    for base, matrices in zip(bases, ([copy.w_in_VD for copy in copies], [copy.w_out_VD for copy in copies]), strict=True):
        check_merge(base, matrices, method)
    if not all(0 <= rows <= len(bases[0]) for rows in merged_rows):
        raise ValueError(f"expected 0 … {len(bases[0])} merged rows, found {list(merged_rows)}")


def lane_seeds(seed: int, lanes: int) -> list[int]:
    """The seed with which each lane draws its noise: `stream_seed(seed, lane)`, of which half is the same in every call."""
    state = random_bits(seed, 1)
    return [random_bits(state ^ bits, 0) for bits in _bits_of_lanes(lanes)]


@cache
def _bits_of_lanes(lanes: int) -> tuple[int, ...]:
    return tuple(random_bits(lane, 0) for lane in range(lanes))


def check_targets(targets: Slice) -> None:
    """`check_slice` for the slice."""
    _check_array("tokens_N", targets.tokens_N, _WORD, 1)
    _check_array("left_N", targets.left_N, _SPAN, 1)
    _check_array("right_N", targets.right_N, _SPAN, 1)
    rows = [len(column) for column in (targets.tokens_N, targets.left_N, targets.right_N)]
    if not rows[0] == rows[1] == rows[2]:
        raise ValueError(f"expected a stream of equal columns, found {rows[0]}, {rows[1]}, {rows[2]} rows")
    if not 0 <= targets.start <= targets.stop <= rows[0]:
        raise ValueError(f"expected 0 <= start <= stop <= {rows[0]}, found start {targets.start}, stop {targets.stop}")


def _check_noise(noise: Noise, vocab_size: int) -> None:
    if not len(noise.table_T):
        raise ValueError("noise.table_T: expected one cell for each word, found none")
    if len(noise.rates_V) != vocab_size:
        raise ValueError(f"noise.rates_V: expected one rate for each of {vocab_size} words, found {len(noise.rates_V)}")


def _check_update(update: Update) -> None:
    if update.model not in ("cbow", "skipgram") or update.gradient not in ("word2vec", "exact"):
        raise ValueError(
            "expected model cbow or skipgram and gradient word2vec or exact, "
            f"found model {update.model!r}, gradient {update.gradient!r}"
        )
    if update.negative < 1:
        raise ValueError(f"expected negative >= 1 noise words, found {update.negative}")
    _check_alphas(update)


def _check_alphas(update: Update) -> None:
    if not (math.isfinite(update.alphas[0]) and math.isfinite(update.alphas[1])):
        raise ValueError(f"expected finite learning rates, found alphas {update.alphas[0]} … {update.alphas[1]}")


def check_stream(targets: Slice, vocab_size: int) -> None:
    """Raises ValueError for the first span that leaves the stream, or for the first bad word id among the rows that are read."""
    start, stop = targets.start, targets.stop
    positions = np.arange(start, stop)
    first_N, last_N = positions - targets.left_N[start:stop], positions + targets.right_N[start:stop]
    bad = (first_N < 0) | (last_N >= len(targets.tokens_N))
    if bad.any():
        raise_bad_span(targets, start + int(np.argmax(bad)))
    first, last = (int(first_N.min()), int(last_N.max()) + 1) if stop > start else (start, start)
    ids = targets.tokens_N[first:last]
    bad = (ids < 0) | (ids >= vocab_size)
    if bad.any():
        raise_bad_word(targets, first + int(np.argmax(bad)), vocab_size)


def raise_bad_span(targets: Slice, position: int) -> NoReturn:
    raise ValueError(
        f"target at position {position}: its context of {targets.left_N[position]} rows before and {targets.right_N[position]} "
        f"after leaves the stream of {len(targets.tokens_N)} rows; read the slice with its halo"
    )


def raise_bad_word(targets: Slice, position: int, vocab_size: int) -> NoReturn:
    raise ValueError(
        f"position {position}: expected a word id 0 … {vocab_size - 1}, found {targets.tokens_N[position]}; "
        "the stream and the parameters belong to different vocabularies"
    )


def raise_bad_noise(word_id: int, vocab_size: int) -> NoReturn:
    raise ValueError(
        f"noise.table_T: expected word ids 0 … {vocab_size - 1}, drew {word_id}; "
        "the table and the parameters belong to different vocabularies. The parameters are half trained: load them again"
    )


def check_merge(base_RD: FloatRows, lanes: Sequence[FloatRows], method: str) -> None:
    """Raises if the arrays differ in shape or dtype, are not C-contiguous, or the method is unknown."""
    if method not in ("adasum", "mean"):
        raise ValueError(f"expected merge method adasum or mean, found {method!r}")
    if not lanes:
        raise ValueError("merge_rows needs at least one lane, found none")
    for label, array in [("base_RD", base_RD), *((f"lane {index}", lane) for index, lane in enumerate(lanes))]:
        shaped = array.ndim == 2 and array.shape == base_RD.shape and array.shape[1] % ROW_FLOATS == 0
        if array.dtype != np.float32 or not shaped or not array.flags.c_contiguous:
            raise TypeError(
                f"{label}: expected C-contiguous float32 rows of shape {base_RD.shape}, a multiple of {ROW_FLOATS} wide, "
                f"found {array.dtype} {array.shape}, contiguous: {array.flags.c_contiguous}"
            )
