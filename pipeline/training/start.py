"""The start of a training that continues from other vectors (`train.start_from`): rows are matched by word.

A word in the other vectors starts with its rows there, whatever its rank is now; a new word starts with small random numbers
drawn from the hash of the word, so that neither its rank nor other words matter. The start is stored like a checkpoint before the
first round, and is a function of (the other vectors, vocabulary, seed) alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline import store
from pipeline.cluster.state import WithState, WorkerState
from pipeline.config import Train
from pipeline.errors import DamagedError, DataError, InputError
from pipeline.training.assembly import CONTEXT
from pipeline.training.history import history_of
from pipeline.training.lanes import blocks_of
from w2v_core.kernels.initial import initial_rows, padded_size
from w2v_core.sampler import stream_seed
from w2v_core.vectors import WordVectors, files

if TYPE_CHECKING:
    from pipeline.cluster.workers import Workers

_SEED_PATH = 3
_HASH_BITS = 50
"""Bits of a word's hash that are used, so that the index of its random numbers, times `vector_size`, stays below 2⁶³."""


@dataclass(frozen=True)
class Parent:
    """The vectors that training continues from."""

    directory: str
    digest: str
    """Digest of their content: equal exactly if every number and word is."""
    trained_tokens: int
    """Kept tokens that they were trained on, including those of their own parents; 0 = not known."""


@dataclass(frozen=True)
class StartTask:
    """One file of the start to write."""

    parent: Parent
    vocab: str
    seed: int
    vector_size: int
    block: tuple[str, int, int, int]
    """As `lanes.blocks_of`: file name, matrix, first row, last row."""
    directory: str


def open_parent(train: Train) -> Parent | None:
    """The vectors named by `train.start_from`, with their digest; None if it is not set. Raises InputError or DataError if
    training cannot continue from them."""
    if train.start_from is None:
        return None
    directory = Path(train.start_from)
    try:
        store.bring_folder(directory)
        vectors = WordVectors.load(directory)
        meta = store.file_sha256(directory / files.META)  # it holds the SHA-256 of every file but W_out
    except (OSError, ValueError) as error:
        raise InputError(f"train.start_from: {directory}: no vectors here ({error}); give a folder that training wrote") from None
    if vectors.matrix.shape[1] != train.vector_size:
        raise DataError(
            f"train.start_from: {directory} has vectors of {vectors.matrix.shape[1]} numbers, train.vector_size is "
            f"{train.vector_size}; set it to {vectors.matrix.shape[1]} or start anew"
        )
    try:
        artefact = store.load_artefact(directory)
    except DamagedError:
        return Parent(str(directory), f"{meta} {_context_digest(directory)}", 0)
    trained = int(artefact.manifest.totals.get("trained_before", 0)) + sum(r.kept_tokens for r in history_of(artefact))
    return Parent(str(directory), f"{meta} {artefact.part(CONTEXT).sha256}", trained)


def _context_digest(directory: Path) -> str | None:
    path = directory / CONTEXT
    return store.file_sha256(path) if path.exists() else None


def write_start(
    parent: Parent, vocab: str, seed: int, train: Train, vocab_size: int, directory: Path, workers: Workers
) -> list[store.Part]:
    """The files of the start, written by the workers. Raises DataError if the parent's files are not what was written."""
    folder = Path(parent.directory)
    try:
        for damage in store.find_damage(store.load_artefact(folder)):
            raise DamagedError(damage, str(folder))
    except DamagedError as error:
        # The parent must not be discarded like other damaged artefacts: only the run that made it can repair it.
        if (folder / store.MANIFEST).exists():
            raise DataError(f"train.start_from: {error}; choose other vectors, or start anew") from error
    blocks = blocks_of(vocab_size, padded_size(train.vector_size))
    tasks = [StartTask(parent, vocab, seed, train.vector_size, block, str(directory)) for block in blocks]
    return workers.map(WithState(write_block), tasks, label="start")


def write_block(task: StartTask, state: WorkerState) -> store.Part:
    """Writes some rows of one matrix; the same bytes wherever it runs."""
    name, matrix, first, last = task.block
    words = store.read_table(Path(task.vocab), columns=["word"])["word"].slice(first, last - first).to_pylist()
    parent_ids = state.of(ParentWords).of(task.parent)
    rows_RD = np.zeros((last - first, padded_size(task.vector_size)), np.float32)
    found_R = np.array([parent_ids.get(word, -1) for word in words], np.int64)
    known_R = np.flatnonzero(found_R >= 0)
    source = _matrix_of(task.parent.directory, matrix)
    if source is not None:
        rows_RD[known_R, : task.vector_size] = source[found_R[known_R]]
    if matrix == 0:
        fill_by_word(rows_RD, words, np.flatnonzero(found_R < 0), task.vector_size, task.seed)
    # It is read soon, with a check, and then deleted, so it need not be flushed to disk.
    return store.write_array(Path(task.directory) / name, rows_RD, rows=last - first, durable=False)


def fill_by_word(
    rows_RD: NDArray[np.float32], words: Sequence[str], chosen: NDArray[np.intp], vector_size: int, seed: int
) -> None:
    """Writes the initial W_in rows of the chosen words: a function of (seed, word) alone, distributed as in `fill_initial`."""
    rows_R = np.array([_hash_of(words[row]) for row in chosen], np.uint64)
    rows_RD[chosen, :vector_size] = initial_rows(rows_R, vector_size, stream_seed(seed, _SEED_PATH, 0))


def _hash_of(word: str) -> int:
    digest = hashlib.sha256(word.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "little") >> (64 - _HASH_BITS)


class ParentWords:
    """The words of the parent, read once per worker for all blocks."""

    def __init__(self) -> None:
        self._last: tuple[str, dict[str, int]] | None = None

    def of(self, parent: Parent) -> dict[str, int]:
        """{word: row}, read again only if the parent's digest differs from the last one."""
        if self._last is None or self._last[0] != parent.digest:
            store.bring_folder(Path(parent.directory))
            self._last = parent.digest, {word: row for row, word in enumerate(WordVectors.load(parent.directory).words)}
        return self._last[1]

    def release(self) -> None:
        self._last = None


def _matrix_of(directory: str, matrix: int) -> NDArray[np.float32] | None:
    """W_in or W_out of the parent, memory-mapped; None for vectors without W_out, whose rows then start at zero."""
    path = store.fetched(Path(directory) / (files.MATRIX, CONTEXT)[matrix])
    found: NDArray[np.float32] | None = np.load(path, mmap_mode="r", allow_pickle=False) if path.exists() else None
    return found
