"""Training from Python.

    from pipeline import train

    model = train("texts/*.txt", vector_size=200, epochs=10)
    model.most_similar("river")

It does what `w2v run` does, with a workdir: the same call reuses what is done, and an interrupted call continues. The work runs
in threads, or on the program's Dask client; a script needs no `if __name__ == "__main__":`.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import RunConfig, load_config
from pipeline.library.model import Model
from pipeline.library.notebook import progress_for
from pipeline.library.sentences import AS_THEY_ARE, sentences_of, write_sentences
from pipeline.library.settings import configuration
from pipeline.run import run
from w2v_core.vectors import WordVectors

if TYPE_CHECKING:
    from distributed import Client

    from pipeline.training.history import RoundRecord


def train(
    source: Any,
    *,
    start_from: Model | str | os.PathLike[str] | None = None,
    client: Client | None = None,
    callbacks: Sequence[Callable[[RoundRecord], None]] = (),
    progress: bool = True,
    **settings: Any,
) -> Model:
    """The model trained on `source`: a path, a glob or a list of them, a configuration file (.yaml), an iterable of sentences
    (lists of words or lines of text), an Arrow table, or a Dask bag.

    settings      keys of the configuration by their last name (`vector_size`, `window`, `min_count`, `lanes`, `workdir`, …),
                  or sections as mappings; `tracking={…}` reports the run to MLflow
    start_from    a model or a folder of vectors to continue training from
    client        the Dask client whose workers do the work; by default the program's default client, if it has one
    callbacks     each is called after every round with its record (loss, alpha, kept_tokens, seconds, …)
    progress      whether to show progress on a terminal or in a notebook

    Raises subclasses of PipelineError.
    """
    if start_from is not None:
        settings["start_from"] = os.fspath(start_from.directory if isinstance(start_from, Model) else start_from)
    config = _configuration(source, settings)
    client = client or _default_client()
    guarded = _main_is_not_run_again() if client is None else contextlib.nullcontext()
    with guarded, progress_for(progress) as shown:
        summary = run(config, client=client, progress=shown, on_round=callbacks)
    directory = Path(summary["vectors"]["path"])
    return Model(WordVectors.load(directory), summary, directory)


def _configuration(source: Any, settings: dict[str, Any]) -> RunConfig:
    if isinstance(source, (str, os.PathLike)) and os.fspath(source).endswith((".yaml", ".yml")):
        given = {key: value for key, value in settings.items() if not isinstance(value, dict)}
        fields = configuration(["-"], given).model_dump(mode="json", by_alias=True, exclude_unset=True)
        return load_config(os.fspath(source), [*_overrides(fields)])
    if isinstance(source, (str, os.PathLike)):
        return configuration([os.fspath(source)], settings)
    if isinstance(source, (list, tuple)) and source and all(isinstance(path, os.PathLike) or _is_path(path) for path in source):
        return configuration([os.fspath(path) for path in source], settings)
    config = configuration(["-"], settings)
    folder = config.workdir.with_name(f"{config.workdir.name}.sentences")
    as_words = write_sentences(sentences_of(source, config.corpus.text_field), folder)
    return configuration([str(folder)], settings | ({"tokenize": AS_THEY_ARE} if as_words else {}))


def _is_path(found: Any) -> bool:
    """Whether a string in a list is a path rather than a line of text: an existing path, a pattern, `pydocs:` or an address."""
    if not isinstance(found, str):
        return False
    return found.startswith("pydocs:") or "://" in found or os.path.exists(found) or (" " not in found and "/" in found)


def _overrides(fields: dict[str, dict[str, Any]]) -> Iterator[str]:
    import json

    for section, values in fields.items():
        for key, value in values.items():
            if (section, key) not in {("corpus", "inputs"), ("tracking", "enabled")}:
                yield f"{section}.{key}={json.dumps(value)}"


def _default_client() -> Client | None:
    if "distributed" not in sys.modules:
        return None
    from distributed import default_client

    try:
        found: Client = default_client()
        return found
    except ValueError:
        return None


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
