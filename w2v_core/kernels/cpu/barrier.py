"""A barrier for threads inside compiled code. They reach it thousands of times a second, so it spins: waking a sleeping thread
each time would cost too much."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numpy.typing import NDArray

from w2v_core.kernels.cpu.vector_ir import I32, I64, Emitter, Value, operation

SPINS = 20_000
"""How often a thread polls before it yields its core: some tens of microseconds, longer than the times of two blocks differ. On
a shared machine a thread that yields may wait milliseconds to get its core back; but with more threads than cores it must
yield, because the thread that all others wait for needs the core."""
_TURN, _GIVEN_UP, _WORDS = 8, 16, 24
"""Indices of int64 words, and their number: the turn and the flag each have a cache line, apart from the count of arrivals."""


def new_barrier() -> NDArray[np.int64]:
    return np.zeros(_WORDS, np.int64)


def give_up(barrier: NDArray[np.int64]) -> None:
    """Ends the waiting of all other threads: for a thread that will not reach the barrier."""
    barrier[_GIVEN_UP] = 1


@operation(2, types.int64)
def _add(e: Emitter, address: Value, value: Value) -> Value:
    return e.builder.atomic_rmw("add", e.pointer(address), value, "seq_cst")


@operation(1, types.int64)
def _read(e: Emitter, address: Value) -> Value:
    return e.builder.load_atomic(e.pointer(address), "seq_cst", 8, typ=I64)


@operation(0)
def _yield_core(e: Emitter) -> None:
    e.builder.call(e.declare("sched_yield", I32, []), [])


@operation(1)
def read_clock(e: Emitter, address: Value) -> None:
    """Writes the time since some moment as two int64, seconds and nanoseconds."""
    now = e.declare("clock_gettime", I32, [I32, ir.PointerType()])
    e.builder.call(now, [ir.Constant(I32, time.CLOCK_MONOTONIC), e.pointer(address)])


@njit(nogil=True)
def wait(barrier: int, threads: int) -> bool:
    """True once all threads have called it, False once one has given up. `barrier` is the address of a `new_barrier()`."""
    if threads == 1:
        return True
    turn = _read(barrier + 8 * _TURN)
    if _add(barrier, 1) + 1 == threads * (turn + 1):
        _add(barrier + 8 * _TURN, 1)
        return True
    asked: Any = 0
    while _read(barrier + 8 * _TURN) == turn:
        if _read(barrier + 8 * _GIVEN_UP):
            return False
        asked += 1
        if asked > SPINS:
            _yield_core()
    return True
