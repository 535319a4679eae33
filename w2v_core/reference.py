"""The definition of what every kernel computes: float64, plain loops, nothing fast. Tests compare the kernels with it.

**Stream.** Row i of the stream is a target: word `tokens[i]`, its context the `left[i]` rows before and the `right[i]`
rows after it (its own row is not context). A slice trains the targets [start, stop); rows outside serve as context only.

**Blocks and groups.** Targets are taken in blocks of 128. Inside a block, group q (0 … 15) is the eight targets
b + q, b + q + 16, …, b + q + 112 (those of them that are before `stop`). The eight share their K noise words: a noise
row is then read and written once for eight targets. They stand 16 rows apart because targets that stand next to each
other have overlapping contexts, and sharing noise among those costs analogy accuracy.

**Noise.** Draw k of (block, group, slot) is the word that the bits of draw j of the stream `seed` choose in the alias table
(`sampler.noise_word`), with j = ((block·16 + group)·slots + slot)·K + k; block counts from 0 at `start`; CBOW has one slot
a group, skip-gram 510. A noise word equal to a target is skipped for that target (word2vec.c does the same).

**CBOW.** h is the mean of the target's context rows of W_in *as they were at the start of the block*. For the target's
row (label 1) and the noise rows (label 0) of W_out *as they were at the start of the group*: e = σ(h·w) − label. Then,
in this order, the group's targets in ascending order each move their own row of W_out by −α·e·h, and the noise rows, in
the order they were drawn, by −α·Σe·h over the group. The gradient g = Σ e·w of each target is kept; after the last
group of the block every context row of W_in moves by −α·Σg over the targets it served (`word2vec`, what word2vec.c and
gensim do) or by −α·Σg/n (`exact`, the derivative of the mean of n rows). A target without context is not trained.

**Rates.** What moves a row of either matrix is multiplied by its word's rate (`sampler.word_rates`): rare words are trained
seldom and move further each time. With rates of 1 this is word2vec.c's update.

**Skip-gram.** One example is a pair (target, context word). As in word2vec.c and gensim the *context* word's row of W_in
predicts the *target*, whose row of W_out has label 1. Slot c of a group is the c-th context word (left to right) of each
of its targets that has one; its pairs share K noise words and are trained as above, but with h = the row of W_in as it
is at that moment, which moves by −α·g at once. There is no mean, so both gradients are the same.

**Waves.** `train_lanes` trains several slices on one copy of the parameters: in every wave each lane its next block. A row
that the blocks of several lanes touch is read as it was at the start of the wave, by them too, and gets their changes
when all blocks of the wave are trained, lane by lane in order; any other row moves as in a slice alone. A block touches the
rows of W_out of its targets and of its noise words, and the rows of W_in of all positions that its targets could have as
context: from the widest left span of any lane before its first target to the widest right span behind its last, as far as
its slice reads. Up to 64 lanes train as well as one; with more, sums move frequent words too far while vectors grow
(infra/decisions/0017-waves.md).

**Loss.** −log σ(h·w) of the target − Σ log σ(−h·w) of the noise not skipped, before the update, summed over examples.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from w2v_core.contract import Noise, Slice, Update
from w2v_core.sampler import noise_word, random_bits, stream_seed

BLOCK = 128
GROUP = 8
GROUPS = BLOCK // GROUP
SLOTS = 510
"""Context words a target can have: two spans of at most 255 rows."""

DoubleRows = NDArray[np.float64]


class Matrix:
    """Rows that move at once, except those that are `shared`: their changes wait until `settle`."""

    def __init__(self, rows_VD: DoubleRows, shared: frozenset[int] = frozenset()) -> None:
        self.rows_VD = rows_VD
        self._shared = shared
        self._waiting: list[tuple[int, DoubleRows]] = []

    def move(self, word: int, change_D: DoubleRows) -> None:
        if word in self._shared:
            self._waiting.append((word, change_D))
        else:
            self.rows_VD[word] += change_D

    def settle(self) -> None:
        for word, change_D in self._waiting:
            self.rows_VD[word] += change_D


@dataclass(frozen=True)
class Example:
    """One training example: the row of hidden values `hidden_D` predicts the word `target`."""

    target: int
    hidden_D: DoubleRows


def train_slice(w_in_VD: DoubleRows, w_out_VD: DoubleRows, targets: Slice, noise: Noise, update: Update) -> tuple[float, int]:
    """(sum of the losses, number of examples) after training the targets in place; both matrices float64."""
    loss, examples = 0.0, 0
    train_block = train_cbow_block if update.model == "cbow" else train_skipgram_block
    for block in range(blocks_of(targets)):
        block_loss, block_examples = train_block(Matrix(w_in_VD), Matrix(w_out_VD), targets, noise, update, block)
        loss, examples = loss + block_loss, examples + block_examples
    return loss, examples


def train_lanes(
    w_in_VD: DoubleRows, w_out_VD: DoubleRows, lanes: Sequence[Slice], noise: Noise, update: Update
) -> list[tuple[float, int]]:
    """(sum of the losses, number of examples) of every lane after training all their targets in place, in waves."""
    updates = [dataclasses.replace(update, seed=stream_seed(update.seed, lane)) for lane in range(len(lanes))]
    results = [(0.0, 0)] * len(lanes)
    for wave in range(max(map(blocks_of, lanes))):
        shared_in, shared_out = shared_rows(lanes, noise, updates, wave)
        w_in, w_out = Matrix(w_in_VD, shared_in), Matrix(w_out_VD, shared_out)
        for lane, (targets, lane_update) in enumerate(zip(lanes, updates, strict=True)):
            if wave < blocks_of(targets):
                loss, examples = train_cbow_block(w_in, w_out, targets, noise, lane_update, wave)
                results[lane] = results[lane][0] + loss, results[lane][1] + examples
        w_in.settle()
        w_out.settle()
    return results


def blocks_of(targets: Slice) -> int:
    return -(-(targets.stop - targets.start) // BLOCK)


def shared_rows(
    lanes: Sequence[Slice], noise: Noise, updates: Sequence[Update], wave: int
) -> tuple[frozenset[int], frozenset[int]]:
    """The words whose rows of W_in, and those whose rows of W_out, several lanes touch in a wave."""
    spans = [(lane.left_N[lane.start : lane.stop], lane.right_N[lane.start : lane.stop]) for lane in lanes]
    left, right = (max(int(span[side].max(initial=0)) for span in spans) for side in (0, 1))
    counts: tuple[Counter[int], Counter[int]] = Counter(), Counter()
    for targets, update in zip(lanes, updates, strict=True):
        first, stop = targets.start + wave * BLOCK, min(targets.start + (wave + 1) * BLOCK, targets.stop)
        if first >= stop:
            continue
        positions = np.arange(targets.start, targets.stop)
        low = int((positions - targets.left_N[targets.start : targets.stop]).min())
        high = int((positions + targets.right_N[targets.start : targets.stop]).max()) + 1
        draws = GROUPS * update.negative
        counts[0].update(set(targets.tokens_N[max(low, first - left) : min(high, stop + right)].tolist()))
        noise_K = noise_words(noise.table_T, update.seed, wave * draws, draws)
        counts[1].update(set(targets.tokens_N[first:stop].tolist()) | set(noise_K))
    shared = [frozenset(word for word, lanes_ in count.items() if lanes_ > 1) for count in counts]
    return shared[0], shared[1]


def train_cbow_block(w_in: Matrix, w_out: Matrix, targets: Slice, noise: Noise, update: Update, block: int) -> tuple[float, int]:
    """(loss, examples) of a block; W_in moves when all its groups are trained."""
    loss, examples = 0.0, 0
    tokens_N, rates_V, negative = targets.tokens_N, noise.rates_V, update.negative
    change_in: dict[int, DoubleRows] = {}
    alpha, groups = groups_of_block(targets, update, block)
    for group, contexts in enumerate(groups):
        noise_K = noise_words(noise.table_T, update.seed, (block * GROUPS + group) * negative, negative)
        group_examples = [Example(int(tokens_N[i]), w_in.rows_VD[tokens_N[contexts[i]]].mean(0)) for i in contexts]
        group_loss, gradients = train_group(w_out, group_examples, noise_K, alpha, rates_V)
        for positions, gradient_D in zip(contexts.values(), gradients, strict=True):
            scale = 1.0 if update.gradient == "word2vec" else 1.0 / len(positions)
            for position in positions:
                change_in[position] = change_in.get(position, 0.0) - alpha * scale * gradient_D
        loss, examples = loss + group_loss, examples + len(contexts)
    for position in sorted(change_in):
        w_in.move(int(tokens_N[position]), float(rates_V[tokens_N[position]]) * change_in[position])
    return loss, examples


def train_skipgram_block(
    w_in: Matrix, w_out: Matrix, targets: Slice, noise: Noise, update: Update, block: int
) -> tuple[float, int]:
    """(loss, examples) of a block; every pair moves its row of W_in at once."""
    loss, examples = 0.0, 0
    tokens_N, rates_V, negative = targets.tokens_N, noise.rates_V, update.negative
    alpha, groups = groups_of_block(targets, update, block)
    for group, contexts in enumerate(groups):
        for slot in range(max((len(positions) for positions in contexts.values()), default=0)):
            pairs = [(i, positions[slot]) for i, positions in contexts.items() if slot < len(positions)]
            noise_K = noise_words(noise.table_T, update.seed, ((block * GROUPS + group) * SLOTS + slot) * negative, negative)
            slot_examples = [Example(int(tokens_N[i]), w_in.rows_VD[tokens_N[position]].copy()) for i, position in pairs]
            slot_loss, gradients = train_group(w_out, slot_examples, noise_K, alpha, rates_V)
            for (_, position), gradient_D in zip(pairs, gradients, strict=True):
                w_in.move(int(tokens_N[position]), -alpha * float(rates_V[tokens_N[position]]) * gradient_D)
            loss, examples = loss + slot_loss, examples + len(pairs)
    return loss, examples


def groups_of_block(targets: Slice, update: Update, block: int) -> tuple[float, list[dict[int, list[int]]]]:
    """(α, groups) of a block: of every group the positions of its targets that have a context, each with its context's."""
    first = targets.start + block * BLOCK
    positions = range(first, min(first + BLOCK, targets.stop))
    groups = [
        {
            i: context_positions(i, int(targets.left_N[i]), int(targets.right_N[i]))
            for i in positions[group::GROUPS]
            if targets.left_N[i] or targets.right_N[i]
        }
        for group in range(GROUPS)
    ]
    return block_alpha(first, targets.start, targets.stop, update.alphas), groups


def train_group(
    w_out: Matrix, examples: list[Example], noise_K: list[int], alpha: float, rates_V: NDArray[np.float32]
) -> tuple[float, list[DoubleRows]]:
    """(loss, gradient by the hidden row of each example) of one group; W_out moves, after all of it was read."""
    loss = 0.0
    gradients: list[DoubleRows] = []
    changes: list[tuple[int, DoubleRows]] = []
    noise_changes = [np.zeros(w_out.rows_VD.shape[1]) for _ in noise_K]
    for example in examples:
        logit = float(example.hidden_D @ w_out.rows_VD[example.target])
        loss += softplus(-logit)
        error = sigmoid(logit) - 1.0
        gradient_D = error * w_out.rows_VD[example.target]
        changes.append((example.target, -alpha * error * example.hidden_D))
        for k, word in enumerate(noise_K):
            if word == example.target:
                continue
            logit = float(example.hidden_D @ w_out.rows_VD[word])
            loss += softplus(logit)
            error = sigmoid(logit)
            gradient_D = gradient_D + error * w_out.rows_VD[word]
            noise_changes[k] -= alpha * error * example.hidden_D
        gradients.append(gradient_D)
    for word, change_D in [*changes, *zip(noise_K, noise_changes, strict=True)]:
        w_out.move(word, float(rates_V[word]) * change_D)
    return loss, gradients


def block_alpha(first: int, start: int, stop: int, alphas: tuple[float, float]) -> float:
    """Learning rate of the block whose first target is `first`: linear from alphas[0] at `start` to alphas[1] at `stop`."""
    return alphas[0] + (alphas[1] - alphas[0]) * ((first - start) / (stop - start))


def context_positions(position: int, left: int, right: int) -> list[int]:
    """Stream positions of the context of the target at `position`, left to right."""
    return [*range(position - left, position), *range(position + 1, position + right + 1)]


def noise_words(noise_table: NDArray[np.uint64], seed: int, first_draw: int, count: int) -> list[int]:
    """The noise words of draws first_draw … first_draw + count − 1."""
    return [noise_word(noise_table, random_bits(seed, first_draw + k)) for k in range(count)]


def sigmoid(x: float) -> float:
    """1 / (1 + e**−x) without overflow; NaN stays NaN."""
    if x >= 0:
        return 1.0 / (1.0 + math.exp(-x))
    return math.exp(x) / (1.0 + math.exp(x))


def softplus(x: float) -> float:
    """log(1 + e**x) = −log σ(−x), without overflow; not finite unless x is, so that divergence shows in the loss."""
    return 0.5 * (abs(x) + x) + math.log1p(math.exp(-abs(x)))
