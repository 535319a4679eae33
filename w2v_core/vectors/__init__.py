"""Working with trained vectors: `WordVectors`, their files, question sets and scores."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from w2v_core.vectors.loading import VectorFileNote
    from w2v_core.vectors.vocabulary import UnknownWordError, UnknownWordsNote
    from w2v_core.vectors.word_vectors import WordVectors

__all__ = ["UnknownWordError", "UnknownWordsNote", "VectorFileNote", "WordVectors"]

_HOMES = {
    "UnknownWordError": "vocabulary",
    "UnknownWordsNote": "vocabulary",
    "VectorFileNote": "loading",
    "WordVectors": "word_vectors",
}


def __getattr__(name: str) -> object:
    # Imported on first use: a worker writes vectors (`files`) and never reads any, and the rest takes 0.05 to 0.1 s.
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
