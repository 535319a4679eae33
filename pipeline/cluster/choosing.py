"""Where the work of `cluster.kind: local` is done: in threads of this process, or in processes of Dask.

Kernels and the compiled tokenizers let go of the interpreter, so threads are as fast as processes and start at once, while
Dask with two workers takes 2 to 4 s and as many of the processor (infra/benchmarks/records/text-to-vectors-2026-11-29.md).
Processes pay where text goes through Python code, which only they do on several cores; and where a run is long, because a
process that is lost is replaced, and the run goes on. The bits are the same.
"""

from __future__ import annotations

from pipeline.config import RunConfig

START_S = 3.0
"""What Dask's processes take to start."""
LONG_S = 120.0
"""Of one core: from here on what starting them costs is not felt."""
COMPILED_TOKENIZERS = frozenset({"simple", "whitespace", "regex"})
PYDOCS_BYTES_A_S = 6e6
"""Of Python files that are parsed for their docstrings."""
PYTHON_BYTES_A_S = 1e6
"""Of text that goes through a tokenizer written in Python, roughly."""
BYTES_A_TOKEN = 6
NS_A_TOKEN = 60
"""Training, a raw token, D=100, 5 noise words; it grows with both."""
COMPRESSED = 4
"""How many times its size a compressed text becomes, roughly."""


def processes_pay(config: RunConfig, stored_bytes: int, compressed_bytes: int, cores: int) -> bool:
    """Whether Dask's processes end this run sooner than threads do, or make it safer at no cost that is felt."""
    if config.cluster.n_workers is not None or config.cluster.options:
        return True
    text_bytes = stored_bytes + (COMPRESSED - 1) * compressed_bytes
    python_s = seconds_in_python(config, text_bytes)
    gained_s = python_s * (1 - 1 / cores)
    return gained_s > START_S or python_s + seconds_of_training(config, text_bytes) > LONG_S


def seconds_in_python(config: RunConfig, text_bytes: int) -> float:
    """Of one core, in code that holds the interpreter."""
    if "pydocs:" in config.corpus.inputs:
        return text_bytes / PYDOCS_BYTES_A_S
    return 0.0 if config.tokenize.tokenizer in COMPILED_TOKENIZERS else text_bytes / PYTHON_BYTES_A_S


def seconds_of_training(config: RunConfig, text_bytes: int) -> float:
    """Of one core; for a decision, not for a plan: a factor of two changes little."""
    train = config.train
    size = train.vector_size / 100 * (3 + train.negative) / 8
    targets = config.shards.window if train.model == "skipgram" else 1
    return text_bytes / BYTES_A_TOKEN * train.epochs * NS_A_TOKEN * 1e-9 * size * targets
