"""shards/ + vocab/ → vectors/: the rounds of training, driven from checkpoint to checkpoint.

The driver holds no parameters. It has the workers run a round (`lanes.run_round`), commits the checkpoint they wrote if one was
due, and goes on; after losing a worker it goes on from the last checkpoint, which gives the same bits. The first epoch trains on
the files of shards/, a later one on what its workers drew while they trained the previous one (`stream.sampling`).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import store
from pipeline.cluster.state import WithState
from pipeline.cluster.workers import Member, Workers
from pipeline.config import RunConfig, Train
from pipeline.errors import TemporaryError
from pipeline.failpoints import reach
from pipeline.stages import shards as shard_stage
from pipeline.stages import vocab as vocabulary
from pipeline.stages.work import Done, Identity, Told, Work
from pipeline.stream import epoch_stream, sampling
from pipeline.stream.part_files import part_names, word_parts
from pipeline.training import arithmetic, assembly, capacity, lanes, layered
from pipeline.training.admission import Admission
from pipeline.training.checkpoints import Checkpoints, Discards
from pipeline.training.history import RoundRecord, history_of, kept_tokens, record_round, training_sections
from pipeline.training.live import hear_round
from pipeline.training.placement import place_copies
from pipeline.training.plan import EpochPlan, Round, Schedule, choose_lanes, choose_schedule, copies_of, plan_epoch
from pipeline.training.policy import POLICIES, START_POLICIES, as_data
from pipeline.training.start import Parent, open_parent, require_intact
from pipeline.training.tasks import RoundResult, RoundTask
from w2v_core.kernels import padded_size

STAGE = "vectors"
STAGE_VERSION = 4
ATTEMPTS_A_ROUND = 20
"""Losses of workers without progress before the run gives up; the same command continues there."""
PATIENCE_S = 120.0
"""How long a worker waits for the others at a merge before it considers them lost."""


@dataclass(frozen=True)
class Training:
    """Everything a round needs besides its number."""

    config: RunConfig
    train: Train
    """With the numbers of lanes and copies, as configured or chosen."""
    tokens: store.Artefact
    vocab: store.Artefact
    shards: store.Artefact
    fingerprint: str
    schedule: Schedule
    workdir: Path
    parent: Parent | None = None
    """The vectors that training continues from, if any."""
    lengths: tuple[float, ...] = ()
    """The share of the text that each epoch takes; empty if every epoch takes all of it."""

    @property
    def checkpoints(self) -> Checkpoints:
        return Checkpoints(self.workdir, self.fingerprint, self.train.epochs * self.schedule.rounds)

    @property
    def vocab_size(self) -> int:
        return int(self.vocab.manifest.totals["size"])


def identity(config: RunConfig, tokens: store.Artefact, vocab: store.Artefact, shards: store.Artefact) -> Identity:
    """(fingerprint, fields read, inputs) of the vectors made from these shards with these settings."""
    return _identity(config, vocab, shards, open_parent(config.train))


def _identity(config: RunConfig, vocab: store.Artefact, shards: store.Artefact, parent: Parent | None) -> Identity:
    # `deterministic` only excludes workers and does not change the vectors; other vectors count by their content.
    train = choose_lanes(config.train, shards.manifest.totals["kept_tokens"], vocab.manifest.totals["size"])
    fields = train.model_dump(exclude={"deterministic", "start_from", "rehearse"}) | {"seed": config.run.seed}
    if parent:
        fields |= {"start_from": parent.digest, "trained_before": parent.trained_tokens, "rehearse": train.rehearse}
    if config.train.engine == "kernels":
        fields |= {name: as_data(policy) for name, policy in (POLICIES | (START_POLICIES if parent else {})).items()}
    inputs = (shards.fingerprint,)
    return store.fingerprint(STAGE, STAGE_VERSION, fields, inputs), fields, inputs


def build(work: Work, tokens: store.Artefact, vocab: store.Artefact, shards: store.Artefact) -> store.Artefact:
    """The committed vectors. Continues from the last intact checkpoint; the watch's `on_round` gets every round, including
    earlier ones, `on_plan` what training will need, `on_note` which workers are left out. Raises CapacityError before starting a
    training that cannot finish."""
    config, workers, watch = work.config, work.workers, work.watch
    parent = open_parent(config.train)
    fingerprint, fields, inputs = _identity(config, vocab, shards, parent)
    expected = expected_tokens(vocab)
    train = choose_lanes(config.train, shards.manifest.totals["kept_tokens"], vocab.manifest.totals["size"])
    if train.copies == 1 and (unread := config.train.unread_by_one_copy()):
        watch.on_note(f"{', '.join(unread)}: no effect, one copy of the parameters is trained (train.copies=2 makes two)")
    schedule = choose_schedule(train, int(vocab.manifest.totals["size"]), expected)
    lengths = shard_stage.epoch_lengths(config, tokens, parent.learnt if parent else ())
    training = Training(config, train, tokens, vocab, shards, fingerprint, schedule, work.workdir, parent, lengths)
    checkpoint, history = training.checkpoints.latest()
    if checkpoint is None and parent:
        require_intact(parent)
    admission = open_admission(training, expected, checkpoint, watch.on_plan, watch.on_note)
    for record in history:
        watch.on_round(record)
    told = len(history)
    before_last: store.Artefact | None = None
    files: list[store.Part] = []
    epochs = _Epochs(training, workers)
    attempts, discards = _Attempts(), Discards()
    while len(history) < config.train.epochs * schedule.rounds:
        plan = epochs.plan(len(history) // schedule.rounds)
        round_plan = plan.rounds[len(history) % schedule.rounds]
        if attempts.chosen is None:
            attempts.chosen = admission.admit(workers)
        try:
            done = _run_round(training, plan, round_plan, epochs, checkpoint, history, work, attempts)
        except TemporaryError as error:
            attempts.lost(round_plan, error)
            history = history_of(checkpoint)
            watch.on_note(_what_is_repeated(error, len(history), round_plan))
            continue
        history, files = [*history, done.record], done.files
        if done.record.round >= told:
            watch.on_round(done.record)
            told += 1
        if done.ahead:
            epochs.know(plan.epoch + 1, done.ahead)
        if round_plan.checkpoint:
            # Two are kept, in case the newest is found damaged.
            if before_last:
                discards.discard(before_last.directory)
            made = training.checkpoints.commit(round_plan.round, files, history, admission.round_done())
            before_last, checkpoint = checkpoint, made
            attempts.chosen = None
    discards.wait()
    return _commit_vectors(training, fields, inputs, files, history, admission)


def describe(done: Done) -> Told:
    history = history_of(done.artefact)
    line = f"{' × '.join(map(str, done.totals['shape']))} vectors, loss {history[-1].loss:.4f}"
    sections = training_sections(done.artefact, 0.0 if done.cached else done.seconds)
    return Told(line, tokens=round(sum(record.raw_tokens for record in history)), sections=sections)


@dataclass
class _Attempts:
    """Which workers train, and how often workers were lost. Between two checkpoints the parameters exist only in the workers'
    memory, so other workers can only be chosen at a checkpoint, and after a loss training goes on from the last one."""

    chosen: Sequence[Member] | None = None
    session: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    """Distinguishes this driver's groups of workers from those of a killed driver; nothing that is kept depends on it."""
    number: int = 0
    """Counted over the whole training, so that an attempt never meets processes of an earlier one."""
    losses: int = 0
    """Since training last reached a new round."""
    furthest: int = -1

    def lost(self, round_plan: Round, error: TemporaryError) -> None:
        """Prepares the next attempt; raises TemporaryError after ATTEMPTS_A_ROUND without progress."""
        self.losses = self.losses + 1 if round_plan.round <= self.furthest else 1
        self.furthest = max(self.furthest, round_plan.round)
        self.number += 1
        self.chosen = None
        if self.losses >= ATTEMPTS_A_ROUND:
            raise TemporaryError(f"round {round_plan.round + 1} was interrupted {self.losses} times in a row; last: {error}")


def _what_is_repeated(error: TemporaryError, done: int, round_plan: Round) -> str:
    """A note on a lost attempt: why it was lost, and what is trained again. `done`: the newest checkpoint's number of rounds."""
    start = f"from the checkpoint after round {done}" if done else "from the beginning"
    return f"round {round_plan.round + 1} was interrupted: {str(error).partition(';')[0]}; training goes on {start}"


def expected_tokens(vocab: store.Artefact) -> float:
    """The expected number of tokens per epoch after subsampling."""
    table = store.read_table(vocab.path(vocabulary.WORDS), columns=["count", "keep_probability"])
    return float(np.dot(store.numbers(table["count"]).astype(np.float64), store.numbers(table["keep_probability"])))


def open_admission(
    training: Training, expected_tokens: float, state: store.Artefact | None,
    on_plan: Callable[[str], None], on_note: Callable[[str], None],
) -> Admission:  # fmt: skip
    """The admission of workers to this training, none admitted yet; past kinds of arithmetic come from the checkpoint."""
    train, rounds = training.train, training.schedule.rounds
    # Each epoch draws its own tokens; their number varies far less than this allows for.
    epoch_tokens = round(1.02 * expected_tokens) + 10_000
    # As in `sampling.PartTokens`: an int32 per token, an int64 per sentence, a uint64 per word of each part.
    totals = training.tokens.manifest.totals
    part_words = sum(part.rows for part in word_parts(training.tokens))
    sentence_bytes = 4 * totals["tokens"] + 8 * totals["sentences"] + 8 * part_words
    sizes = capacity.TrainingSizes(
        vocab_size=training.vocab_size, vector_size=train.vector_size, row_floats=padded_size(train.vector_size),
        lanes=train.lanes, copies=copies_of(train, training.vocab_size), merge_bits=train.merge_bits or 32,
        lane_tokens=-(-epoch_tokens // (train.lanes * rounds)),
        epoch_tokens=epoch_tokens,
        epochs=train.epochs, window=training.config.shards.window,
        noise_bytes=training.vocab.part(vocabulary.NOISE_TABLE).bytes, sentence_bytes=sentence_bytes,
        layers=train.engine == "layers",
        analogy_words=training.config.evaluate.restrict_vocab if training.config.evaluate.analogies else 0,
        moments=2 if train.optimizer == "adam" else 0,
    )  # fmt: skip
    kinds = [arithmetic.Numbers(**kind) for kind in state.manifest.totals.get("kinds", ())] if state else []
    return Admission(train, sizes, training.workdir, training.checkpoints.bytes_in_use(), kinds, on_plan, on_note)


class _Epochs:
    """Every epoch's stream. The number of tokens kept in each piece is known from the workers that drew it ahead; if none did,
    because training goes on from a checkpoint, all workers count."""

    def __init__(self, training: Training, workers: Workers) -> None:
        self._training, self._workers = training, workers
        self._known: dict[int, epoch_stream.Source] = {0: epoch_stream.MappedShards(training.shards)}

    def plan(self, epoch: int) -> EpochPlan:
        """The plan of an epoch's rounds."""
        training, kept_tokens = self._training, sum(self.of(epoch).rows())
        before = training.parent.trained_tokens if training.parent else 0
        if lengths := training.lengths:
            # The same age as if all earlier epochs had had this epoch's length.
            before += round(kept_tokens * (sum(lengths[:epoch]) / lengths[epoch] - epoch))
        return plan_epoch(training.train, training.schedule, training.vocab_size, epoch, kept_tokens, before, lengths)

    def of(self, epoch: int) -> epoch_stream.Source:
        if epoch not in self._known:
            tasks, label = self.tasks(epoch), f"stream of epoch {epoch}"
            self.know(epoch, self._workers.map(WithState(sampling.count_rows), tasks, label=label))
        return self._known[epoch]

    def tasks(self, epoch: int) -> list[sampling.DrawTask]:
        """The draws of a later epoch's parts."""
        training, learnt = self._training, self._training.parent.learnt if self._training.parent else ()
        return shard_stage.plan_draws(training.config, training.tokens, training.shards, epoch, learnt)

    def know(self, epoch: int, rows: Sequence[tuple[int, ...]]) -> None:
        """Records the rows of the pieces of every part, in part order. Raises DataError if there are none at all."""
        training = self._training
        found = epoch_stream.DrawnStream(tuple(self.tasks(epoch)), tuple(rows), keep=epoch + 1 < training.train.epochs)
        shard_stage.refuse_empty(training.config, sum(found.rows()), training.tokens)
        self._known[epoch] = found


# ── one round ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Done:
    """The results of a round."""

    record: RoundRecord
    files: list[store.Part]
    """Files of its checkpoint, or of the vectors after the last round; otherwise empty."""
    ahead: list[tuple[int, ...]]
    """Numbers of rows of the pieces of the next epoch's parts, if this round's workers drew them."""


def _run_round(
    training: Training, plan: EpochPlan, round_plan: Round, epochs: _Epochs,
    checkpoint: store.Artefact | None, history: Sequence[RoundRecord], work: Work, attempts: _Attempts,
) -> _Done:  # fmt: skip
    """Runs one round. Raises TemporaryError if a worker is lost."""
    reach("round", f"{round_plan.round}.{attempts.number}")
    assert attempts.chosen is not None
    started, corpus_tokens = time.monotonic(), training.tokens.manifest.totals["tokens"]
    if training.lengths:
        corpus_tokens = round(corpus_tokens * training.lengths[plan.epoch])
    ahead: list[tuple[int, ...]] = []
    if training.train.engine == "layers":
        task = _epoch_task(training, plan, round_plan, epochs.of(plan.epoch), checkpoint)
        results = work.workers.together(WithState(layered.run_epoch), [task], attempts.chosen)
    else:
        tasks = _round_tasks(training, plan, round_plan, epochs, checkpoint, attempts)
        hear = hear_round(tasks[0].group_key, plan, round_plan, kept_tokens(history), corpus_tokens, work.watch.on_live)
        results = work.workers.together(WithState(lanes.run_round), tasks, attempts.chosen, hear)
        ahead = _rows_ahead(tasks, results)
    return _Done(
        record=record_round(
            plan, round_plan, history, results, corpus_tokens=corpus_tokens, seconds=time.monotonic() - started
        ),
        files=sorted((part for result in results for part in result.files), key=lambda part: part.name),
        ahead=ahead,
    )  # fmt: skip


def _rows_ahead(tasks: Sequence[RoundTask], results: Sequence[RoundResult]) -> list[tuple[int, ...]]:
    """The numbers of rows of the pieces of every part, in part order. A part's shares come in the order of its pieces."""
    rows: dict[int, tuple[int, ...]] = {}
    for task, result in zip(tasks, results, strict=True):
        for share, found in zip(task.ahead, result.ahead, strict=True):
            index = share.task.part.index
            rows[index] = (*rows.get(index, ()), *found)
    return [found for _, found in sorted(rows.items())]


def _round_tasks(
    training: Training, plan: EpochPlan, a_round: Round, epochs: _Epochs, checkpoint: store.Artefact | None, attempts: _Attempts,
) -> list[RoundTask]:  # fmt: skip
    # The key identifies the group of workers, which keep their memory from round to round.
    chosen = attempts.chosen or ()
    key = f"{training.fingerprint[:16]}/{attempts.session}/{attempts.number}/{[member.address for member in chosen]}"
    places = place_copies(chosen, copies_of(training.train, training.vocab_size))
    ahead: list[tuple[sampling.Share, ...]] = [()] * len(chosen)
    if a_round is plan.rounds[-1] and not a_round.vectors:
        tasks = epochs.tasks(plan.epoch + 1)
        rows = [round(rows * task.share) for rows, task in zip(epochs.of(0).rows_of_parts(), tasks, strict=True)]
        ahead = sampling.share_out(tasks, rows, [place.copies for place in places])
    return [
        RoundTask(
            group_key=key,
            participant=index,
            places=places,
            train=training.train,
            seed=training.config.run.seed,
            plan=plan,
            round=a_round,
            vocab_size=training.vocab_size,
            window=training.config.shards.window,
            stream=epochs.of(plan.epoch),
            noise_table=str(training.vocab.path(vocabulary.NOISE_TABLE)),
            words=str(training.vocab.path(vocabulary.WORDS)),
            checkpoint_before=str(checkpoint.directory) if checkpoint else None,
            checkpoint_round=int(checkpoint.manifest.totals["round"]) if checkpoint else -1,
            checkpoint_after=str(training.checkpoints.directory(a_round.round)) if a_round.checkpoint else None,
            vectors_after=str(_vectors_directory(training)) if a_round.vectors else None,
            patience_s=PATIENCE_S,
            start_from=training.parent.directory if training.parent else None,
            ahead=ahead[index],
        )
        for index in range(len(chosen))
    ]


def _epoch_task(
    training: Training, plan: EpochPlan, round_plan: Round, stream: epoch_stream.Source, state: store.Artefact | None
) -> layered.EpochTask:
    config = training.config
    return layered.EpochTask(
        train=config.train,
        seed=config.run.seed,
        epoch=plan.epoch,
        window=config.shards.window,
        full_windows_only=not config.shards.shrink_windows,
        ns_exponent=config.vocab.ns_exponent,
        vocab=str(training.vocab.path(vocabulary.WORDS)),
        stream=stream,
        checkpoint_before=str(state.directory) if state else None,
        checkpoint_after=str(training.checkpoints.directory(plan.epoch)),
        vectors_after=str(_vectors_directory(training)) if round_plan.vectors else None,
    )


# ── the result ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _vectors_directory(training: Training) -> Path:
    return store.artefact_directory(training.workdir, STAGE, training.fingerprint)


def _commit_vectors(
    training: Training, fields: dict[str, Any], inputs: tuple[str, ...],
    matrices: Sequence[store.Part], history: Sequence[RoundRecord], admission: Admission,
) -> store.Artefact:  # fmt: skip
    """The vectors as an artefact: the words beside the matrices that the workers wrote."""
    table, directory = vocabulary.read_words(training.vocab), _vectors_directory(training)
    # Workers that wrote the matrices to a bucket may share no folder with this process.
    directory.mkdir(parents=True, exist_ok=True)
    parts = assembly.add_words(
        directory,
        matrices,
        training.train.vector_size,
        table["word"].to_pylist(),
        store.numbers(table["count"]),
    )
    artefact = store.commit(
        training.workdir,
        store.Manifest(
            stage=STAGE, fingerprint=training.fingerprint, parts=tuple(parts), fields=fields, inputs=inputs,
            totals={
                "shape": [training.vocab_size, training.train.vector_size],
                "history": [asdict(record) for record in history],
                "kinds": admission.round_done(),
                "memory": admission.plan,
                "learnt": sorted(set(part_names(training.tokens))),
            }
            | ({"trained_before": training.parent.trained_tokens} if training.parent else {}),
        ),
    )  # fmt: skip
    training.checkpoints.discard_all()
    return artefact
