"""The kernels for CPUs: Numba functions that call the row operations of `row_operations`; the default backend on CPUs.

Three ideas make them fast (steps and figures: infra/benchmarks/records/kernel-steps-2026-11-21.md):
1. Windows by prefix sums: with W_in frozen for a block, the sum of any window is a difference of two running sums, and the
   gradients reach the context rows through a difference array, so a target costs the same for every window size. The running
   sums stay in registers; those that are needed later are kept in a ring as long as one window (`context_operations`).
2. Eight targets share their noise words: products and updates are small matrix products whose tiles stay in registers.
3. Little waiting: every row is prefetched a group or a block before it is used, and the prefetches are spread over all the
   work; errors are computed eight at a time without tables or libm, and the logarithm of the loss is taken once per slice.

Row operations take addresses as integers, which keep no array alive: every array whose address is used must be mentioned again
after its last use, or held by the caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from w2v_core.contract import FloatRows, LocalTraining, Merge, Noise, Slice, SliceResult, Update, Workroom
from w2v_core.kernels import numpy_kernels
from w2v_core.kernels.checks import (
    check_arguments,
    check_copies,
    check_lanes,
    check_slice,
    check_targets,
    lane_seeds,
    raise_bad_noise,
)
from w2v_core.kernels.cpu import copies_kernels
from w2v_core.kernels.cpu import row_operations as op
from w2v_core.kernels.cpu.group_kernels import (
    NO_BAD_NOISE,
    Coming,
    Examples,
    NoiseRows,
    address_of,
    group_memory_of,
    look_up,
    loss_of,
    pick_cells,
    scratch_of,
    set_alpha,
    train_group,
)
from w2v_core.kernels.cpu.initial_values import fill_initial
from w2v_core.kernels.cpu.machine_code import compiled_apart
from w2v_core.kernels.cpu.merge_kernels import merge_rows
from w2v_core.kernels.cpu.stream_rows import check_stream_of
from w2v_core.reference import BLOCK, GROUP, GROUPS, SLOTS

name = "numba"
to_device, to_host = numpy_kernels.to_device, numpy_kernels.to_host
__all__ = ["fill_initial", "merge_rows", "name", "to_device", "to_host", "train_copies", "train_lanes", "train_slice"]


def train_slice(w_in_VD: FloatRows, w_out_VD: FloatRows, targets: Slice, noise: Noise, update: Update) -> SliceResult:
    """See `Kernels.train_slice`. Releases the GIL. A model's first call compiles its kernel or loads it from Numba's cache."""
    check_slice(w_in_VD, w_out_VD, targets, noise, update)
    noise = Noise(_read_only(noise.table_T), _read_only(noise.rates_V))
    if update.model == "cbow":
        return _train_one(w_in_VD, w_out_VD, [targets], [_own_seed(update)], noise, update, 1, Workroom())[0]
    check_stream_of(targets, len(w_in_VD))
    stream = _read_only(targets.tokens_N), _read_only(targets.left_N), _read_only(targets.right_N)
    seed = np.uint64(_own_seed(update))
    loss_sum, examples, bad_noise = train_skipgram(
        w_in_VD,
        w_out_VD,
        *stream,
        noise.table_T,
        noise.rates_V,
        targets.start,
        targets.stop,
        update.negative,
        update.alphas,
        seed,
    )
    if bad_noise != NO_BAD_NOISE:
        raise_bad_noise(bad_noise, len(w_in_VD))
    return SliceResult(loss_sum, examples)


def train_lanes(
    w_in_VD: FloatRows, w_out_VD: FloatRows, lanes: Sequence[Slice], noise: Noise, update: Update, threads: int,
    room: Workroom,
) -> list[SliceResult]:  # fmt: skip
    """See `Kernels.train_lanes`. Releases the GIL."""
    check_lanes(lanes, update, threads)
    check_arguments(w_in_VD, w_out_VD, noise, update)
    for targets in lanes:
        check_targets(targets)
    noise = Noise(_read_only(noise.table_T), _read_only(noise.rates_V))
    return _train_one(w_in_VD, w_out_VD, lanes, lane_seeds(update.seed, len(lanes)), noise, update, threads, room)


def _train_one(
    w_in_VD: FloatRows, w_out_VD: FloatRows, lanes: Sequence[Slice], seeds_L: Sequence[int], noise: Noise, update: Update,
    threads: int, room: Workroom,
) -> list[SliceResult]:  # fmt: skip
    """One stretch of one copy."""
    bounds_SL = np.array([[targets.start for targets in lanes], [targets.stop for targets in lanes]], np.int64)
    one = LocalTraining(w_in_VD, w_out_VD, lanes, bounds_SL, [update])
    found, _ = copies_kernels.train([w_in_VD, w_out_VD], [one], [[seeds_L]], [0], noise, adasum=False, threads=threads, room=room)
    return found[0][0]


def _own_seed(update: Update) -> int:
    return update.seed & (1 << 64) - 1


def train_copies(
    bases: tuple[FloatRows, FloatRows], copies: Sequence[LocalTraining], merged_rows: Sequence[int], noise: Noise, method: Merge,
    threads: int, room: Workroom,
) -> tuple[list[list[list[SliceResult]]], float]:  # fmt: skip
    """See `Kernels.train_copies`. Releases the GIL."""
    check_copies(bases, copies, merged_rows, noise, method, threads)
    noise = Noise(_read_only(noise.table_T), _read_only(noise.rates_V))
    seeds = [
        [lane_seeds(each.seed, len(copy.lanes)) if len(copy.lanes) > 1 else [_own_seed(each)] for each in copy.updates]
        for copy in copies
    ]
    return copies_kernels.train(bases, copies, seeds, merged_rows, noise, method == "adasum", threads, room)


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    """A read-only view. Numba compiles and loads separate versions of a kernel for writeable and for read-only arrays. A mapped
    shard is read-only and a drawn one is not, and loading a second version takes as long as training 100,000 tokens."""
    view = array.view()
    view.flags.writeable = False
    return view


# ── skip-gram ────────────────────────────────────────────────────────────────────────────────────────────────────────


@compiled_apart
def train_skipgram(
    w_in_VD: Any, w_out_VD: Any, tokens_N: Any, left_N: Any, right_N: Any, noise_table: Any, rates_V: Any,
    start: int, stop: int, negative: int, alphas: Any, seed: Any,
) -> Any:  # fmt: skip
    """(loss, examples, bad noise word): `reference.train_slice` for model skipgram."""
    row_floats = w_in_VD.shape[1]
    row_bytes = row_floats * 4
    w_in, w_out = address_of(w_in_VD), address_of(w_out_VD)
    scratch = scratch_of(row_floats, 2 * GROUP, negative)
    ones = np.ones(GROUP, np.float32)
    memory = group_memory_of(scratch, row_bytes, negative)
    hidden = memory.rest
    gradients = hidden + GROUP * row_bytes
    words, targets, inputs = np.empty(GROUP, np.int32), np.empty(GROUP, np.int64), np.empty(GROUP, np.int64)
    rates, input_rates, noise_rates = ones.copy(), ones.copy(), np.empty(negative, np.float32)
    picks, noise_words, noise = np.empty(negative, np.uint64), np.empty(negative, np.int32), np.empty(negative, np.int64)
    examples = 0
    for first in range(start, stop, BLOCK):
        last = min(first + BLOCK, stop)
        set_alpha(scratch, alphas, first, start, stop)
        for group in range(min(GROUPS, last - first)):
            widest: Any = 0
            for i in range(first + group, last, GROUPS):
                widest = max(widest, np.int64(left_N[i]) + np.int64(right_N[i]))
            first_draw = ((first - start) // BLOCK * GROUPS + group) * SLOTS * negative
            for slot in range(widest):
                pick_cells(picks, noise_table, seed, first_draw + slot * negative)
                for u in range(GROUP):
                    i = first + group + u * GROUPS
                    words[u], targets[u] = -1, memory.sink
                    if i < last and slot < np.int64(left_N[i]) + np.int64(right_N[i]):
                        before = np.int64(left_N[i])
                        context = tokens_N[i - before + slot + (1 if slot >= before else 0)]
                        words[u] = tokens_N[i]
                        targets[u] = w_out + np.int64(tokens_N[i]) * row_bytes
                        inputs[u] = w_in + np.int64(context) * row_bytes
                        rates[u], input_rates[u] = rates_V[tokens_N[i]], rates_V[context]
                        op.prefetch_near(inputs[u], row_bytes)
                        op.prefetch_near(targets[u], row_bytes)
                        examples += 1
                bad_noise = look_up(address_of(noise_words), picks, noise_table, rates_V.shape[0])
                if bad_noise != NO_BAD_NOISE:
                    return np.nan, examples, bad_noise
                for k in range(negative):
                    noise[k] = w_out + np.int64(noise_words[k]) * row_bytes
                    noise_rates[k] = rates_V[noise_words[k]]
                    op.prefetch_near(noise[k], row_bytes)
                for u in range(GROUP):
                    op.copy_row(hidden + u * row_bytes, inputs[u] if words[u] >= 0 else memory.zero, row_bytes)
                train_group(
                    memory,
                    Examples(
                        address_of(words), address_of(targets), address_of(targets), address_of(targets), address_of(ones),
                        address_of(ones), address_of(rates),
                    ),
                    hidden, row_bytes, gradients,
                    NoiseRows(
                        address_of(noise_words), address_of(noise), address_of(noise), address_of(noise), address_of(noise_rates)
                    ),
                    Coming(address_of(inputs), address_of(targets), address_of(noise)), negative, row_bytes,
                )  # fmt: skip
                for u in range(GROUP):
                    if words[u] >= 0:
                        op.add_scaled_row(
                            inputs[u], inputs[u], gradients + u * row_bytes, address_of(input_rates) + 4 * u, row_bytes
                        )
    return loss_of(scratch), examples, NO_BAD_NOISE
