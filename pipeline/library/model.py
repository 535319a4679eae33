"""A trained or loaded model: its vectors, with gensim's method names, and the summary of the run that made them."""

from __future__ import annotations

import errno
import html
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.config import Storage, load_config
from pipeline.errors import InputError
from pipeline.formats.published import bring_vectors
from pipeline.formats.trained import load_vectors
from pipeline.history.answers import (
    intact_vectors,
    is_configuration,
    is_workdir,
    require_answer,
    snapshot_summary,
    snapshot_vectors,
    why_none,
)
from pipeline.history.arrival import look
from pipeline.storage.addresses import SCHEMES, parse_address
from w2v_core.vectors import WordVectors

SHOWN_WORDS, SHOWN_NEIGHBOURS = 6, 5
INSTEAD = {
    **dict.fromkeys(("train", "build_vocab"), "pipeline.train(sentences, start_from=model) continues from it"),
    **dict.fromkeys(
        ("epochs", "window", "min_count", "alpha", "negative", "sg", "seed"), "its settings are in summary['config']"
    ),
    **dict.fromkeys(("corpus_count", "corpus_total_words"), "the sizes of the corpus are in summary['corpus']"),
    "get_latest_training_loss": "losses has the mean loss of every round",
    "layer1_size": "it is vector_size",
    "compute_loss": "losses has the mean loss of every round",
    "callbacks": "pipeline.train(sentences, callbacks=…) calls them",
    "workers": "lanes are settings of a training, in summary['config']['train']",
    "syn1neg": "wv.context has the output vectors",
}
"""Names of gensim's Word2Vec that a Model does not have, each with what to use instead."""


class Model:
    """Word vectors and their run. The model has all methods of `WordVectors`: `model.most_similar("river")`, `model["river"]`,
    `"river" in model`, `model.similarity(…)`; `model.wv` is for programs written for gensim."""

    def __init__(self, vectors: WordVectors, summary: Mapping[str, Any], directory: Path) -> None:
        self.wv = vectors
        self.summary = summary
        """The content of summary.json; empty for vectors alone, such as another program's."""
        self.directory = directory
        """The folder or file of the vectors."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "wv":  # the latter: of a model that is not yet initialised
            raise AttributeError(name)
        if name in INSTEAD:
            raise AttributeError(f"a Model has no {name}; {INSTEAD[name]}")
        return getattr(self.wv, name)

    def __dir__(self) -> list[str]:
        """For completion in notebooks: the methods of the vectors, too."""
        return sorted({*super().__dir__(), *(name for name in dir(self.wv) if not name.startswith("_"))})

    def __getitem__(self, words: Any) -> Any:
        return self.wv[words]

    def __contains__(self, word: object) -> bool:
        return word in self.wv

    def __iter__(self) -> Iterator[str]:
        """The words, most frequent first."""
        return iter(self.wv)

    def __reversed__(self) -> Iterator[str]:
        return reversed(self.wv)

    def __len__(self) -> int:
        return len(self.wv)

    def __repr__(self) -> str:
        return f"<Model: {len(self):,} words × {self.wv.vector_size}, {self.directory}>"

    @property
    def losses(self) -> list[float]:
        """The mean loss of every round."""
        return [float(record["loss"]) for record in self.summary.get("train", {}).get("rounds", ())]

    def to_gensim(self) -> Any:
        """The same vectors as gensim's KeyedVectors, with counts; needs gensim installed."""
        try:
            from gensim.models import KeyedVectors
        except ImportError:
            raise InputError("to_gensim needs gensim: pip install gensim") from None
        words = self.wv.index_to_key
        keyed = KeyedVectors(self.wv.vector_size, count=len(words))
        keyed.index_to_key = list(words)
        keyed.key_to_index = {word: index for index, word in enumerate(words)}
        keyed.vectors = self.wv.vectors.copy()
        if self.wv.counts is not None:
            # Where set_vecattr, which takes 6 µs a word, puts them one by one.
            keyed.expandos["count"] = self.wv.counts.copy()
        return keyed

    def _repr_html_(self) -> str:
        """HTML for notebooks: size, loss, and the neighbours of some frequent words."""
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(word)}</th><td style='text-align:left'>"
            f"{html.escape(', '.join(found for found, _ in self.wv.most_similar(word, topn=SHOWN_NEIGHBOURS)))}</td></tr>"
            for word in self._shown_words()
        )
        loss = f", loss {self.losses[0]:.3f} → {self.losses[-1]:.3f}" if self.losses else ""
        return (
            f"<div><b>{len(self):,} words × {self.wv.vector_size}</b>{loss}<table>{rows}</table>"
            f"<small>{html.escape(str(self.directory))}</small></div>"
        )

    def _shown_words(self) -> list[str]:
        """The most frequent words of five letters or more, since shorter ones are mostly function words."""
        frequent = [word for word in self.wv.index_to_key[:500] if len(word) >= 5] or self.wv.index_to_key
        return list(frequent[:SHOWN_WORDS])


def load(source: str | os.PathLike[str], **reading: Any) -> Model:
    """The model at `source`: a configuration file or workdir with a finished run, a folder of vectors, a file of vectors from any
    program, `models:/NAME@ALIAS`, or an address in a bucket (`s3://…`). `reading` are options of `WordVectors.load`.

    Raises subclasses of PipelineError for runs, FileNotFoundError and ValueError for files of vectors.
    """
    if isinstance(source, str) and source.startswith(tuple(f"{scheme}://" for scheme in SCHEMES)):
        source = bring_vectors(parse_address(source, "load"), Storage())
    path = Path(source)
    if is_configuration(path):
        return _of_workdir(look(load_config(path)).workdir, reading)
    if is_workdir(path):
        return _of_workdir(path, reading)
    place = snapshot_vectors(path)
    try:
        return Model(WordVectors.load(source if place == path else place, **reading), snapshot_summary(path), place)
    except FileNotFoundError as error:
        if error.errno is None:  # of an address, with a message of its own
            raise
        found = why_none(path) if path.is_dir() else "no such file or folder"
        raise FileNotFoundError(errno.ENOENT, found, str(source)) from None


def _of_workdir(workdir: Path, reading: Mapping[str, Any]) -> Model:
    answer = require_answer(workdir)
    vectors = load_vectors(intact_vectors(answer))
    return Model(WordVectors.load(answer.vectors, **reading) if reading else vectors, answer.summary, answer.vectors)
