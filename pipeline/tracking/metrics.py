"""Every metric this system logs, with its unit, in one place."""

from __future__ import annotations

import re

METRICS: dict[str, str] = {
    "train/loss": "mean loss a target over a stretch of training, nats; the step is kept tokens so far",
    "train/round_loss": "mean loss a target over the round, nats; the step is the round",
    "train/epoch_loss": "mean loss a target over the epoch, nats; the step is the epoch, from 1",
    "train/final_loss": "mean loss a target over the last epoch, nats",
    "train/alpha": "learning rate at the end of the round",
    "train/epoch": "epochs done, a fraction",
    "train/tokens_per_s": "raw tokens trained a second, all lanes",
    "train/raw_tokens_per_s": "raw tokens a second over the whole training stage",
    "train/raw_tokens": "raw tokens trained so far",
    "train/kept_tokens": "tokens kept by subsampling and trained, all lanes",
    "train/merged_bytes": "bytes that merging moved",
    "train/merge_seconds": "seconds spent merging, other work done while waiting for it left out",
    "stage/*_seconds": "seconds of a stage; about 0 where its artefact was reused",
    "stage/*_tokens": "tokens a stage read",
    "vocab/size": "words in the vocabulary",
    "corpus/tokens": "raw tokens of the corpus",
    "corpus/sentences": "sentences of the corpus",
    "memory/*": "bytes that training was planned to hold at most: of a worker, shared on a host, in the driver, on disk",
    "eval/*": "scores and coverages of the evaluation, fractions from 0 to 1, correlations from -1 to 1",
    "lane/*": "curves of one lane, as lane/<lane>/<name>",
}
"""Every metric this system logs and its unit; a `*` stands for a name from the run."""


_ALLOWED = "A-Za-z0-9_\\-. :/"
"""What MLflow takes in a metric's name."""
_LONGEST_NAME = 250


def allowed_name(name: str) -> str:
    """`name` with what MLflow does not allow in a metric's name replaced by `_`: the names of sets come from file names."""
    return re.sub(f"[^{_ALLOWED}]", "_", name)[:_LONGEST_NAME]


def is_known_metric(name: str) -> bool:
    """True for a name of the table that MLflow takes."""
    if not re.fullmatch(f"[{_ALLOWED}]{{1,{_LONGEST_NAME}}}", name):
        return False
    if name in METRICS:
        return True
    patterns = (key.partition("*") for key in METRICS if "*" in key)
    return any(name.startswith(head) and name.endswith(tail) and len(name) > len(head) + len(tail) for head, _, tail in patterns)
