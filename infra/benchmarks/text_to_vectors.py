"""Text to vectors: our whole command, alternating with a whole gensim program; wall time and processor seconds.

    python infra/benchmarks/text_to_vectors.py TEXT [--megabytes 12.5] [--runs 5] [--vector-size 100] [--lanes 2] [--alpha .05]

Ours is `w2v run` in a new workdir: imports, scan, vocabulary, shards, training, evaluation, exports, report and, with --tracked,
MLflow with its server process. The other is a Python process that imports gensim, scans the file with `corpus_file`, trains with
as many threads as there are cores, and saves. Kernels are compiled before the first run, as they are after set-up.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

LINE_WORDS = 10_000
"""MAX_SENTENCE_LEN in gensim's word2vec_corpusfile.pyx."""

GENSIM = """
import sys
from gensim.models import Word2Vec
text, out, size, epochs, alpha, threads = sys.argv[1:]
model = Word2Vec(vector_size=int(size), window=5, min_count=5, negative=5, sample=1e-4, sg=0, workers=int(threads),
                 alpha=float(alpha), min_alpha=float(alpha) / 10)
model.build_vocab(corpus_file=text)
model.train(corpus_file=text, total_words=model.corpus_total_words, total_examples=model.corpus_count, epochs=int(epochs))
model.wv.save_word2vec_format(out, binary=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--megabytes", type=float, help="only the beginning of the text")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--vector-size", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--lanes", type=int, default=2)
    parser.add_argument("--alpha", type=float, default=0.05)
    parser.add_argument("--tracked", action="store_true")
    parser.add_argument("--without-gensim", action="store_true")
    parser.add_argument("--processes", action="store_true", help="ours a second time, with Dask's processes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        text = cut(options.text, options.megabytes, place)
        sides = {"w2v": []} | ({"w2v, Dask": ["cluster.n_workers=2"]} if options.processes else {})
        rows: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
        digests = {run_ours(options, text, place / "warm", overrides)[2] for overrides in sides.values()}
        rows |= {} if options.without_gensim else {"gensim": []}
        for number in range(options.runs):
            for name, overrides in sides.items():
                *seconds, digest = run_ours(options, text, place / f"{name}-{number}", overrides)
                rows[name].append((seconds[0], seconds[1]))
                digests.add(digest)
            if "gensim" in rows:
                rows["gensim"].append(run_gensim(options, text, place))
        show(options, text, rows, digests)


def cut(text: Path, megabytes: float | None, place: Path) -> Path:
    """The text, or its first megabytes, in lines that gensim trains completely: it ignores all but 10,000 words of a line."""
    with open(text, "rb") as file:
        lines = file.read(-1 if megabytes is None else int(megabytes * 1e6)).split(b"\n")
    short = place / "text.txt"
    with open(short, "wb") as file:
        for line in lines:
            words = line.split()
            for first in range(0, len(words), LINE_WORDS):
                file.write(b" ".join(words[first : first + LINE_WORDS]) + b"\n")
    return short


def run_ours(options: argparse.Namespace, text: Path, workdir: Path, overrides: Sequence[str]) -> tuple[float, float, str]:
    """(wall seconds, seconds of processor of all processes, digest of the vectors)"""
    config = workdir.with_suffix(".yaml")
    config.write_text(json.dumps({
        "run": {"workdir": str(workdir)}, "corpus": {"inputs": [str(text)]},
        "tokenize": {"tokenizer": "whitespace", "lowercase": False, "normalize": None},
        "train": {"vector_size": options.vector_size, "epochs": options.epochs, "lanes": options.lanes, "alpha": options.alpha},
        "shards": {"sample": 1e-4}, "tracking": {"enabled": options.tracked},
    }))  # fmt: skip
    command = [str(Path(sys.executable).with_name("w2v")), "run", str(config), "--quiet", "--json", *overrides]
    wall, processor, out = timed(command)
    return wall, processor, json.loads(out)["vectors"]["sha256"]


def run_gensim(options: argparse.Namespace, text: Path, place: Path) -> tuple[float, float]:
    threads = len(os.sched_getaffinity(0))
    arguments = (text, place / "gensim.bin", options.vector_size, options.epochs, options.alpha, threads)
    return timed([sys.executable, "-c", GENSIM, *map(str, arguments)])[:2]


def timed(command: Sequence[str]) -> tuple[float, float, str]:
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    wall, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, out


def show(options: argparse.Namespace, text: Path, rows: dict[str, list[tuple[float, float]]], digests: set[str]) -> None:
    print(f"{text.stat().st_size:,} bytes, D={options.vector_size}, {options.epochs} epochs, {options.lanes} lanes, "
          f"{'tracked' if options.tracked else 'not tracked'}, {options.runs} runs in turn; medians")  # fmt: skip
    for name, found in rows.items():
        walls, processors = zip(*found, strict=True)
        print(f"  {name:<10} {statistics.median(walls):7.2f} s  (processor {statistics.median(processors):7.2f} s)  "
              f"walls {' '.join(f'{wall:.2f}' for wall in walls)}")  # fmt: skip
    if "gensim" in rows:
        for name in rows.keys() - {"gensim"}:
            ratios = [theirs[0] / ours[0] for ours, theirs in zip(rows[name], rows["gensim"], strict=True)]
            print(f"  gensim's wall time / {name}'s: {statistics.median(ratios):.2f}")
    print(f"  vectors: {'one digest' if len(digests) == 1 else f'{len(digests)} DIFFERENT digests'}")


if __name__ == "__main__":
    main()
