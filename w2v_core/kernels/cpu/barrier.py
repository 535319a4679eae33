"""A barrier for threads inside compiled code: they come to it every few microseconds, far below what waking a thread takes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from w2v_core.kernels.cpu.vector_ir import I32, I64, Emitter, Value, operation

SPINS = 20_000
"""How often a thread asks before it lets others have its core: some ten microseconds, longer than blocks differ. On a machine
that others use too, who lets go of a core may wait milliseconds for it; with more threads than cores the one that all wait
for needs it."""
_TURN, _GIVEN_UP, _WORDS = 8, 16, 24
"""int64 words, each on a cache line of its own beside the count of arrivals."""


def new_barrier() -> NDArray[np.int64]:
    return np.zeros(_WORDS, np.int64)


def give_up(barrier: NDArray[np.int64]) -> None:
    """For a thread that will not come any more: the others' waiting ends."""
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


@njit(nogil=True)
def wait(barrier: int, threads: int) -> bool:
    """True when all threads have called it, False when one has given up. `barrier`: the address of `new_barrier()`."""
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
