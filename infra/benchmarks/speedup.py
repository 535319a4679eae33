"""Time per example against vocabulary size: why the softmax had to go, and what is left when it has.

    python infra/benchmarks/speedup.py --figure speedup.png [--quick]

Four ways to train the same CBOW (window 5, vector size 100, batch 100, plain SGD) on a Zipf-distributed stream, from 1,000
to 1,000,000 words:
(a) one-hot rows times a matrix, softmax over all words; (b) row lookup, softmax over all words; (c) row lookup, 5 noise
words; (d) the kernel of engine: kernels. (a) and (b) grow with the vocabulary and stop where a step would need more than
--memory-gb; (c) and (d) do not grow but for cache misses. Forward, backward and update are timed, drawing batches is not.
Prints a table (µs an example, median of the steps), one JSON line, and writes a PNG.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from w2v_core.contexts import expand_rows
from w2v_core.kernels import initial_parameters, load_kernels
from w2v_core.layers import ContextMean, Embedding, MatMul, SoftmaxWithLoss
from w2v_core.models import CBOW, SimpleCBOW, initial_matrix
from w2v_core.optimizers import SGD
from w2v_core.sampler import noise_table
from w2v_core.unigram import UnigramSampler

WINDOW, VECTOR_SIZE, BATCH, NEGATIVE, RATE = 5, 100, 100, 5, 0.025
CONTEXTS = 2 * WINDOW
STREAM_TOKENS = 200_000
VOCAB_SIZES = [1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000]
QUICK_SIZES = [1_000, 10_000, 100_000]
WAYS = {
    "a": "one-hot + softmax",
    "b": "lookup + softmax",
    "c": "lookup + negative sampling",
    "d": "kernel",
}

Step = Callable[[int], int]
"""Trains on batch number n and returns how many examples that were."""


class LookupSoftmax:
    """CBOW by row lookup, with the softmax over all words: the chapter's half-way house."""

    def __init__(self, vocab_size: int, generator: np.random.Generator) -> None:
        self._in = Embedding(initial_matrix(vocab_size, VECTOR_SIZE, generator))
        self._mean = ContextMean()
        self._out = MatMul(initial_matrix(VECTOR_SIZE, vocab_size, generator))
        self._loss = SoftmaxWithLoss()
        self.params = [*self._in.params, *self._out.params]
        self.grads: list[Any] = [None, None]

    def forward(self, contexts: Any, target: Any) -> float:
        weights = np.full(contexts.shape, 1 / CONTEXTS, dtype=np.float32)
        hidden = self._mean.forward(self._in.forward(contexts), weights)
        return self._loss.forward(self._out.forward(hidden), target)

    def backward(self) -> None:
        self._in.backward(self._mean.backward(self._out.backward(self._loss.backward())))
        self.grads[:] = [self._in.grads[0], self._out.grads[0]]


def zipf_stream(vocab_size: int, generator: np.random.Generator) -> tuple[Any, Any]:
    """(tokens int32 (STREAM_TOKENS,), counts int64 (V,)); counts fall as 1/rank and are at least 1."""
    share = 1 / (np.arange(vocab_size) + 2.7)
    ends = np.cumsum(share / share.sum())
    tokens = np.minimum(np.searchsorted(ends, generator.random(STREAM_TOKENS), side="right"), vocab_size - 1)
    return tokens.astype(np.int32), np.maximum(share / share.sum() * 1e9, 1).astype(np.int64)


def bytes_needed(way: str, vocab_size: int) -> int:
    """About what a step holds: matrices and gradients, and the arrays of the batch that are as wide as the vocabulary."""
    matrices = 2 * vocab_size * VECTOR_SIZE * 4
    wide = {"a": BATCH * CONTEXTS * (1 + 4) + 3 * BATCH * 4, "b": 3 * BATCH * 4}.get(way, 0) * vocab_size
    return matrices * (2 if way in "ab" else 1) + wide


def layered_step(way: str, tokens: Any, counts: Any, generator: np.random.Generator) -> Step:
    vocab_size = len(counts)
    model: Any
    if way == "a":
        model = SimpleCBOW(vocab_size, VECTOR_SIZE, generator=generator)
    elif way == "b":
        model = LookupSoftmax(vocab_size, generator)
    else:
        model = CBOW(vocab_size, VECTOR_SIZE, UnigramSampler(counts, generator=generator), generator=generator)
    optimizer = SGD(RATE)
    positions = generator.permutation(np.arange(WINDOW, len(tokens) - WINDOW))
    full = np.full(len(tokens), WINDOW, dtype=np.uint8)
    batches = [expand_rows(tokens, full, full, positions[n * BATCH : (n + 1) * BATCH], WINDOW) for n in range(64)]

    def step(number: int) -> int:
        contexts, target = batches[number % len(batches)]
        model.forward(contexts, target)
        model.backward()
        optimizer.update(model.params, model.grads)
        return len(target)

    return step


def kernel_step(backend: Any, tokens: Any, counts: Any) -> Step:
    kernels = load_kernels(backend)
    w_in, w_out = initial_parameters(len(counts), VECTOR_SIZE, seed=1)
    table = noise_table(counts, 0.75)
    position = np.arange(len(tokens))
    left, right = (np.minimum(edge, WINDOW).astype(np.uint8) for edge in (position, position[::-1]))
    examples = 20_000 if backend != "numpy" else BATCH * 10  # a kernel is called for long slices

    def step(number: int) -> int:
        start = number * examples % (len(tokens) - examples)
        kernels.train_slice(
            w_in, w_out, tokens, left, right, start, start + examples, table,
            model="cbow", gradient="exact", negative=NEGATIVE, alpha_start=RATE, alpha_end=RATE, seed=number,
        )  # fmt: skip
        return examples

    return step


def microseconds_an_example(step: Step, seconds: float) -> float:
    """Median over the steps that fit into `seconds`, at least 3, after one that is not counted."""
    step(0)
    times_us: list[float] = []
    started_s = time.perf_counter()
    while len(times_us) < 3 or time.perf_counter() - started_s < seconds:
        before_s = time.perf_counter()
        examples = step(len(times_us) + 1)
        times_us.append((time.perf_counter() - before_s) / examples * 1e6)
    return statistics.median(times_us)


def measure(sizes: list[int], seconds: float, memory_bytes: float, backend: str) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {way: {} for way in WAYS}
    print(f"{'words':>10} " + "".join(f"{name:>28}" for name in WAYS.values()) + "   µs an example")
    for vocab_size in sizes:
        tokens, counts = zipf_stream(vocab_size, np.random.default_rng(vocab_size))
        for way in WAYS:
            if bytes_needed(way, vocab_size) > memory_bytes:
                continue
            generator = np.random.default_rng(1)
            step = kernel_step(backend, tokens, counts) if way == "d" else layered_step(way, tokens, counts, generator)
            found[way][vocab_size] = microseconds_an_example(step, seconds)
        cells = [f"{found[way][vocab_size]:.3f}" if vocab_size in found[way] else "does not fit" for way in WAYS]
        print(f"{vocab_size:10,d} " + "".join(f"{cell:>28}" for cell in cells), flush=True)
    return found


def draw(found: dict[str, dict[int, float]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for way, name in WAYS.items():
        axes.plot(list(found[way]), list(found[way].values()), marker="o", label=name)
    axes.set(xscale="log", yscale="log", xlabel="words in the vocabulary", ylabel="µs an example")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figure", type=Path, required=True, help="PNG to write")
    parser.add_argument("--quick", action="store_true", help="three sizes, a tenth of a second each")
    parser.add_argument("--memory-gb", type=float, default=4.0, help="largest step attempted, GB (--quick: at most 0.5)")
    parser.add_argument("--backend", default="numba", help="kernels of way (d)")
    arguments = parser.parse_args()
    sizes, seconds = (QUICK_SIZES, 0.1) if arguments.quick else (VOCAB_SIZES, 1.0)
    memory_gb = min(arguments.memory_gb, 0.5) if arguments.quick else arguments.memory_gb
    found = measure(sizes, seconds, memory_gb * 1e9, arguments.backend)
    draw(found, arguments.figure)
    growth = {way: points[max(points)] / points[min(points)] for way, points in found.items()}
    speedup = {size: found["a"][size] / found["c"][size] for size in found["a"]}
    print(json.dumps({"us_an_example": found, "growth_over_sizes": growth, "one_hot_over_negative_sampling": speedup}))


if __name__ == "__main__":
    main()
