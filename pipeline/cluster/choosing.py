"""Whether the work of `cluster.kind: local` runs in threads of this process or in Dask's processes.

Kernels and compiled tokenizers release the interpreter lock, so threads are as fast as processes and start at once, while Dask
with two workers takes 2 to 4 s, and as much processor time (infra/benchmarks/records/text-to-vectors-2026-11-29.md). Processes
pay off if text goes through Python code, which only they can run on several cores, and if a run is long, because a lost process
is replaced and the run goes on. The bits are the same.
"""

from __future__ import annotations

from pipeline.config import RunConfig

START_S = 3.0
"""Start-up time of Dask's processes."""
LONG_S = 120.0
"""Seconds on one core from which on the start-up time does not matter."""
COMPILED_TOKENIZERS = frozenset({"simple", "whitespace", "regex"})
PYDOCS_BYTES_A_S = 35e6
"""Speed of finding the docstrings of Python files, bytes per second."""
PYTHON_BYTES_A_S = 1e6
"""Rough speed of a tokenizer written in Python, bytes of text per second."""
BYTES_A_TOKEN = 6
NS_A_TOKEN = 60
"""Training time per raw token at D=100 with 5 noise words; it grows with both."""
COMPRESSED = 4
"""Rough ratio of the size of text to its compressed size."""


def processes_pay(config: RunConfig, stored_bytes: int, compressed_bytes: int, cores: int) -> bool:
    """Whether Dask's processes finish this run sooner than threads, or make it safer at a negligible cost."""
    if config.cluster.n_workers is not None or config.cluster.options:
        return True
    text_bytes = stored_bytes + (COMPRESSED - 1) * compressed_bytes
    python_s = seconds_in_python(config, text_bytes)
    gained_s = python_s * (1 - 1 / cores)
    return gained_s > START_S or python_s + seconds_of_training(config, text_bytes) > LONG_S


def seconds_in_python(config: RunConfig, text_bytes: int) -> float:
    """Estimated seconds on one core in code that holds the interpreter lock."""
    if "pydocs:" in config.corpus.inputs:
        return text_bytes / PYDOCS_BYTES_A_S
    return 0.0 if config.tokenize.tokenizer in COMPILED_TOKENIZERS else text_bytes / PYTHON_BYTES_A_S


def seconds_of_training(config: RunConfig, text_bytes: int) -> float:
    """Estimated seconds of training on one core; only for this decision, in which a factor of two matters little."""
    train = config.train
    size = train.vector_size / 100 * (3 + train.negative) / 8
    targets = config.shards.window if train.model == "skipgram" else 1
    return text_bytes / BYTES_A_TOKEN * train.epochs * NS_A_TOKEN * 1e-9 * size * targets
