"""Every metric this system logs, with its unit, in one place.

A name with a slash is a curve over kept tokens; a name with dots is one value of the run.
"""

from __future__ import annotations

import re

METRICS: dict[str, str] = {
    "train/loss": "mean loss a target over a stretch of training, nats",
    "train/alpha": "learning rate at the end of the stretch",
    "train/lane_spread": "standard deviation of the lanes' losses over the stretch, nats",
    "train/round_loss": "mean loss a target over the round, nats",
    "train/epoch_loss": "mean loss a target over the epoch, nats",
    "train/tokens_per_s": "raw tokens trained a second, all lanes, over the round so far",
    "train/merge_seconds": "seconds spent merging so far, other work done while waiting for it left out",
    "train/merged_bytes": "bytes that merging moved so far",
    "system/worker */cpu_percent": "processor time of a worker's process, per cent of one core",
    "system/worker */memory_bytes": "resident memory of a worker's process",
    "system/worker */tokens_per_s": "kept tokens a second of a worker's lanes",
    "system/worker */waiting_share": "share of the round that a worker merged and waited for others, 0 to 1",
    "system/worker */gpu_memory_bytes": "memory in use on a worker's GPU",
    "train.final_loss": "mean loss a target over the last epoch, nats",
    "train.raw_tokens_per_s": "raw tokens a second over the whole training stage",
    "stage.*_seconds": "seconds of a stage; about 0 where its artefact was reused",
    "memory.*": "bytes that training was planned to hold at most: of a worker, shared on a host, in the driver, on disk",
    "eval.*": "scores and coverages of the evaluation, fractions from 0 to 1, correlations from -1 to 1",
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
