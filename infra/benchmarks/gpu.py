"""Speed and quality of the CUDA kernels on a real text, compared with the device's memory bandwidth. Needs a GPU and CuPy.

    python infra/benchmarks/gpu.py --corpus FILE [--quality --analogies FILE --similarity FILE …]

Speed: kept tokens per second of `train_slice` (host clock, including the checks and the wait for the result) with parameters,
noise table and stream on the device, for several numbers of thread blocks in flight; and the bytes that a token must move (one
W_in row, one target row, K/8 noise rows, each read and written) times that rate, compared with a copy measured in the same run.
Quality (--quality): 5 epochs on the GPU and with the Numba kernels at the same settings, scored on the given files.
The last line is JSON with versions and the device, to be kept as a record.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from gpu_staleness import Corpus, scores, simulate, slices

from w2v_core.extras import install_command
from w2v_core.kernels import Noise, Slice, Update, initial_parameters, load_kernels
from w2v_core.sampler import noise_table
from w2v_core.windows import Stream

WINDOW, NEGATIVE, EPOCHS = 5, 5, 5
SIZES = (128, 300)
THREAD_BLOCKS = (1, 4, 8, 16, 32, 64, 128)
TIMED_SLICE = 1 << 21
NS_EXPONENT = 0.75


def noise_of(kernels: Any, corpus: Corpus) -> Noise:
    """The corpus's noise table on the device, and a rate of 1 for every word."""
    table_T = kernels.to_device(noise_table(corpus.counts_V, NS_EXPONENT))
    return Noise(table_T, kernels.to_device(np.ones(len(corpus.words), np.float32)))


def require_device() -> Any:
    """CuPy with a usable device; without one the program ends with the reason."""
    try:
        import cupy
    except ModuleNotFoundError as error:
        raise SystemExit(f"gpu.py needs CuPy, which is not installed: {install_command('gpu13')} or '…[gpu12]'") from error
    if not cupy.cuda.is_available():
        raise SystemExit("gpu.py needs a GPU and CuPy finds no CUDA device here: run it on a machine with one")
    return cupy


def copy_bandwidth(cupy: Any) -> float:
    """Bytes per second, read plus written, of a copy of 1 GiB inside the device; the median of 20."""
    source, target = (cupy.zeros(1 << 28, cupy.float32) for _ in range(2))
    times_s = []
    for _ in range(23):
        before, after = cupy.cuda.Event(), cupy.cuda.Event()
        before.record()
        target.data.copy_from_device(source.data, source.nbytes)
        after.record()
        after.synchronize()
        times_s.append(cupy.cuda.get_elapsed_time(before, after) / 1e3)
    return float(2 * source.nbytes / statistics.median(times_s[3:]))


def bytes_a_token(size: int) -> float:
    return (1 + 1 + NEGATIVE / 8) * 2 * 4 * size


def on_device(kernels: Any, stream: Stream) -> Stream:
    return dataclasses.replace(
        stream, **{name: kernels.to_device(getattr(stream, name)) for name in ("tokens_N", "left_N", "right_N")}
    )


def tokens_per_second(kernels: Any, corpus: Corpus, stream: Stream, size: int, repeats: int, **options: Any) -> list[float]:
    """The rates of `repeats` slices after a warm-up slice, all from one training at a small α."""
    w_in, w_out = (kernels.to_device(matrix) for matrix in initial_parameters(len(corpus.words), size, seed=1))
    noise = noise_of(kernels, corpus)
    targets = min(TIMED_SLICE if options.get("mode") != "sequential" else TIMED_SLICE // 16, len(stream))
    rates = []
    for repeat in range(repeats + 1):
        start = repeat * targets % max(1, len(stream) - targets)
        before = time.perf_counter()
        of_stream = Slice(stream.tokens_N, stream.left_N, stream.right_N, start, start + targets)
        kernels.train_slice(w_in, w_out, of_stream, noise, Update("cbow", "word2vec", NEGATIVE, (0.01, 0.01), repeat), **options)
        rates.append(targets / (time.perf_counter() - before))
    return rates[1:]


def measure_speed(kernels: Any, corpus: Corpus, bandwidth: float, repeats: int) -> list[dict[str, Any]]:
    stream = on_device(kernels, corpus.epoch(WINDOW, 1))
    rows = []
    print(f"{'D':>4} {'mode':>11} {'blocks':>6} {'M tokens/s':>11} {'spread':>7} {'GB/s':>8} {'of copy':>8}")
    for size in SIZES:
        runs: list[dict[str, Any]] = [{"mode": "sequential"}]
        runs += [{"mode": "concurrent", "thread_blocks": blocks} for blocks in THREAD_BLOCKS]
        for options in runs:
            rates = tokens_per_second(kernels, corpus, stream, size, repeats, **options)
            rate = statistics.median(rates)
            moved = rate * bytes_a_token(size)
            row = {"size": size, **options, "tokens_per_s": round(rate), "moved_GB_per_s": round(moved / 1e9, 1)}
            rows.append(row)
            spread = (max(rates) - min(rates)) / rate
            print(f"{size:>4} {options['mode']:>11} {options.get('thread_blocks', 1):>6} {rate / 1e6:11.2f} {spread:7.1%} "
                  f"{moved / 1e9:8.1f} {moved / bandwidth:8.1%}", flush=True)  # fmt: skip
    return rows


def train_epochs(kernels: Any, corpus: Corpus, size: int, **options: Any) -> Any:
    """W_in on the host after EPOCHS epochs on the device, every word at rate 1 as in `simulate`."""
    w_in, w_out = (kernels.to_device(matrix) for matrix in initial_parameters(len(corpus.words), size, seed=1))
    noise = noise_of(kernels, corpus)
    for stream, start, stop, alpha_start, alpha_end, seed in slices(corpus, WINDOW, EPOCHS):
        update = Update("cbow", "word2vec", NEGATIVE, (alpha_start, alpha_end), seed)
        targets = Slice(stream.tokens_N, stream.left_N, stream.right_N, start, stop)
        result = kernels.train_slice(w_in, w_out, targets, noise, update, **options)
        if not np.isfinite(result.loss_sum):
            break
    return kernels.to_host(w_in)[:, :size]


def measure_quality(kernels: Any, corpus: Corpus, given: argparse.Namespace) -> list[dict[str, Any]]:
    size = SIZES[0]
    rows: list[dict[str, Any]] = []
    matrix, _ = simulate(corpus, size, WINDOW, NEGATIVE, EPOCHS, 0, False)
    rows.append({"backend": "numba", **scores(corpus, matrix, given.analogies, given.similarity)})
    print(json.dumps(rows[-1]), flush=True)
    for blocks in given.thread_blocks:
        matrix = train_epochs(kernels, corpus, size, thread_blocks=blocks)
        rows.append({"backend": "cupy", "thread_blocks": blocks, **scores(corpus, matrix, given.analogies, given.similarity)})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="plain text, a sentence a line")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--quality", action="store_true", help="train 5 epochs and score, on both backends")
    parser.add_argument("--analogies", type=Path)
    parser.add_argument("--similarity", type=Path, nargs="*", default=[])
    parser.add_argument("--thread-blocks", type=int, nargs="+", default=[4, 8, 16, 32], help="of the quality runs")
    given = parser.parse_args()
    if given.quality and not (given.analogies or given.similarity):
        parser.error("--quality needs --analogies or --similarity to score with")
    cupy = require_device()
    kernels = load_kernels("cupy")
    properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
    bandwidth = copy_bandwidth(cupy)
    corpus = Corpus.read(given.corpus)
    name = properties["name"].decode()
    print(f"{name}: {properties['multiProcessorCount']} multiprocessors, copy {bandwidth / 1e9:,.0f} GB/s; "
          f"{len(corpus.local_ids_M):,} tokens, {len(corpus.words):,} words")  # fmt: skip
    record: dict[str, Any] = {
        "device": name, "copy_GB_per_s": round(bandwidth / 1e9), "cupy": cupy.__version__,
        "cuda": cupy.cuda.runtime.runtimeGetVersion(), "tokens": len(corpus.local_ids_M), "words": len(corpus.words),
        "speed": measure_speed(kernels, corpus, bandwidth, given.repeats),
    }  # fmt: skip
    if given.quality:
        record["quality"] = measure_quality(kernels, corpus, given)
    print(json.dumps(record))


if __name__ == "__main__":
    main()
