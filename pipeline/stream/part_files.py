"""What the files of a part are called, in tokens/ and in shards/: the stages that write them and those that read them ask here.

tokens/   <stem>.tokens.parquet     token: int32, all sentences one after the other
          <stem>.sentences.parquet  length: int32, the tokens of each sentence
          <stem>.words.parquet      word: string, count: int64; the row is the id
shards/   part-<index>.arrow        token, left, right: the rows of the first epoch
          part-<index>.words.npy    of each of the part's words what drawing needs to know
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
"""Of a shard."""


@dataclass(frozen=True)
class TokenFiles:
    """The three files of a part of tokens/ that belong together, by the path they have in common."""

    stem: Path

    @classmethod
    def of(cls, tokens_path: str | Path) -> TokenFiles:
        """The files that belong to the one with the ids."""
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
    """Of each part of tokens/ the file with the ids, in corpus order."""
    return [part for part in tokens.manifest.parts if part.name.endswith(".tokens.parquet")]


def word_parts(tokens: store.Artefact) -> list[store.Part]:
    """Of each part of tokens/ the file with its words, in corpus order; `rows` are its words."""
    return [part for part in tokens.manifest.parts if part.name.endswith(".words.parquet")]


@dataclass(frozen=True)
class ShardFiles:
    """The two files of a part of shards/."""

    directory: Path
    index: int
    """Of the part."""

    @property
    def shard(self) -> Path:
        return self.directory / f"part-{self.index:05d}.arrow"

    @property
    def words(self) -> Path:
        return self.directory / f"part-{self.index:05d}.words.npy"


def shard_parts(shards: store.Artefact) -> list[store.Part]:
    """The shards in part order; `rows` are the tokens kept."""
    return [part for part in shards.manifest.parts if part.name.endswith(".arrow")]


def column(array: NDArray[Any]) -> pa.Array:
    """A NumPy array of numbers as a column, not copied. Unlike `pa.array`, which would import pandas if it is there."""
    import pyarrow as pa

    array = np.ascontiguousarray(array)
    return pa.Array.from_buffers(pa.from_numpy_dtype(array.dtype), len(array), [None, pa.py_buffer(array)])
