"""The loss curve of the textbook's PTB run, and milliseconds per iteration compared with a naive dense twin.

    python infra/benchmarks/book_curve.py --corpus ptb.train.txt

The corpus is text in PTB form: one sentence per line, tokens between blanks, rare words already `<unk>`; `<eos>` is
appended to every line. Settings (configs/ptb_book.yaml): CBOW, window 5 (full windows only), vector size 100, batch 100,
Adam 0.001, 5 noise words, no subsampling, float32. Prints the time of both, then the mean loss of the last 1,000 iterations
(or of all so far) at the iterations below and at the end of every epoch, beside the textbook run's value on PTB (to be
compared only if the corpus is PTB), then one JSON line.

The twin is the same model on the same batches and the same noise words, with the same arithmetic, written the naive way.
The two are timed in alternating blocks and compared by the median of the blocks' ratios.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from w2v_core.textbook.contexts import Batch, create_contexts_target, matrix_batches
from w2v_core.textbook.models import CBOW
from w2v_core.textbook.optimizers import RowAdam
from w2v_core.textbook.trainer import Purpose, generator_for
from w2v_core.textbook.unigram import UnigramSampler

WINDOW, VECTOR_SIZE, BATCH, NEGATIVE, RATE = 5, 100, 100, 5, 0.001
TEXTBOOK_PTB = {1: 4.16, 2000: 2.52, 5000: 2.38, 8000: 2.27, 9295: 2.22, 10300: 2.16, 15300: 2.07, 26000: 1.83, 42000: 1.6}


class NaiveTwin:
    """The same CBOW with whole-matrix gradients, np.add.at and dense Adam over both V×D matrices. Slow on purpose."""

    def __init__(self, vocab_size: int, sampler: UnigramSampler, generator: np.random.Generator) -> None:
        model = CBOW(vocab_size, VECTOR_SIZE, sampler, generator=generator)
        self.sampler, self.params = sampler, model.params
        self.m = [np.zeros_like(param) for param in self.params]
        self.v = [np.zeros_like(param) for param in self.params]
        self.step = 0

    def train(self, contexts: Any, target: Any) -> float:
        w_in, w_out = self.params
        words = np.concatenate([target[:, None], self.sampler.get_negative_sample(target)], axis=1)
        labels = np.zeros(words.shape, dtype=np.float32)
        labels[:, 0] = 1
        h = w_in[contexts].mean(axis=1)
        rows = w_out[words]
        scores = (rows * h[:, None, :]).sum(axis=2)
        y = 1 / (1 + np.exp(-scores))
        loss = -np.log(np.where(labels == 1, y, 1 - y)).sum(axis=1).mean(dtype=np.float64)
        e = (y - labels) / len(target)
        d_out = np.zeros_like(w_out)
        np.add.at(d_out, words, e[:, :, None] * h[:, None, :])
        d_in = np.zeros_like(w_in)
        dh = (e[:, :, None] * rows).sum(axis=1)
        for place in range(contexts.shape[1]):
            np.add.at(d_in, contexts[:, place], dh / contexts.shape[1])
        self.step += 1
        rate = RATE * np.sqrt(1 - 0.999**self.step) / (1 - 0.9**self.step)
        for param, grad, m, v in zip(self.params, [d_in, d_out], self.m, self.v, strict=True):
            m += np.float32(0.1) * (grad - m)
            v += np.float32(0.001) * (grad**2 - v)
            param -= np.float32(rate) * m / (np.sqrt(v) + np.float32(1e-7))
        return float(loss)


class Ours:
    """The layered engine, one call per batch."""

    def __init__(self, vocab_size: int, sampler: UnigramSampler, generator: np.random.Generator) -> None:
        self.model = CBOW(vocab_size, VECTOR_SIZE, sampler, generator=generator)
        self.optimizer = RowAdam(self.model.embeddings, RATE)

    def train(self, contexts: Any, target: Any) -> float:
        loss = self.model.forward(contexts, target)
        self.model.backward()
        self.optimizer.update(self.model.params, self.model.grads)
        return loss


def read_ids(path: Path) -> np.ndarray:
    """Word ids in text order, numbered by first occurrence; `<eos>` ends every line."""
    ids: dict[str, int] = {}
    with path.open(encoding="utf-8") as lines:
        return np.array([ids.setdefault(w, len(ids)) for line in lines for w in [*line.split(), "<eos>"]], dtype=np.int32)


def batch_stream(contexts: Any, target: Any, seed: int) -> Iterator[Batch]:
    epoch = 0
    while True:
        yield from matrix_batches(contexts, target, BATCH, generator_for(seed, epoch, Purpose.ORDER))
        epoch += 1


def build(kind: Any, counts: Any, seed: int) -> Any:
    sampler = UnigramSampler(counts, 0.75, NEGATIVE, generator=generator_for(seed, 0, Purpose.NOISE))
    return kind(len(counts), sampler, generator_for(seed, 0, Purpose.PARAMETERS))


def loss_curve(engine: Any, batches: Iterator[Batch], iterations: int, epoch: int) -> dict[int, float]:
    """The mean loss of the last 1,000 iterations, at each textbook point and at the end of each epoch of `epoch` iterations."""
    losses: list[float] = []
    started_s = time.perf_counter()
    curve = {}
    for iteration in range(1, iterations + 1):
        losses.append(engine.train(*next(batches)))
        if iteration in TEXTBOOK_PTB or iteration == iterations or iteration % epoch == 0:
            curve[iteration] = float(np.mean(losses[-1000:]))
            textbook = TEXTBOOK_PTB.get(iteration)
            elapsed_s = time.perf_counter() - started_s
            end = f"  end of epoch {iteration // epoch}" if iteration % epoch == 0 else ""
            print(f"{iteration:9,d}  {curve[iteration]:.4f}  {textbook or '':>8}  {elapsed_s:8.1f} s{end}", flush=True)
    return curve


def race(ours: Any, naive: Any, batches: Iterator[Batch], blocks: int, block: int) -> dict[str, float]:
    """Median ms per iteration of both, median of the blocks' ratios, and the largest difference of their losses."""
    ours_ms, naive_ms, apart = [], [], 0.0
    for number in range(blocks + 1):
        batch_list = [next(batches) for _ in range(block)]
        times, losses = {}, {}
        for name, engine in (("ours", ours), ("naive", naive)) if number % 2 else (("naive", naive), ("ours", ours)):
            started_s = time.perf_counter()
            losses[name] = [engine.train(*batch) for batch in batch_list]
            times[name] = (time.perf_counter() - started_s) / block * 1e3
        apart = max(apart, float(np.max(np.abs(np.subtract(losses["ours"], losses["naive"])))))
        if number:  # the first block loads or compiles the row kernels
            ours_ms.append(times["ours"])
            naive_ms.append(times["naive"])
    ratios = [slow / fast for slow, fast in zip(naive_ms, ours_ms, strict=True)]
    return {
        "ours_ms": statistics.median(ours_ms),
        "naive_ms": statistics.median(naive_ms),
        "ratio": statistics.median(ratios),
        "losses_apart": apart,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--iterations", type=int, default=42_000, help="length of the curve; 0: timing only")
    parser.add_argument("--blocks", type=int, default=9, help="timed blocks of each engine")
    parser.add_argument("--block", type=int, default=40, help="iterations a block")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()

    corpus = read_ids(arguments.corpus)
    contexts, target = create_contexts_target(corpus, WINDOW)
    counts = np.bincount(corpus)
    unknown = Counter(corpus.tolist()).most_common(1)[0][1] / len(corpus)
    print(f"{len(corpus):,} tokens, {len(counts):,} words (most frequent {unknown:.1%}), {len(target):,} examples")

    timing = race(
        build(Ours, counts, arguments.seed),
        build(NaiveTwin, counts, arguments.seed),
        batch_stream(contexts, target, arguments.seed),
        arguments.blocks,
        arguments.block,
    )
    print(
        f"ours {timing['ours_ms']:.2f} ms, naive {timing['naive_ms']:.2f} ms an iteration: {timing['ratio']:.1f} times less; "
        f"losses of the same batches at most {timing['losses_apart']:.1e} apart"
    )
    print("iteration    loss  textbook on PTB")
    stream = batch_stream(contexts, target, arguments.seed)
    curve = loss_curve(build(Ours, counts, arguments.seed), stream, arguments.iterations, -(-len(target) // BATCH))
    print(json.dumps({"tokens": len(corpus), "words": len(counts), "numpy": np.__version__, **timing, "curve": curve}))


if __name__ == "__main__":
    main()
