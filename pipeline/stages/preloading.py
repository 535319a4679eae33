"""Loads in the background what a run in this process will call, in that order, while the corpus is examined.

Importing Numba and loading compiled code from its cache takes half a second and holds the interpreter; hashing a corpus takes as
long and releases it, so both can run at once. Errors are ignored here: the stage that needs the code meets them again and reports
them.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from pipeline.cluster.state import state_of
from pipeline.config import RunConfig, Tokenize, Train
from pipeline.text.tokenizers import load_tokenizer
from pipeline.training.arithmetic import KnownNumbers, warm_up

COMPILING = "compiling the kernels; this takes half a minute or more, and only the first time"
COMPILING_TOKENIZER = "compiling the tokenizer; this takes some seconds, and only the first time"
SWITCH_S = 0.0005
"""How long a thread may keep the interpreter while another waits for it. With Python's 0.005 s, a hashing thread, which needs it
after every block, would wait during most of the imports."""


def preload(config: RunConfig, known: KnownNumbers | None, on_compiling: Callable[[], None]) -> threading.Thread:
    """Starts and returns the thread, which loads what tokenizing calls and then, for a run that trains, what the later stages
    call. `known` receives a sample of this process's arithmetic; None: the run does not train. `on_compiling` is called once
    if code is not in the cache and must be compiled."""

    def load() -> None:
        with contextlib.suppress(Exception), telling(on_compiling):
            _load_tokenizer(config.tokenize)
            if known is not None:
                known.of(config.train)
                importlib.import_module("pyarrow.compute")
                importlib.import_module("pipeline.training.admission")

    thread = threading.Thread(target=load, name="w2v-preload", daemon=True)
    thread.start()
    return thread


def warm_up_worker(worker: Any, asked: tuple[Train | Tokenize, str]) -> None:
    """Warms up a Dask worker for a training or, for a run that does not train, for tokenizing, in the background; it says under
    the topic if it compiles code for that, for which its first task waits."""
    section, topic = asked

    def told() -> contextlib.AbstractContextManager[None]:
        return telling(lambda: worker.log_event(topic, worker.address))

    def load(tokenize: Tokenize) -> None:
        with contextlib.suppress(Exception), told():
            _load_tokenizer(tokenize)

    if isinstance(section, Train):
        warm_up(section, state_of(worker).of(KnownNumbers), told)
    else:
        threading.Thread(target=load, args=(section,), name="w2v-preload", daemon=True).start()


def _load_tokenizer(tokenize: Tokenize) -> None:
    if ":" not in tokenize.tokenizer:
        load_tokenizer(tokenize).split("a b\n")


@contextlib.contextmanager
def telling(on_compiling: Callable[[], None]) -> Iterator[None]:
    """Within it, `on_compiling` is called when Numba first compiles what is not in its cache, in any thread."""
    # The whole package first. To import a part of it holds the part's lock while it waits for the whole: where another thread is
    # importing that, Python breaks the deadlock by showing half a module, and llvmlite's lock is held for ever after the error.
    import numba  # noqa: F401
    from numba.core import event

    told = threading.Event()

    class First(event.Listener):
        def on_start(self, event: object) -> None:
            if not told.is_set():
                told.set()
                on_compiling()

        def on_end(self, event: object) -> None:
            pass

    with event.install_listener("numba:compile", First()):
        yield


@contextlib.contextmanager
def quick_switches() -> Iterator[None]:
    """Within it, threads take turns at the interpreter ten times as often as usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(before, SWITCH_S))
    try:
        yield
    finally:
        sys.setswitchinterval(before)
