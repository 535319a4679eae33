"""Trained word vectors: the words in id order, their counts, one matrix, and queries about them.

Names and numbers are those of gensim's `KeyedVectors`: code written for it works here, unless it changes vectors in place. A
`WordVectors` never changes; methods that would change it return a new one (`with_vectors`, `subset`, `without`).
`cosines.py` explains how answers are found and why their order is exact.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NoReturn

import numpy as np
import numpy.typing as npt

from w2v_core.vectors import files, loading, means, parts, prediction
from w2v_core.vectors.cosines import Cosines, Doubles, Floats, unit
from w2v_core.vectors.gensim_names import INSTEAD
from w2v_core.vectors.terms import Query, direction, read_candidates, read_terms, read_vector, rows_of, unit_of, whole_number
from w2v_core.vectors.vocabulary import Ids, Key, Vocabulary, is_key, listed

Method = Literal["3cosadd", "3cosmul"]
Answers = list[tuple[str, float]]
"""[(word, score)], best first."""


@dataclass(frozen=True, eq=False, repr=False)
class WordVectors:
    """V words, each with a vector. `matrix` is not copied; a read-only view of it is kept.

    words: V different strings in id order, most frequent first; matrix: float32 (or float16, float64) (V, D); counts: int64
    (V,) or None; context: the output vectors (V, D) of training, or None. Raises ValueError for a wrong dtype or shape, for
    no words at all, and for a word that occurs twice.
    """

    words: Sequence[str]
    matrix: Floats
    counts: Ids | None = None
    context: Floats | None = None
    _vocabulary: Vocabulary = field(init=False)
    _cosines: Cosines = field(init=False)

    def __post_init__(self) -> None:
        vocabulary = Vocabulary(self.words)
        made = parts.checked(vocabulary.words, self.matrix, self.counts, self.context)
        others = {"_vocabulary": vocabulary, "_cosines": Cosines(made.matrix, vocabulary.words.__getitem__)}
        for name, value in (made._asdict() | others).items():
            object.__setattr__(self, name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles are rebuilt by the constructor, so they are read-only too."""
        return type(self), tuple(self._parts)

    def __getattr__(self, name: str) -> NoReturn:
        hint = f"; {INSTEAD[name]}" if name in INSTEAD else ""
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'{hint}")

    def __setitem__(self, key: object, value: object) -> NoReturn:
        raise TypeError("WordVectors never changes; with_vectors(words, vectors, replace=True) gives new ones")

    @property
    def _parts(self) -> parts.Parts:
        return parts.Parts(self.words, self.matrix, self.counts, self.context)

    # ── words and rows ───────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def vector_size(self) -> int:
        return int(self.matrix.shape[1])

    @property
    def vectors(self) -> Floats:
        """The matrix, under gensim's name."""
        return self.matrix

    @cached_property
    def index_to_key(self) -> list[str]:
        """The words, under gensim's name."""
        return list(self.words)

    @property
    def key_to_index(self) -> Mapping[str, int]:
        """The row of every word."""
        return MappingProxyType(self._vocabulary.ids)

    @property
    def norms(self) -> Doubles:
        """Euclidean lengths, float64 (V,). Raises ValueError naming the first word whose vector is not finite."""
        return self._cosines.norms

    def __len__(self) -> int:
        return len(self.words)

    def __repr__(self) -> str:
        return f"WordVectors({len(self):,} word{'s' if len(self) > 1 else ''}, vector_size={self.vector_size})"

    def __contains__(self, key: object) -> bool:
        return is_key(key) and self._vocabulary.find(key) is not None

    def has_index_for(self, key: object) -> bool:
        return key in self

    def __iter__(self) -> Iterator[str]:
        return iter(self.words)

    def __reversed__(self) -> Iterator[str]:
        return reversed(self.words)

    def __getitem__(self, keys: Key | Iterable[Key] | slice) -> Floats:
        """The vector (D,) of a word or row, read-only; of several or a slice a copy (n, D). Raises UnknownWordError."""
        if is_key(keys):
            return self.get_vector(keys)
        found: Floats = self.matrix[self._vocabulary.row_ids(range(len(self))[keys] if isinstance(keys, slice) else keys)]
        return found

    def word_id(self, word: Key) -> int:
        """The word's row in the matrix. Raises UnknownWordError."""
        return self._vocabulary.row(word)

    def get_index(self, key: Key, default: Any = None) -> Any:
        """The word's row; for an unknown word `default` or, if that is None, UnknownWordError."""
        row = self._vocabulary.find(key)
        return self._vocabulary.row(key) if row is None and default is None else default if row is None else row

    def get_vector(self, key: Key, norm: bool = False) -> Floats:
        """The word's vector (D,), read-only; with `norm`, scaled to length 1. Raises UnknownWordError."""
        row = self.word_id(key)
        found: Floats = self.matrix[row]
        if norm:
            found = self.unit_vectors([row])[0].astype(self.matrix.dtype)
            found.flags.writeable = False
        return found

    def get_vecattr(self, key: Key, attr: str) -> int:
        """The word's count, the only attribute there is; if counts are not known, V − row, as in gensim. Raises KeyError."""
        if attr != "count":
            raise KeyError(f"expected the attribute 'count', found {attr!r}")
        row = self.word_id(key)
        return len(self) - row if self.counts is None else int(self.counts[row])

    def unit_vectors(self, keys: Key | Iterable[Key]) -> Doubles:
        """The vectors of words or rows, scaled to length 1, float64 (n, D); zero vectors stay zero. Raises UnknownWordError."""
        return self._cosines.unit_rows(self._vocabulary.row_ids(keys))

    def get_normed_vectors(self) -> Floats:
        """A copy of the matrix (V, D) with every vector scaled to length 1."""
        units = np.empty(self.matrix.shape, self.matrix.dtype)
        for rows in files.row_blocks(len(self), 4096):
            units[rows] = self.unit_vectors(np.arange(rows.start, rows.stop))
        return units

    # ── nearest words ────────────────────────────────────────────────────────────────────────────────────────────────

    def most_similar(
        self,
        positive: Query = None,
        negative: Query = None,
        topn: int | None = 10,
        clip_start: int = 0,
        clip_end: int | None = None,
        restrict_vocab: int | Iterable[Key] | None = None,
    ) -> Any:
        """[(word, cosine)] nearest to the positive minus the negative words' unit vectors, without those words themselves.

        Each side: a word, a row, a vector (taken as it is), any of these as (item, weight), a list of them, or {item: weight}. If
        topn is None, the cosines (n,) of all candidates, including the words asked about. Candidates are the rows `clip_start` to
        `clip_end`, or the first `restrict_vocab` rows, or the words listed there. Raises UnknownWordError, TypeError, ValueError.
        """
        rows = read_candidates(self._vocabulary, restrict_vocab, clip_start, clip_end)
        if topn is not None and whole_number(topn, "topn", 0) == 0:
            return []
        plus, minus = read_terms(self._vocabulary, self.vector_size, positive, negative)
        terms = plus + minus
        if not terms:
            raise ValueError("most_similar: give at least one positive or negative word")
        query_D = direction(self._cosines, terms)
        if topn is None:
            return self._cosines.exact(rows, query_D)
        return self._answers(*self._cosines.nearest(query_D, int(topn), rows, rows_of(terms)))

    def similar_by_key(self, key: Key, topn: int | None = 10, restrict_vocab: int | Iterable[Key] | None = None) -> Any:
        """`most_similar` of one word."""
        return self.most_similar([key], topn=topn, restrict_vocab=restrict_vocab)

    similar_by_word = similar_by_key

    def similar_by_vector(
        self, vector: npt.ArrayLike, topn: int | None = 10, restrict_vocab: int | Iterable[Key] | None = None
    ) -> Any:
        """[(word, cosine)] nearest to a vector (D,). Raises ValueError for another shape or numbers that are not finite."""
        query_D = unit(read_vector(vector, self.vector_size))
        return self.most_similar([query_D], topn=topn, restrict_vocab=restrict_vocab)

    def most_similar_cosmul(
        self,
        positive: Query = None,
        negative: Query = None,
        topn: int | None = 10,
        restrict_vocab: int | Iterable[Key] | None = None,
    ) -> Any:
        """[(word, score)] by 3CosMul: the product of the similarities to the positive items divided by that to the negative ones.

        Similarities are cosines shifted to 0 … 1, for vectors too (gensim does not shift those). Otherwise like
        `most_similar`, but weights are ignored. Raises ValueError without a positive item.
        """
        rows = read_candidates(self._vocabulary, restrict_vocab)
        if topn is not None and whole_number(topn, "topn", 0) == 0:
            return []
        plus, minus = read_terms(self._vocabulary, self.vector_size, positive, negative)
        if not plus:
            raise ValueError("most_similar_cosmul: give at least one positive word")
        units = ([unit_of(self._cosines, term) for term in side] for side in (plus, minus))
        ids, scores = self._cosines.nearest_by_product(*units, topn=topn, rows=rows, excluded=rows_of(plus + minus))
        return scores if topn is None else self._answers(ids, scores)

    def analogy(
        self, a: Key, b: Key, c: Key, method: Method = "3cosadd", topn: int = 10, restrict_vocab: int | None = None
    ) -> Answers:
        """[(word, score)] for "a is to b as c is to …"; a, b and c are never answers. Raises UnknownWordError.

        3cosadd: the cosine with b − a + c (unit vectors). 3cosmul: see `most_similar_cosmul`; there a single large similarity
        is less decisive.
        """
        if method not in ("3cosadd", "3cosmul"):
            raise ValueError(f"method: expected 3cosadd or 3cosmul, found {method!r}")
        ask: Callable[..., Answers] = self.most_similar if method == "3cosadd" else self.most_similar_cosmul
        return ask([b, c], [a], topn=topn, restrict_vocab=restrict_vocab)

    def predict_output_word(self, context_words_list: Iterable[Key], topn: int = 10) -> Answers:
        """[(word, probability)] of the words that training would expect within this context, best first, as in gensim.

        Unknown words are left out with a warning. Raises ValueError without `context` (the output vectors), UnknownWordError if
        no word is known.
        """
        if self.context is None:
            raise ValueError("predict_output_word: these vectors came without output vectors; load the folder that training left")
        rows = means.known_rows(self._vocabulary, context_words_list)
        probabilities_V = prediction.output_probabilities(self.matrix, self.context, rows)
        best = np.lexsort((np.arange(len(self)), -probabilities_V))[: whole_number(topn, "topn", 0)]
        return self._answers(best, probabilities_V[best])

    def context_vectors(self) -> WordVectors:
        """The output vectors of the same words. Raises ValueError if these vectors came without them."""
        if self.context is None:
            raise ValueError("context_vectors: these vectors came without output vectors; load the folder that training left")
        return WordVectors(self.words, self.context, self.counts)

    def _answers(self, ids: Ids, scores: Doubles) -> Answers:
        return [(self.words[row], score) for row, score in zip(ids.tolist(), scores.tolist(), strict=True)]

    # ── how near words are ───────────────────────────────────────────────────────────────────────────────────────────

    def similarity(self, first: Key, second: Key) -> float:
        """The cosine of two words, -1 to 1; 0 if one of the vectors is zero. Raises UnknownWordError."""
        return self._cosines.between(self.word_id(first), self.word_id(second))

    def distance(self, first: Key, second: Key) -> float:
        """1 − the cosine of two words."""
        return 1 - self.similarity(first, second)

    def distances(self, word_or_vector: Key | npt.ArrayLike, other_words: Iterable[Key] = ()) -> Doubles:
        """1 − the cosine with each of `other_words`, or with every word if none are given: float64 (n,)."""
        [term], _ = read_terms(self._vocabulary, self.vector_size, [word_or_vector], None)  # type: ignore[list-item]
        rows = self._vocabulary.row_ids(() if other_words is None else other_words)
        return 1 - self._cosines.exact(rows if len(rows) else slice(0, len(self)), unit_of(self._cosines, term))

    def closer_than(self, key1: Key, key2: Key) -> list[str]:
        """The words that are nearer to `key1` than `key2` is, in the order of their rows."""
        first, second = self.word_id(key1), self.word_id(key2)
        unit_D = self.unit_vectors([first])[0]
        nearer = self._cosines.above(unit_D, float(self._cosines.exact(np.array([second]), unit_D)[0]))
        return [self.words[row] for row in nearer.tolist() if row != first]

    words_closer_than = closer_than

    def rank(self, key1: Key, key2: Key) -> int:
        """The rank of `key2` among the words nearest to `key1`, from 1."""
        return len(self.closer_than(key1, key2)) + 1

    def most_similar_to_given(self, key1: Key, keys_list: Iterable[Key]) -> Key:
        """The item of `keys_list` that is nearest to `key1`; the first of equals."""
        keys: list[Key] = listed(keys_list)
        if not keys:
            raise ValueError("most_similar_to_given: expected at least one word to choose from, found none")
        return keys[int(np.argmax([self.similarity(key1, key) for key in keys]))]

    def relative_cosine_similarity(self, wa: Key, wb: Key, topn: int = 10) -> float:
        """The cosine of two words divided by the sum of the cosines of the first with its `topn` nearest words."""
        near: Answers = self.similar_by_key(wa, whole_number(topn, "topn", 1))
        if not near:
            raise ValueError("relative_cosine_similarity: expected at least two words, found one")
        return self.similarity(wa, wb) / sum(cosine for _, cosine in near)

    def get_mean_vector(
        self,
        keys: Any,
        weights: npt.ArrayLike | None = None,
        pre_normalize: bool = True,
        post_normalize: bool = False,
        ignore_missing: bool = True,
    ) -> Floats:
        """The weighted mean of words, rows and vectors, float32 (D,); see `means.mean_vector`."""
        mean_D = means.mean_vector(
            self._cosines, self._vocabulary, keys, weights, pre_normalize=pre_normalize, ignore_missing=ignore_missing
        )
        return (unit(mean_D) if post_normalize else mean_D).astype(np.float32)

    def n_similarity(self, ws1: Iterable[Key], ws2: Iterable[Key]) -> float:
        """The cosine of two lists' mean vectors; unknown words are ignored. Raises ValueError if a list has no known word."""
        return means.similarity_of_lists(self._cosines, self._vocabulary, ws1, ws2)

    def rank_by_centrality(self, words: Iterable[Key], use_norm: bool = True) -> list[tuple[float, str]]:
        """[(similarity, word)], the word that is nearest to the mean of all first; unknown words are left out with a warning."""
        ids, found = means.centrality(self._cosines, means.known_rows(self._vocabulary, words), use_norm=use_norm)
        return [(score, word) for word, score in self._answers(ids, found)]

    def doesnt_match(self, words: Iterable[Key]) -> str:
        """The word farthest from the mean direction of all, the first of equals; unknown words are left out with a warning, as in
        gensim. Raises ValueError for fewer than 3 known words."""
        rows = means.known_rows(self._vocabulary, words, at_least=3)
        return self.words[int(means.centrality(self._cosines, rows, use_norm=True)[0][-1])]

    @staticmethod
    def cosine_similarities(vector_1: npt.ArrayLike, vectors_all: npt.ArrayLike) -> Doubles:
        """The cosine of one vector (D,) with each row of a matrix (n, D)."""
        matrix = np.atleast_2d(np.asarray(vectors_all, np.float64))
        return Cosines(matrix, lambda row: f"row {row}").exact(slice(0, len(matrix)), unit(vector_1))

    # ── vectors derived from these ───────────────────────────────────────────────────────────────────────────────────

    def subset(self, words: Iterable[Key], missing: Literal["refuse", "skip"] = "refuse") -> WordVectors:
        """The vectors of the given words, in their order, each once. Unknown words raise UnknownWordError or are skipped."""
        return WordVectors(*parts.take(self._parts, self._vocabulary, words, missing))

    def vectors_for_all(self, keys: Iterable[Key], allow_inference: bool = True, copy_vecattrs: bool = False) -> WordVectors:
        """The vectors of the keys that are known, under gensim's name; with counts only if `copy_vecattrs`."""
        found = self.subset(keys, missing="skip")
        counts = np.array([self.get_vecattr(word, "count") for word in found.words], np.int64) if copy_vecattrs else None
        return WordVectors(found.words, found.matrix, counts)

    def with_vectors(
        self, words: Sequence[str] | str, vectors: npt.ArrayLike, counts: npt.ArrayLike | None = None, replace: bool = False
    ) -> WordVectors:
        """These vectors followed by others. A word that already exists keeps its vector, unless `replace`."""
        return WordVectors(*parts.add(self._parts, self._vocabulary, words, vectors, counts, replace))

    def without(self, words: Iterable[Key]) -> WordVectors:
        """These vectors without those of the given words. Raises UnknownWordError."""
        gone = set(self._vocabulary.rows(words))
        return self.subset([row for row in range(len(self)) if row not in gone])

    # ── on disk ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def save(self, directory: str | os.PathLike[str]) -> list[Path]:
        """Writes a folder of vectors and returns its files, as `files.save` does. The same vectors give the same bytes."""
        written = files.save(Path(directory), self.words, self.matrix, self.counts, self.context)
        return [Path(directory) / file.name for file in written]

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        verify: bool = False,
        limit: int | None = None,
        datatype: npt.DTypeLike | None = None,
        no_header: bool | None = None,
        binary: bool | None = None,
        unicode_errors: str = "strict",
        allow_unfinished: bool = False,
    ) -> WordVectors:
        """The vectors of a folder that `save` or training left, with the matrix mapped from disk, or of another program's file:
        word2vec, GloVe, Parquet, safetensors. `loading.Options` explains the options.

        Raises FileNotFoundError if there are none, ValueError if a file is incomplete; warns with a `VectorFileNote` about
        anything that was skipped.
        """
        options = loading.Options(limit, datatype, no_header, binary, unicode_errors, allow_unfinished=allow_unfinished)
        return cls(*loading.load(path, options, verify=verify))

    @classmethod
    def load_word2vec_format(
        cls,
        fname: str | os.PathLike[str],
        fvocab: str | os.PathLike[str] | None = None,
        binary: bool | None = None,
        encoding: str = "utf8",
        unicode_errors: str = "strict",
        limit: int | None = None,
        datatype: npt.DTypeLike = np.float32,
        no_header: bool = False,
    ) -> WordVectors:
        """The vectors of a word2vec file, under gensim's name; if `binary` is None, the format is detected."""
        options = loading.Options(limit, datatype, no_header, binary, unicode_errors, encoding, fvocab)
        return cls(*loading.load_word2vec(Path(fname), options))
