"""Words and their rows: the row of a word, and a helpful error if there is none.

A key is a word or, as in gensim, a row number.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable, Sequence
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from w2v_core.text.printable import printable

Ids = npt.NDArray[np.int64]
Key = str | int | np.integer[Any]

_SPELLING_WORDS, _SPELLING_CANDIDATES = 50_000, 5_000
_EXPLAINED_WORDS = 5
"""How many unknown words of one question are named, a line each."""


class UnknownWordError(KeyError):
    """A word that is not in the vocabulary; the message names the nearest spellings in it."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would show the message in quotes


class UnknownWordsNote(UserWarning):
    """Words of a question that are not in the vocabulary and were left out."""


def is_key(value: object) -> TypeGuard[Key]:
    return isinstance(value, str | int | np.integer) and not isinstance(value, bool)


def listed(values: Any) -> list[Any]:
    """The items of a list, an array, a column of pandas or Arrow, or anything else that can be iterated, Arrow's as Python's own.
    Raises TypeError, also for bytes, which would be a list of numbers."""
    if isinstance(values, bytes | bytearray):
        raise TypeError(f"expected words or the numbers of their rows, found {shown(values)} (bytes); decode() makes text of it")
    try:
        return list(values.to_pylist() if callable(getattr(values, "to_pylist", None)) else values)
    except TypeError:
        raise TypeError(f"expected words or the numbers of their rows, found {shown(values)}") from None


def shown(value: object) -> str:
    """The repr of a value that came from outside, made safe to print in an error."""
    return printable(repr(value))


class Vocabulary:
    """V different words in the order of their rows. Raises ValueError for a word that occurs twice or is not a str."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words: tuple[str, ...] = tuple(listed(words))
        if set(map(type, self.words)) - {str}:
            for other in self.words:
                if not isinstance(other, str):
                    raise ValueError(f"words: expected text, found {shown(other)} ({type(other).__name__})")
            self.words = tuple(map(str.__str__, self.words))  # NumPy's own kind of text would be shown in answers
        self.ids: dict[str, int] = dict(zip(self.words, range(len(self.words)), strict=True))
        if len(self.ids) < len(self.words):
            twice = next(word for word_id, word in enumerate(self.words) if self.ids[word] != word_id)
            extra = len(self.words) - len(self.ids)
            raise ValueError(f"words: {extra:,} come twice, first '{printable(twice)}'; give every word once")

    def find(self, key: object) -> int | None:
        """The row of a key, or None. Raises TypeError for anything that cannot be a key."""
        if isinstance(key, str):
            return self.ids.get(key)
        if is_key(key):
            row = int(key)
            return row if 0 <= row < len(self.words) else None
        raise TypeError(f"expected a word or the number of its row, found {shown(key)} ({type(key).__name__})")

    def row(self, key: object) -> int:
        """The row of a key. Raises UnknownWordError, TypeError."""
        return self.rows([key])[0]  # type: ignore[list-item]

    def rows(self, keys: Key | Iterable[Key]) -> list[int]:
        """The rows of one key or of several. Raises UnknownWordError, which names all unknown keys, and TypeError."""
        asked = [keys] if is_key(keys) else listed(keys)
        found = [self.find(key) for key in asked]
        known = [row for row in found if row is not None]
        if len(known) < len(found):
            raise UnknownWordError(self.explain_unknown(key for key, row in zip(asked, found, strict=True) if row is None))
        return known

    def row_ids(self, keys: Any) -> Ids:
        """The same as an array, int64 (n,); at once for an array of rows."""
        found = np.asarray(keys) if isinstance(keys, np.ndarray | range) else np.empty(())
        if found.ndim == 1 and found.dtype.kind in "iu" and found.size and 0 <= found.min() <= found.max() < len(self.words):
            return found.astype(np.int64, copy=False)
        return np.array(self.rows(keys), np.int64)

    def explain_unknown(self, keys: Iterable[Key]) -> str:
        """A line for each of these unknown keys, with the nearest spellings in the vocabulary; for many, only the first few."""
        different = list(dict.fromkeys(keys))
        lines = [self._explain(key) for key in different[:_EXPLAINED_WORDS]]
        left = len(different) - len(lines)
        return "\n".join([*lines, f"and {left:,} more {'is' if left == 1 else 'are'} not in the vocabulary"] if left else lines)

    def _explain(self, word: Key) -> str:
        """The text of the error. Only a limited number of frequent words with the same first or last letter are compared, so it
        stays fast."""
        if not isinstance(word, str):
            return f"row {word} is not in the vocabulary of {len(self.words):,} words"
        folded = word.casefold()
        alike = (
            (known.casefold(), known)
            for known in itertools.islice(self.words, _SPELLING_WORDS)
            if known and abs(len(known) - len(word)) <= 2 and (known[0].casefold() == folded[:1] or known[-1] == folded[-1:])
        )
        candidates: dict[str, str] = {}
        for key, known in itertools.islice(alike, _SPELLING_CANDIDATES):
            candidates.setdefault(key, known)
        near = [candidates[key] for key in difflib.get_close_matches(folded, list(candidates), n=3, cutoff=0.7)]
        hint = f"nearest spellings: {', '.join(printable(word) for word in near)}" if near else "no known spelling is near"
        return f"'{printable(word)}' is not in the vocabulary of {len(self.words):,} words; {hint}"
