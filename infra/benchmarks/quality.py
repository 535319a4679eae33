"""Quality of `w2v run` compared with gensim at the better α of {.025, .05}: analogies, WS-353, SimLex, several seeds.

    python infra/benchmarks/quality.py --corpus FILE --eval DIR [--size 100|300] [--seeds 3] [--lanes 2]

Both train the same file with the same vocabulary, settings and epochs, and both are scored by the same code
(`w2v_core.vectors.evaluation`, analogies restricted to the 30,000 most frequent words). Prints a row for each run, then medians
and spreads and, last, one JSON line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from throughput import GENSIM, SETTINGS, THREADS, without_long_lines

from w2v_core.vectors import WordVectors, evaluation

EPOCHS = 5
SIMILARITY = {"ws353": "wordsim353.tsv", "simlex": "simlex999.txt"}


def score(vectors: WordVectors, questions: Path) -> dict[str, float]:
    """The three scores of one set of vectors."""
    analogies = evaluation.evaluate_analogies(vectors, evaluation.read_analogies(questions / "questions-words.txt"))
    scores = {"analogy": float(analogies.to_dict()["analogy"])}
    for name, file in SIMILARITY.items():
        scores[name] = float(
            evaluation.evaluate_similarity(vectors, evaluation.read_similarity(questions / file)).to_dict()["spearman"]
        )
    return scores


def train_ours(corpus: Path, size: int, seed: int, lanes: int, alpha: float, workdir: Path) -> WordVectors:
    """The vectors of one run; seeds share the stages before training as far as these do not depend on the seed."""
    settings = SETTINGS[size]
    config = workdir / "run.yaml"
    config.write_text(
        json.dumps({
            "run": {"workdir": str(workdir / "run"), "seed": seed},
            "corpus": {"inputs": [str(corpus)]},
            "tokenize": {"tokenizer": "whitespace", "lowercase": False, "normalize": None},
            "shards": {"window": settings["window"], "sample": 1e-4},
            "train": {"vector_size": size, "negative": settings["negative"], "epochs": EPOCHS, "lanes": lanes, "alpha": alpha},
            "publish": {"formats": []},
            "tracking": {"enabled": False},
        })
    )  # fmt: skip
    command = [sys.executable, "-m", "pipeline.cli", "train", str(config), "--json", "--quiet"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return WordVectors.load(json.loads(done.stdout)["vectors"]["path"])


def train_gensim(corpus: Path, size: int, seed: int, alpha: float, workdir: Path) -> WordVectors:
    settings = SETTINGS[size]
    path = workdir / "gensim.bin"
    arguments = [str(corpus), size, settings["window"], settings["negative"], EPOCHS, THREADS, alpha, str(path)]
    code = GENSIM.replace("epochs=epochs)\nmodel.build_vocab", f"epochs=epochs, seed={seed})\nmodel.build_vocab")
    subprocess.run([sys.executable, "-c", code, json.dumps(arguments)], check=True, capture_output=True, text=True)
    return WordVectors.load(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--eval", type=Path, required=True, help="folder with questions-words.txt, wordsim353.tsv, simlex999.txt")
    parser.add_argument("--size", type=int, choices=SETTINGS, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lanes", type=int, default=THREADS)
    parser.add_argument("--alpha", type=float, default=0.05, help="ours")
    given = parser.parse_args()
    found: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        corpus = without_long_lines(given.corpus, place)
        for seed in range(1, given.seeds + 1):
            runs = {"ours": lambda seed=seed: train_ours(corpus, given.size, seed, given.lanes, given.alpha, place)}
            for alpha in (0.025, 0.05):
                runs[f"gensim α={alpha}"] = lambda seed=seed, alpha=alpha: train_gensim(corpus, given.size, seed, alpha, place)
            for name, train in runs.items():
                scores = score(train(), given.eval)
                print(f"seed {seed}  {name:<14} " + "  ".join(f"{key} {value:.4f}" for key, value in scores.items()), flush=True)
                for key, value in scores.items():
                    found.setdefault(name, {}).setdefault(key, []).append(value)
    result: dict[str, object] = {"size": given.size, "seeds": given.seeds, "lanes": given.lanes}
    for key in ("analogy", *SIMILARITY):
        medians = {name: statistics.median(values[key]) for name, values in found.items()}
        best = max(value for name, value in medians.items() if name != "ours")
        spread = max(found["ours"][key]) - min(found["ours"][key])
        ratio = medians["ours"] / best
        means = {name: statistics.fmean(values[key]) for name, values in found.items()}
        ratio_of_means = means["ours"] / max(value for name, value in means.items() if name != "ours")
        print(
            f"{key:<8} medians: ours {medians['ours']:.4f} (spread {spread:.4f})  gensim's best {best:.4f}  ratio {ratio:.3f}  "
            f"of means {ratio_of_means:.3f}"
        )
        result[key] = {
            "ours": medians["ours"],
            "gensim": best,
            "ratio": round(ratio, 4),
            "ratio_of_means": round(ratio_of_means, 4),
            "spread": round(spread, 4),
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
