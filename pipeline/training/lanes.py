"""One worker's share of a round: it trains its lanes, in lockstep with the workers of the other lanes.

The training of a copy is a pure function of (parameters at the start of the round, slices of the shards, the seed path (seed,
epoch, first step, copy, portion), α from the plan). Merges fold the copies' changes over a fixed tree in order. So neither which
worker trains which lane, nor the number of workers, nor repeated rounds can change a single bit.

Between two rounds a worker keeps its group of lanes (`HeldLanes`) with the parameters in memory. A worker without them reads the
checkpoint if the previous round ended with one; otherwise the attempt is lost, and training goes on from the last checkpoint.
A round before a checkpoint ends with a merge of all rows, after which all copies are equal, so any one of them is the state.
"""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline import store
from pipeline.cluster.state import WorkerState
from pipeline.config import Train
from pipeline.errors import DamagedError, DivergedError
from pipeline.exchange.attempts import Attempts, PeerLostError
from pipeline.exchange.shared_memory import nothing_to_do, usable_cores
from pipeline.failpoints import reach
from pipeline.stream import epoch_stream, sampling
from pipeline.stream.sizes import HELD_TOKENS
from pipeline.training import assembly
from pipeline.training.beginning import Beginning
from pipeline.training.busy_cores import BusyCores
from pipeline.training.lane_group import MATRICES, LaneGroup, open_group, some_rows
from pipeline.training.live import Teller
from pipeline.training.placement import Place, block_of
from pipeline.training.plan import EpochPlan, Portion, Round, lanes_of_copy
from pipeline.training.residency import Residency
from pipeline.training.stretches import StretchLoss
from w2v_core.kernels import Kernels, Noise, Slice, Update, fill_initial, load_kernels, padded_size
from w2v_core.sampler import stream_seed, word_rates

BLOCK_BYTES = 16 << 20
"""Size of one file of a checkpoint: large enough to write fast, small enough to share the work between workers."""
_SEED_PATH = 2


@dataclass(frozen=True, kw_only=True)
class RoundTask:
    """What one worker needs to run its lanes for one round."""

    group_key: str
    """Identifies the group of workers and their copies; another attempt or another group has another key."""
    participant: int
    places: tuple[Place, ...]
    """Every participant's worker, host and copies."""
    train: Train
    seed: int
    plan: EpochPlan
    round: Round
    vocab_size: int
    window: int
    stream: epoch_stream.Source
    """The epoch's stream."""
    noise_table: str
    words: str
    """Path of the vocabulary's table."""
    checkpoint_before: str | None
    """Directory of the last checkpoint; None = the initial parameters."""
    checkpoint_round: int
    """The round after which that checkpoint was taken; −1 = none yet."""
    checkpoint_after: str | None
    """Directory for the state at the end of the round; None = it stays in memory."""
    vectors_after: str | None
    """Directory for the vectors after the last round of training, when nothing is kept for another round."""
    patience_s: float
    start_from: str | None = None
    """Directory of the vectors whose rows are the initial parameters (`start`)."""
    ahead: tuple[sampling.Share, ...] = ()
    """This worker's shares of the next epoch, drawn while it waits for others at merges and after its lanes have finished."""


@dataclass(frozen=True)
class RoundResult:
    participant: int
    losses: tuple[StretchLoss, ...]
    train_seconds: float
    merge_seconds: float
    """Time spent on folding and on waiting for others, minus the time of drawing the next epoch meanwhile."""
    files: tuple[store.Part, ...]
    """Files of the checkpoint, or of the vectors, written by this worker."""
    ahead: tuple[tuple[int, ...], ...]
    """Numbers of rows of the pieces of each share in the task's `ahead`."""


class HeldLanes:
    """What a worker keeps of a training between rounds: its lanes with their parameters, and the words."""

    def __init__(self) -> None:
        self.group: LaneGroup | None = None
        self._words: tuple[tuple[str, str], HeldWords] | None = None

    def words(self, noise_table: str, words: str) -> HeldWords:
        """The words of a vocabulary; paths of artefacts name their content."""
        if self._words is None or self._words[0] != (noise_table, words):
            self._words = (noise_table, words), read_words(noise_table, words)
        return self._words[1]

    def release(self) -> None:
        self.let_go(self.group)

    def let_go(self, group: LaneGroup | None) -> None:
        """Closes the group, and forgets it if it is the one held, so that its memory is freed."""
        if group is not None:
            with contextlib.suppress(OSError):
                group.close()
        if group is self.group:
            self.group = self._words = None


def run_round(task: RoundTask, state: WorkerState) -> RoundResult:
    """Trains this worker's lanes for one round and writes its share of the checkpoint, if one is due, or of the vectors."""
    held = state.of(HeldLanes)
    if held.group is None or held.group.key != task.group_key:
        state.release(but=sampling.KeptStreams)
        shape = (task.vocab_size, padded_size(task.train.vector_size))
        attempts = state.of(Attempts)
        bits = task.train.merge_bits or 32
        held.group = open_group(task.group_key, task.places, task.participant, shape, task.patience_s, attempts, bits)
    group = held.group
    try:
        if group.state_round != task.round.round - 1:
            if task.checkpoint_round != task.round.round - 1:
                raise PeerLostError("this worker no longer has the parameters; training goes on from the checkpoint")
            load_state(group, task)
        group.state_round = None
        result = _run_steps(group, task, state)
        group.state_round = task.round.round
    except BaseException:
        # An abandoned attempt may end after the next one has opened its own lanes here.
        if group is held.group:
            state.release()
        else:
            held.let_go(group)
        raise
    if task.vectors_after:
        state.release()
    return result


# ── state in, state out ──────────────────────────────────────────────────────────────────────────────────────────────


def blocks_of(vocab_size: int, row_floats: int) -> list[tuple[str, int, int, int]]:
    """(file name, matrix, first row, last row) of every file of a checkpoint, fixed by the sizes, whichever worker writes it."""
    rows = max(1, BLOCK_BYTES // (row_floats * 4))
    return [
        (f"{MATRICES[matrix]}-{index:05d}.npy", matrix, first, min(first + rows, vocab_size))
        for matrix in (0, 1)
        for index, first in enumerate(range(0, vocab_size, rows))
    ]


def load_state(group: LaneGroup, task: RoundTask) -> None:
    """Sets the base and every copy to the state before the round. Every host needs all of it, so its participants and their
    threads share the work, and the participants wait for each other. First writes to new memory spend most of their time in the
    operating system, which finds pages for several threads at once."""
    host = group.role.host
    own = some_rows(*block_of(task.vocab_size, group.participant - host.start, len(host)))
    if task.checkpoint_before is None and task.start_from:
        reach("start", group.participant)
        beginning = Beginning(task.start_from, Path(task.words), task.train.vector_size, task.seed)

        def go_on(rows: slice) -> None:
            for matrix in (0, 1):
                group.base[matrix][rows] = 0
                beginning.fill(matrix, group.base[matrix][rows], rows.start)

        group.spread(go_on, own)
    elif task.checkpoint_before is None:
        seed = stream_seed(task.seed, _SEED_PATH, 0)

        def begin(rows: slice) -> None:
            for matrix in group.base:
                matrix[rows] = 0
            fill_initial(group.base[0][rows], rows.start, task.train.vector_size, seed)

        group.spread(begin, own)
    else:
        checkpoint = store.load_artefact(Path(task.checkpoint_before))

        def read(block: tuple[str, int, int, int]) -> None:
            name, matrix, first, last = block
            if damage := store.check_part(checkpoint.directory, checkpoint.part(name)):
                raise DamagedError(damage, str(checkpoint.directory))
            group.base[matrix][first:last] = np.load(checkpoint.path(name), allow_pickle=False)

        group.spread(read, blocks_of(*group.base[0].shape)[group.participant - host.start :: len(host)])
    group.barrier.wait()
    copies = [trained for trained in group.trained.values() if trained is not group.base]

    def copy(rows: slice) -> None:
        for pair in copies:
            for matrix, base in zip(pair, group.base, strict=True):
                matrix[rows] = base[rows]

    group.spread(copy, some_rows(0, task.vocab_size))
    group.barrier.wait()


def write_state(group: LaneGroup, directory: Path) -> tuple[store.Part, ...]:
    """Writes this participant's share of the checkpoint's files."""
    mine = blocks_of(*group.base[0].shape)[group.participant :: len(group.places)]
    return tuple(
        store.write_array(directory / name, group.base[matrix][first:last], rows=last - first)
        for name, matrix, first, last in mine
    )


def write_vectors(group: LaneGroup, directory: Path, vector_size: int) -> tuple[store.Part, ...]:
    """Writes this participant's share of the matrices of vectors/: the first participant writes W_in, the next W_out."""
    mine = range(len(MATRICES))[group.participant :: len(group.places)]
    return tuple(group.spread(lambda matrix: assembly.write_matrix(matrix, group.base[matrix], vector_size, directory), mine))


# ── the steps of a round ─────────────────────────────────────────────────────────────────────────────────────────────


def _run_steps(group: LaneGroup, task: RoundTask, state: WorkerState) -> RoundResult:
    kernels = load_kernels(task.train.backend)
    # In the epoch after the next, if there is one, this worker will draw the same parts again.
    ahead = sampling.Ahead(task.ahead, state.of(sampling.KeptStreams), keep=task.plan.epoch + 2 < task.train.epochs)
    with contextlib.closing(Residency(kernels, group)) as resident:
        losses, train_seconds, merge_seconds = _train_stints(group, task, state, kernels, resident, ahead)
        resident.bring_home(all_merged=task.plan.merged_rows(task.round.last - 1) == task.vocab_size)
    files: tuple[store.Part, ...] = ()
    if task.checkpoint_after:
        files = write_state(group, Path(task.checkpoint_after))
    elif task.vectors_after:
        files = write_vectors(group, Path(task.vectors_after), task.train.vector_size)
    rows_ahead = tuple(group.spread(ahead.finish, range(len(task.ahead))))
    return RoundResult(task.participant, losses, train_seconds, merge_seconds, files, rows_ahead)


def _train_stints(
    group: LaneGroup, task: RoundTask, state: WorkerState, kernels: Kernels, resident: Residency, ahead: sampling.Ahead
) -> tuple[tuple[StretchLoss, ...], float, float]:
    """(losses, seconds of training, seconds of merging) of the round."""
    words = state.of(HeldLanes).words(task.noise_table, task.words)
    table_T = kernels.to_device(words.noise_table)
    exponent, noise = -1.0, Noise(table_T, np.empty(0, np.float32))
    rows, held = epoch_stream.Rows(task.stream, task.window, state), task.round.first
    # The same number of steps in every worker, so that all lanes load at the same time.
    steps = max(1, HELD_TOKENS * task.train.lanes * task.plan.schedule.steps // max(1, task.plan.kept_tokens))
    own_lanes = [lane for copy in group.own for lane in lanes_of_copy(task.train.lanes, task.plan.copies, copy)]
    teller = Teller(task.group_key, task.plan, task.round, task.participant, len(own_lanes))
    cores = BusyCores(max(1, min(group.threads, usable_cores()) // len(group.own)))
    group.background.processor_s()
    train_seconds = merge_seconds = 0.0
    for stint in task.plan.stints(task.round):
        losses, stint_seconds = list[tuple[int, float, int]](), 0.0
        for portion in task.plan.portions(stint):
            if portion.portions > 1:
                held = stint.last
                rows.hold([task.plan.slice_of(lane, portion) for lane in own_lanes])
            elif stint.last > held:
                held = min(task.round.last, max(stint.last, stint.first + steps))
                rows.hold([task.plan.slice(lane, stint.first, held) for lane in own_lanes])
            if (
                task.ahead
                and held == task.round.last
                and portion.number + 1 == portion.portions
                and group.meanwhile is nothing_to_do
            ):
                # The lanes have loaded everything that was drawn of this epoch.
                state.of(sampling.KeptStreams).forget_drawn()
                group.meanwhile = ahead.draw_some
            started = time.perf_counter()
            if task.plan.alpha_exponent(stint.first) != exponent:
                exponent = task.plan.alpha_exponent(stint.first)
                noise = Noise(table_T, kernels.to_device(words.rates(exponent)))
            cores.begin()
            spared = group.background.spared(cores.threads) // len(group.own)
            of_copies = group.spread(
                lambda copy, portion=portion, noise=noise, spared=spared: _train_copy(  # type: ignore[misc]
                    resident, task, kernels, noise, rows, copy, portion, cores.threads - spared
                ),
                group.own,
            )
            cores.end(len(group.own), spared, group.background.processor_s())
            losses += [loss for of_copy in of_copies for loss in of_copy]
            stint_seconds += time.perf_counter() - started
        trained = time.perf_counter()
        if stint.merged_rows:
            group.wait_for_slower(stint_seconds)
            resident.merge(stint.merged_rows, task.train.merge, waits=stint.waits)
        elif stint.waits:
            resident.end_merge()
        train_seconds += stint_seconds
        merge_seconds += time.perf_counter() - trained
        teller.trained(stint, losses, train_seconds, merge_seconds - ahead.seconds)
    group.meanwhile = nothing_to_do
    return tuple(teller.stretches.sums.values()), train_seconds, merge_seconds - ahead.seconds


@dataclass
class HeldWords:
    """What training needs of the vocabulary."""

    noise_table: NDArray[np.uint64]
    counts_V: NDArray[np.int64]
    keep_V: NDArray[np.float64]
    last: tuple[float, NDArray[np.float32]] | None = None
    """(exponent, rates) of the last call, often the same in the next round."""

    def rates(self, exponent: float) -> NDArray[np.float32]:
        if self.last is None or self.last[0] != exponent:
            self.last = exponent, word_rates(self.counts_V, self.keep_V, exponent)
        return self.last[1]


def read_words(noise_table: str, words: str) -> HeldWords:
    """The words of a vocabulary, from its noise table and its table of words."""
    table = store.read_table(Path(words), columns=("count", "keep_probability"))
    columns = (store.numbers(table[column]) for column in ("count", "keep_probability"))
    return HeldWords(np.load(store.fetched(Path(noise_table)), allow_pickle=False), *columns)


def _train_copy(
    resident: Residency, task: RoundTask, kernels: Kernels, noise: Noise, rows: epoch_stream.Rows, copy: int, portion: Portion,
    threads: int,
) -> list[tuple[int, float, int]]:  # fmt: skip
    """(lane, sum of losses, examples) of each lane of a copy."""
    train, lanes, slices = task.train, lanes_of_copy(task.train.lanes, task.plan.copies, copy), []
    stint, parameters = portion.stint, resident.copies[copy]
    for lane in lanes:
        reach("step", f"{task.plan.epoch}.{stint.first}.{lane}")
        stream, start, stop = rows.between(*task.plan.slice_of(lane, portion))
        slices.append(Slice(stream.tokens_N, stream.left_N, stream.right_N, start, stop))
    later = [portion.number] if portion.number else []
    seed = stream_seed(task.seed, _SEED_PATH, 1, task.plan.epoch, stint.first, copy, *later)
    update = Update(train.model, train.gradient, train.negative, (portion.alpha_start, portion.alpha_end), seed)
    if len(slices) == 1:
        results = [kernels.train_slice(*parameters, slices[0], noise, update)]
    else:
        results = kernels.train_lanes(*parameters, slices, noise, update, threads, resident.rooms[copy])
    for lane, result in zip(lanes, results, strict=True):
        if not math.isfinite(result.loss_sum):
            raise DivergedError(
                f"training diverged in round {task.round.round}, epoch {task.plan.epoch}, step {stint.first}, lane {lane} "
                f"at α = {portion.alpha_start:.6g}: the loss is not finite. The last checkpoint is kept; "
                "run again with a lower train.alpha"
            )
    return [(lane, result.loss_sum, result.examples) for lane, result in zip(lanes, results, strict=True)]
