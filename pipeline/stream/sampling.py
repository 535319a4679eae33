"""A part's stream of an epoch, drawn: which tokens subsampling keeps, and how wide their windows are.

Both are drawn from (seed, epoch, position of the token in its part), so a stream is a pure function that any worker can
recompute. Workers draw the next epoch while they wait for each other and after finishing the current one: drawing a piece costs
less than writing, checking and mapping a file, and nothing has to be moved between disks or cleaned up
(infra/decisions/0012-later-epochs.md).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Container, Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline import store
from pipeline.cluster.state import WorkerState
from pipeline.errors import DamagedError
from pipeline.failpoints import reach
from pipeline.stream.part_files import TokenFiles
from pipeline.stream.sizes import KEPT_BYTES, PIECE_TOKENS, STREAM_BYTES
from w2v_core.windows import Stream

if TYPE_CHECKING:
    from w2v_core.kernels.cpu.window_kernels import Drawing

STEP_TOKENS = 1 << 14
"""Tokens drawn at a time while others may be waiting: less than 0.1 ms of work."""


@dataclass(frozen=True)
class PartDraw:
    """How one part's stream of one epoch is drawn. Paths only locate files; they never affect the result."""

    index: int
    """Index of the part."""
    tokens: str
    window: int
    shrink_windows: bool
    seed: int
    """Seed of the part, the same in every epoch."""
    epoch: int


@dataclass(frozen=True)
class DrawTask:
    """A part to draw in a later epoch."""

    part: PartDraw
    directory: str
    """The directory shards/."""
    words: store.Part
    """The part's `.words.npy` in it."""
    pieces: int
    """The largest number of pieces that the part can have."""
    chosen: tuple[int, ...] | None = None
    """The pieces that the epoch takes (`rehearsal`); None: all. The others are not drawn."""

    def takes(self, piece: int) -> bool:
        return self.chosen is None or piece in self.chosen

    @property
    def share(self) -> float:
        """The approximate share of the part that the epoch takes."""
        return 1.0 if self.chosen is None else len(self.chosen) / self.pieces


@dataclass(frozen=True)
class Share:
    """Some pieces of a part for one participant to draw."""

    task: DrawTask
    first: int
    stop: int | None
    """Exclusive; None for all remaining pieces."""


@dataclass(frozen=True)
class PartTokens:
    """Everything that one part's streams are drawn from."""

    local_ids_M: NDArray[np.int32]
    """Part-local ids of all sentences one after the other."""
    sentence_ends_S: NDArray[np.int64]
    """Exclusive."""
    words: NDArray[np.uint64]
    """By local id: the vocabulary id and the keep threshold, see `window_kernels.word_draws`."""

    @property
    def bytes(self) -> int:
        return self.local_ids_M.nbytes + self.sentence_ends_S.nbytes + self.words.nbytes


Sentences = tuple[NDArray[np.int32], NDArray[np.int64]]
"""(part-local ids of all sentences, one after another; exclusive end of each sentence)"""


class KeptStreams:
    """What a worker keeps in memory of the parts' streams, up to KEPT_BYTES. Nothing is evicted: every epoch reads parts in the
    same order, so evicting the oldest would drop each part just before it is needed again. Several threads may use it at once."""

    def __init__(self) -> None:
        self.sentences: dict[str, Sentences] = {}
        """The sentences of parts that this worker tokenized, until their shard is drawn, by the name of the token file."""
        self.tokens: dict[str, PartTokens] = {}
        """Kept across epochs, by the path of the part, which identifies its content. Reading takes as long as drawing."""
        self.drawn: dict[tuple[PartDraw, int], Stream] = {}
        """Pieces drawn ahead for the next epoch."""
        self.bytes = 0
        """Size of all entries."""
        self._sizes: dict[Any, int] = {}
        """Size of each entry, by its key."""
        self._lock = threading.Lock()

    def keep_sentences(self, file: str, sentences: Sentences) -> None:
        self._keep(self.sentences, file, sentences, sum(array.nbytes for array in sentences))

    def take_sentences(self, file: str) -> Sentences | None:
        """Removes and returns the sentences of a part; None if they are not kept."""
        with self._lock:
            found = self.sentences.get(file)
            self._forget(self.sentences, [file] if found else [])
            return found

    def keep_tokens(self, part: str, tokens: PartTokens) -> None:
        self._keep(self.tokens, part, tokens, tokens.bytes)

    def keep_drawn(self, part: PartDraw, piece: int, stream: Stream) -> None:
        self._keep(self.drawn, (part, piece), stream, len(stream) * STREAM_BYTES)

    def forget_drawn(self) -> None:
        """Releases the pieces drawn ahead."""
        with self._lock:
            self._forget(self.drawn, list(self.drawn))

    def keep_only(self, parts: Container[str]) -> None:
        """Releases all sentences, and the tokens of all parts except these."""
        with self._lock:
            self._forget(self.sentences, list(self.sentences))
            self._forget(self.tokens, [part for part in self.tokens if part not in parts])

    def release(self) -> None:
        with self._lock:
            for where in (self.sentences, self.tokens, self.drawn):
                self._forget(where, list(where))

    def _keep(self, where: dict[Any, Any], key: Any, value: Any, size: int) -> None:
        with self._lock:
            if key not in where and self.bytes + size <= KEPT_BYTES:
                where[key], self._sizes[key] = value, size
                self.bytes += size

    def _forget(self, where: dict[Any, Any], keys: Sequence[Any]) -> None:
        for key in keys:
            del where[key]
            self.bytes -= self._sizes.pop(key)


def draw_pieces(task: DrawTask, pieces: Sequence[int], kept: KeptStreams, *, keep: bool = False) -> list[Stream]:
    """The streams of these pieces of a part, drawn ahead or else drawn now. With `keep`, this worker will draw another epoch of
    the part, so its tokens stay in memory within KEPT_BYTES."""
    part = task.part
    found = {piece: stream for piece in pieces if (stream := kept.drawn.get((part, piece))) is not None}
    missing = [piece for piece in pieces if piece not in found]
    if missing:
        tokens = _tokens_of(task, kept, keep=keep)
        cuts = dict(enumerate(_cuts_of(task, tokens)))
        # A piece that the part does not have comes back empty, so its length tells the caller that something changed.
        drawn = _draw(part, tokens, [cuts.get(piece, slice(0, 0)) for piece in missing])
        found |= {piece: _copy(stream) for piece, stream in zip(missing, drawn, strict=True)}
    return [found[piece] for piece in pieces]


def count_rows(task: DrawTask, state: WorkerState) -> tuple[int, ...]:
    """The rows of every piece of a part; empty if the epoch takes none of its pieces."""
    if task.chosen == ():
        return ()
    tokens = _tokens_of(task, state.of(KeptStreams), keep=False)
    return tuple(map(len, _draw(task.part, tokens, _cuts_of(task, tokens))))


def most_pieces(tokens: int) -> int:
    """The number of pieces of a part of `tokens` tokens in short sentences; with long sentences there are fewer."""
    return max(1, -(-tokens // PIECE_TOKENS))


def cut_sentences(sentence_ends_S: NDArray[np.int64]) -> list[slice]:
    """The sentences of each piece of a part: up to and including the first that ends at or after the next multiple of
    PIECE_TOKENS. A part without sentences has one empty piece."""
    tokens = int(sentence_ends_S[-1]) if len(sentence_ends_S) else 0
    marks = np.arange(PIECE_TOKENS, tokens, PIECE_TOKENS)
    ends = np.unique([*(np.searchsorted(sentence_ends_S, marks) + 1), len(sentence_ends_S)]).tolist()
    return [slice(first, last) for first, last in pairwise([0, *ends])]


def _cuts_of(task: DrawTask, tokens: PartTokens) -> list[slice]:
    """The sentences of each piece of a part; an empty slice for a piece that the epoch leaves out."""
    cuts = cut_sentences(tokens.sentence_ends_S)
    return [cut if task.takes(piece) else slice(0, 0) for piece, cut in enumerate(cuts)]


def draw_all(part: PartDraw, tokens: PartTokens) -> Stream:
    """A whole part's stream of an epoch."""
    return next(_draw(part, tokens, [slice(0, len(tokens.sentence_ends_S))]))


def _draw(part: PartDraw, tokens: PartTokens, cuts: Sequence[slice]) -> Iterator[Stream]:
    for cut in cuts:
        drawing = begin_piece(part, tokens, cut)
        drawing.advance(len(tokens.local_ids_M))
        yield drawing.stream


def begin_piece(part: PartDraw, tokens: PartTokens, cut: slice) -> Drawing:
    """A `Drawing` of some sentences of a part, with nothing drawn yet."""
    from w2v_core.kernels.cpu.window_kernels import Drawing

    ends_S = tokens.sentence_ends_S
    first, last = (int(ends_S[sentence - 1]) if sentence else 0 for sentence in (cut.start, cut.stop))
    return Drawing(
        tokens.local_ids_M[first:last], ends_S[cut] - first, tokens.words, part.window, part.shrink_windows, part.seed,
        part.epoch, first,
    )  # fmt: skip


def _tokens_of(task: DrawTask, kept: KeptStreams, *, keep: bool) -> PartTokens:
    """A part's tokens, from memory or read; with `keep` they stay in memory within KEPT_BYTES."""
    tokens = kept.tokens.get(task.part.tokens) or read_part(task)
    if keep:
        kept.keep_tokens(task.part.tokens, tokens)
    return tokens


def read_part(task: DrawTask) -> PartTokens:
    """A part's sentences and, from shards/, its checked words. Raises DamagedError."""
    if damage := store.check_part(Path(task.directory), task.words):
        raise DamagedError(damage, task.directory)
    words = np.load(Path(task.directory) / task.words.name, allow_pickle=False)
    return PartTokens(*TokenFiles.of(task.part.tokens).read_sentences(), words)


# ── the next epoch ───────────────────────────────────────────────────────────────────────────────────────────────────


def share_out(tasks: Sequence[DrawTask], rows: Sequence[int], copies: Sequence[range]) -> list[tuple[Share, ...]]:
    """The pieces of all parts for every participant to draw: those that its own copies will train on most. `rows` are the
    parts' as they are expected: the middle of a piece will stand about where it stands there."""
    all_copies, kept_tokens = copies[-1].stop, sum(rows)
    participants = [index for index, own in enumerate(copies) for _ in own]
    shares: list[list[Share]] = [[] for _ in copies]
    for task, size, end in zip(tasks, rows, accumulate(rows), strict=True):
        taken = [task.takes(piece) for piece in range(task.pieces)]
        widths = zip(taken, accumulate(taken), strict=True)
        middles = [end - size + size * (2 * last - width) / (2 * max(1, sum(taken))) for width, last in widths]
        owners = [participants[min(all_copies - 1, int(middle * all_copies / max(1, kept_tokens)))] for middle in middles]
        for owner, group in groupby(range(task.pieces), key=owners.__getitem__):
            pieces = list(group)
            stop = pieces[-1] + 1
            shares[owner].append(Share(task, pieces[0], stop if stop < task.pieces else None))
    return [tuple(found) for found in shares]


class Ahead:
    """A worker's share of the next epoch: a little of it is drawn whenever the worker has to wait, the rest in `finish`. The
    pieces are kept for `draw_pieces` within KEPT_BYTES and, with `keep`, so are the tokens; those of other parts are released."""

    def __init__(self, shares: Sequence[Share], kept: KeptStreams, *, keep: bool) -> None:
        self._shares = shares
        self._kept = kept
        kept.keep_only({share.task.part.tokens for share in shares})
        self._keep = keep
        self._drawing = [self._draw_share(share) for share in shares]
        self._rows: dict[int, tuple[int, ...]] = {}
        self._at_hand: deque[int] | None = None
        """The shares that `draw_some` may still draw; None before its first call."""
        self.seconds = 0.0
        """Spent in `draw_some`."""

    def draw_some(self) -> bool:
        """Draws STEP_TOKENS tokens of a part that was in memory at the first call; whether there was one."""
        began = time.perf_counter()
        tokens = self._kept.tokens
        if self._at_hand is None:
            # Others wait: looking through all parts each time would take longer than a step, where they are many.
            self._at_hand = deque(i for i, share in enumerate(self._shares) if share.task.part.tokens in tokens)
        while self._at_hand and (self._at_hand[0] in self._rows or self._shares[self._at_hand[0]].task.part.tokens not in tokens):
            self._at_hand.popleft()
        if self._at_hand:
            self._advance(self._at_hand[0])
        self.seconds += time.perf_counter() - began
        return bool(self._at_hand)

    def finish(self, index: int) -> tuple[int, ...]:
        """The number of rows of every piece of a share, after drawing the rest of it."""
        while index not in self._rows:
            self._advance(index)
        return self._rows[index]

    def _advance(self, index: int) -> None:
        try:
            next(self._drawing[index])
        except StopIteration as end:
            self._rows[index] = end.value

    def _draw_share(self, share: Share) -> Generator[None, None, tuple[int, ...]]:
        part = share.task.part
        reach("ahead", f"{part.epoch}.{part.index}")
        if share.task.chosen == ():
            return ()
        tokens = _tokens_of(share.task, self._kept, keep=self._keep)
        rows = []
        for piece, cut in islice(enumerate(_cuts_of(share.task, tokens)), share.first, share.stop):
            drawing = begin_piece(part, tokens, cut)
            while drawing.advance(STEP_TOKENS):
                yield
            stream = _copy(drawing.stream)
            self._kept.keep_drawn(part, piece, stream)
            rows.append(len(stream))
        return tuple(rows)


def _copy(stream: Stream) -> Stream:
    """A copy without the spare room: a stream is drawn into arrays as long as all its tokens."""
    return Stream(stream.tokens_N.copy(), stream.left_N.copy(), stream.right_N.copy())
