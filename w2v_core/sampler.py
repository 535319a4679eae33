"""Random draws that are pure functions of (seed, counter), and the table noise words are drawn from.

A draw never depends on how many draws were made before it, on a process or on a clock, so a lane's slice can be trained
again anywhere and gives the same words. The formula is SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable
pseudorandom number generators", section 5): draw number c of stream s is the finaliser of s + (c + 1)·γ. It stands
here twice, for one counter and for arrays, and once for each kind of machine code (kernels/cpu/random_numbers.py,
kernels/cuda/device.cu), because none can call another; a test compares all four.
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


def noise_distribution(counts_V: NDArray[Any], exponent: float) -> NDArray[np.float64]:
    """Noise probability of each word, float64 (V,), proportional to counts**exponent (Mikolov et al. 2013, §2.2: 3/4).

    A word with count 0 has probability 0. Raises ValueError for counts that are negative or not finite, or if none is above 0.
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
    """What the learning rate of each word's rows is multiplied by: float32 (V,), proportional to count**−exponent, at most
    MOST_RATE.

    `keep_V`: the chance that subsampling keeps an occurrence. The mean rate of the kept occurrences is 1, less what MOST_RATE
    takes from the rarest, so that α keeps its meaning; exponent 0 gives 1 for every word. Rates are multiples of 2⁻¹², so that
    processors whose powers differ in the last bit agree on them. Raises ValueError for counts below 1. Source: Li et al. 2022,
    "Frequency-aware SGD for efficient embedding learning with provable benefits"; what it brings here:
    infra/decisions/0014-word-rates.md.
    """
    if not len(counts_V) or np.min(counts_V) < 1:
        raise ValueError(f"expected a count >= 1 for each word, found {np.min(counts_V) if len(counts_V) else 'no word'}")
    counts_V = np.asarray(counts_V, np.float64)
    rates_V, kept_V = counts_V**-exponent, counts_V * keep_V
    rates_V *= kept_V.sum() / (kept_V @ rates_V)
    rounded_V: NDArray[np.float64] = np.clip(np.rint(rates_V * _RATE_STEPS), 1.0, MOST_RATE * _RATE_STEPS) / _RATE_STEPS
    return rounded_V.astype(np.float32)


MOST_RATE = 4.0
"""A word seen five times in a corpus of billions would else move by more than a whole gradient at a time."""
_RATE_STEPS = 4096.0


def noise_table(counts_V: NDArray[np.int64], exponent: float) -> NDArray[np.uint64]:
    """Walker's alias table, uint64 (T,) with T = V cells: a uniform cell gives its own word or the one it names.

    Cell c holds threshold << 32 | alias: with 32 random bits below the threshold it gives word c, else word `alias`
    (`noise_word`). So a word's probability is that of `noise_distribution` to 2⁻³²/V, the most frequent word's to 2⁻³², and a
    draw looks at 8 bytes of 8·V (Walker 1977, "An efficient method for generating discrete random variables with general
    distributions"). Words with count 0 are never drawn.

    Built with whole numbers and running sums: each word that has less than a cell takes what it lacks from the word with
    more that is at hand then, which itself lacks something once it has given more than it had too much, and takes that
    from the next (the sweep of Hübschle-Schneider and Sanders 2022, "Parallel weighted random sampling").

    Raises ValueError for the counts that `noise_distribution` refuses.
    """
    probabilities_V = noise_distribution(counts_V, exponent)
    words, cell = len(probabilities_V), 1 << 32
    masses_V = np.floor(probabilities_V * (words * cell)).astype(np.int64)
    masses_V[np.argmax(masses_V)] += words * cell - int(masses_V.sum())
    poor, rich = np.flatnonzero(masses_V < cell), np.flatnonzero(masses_V > cell)
    lacks, spare = np.cumsum(cell - masses_V[poor]), np.cumsum(masses_V[rich] - cell)
    thresholds_V, aliases_V = np.zeros(words, np.uint64), np.arange(words, dtype=np.uint64)
    thresholds_V[poor] = masses_V[poor]
    # Who gives: the first of the rich whose spare mass, with that of those before it, goes beyond what is taken so far.
    aliases_V[poor] = rich[np.searchsorted(spare, lacks - (cell - masses_V[poor]), side="right")]
    # What a rich word has given beyond its spare mass when the last of the poor that it serves is served.
    beyond = lacks[np.searchsorted(lacks, spare[:-1], side="left")] - spare[:-1]
    short = np.flatnonzero(beyond)
    thresholds_V[rich[short]] = cell - beyond[short]
    aliases_V[rich[short]] = rich[short + 1]
    return thresholds_V << np.uint64(32) | aliases_V


def noise_word(noise_table: NDArray[np.uint64], bits: int) -> int:
    """The word that 64 random bits draw: the high 32 choose a cell, the low 32 between its two words."""
    chosen = (bits >> 32) * len(noise_table) >> 32
    cell = int(noise_table[chosen])
    return chosen if bits & _LOW < cell >> 32 else cell & _LOW
