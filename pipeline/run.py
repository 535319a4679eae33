"""`w2v run`: the stages in order, each reused if nothing it depends on changed, tracked by MLflow, summarised in one file.

    corpus ─ tokenize ─▶ tokens/ ─ vocab ─▶ vocab/ ─ shards ─▶ shards/ ─ train ─▶ vectors/ ─ evaluate ─▶ report/
                                                                                           └─ publish ─▶ exports/

Kill it at any moment and run it again: it continues from the last complete stage or checkpoint. `stages.ladder` lists the
stages, `session` holds what they share, `summary` what they leave for other programs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import store
from pipeline.cluster.workers import Workers
from pipeline.config import RunConfig
from pipeline.errors import DamagedError, StorageError, printable
from pipeline.history.latest import champion_of, decide, input_key
from pipeline.history.snapshot import REPORT, SUMMARY, Snapshot, make_snapshot
from pipeline.progress import Progress
from pipeline.report.report import write_report
from pipeline.safety import locks
from pipeline.session import Session, holding, open_session
from pipeline.stages.ladder import NAMES, up_to
from pipeline.stages.publish import send_exports
from pipeline.summary import summarise, write_summary
from pipeline.tracking.run_events import tell_results
from pipeline.tracking.textfile import note_summary
from pipeline.training.history import RoundRecord

if TYPE_CHECKING:
    from distributed import Client

REPAIRS = 3
"""How often a run rebuilds damaged artefacts before it gives up: more damage points to a failing disk."""


@dataclass
class Callbacks:
    """A program's own functions of a round, called in turn; an error of theirs is told apart from those of a run."""

    functions: Sequence[Callable[[RoundRecord], object]]
    raised: Exception | None = None

    def __call__(self, record: RoundRecord) -> None:
        try:
            for function in self.functions:
                function(record)
        except Exception as error:
            self.raised = error
            raise


def run(
    config: RunConfig, *, until: str = NAMES[-1], workers: Workers | None = None, client: Client | None = None,
    progress: Progress | None = None, on_round: Sequence[Callable[[RoundRecord], object]] = (),
) -> dict[str, Any]:  # fmt: skip
    """The summary of a run up to stage `until`, after committing every artefact and writing `summary.json`.

    A program can pass its own `workers` or its Dask `client`; by default the configured cluster is opened when first needed. The
    functions in `on_round` are called after every round of training, in the calling thread. Raises subclasses of PipelineError;
    complete artefacts stay.
    """
    with holding(config), open_session(config, until, workers, progress, client) as session:
        callbacks = Callbacks(on_round)
        session.on_round = (callbacks,)
        store.discard(config.workdir / SUMMARY)
        try:
            go_through_stages(session, until)
            return conclude(session)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            if error is callbacks.raised:
                raise
            # Anybody who can write to the workdir can forge an artefact with arbitrary numbers and a valid checksum.
            if reused := [str(done.artefact.directory) for done in session.done.values() if done.cached]:
                raise StorageError(_unusable(reused, error)) from error
            raise


def _unusable(reused: list[str], error: Exception) -> str:
    problem = printable(f"{type(error).__name__}: {error}", 200)
    return (
        f"results reused from earlier runs cannot be used ({problem}); choose another run.workdir, or remove {', '.join(reused)}"
        " and run the same command again (if that does not help, it is a bug: W2V_TRACEBACK=1 shows where)"
    )


def go_through_stages(session: Session, until: str) -> None:
    """Finds or builds every stage up to `until`; an artefact found damaged on the way is rebuilt from its inputs."""
    for attempt in range(REPAIRS + 1):
        try:
            session.begin()
            for stage in up_to(until):
                session.go_through(stage)
            return
        except DamagedError as error:
            if attempt == REPAIRS:
                raise
            session.note(f"damaged, rebuilt: {error}")
            store.discard(Path(error.directory))


def conclude(session: Session) -> dict[str, Any]:
    """Tracks the results, writes the report, makes a run of all stages the champion, and writes summary.json last."""
    workdir = session.config.workdir
    summary = report_and_track(session, workdir, {})
    if NAMES[-1] in session.done:
        snapshot = take_snapshot(session, summary)
        if (champion := champion_of(workdir)) is None or champion.id != snapshot.id:
            key = input_key(session.config.digest, session.done["tokenize"].artefact.fingerprint)
            decide(workdir, "run", snapshot.id, {"snapshot": snapshot.id, "status": "promoted", "input": key})
        send_exports(session.config, session.done[NAMES[-1]].artefact)
    return write_summary(workdir, summary)


def report_and_track(session: Session, place: Path, facts: Mapping[str, Any], *, register: bool = True) -> dict[str, Any]:
    """The session's summary with `facts`, after writing the report into the folder `place` and reporting to MLflow."""
    config = session.config
    summary = summarise(config, session.done, session.notes) | {"start_seconds": round(session.start_seconds, 4)} | dict(facts)
    if session.loads:
        summary["workers"] = [asdict(load) for _, load in sorted(session.loads.items())]
    if "train" in summary:
        summary["report"] = str(write_report(place / REPORT, summary))
    if session.tracker:
        if not register:
            config = config.model_copy(update={"publish": config.publish.model_copy(update={"register_as": None})})
        tell_results(session.tracker, config, summary)
    state = session.end_tracking("FINISHED")
    if session.textfile and "train" in summary:
        note_summary(session.textfile, summary)
    summary["mlflow"] = {"uri": state.uri, "run_id": state.run_id, "complete": state.complete, "message": state.message}
    return summary


def take_snapshot(session: Session, summary: dict[str, Any], parent: str | None = None) -> Snapshot:
    """The snapshot of the session's results."""
    assert session.plan is not None
    locks.require_held(session.config.workdir)
    artefacts = {name: (done.artefact.manifest.stage, done.artefact.fingerprint) for name, done in session.done.items()}
    corpus = [(file.path, file.size, file.sha256) for file in session.plan.files]
    return make_snapshot(session.config.workdir, summary, artefacts, corpus, parent=parent, report=Path(summary["report"]))
