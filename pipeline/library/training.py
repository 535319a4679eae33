"""Training from Python.

    from pipeline import train

    model = train("texts/*.txt", vector_size=200, epochs=10)
    model.most_similar("river")

It does what `w2v run` does, with a workdir (`runs/word2vec` unless `workdir` or `name` is given): the same call reuses what is
done, and an interrupted call continues. Sentences are kept beside it, in `<workdir>.sentences/`. The work runs on the program's
Dask client, or else in threads, if it is long in processes; a script needs no `if __name__ == "__main__":`.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import RunConfig
from pipeline.errors import InputError, UsageError
from pipeline.history.answers import is_configuration
from pipeline.library.model import Model
from pipeline.library.notebook import progress_for
from pipeline.library.sentences import AS_THEY_ARE, in_order, lines_of, paths_in, sentences_of, write_lines
from pipeline.library.settings import configuration, overriding
from pipeline.progress import Progress
from pipeline.run import run
from pipeline.safety.locks import SENTENCES_LOCK, lock
from pipeline.safety.start import name_cache, require_private_cache
from w2v_core.vectors import WordVectors

if TYPE_CHECKING:
    from distributed import Client

    from pipeline.training.history import RoundRecord

    Callback = Callable[[RoundRecord], object]


def train(
    source: Any = None,
    *,
    start_from: Model | str | os.PathLike[str] | None = None,
    client: Client | None = None,
    callbacks: Callback | Iterable[Callback] | None = None,
    progress: bool = True,
    **settings: Any,
) -> Model:
    """The model trained on `source`: a path, a glob or a list of them, a configuration file (.yaml), an iterable of sentences
    (lists of words or lines of text), a table of Arrow, pandas or Polars (its column `text_field`, "text" by default) or a column
    of one, a Dask bag or data frame.

    settings      keys of the configuration by their last name (`vector_size`, `window`, `min_count`, `lanes`, `workdir`, …),
                  or sections as mappings; `tracking={…}` reports the run to MLflow
    start_from    a model or a folder of vectors to continue training from
    client        the Dask client whose workers do the work; by default the program's default client, if it has one. A program
                  that starts processes by itself, as `LocalCluster()` does, needs `if __name__ == "__main__":` around that
    callbacks     each is called after every round with its record (loss, alpha, kept_tokens, seconds, …); what it raises ends
                  the training, and the same call continues it
    progress      whether to show progress on a terminal or in a notebook

    Raises subclasses of PipelineError, and what a callback raises.
    """
    _refuse_to_be_run_again()
    if start_from is not None:
        settings["start_from"] = _folder_of(start_from)
    name_cache()
    require_private_cache()
    called = _functions(callbacks)
    client = _usable(client or _default_client())
    guarded = _main_is_not_run_again() if client is None else contextlib.nullcontext()
    with contextlib.ExitStack() as stack:
        shown = stack.enter_context(progress_for(progress))
        config = _configuration(source, settings, shown, stack)
        stack.enter_context(guarded)
        try:
            summary = run(config, client=client, progress=shown, on_round=called)
        except KeyboardInterrupt:
            shown.stop("interrupted; the same call continues from what is complete")
            raise
    directory = Path(summary["vectors"]["path"])
    return Model(WordVectors.load(directory), summary, directory)


def _configuration(source: Any, settings: dict[str, Any], shown: Progress, stack: contextlib.ExitStack) -> RunConfig:
    """The configuration of the run; sentences are written first, and nobody else can replace them until `stack` is closed."""
    source = in_order(source)
    paths = paths_in(source)
    if isinstance(source, str) and "\n" in source:
        raise InputError("train: a text with several lines is no path; for lines of text: train(text.splitlines())")
    if paths and not isinstance(source, list) and is_configuration(paths[0]):
        return overriding(paths[0], settings)
    if paths:
        return configuration(paths, settings)
    text_field = settings.pop("text_field", "text")
    workdir = configuration(["-"], settings).workdir
    folder = workdir.with_name(f"{workdir.name}.sentences")
    lines, as_words = lines_of(sentences_of(source, text_field))
    stack.enter_context(lock(workdir, SENTENCES_LOCK))
    shown.start("sentences", note="writing them to files", unit="B")
    write_lines(lines, folder, shown.advance)
    # Words are words, whatever a file with them would look like.
    return configuration([str(folder)], settings | ({"tokenize": AS_THEY_ARE, "sniff": False} if as_words else {}))


def _folder_of(start_from: Any) -> str:
    found = start_from.directory if isinstance(start_from, Model) else start_from
    if not isinstance(found, str | os.PathLike):
        has_vectors = hasattr(found, "wv") or hasattr(found, "vectors")  # gensim's models and vectors, and our WordVectors
        way_out = "; WordVectors(wv.index_to_key, wv.vectors).save(folder) makes a folder of its vectors" if has_vectors else ""
        raise UsageError(
            f"start_from: expected a model of train() or load(), or a folder of vectors, found {type(found).__name__}{way_out}"
        )
    if isinstance(start_from, Model) and os.path.isdir(found) and (there := len(WordVectors.load(found))) != len(start_from):
        raise UsageError(
            f"start_from: the model has {len(start_from):,} of the {there:,} words in {found}, and training would go on from all "
            "of them; load it without limit (vocab.max_size limits the words of a training)"
        )
    return str(os.fspath(found))


def _functions(callbacks: Any) -> list[Callback]:
    if callbacks is None:
        return []
    found = list(callbacks) if isinstance(callbacks, Iterable) and not callable(callbacks) else [callbacks]
    for callback in found:
        if not callable(callback):
            raise UsageError(f"callbacks: expected functions that take the record of a round, found {type(callback).__name__}")
    return found


def _usable(client: Any) -> Client | None:
    if client is None or (hasattr(client, "submit") and hasattr(client, "scheduler_info") and not client.asynchronous):
        if client is not None and client.status != "running":
            raise UsageError(f"client: expected one that is connected to its scheduler, found one that is {client.status}")
        found: Client | None = client
        return found
    kind, way_out = type(client).__name__, "for the address of a scheduler: cluster={'kind': 'address', 'address': …}"
    if hasattr(client, "submit") and hasattr(client, "asynchronous"):
        kind = "one with asynchronous=True"
    elif hasattr(client, "scheduler_info"):
        way_out = "Client(cluster) makes one of a cluster"
    raise UsageError(f"client: expected a Client of dask.distributed that waits for results, found {kind}; {way_out}")


def _default_client() -> Client | None:
    if "distributed" not in sys.modules:
        return None
    from distributed import default_client

    try:
        found: Client = default_client()
        return found if found.status == "running" else None
    except ValueError:
        return None


def _refuse_to_be_run_again() -> None:
    """Raises UsageError in a process that runs the program's main file again while it starts, as those of a program's own
    `LocalCluster` do."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # what multiprocessing itself asks
        raise UsageError(
            "train: this process was started by the program and runs its main file again, so it would train again; put the lines "
            'that start processes, such as LocalCluster(), and those after them under if __name__ == "__main__":'
        )


@contextlib.contextmanager
def _main_is_not_run_again() -> Iterator[None]:
    """Keeps processes started in this block from running the program's main file again, as `spawn` would make them do: nothing
    sent to them refers to it."""
    main = sys.modules["__main__"]
    kept = {name: getattr(main, name) for name in ("__file__", "__spec__") if hasattr(main, name)}
    try:
        if "__file__" in kept:
            del main.__file__
        main.__spec__ = None
        yield
    finally:
        for name, value in kept.items():
            setattr(main, name, value)
