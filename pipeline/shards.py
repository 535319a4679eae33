"""tokens/ + vocab/ → shards/: an epoch's context-target pairs as a token stream with window spans.

Columns `token:int32, left:uint8, right:uint8` after subsampling: row i is the target token[i], its context is the `left`
rows before and the `right` rows after it. One shard a part. Subsampling and window widths are drawn from
(seed, epoch, position of the token in its part), so an epoch's stream is a pure function that anyone can compute again.

    first epoch     files, the artefact of this stage: `build`, `MappedShards`
    later epochs    drawn by the worker that trains on them, in pieces: `DrawnStream`. A piece costs less to draw than a file
                    to write, to check and to map, and nothing has to reach the others' disk or be cleaned away

The strings were touched once, in tokenize. Beside its shard every part has what drawing needs to know of its words, so that
a draw costs one look-up a token.

Shards are Arrow files, not Parquet, which has no byte type and took several times as long to write and to read
(infra/decisions/0003-shard-files.md).
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, chain, groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline import store
from pipeline import vocab as vocabulary
from pipeline.config import RunConfig
from pipeline.errors import DamagedError, DataError
from pipeline.failpoints import reach
from pipeline.memory import KEPT_BYTES, PIECE_TOKENS, STREAM_BYTES
from pipeline.workers import Workers
from w2v_core.sampler import stream_seed
from w2v_core.windows import Stream, keep_thresholds

if TYPE_CHECKING:
    import pyarrow as pa

    from w2v_core.kernels.window_kernels import Drawing

STAGE = "shards"
STAGE_VERSION = 5
COLUMNS = ("token", "left", "right")
SHARD, WORDS = ".arrow", ".words.npy"
"""Endings of a part's two files: its rows, and of each of its words id and threshold as `window_kernels` wants them."""
STEP_TOKENS = 1 << 14
"""Tokens drawn at a time where others may have to wait for it: less than 0.1 ms."""
_SEED_PATH = 1
"""First step of every seed path here, so that no other use of the run's seed draws the same numbers."""


@dataclass(frozen=True)
class PartDraw:
    """How one part's stream of one epoch is drawn. Paths say where to find things, never what is drawn."""

    index: int
    """Of the part."""
    tokens: str
    window: int
    shrink_windows: bool
    seed: int
    """Of the part, the same in every epoch."""
    epoch: int


@dataclass(frozen=True)
class DrawTask:
    """A part to draw in a later epoch."""

    part: PartDraw
    directory: str
    """Of the first epoch's shards."""
    words: store.Part
    """What lies there of the part's words."""


@dataclass(frozen=True)
class ShardTask:
    """A part to draw and write in the first epoch."""

    part: PartDraw
    vocab: str
    vocab_fingerprint: str
    directory: str
    """Where its files are written."""


def identity(config: RunConfig, tokens: store.Artefact, vocab: store.Artefact) -> tuple[str, dict[str, Any], tuple[str, ...]]:
    """(fingerprint, fields read, inputs) of the first epoch's shards."""
    fields = config.shards.model_dump() | {"seed": config.run.seed, "epoch": 0}
    inputs = (tokens.fingerprint, vocab.fingerprint)
    return store.fingerprint(STAGE, STAGE_VERSION, fields, inputs), fields, inputs


def build(config: RunConfig, tokens: store.Artefact, vocab: store.Artefact, workers: Workers, workdir: Path) -> store.Artefact:
    """The committed shards of the first epoch; raises DataError when subsampling leaves no token."""
    fingerprint, fields, inputs = identity(config, tokens, vocab)
    directory = store.artefact_directory(workdir, STAGE, fingerprint)
    tasks = [
        ShardTask(part, str(vocab.path(vocabulary.WORDS)), vocab.fingerprint, str(directory))
        for part in plan_parts(config, tokens, epoch=0)
    ]
    made = workers.map(make_shard, tasks, label="shards of epoch 0")
    kept_tokens = sum(shard.rows for shard, _ in made)
    refuse_empty(config, kept_tokens, tokens)
    return store.commit(
        workdir,
        store.Manifest(
            stage=STAGE, fingerprint=fingerprint, parts=tuple(chain(*made)), fields=fields, inputs=inputs,
            totals={"kept_tokens": kept_tokens, "tokens": vocab.manifest.totals["tokens"], "epoch": 0},
        ),
    )  # fmt: skip


def refuse_empty(config: RunConfig, kept_tokens: int, tokens: store.Artefact) -> None:
    """Raises DataError when subsampling leaves no token of an epoch."""
    if kept_tokens == 0:
        raise DataError(
            f"shards: subsampling with shards.sample={config.shards.sample:g} left none of {tokens.manifest.totals['tokens']:,} "
            "tokens; raise shards.sample or set it to 0 to keep all"
        )


def plan_draws(config: RunConfig, tokens: store.Artefact, shards: store.Artefact, epoch: int) -> list[DrawTask]:
    """The draws of a later epoch, in part order; `shards` are the first epoch's."""
    return [
        DrawTask(part, str(shards.directory), shards.part(f"part-{part.index:05d}{WORDS}"))
        for part in plan_parts(config, tokens, epoch)
    ]


def plan_parts(config: RunConfig, tokens: store.Artefact, epoch: int) -> list[PartDraw]:
    """How every part is drawn for an epoch, in part order."""
    names = [part.name for part in tokens.manifest.parts if part.name.endswith(".tokens.parquet")]
    return [
        PartDraw(
            index=index,
            tokens=str(tokens.directory / name),
            window=config.shards.window,
            shrink_windows=config.shards.shrink_windows,
            seed=stream_seed(config.run.seed, _SEED_PATH, index),
            epoch=epoch,
        )
        for index, name in enumerate(names)
    ]


# ── drawing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class PartTokens:
    """All that one part's streams are drawn from."""

    local_ids_M: NDArray[np.int32]
    """Part-local ids of all sentences one after the other."""
    sentence_ends_S: NDArray[np.int64]
    """Exclusive."""
    words: NDArray[np.uint64]
    """By local id: vocabulary's id and keep threshold, see `window_kernels.word_draws`."""

    @property
    def bytes(self) -> int:
        return self.local_ids_M.nbytes + self.sentence_ends_S.nbytes + self.words.nbytes


def make_shard(task: ShardTask) -> tuple[store.Part, store.Part]:
    """Writes one part's shard and what later epochs are drawn with; the same bytes wherever and however often it runs."""
    import pyarrow as pa

    from w2v_core.kernels.window_kernels import word_draws

    part = task.part
    part_words = store.read_table(Path(part.tokens.replace(".tokens.", ".words.")), columns=["word"])["word"]
    vocabulary_words, thresholds_V = _vocabulary(task.vocab, task.vocab_fingerprint)
    words = word_draws(global_ids(part_words, vocabulary_words), thresholds_V)
    tokens = PartTokens(*read_sentences(Path(part.tokens)), words)
    (stream,) = _draw(part, tokens, [slice(0, len(tokens.sentence_ends_S))])
    table = pa.table(dict(zip(COLUMNS, (stream.tokens_N, stream.left_N, stream.right_N), strict=True)))
    name = Path(task.directory) / f"part-{part.index:05d}"
    shard = store.write_arrow(name.with_suffix(SHARD), table, durable=False)
    return shard, store.write_array(name.with_suffix(WORDS), words, durable=False)


def draw_pieces(task: DrawTask, pieces: Sequence[int] | None = None, *, keep: bool = False) -> list[Stream]:
    """The streams of these pieces of a part, of all if None: what was drawn ahead, or drawn now. `keep`: this process will be
    asked for another epoch of the part, so its tokens stay in memory, as far as they may."""
    part = task.part
    if pieces is not None and all((part, piece) in _drawn for piece in pieces):
        return [_drawn[part, piece] for piece in pieces]
    tokens = _tokens_of(task, keep=keep)
    cuts = dict(enumerate(cut_sentences(tokens.sentence_ends_S)))
    # A piece that the part does not have is empty: whoever asked for it sees that it is not what was counted.
    drawn = _draw(part, tokens, [cuts.get(piece, slice(0, 0)) for piece in (cuts if pieces is None else pieces)])
    return [_copy(stream) for stream in drawn]


def count_rows(task: DrawTask) -> tuple[int, ...]:
    """Rows of every piece of a part."""
    return tuple(map(len, draw_pieces(task)))


def cut_sentences(sentence_ends_S: NDArray[np.int64]) -> list[slice]:
    """Which sentences are in each piece of a part: whole ones, up to the first that ends at or behind the next multiple of
    PIECE_TOKENS. A part without sentences has one empty piece."""
    tokens = int(sentence_ends_S[-1]) if len(sentence_ends_S) else 0
    marks = np.arange(PIECE_TOKENS, tokens, PIECE_TOKENS)
    ends = np.unique([*(np.searchsorted(sentence_ends_S, marks) + 1), len(sentence_ends_S)]).tolist()
    return [slice(first, last) for first, last in pairwise([0, *ends])]


def _draw(part: PartDraw, tokens: PartTokens, cuts: Sequence[slice]) -> Iterator[Stream]:
    for cut in cuts:
        drawing = _begin(part, tokens, cut)
        drawing.advance(len(tokens.local_ids_M))
        yield drawing.stream


def _begin(part: PartDraw, tokens: PartTokens, cut: slice) -> Drawing:
    from w2v_core.kernels.window_kernels import Drawing

    ends_S = tokens.sentence_ends_S
    first, last = (int(ends_S[sentence - 1]) if sentence else 0 for sentence in (cut.start, cut.stop))
    return Drawing(
        tokens.local_ids_M[first:last], ends_S[cut] - first, tokens.words, part.window, part.shrink_windows, part.seed,
        part.epoch, first,
    )  # fmt: skip


def _tokens_of(task: DrawTask, *, keep: bool) -> PartTokens:
    """A part's tokens, kept or read; with `keep` they stay in memory, as far as they may."""
    tokens = _tokens.get(task.part.tokens) or read_part(task)
    if keep:
        _keep(_tokens, task.part.tokens, tokens, tokens.bytes)
    return tokens


def read_part(task: DrawTask) -> PartTokens:
    """What the first epoch's shards say of a part's words, checked, and its sentences."""
    if damage := store.check_part(Path(task.directory), task.words):
        raise DamagedError(damage, task.directory)
    words = np.load(Path(task.directory) / task.words.name, allow_pickle=False)
    return PartTokens(*read_sentences(Path(task.part.tokens)), words)


@lru_cache(maxsize=2)
def _vocabulary(path: str, fingerprint: str) -> tuple[pa.Array, NDArray[np.uint32]]:
    """(words in id order, keep thresholds), read once a worker process; `fingerprint` makes the cache key exact."""
    table = store.read_table(Path(path), columns=["word", "keep_probability"])
    return table["word"].combine_chunks(), keep_thresholds(store.numbers(table["keep_probability"]))


def global_ids(part_words: pa.ChunkedArray, words: pa.Array) -> NDArray[np.int32]:
    """The vocabulary's id of each part-local word, −1 where it has none."""
    import pyarrow.compute as pc

    found = pc.fill_null(pc.index_in(part_words, value_set=words), -1)
    return np.asarray(store.numbers(found), dtype=np.int32)


def read_sentences(path: Path) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """(part-local ids of all sentences one after the other, exclusive end of each sentence) of one part of tokens/."""
    ids = store.read_table(path, columns=["token"])["token"]
    lengths = store.read_table(path.with_name(path.name.replace(".tokens.", ".sentences.")), columns=["length"])["length"]
    return store.numbers(ids), np.cumsum(store.numbers(lengths), dtype=np.int64)


# ── the next epoch ───────────────────────────────────────────────────────────────────────────────────────────────────


class Ahead:
    """A process's share of the next epoch: a little of it is drawn whenever the process has to wait anyway, the rest when
    asked for. The pieces stay in memory for `draw_pieces`, as far as they may, and so, with `keep`, do the tokens."""

    def __init__(self, tasks: Sequence[DrawTask], *, keep: bool) -> None:
        self._tasks = tasks
        self._keep = keep
        self._drawing = [self._draw_part(task) for task in tasks]
        self._rows: dict[int, tuple[int, ...]] = {}
        self.seconds = 0.0
        """Spent in `draw_some`."""

    def draw_some(self) -> bool:
        """Draws STEP_TOKENS tokens, if there are some whose part need not be read first; whether there were."""
        began = time.perf_counter()
        at_hand = (i for i, task in enumerate(self._tasks) if i not in self._rows and task.part.tokens in _tokens)
        index = next(at_hand, None)
        if index is not None:
            self._advance(index)
        self.seconds += time.perf_counter() - began
        return index is not None

    def finish(self, index: int) -> tuple[int, ...]:
        """Rows of every piece of a task's part, when what is left of it is drawn."""
        while index not in self._rows:
            self._advance(index)
        return self._rows[index]

    def _advance(self, index: int) -> None:
        try:
            next(self._drawing[index])
        except StopIteration as end:
            self._rows[index] = end.value

    def _draw_part(self, task: DrawTask) -> Generator[None, None, tuple[int, ...]]:
        part = task.part
        reach("ahead", f"{part.epoch}.{part.index}")
        tokens = _tokens_of(task, keep=self._keep)
        rows = []
        for piece, cut in enumerate(cut_sentences(tokens.sentence_ends_S)):
            drawing = _begin(part, tokens, cut)
            while drawing.advance(STEP_TOKENS):
                yield
            stream = _copy(drawing.stream)
            _keep(_drawn, (part, piece), stream, len(stream) * STREAM_BYTES)
            rows.append(len(stream))
        return tuple(rows)


def _copy(stream: Stream) -> Stream:
    """A stream is drawn into arrays for all its tokens; what is held is to be no more than what was kept."""
    return Stream(stream.tokens_N.copy(), stream.left_N.copy(), stream.right_N.copy())


# ── what a process keeps ─────────────────────────────────────────────────────────────────────────────────────────────

_tokens: dict[str, PartTokens] = {}
"""From epoch to epoch, by the path of the part, which names its content. Reading takes as long as drawing."""
_drawn: dict[tuple[PartDraw, int], Stream] = {}
"""Pieces of the epoch that was drawn ahead."""
_kept_bytes: dict[Any, int] = {}
"""Of both, by their keys."""
_keeping = threading.Lock()


def _keep(where: dict[Any, Any], key: Any, value: Any, size: int) -> None:
    """What came first stays: every epoch asks in the same order, and to make room would drop each part just before it is
    needed again."""
    with _keeping:
        if key not in where and sum(_kept_bytes.values()) + size <= KEPT_BYTES:
            where[key], _kept_bytes[key] = value, size


def forget_drawn() -> None:
    """Gives back the memory of the pieces drawn ahead."""
    for key in _drawn:
        del _kept_bytes[key]
    _drawn.clear()


def forget_all() -> None:
    """Gives back all memory that this module keeps in this process."""
    _tokens.clear()
    _drawn.clear()
    _kept_bytes.clear()


# ── an epoch's stream ────────────────────────────────────────────────────────────────────────────────────────────────


class Source(Protocol):
    """An epoch's stream in units that are loaded one by one; plain data that travels to the workers."""

    def rows(self) -> Sequence[int]:
        """Of every unit, in stream order."""
        ...

    def load(self, units: Sequence[int]) -> Iterator[list[Stream]]:
        """Each unit's rows, in one or more runs of memory."""
        ...


@dataclass(frozen=True)
class MappedShards:
    """The first epoch's files: a unit is a file, mapped and used where it lies, after a check against its SHA-256."""

    shards: store.Artefact

    @property
    def files(self) -> list[store.Part]:
        return [part for part in self.shards.manifest.parts if part.name.endswith(SHARD)]

    def rows(self) -> list[int]:
        return [file.rows for file in self.files]

    def load(self, units: Sequence[int]) -> Iterator[list[Stream]]:
        files = self.files
        for unit in units:
            table = store.map_arrow(self.shards.directory, files[unit])
            yield [Stream(*(store.numbers(batch.column(name)) for name in COLUMNS)) for batch in table.to_batches()]


@dataclass(frozen=True)
class DrawnStream:
    """A later epoch: a unit is a piece of a part, drawn where it is needed."""

    tasks: tuple[DrawTask, ...]
    """Of every part."""
    rows_of_pieces: tuple[tuple[int, ...], ...]
    """Of each part."""
    keep: bool
    """Another epoch follows, so sentences that are read may stay in memory."""

    def rows(self) -> list[int]:
        return [rows for pieces in self.rows_of_pieces for rows in pieces]

    def load(self, units: Sequence[int]) -> Iterator[list[Stream]]:
        places = [(part, piece) for part, pieces in enumerate(self.rows_of_pieces) for piece in range(len(pieces))]
        for index, group in groupby((places[unit] for unit in units), key=lambda place: place[0]):
            pieces = [piece for _, piece in group]
            task = self.tasks[index]
            for piece, stream in zip(pieces, draw_pieces(task, pieces, keep=self.keep), strict=True):
                counted = self.rows_of_pieces[index][piece]
                if len(stream) != counted:
                    raise DamagedError(
                        f"{task.part.tokens}: {counted:,} tokens of piece {piece} were kept when they were counted, now "
                        f"{len(stream):,}; the file was changed meanwhile",
                        str(Path(task.part.tokens).parent),
                    )
                yield [stream]


class Rows:
    """The rows of an epoch by their position in the epoch's stream."""

    def __init__(self, source: Source, halo: int) -> None:
        """`halo`: rows of context that a range may need on either side."""
        self._source = source
        self._halo = halo
        self._starts = [0, *accumulate(source.rows())]
        self._held: dict[int, list[tuple[int, Stream]]] = {}

    def hold(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Loads these ranges [start, stop) now, and lets go of all others. Lanes do that together; otherwise each would load a
        unit when it comes to it, and the others would wait."""
        units = sorted({unit for start, stop in ranges for unit in self._units(start - self._halo, stop + self._halo)})
        self._held = {unit: self._held[unit] for unit in units if unit in self._held}
        self._load(units)

    def _units(self, low: int, high: int) -> range:
        """Those that have rows in [low, high)."""
        return range(bisect_right(self._starts, max(0, low)) - 1, bisect_left(self._starts, high, hi=len(self._starts) - 1))

    def between(self, start: int, stop: int) -> tuple[Stream, int, int]:
        """(stream, first, last): rows [start, stop) as rows [first, last) of a stream that holds up to `halo` more on
        either side. Nothing is copied unless the range spans several runs of memory."""
        low, high = max(0, start - self._halo), min(self._starts[-1], stop + self._halo)
        pieces = list(self._pieces(low, high))
        if len(pieces) == 1:
            stream = pieces[0]
        else:
            columns = zip(*((piece.tokens_N, piece.left_N, piece.right_N) for piece in pieces), strict=True)
            stream = Stream(*(np.concatenate(column) for column in columns))
        return stream, start - low, min(stop, high) - low

    def _pieces(self, low: int, high: int) -> Iterator[Stream]:
        units = self._units(low, high)
        self._load(units)
        for unit in units:
            for begin, piece in self._held[unit]:
                first, last = max(low, begin), min(high, begin + len(piece))
                if first < last:
                    inside = slice(first - begin, last - begin)
                    yield Stream(piece.tokens_N[inside], piece.left_N[inside], piece.right_N[inside])

    def _load(self, units: Sequence[int]) -> None:
        missing = [unit for unit in units if unit not in self._held]
        if not missing:
            return
        for unit, streams in zip(missing, self._source.load(missing), strict=True):
            starts = accumulate(map(len, streams), initial=self._starts[unit])
            self._held[unit] = list(zip(starts, streams, strict=False))
