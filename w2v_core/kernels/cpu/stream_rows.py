"""The rows of their streams that slices read, and whether words and spans are good: compiled passes over lanes.

A call with 32 lanes trains for less than a millisecond on as many cores, while Python takes tens of microseconds to look at
each lane. So everything about lanes is found here, in arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import carray, types  # type: ignore[attr-defined]
from numba.extending import intrinsic
from numpy.typing import NDArray

from w2v_core.contract import Slice
from w2v_core.kernels.checks import raise_bad_span, raise_bad_word
from w2v_core.kernels.cpu.block_kernels import HIGH, LEFT, LOW, RIGHT, START, STOP, TOKENS
from w2v_core.kernels.cpu.machine_code import compiled

BAD_TARGET, BAD_WORD, BEFORE, AFTER, FOUND = range(5)
"""What is found out about a place, int64: the first target whose context leaves the stream, the first row with a word outside the
vocabulary, −1 where there is none, and the most context rows before and after a target."""


def check_stream_of(targets: Slice, vocab_size: int) -> None:
    """Raises ValueError for a bad span or word."""
    places, found = np.array([place_of(targets)], np.int64), nothing_found(1)
    look_through(places, 0, 1, vocab_size, found)
    raise_what_is_bad([targets], vocab_size, found)


def place_of(targets: Slice) -> list[int]:
    """A slice's place, see `block_kernels.PLACES`, that reads its whole stream. The caller must keep the slice's arrays."""
    columns = [address(column) for column in (targets.tokens_N, targets.left_N, targets.right_N)]
    return [*columns, 0, len(targets.tokens_N), targets.start, targets.stop]


def nothing_found(places: int) -> NDArray[np.int64]:
    """int64 (places, FOUND)."""
    found = np.zeros((places, FOUND), np.int64)
    found[:, [BAD_TARGET, BAD_WORD]] = -1
    return found


def raise_what_is_bad(slices: Sequence[Slice], vocab_size: int, found: NDArray[np.int64]) -> None:
    """Raises ValueError for the first place with a bad span or word; `slices` has one for each place."""
    for at in np.flatnonzero(found[:, [BAD_TARGET, BAD_WORD]].max(axis=1) >= 0).tolist():
        if found[at, BAD_TARGET] >= 0:
            raise_bad_span(slices[at], int(found[at, BAD_TARGET]))
        raise_bad_word(slices[at], int(found[at, BAD_WORD]), vocab_size)


def address(array: NDArray[Any]) -> int:
    """`array.ctypes.data`, which imports more."""
    return int(array.__array_interface__["data"][0])


@intrinsic
def _as_pointer(_context: Any, _address: Any) -> Any:
    def codegen(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        return builder.inttoptr(values[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), codegen


_pointer: Any = _as_pointer


@compiled
def look_through(places: Any, begin: int, end: int, vocab_size: int, found: Any) -> None:
    """Narrows each of the places [begin, end) to the rows that its targets reach, and fills in what is found."""
    for at in range(begin, end):
        place = places[at]
        rows, start, stop = place[HIGH], place[START], place[STOP]
        tokens_N = carray(_pointer(place[TOKENS]), (rows,), np.int32)
        left_N = carray(_pointer(place[LEFT]), (rows,), np.uint8)
        right_N = carray(_pointer(place[RIGHT]), (rows,), np.uint8)
        most_left: Any = np.int64(0)
        most_right: Any = np.int64(0)
        first: Any = np.int64(start)
        last: Any = np.int64(stop)
        # The loops have no early exit, so that they can be vectorised; others locate what is bad, if there is anything.
        for i in range(start, stop):
            left, right = np.int64(left_N[i]), np.int64(right_N[i])
            most_left, most_right = max(most_left, left), max(most_right, right)
            first, last = min(first, i - left), max(last, i + right + 1)
        bad_target: Any = np.int64(-1)
        bad_word: Any = np.int64(-1)
        if first < 0 or last > rows:
            for i in range(stop - 1, start - 1, -1):
                if i - np.int64(left_N[i]) < 0 or i + np.int64(right_N[i]) >= rows:
                    bad_target = i
        else:
            smallest, largest = np.int32(0), np.int32(0)
            for i in range(first, last):
                smallest, largest = min(smallest, tokens_N[i]), max(largest, tokens_N[i])
            if smallest < 0 or largest >= vocab_size:
                for i in range(last - 1, first - 1, -1):
                    if tokens_N[i] < 0 or tokens_N[i] >= vocab_size:
                        bad_word = i
        place[LOW], place[HIGH] = first, last
        found[at, BAD_TARGET], found[at, BAD_WORD] = bad_target, bad_word
        found[at, BEFORE], found[at, AFTER] = most_left, most_right
