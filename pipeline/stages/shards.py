"""tokens/ + vocab/ → shards/: the first epoch's context-target pairs as a token stream with window spans.

Columns `token:int32, left:uint8, right:uint8` after subsampling: row i is the target token[i]; its context is the `left`
rows before it and the `right` rows after it. There is one shard per part. A second file per part holds what drawing needs of its
words, so that drawing costs one look-up per token; the strings themselves are only handled in tokenize.

    first epoch     files, the artefact of this stage
    later epochs    drawn from the same parts by the workers that train on them (`stream.sampling`, `stream.epoch_stream`)

Shards are Arrow files rather than Parquet, which has no byte type and took several times as long to write and read
(infra/decisions/0003-shard-files.md).
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline import store
from pipeline.cluster.state import WithState, WorkerState
from pipeline.config import RunConfig
from pipeline.errors import DataError
from pipeline.stages import vocab as vocabulary
from pipeline.stages.work import Done, Identity, Told, Work
from pipeline.stream import sampling
from pipeline.stream.mapped_files import HashedFiles, write_arrow
from pipeline.stream.part_files import COLUMNS, ShardFiles, TokenFiles, column, drawn_word_parts, part_names, token_parts
from pipeline.stream.rehearsal import choose_pieces, lengths
from pipeline.stream.sampling import DrawTask, KeptStreams, PartDraw, PartTokens
from pipeline.text.losses import percent
from w2v_core.sampler import stream_seed
from w2v_core.windows import keep_thresholds

if TYPE_CHECKING:
    import pyarrow as pa

STAGE = "shards"
STAGE_VERSION = 6
_LITTLE = 0.2
"""If subsampling keeps less than this share of the tokens, there is a note."""
_FEW_EXAMPLES = 1000
_SEED_PATH = 1
"""First element of every seed path here, so that no other use of the run's seed draws the same numbers."""


@dataclass(frozen=True)
class ShardTask:
    """A part to draw and write in the first epoch."""

    part: PartDraw
    vocab: str
    vocab_fingerprint: str
    directory: str
    """Destination of its files."""
    keep: bool
    """Several epochs will be drawn from its tokens, so they stay in memory within KEPT_BYTES."""


class MadeShard(NamedTuple):
    """The files made for a part."""

    shard: store.Part
    words: store.Part
    examples: int
    """Number of rows with a context."""


def identity(config: RunConfig, tokens: store.Artefact, vocab: store.Artefact) -> Identity:
    """(fingerprint, fields read, inputs) of the first epoch's shards."""
    fields = config.shards.model_dump() | {"seed": config.run.seed, "epoch": 0}
    inputs = (tokens.fingerprint, vocab.fingerprint)
    return store.fingerprint(STAGE, STAGE_VERSION, fields, inputs), fields, inputs


def build(work: Work, tokens: store.Artefact, vocab: store.Artefact) -> store.Artefact:
    """The committed shards of the first epoch; raises DataError if subsampling leaves no tokens, or none with a context."""
    config, workdir = work.config, work.workdir
    fingerprint, fields, inputs = identity(config, tokens, vocab)
    directory = store.artefact_directory(workdir, STAGE, fingerprint)
    tasks = [
        ShardTask(part, str(vocab.path(vocabulary.WORDS)), vocab.fingerprint, str(directory), keep=config.train.epochs > 2)
        for part in plan_parts(config, tokens, epoch=0)
    ]
    made = work.workers.map(WithState(make_shard), tasks, label="shards of epoch 0")
    kept_tokens, examples = sum(found.shard.rows for found in made), sum(found.examples for found in made)
    refuse_empty(config, kept_tokens, tokens)
    sample = vocabulary.chosen_sample(config, tokens)
    _refuse_without_context(sample, kept_tokens, examples, tokens)
    all_tokens = vocab.manifest.totals["tokens"]
    parts = tuple(chain.from_iterable((found.shard, found.words) for found in made))
    return store.commit(
        workdir,
        store.Manifest(
            stage=STAGE, fingerprint=fingerprint, parts=parts, fields=fields, inputs=inputs,
            totals={
                "kept_tokens": kept_tokens, "tokens": all_tokens, "examples": examples, "sample": sample, "epoch": 0,
                "notes": list(_notes(sample, config.shards.sample is not None, kept_tokens, all_tokens, examples)),
            },
        ),
    )  # fmt: skip


def describe(done: Done) -> Told:
    totals = done.totals
    kept, whole = totals["kept_tokens"], totals["tokens"]
    return Told(
        f"{kept:,} of {whole:,} tokens kept ({percent(kept / max(1, whole))})",
        tokens=totals["tokens"],
        sections={"shards": dict(totals)},
    )


def refuse_empty(config: RunConfig, kept_tokens: int, tokens: store.Artefact) -> None:
    """Raises DataError if subsampling leaves no tokens of an epoch."""
    if kept_tokens == 0:
        raise DataError(
            f"shards: subsampling with shards.sample={vocabulary.chosen_sample(config, tokens):g} left none of "
            f"{tokens.manifest.totals['tokens']:,} tokens; raise shards.sample or set it to 0 to keep all"
        )


def _refuse_without_context(sample: float, kept_tokens: int, examples: int, tokens: store.Artefact) -> None:
    """Raises DataError if no token has a context, so that there is nothing to learn from."""
    if examples:
        return
    totals = tokens.manifest.totals
    if totals["tokens"] == totals["sentences"]:
        raise DataError(
            f"shards: no word has a context: each of the {totals['sentences']:,} lines holds one word, and windows stop at the "
            "end of a line; give a corpus with a sentence or a paragraph per line, or let windows cross lines with "
            "tokenize.tokenizer: whitespace and tokenize.end_of_line"
        )
    raise DataError(
        f"shards: no word has a context: of {totals['tokens']:,} tokens {kept_tokens:,} are left by vocab.min_count and "
        f"shards.sample={sample:g}, each alone on its line; lower vocab.min_count, or set shards.sample to 0 to keep every token"
    )


def _notes(sample: float, given: bool, kept_tokens: int, tokens: int, examples: int) -> Iterator[str]:
    """Notes for a corpus that leaves little to train on."""
    if kept_tokens < _LITTLE * tokens:
        yield (
            f"only {kept_tokens:,} of {tokens:,} tokens ({percent(kept_tokens / tokens)}) are trained on in an epoch: "
            f"shards.sample={sample:g} leaves out the rest; "
            + ("remove the key to have it chosen by the corpus's size, or " if given else "its words are few and frequent: ")
            + "set it to 0 to keep all"
        )
    if examples < _FEW_EXAMPLES:
        yield (
            f"only {examples:,} tokens of an epoch have a context to learn from, so vectors will be hardly better than random; "
            "give more text, lower vocab.min_count, or raise train.epochs"
        )


def plan_draws(
    config: RunConfig, tokens: store.Artefact, shards: store.Artefact, epoch: int, known: Collection[str] = ()
) -> list[DrawTask]:
    """The draws of a later epoch, in part order. `shards` are the first epoch's; `known` are the names (`part_names`) of the
    parts that the vectors at training's start were trained on."""
    chosen = choose_pieces(*_pieces(tokens, known), config.train.rehearse, epoch)
    return [
        DrawTask(part, str(shards.directory), words, sampling.most_pieces(file.tokens), pieces)
        for part, words, file, pieces in zip(
            plan_parts(config, tokens, epoch), drawn_word_parts(shards), token_parts(tokens), chosen, strict=True
        )
    ]


def epoch_lengths(config: RunConfig, tokens: store.Artefact, known: Collection[str]) -> tuple[float, ...]:
    """The share of the text that each epoch takes, as chosen by `plan_draws`; empty if every epoch takes all of it."""
    sizes, (pieces, numbers) = [file.tokens for file in token_parts(tokens)], _pieces(tokens, known)
    return lengths(sizes, pieces, numbers, config.train.rehearse, config.train.epochs)


def _pieces(tokens: store.Artefact, known: Collection[str]) -> tuple[list[int], set[int]]:
    """(number of pieces of every part, the numbers of the known parts)."""
    pieces = [sampling.most_pieces(file.tokens) for file in token_parts(tokens)]
    return pieces, {number for number, name in enumerate(part_names(tokens)) if name in known}


def plan_parts(config: RunConfig, tokens: store.Artefact, epoch: int) -> list[PartDraw]:
    """How every part is drawn for an epoch, in part order."""
    return [
        PartDraw(
            index=index,
            tokens=str(tokens.directory / file.name),
            window=config.shards.window,
            shrink_windows=config.shards.shrink_windows,
            seed=stream_seed(config.run.seed, _SEED_PATH, index),
            epoch=epoch,
        )
        for index, file in enumerate(token_parts(tokens))
    ]


# ── one part ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def make_shard(task: ShardTask, state: WorkerState) -> MadeShard:
    """Writes one part's shard and the file of words for later epochs; the same bytes wherever and however often it runs."""
    import pyarrow as pa

    from w2v_core.kernels.cpu.window_kernels import word_draws

    part, kept = task.part, state.of(KeptStreams)
    files = TokenFiles.of(part.tokens)
    part_words = store.read_table(files.words, columns=["word"])["word"]
    vocabulary_words, thresholds_V = state.of(KeptVocabulary).of(task.vocab, task.vocab_fingerprint)
    words = word_draws(global_ids(part_words, vocabulary_words), thresholds_V)
    tokens = PartTokens(*(kept.take_sentences(files.tokens.name) or files.read_sentences()), words)
    if task.keep:
        kept.keep_tokens(part.tokens, tokens)
    stream = sampling.draw_all(part, tokens)
    rows: tuple[NDArray[Any], ...] = (stream.tokens_N, stream.left_N, stream.right_N)
    table = pa.table({name: column(found_N) for name, found_N in zip(COLUMNS, rows, strict=True)})
    made = ShardFiles(Path(task.directory), part.index)
    shard = write_arrow(made.shard, table, state.of(HashedFiles), durable=False)
    examples = int(np.count_nonzero(stream.left_N | stream.right_N))
    return MadeShard(shard, store.write_array(made.words, words, durable=False), examples)


class KeptVocabulary:
    """The vocabulary that a worker used for its last shard, read once for all parts and by one thread for all."""

    def __init__(self) -> None:
        self._last: tuple[str, tuple[pa.Array, NDArray[np.uint32]]] | None = None
        self._one_at_a_time = threading.Lock()

    def release(self) -> None:
        self._last = None

    def of(self, path: str, fingerprint: str) -> tuple[pa.Array, NDArray[np.uint32]]:
        """(words in id order, keep thresholds), read again only if `fingerprint` differs from the last one."""
        with self._one_at_a_time:
            if self._last is None or self._last[0] != fingerprint:
                table = store.read_table(Path(path), columns=["word", "keep_probability"])
                words = table["word"].combine_chunks(), keep_thresholds(store.numbers(table["keep_probability"]))
                self._last = fingerprint, words
            return self._last[1]


def global_ids(part_words: pa.ChunkedArray, words: pa.Array) -> NDArray[np.int32]:
    """The vocabulary id of each part-local word, −1 for words that are not in the vocabulary."""
    import pyarrow.compute as pc

    # Not `fill_null` with a number, because converting it to an Arrow scalar imports pandas.
    nowhere = column(np.full(len(part_words), -1, dtype=np.int32))
    found = pc.coalesce(pc.index_in(part_words, value_set=words), nowhere)
    return np.asarray(store.numbers(found), dtype=np.int32)
