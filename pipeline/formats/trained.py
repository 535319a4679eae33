"""The vectors that training left in an artefact, ready to be asked."""

from __future__ import annotations

from pipeline import store
from pipeline.errors import DamagedError, unread
from w2v_core.vectors import WordVectors


def load_vectors(vectors: store.Artefact) -> WordVectors:
    """The vectors of an artefact, memory-mapped; raises DamagedError if the files do not fit together."""
    try:
        return WordVectors.load(store.bring(vectors).directory)
    except (ValueError, OSError) as error:
        if isinstance(error, OSError) and (problem := unread(error, error.filename or vectors.directory)):
            raise problem from error
        raise DamagedError(f"{vectors.directory}: the vectors cannot be read ({error})", str(vectors.directory)) from error
