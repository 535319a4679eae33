"""Contexts and targets as matrices: from a corpus, as in the textbook, and from a shard's token stream with window spans.

A shard (`token`, `left`, `right`: row i is target token[i], its context the `left` rows before and the `right` rows after
it) holds the same context-target pairs in 6 bytes per target. The layered engine needs (contexts, target) matrices; they are
expanded one batch at a time, to save memory.

Windows that are not full are padded with `PADDING`, which the models leave out of the mean (CBOW) or of the loss
(skip-gram). With `full_windows_only`, rows with fewer than 2·window context words are left out, as in the textbook.

Shapes: N targets, B targets of a batch, C = 2·window context places: -window … -1, +1 … +window, in that order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int32]
Batch = tuple[Ids, Ids]
"""(contexts (B, C), target (B,))."""

PADDING = -1
"""The id in a contexts matrix at places where a window has no word."""


def create_contexts_target(corpus: npt.ArrayLike, window_size: int = 1) -> Batch:
    """(contexts (N, 2·window_size), target (N,)), int32, of all corpus positions with a full window; N = len - 2·window_size.

    `corpus`: word ids in text order, one dimension, with sentence ends as words. Raises ValueError if no window is full.
    """
    corpus_N = np.asarray(corpus, dtype=np.int32)
    width = 2 * window_size + 1
    if window_size < 1 or corpus_N.ndim != 1 or len(corpus_N) < width:
        raise ValueError(
            f"window_size {window_size} needs a corpus of at least {width} word ids in one dimension (and a window of "
            f"at least 1), found shape {corpus_N.shape}"
        )
    windows = np.lib.stride_tricks.sliding_window_view(corpus_N, width)
    contexts_NC = np.concatenate([windows[:, :window_size], windows[:, window_size + 1 :]], axis=1)
    return contexts_NC, windows[:, window_size].copy()


def expand_shard(
    tokens: npt.ArrayLike,
    left: npt.ArrayLike,
    right: npt.ArrayLike,
    window: int,
    *,
    full_windows_only: bool = False,
) -> Batch:
    """(contexts (N, 2·window), target (N,)), int32, of a whole shard; see `shard_batches` for large shards.

    Targets without any context word (a sentence of one token) are left out. Raises ValueError as `check_spans` does.
    """
    tokens_N, left_N, right_N = check_spans(tokens, left, right, window)
    positions = usable_positions(left_N, right_N, window, full_windows_only=full_windows_only)
    return expand_rows(tokens_N, left_N, right_N, positions, window)


def expand_rows(tokens: Ids, left: Any, right: Any, positions: Any, window: int) -> Batch:
    """(contexts (B, 2·window), target (B,)) at the given `positions` of a checked shard, in their order."""
    offsets_C = np.concatenate([np.arange(-window, 0), np.arange(1, window + 1)])
    inside_BC = (offsets_C >= -left[positions].astype(np.int64)[:, None]) & (
        offsets_C <= right[positions].astype(np.int64)[:, None]
    )
    neighbours_BC = np.where(inside_BC, positions[:, None] + offsets_C, positions[:, None])
    return np.where(inside_BC, tokens[neighbours_BC], np.int32(PADDING)), tokens[positions]


def usable_positions(left: Any, right: Any, window: int, *, full_windows_only: bool = False) -> npt.NDArray[np.int64]:
    """The positions (int64, ascending) of the targets that have any context, or, if asked for, a full one."""
    if full_windows_only:
        return np.flatnonzero((left == window) & (right == window))
    return np.flatnonzero((left > 0) | (right > 0))


def check_spans(
    tokens: npt.ArrayLike, left: npt.ArrayLike, right: npt.ArrayLike, window: int
) -> tuple[Ids, npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """The three columns as arrays. Raises ValueError naming the first row whose span leaves the shard or the window."""
    tokens_N = np.asarray(tokens, dtype=np.int32)
    left_N, right_N = np.asarray(left, dtype=np.uint8), np.asarray(right, dtype=np.uint8)
    if not tokens_N.shape == left_N.shape == right_N.shape or tokens_N.ndim != 1:
        raise ValueError(
            "token, left and right: expected three columns of one length, "
            f"found shapes {tokens_N.shape}, {left_N.shape}, {right_N.shape}"
        )
    row_N = np.arange(len(tokens_N))
    bad = (left_N > np.minimum(row_N, window)) | (right_N > np.minimum(len(tokens_N) - 1 - row_N, window))
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(
            f"shard row {row}: expected a span inside window {window} and inside the {len(tokens_N)} rows, found "
            f"left {left_N[row]}, right {right_N[row]}; the shard was made with another window or is cut: make it again"
        )
    return tokens_N, left_N, right_N


def matrix_batches(contexts: Ids, target: Ids, batch_size: int, generator: np.random.Generator) -> Iterator[Batch]:
    """Batches that contain every example exactly once, in an order drawn from `generator`; the last one may be short."""
    for rows in _shuffled(len(target), batch_size, generator):
        yield contexts[rows], target[rows]


def shard_batches(
    tokens: npt.ArrayLike,
    left: npt.ArrayLike,
    right: npt.ArrayLike,
    window: int,
    batch_size: int,
    generator: np.random.Generator,
    *,
    full_windows_only: bool = False,
) -> Iterator[Batch]:
    """Like `matrix_batches`, but straight from a shard's columns; only one batch is expanded at a time."""
    tokens_N, left_N, right_N = check_spans(tokens, left, right, window)
    positions = usable_positions(left_N, right_N, window, full_windows_only=full_windows_only)
    for rows in _shuffled(len(positions), batch_size, generator):
        yield expand_rows(tokens_N, left_N, right_N, positions[rows], window)


def _shuffled(length: int, batch_size: int, generator: np.random.Generator) -> Iterator[npt.NDArray[np.int64]]:
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, found {batch_size}")
    order = generator.permutation(length)
    for start in range(0, length, batch_size):
        yield order[start : start + batch_size]
