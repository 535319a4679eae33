"""The optimizers' row operations for Numba: the arithmetic of optimizers._ArrayRows in one pass over each row.

The array code reads and writes every row about fifteen times, and sums repeated rows one small segment at a time; here a
row is summed, moved and stored while it is in the first-level cache. The operations are the same, in the same order, and in the
parameters' own dtype; results differ from the array code's only by rounding (tested).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numba
import numpy as np

from w2v_core.kernels.cpu.machine_code import compiled
from w2v_core.kernels.cpu.row_operations import prefetch_near

_AHEAD = 2
"""How many rows ahead are prefetched. Rows are scattered over memory, and waiting for them took a third of the time."""
# error_model numpy: a division by zero gives inf as in array code, without a branch that would prevent vectorisation.
_compiled = partial(compiled, error_model="numpy")


def catch_up(param: Any, m: Any, v: Any, last_V: Any, ids_U: Any, step: int, missed: Any) -> None:
    """Applies in place the steps that rows ids_U have missed; `textbook.optimizers` has the formula."""
    _catch_up(param, m, v, last_V, ids_U, step, missed.base, missed.sums_3S, missed.beta1, missed.beta2, missed.epsilon)


def sgd(param: Any, grad: Any, learning_rate: float) -> None:
    """param −= learning_rate · gradient, in place, on the rows of a RowGradient; the gradients of repeated rows are summed."""
    index = grad.index
    _sgd(param, index.ids_U, index.order_N, index.starts_U, np.ascontiguousarray(grad.parts_ND), learning_rate)


def step(param: Any, m: Any, v: Any, last_V: Any, grad: Any, step: int, rates: tuple[float, float, float, float]) -> None:
    """One Adam step, in place, on the rows of a RowGradient; the gradients of repeated rows are summed."""
    index = grad.index
    parts_ND = np.ascontiguousarray(grad.parts_ND)
    _step(param, m, v, last_V, index.ids_U, index.order_N, index.starts_U, parts_ND, step, *rates)


@numba.njit(inline="always")
def _ask_for(param: Any, m: Any, v: Any, ids_U: Any, u: int) -> None:
    """Prefetches the three rows of the u-th id, if there is one."""
    if u < len(ids_U):
        row_bytes = param.shape[1] * param.itemsize
        first_byte = ids_U[u] * row_bytes
        prefetch_near(param.ctypes.data + first_byte, row_bytes)
        prefetch_near(m.ctypes.data + first_byte, row_bytes)
        prefetch_near(v.ctypes.data + first_byte, row_bytes)


@_compiled
def _catch_up(
    param: Any,
    m: Any,
    v: Any,
    last_V: Any,
    ids_U: Any,
    step: int,
    base: int,
    sums_3S: Any,
    beta1: float,
    beta2: float,
    epsilon: float,
) -> None:
    real = param.dtype.type
    for u in range(len(ids_U)):
        _ask_for(param, m, v, ids_U, u + _AHEAD)
        word_id = ids_U[u]
        missed = step - last_V[word_id]
        if missed == 0:
            continue
        since = last_V[word_id] - base
        last_V[word_id] = step
        total = sums_3S[0, since]
        divisor = total if total > 0.0 else 1.0  # the total is 0 if every missed step had learning rate 0
        mean = sums_3S[1, since] / divisor
        weight = real(total)
        shifted = real(epsilon + mean)
        variance = real(max(sums_3S[2, since] / divisor - mean * mean, 0.0))
        factor1 = beta1**missed
        decay1 = real(factor1 if factor1 >= 1e-30 else 0.0)
        decay2 = real(beta2**missed)
        row_p, row_m, row_v = param[word_id], m[word_id], v[word_id]
        for d in range(row_p.shape[0]):
            denominator = np.sqrt(row_v[d]) + shifted
            row_p[d] -= weight * row_m[d] / denominator * (real(1) + variance / (denominator * denominator))
            row_m[d] *= decay1
            row_v[d] *= decay2


@_compiled
def _step(
    param: Any,
    m: Any,
    v: Any,
    last_V: Any,
    ids_U: Any,
    order_N: Any,
    starts_U: Any,
    parts_ND: Any,
    step: int,
    rate: float,
    beta1: float,
    beta2: float,
    epsilon: float,
) -> None:
    real = param.dtype.type
    rate_, epsilon_ = real(rate), real(epsilon)
    gain1, gain2 = real(1 - beta1), real(1 - beta2)
    total = np.empty(param.shape[1], dtype=parts_ND.dtype)
    for u in range(len(ids_U)):
        _ask_for(param, m, v, ids_U, u + _AHEAD)
        word_id = ids_U[u]
        _sum_group(parts_ND, order_N, starts_U, u, total)
        row_p, row_m, row_v = param[word_id], m[word_id], v[word_id]
        for d in range(row_p.shape[0]):
            gradient = total[d]
            row_m[d] += gain1 * (gradient - row_m[d])
            row_v[d] += gain2 * (gradient * gradient - row_v[d])
            row_p[d] -= rate_ * row_m[d] / (np.sqrt(row_v[d]) + epsilon_)
        last_V[word_id] = step


@_compiled
def _sgd(param: Any, ids_U: Any, order_N: Any, starts_U: Any, parts_ND: Any, learning_rate: float) -> None:
    rate = param.dtype.type(learning_rate)
    total = np.empty(param.shape[1], dtype=parts_ND.dtype)
    for u in range(len(ids_U)):
        _sum_group(parts_ND, order_N, starts_U, u, total)
        row_p = param[ids_U[u]]
        for d in range(row_p.shape[0]):
            row_p[d] -= rate * total[d]


@_compiled
def _sum_group(parts_ND: Any, order_N: Any, starts_U: Any, u: int, total_D: Any) -> None:
    """Writes the sum of the u-th distinct id's gradient rows to total_D."""
    stop = starts_U[u + 1] if u + 1 < len(starts_U) else len(order_N)
    total_D[:] = parts_ND[order_N[starts_U[u]]]
    for n in range(starts_U[u] + 1, stop):
        part_D = parts_ND[order_N[n]]
        for d in range(total_D.shape[0]):
            total_D[d] += part_D[d]
