"""Random draws that are pure functions of (seed, counter), and the table from which noise words are drawn.

A draw does not depend on earlier draws, on the process or on a clock, so a lane's slice can be trained again anywhere with
the same noise words. The formula is SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number
generators", section 5): draw number c of stream s is the finaliser of s + (c + 1)·γ. It is written down four times, because
none of the four can call another: here for a single counter and for arrays, and once for each kind of machine code
(kernels/cpu/random_numbers.py, kernels/cuda/device.cu). A test compares them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

GAMMA = 0x9E3779B97F4A7C15
MIX_1 = 0xBF58476D1CE4E5B9
MIX_2 = 0x94D049BB133111EB
_MASK = (1 << 64) - 1

_LOW = (1 << 32) - 1


def mix64(seed: int, counters: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """64 random bits for each counter of the stream `seed`: uint64, in the shape of `counters`; arithmetic modulo 2**64."""
    # Sums and products wrap by design. NumPy warns about it for scalars but not for arrays, hence only array operations.
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
    """The 64-bit seed of the stream at a path of ints, e.g. (epoch, step, lane); different paths give different seeds."""
    state = random_bits(seed, len(path))
    for level, index in enumerate(path):
        state = random_bits(state ^ random_bits(index, level), level)
    return state


def noise_distribution(counts_V: NDArray[Any], exponent: float) -> NDArray[np.float64]:
    """The noise probability of each word, float64 (V,), proportional to counts**exponent (Mikolov et al. 2013, §2.2: 3/4).

    A word with count 0 has probability 0. Raises ValueError for counts that are negative or not finite, and if none is above 0.
    """
    counts_V = np.asarray(counts_V, np.float64)
    if counts_V.ndim != 1 or not np.any(counts_V > 0) or np.any(counts_V < 0) or not np.all(np.isfinite(counts_V)):
        raise ValueError(
            f"expected one finite count >= 0 for each word id, at least one above 0, found shape {counts_V.shape}, "
            f"smallest {counts_V.min() if counts_V.size else 'none'}, largest {counts_V.max() if counts_V.size else 'none'}"
        )
    drawable_V = counts_V > 0
    weights_V = np.where(drawable_V, np.where(drawable_V, counts_V, 1.0) ** exponent, 0.0)
    probabilities_V: NDArray[np.float64] = weights_V / weights_V.sum()
    return probabilities_V


def word_rates(counts_V: NDArray[np.int64], keep_V: NDArray[np.float64], exponent: float) -> NDArray[np.float32]:
    """The factor of the learning rate for each word's rows: float32 (V,), proportional to count**−exponent, at most MOST_RATE.

    `keep_V`: the probability that subsampling keeps an occurrence, float64 (V,). The mean rate over the kept occurrences is 1,
    less what MOST_RATE cuts off from the rarest words, so α keeps its meaning; exponent 0 gives 1 for every word. Rates are
    multiples of 2⁻¹², so that processors whose powers differ in the last bit agree on them. Raises ValueError for counts
    below 1. Source: Li et al. 2022, "Frequency-aware SGD for efficient embedding learning with provable benefits"; measured
    here in infra/decisions/0014-word-rates.md.
    """
    if not len(counts_V) or np.min(counts_V) < 1:
        raise ValueError(f"expected a count >= 1 for each word, found {np.min(counts_V) if len(counts_V) else 'no word'}")
    counts_V = np.asarray(counts_V, np.float64)
    rates_V, kept_V = counts_V**-exponent, counts_V * keep_V
    rates_V *= kept_V.sum() / (kept_V @ rates_V)
    rounded_V: NDArray[np.float64] = np.clip(np.rint(rates_V * _RATE_STEPS), 1.0, MOST_RATE * _RATE_STEPS) / _RATE_STEPS
    return rounded_V.astype(np.float32)


MOST_RATE = 4.0
"""Without this limit, a word seen five times in a corpus of billions would move by more than a whole gradient at a time."""
_RATE_STEPS = 4096.0


def noise_table(counts_V: NDArray[np.int64], exponent: float) -> NDArray[np.uint64]:
    """Walker's alias table, uint64 (T,) with T = V cells: a cell, drawn uniformly, yields its own word or its alias.

    Cell c holds threshold << 32 | alias: if 32 random bits are below the threshold it yields word c, else word `alias`
    (`noise_word`). A word's probability differs from that of `noise_distribution` by at most 2⁻³²/V, the most frequent word's
    by 2⁻³², and a draw reads 8 of the table's 8·V bytes (Walker 1977, "An efficient method for generating discrete random
    variables with general distributions"). Words with count 0 are never drawn.

    The table is built with whole numbers and running sums. A word with less mass than a cell (poor) takes what it lacks from
    the current word with more (rich). Once that word has given more than its surplus, it lacks something itself and takes it
    from the next rich word (the sweep of Hübschle-Schneider and Sanders 2022, "Parallel weighted random sampling").

    Raises ValueError for the same counts as `noise_distribution`.
    """
    probabilities_V = noise_distribution(counts_V, exponent)
    words, cell = len(probabilities_V), 1 << 32
    masses_V = np.floor(probabilities_V * (words * cell)).astype(np.int64)
    masses_V[np.argmax(masses_V)] += words * cell - int(masses_V.sum())
    poor, rich = np.flatnonzero(masses_V < cell), np.flatnonzero(masses_V > cell)
    lacks, spare = np.cumsum(cell - masses_V[poor]), np.cumsum(masses_V[rich] - cell)
    thresholds_V, aliases_V = np.zeros(words, np.uint64), np.arange(words, dtype=np.uint64)
    thresholds_V[poor] = masses_V[poor]
    # The giver is the first rich word whose spare mass, summed with that of the rich before it, exceeds what is taken so far.
    aliases_V[poor] = rich[np.searchsorted(spare, lacks - (cell - masses_V[poor]), side="right")]
    # How much more than its spare mass a rich word has given once it has served the last of its poor words.
    beyond = lacks[np.searchsorted(lacks, spare[:-1], side="left")] - spare[:-1]
    short = np.flatnonzero(beyond)
    thresholds_V[rich[short]] = cell - beyond[short]
    aliases_V[rich[short]] = rich[short + 1]
    return thresholds_V << np.uint64(32) | aliases_V


def noise_word(noise_table: NDArray[np.uint64], bits: int) -> int:
    """The word drawn by 64 random bits: the high 32 choose a cell, the low 32 one of its two words."""
    chosen = (bits >> 32) * len(noise_table) >> 32
    cell = int(noise_table[chosen])
    return chosen if bits & _LOW < cell >> 32 else cell & _LOW
