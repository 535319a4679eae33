"""One run in progress: what its stages share, how each is found or built, and where its progress is reported.

A stage is reused if its artefact exists and every byte of it is intact; otherwise it is built. The cluster is opened by the
first task that needs it, tracking by runs that go as far as a tracked stage.
"""

from __future__ import annotations

import contextlib
import itertools
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline import store
from pipeline.cluster.before_start import crowded, refuse_hopeless, refuse_silent
from pipeline.cluster.choosing import processes_pay
from pipeline.cluster.guest import Proof
from pipeline.cluster.lazy import LazyWorkers
from pipeline.cluster.messages import Listener
from pipeline.cluster.opening import open_workers, use_client
from pipeline.cluster.state import WorkerState
from pipeline.cluster.workers import InProcess, Workers
from pipeline.config import Cluster, RunConfig
from pipeline.errors import counted
from pipeline.exchange.host import usable_cores
from pipeline.failpoints import reach
from pipeline.history.arrival import arrive
from pipeline.history.latest import champion_of, damage_notes, mend
from pipeline.progress import Progress
from pipeline.safety import locks
from pipeline.stages import tokenize
from pipeline.stages.ladder import CORPUS, Stage, up_to
from pipeline.stages.preloading import COMPILING, COMPILING_TOKENIZER, preload, quick_switches, warm_up_worker
from pipeline.stages.sets import refuse_unusable
from pipeline.stages.shards import epoch_lengths
from pipeline.stages.work import Done, Watch, Work
from pipeline.text.corpus import KNOWN_FILES, CorpusPlan, plan_corpus
from pipeline.text.inputs import refuse_place
from pipeline.text.sources import why_unseen
from pipeline.tracking.run_events import tell_live, tell_round, tell_start
from pipeline.tracking.textfile import TextFile, note_live, note_round, open_textfile
from pipeline.tracking.tracker import FLUSH_TIMEOUT_S, Status, Tracker, TrackingState, open_tracker
from pipeline.training import arithmetic
from pipeline.training.history import RoundRecord, kept_tokens
from pipeline.training.live import Live, Load
from pipeline.training.start import open_parent

if TYPE_CHECKING:
    from distributed import Client

WITNESSES = 16
"""How many files of the corpus a worker opens to prove that it sees the corpus."""
READ_HERE = ("vocab", "vectors", "report", "exports")
"""Kinds of artefacts that the driver itself reads: with a workdir in a bucket, their files must be fetched."""
START = "start"
"""The name that progress shows before the first stage."""


@dataclass
class Session:
    """What the stages of one run share, and their results so far."""

    config: RunConfig
    workers: Workers
    progress: Progress
    tracker: Tracker | None = None
    textfile: TextFile | None = None
    """The file for Prometheus."""
    plan: CorpusPlan | None = None
    done: dict[str, Done] = field(default_factory=dict)
    """The finished stages by name."""
    notes: list[str] = field(default_factory=list)
    rounds: list[RoundRecord] = field(default_factory=list)
    on_round: Sequence[Callable[[RoundRecord], None]] = ()
    """Called after every round with its record."""
    here: WorkerState = field(default_factory=WorkerState)
    """State that this process keeps between tasks if it does the work itself."""
    loads: dict[int, Load] = field(default_factory=dict)
    """The last load reported by each worker, by its number."""
    passes: float = 0.0
    """The number of times that training reads the text; not always whole."""
    compiles: bool = False
    """Whether it has been told that code is being compiled."""
    start_seconds: float = 0.0
    """Time spent on examining the corpus and starting workers, not part of any stage's time."""

    def begin(self) -> None:
        """Starts over with the first stage: examines the corpus."""
        workdir, began = self.config.workdir, time.monotonic()
        locks.require_held(workdir)
        self.progress.start(START, note="looking at the corpus")
        locks.tell(workdir, "looking at the corpus")
        with quick_switches():
            self.plan = plan_corpus(self.config.corpus, self.config.storage, forbidden=workdir, known=workdir / KNOWN_FILES)
        self.done.clear()
        self.rounds.clear()
        seconds, files = time.monotonic() - began, len(self.plan.files)
        self.start_seconds += seconds
        self.progress.finish(f"{counted(files, 'files|file')}, {self.plan.bytes / 1e6:,.1f} MB ({seconds:.1f} s)")

    def go_through(self, stage: Stage) -> None:
        """Finds the stage's artefact, with every byte checked, or builds it."""
        inputs = tuple(self.plan if need == CORPUS else self.done[need].artefact for need in stage.needs)
        started, clock, starting = time.monotonic(), time.time(), self.start_seconds
        artefact, cached = self.obtain(stage, inputs)
        seconds = time.monotonic() - started - (self.start_seconds - starting)
        done = Done(self.config, artefact, inputs, seconds, cached, clock)
        self.done[stage.name] = done
        if self.textfile:
            self.textfile.set("w2v_stage_seconds", done.seconds, stage=stage.name)
            self.textfile.write_if_due()
        line = f"{stage.describe(done).line} ({'cached' if done.cached else f'{done.seconds:.1f} s'})"
        self.progress.line(f"{stage.name}: {line}") if done.cached else self.progress.finish(line)
        for note in () if done.cached else done.totals.get("notes", ()):
            self.progress.line(f"{stage.name}: note: {note}")
        if stage.name == "vocab" and self.tracker:
            tell_start(self.tracker, self.config, self.done["tokenize"].artefact, artefact)

    def obtain(self, stage: Stage, inputs: tuple[Any, ...]) -> tuple[store.Artefact, bool]:
        """(the stage's artefact for these inputs, whether it existed already)"""
        locks.require_held(self.config.workdir)
        found = self._find(stage, stage.identity(self.config, *inputs)[0])
        if found is None:
            if self.tracker:
                self.tracker.make_ready()
            self.progress.start(stage.name, *self._pieces(stage))
            locks.tell(self.config.workdir, f"in {stage.name}")
        reach("stage", stage.name if found is None else f"{stage.name} cached")
        return found or stage.build(self._work(), *inputs), found is not None

    def _find(self, stage: Stage, fingerprint: str) -> store.Artefact | None:
        found = store.open_artefact(self.config.workdir, stage.makes, fingerprint)
        for damage in store.remove_damaged(found) if found else ():
            self.note(f"damaged, rebuilt: {damage}")
            found = None
        return store.bring(found) if found and stage.makes in READ_HERE else found

    def _pieces(self, stage: Stage) -> tuple[float, str, str]:
        """(total, note, unit) of the progress of a stage; total is 0 if it is not known."""
        if CORPUS in stage.needs and self.plan:
            return self.plan.bytes, "", "B"
        if stage.name == "train":
            parent = open_parent(self.config.train)
            lengths = epoch_lengths(self.config, self.done["tokenize"].artefact, parent.learnt if parent else ())
            self.passes = sum(lengths) or self.config.train.epochs
            return self._kept_tokens(), "", "tokens"
        return 0, "", ""

    def _kept_tokens(self) -> int:
        """About how many tokens all epochs will train; subsampling keeps slightly more or fewer in each."""
        return int(self.passes * self.done["shards"].totals["kept_tokens"])

    def _work(self) -> Work:
        watch = Watch(
            on_part=lambda record: self.progress.advance(record.stored_bytes),
            on_round=self._round_done,
            on_live=self._live,
            on_plan=lambda text: self.progress.line(f"train: {text}"),
            on_note=self.note,
        )
        return Work(self.config, self.config.workdir, self.workers, watch)

    def end_tracking(self, status: Status) -> TrackingState:
        """Ends the run in MLflow, if it is tracked; shows that it waits for MLflow, and with what result."""
        if self.tracker is None:
            return TrackingState(uri="", run_id=None, complete=False, message="no")
        began, waits = time.monotonic(), []

        def on_wait() -> None:
            waits.append(True)
            self.progress.start("tracking", note=f"waiting for MLflow, at most {FLUSH_TIMEOUT_S:.0f} s")

        state = self.tracker.finish(status, on_wait=on_wait)
        if waits:
            arrived = "all of the run has arrived" if state.complete else "not all of the run has arrived yet"
            self.progress.finish(f"{arrived} ({time.monotonic() - began:.1f} s)")
        return state

    def compiling(self, until: str) -> None:
        """Says once that code is being compiled, here or by workers, which a run that ends before training has little of."""
        if not self.compiles:
            self.compiles = True
            self.progress.line(f"start: {COMPILING if _trains(until) else COMPILING_TOKENIZER}")

    def note(self, text: str) -> None:
        """Shows a note to the user, now and in the report."""
        self.notes.append(text)
        self.progress.line(text)

    def _live(self, live: Live) -> None:
        if self.progress.live:
            self.progress.reached(live.kept_tokens, self._kept_tokens(), _epoch_note(live.epoch, self.config.train.epochs))
        self.loads |= {load.worker: load for load in live.loads}
        if self.textfile:
            note_live(self.textfile, live)
        if self.tracker:
            tell_live(self.tracker, live, self.rounds)

    def _round_done(self, record: RoundRecord) -> None:
        epochs = self.config.train.epochs
        note = (
            f"round {record.round + 1}, epoch {record.epoch + 1}/{epochs}: loss {record.loss:.4f}, "
            f"α {record.alpha:.5f}, {record.raw_tokens / max(record.seconds, 1e-9) / 1e6:.2f} M raw tokens/s"
        )
        self.rounds.append(record)
        if self.progress.live:
            shown = f"{_epoch_note(record.epoch, epochs)}, loss {record.loss:.4f}"
            self.progress.reached(kept_tokens(self.rounds), self._kept_tokens(), shown)
        else:
            self.progress.line(f"train: {note}")
        if self.textfile:
            merged = sum(earlier.merge_seconds for earlier in self.rounds)
            note_round(self.textfile, record, kept_tokens(self.rounds), merged)
        for told in self.on_round:
            told(record)
        if self.tracker:
            tell_round(self.tracker, record, self.rounds)


def _epoch_note(epoch: int, epochs: int) -> str:
    return f"epoch {epoch + 1} of {epochs}"


@contextlib.contextmanager
def holding(config: RunConfig) -> Iterator[None]:
    """Holds the workdir for this process, after removing what killed processes left unfinished. Raises BusyError, or ConfigError
    if the workdir lies inside the input, or holds it."""
    workdir = config.workdir
    # Before anything is written, even the lock, which a later run would find in its input.
    for pattern in config.corpus.inputs:
        refuse_place(pattern, workdir)
    with arrive(config):
        store.remove_unfinished(workdir)
        mend(workdir)
        yield


@contextlib.contextmanager
def open_session(
    config: RunConfig, until: str, workers: Workers | None, progress: Progress | None, client: Client | None = None
) -> Iterator[Session]:  # fmt: skip
    """A session for a run up to stage `until`, in a workdir that is held (`holding`); a failed or interrupted run is reported to
    MLflow as such.

    `workers` are a program's own, or those of its Dask `client`; by default the configured cluster is opened when first needed.
    """
    with contextlib.ExitStack() as stack:
        own = workers is None and client is None
        if own:
            refuse_hopeless(config, _trains(until))
            if config.cluster.kind == "address" and not _is_made(config):
                refuse_silent(config.cluster)
        if any(stage.name == "evaluate" for stage in up_to(until)):
            refuse_unusable(config.evaluate.analogies, config.evaluate.similarity, config.evaluate.syntactic)
        if _trains(until):
            open_parent(config.train)  # refuses vectors that training cannot continue from
        workers = workers or stack.enter_context(LazyWorkers(lambda: _open_workers(session, until, client)))
        session = Session(config, workers, progress or Progress())
        if own and _may_be_done_here(config) and not _has_tokens(config):
            _preload(session, until)
        if config.tracking.enabled and any(stage.tracked for stage in up_to(until)):
            session.tracker = open_tracker(config.tracking, config.workdir, run_name=config.run.name, config_digest=config.digest)
        session.textfile = open_textfile(config)
        session.textfile.state("running")
        if session.textfile.problem:
            session.note(session.textfile.problem)
        for note in damage_notes(config.workdir):
            session.note(note)
        try:
            yield session
        except BaseException as error:
            session.textfile.state("failed")
            session.end_tracking("FAILED" if isinstance(error, Exception) else "KILLED")
            raise


def _trains(until: str) -> bool:
    return any(stage.name == "train" for stage in up_to(until))


def _may_be_done_here(config: RunConfig) -> bool:
    """Whether this process does the work unless the corpus turns out to be large."""
    return config.cluster.kind == "local" and config.cluster.n_workers is None and not config.cluster.options


def _has_tokens(config: RunConfig) -> bool:
    """Whether this workdir has tokens of an earlier run, so that possibly nothing is left to do."""
    return any((config.workdir / tokenize.STAGE).glob(f"*/{store.MANIFEST}"))


def _is_made(config: RunConfig) -> bool:
    """Whether the champion was made with these settings, so that possibly no worker is needed."""
    champion = champion_of(config.workdir)
    return champion is not None and champion.body.get("config_digest") == config.digest


@contextlib.contextmanager
def _open_workers(session: Session, until: str, client: Client | None) -> Iterator[Workers]:
    """The open workers of a run; the time to start them counts as start time, not as part of the first stage that needs them."""
    began = time.monotonic()
    with _workers_for(session, until, client) as workers:
        session.start_seconds += time.monotonic() - began
        session.progress.say("")
        yield workers


def _workers_for(session: Session, until: str, client: Client | None) -> contextlib.AbstractContextManager[Workers]:
    """A client's workers; or threads of this process for small work on this machine, otherwise the configured cluster. All load
    the kernels in the background meanwhile."""
    config = session.config
    topic = f"w2v-{uuid.uuid4().hex[:12]}-compiling"
    hooks = [(warm_up_worker, (config.train if _trains(until) else config.tokenize, topic))]
    listeners: dict[str, Listener] = {topic: lambda worker: session.compiling(until)}
    if client is not None:
        return use_client(client, config.cluster, hooks, config.workdir, _sees_corpus(session), session.note, listeners)
    if config.cluster.kind == "local" and session.plan and _is_small(config, session.plan):
        _preload(session, until)
        return contextlib.nullcontext(InProcess(usable_cores(), session.here))
    if crowd := crowded(config.cluster):
        session.progress.line(f"start: {crowd}")
    session.progress.say(f"starting workers ({_where(config.cluster)})")
    refuse_silent(config.cluster)
    return open_workers(
        config.cluster,
        hooks,
        shared=config.workdir,
        proofs=_sees_corpus(session),
        on_note=session.note,
        on_pages=lambda pages: session.progress.line(pages.link if session.progress.live else pages.where),
        listeners=listeners,
    )


def _preload(session: Session, until: str) -> None:
    known = session.here.of(arithmetic.KnownNumbers) if _trains(until) else None
    preload(session.config, known, lambda: session.compiling(until))


def _sees_corpus(session: Session) -> list[Proof]:
    """The proof that a worker sees the corpus, unless its text has been tokenized already."""
    if session.plan is None or "tokenize" in session.done:
        return []
    files = session.plan.files
    some = itertools.islice(files, 0, None, -(-len(files) // WITNESSES) or 1)
    return [(why_unseen, (tuple((file.path, file.size) for file in some), session.config.storage))]


def _where(cluster: Cluster) -> str:
    return f"waiting for the scheduler at {cluster.address}" if cluster.address else f"cluster.kind: {cluster.kind}"


def _is_small(config: RunConfig, plan: CorpusPlan) -> bool:
    compressed = sum(file.size for file in plan.files if file.kind not in ("plain", "python", "parquet"))
    return not processes_pay(config, plan.bytes, compressed, usable_cores())
