"""tokens/ + vocab/ → shards/: one epoch's context-target pairs as a token stream with window spans.

Columns `token:int32, left:uint8, right:uint8` after subsampling: row i is the target token[i], its context is the `left`
rows before and the `right` rows after it. One shard a part, one shard set an epoch: subsampling and window widths are
drawn from (seed, epoch, part). The strings were touched once, in tokenize; a shard costs one gather per part.

Shards are Arrow files, not Parquet: they are read once and deleted, and Parquet, which has no byte type, took several
times as long to write and to read (infra/decisions/0003-shard-files.md).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline import store
from pipeline import vocab as vocabulary
from pipeline.config import RunConfig
from pipeline.errors import DataError
from pipeline.memory import KEPT_BYTES
from pipeline.workers import Workers
from w2v_core.sampler import stream_seed
from w2v_core.windows import Stream, keep_thresholds

if TYPE_CHECKING:
    import pyarrow as pa

STAGE = "shards"
STAGE_VERSION = 4
COLUMNS = ("token", "left", "right")
_SEED_PATH = 1
"""First step of every seed path here, so that no other use of the run's seed draws the same numbers."""


@dataclass(frozen=True)
class ShardTask:
    """One part's shard for one epoch. Paths say where to find things, never what is made."""

    tokens: str
    words: str
    vocab: str
    vocab_fingerprint: str
    target: str
    window: int
    shrink_windows: bool
    seed: int
    """Of the part, the same in every epoch."""
    epoch: int


def identity(
    config: RunConfig, tokens: store.Artefact, vocab: store.Artefact, epoch: int
) -> tuple[str, dict[str, Any], tuple[str, ...]]:
    """(fingerprint, fields read, inputs) of one epoch's shards."""
    fields = config.shards.model_dump() | {"seed": config.run.seed, "epoch": epoch}
    inputs = (tokens.fingerprint, vocab.fingerprint)
    return store.fingerprint(STAGE, STAGE_VERSION, fields, inputs), fields, inputs


def build(
    config: RunConfig, tokens: store.Artefact, vocab: store.Artefact, epoch: int, workers: Workers, workdir: Path
) -> store.Artefact:
    """The committed shards of one epoch; raises DataError when subsampling leaves no token."""
    tasks = plan_shards(config, tokens, vocab, epoch, workdir)
    return commit_shards(config, tokens, vocab, epoch, workers.map(make_shard, tasks, label=f"shards of epoch {epoch}"), workdir)


def plan_shards(config: RunConfig, tokens: store.Artefact, vocab: store.Artefact, epoch: int, workdir: Path) -> list[ShardTask]:
    """One task a part, in part order."""
    directory = store.artefact_directory(workdir, STAGE, identity(config, tokens, vocab, epoch)[0])
    names = [part.name for part in tokens.manifest.parts if part.name.endswith(".tokens.parquet")]
    return [
        ShardTask(
            tokens=str(tokens.directory / name),
            words=str(tokens.directory / name.replace(".tokens.parquet", ".words.parquet")),
            vocab=str(vocab.path(vocabulary.WORDS)),
            vocab_fingerprint=vocab.fingerprint,
            target=str(directory / f"part-{index:05d}.arrow"),
            window=config.shards.window,
            shrink_windows=config.shards.shrink_windows,
            seed=stream_seed(config.run.seed, _SEED_PATH, index),
            epoch=epoch,
        )
        for index, name in enumerate(names)
    ]


def commit_shards(
    config: RunConfig, tokens: store.Artefact, vocab: store.Artefact, epoch: int, parts: list[store.Part], workdir: Path
) -> store.Artefact:
    """The artefact of shards that are all written."""
    fingerprint, fields, inputs = identity(config, tokens, vocab, epoch)
    kept_tokens = sum(part.rows for part in parts)
    if kept_tokens == 0:
        raise DataError(
            f"shards: subsampling with shards.sample={config.shards.sample:g} left none of {vocab.manifest.totals['tokens']:,} "
            "tokens; raise shards.sample or set it to 0 to keep all"
        )
    return store.commit(
        workdir,
        store.Manifest(
            stage=STAGE, fingerprint=fingerprint, parts=tuple(parts), fields=fields, inputs=inputs,
            totals={"kept_tokens": kept_tokens, "tokens": vocab.manifest.totals["tokens"], "epoch": epoch},
        ),
    )  # fmt: skip


def make_shard(task: ShardTask, *, keep: bool = False) -> store.Part:
    """Writes one part's shard; the same bytes wherever and however often it runs. `keep`: this process will be asked for
    the part again, so its sentences stay in memory, up to KEPT_BYTES of all parts."""
    import pyarrow as pa

    from w2v_core.kernels.window_kernels import draw_stream

    ids, thresholds_V = _part_vocabulary(task.words, task.vocab, task.vocab_fingerprint)
    local_ids_M, sentence_ends_S = _kept.get(task.tokens) or read_sentences(Path(task.tokens))
    if keep:
        _keep(task.tokens, (local_ids_M, sentence_ends_S))
    stream = draw_stream(
        local_ids_M, sentence_ends_S, ids, thresholds_V, task.window, task.shrink_windows, task.seed, task.epoch
    )  # fmt: skip
    table = pa.table(dict(zip(COLUMNS, (stream.tokens_N, stream.left_N, stream.right_N), strict=True)))
    return store.write_arrow(Path(task.target), table, durable=False)


@lru_cache(maxsize=64)
def _part_vocabulary(words: str, vocab: str, vocab_fingerprint: str) -> tuple[NDArray[np.int32], NDArray[np.uint32]]:
    """(vocabulary's id of each part-local word, keep thresholds): a worker meets the same part again every epoch."""
    vocabulary_words, thresholds_V = _vocabulary(vocab, vocab_fingerprint)
    return global_ids(store.read_table(Path(words), columns=["word"])["word"], vocabulary_words), thresholds_V


@lru_cache(maxsize=2)
def _vocabulary(path: str, fingerprint: str) -> tuple[pa.Array, NDArray[np.uint32]]:
    """(words in id order, keep thresholds), read once a worker process; `fingerprint` makes the cache key exact."""
    table = store.read_table(Path(path), columns=["word", "keep_probability"])
    return table["word"].combine_chunks(), keep_thresholds(table["keep_probability"].to_numpy())


def global_ids(part_words: pa.ChunkedArray, words: pa.Array) -> NDArray[np.int32]:
    """The vocabulary's id of each part-local word, −1 where it has none."""
    import pyarrow.compute as pc

    found = pc.fill_null(pc.index_in(part_words, value_set=words), -1)
    return np.asarray(found.combine_chunks().to_numpy(zero_copy_only=False), dtype=np.int32)


Sentences = tuple[NDArray[np.int32], NDArray[np.int64]]
_kept: dict[str, Sentences] = {}
"""What this process keeps from epoch to epoch, by the path of the part, which names its content. Reading it is a third of
making a shard."""


def _keep(path: str, sentences: Sentences) -> None:
    """What came first stays: every epoch asks in the same order, and to make room would drop each part just before it is
    needed again."""
    if path not in _kept and sum(array.nbytes for known in (*_kept.values(), sentences) for array in known) <= KEPT_BYTES:
        _kept[path] = sentences


def forget_sentences() -> None:
    """Gives back the memory of what `make_shard` kept."""
    _kept.clear()


def read_sentences(path: Path) -> Sentences:
    """(part-local ids of all sentences one after the other, exclusive end of each sentence) of one part of tokens/."""
    ids = store.read_table(path, columns=["token"])["token"]
    lengths = store.read_table(path.with_name(path.name.replace(".tokens.", ".sentences.")), columns=["length"])["length"]
    return ids.combine_chunks().to_numpy(), np.cumsum(lengths.to_numpy(), dtype=np.int64)


class Rows:
    """The rows of an epoch's shards by their position in the epoch's stream.

    Files are mapped and their columns used where they lie; each file was checked against its SHA-256.
    """

    def __init__(self, shards: store.Artefact, halo: int) -> None:
        """`halo`: rows of context that a range may need on either side."""
        self._shards = shards
        self._halo = halo
        self._part_starts = [0, *accumulate(part.rows for part in shards.manifest.parts)]
        self._opened: dict[int, list[tuple[int, Stream]]] = {}

    def open(self, start: int, stop: int) -> None:
        """Maps and checks the files of rows [start, stop) now. Lanes do that together at the beginning of a round; otherwise
        each would do it when it comes to a file, and the others would wait for it."""
        for index, (first, last) in enumerate(pairwise(self._part_starts)):
            if max(0, start - self._halo) < last and first < stop + self._halo:
                self._pieces_of_part(index)

    def between(self, start: int, stop: int) -> tuple[Stream, int, int]:
        """(stream, first, last): rows [start, stop) as rows [first, last) of a stream that holds up to `halo` more on
        either side. Nothing is copied unless the range spans several pieces of a file."""
        low, high = max(0, start - self._halo), min(self._part_starts[-1], stop + self._halo)
        pieces = list(self._pieces(low, high))
        if len(pieces) == 1:
            stream = pieces[0]
        else:
            columns = zip(*((piece.tokens_N, piece.left_N, piece.right_N) for piece in pieces), strict=True)
            stream = Stream(*(np.concatenate(column) for column in columns))
        return stream, start - low, min(stop, high) - low

    def _pieces(self, low: int, high: int) -> Iterator[Stream]:
        for index in range(bisect_right(self._part_starts, low) - 1, len(self._shards.manifest.parts)):
            if self._part_starts[index] >= high:
                return
            for begin, piece in self._pieces_of_part(index):
                first, last = max(low, begin), min(high, begin + len(piece))
                if first < last:
                    inside = slice(first - begin, last - begin)
                    yield Stream(piece.tokens_N[inside], piece.left_N[inside], piece.right_N[inside])

    def _pieces_of_part(self, index: int) -> list[tuple[int, Stream]]:
        """(position of its first row, columns) of every piece that the part's file holds in one run of memory."""
        if index not in self._opened:
            table = store.map_arrow(self._shards.directory, self._shards.manifest.parts[index])
            batches = table.to_batches()
            starts = accumulate((batch.num_rows for batch in batches), initial=self._part_starts[index])
            self._opened[index] = [
                (start, Stream(*(batch.column(name).to_numpy() for name in COLUMNS)))
                for start, batch in zip(starts, batches, strict=False)
            ]
        return self._opened[index]
