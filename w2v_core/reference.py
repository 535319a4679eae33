"""The definition of what every kernel computes: plain loops in float64, slow on purpose. Tests compare the kernels with it.

**Stream.** Row i of the stream is a target: the word `tokens[i]`. Its context is the `left[i]` rows before and the `right[i]`
rows after it (not its own row). A slice trains the targets [start, stop); rows outside this range serve as context only.

**Blocks and groups.** Targets are taken in blocks of 128. In the block that starts at b, group q (0 … 15) consists of the
eight targets b + q, b + q + 16, …, b + q + 112 (those before `stop`). The eight share their K noise words, so that a noise
row is read and written once for eight targets. They are 16 rows apart because adjacent targets have overlapping contexts,
and sharing noise among those costs analogy accuracy.

**Noise.** Draw k of (block, group, slot) is the word that the bits of draw j of the stream `seed` choose in the alias table
(`sampler.noise_word`), with j = ((block·16 + group)·slots + slot)·K + k. Blocks are counted from 0 at `start`; a group has one
slot in CBOW, 510 in skip-gram. A noise word equal to a target is skipped for that target (word2vec.c does the same).

**CBOW.** h is the mean of the target's context rows of W_in *as they were at the start of the block*. For the target's
row (label 1) and the noise rows (label 0) of W_out *as they were at the start of the group*: e = σ(h·w) − label. Then
the group's targets, in ascending order, each move their own row of W_out by −α·e·h; after them the noise rows, in the order
in which they were drawn, move by −α·Σe·h over the group. The gradient g = Σ e·w of each target is kept; after the last
group of the block every context row of W_in moves by −α·Σg over the targets it served (`word2vec`, what word2vec.c and
gensim do) or by −α·Σg/n (`exact`, the derivative of the mean of n rows). A target without context is not trained.

**Rates.** Every change to a row of either matrix is multiplied by the word's rate (`sampler.word_rates`): rare words are
trained seldom, so they move further each time. With all rates 1 this is word2vec.c's update.

**Skip-gram.** One example is a pair (target, context word). As in word2vec.c and gensim, the *context* word's row of W_in
predicts the *target*, whose row of W_out has label 1. Slot c of a group holds the c-th context word (left to right) of each
target that has one. The pairs of a slot share K noise words and are trained as above, except that h is the row of W_in as it
is at that moment, and that this row moves by −α·g at once. There is no mean, so both gradients are the same.

**Waves.** `train_lanes` trains several slices on one copy of the parameters: in every wave each lane trains its next block. A
row that the blocks of several lanes touch is read by all of them as it was at the start of the wave, and gets their changes,
lane by lane in order, once all blocks of the wave are trained; any other row moves as if its slice were alone. A block touches
the rows of W_out of its targets and of its noise words, and the rows of W_in at all positions that could be context of its
targets: from the widest left span of any lane before its first target to the widest right span after its last, within the rows
that its slice reads. Up to 64 lanes train as well as one; with more, the sums move frequent words too far while vectors grow
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
"""Most context words of a target: two spans of at most 255 rows."""

DoubleRows = NDArray[np.float64]


class Matrix:
    """Rows that move at once, except the `shared` ones, whose changes wait until `settle`."""

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
    """One training example: the hidden row `hidden_D` predicts the word `target`."""

    target: int
    hidden_D: DoubleRows


def train_slice(w_in_VD: DoubleRows, w_out_VD: DoubleRows, targets: Slice, noise: Noise, update: Update) -> tuple[float, int]:
    """(sum of the losses, number of examples) after training the targets in place; both matrices are float64."""
    loss, examples = 0.0, 0
    train_block = train_cbow_block if update.model == "cbow" else train_skipgram_block
    for block in range(blocks_of(targets)):
        block_loss, block_examples = train_block(Matrix(w_in_VD), Matrix(w_out_VD), targets, noise, update, block)
        loss, examples = loss + block_loss, examples + block_examples
    return loss, examples


def train_lanes(
    w_in_VD: DoubleRows, w_out_VD: DoubleRows, lanes: Sequence[Slice], noise: Noise, update: Update
) -> list[tuple[float, int]]:
    """(sum of the losses, number of examples) of each lane after training all targets of all lanes in place, in waves."""
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
    """(words whose rows of W_in are touched by several lanes in a wave, the same for W_out)."""
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
    """(loss, examples) of a block; W_in moves once all groups are trained."""
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
    """(loss, examples) of a block; each slot's pairs move their rows of W_in at once."""
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
    """(α, groups) of a block: a group maps the position of each target with context to the positions of its context."""
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
    """(loss, gradient with respect to each example's hidden row) of one group; W_out moves once everything has been read."""
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
    """The learning rate of the block whose first target is `first`: linear from alphas[0] at `start` to alphas[1] at `stop`."""
    return alphas[0] + (alphas[1] - alphas[0]) * ((first - start) / (stop - start))


def context_positions(position: int, left: int, right: int) -> list[int]:
    """The stream positions of the context of the target at `position`, left to right."""
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
    """log(1 + e**x) = −log σ(−x), without overflow; not finite if x is not, so that divergence shows in the loss."""
    return 0.5 * (abs(x) + x) + math.log1p(math.exp(-abs(x)))
