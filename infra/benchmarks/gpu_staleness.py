"""What training many blocks side by side costs in quality: the GPU kernel's concurrency, simulated on a CPU.

    python infra/benchmarks/gpu_staleness.py --corpus FILE --analogies FILE --similarity FILE [--in-flight 1 4 8 16]

With n thread blocks in flight, n new blocks of 128 targets start during the life of a block. A block reads W_in when it starts
and adds to it when it ends, so it misses the updates of n blocks; its 16 groups read W_out together and write it some time
later, in the middle of the block (`OUTPUT_READ`, `OUTPUT_WRITTEN`: fractions of a block's life, estimated, not measured). The
simulation follows that order of events exactly. `0` is the CPU kernel itself, at the same settings.
Prints a line for each run and, last, one JSON line.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

from w2v_core.kernels import Noise, Slice, Update, initial_parameters, load_kernels
from w2v_core.kernels.cpu.window_kernels import draw_stream, word_draws
from w2v_core.reference import BLOCK, GROUPS
from w2v_core.sampler import noise_table, stream_seed
from w2v_core.vectors import WordVectors
from w2v_core.vectors.evaluation import evaluate_analogies, evaluate_similarity, read_analogies, read_similarity
from w2v_core.windows import Stream, keep_probability, keep_thresholds

MIN_COUNT, SAMPLE, NS_EXPONENT = 5, 1e-4, 0.75
SLICE = 1 << 20
"""Targets of one call of the kernel."""
ALPHA, MIN_ALPHA = 0.05, 5e-6
OUTPUT_READ, OUTPUT_WRITTEN = 0.35, 0.85
_FAST = {"reassoc", "contract", "nsz"}


@dataclass(frozen=True)
class Corpus:
    """A text as word ids, words in descending order of count; −1 for words below MIN_COUNT."""

    words: list[str]
    counts_V: Any
    local_ids_M: Any
    sentence_ends_S: Any
    global_ids: Any

    @staticmethod
    def read(path: Path) -> Corpus:
        """The words between white space; each line is a sentence."""
        import pyarrow as pa
        import pyarrow.compute as pc

        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
        ends = np.cumsum([len(line) for line in lines], dtype=np.int64)
        encoded = pa.array([word for line in lines for word in line]).dictionary_encode()
        local_ids_M = encoded.indices.to_numpy()
        found = np.bincount(local_ids_M)
        order = np.argsort(-found, kind="stable")
        order = order[found[order] >= MIN_COUNT]
        global_ids = np.full(len(found), -1, np.int32)
        global_ids[order] = np.arange(len(order), dtype=np.int32)
        words: list[str] = pc.take(encoded.dictionary, pa.array(order)).to_pylist()
        return Corpus(words, found[order].astype(np.int64), local_ids_M, ends, global_ids)

    def epoch(self, window: int, seed: int, epoch: int) -> Stream:
        thresholds_V = keep_thresholds(keep_probability(self.counts_V, SAMPLE))
        words = word_draws(self.global_ids, thresholds_V)
        return draw_stream(self.local_ids_M, self.sentence_ends_S, words, window, True, seed, epoch)


def slices(corpus: Corpus, window: int, epochs: int) -> Iterator[tuple[Stream, int, int, float, float, int]]:
    """(stream, start, stop, α at start, α at stop, seed) of every slice of every epoch; α falls linearly over all."""
    for epoch in range(epochs):
        stream = corpus.epoch(window, stream_seed(1), epoch)
        cuts = [*range(0, len(stream), SLICE), len(stream)]
        for start, stop in itertools.pairwise(cuts):
            done, until = ((epoch + cut / len(stream)) / epochs for cut in (start, stop))
            alphas = (ALPHA + (MIN_ALPHA - ALPHA) * share for share in (done, until))
            yield stream, start, stop, *alphas, stream_seed(2, epoch, start)


@njit(cache=True)
def _block_of(step: int, blocks: int, in_flight: int, segments: bool) -> int:
    """The block started at `step`, −1 for none: in stream order, or each thread block in a run of its own."""
    if not segments:
        return step if 0 <= step < blocks else -1
    share = (blocks + in_flight - 1) // in_flight
    block = step % in_flight * share + step // in_flight
    return block if 0 <= step < share * in_flight and block < blocks else -1


@njit(cache=True, fastmath=_FAST)
def _add(row: Any, scale: Any, other: Any) -> None:
    for d in range(row.shape[0]):
        row[d] += scale * other[d]


@njit(cache=True, fastmath=_FAST)
def _dot(row: Any, other: Any) -> Any:
    total = np.float32(0)
    for d in range(row.shape[0]):
        total += row[d] * other[d]
    return total


@njit(cache=True)
def _read_input(w_in: Any, tokens: Any, left: Any, right: Any, first: int, last: int, hidden: Any) -> None:
    for i in range(first, last):
        width = np.int64(left[i]) + np.int64(right[i])
        hidden[i - first] = 0
        for position in range(i - np.int64(left[i]), i + np.int64(right[i]) + 1):
            if position != i:
                _add(hidden[i - first], np.float32(1) / np.float32(width), w_in[tokens[position]])


@njit(cache=True)
def _read_output(w_out: Any, words: Any, trained: Any, draws: Any, alpha: Any, hidden: Any, step: Any, coefficient: Any) -> float:
    loss = 0.0
    step[:] = 0
    coefficient[:] = 0
    for n in range(words.shape[0]):
        for k in range(draws.shape[1] + 1 if trained[n] else 0):
            word = words[n] if k == 0 else draws[n % GROUPS, k - 1]
            if k > 0 and word == words[n]:
                continue
            x = _dot(hidden[n], w_out[word])
            signed = np.float64(-x if k == 0 else x)
            loss += max(signed, 0.0) + np.log1p(np.exp(-abs(signed)))
            error = np.float32(1) / (np.float32(1) + np.exp(-x)) - np.float32(k == 0)
            coefficient[n, k] = -alpha * error
            _add(step[n], coefficient[n, k], w_out[word])
    return loss


@njit(cache=True)
def _write_output(w_out: Any, words: Any, draws: Any, hidden: Any, coefficient: Any) -> None:
    for n in range(words.shape[0]):
        for k in range(draws.shape[1] + 1):
            _add(w_out[words[n] if k == 0 else draws[n % GROUPS, k - 1]], coefficient[n, k], hidden[n])


@njit(cache=True)
def _write_input(w_in: Any, tokens: Any, left: Any, right: Any, first: int, last: int, step: Any) -> None:
    for i in range(first, last):
        for position in range(i - np.int64(left[i]), i + np.int64(right[i]) + 1):
            if position != i:
                _add(w_in[tokens[position]], np.float32(1), step[i - first])


@njit(cache=True)
def train_side_by_side(
    w_in: Any, w_out: Any, tokens: Any, left: Any, right: Any, start: int, stop: int, draws: Any,
    alpha_start: float, alpha_end: float, in_flight: int, segments: bool,
) -> float:  # fmt: skip
    """The mean loss; `draws` (groups, K) are the noise words. With `segments`, each thread block has its own run of blocks."""
    negative, size = draws.shape[1], w_in.shape[1]
    blocks = (stop - start + BLOCK - 1) // BLOCK
    places = in_flight + 2
    hidden = np.empty((places, BLOCK, size), np.float32)
    step = np.empty((places, BLOCK, size), np.float32)
    coefficient = np.zeros((places, BLOCK, negative + 1), np.float32)
    read_after = int(OUTPUT_READ * in_flight)
    written_after = max(int(OUTPUT_WRITTEN * in_flight), read_after + 1)
    ages = (max(in_flight, written_after), written_after, 0, read_after)
    loss, examples = 0.0, 0
    for now in range(blocks + 2 * in_flight + 2):
        # What ends at this moment comes before what starts.
        for event in range(4):
            begun = now - ages[event]
            block = _block_of(begun, blocks, in_flight, segments)
            if block < 0:
                continue
            place = begun % places
            first = start + block * BLOCK
            last = min(first + BLOCK, stop)
            words, noise = tokens[first:last], draws[block * GROUPS : (block + 1) * GROUPS]
            if event == 0:
                _write_input(w_in, tokens, left, right, first, last, step[place])
            elif event == 1:
                _write_output(w_out, words, noise, hidden[place], coefficient[place])
            elif event == 2:
                _read_input(w_in, tokens, left, right, first, last, hidden[place])
            else:
                alpha = np.float32(alpha_start + (alpha_end - alpha_start) * ((first - start) / (stop - start)))
                trained = (left[first:last] > 0) | (right[first:last] > 0)
                loss += _read_output(w_out, words, trained, noise, alpha, hidden[place], step[place], coefficient[place])
                examples += np.count_nonzero(trained)
    return loss / max(examples, 1)


def simulate(
    corpus: Corpus, size: int, window: int, negative: int, epochs: int, in_flight: int, segments: bool
) -> tuple[Any, float]:
    """(W_in, mean loss of the last slice) with this many blocks in flight (0: the CPU kernel), every word at rate 1."""
    w_in_VD, w_out_VD = initial_parameters(len(corpus.words), size, seed=1)
    table = noise_table(corpus.counts_V, NS_EXPONENT)
    noise = Noise(table, np.ones(len(corpus.words), np.float32))
    kernels = load_kernels("numba")
    loss = float("nan")
    for stream, start, stop, alpha_start, alpha_end, seed in slices(corpus, window, epochs):
        if in_flight == 0:
            targets = Slice(stream.tokens_N, stream.left_N, stream.right_N, start, stop)
            update = Update("cbow", "word2vec", negative, (alpha_start, alpha_end), seed)
            result = kernels.train_slice(w_in_VD, w_out_VD, targets, noise, update)
            loss = result.loss_sum / max(result.examples, 1)
            continue
        groups = -(-(stop - start) // BLOCK) * GROUPS
        draws = table[np.random.default_rng(seed).integers(0, len(table), (groups, negative))]
        loss = train_side_by_side(
            w_in_VD, w_out_VD, stream.tokens_N, stream.left_N, stream.right_N, start, stop, draws,
            alpha_start, alpha_end, in_flight, segments,
        )  # fmt: skip
    return w_in_VD[:, :size], loss


def scores(corpus: Corpus, matrix: Any, analogies: Path | None, similarity: list[Path]) -> dict[str, float | None]:
    """Analogy accuracy and rank correlations; None if training made vectors infinite or NaN."""
    if not np.isfinite(matrix).all():
        return {"finite": 0.0}
    vectors = WordVectors(tuple(corpus.words), np.ascontiguousarray(matrix), corpus.counts_V)
    found: dict[str, float | None] = {}
    if analogies:
        found["analogy"] = evaluate_analogies(vectors, read_analogies(analogies)).total.accuracy
    for path in similarity:
        found[path.stem] = evaluate_similarity(vectors, read_similarity(path)).spearman
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="plain text, a sentence a line")
    parser.add_argument("--analogies", type=Path)
    parser.add_argument("--similarity", type=Path, nargs="*", default=[])
    parser.add_argument("--in-flight", type=int, nargs="+", default=[0, 1, 4, 8, 16], help="0 = the CPU kernel")
    parser.add_argument("--segments", action="store_true", help="each thread block walks its own run of the slice")
    parser.add_argument("--size", type=int, default=100)
    parser.add_argument("--window", type=int, default=5)
    parser.add_argument("--negative", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=5)
    given = parser.parse_args()
    corpus = Corpus.read(given.corpus)
    print(f"{len(corpus.local_ids_M):,} tokens, {len(corpus.words):,} words; D={given.size} w={given.window} K={given.negative}")
    rows = []
    for in_flight in given.in_flight:
        started = time.perf_counter()
        matrix, loss = simulate(corpus, given.size, given.window, given.negative, given.epochs, in_flight, given.segments)
        row: dict[str, Any] = {"in_flight": in_flight, "segments": given.segments, "loss": round(loss, 4)}
        for name, value in scores(corpus, matrix, given.analogies, given.similarity).items():
            row[name] = None if value is None else round(value, 4)
        rows.append(row)
        print(json.dumps(row), f"{time.perf_counter() - started:.0f} s", flush=True)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
