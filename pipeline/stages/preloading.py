"""What a run in this process will call is loaded in the background, in the order of need, while the corpus is looked at.

To import Numba and to load compiled code from its cache takes half a second in which the interpreter is held, and to hash a
corpus takes as long without it: the two go together. Errors are left to the stage that meets them, which reports them.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import threading
from collections.abc import Iterator

from pipeline.config import RunConfig
from pipeline.text.tokenizers import load_tokenizer
from pipeline.training.arithmetic import KnownNumbers

SWITCH_S = 0.0005
"""How long a thread may keep the interpreter when another waits for it; Python's own 0.005 s make a thread that hashes, and asks
for it after every block, wait through most of what the other imports."""


def preload(config: RunConfig, known: KnownNumbers | None) -> threading.Thread:
    """The thread that loads what tokenizing calls, and then, for a run that trains, what the stages after it do. `known` receives
    how this process computes; None: it will not train."""

    def load() -> None:
        with contextlib.suppress(Exception):
            if ":" not in config.tokenize.tokenizer:
                load_tokenizer(config.tokenize).split("a b\n")
            if known is not None:
                known.of(config.train)
                importlib.import_module("pyarrow.compute")
                importlib.import_module("pipeline.training.admission")

    thread = threading.Thread(target=load, name="w2v-preload", daemon=True)
    thread.start()
    return thread


@contextlib.contextmanager
def quick_switches() -> Iterator[None]:
    """Threads take turns ten times as often as usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(before, SWITCH_S))
    try:
        yield
    finally:
        sys.setswitchinterval(before)
