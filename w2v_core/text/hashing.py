"""A word's key: the bytes of a word of at most eight, exactly; the hash of a longer one."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True, inline="always")
def mix(key):  # type: ignore[no-untyped-def]
    """The finaliser of MurmurHash3 (Appleby), which sends keys that differ in one byte to unrelated slots."""
    key ^= key >> np.uint64(33)
    key *= np.uint64(0xFF51AFD7ED558CCD)
    key ^= key >> np.uint64(33)
    key *= np.uint64(0xC4CEB9FE1A85EC53)
    return key ^ (key >> np.uint64(33))


@njit(nogil=True, cache=True, inline="always")
def absorb(h, packed):  # type: ignore[no-untyped-def]
    """The hash of a long word, continued with eight more bytes."""
    return mix(h ^ packed) + np.uint64(0x9E3779B97F4A7C15)


@njit(nogil=True, cache=True)
def key_of(data, start, length):  # type: ignore[no-untyped-def]
    """The key of the word data[start:start+length]: its packed bytes if there are at most eight, else their hash."""
    h = np.uint64(0)
    packed = np.uint64(0)
    for at in range(length):
        if at > 0 and at & 7 == 0:
            h = absorb(h, packed)
            packed = np.uint64(0)
        packed |= np.uint64(data[start + at]) << np.uint64(8 * (at & 7))
    return packed if length <= 8 else absorb(h, packed)
