"""Time per example by vocabulary size: why the softmax had to go, and what remains without it.

    python infra/benchmarks/speedup.py --record infra/benchmarks/records/speedup-DATE.md [--quick]

Four ways to train the same CBOW (window 5, vector size 100, batch 100, plain SGD) on a Zipf-distributed stream, from 1,000
to 1,000,000 words:
(a) one-hot rows times a matrix, softmax over all words; (b) row lookup, softmax over all words; (c) row lookup, 5 noise
words; (d) the kernel of engine: kernels. (a) and (b) grow with the vocabulary and stop at the first size whose step would
need more than --memory-gb; (c) and (d) grow only through cache misses. Forward, backward and update are timed; drawing
batches is not. Prints a table and one JSON line, and writes the record and, beside it, the figure (SVG).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
from threadpoolctl import threadpool_limits

from w2v_core.kernels import Noise, Slice, Update, initial_parameters, load_kernels
from w2v_core.sampler import noise_table
from w2v_core.textbook.contexts import expand_rows
from w2v_core.textbook.layers import ContextMean, Embedding, MatMul, SoftmaxWithLoss
from w2v_core.textbook.models import CBOW, SimpleCBOW, initial_matrix
from w2v_core.textbook.optimizers import SGD
from w2v_core.textbook.unigram import UnigramSampler

WINDOW, VECTOR_SIZE, BATCH, NEGATIVE, RATE = 5, 100, 100, 5, 0.025
CONTEXTS = 2 * WINDOW
STREAM_TOKENS = 200_000
VOCAB_SIZES = [1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000]
ROUNDS = 10
QUICK_SIZES = [1_000, 10_000, 100_000]
WAYS = {
    "a": "one-hot + softmax",
    "b": "lookup + softmax",
    "c": "lookup + negative sampling",
    "d": "kernel",
}

Step = Callable[[int], int]
"""Trains on batch number n and returns its number of examples."""


class Cost(NamedTuple):
    """µs per example over the timed steps: the 10th percentile (least disturbed by others on the machine), the median."""

    tenth: float
    median: float
    steps: int


Found = dict[str, dict[int, Cost]]
"""By way and number of words; a size that was not attempted is not there."""


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
    """Roughly the bytes of a step: matrices, gradients, and the arrays of the batch that are as wide as the vocabulary."""
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
    noise = Noise(noise_table(counts, 0.75), np.ones(len(counts), np.float32))
    position = np.arange(len(tokens))
    left, right = (np.minimum(edge, WINDOW).astype(np.uint8) for edge in (position, position[::-1]))
    examples = 20_000 if backend != "numpy" else BATCH * 10  # a kernel is called for long slices

    def step(number: int) -> int:
        start = number * examples % (len(tokens) - examples)
        update = Update("cbow", "exact", NEGATIVE, (RATE, RATE), seed=number)
        kernels.train_slice(w_in, w_out, Slice(tokens, left, right, start, start + examples), noise, update)
        return examples

    return step


def time_steps(step: Step, seconds: float, at_least: int) -> list[float]:
    """µs per example of each step that fits into `seconds`, after a warm-up step."""
    step(0)
    times_us: list[float] = []
    started_s = time.perf_counter()
    while len(times_us) < at_least or time.perf_counter() - started_s < seconds:
        before_s = time.perf_counter()
        examples = step(len(times_us) + 1)
        times_us.append((time.perf_counter() - before_s) / examples * 1e6)
    return times_us


def cost_of(way: str, vocab_size: int, times_us: list[float]) -> Cost:
    tenth, median = np.percentile(times_us, [10, 50]).tolist()
    print(f"{vocab_size:10,d}  {WAYS[way]:28}{tenth:14,.3f} µs an example", flush=True)
    return Cost(tenth, median, len(times_us))


def measure(sizes: list[int], seconds: float, memory_bytes: float, backend: str) -> Found:
    """(a) and (b) size by size; (c) and (d) in rounds over all sizes, so that a disturbance affects all of them."""
    found: Found = {way: {} for way in WAYS}
    streams = {size: zipf_stream(size, np.random.default_rng(size)) for size in sizes}
    for size, (tokens, counts) in streams.items():
        for way in "ab":
            if bytes_needed(way, size) <= memory_bytes:
                step = layered_step(way, tokens, counts, np.random.default_rng(1))
                found[way][size] = cost_of(way, size, time_steps(step, seconds, at_least=3))
    flat: dict[tuple[str, int], tuple[Step, list[float]]] = {}
    for size, (tokens, counts) in streams.items():
        flat["c", size] = layered_step("c", tokens, counts, np.random.default_rng(1)), []
        flat["d", size] = kernel_step(backend, tokens, counts), []
    for _ in range(ROUNDS):
        for step, times_us in flat.values():
            times_us += time_steps(step, seconds / ROUNDS, at_least=3)
    for (way, size), (_, times_us) in flat.items():
        found[way][size] = cost_of(way, size, times_us)
    return found


def draw(found: Found, path: Path) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for way, name in WAYS.items():
        axes.plot(list(found[way]), [cost.tenth for cost in found[way].values()], marker="o", label=name)
    axes.set(xscale="log", yscale="log", xlabel="words in the vocabulary", ylabel="µs an example")
    axes.grid(alpha=0.3)
    axes.legend()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "speedup"}):
        figure.savefig(path, format="svg", metadata={"Date": None})


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} × {names[0]}" if names else platform.processor() or platform.machine()


def cell(cost: Cost) -> str:
    digits = 0 if cost.tenth >= 100 else 1 if cost.tenth >= 10 else 3
    return f"**{cost.tenth:,.{digits}f}** ({cost.median:,.{digits}f})"


def record_text(found: Found, sizes: list[int], seconds: float, memory_gb: float, loads: tuple[float, float], figure: str) -> str:
    """The record in Markdown: conditions, table, what it shows."""
    stops = {way: min((size for size in sizes if size not in found[way]), default=None) for way in WAYS}
    rows = []
    for size in sizes:
        cells = [cell(found[way][size]) if size in found[way] else "not attempted" for way in WAYS]
        rows.append(f"| {size:,} | {' | '.join(cells)} |")
    shown = []
    for way, name in WAYS.items():
        first, last = min(found[way]), max(found[way])
        times = found[way][last].tenth / found[way][first].tenth
        shown.append(f"- *{name}*: {times:,.1f} times the cost at {last / first:,.0f} times the words ({first:,} to {last:,}).")
    for size in sizes:
        if size in found["a"]:
            ratio, kernel = (found["a"][size].tenth / found[way][size].tenth for way in "cd")
            shown.append(
                f"- At {size:,} words one-hot + softmax costs {ratio:,.0f} times negative sampling, {kernel:,.0f} the kernel."
            )
    for way, stop in stops.items():
        if stop is not None:
            needed = bytes_needed(way, stop) / 1e9
            shown.append(
                f"- *{WAYS[way]}* stops before {stop:,} words: a step would hold {needed:.1f} GB, allowed {memory_gb:g} GB."
            )
    return f"""# Cost of an example against the size of the vocabulary, {datetime.now(UTC):%Y-%m-%d}

Written by `infra/benchmarks/speedup.py`, which says what is timed. Machine: {processor()}, {platform.system()}; all four ways
in one thread. Python {platform.python_version()}, NumPy {np.__version__}, Numba {numba.__version__}. Load average when it
began {loads[0]:.1f}, when it ended {loads[1]:.1f}. CBOW, window {WINDOW}, vector_size {VECTOR_SIZE}, batch {BATCH}, negative
{NEGATIVE}, SGD, float32; tokens drawn from a Zipf law over all words.

µs an example: **10th percentile** (median) of the steps that fit into {seconds:g} s, at least three. The two ways without a
softmax are timed in {ROUNDS} rounds over all sizes, so that other work on the machine falls on all of them.

| words | {" | ".join(WAYS.values())} |
| ---: | {" | ".join("---:" for _ in WAYS)} |
{chr(10).join(rows)}

![µs an example against words in the vocabulary]({figure})

{chr(10).join(shown)}

**How far to trust it.** A load average above 1 means that other work shared the cores. Figures of one run then differ from
those of another by a factor of up to two, and in the columns with a softmax one cell may be hit and its neighbour not; their
growth over three decades is far outside of that. The growth without a softmax is small, but not nothing. Its cause was not
measured; nothing in the arithmetic depends on the number of words, but the two matrices that the rows lie in are 0.8 MB
at 1,000 words and 800 MB at 1,000,000, and the noise words of the layers are found by bisection.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", type=Path, required=True, help="Markdown to write; the figure goes beside it as .svg")
    parser.add_argument("--quick", action="store_true", help="three sizes, a tenth of a second each")
    parser.add_argument("--memory-gb", type=float, default=4.0, help="largest step attempted, GB (--quick: at most 0.5)")
    parser.add_argument("--backend", default="numba", help="kernels of way (d)")
    arguments = parser.parse_args()
    sizes, seconds = (QUICK_SIZES, 0.1) if arguments.quick else (VOCAB_SIZES, 2.0)
    memory_gb = min(arguments.memory_gb, 0.5) if arguments.quick else arguments.memory_gb
    load_before = os.getloadavg()[0]
    with threadpool_limits(1):  # of BLAS: the kernel has one thread too, and two that wait for each other measure the neighbours
        found = measure(sizes, seconds, memory_gb * 1e9, arguments.backend)
    figure = arguments.record.with_suffix(".svg")
    draw(found, figure)
    text = record_text(found, sizes, seconds, memory_gb, (load_before, os.getloadavg()[0]), figure.name)
    arguments.record.write_text(text, encoding="utf-8")
    print(
        json.dumps(
            {"us_an_example": {way: {size: cost._asdict() for size, cost in costs.items()} for way, costs in found.items()}}
        )
    )


if __name__ == "__main__":
    main()
