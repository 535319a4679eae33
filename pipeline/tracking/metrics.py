"""Every metric this system logs, with its unit, in one place.

A name with a slash is a curve over kept tokens; a name with dots is one value of the run.
"""

from __future__ import annotations

import re

METRICS: dict[str, str] = {
    "train/loss": "mean loss per target over a stretch of training, nats",
    "train/alpha": "learning rate at the end of the stretch",
    "train/lane_spread": "standard deviation of the lanes' losses over the stretch, nats",
    "train/round_loss": "mean loss per target over the round, nats",
    "train/epoch_loss": "mean loss per target over the epoch, nats",
    "train/tokens_per_s": "raw tokens trained per second, all lanes, over the round so far",
    "train/merge_seconds": "seconds spent merging so far, without other work done while waiting for it",
    "train/merged_bytes": "bytes moved by merging so far",
    "system/worker */cpu_percent": "processor time of a worker's process, percent of one core",
    "system/worker */memory_bytes": "resident memory of a worker's process",
    "system/worker */tokens_per_s": "kept tokens per second of a worker's lanes",
    "system/worker */waiting_share": "share of the round in which a worker merged or waited for others, 0 to 1",
    "system/worker */gpu_memory_bytes": "memory in use on a worker's GPU",
    "train.final_loss": "mean loss per target over the last epoch, nats",
    "train.raw_tokens_per_s": "raw tokens per second over the whole training stage",
    "stage.*_seconds": "seconds of a stage; about 0 if its artefact was reused",
    "memory.*": "upper bounds in bytes from the memory plan of training: of a worker, shared on a host, of the driver, on disk",
    "eval.*": "scores and coverages of the evaluation, fractions from 0 to 1, correlations from -1 to 1",
}
"""Every metric this system logs and its unit; a `*` stands for a name from the run."""


_ALLOWED = "A-Za-z0-9_\\-. :/"
"""Characters that MLflow allows in a metric's name."""
_LONGEST_NAME = 250


def allowed_name(name: str) -> str:
    """`name` with every character that MLflow does not allow replaced by `_`: names of question sets come from file names."""
    return re.sub(f"[^{_ALLOWED}]", "_", name)[:_LONGEST_NAME]


def is_known_metric(name: str) -> bool:
    """Whether it is a name of METRICS that MLflow accepts."""
    if not re.fullmatch(f"[{_ALLOWED}]{{1,{_LONGEST_NAME}}}", name):
        return False
    if name in METRICS:
        return True
    patterns = (key.partition("*") for key in METRICS if "*" in key)
    return any(name.startswith(head) and name.endswith(tail) and len(name) > len(head) + len(tail) for head, _, tail in patterns)
