"""The kernels in NumPy alone: for machines without a compiler, and the plainest complete version after the definition.

Vectorised over a block (windows) and over a group (noise), with the draws and the order of `w2v_core.reference`, in float32.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from w2v_core.contract import FloatRows, Merge, Noise, Slice, SliceResult, Update, Workroom
from w2v_core.kernels.checks import check_lanes, check_merge, check_slice, check_stream, lane_seeds, raise_bad_noise
from w2v_core.kernels.initial import fill_initial
from w2v_core.reference import BLOCK, GROUPS, SLOTS, block_alpha, blocks_of, shared_rows
from w2v_core.sampler import mix64

name = "numpy"
__all__ = ["fill_initial", "merge_rows", "name", "to_device", "to_host", "train_copies", "train_lanes", "train_slice"]
train_copies = None


def train_slice(w_in_VD: FloatRows, w_out_VD: FloatRows, targets: Slice, noise: Noise, update: Update) -> SliceResult:
    """See `Kernels.train_slice`. Warnings about overflow and NaN are silenced: the loss, no longer finite, reports them."""
    check_slice(w_in_VD, w_out_VD, targets, noise, update)
    check_stream(targets, len(w_in_VD))
    train_block = _train_cbow_block if update.model == "cbow" else _train_skipgram_block
    loss, examples = 0.0, 0
    with np.errstate(all="ignore"):
        for block in range(blocks_of(targets)):
            block_loss, block_examples = train_block(_Matrix(w_in_VD), _Matrix(w_out_VD), targets, noise, update, block)
            loss, examples = loss + block_loss, examples + block_examples
    return SliceResult(loss, examples)


def train_lanes(
    w_in_VD: FloatRows, w_out_VD: FloatRows, lanes: Sequence[Slice], noise: Noise, update: Update, threads: int,
    room: Workroom,
) -> list[SliceResult]:  # fmt: skip
    """See `Kernels.train_lanes`. Uses one thread, whatever `threads` is."""
    check_lanes(lanes, update, threads)
    for targets in lanes:
        check_slice(w_in_VD, w_out_VD, targets, noise, update)
        check_stream(targets, len(w_in_VD))
    updates = [dataclasses.replace(update, seed=seed) for seed in lane_seeds(update.seed, len(lanes))]
    losses, examples = [0.0] * len(lanes), [0] * len(lanes)
    with np.errstate(all="ignore"):
        for wave in range(max(map(blocks_of, lanes))):
            shared_in, shared_out = shared_rows(lanes, noise, updates, wave)
            w_in, w_out = _Matrix(w_in_VD, shared_in), _Matrix(w_out_VD, shared_out)
            for lane, targets in enumerate(lanes):
                if wave < blocks_of(targets):
                    loss, count = _train_cbow_block(w_in, w_out, targets, noise, updates[lane], wave)
                    losses[lane], examples[lane] = losses[lane] + loss, examples[lane] + count
            w_in.settle()
            w_out.settle()
    return [SliceResult(*found) for found in zip(losses, examples, strict=True)]


class _Matrix:
    """Rows that move at once, except the `shared` ones, whose changes wait until `settle`."""

    def __init__(self, rows_VD: FloatRows, shared: frozenset[int] = frozenset()) -> None:
        self.rows_VD = rows_VD
        self._shared = np.zeros(len(rows_VD), bool) if shared else None
        self._waiting: list[tuple[NDArray[Any], NDArray[Any]]] = []
        if self._shared is not None:
            # A noise table of another vocabulary may draw words that do not exist; training reports them when it draws them.
            self._shared[[word for word in shared if 0 <= word < len(rows_VD)]] = True

    def move(self, ids: NDArray[Any], changes: NDArray[Any]) -> None:
        if self._shared is None:
            add_rows(self.rows_VD, ids, changes)
            return
        waits = self._shared[ids]
        add_rows(self.rows_VD, ids[~waits], changes[~waits])
        self._waiting.append((ids[waits], changes[waits]))

    def settle(self) -> None:
        for ids, changes in self._waiting:
            add_rows(self.rows_VD, ids, changes)


def _block_of(targets: Slice, update: Update, block: int) -> tuple[int, int, np.float32]:
    """(first, last, α) of a block: its targets are first … last − 1."""
    first = targets.start + block * BLOCK
    return first, min(first + BLOCK, targets.stop), np.float32(block_alpha(first, targets.start, targets.stop, update.alphas))


def _train_skipgram_block(
    w_in: _Matrix, w_out: _Matrix, targets: Slice, noise: Noise, update: Update, block: int
) -> tuple[float, int]:
    """(loss, examples) of a block."""
    first, last, alpha = _block_of(targets, update, block)
    tokens_N, rates_V, negative = targets.tokens_N, noise.rates_V, update.negative
    loss, examples = 0.0, 0
    for group in range(GROUPS):
        members = np.arange(first + group, last, GROUPS)
        width = targets.left_N[members].astype(np.int64) + targets.right_N[members]
        for slot in range(int(width.max(initial=0))):
            present = members[slot < width]
            before = targets.left_N[present]
            context = tokens_N[present - before + slot + (slot >= before)]
            draw = ((block * GROUPS + group) * SLOTS + slot) * negative
            noise_K = draw_noise(noise.table_T, update.seed, draw + np.arange(negative), len(w_in.rows_VD))
            slot_loss, step_ED = _train_group(w_out, tokens_N[present], w_in.rows_VD[context], noise_K, alpha, rates_V)
            w_in.move(context, rates_V[context, None] * step_ED)
            loss, examples = loss + slot_loss, examples + len(present)
    return loss, examples


def _train_cbow_block(
    w_in: _Matrix, w_out: _Matrix, targets: Slice, noise: Noise, update: Update, block: int
) -> tuple[float, int]:
    """(loss, examples) of a block. Windows by prefix sums: two row operations per target for any window size."""
    first, last, alpha = _block_of(targets, update, block)
    tokens_N, rates_V, draws = targets.tokens_N, noise.rates_V, GROUPS * update.negative
    noise_GK = draw_noise(noise.table_T, update.seed, block * draws + np.arange(draws), len(w_in.rows_VD)).reshape(GROUPS, -1)
    positions = np.arange(first, last)
    begin_B, end_B = positions - targets.left_N[first:last], positions + targets.right_N[first:last] + 1
    halo, halo_end = int(begin_B.min()), int(end_B.max())
    rows_RD = w_in.rows_VD[tokens_N[halo:halo_end]]
    # Summed in float64: float32 would do, but float64 costs the same here and rounds less than any other kernel.
    prefix_RD: NDArray[np.float64] = np.zeros((len(rows_RD) + 1, w_in.rows_VD.shape[1]))
    np.cumsum(rows_RD, axis=0, dtype=np.float64, out=prefix_RD[1:])
    width_B = end_B - begin_B - 1
    inverse_B = (1.0 / np.maximum(width_B, 1)).astype(np.float32)
    sums_BD = (prefix_RD[end_B - halo] - prefix_RD[begin_B - halo]).astype(np.float32) - rows_RD[positions - halo]
    hidden_BD = sums_BD * inverse_B[:, None]
    step_BD = np.zeros_like(hidden_BD)
    loss = 0.0
    for group in range(GROUPS):
        members = np.arange(group, last - first, GROUPS)
        members = members[width_B[members] > 0]
        if len(members):
            words = tokens_N[first + members]
            group_loss, step_BD[members] = _train_group(w_out, words, hidden_BD[members], noise_GK[group], alpha, rates_V)
            loss += group_loss
    if update.gradient == "exact":
        step_BD *= inverse_B[:, None]
    change_RD = np.zeros_like(prefix_RD)
    add_rows(change_RD, begin_B - halo, step_BD)
    add_rows(change_RD, end_B - halo, -step_BD)
    moved_RD = np.cumsum(change_RD, axis=0)[:-1].astype(np.float32)
    moved_RD[positions - halo] -= step_BD
    ids_R = tokens_N[halo:halo_end]
    w_in.move(ids_R, rates_V[ids_R, None] * moved_RD)
    return loss, int(np.count_nonzero(width_B))


def _train_group(
    w_out: _Matrix, words_E: NDArray[np.int32], hidden_ED: FloatRows, noise_K: NDArray[np.int32], alpha: np.float32,
    rates_V: NDArray[np.float32],
) -> tuple[float, FloatRows]:  # fmt: skip
    """(loss, −α·gradient with respect to each hidden row) of one group; moves W_out once everything has been read."""
    target_ED, noise_KD = w_out.rows_VD[words_E], w_out.rows_VD[noise_K]
    target_E = np.einsum("ed,ed->e", hidden_ED, target_ED)
    noise_EK = hidden_ED @ noise_KD.T
    counted_EK = noise_K[None, :] != words_E[:, None]
    loss = float(softplus(-target_E).sum()) + float(np.where(counted_EK, softplus(noise_EK), 0.0).sum())
    target_step_E = alpha * sigmoid(-target_E)
    noise_step_EK = np.where(counted_EK, -alpha * sigmoid(noise_EK), np.float32(0))
    step_ED = (target_step_E[:, None] * target_ED + noise_step_EK @ noise_KD).astype(np.float32, copy=False)
    w_out.move(words_E, (rates_V[words_E] * target_step_E)[:, None] * hidden_ED)
    w_out.move(noise_K, rates_V[noise_K, None] * (noise_step_EK.T @ hidden_ED))
    return loss, step_ED


def add_rows(matrix: NDArray[Any], ids: NDArray[Any], rows: NDArray[Any]) -> None:
    """matrix[ids] += rows, in place, where an id that occurs twice gets both rows.

    `np.add.at` does the same, but works through matrices element by element: training took twice as long with it.
    """
    if not len(ids):
        return
    order = np.argsort(ids, kind="stable")
    ordered = ids[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    matrix[ordered[starts]] += np.add.reduceat(rows[order], starts, axis=0)


def sigmoid(x: FloatRows) -> FloatRows:
    """1 / (1 + e**−x) in float32. Where the result would be below 1e−38, e**−x overflows to infinity and the result is 0."""
    result: FloatRows = np.float32(1) / (np.float32(1) + np.exp(-x))
    return result


def softplus(x: FloatRows) -> NDArray[np.float64]:
    """log(1 + e**x) in float64; not finite unless x is, so that divergence shows in the loss."""
    wide = x.astype(np.float64)
    result: NDArray[np.float64] = 0.5 * (np.abs(wide) + wide) + np.log1p(np.exp(-np.abs(wide)))
    return result


def draw_noise(noise_table: NDArray[np.uint64], seed: int, draws: NDArray[np.int64], vocab_size: int) -> NDArray[np.int32]:
    """The noise words of the draws with these numbers in the stream `seed`, int32. Raises ValueError for a word >= vocab_size."""
    low = np.uint64((1 << 32) - 1)
    bits = mix64(seed, draws.astype(np.uint64))
    chosen = (bits >> np.uint64(32)) * np.uint64(len(noise_table)) >> np.uint64(32)
    cells = noise_table[chosen]
    words = np.where(bits & low < cells >> np.uint64(32), chosen, cells & low).astype(np.int32)
    bad = (words < 0) | (words >= vocab_size)
    if bad.any():
        raise_bad_noise(int(words[np.argmax(bad)]), vocab_size)
    return words


def merge_rows(base_RD: FloatRows, lanes: Sequence[FloatRows], method: Merge) -> None:
    """See `Kernels.merge_rows`. Works through 1,024 rows at a time so that the temporaries stay in cache."""
    check_merge(base_RD, lanes, method)
    for first in range(0, len(base_RD), 1024):
        rows = slice(first, first + 1024)
        changes = [lane[rows] - base_RD[rows] for lane in lanes]
        while len(changes) > 1:
            folded = [
                _adasum(left, right) if method == "adasum" else left + right
                for left, right in zip(changes[::2], changes[1::2], strict=False)
            ]
            changes = folded + changes[2 * len(folded) :]
        # With one lane nothing is added or scaled: base + (lane − base) need not be the lane's bits.
        merged = lanes[0][rows].copy()
        if len(lanes) > 1:
            merged = base_RD[rows] + (changes[0] if method == "adasum" else changes[0] / np.float32(len(lanes)))
        for array in (base_RD, *lanes):
            array[rows] = merged


def _adasum(left_RD: FloatRows, right_RD: FloatRows) -> FloatRows:
    """Row-wise (1 − c·l·r/‖l‖²)·l + (1 − c·l·r/‖r‖²)·r, computed in float64; a factor is 1 where its norm is 0.

    c = ½ where l·r >= 0: orthogonal changes add, equal changes average (Adasum: Maleki et al. 2021, "Scaling distributed
    training with adaptive summation", section 3). c = 1 where they oppose each other: each loses its component along the
    other before they are added (Yu et al. 2020, "Gradient surgery for multi-task learning"). Adasum has ½ there too;
    infra/decisions/0011-opposing-changes.md says why we differ.
    """
    left, right = left_RD.astype(np.float64), right_RD.astype(np.float64)
    both = np.einsum("rd,rd->r", left, right)
    both = np.where(both < 0, both, 0.5 * both)
    factors = []
    for rows in (left, right):
        norm = np.einsum("rd,rd->r", rows, rows)
        factors.append((1.0 - np.divide(both, norm, out=np.zeros_like(both), where=norm != 0))[:, None])
    merged: FloatRows = (factors[0] * left + factors[1] * right).astype(np.float32)
    return merged


def to_device(array: Any) -> Any:
    """See `Kernels.to_device`."""
    return array


def to_host(array: Any) -> NDArray[Any]:
    """See `Kernels.to_host`."""
    host: NDArray[Any] = array
    return host
