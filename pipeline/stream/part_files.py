"""The names of a part's files in tokens/ and shards/, for the stages that write them and those that read them.

tokens/   <stem>.tokens.parquet     token: int32, all sentences one after the other
          <stem>.sentences.parquet  length: int32, the tokens of each sentence
          <stem>.words.parquet      word: string, count: int64; the row is the id
shards/   part-<index>.arrow        token, left, right: the rows of the first epoch
          part-<index>.words.npy    what drawing needs of each of the part's words: vocabulary id and keep threshold
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline import store

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = ("token", "left", "right")
"""Columns of a shard."""


@dataclass(frozen=True)
class TokenFiles:
    """The three files of a part of tokens/, by their common path prefix."""

    stem: Path

    @classmethod
    def of(cls, tokens_path: str | Path) -> TokenFiles:
        """The files of the part whose `.tokens.parquet` is given."""
        return cls(Path(str(tokens_path).removesuffix(".tokens.parquet")))

    @property
    def tokens(self) -> Path:
        return self.stem.with_name(f"{self.stem.name}.tokens.parquet")

    @property
    def sentences(self) -> Path:
        return self.stem.with_name(f"{self.stem.name}.sentences.parquet")

    @property
    def words(self) -> Path:
        return self.stem.with_name(f"{self.stem.name}.words.parquet")

    def read_sentences(self) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """(part-local ids of all sentences one after the other, exclusive end of each sentence)."""
        ids = store.read_table(self.tokens, columns=["token"])["token"]
        lengths = store.read_table(self.sentences, columns=["length"])["length"]
        return store.numbers(ids), np.cumsum(store.numbers(lengths), dtype=np.int64)


def token_parts(tokens: store.Artefact) -> list[store.Part]:
    """The file of ids of each part of tokens/, in corpus order."""
    return [part for part in tokens.manifest.parts if part.name.endswith(".tokens.parquet")]


def part_names(tokens: store.Artefact) -> list[str]:
    """The name of each part of tokens/, in corpus order, which identifies its text and how it was tokenized."""
    return [TokenFiles.of(part.name).stem.name for part in token_parts(tokens)]


def word_parts(tokens: store.Artefact) -> list[store.Part]:
    """The file of words of each part of tokens/, in corpus order; `rows` is its number of words."""
    return [part for part in tokens.manifest.parts if part.name.endswith(".words.parquet")]


@dataclass(frozen=True)
class ShardFiles:
    """The two files of a part of shards/."""

    directory: Path
    index: int
    """Index of the part."""

    @property
    def shard(self) -> Path:
        return self.directory / f"part-{self.index:05d}.arrow"

    @property
    def words(self) -> Path:
        return self.directory / f"part-{self.index:05d}.words.npy"


def shard_parts(shards: store.Artefact) -> list[store.Part]:
    """The shards in part order; `rows` is the number of tokens kept."""
    return [part for part in shards.manifest.parts if part.name.endswith(".arrow")]


def drawn_word_parts(shards: store.Artefact) -> list[store.Part]:
    """The files of words of shards/, in part order."""
    return [part for part in shards.manifest.parts if part.name.endswith(".words.npy")]


def column(array: NDArray[Any]) -> pa.Array:
    """A NumPy array of numbers as an Arrow array, not copied; unlike `pa.array`, it never imports an installed pandas."""
    import pyarrow as pa

    array = np.ascontiguousarray(array)
    return pa.Array.from_buffers(pa.from_numpy_dtype(array.dtype), len(array), [None, pa.py_buffer(array)])
