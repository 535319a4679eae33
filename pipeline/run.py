"""`w2v run`: the stages in order, each reused when nothing it depends on changed, watched by MLflow, summed up in one file.

    corpus ─ tokenize ─▶ tokens/ ─ vocab ─▶ vocab/ ─ shards ─▶ shards/ ─ train ─▶ vectors/ ─ evaluate ─▶ report/
                                                                                           └─ publish ─▶ exports/

Kill it at any moment and run it again: it continues from the last complete stage or round. `<workdir>/summary.json` is
written last, so whoever finds it with status "complete" finds a complete run.
"""

from __future__ import annotations

import contextlib
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from pipeline import store
from pipeline.cluster.opening import open_workers
from pipeline.cluster.workers import Item, Member, Result, Workers
from pipeline.config import RunConfig
from pipeline.errors import DamagedError
from pipeline.failpoints import reach
from pipeline.progress import Progress
from pipeline.report.report import write_report
from pipeline.stages import evaluate, publish, shards, tokenize, train, vocab
from pipeline.text import corpus
from pipeline.tracking.tracker import Dataset, Tracker, TrackingState, open_tracker
from pipeline.training import arithmetic

KINDS = {
    "tokenize": tokenize.STAGE, "vocab": vocab.STAGE, "shards": shards.STAGE, "train": train.STAGE,
    "evaluate": evaluate.STAGE, "publish": publish.STAGE,
}  # fmt: skip
"""The stages in order, and the artefact each of them makes."""
STAGES = tuple(KINDS)
SUMMARY = "summary.json"
REPAIRS = 3
"""How often one run rebuilds an artefact that it found damaged before it gives up: more points to a failing disk."""


@dataclass(frozen=True)
class Outcome:
    """What became of one stage in this run."""

    artefact: store.Artefact
    seconds: float
    cached: bool


@dataclass
class Session:
    """One run in progress: what the stages share."""

    config: RunConfig
    workdir: Path
    workers: Workers
    progress: Progress
    tracker: Tracker | None = None
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    rounds: list[train.RoundRecord] = field(default_factory=list)


class LazyWorkers:
    """A cluster that is opened by the first task: a run whose stages are all cached starts none."""

    def __init__(self, open_now: Callable[[], contextlib.AbstractContextManager[Workers]]) -> None:
        self._open_now = open_now
        self._stack = contextlib.ExitStack()
        self._workers: Workers | None = None

    def _opened(self) -> Workers:
        if self._workers is None:
            self._workers = self._stack.enter_context(self._open_now())
        return self._workers

    def map(
        self, function: Callable[[Item], Result], items: Sequence[Item], *, label: str,
        on_done: Callable[[Result], None] | None = None,
    ) -> list[Result]:  # fmt: skip
        return self._opened().map(function, items, label=label, on_done=on_done)

    def members(self) -> list[Member]:
        return self._opened().members()

    def together(self, function: Callable[[Item], Result], items: Sequence[Item], members: Sequence[Member]) -> list[Result]:
        return self._opened().together(function, items, members)

    def close(self) -> None:
        self._stack.close()


@contextlib.contextmanager
def _lazy_cluster(config: RunConfig, until: str) -> Iterator[LazyWorkers]:
    trains = STAGES.index(until) >= STAGES.index("train")

    # Workers load the kernels in the background while they do other things.
    def plugins() -> list[Any]:
        return [arithmetic.warm_up_plugin(config.train)] if trains else []

    workers = LazyWorkers(lambda: open_workers(config.cluster, plugins=plugins))
    try:
        yield workers
    finally:
        workers.close()


def run(
    config: RunConfig, *, until: str = "publish", workers: Workers | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """The summary of a run up to stage `until`; every artefact is committed, and `summary.json` written.

    `workers` lets a program bring its own; else the configured cluster is opened when first needed. Raises the kinds of
    PipelineError; artefacts that were complete stay.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(store.lock(config.workdir))
        store.remove_unfinished(config.workdir)
        workers = workers or stack.enter_context(_lazy_cluster(config, until))
        session = Session(config, config.workdir, workers, progress or Progress())
        (config.workdir / SUMMARY).unlink(missing_ok=True)
        if config.tracking.enabled and STAGES.index(until) >= STAGES.index("train"):
            session.tracker = open_tracker(config.tracking, config.workdir, run_name=config.run.name, config_digest=config.digest)
        try:
            _run_with_repairs(session, until)
            summary = _summarise(session)
            return _conclude(session, summary)
        except BaseException as error:
            if session.tracker:
                session.tracker.finish("FAILED" if isinstance(error, Exception) else "KILLED")
            raise


def _run_with_repairs(session: Session, until: str) -> None:
    """Runs the stages; an artefact found damaged on the way is discarded and built again from its inputs."""
    for attempt in range(REPAIRS + 1):
        try:
            return _run_stages(session, until)
        except DamagedError as error:
            if attempt == REPAIRS:
                raise
            _note(session, f"damaged, rebuilt: {error}")
            store.discard(Path(error.directory))


def _run_stages(session: Session, until: str) -> None:
    config, workdir, workers, progress = session.config, session.workdir, session.workers, session.progress
    session.outcomes.clear()
    session.rounds.clear()
    last = STAGES.index(until)
    plan = corpus.plan_corpus(config.corpus, forbidden=workdir, known=workdir / "known_files.json")
    parts_done = lambda _: progress.advance()  # noqa: E731

    tokens = _stage(
        session, "tokenize", tokenize.STAGE, tokenize.tokens_identity(config, plan)[0],
        lambda: tokenize.build_tokens(config, plan, workers, workdir, parts_done),
        pieces=len(corpus.cut_parts(plan, config.corpus.block_bytes)),
    )  # fmt: skip
    if last < 1:
        return
    words = _stage(
        session, "vocab", vocab.STAGE, vocab.identity(config, tokens)[0], lambda: vocab.build(config, tokens, workers, workdir)
    )
    _start_tracking(session, tokens, words)
    if last < 2:
        return
    _stage(
        session, "shards", shards.STAGE, shards.identity(config, tokens, words)[0],
        lambda: shards.build(config, tokens, words, workers, workdir),
    )  # fmt: skip
    if last < 3:
        return
    vectors = _stage(
        session, "train", train.STAGE, train.identity(config, tokens, words)[0],
        lambda: train.build(config, tokens, words, workers, workdir, lambda record: _on_round(session, record),
                            on_plan=lambda text: progress.line(f"train: {text}"), on_note=lambda text: _note(session, text)),
    )  # fmt: skip
    if last < 4:
        return
    _stage(
        session, "evaluate", evaluate.STAGE, evaluate.identity(config, vectors)[0],
        lambda: evaluate.build(config, vectors, workdir),
    )  # fmt: skip
    if last < 5:
        return
    _stage(
        session, "publish", publish.STAGE, publish.identity(config, vectors)[0],
        lambda: publish.build(config, vectors, workdir),
    )  # fmt: skip


def _stage(
    session: Session, name: str, kind: str, fingerprint: str, build: Callable[[], store.Artefact], pieces: int = 0
) -> store.Artefact:
    """The stage's artefact: the one that is there, after every byte of it was checked, or a new one."""
    started = time.monotonic()
    found = store.open_artefact(session.workdir, kind, fingerprint)
    for damage in store.remove_damaged(found) if found else ():
        _note(session, f"damaged, rebuilt: {damage}")
        found = None
    if found is None:
        session.progress.start(name, pieces)
    reach("stage", name if found is None else f"{name} cached")
    artefact = found or build()
    outcome = Outcome(artefact, time.monotonic() - started, cached=found is not None)
    session.outcomes[name] = outcome
    session.progress.finish(describe(name, outcome)) if found is None else session.progress.line(
        f"{name}: {describe(name, outcome)}"
    )
    return artefact


def describe(name: str, outcome: Outcome) -> str:
    """One line about a finished stage."""
    totals = outcome.artefact.manifest.totals
    facts = {
        "tokenize": lambda: f"{totals['tokens']:,} tokens in {totals['sentences']:,} sentences",
        "vocab": lambda: f"{totals['size']:,} words of {totals['distinct_words']:,}",
        "shards": lambda: f"{totals['kept_tokens']:,} tokens kept",
        "train": lambda: f"{' × '.join(map(str, totals['shape']))} vectors, loss {totals['history'][-1]['loss']:.4f}",
        "evaluate": lambda: f"{len(totals['analogy']) + len(totals['similarity'])} sets",
        "publish": lambda: f"{len(totals['files'])} formats",
    }[name]()
    return f"{facts} ({'cached' if outcome.cached else f'{outcome.seconds:.1f} s'})"


def _note(session: Session, text: str) -> None:
    session.notes.append(text)
    session.progress.line(text)


# ── tracking ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _start_tracking(session: Session, tokens: store.Artefact, words: store.Artefact) -> None:
    if session.tracker is None:
        return
    config = session.config
    totals = tokens.manifest.totals
    session.tracker.start(
        config_params(config) | {"vocab.words": words.manifest.totals["size"], "corpus.tokens": totals["tokens"]},
        {"tokens": tokens.fingerprint, "vocab": words.fingerprint},
        Dataset(config.run.name, tokens.fingerprint, ", ".join(config.corpus.inputs)),
    )


TRACKED_SECTIONS = ("corpus", "tokenize", "vocab", "shards", "train", "evaluate", "publish")


def config_params(config: RunConfig) -> dict[str, str | int | float | None]:
    """The settings that decide the result, as `section.key`. Free-form options stay out: they may hold a secret."""
    fields = config.model_dump(mode="json", by_alias=True)
    params: dict[str, str | int | float | None] = {"run.seed": config.run.seed}
    for section in TRACKED_SECTIONS:
        for key, value in fields[section].items():
            if not isinstance(value, dict):
                params[f"{section}.{key}"] = " ".join(map(str, value)) if isinstance(value, list) else value
    return params


def _on_round(session: Session, record: train.RoundRecord) -> None:
    seconds = max(record.seconds, 1e-9)
    note = (
        f"round {record.round + 1}, epoch {record.epoch + 1}/{session.config.train.epochs}: loss {record.loss:.4f}, "
        f"α {record.alpha:.5f}, {record.raw_tokens / seconds / 1e6:.2f} M raw tokens/s"
    )
    if session.progress.live:
        session.progress.reached(record.round + 1, session.config.train.epochs * record.rounds_an_epoch, note)
    else:
        session.progress.line(f"train: {note}")
    session.rounds.append(record)
    if session.tracker is None:
        return
    for kept_tokens, loss in record.points:
        session.tracker.log(kept_tokens, {"train/loss": loss})
    session.tracker.log(
        record.round,
        {
            "train/round_loss": record.loss,
            "train/alpha": record.alpha,
            "train/epoch": record.epoch,
            "train/tokens_per_s": record.raw_tokens / seconds,
            "train/kept_tokens": record.kept_tokens,
            "train/merged_bytes": record.merged_bytes,
            "train/merge_seconds": record.merge_seconds,
        },
    )
    if (record.round + 1) % record.rounds_an_epoch == 0:
        epoch = [done for done in session.rounds if done.epoch == record.epoch]
        mean = sum(done.loss_sum for done in epoch) / max(1, sum(done.examples for done in epoch))
        session.tracker.log(record.epoch + 1, {"train/epoch_loss": mean})


# ── summary ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _summarise(session: Session) -> dict[str, Any]:
    """What summary.json says, but for what only tracking knows."""
    outcomes = session.outcomes
    summary: dict[str, Any] = {
        "status": "complete",
        "run_id": f"{session.config.run.name}-{session.config.digest[:12]}",
        "config_digest": session.config.digest,
        "config": session.config.model_dump(mode="json", by_alias=True, exclude={"tracking"}),
        "stages": {name: _stage_row(name, outcome) for name, outcome in outcomes.items()},
        "versions": versions(),
        "notes": session.notes + list(outcomes["tokenize"].artefact.manifest.totals.get("notes", ())),
    }
    tokens = outcomes["tokenize"].artefact.manifest.totals
    summary["corpus"] = dict(tokens)
    if "vocab" in outcomes:
        summary["vocab"] = dict(outcomes["vocab"].artefact.manifest.totals)
    if "train" in outcomes:
        summary |= _train_summary(session, outcomes["train"], int(tokens["tokens"]))
    if "evaluate" in outcomes:
        scores = outcomes["evaluate"].artefact.manifest.totals
        summary["evaluation"] = evaluation_summary(scores)
        summary["neighbours"], summary["analogies"] = scores["neighbours"], scores["analogies"]
    if "publish" in outcomes:
        exports = outcomes["publish"].artefact
        summary["exports"] = {
            name: [str(exports.directory / path) for path in paths] for name, paths in exports.manifest.totals["files"].items()
        }
    return summary


def versions() -> dict[str, str]:
    """What the result was made with."""
    packages = ("dask-word2vec", "numpy", "numba", "dask", "distributed", "pyarrow", "mlflow")
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in packages}


def _stage_row(name: str, outcome: Outcome) -> dict[str, Any]:
    totals = outcome.artefact.manifest.totals
    tokens = {
        "tokenize": lambda: totals["tokens"],
        "vocab": lambda: totals["corpus_tokens"],
        "shards": lambda: totals["tokens"],
        "train": lambda: round(sum(record["raw_tokens"] for record in totals["history"])),
    }.get(name, lambda: None)()
    row: dict[str, Any] = {
        "seconds": round(outcome.seconds, 4),
        "cached": outcome.cached,
        "fingerprint": outcome.artefact.fingerprint,
    }
    if tokens is not None:
        row["tokens"] = tokens
        if not outcome.cached:
            row["tokens_per_s"] = round(tokens / max(outcome.seconds, 1e-9))
    if name == "tokenize":
        row["bytes"] = totals["bytes_read"]
    return row


def _train_summary(session: Session, outcome: Outcome, corpus_tokens: int) -> dict[str, Any]:
    history = train.history_of(outcome.artefact)
    raw_tokens = corpus_tokens * session.config.train.epochs
    round_seconds = sum(record.seconds for record in history)
    # The stage's own time when all of it happened in this run; else what its rounds took when they ran.
    seconds = round_seconds if outcome.cached or round_seconds > outcome.seconds else outcome.seconds
    last_epoch = [record for record in history if record.epoch == history[-1].epoch]
    vectors, totals = outcome.artefact.part("vectors.npy"), outcome.artefact.manifest.totals
    return {
        "train": {
            "raw_tokens": raw_tokens,
            "kept_tokens": sum(record.kept_tokens for record in history),
            "seconds": round(seconds, 4),
            "raw_tokens_per_s": round(raw_tokens / max(seconds, 1e-9)),
            "final_loss": sum(r.loss_sum for r in last_epoch) / max(1, sum(r.examples for r in last_epoch)),
            "lanes": session.config.train.lanes,
            "merged_bytes": sum(record.merged_bytes for record in history),
            "merge_seconds": round(sum(record.merge_seconds for record in history), 4),
            "memory": totals["memory"],
            "kinds": totals["kinds"],
            "rounds": [asdict(record) for record in history],
        },
        "vectors": {
            "path": str(outcome.artefact.directory),
            "sha256": vectors.sha256,
            "shape": list(outcome.artefact.manifest.totals["shape"]),
        },
    }


def evaluation_summary(scores: dict[str, Any] | Any) -> dict[str, Any]:
    """The headline scores: of the first analogy set, and Spearman by similarity set, each with its coverage."""
    result: dict[str, Any] = {
        "analogy": None, "semantic": None, "syntactic": None, "coverage": None,
        "similarity": {name: found["spearman"] for name, found in scores["similarity"].items()},
        "similarity_coverage": {name: found["coverage"] for name, found in scores["similarity"].items()},
        "sets": {"analogy": scores["analogy"], "similarity": scores["similarity"]},
    }  # fmt: skip
    for found in list(scores["analogy"].values())[:1]:
        result |= {key: found[key] for key in ("analogy", "semantic", "syntactic", "coverage")}
    return result


def _conclude(session: Session, summary: dict[str, Any]) -> dict[str, Any]:
    """Tracks the results, writes the report, and last of all summary.json."""
    state = TrackingState(uri="", run_id=None, complete=False, message="not tracked")
    if "train" in summary:
        path = write_report(session.workdir, summary)
        summary["report"] = str(path)
    if session.tracker:
        state = _finish_tracking(session, session.tracker, summary)
    summary["mlflow"] = {"uri": state.uri, "run_id": state.run_id, "complete": state.complete, "message": state.message}
    store.write_json(session.workdir / SUMMARY, summary)
    return summary


def _finish_tracking(session: Session, tracker: Tracker, summary: dict[str, Any]) -> TrackingState:
    final_round = len(summary["train"]["rounds"])
    metrics = {f"stage/{name}_seconds": row["seconds"] for name, row in summary["stages"].items()}
    metrics |= {
        "train/final_loss": summary["train"]["final_loss"],
        "train/raw_tokens_per_s": summary["train"]["raw_tokens_per_s"],
    }
    if memory := summary["train"]["memory"]:
        metrics |= {f"memory/{key}": memory[key] for key in ("worker_bytes", "shared_bytes_a_host", "driver_bytes", "disk_bytes")}
    evaluation = summary.get("evaluation", {})
    metrics |= {
        f"eval/{key}": evaluation[key]
        for key in ("analogy", "semantic", "syntactic", "coverage")
        if evaluation.get(key) is not None
    }
    metrics |= {f"eval/similarity/{name}": value for name, value in evaluation.get("similarity", {}).items() if value is not None}
    tracker.log(final_round, metrics)
    tracker.set_tags({"vectors.sha256": summary["vectors"]["sha256"]})
    tracker.artifact(Path(summary["vectors"]["path"]), "vectors")
    tracker.artifact(Path(summary["report"]), "report")
    if session.config.publish.register_as and "publish" in summary["stages"]:
        tracker.register(session.config.publish.register_as, Path(summary["vectors"]["path"]))
    return tracker.finish("FINISHED")
