"""Names of settings in gensim, fastText and word2vec.c with their names here, to suggest for unknown keys."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

SKIPGRAM = "train.model=skipgram (cbow is the default)"
NO_SUBWORDS = "nothing here: words have no subword vectors"
LANES = (
    "train.lanes (trained side by side, on as many cores; part of the result) or cluster.n_workers (processes; not part of it)"
)

OTHER_NAMES = {
    # gensim
    "sentences": "corpus.inputs", "corpus_file": "corpus.inputs", "corpus_iterable": "corpus.inputs",
    "size": "train.vector_size", "iter": "train.epochs",
    "sg": SKIPGRAM, "hs": "nothing here: training is by negative sampling only (train.negative)",
    "cbow_mean": "nothing here: cbow takes the mean; its step is train.gradient", "max_vocab_size": "vocab.max_size",
    "max_final_vocab": "vocab.max_size", "workers": LANES, "batch_words": "nothing here: batches decide no result",
    "trim_rule": "vocab.min_count and vocab.max_size", "compute_loss": "nothing here: the loss is always computed",
    "hashfxn": "nothing here: initial vectors come from run.seed", "sorted_vocab": "nothing here: words are sorted by count",
    "random_state": "run.seed", "null_word": "nothing here",
    # fastText
    "input": "corpus.inputs", "output": "publish.formats, or `w2v export`", "dim": "train.vector_size", "ws": "shards.window",
    "epoch": "train.epochs", "lr": "train.alpha", "neg": "train.negative", "t": "shards.sample", "minCount": "vocab.min_count",
    "thread": LANES, "loss": "nothing here: training is by negative sampling only (train.negative)", "minn": NO_SUBWORDS,
    "maxn": NO_SUBWORDS, "bucket": NO_SUBWORDS, "wordNgrams": NO_SUBWORDS, "pretrainedVectors": "train.start_from",
    "verbose": "nothing here: progress is shown on a terminal unless it is switched off",
    "skipgram": SKIPGRAM, "cbow": "train.model=cbow (the default)",
    # word2vec.c
    "threads": LANES, "min-count": "vocab.min_count", "read-vocab": "vocab.min_count and vocab.max_size",
    "binary": "publish.formats: word2vec-bin or word2vec-text", "classes": "nothing here",
    # others
    "dimensions": "train.vector_size", "learning_rate": "train.alpha", "subsample": "shards.sample",
    "negative_samples": "train.negative", "num_workers": LANES, "n_jobs": LANES,
}  # fmt: skip


def suggest(key: str, known: Sequence[str]) -> str | None:
    """What an unknown key probably meant: the same name in another section, another program's name for it, or the nearest known
    key; None if nothing is near. `known` holds every `section` and `section.key`."""
    name = key.rpartition(".")[2]
    elsewhere = [found for found in known if found.rpartition(".")[2] == name.replace("-", "_") and "." in found]
    if elsewhere:
        return " or ".join(elsewhere)
    if name in OTHER_NAMES:
        return OTHER_NAMES[name]
    alike = {found: found for found in known if ("." in found) == ("." in key)}
    if "." not in key:
        # A section, or a setting without its section.
        alike = {found.rpartition(".")[2]: found for found in reversed(known)} | alike
    near = difflib.get_close_matches(key, alike, n=1, cutoff=0.5)
    return alike[near[0]] if near else None


def hint(near: str) -> str:
    """What `suggest` has found, as the end of a message."""
    if near.startswith("nothing here"):
        return near.replace("nothing here", "there is no such setting here", 1)
    return f"here it is {near}" if " " in near else f"did you mean {near}?"
