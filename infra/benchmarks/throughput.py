"""Training throughput of `w2v run` compared with gensim's corpus_file mode: same file, vocabulary, settings and threads.

    python infra/benchmarks/throughput.py --corpus FILE [--size 100|300] [--repeats 3]

The two alternate in one run, because shared machines drift; medians are reported. Ours is the whole training stage of
`w2v run`: reading shards, drawing later epochs, merging, checkpoints, writing the vectors. gensim's is
`Word2Vec.train` alone, after its vocabulary is built. Prints a table and, last, one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SETTINGS = {100: {"window": 5, "negative": 5}, 300: {"window": 10, "negative": 10}}
THREADS = 2
EPOCHS = 5
GENSIM_LINE_WORDS = 10_000
"""gensim trains at most this many words of a line (MAX_SENTENCE_LEN in word2vec_corpusfile.pyx) but counts all of them."""
W2V_RUN = [sys.executable, "-m", "pipeline.cli", "run", "--json", "--quiet"]

GENSIM = """
import json, sys, time, logging
from gensim.models import Word2Vec
corpus, size, window, negative, epochs, threads, alpha, save = json.loads(sys.argv[1])
started = time.perf_counter()
model = Word2Vec(vector_size=size, window=window, negative=negative, sample=1e-4, min_count=5, workers=threads, sg=0,
                 cbow_mean=1, alpha=alpha, min_alpha=5e-6, epochs=epochs)
model.build_vocab(corpus_file=corpus)
built = time.perf_counter()
model.train(corpus_file=corpus, total_words=model.corpus_total_words, total_examples=model.corpus_count, epochs=epochs)
trained = time.perf_counter()
if save:
    model.wv.save_word2vec_format(save, binary=True)
print(json.dumps({"tokens": model.corpus_total_words, "words": len(model.wv), "scan_seconds": built - started,
                  "train_seconds": trained - built}))
"""


def without_long_lines(corpus: Path, scratch: Path) -> Path:
    """The corpus itself, or a copy in which lines that gensim would not train completely are cut."""
    with corpus.open("rb") as lines:
        if all(line.count(b" ") < GENSIM_LINE_WORDS for line in lines):
            return corpus
    cut = scratch / "cut.txt"
    with corpus.open(encoding="utf-8") as lines, cut.open("w", encoding="utf-8") as out:
        for line in lines:
            words = line.split()
            for first in range(0, len(words), GENSIM_LINE_WORDS):
                out.write(" ".join(words[first : first + GENSIM_LINE_WORDS]) + "\n")
    print(f"{corpus.name}: lines of more than {GENSIM_LINE_WORDS:,} words are cut, for both; gensim would drop the rest of them")
    return cut


def ours(corpus: Path, size: int, scratch: Path, overrides: list[str]) -> dict[str, float]:
    """One `w2v run` from text to vectors in a new workdir."""
    config = scratch / "run.yaml"
    config.write_text(
        json.dumps({
            "corpus": {"inputs": [str(corpus)]},
            "tokenize": {"tokenizer": "whitespace", "lowercase": False, "normalize": None},
            "shards": {"window": SETTINGS[size]["window"], "sample": 1e-4},
            "train": {"vector_size": size, "negative": SETTINGS[size]["negative"], "epochs": EPOCHS, "lanes": THREADS},
            "publish": {"formats": []},
            "tracking": {"enabled": False},
            "cluster": {"n_workers": THREADS},
        })
    )  # fmt: skip
    with tempfile.TemporaryDirectory(dir=scratch) as workdir:
        started = time.perf_counter()
        done = subprocess.run(
            [*W2V_RUN, str(config), f"run.workdir={workdir}/run", *overrides], check=True, capture_output=True, text=True
        )
        summary = json.loads(done.stdout)
        return {
            "tokens": summary["corpus"]["tokens"],
            "words": summary["vocab"]["size"],
            "train_seconds": summary["train"]["seconds"],
            "merge_seconds": summary["train"]["merge_seconds"],
            "total_seconds": time.perf_counter() - started,
        }


def gensim(corpus: Path, size: int, alpha: float = 0.05, save: str = "") -> dict[str, float]:
    """One training with gensim in a separate process."""
    settings = SETTINGS[size]
    arguments = json.dumps([str(corpus), size, settings["window"], settings["negative"], EPOCHS, THREADS, alpha, save])
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", GENSIM, arguments], check=True, capture_output=True, text=True, env=environment)
    result: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True, help="plain text, a sentence a line")
    parser.add_argument("--size", type=int, choices=SETTINGS, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("overrides", nargs="*", help="section.key=value for our run")
    given = parser.parse_args()
    rows: dict[str, list[float]] = {"ours": [], "gensim": [], "ratio": [], "total": []}
    with tempfile.TemporaryDirectory() as scratch:
        corpus = without_long_lines(given.corpus, Path(scratch))
        print(
            f"D={given.size} {SETTINGS[given.size]} {THREADS} threads, {EPOCHS} epochs; raw tokens a second of the training stage"
        )
        print(f"{'repeat':>6} {'ours':>12} {'gensim':>12} {'ratio':>7} {'merging':>8} {'vocabulary':>22}")
        for repeat in range(given.repeats):
            mine = ours(corpus, given.size, Path(scratch), given.overrides)
            theirs = gensim(corpus, given.size)
            mine_rate, their_rate = (EPOCHS * found["tokens"] / found["train_seconds"] for found in (mine, theirs))
            rows["ours"].append(mine_rate)
            rows["gensim"].append(their_rate)
            rows["ratio"].append(mine_rate / their_rate)
            rows["total"].append((theirs["scan_seconds"] + theirs["train_seconds"]) / mine["total_seconds"])
            merging = mine["merge_seconds"] / mine["train_seconds"]
            words = f"{mine['words']:.0f} / {theirs['words']:.0f}"
            print(
                f"{repeat:>6} {mine_rate:12,.0f} {their_rate:12,.0f} {rows['ratio'][-1]:7.2f} {merging:8.1%} {words:>22}",
                flush=True,
            )
    medians = {name: statistics.median(values) for name, values in rows.items()}
    print(
        json.dumps({
            "ours_tokens_per_s": round(medians["ours"]),
            "gensim_tokens_per_s": round(medians["gensim"]),
            "ratio": round(medians["ratio"], 2),
            "text_to_vectors_ratio": round(medians["total"], 2),
            "size": given.size,
            "repeats": given.repeats,
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        })
    )  # fmt: skip


if __name__ == "__main__":
    main()
