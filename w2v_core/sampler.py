"""Random draws that are pure functions of (seed, counter), and the table noise words are drawn from.

A draw never depends on how many draws were made before it, on a process or on a clock, so a lane's slice can be trained
again anywhere and gives the same words. The formula is SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable
pseudorandom number generators", section 5): draw number c of stream s is the finaliser of s + (c + 1)·γ. It is written
out once more, with the same constants, in the Numba and CUDA kernels; tests compare them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GAMMA = 0x9E3779B97F4A7C15
MIX_1 = 0xBF58476D1CE4E5B9
MIX_2 = 0x94D049BB133111EB
_MASK = (1 << 64) - 1

SLOTS_PER_WORD = 16
"""Slots of the noise table per word of the vocabulary, before rounding up to a power of two."""
SMALLEST_TABLE = 1 << 16
LARGEST_TABLE = 1 << 26
"""256 MiB of int32: enough for 4 million words at 16 slots each."""


def mix64(seed: int, counters: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """64 random bits for each counter of the stream `seed`; same shape as `counters`, uint64, arithmetic modulo 2**64."""
    # The scalar product and sum wrap by design; only array operations are silent about it, so they come first.
    z = counters + np.uint64(1)
    z *= np.uint64(GAMMA)
    z += np.uint64(seed & _MASK)
    shifted = z >> np.uint64(30)
    z ^= shifted
    z *= np.uint64(MIX_1)
    z ^= np.right_shift(z, np.uint64(27), out=shifted)
    z *= np.uint64(MIX_2)
    z ^= np.right_shift(z, np.uint64(31), out=shifted)
    return z


def random_bits(seed: int, counter: int) -> int:
    """Draw number `counter` of the stream `seed`: `mix64` for one counter, as a Python int of 64 bits."""
    z = (seed + (counter + 1) * GAMMA) & _MASK
    z = (z ^ (z >> 30)) * MIX_1 & _MASK
    z = (z ^ (z >> 27)) * MIX_2 & _MASK
    return z ^ (z >> 31)


def stream_seed(seed: int, *path: int) -> int:
    """The 64-bit seed of the stream at a path of ints, e.g. (epoch, step, lane); other paths and lengths give other seeds."""
    state = random_bits(seed, len(path))
    for level, index in enumerate(path):
        state = random_bits(state ^ random_bits(index, level), level)
    return state


def noise_distribution(counts_V: NDArray[np.int64], exponent: float) -> NDArray[np.float64]:
    """Noise probability of each word, float64 (V,), proportional to counts**exponent (Mikolov et al. 2013, §2.2: 3/4).

    A word with count 0 has probability 0. Raises ValueError for negative counts or if no count is above 0.
    """
    counts_V = np.asarray(counts_V, np.int64)
    if counts_V.ndim != 1 or not np.any(counts_V > 0) or np.any(counts_V < 0):
        raise ValueError(
            f"expected one count >= 0 for each word with at least one above 0, found shape {counts_V.shape}, "
            f"smallest {counts_V.min() if counts_V.size else 'none'}, largest {counts_V.max() if counts_V.size else 'none'}"
        )
    weights_V = np.where(counts_V > 0, np.maximum(counts_V, 1).astype(np.float64) ** exponent, 0.0)
    probabilities_V: NDArray[np.float64] = weights_V / weights_V.sum()
    return probabilities_V


def noise_table(counts_V: NDArray[np.int64], exponent: float, size: int | None = None) -> NDArray[np.int32]:
    """Word ids, int32 (T,), T a power of two: a uniform slot holds each word about as often as `noise_distribution` says.

    Words stand in runs in order of id. Slots are shared out by largest remainder, so a word's frequency in the table is
    within 1/T of its probability, but every word with a count above 0 keeps at least one slot: what those words get
    beyond their share is taken from the words with the most slots. Without such words the total variation distance to
    the distribution is at most V/4T, which the default size (at least 16 slots a word) keeps below 1/64.

    Raises ValueError if `size` is not a power of two or holds fewer slots than words.
    """
    probabilities_V = noise_distribution(counts_V, exponent)
    words = int(np.count_nonzero(probabilities_V))
    if size is None:
        size = min(max(SMALLEST_TABLE, 1 << (SLOTS_PER_WORD * words - 1).bit_length()), LARGEST_TABLE)
    if size < 2 or size & (size - 1) or size < words or size > 1 << 31:
        raise ValueError(
            f"the noise table needs a power of two of slots, at least one for each of {words} words and at most 2**31, "
            f"found size {size}: leave size out, or lower the vocabulary with vocab.min_count or vocab.max_size"
        )
    slots_V = _share_out(probabilities_V, size)
    return np.repeat(np.arange(len(slots_V), dtype=np.int32), slots_V)


def _share_out(probabilities_V: NDArray[np.float64], size: int) -> NDArray[np.int64]:
    """Whole slots of each word, int64 (V,), summing to `size`: largest remainders, then one slot at least (count > 0)."""
    shares_V = probabilities_V * size
    slots_V = np.floor(shares_V).astype(np.int64)
    by_remainder = np.argsort(slots_V - shares_V, kind="stable")
    slots_V[by_remainder[: size - int(slots_V.sum())]] += 1
    slots_V[(slots_V == 0) & (probabilities_V > 0)] = 1
    excess = int(slots_V.sum()) - size
    while excess > 0:
        # Level the largest down together: taking all from one word would distort the most frequent one alone.
        richest = np.argsort(-slots_V, kind="stable")[: max(1, min(excess, int(np.count_nonzero(slots_V > 1)) // 8))]
        share = np.maximum(excess * slots_V[richest] // int(slots_V[richest].sum()), 1)
        share = np.minimum(share, slots_V[richest] - 1)
        share = np.minimum(share, np.maximum(excess - (np.cumsum(share) - share), 0))
        slots_V[richest] -= share
        excess -= int(share.sum())
    return slots_V
