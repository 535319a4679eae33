"""Working with trained vectors: `WordVectors`, their files, question sets and scores."""

from w2v_core.vectors.loading import VectorFileNote
from w2v_core.vectors.vocabulary import UnknownWordError
from w2v_core.vectors.word_vectors import WordVectors

__all__ = ["UnknownWordError", "VectorFileNote", "WordVectors"]
