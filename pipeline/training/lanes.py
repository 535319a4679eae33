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
from pathlib import Path

import numpy as np

from pipeline import store
from pipeline.cluster.state import WorkerState
from pipeline.errors import DamagedError
from pipeline.exchange.attempts import Attempts, PeerLostError
from pipeline.failpoints import reach
from pipeline.stream import sampling
from pipeline.training import assembly
from pipeline.training.beginning import Beginning
from pipeline.training.lane_group import MATRICES, LaneGroup, open_group, some_rows
from pipeline.training.placement import block_of
from pipeline.training.residency import Residency
from pipeline.training.stints import SEED_PATH, HeldWords, RoundStints, read_words
from pipeline.training.tasks import RoundResult, RoundTask
from w2v_core.kernels import load_kernels, padded_size
from w2v_core.sampler import stream_seed

BLOCK_BYTES = 16 << 20
"""Size of one file of a checkpoint: large enough to write fast, small enough to share the work between workers."""


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
        kernels, seed = load_kernels(task.train.backend), stream_seed(task.seed, SEED_PATH, 0)

        def begin(rows: slice) -> None:
            for matrix in group.base:
                matrix[rows] = 0
            kernels.fill_initial(group.base[0][rows], rows.start, task.train.vector_size, seed)

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

    def write(block: tuple[str, int, int, int]) -> store.Part:
        name, matrix, first, last = block
        return store.write_array(directory / name, group.base[matrix][first:last], rows=last - first)

    return tuple(group.spread(write, blocks_of(*group.base[0].shape)[group.participant :: len(group.places)]))


def write_vectors(group: LaneGroup, directory: Path, vector_size: int) -> tuple[store.Part, ...]:
    """Writes this participant's share of the matrices of vectors/: the first participant writes W_in, the next W_out."""
    mine = range(len(MATRICES))[group.participant :: len(group.places)]
    group.free_copies()
    return tuple(group.spread(lambda matrix: assembly.write_matrix(matrix, group.base[matrix], vector_size, directory), mine))


# ── the steps of a round ─────────────────────────────────────────────────────────────────────────────────────────────


def _run_steps(group: LaneGroup, task: RoundTask, state: WorkerState) -> RoundResult:
    kernels = load_kernels(task.train.backend)
    # In the epoch after the next, if there is one, this worker will draw the same parts again.
    ahead = sampling.Ahead(task.ahead, state.of(sampling.KeptStreams), keep=task.plan.epoch + 2 < task.train.epochs)
    with contextlib.closing(Residency(kernels, group)) as resident:
        words = state.of(HeldLanes).words(task.noise_table, task.words)
        losses, train_seconds, merge_seconds = RoundStints(task, group, kernels, resident, state, words, ahead).train()
        resident.bring_home(all_merged=task.plan.merged_rows(task.round.last - 1) == task.vocab_size)
    files: tuple[store.Part, ...] = ()
    if task.checkpoint_after:
        files = write_state(group, Path(task.checkpoint_after))
    elif task.vectors_after:
        files = write_vectors(group, Path(task.vectors_after), task.train.vector_size)
    rows_ahead = tuple(group.spread(ahead.finish, range(len(task.ahead))))
    return RoundResult(task.participant, losses, train_seconds, merge_seconds, files, rows_ahead)
