"""`w2v refresh`: brings a workdir up to date with its corpus, or reports that nothing is new; one idempotent command.

    what is new?     compares the corpus's content with that of the last decision; if nothing is new, done
    a challenger     the usual stages: tokenize new text, sum counts, draw shards, train (from the champion or scratch), publish
    gates            scores on the same sets, words and neighbourhoods, compared with the champion's
    one decision     an entry in history/: the challenger becomes champion, or the champion stays

Killed anywhere, the same command arrives at the same snapshot. Of several at once, one works; the others exit with 73 or find
nothing new.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pipeline import store
from pipeline.cluster.workers import Workers
from pipeline.config import RunConfig
from pipeline.errors import StorageError, printable
from pipeline.failpoints import reach
from pipeline.history.gc import find_outdated, remove
from pipeline.history.latest import champion_of, damage_notes, decide, input_key, last_decision, last_entry, next_number
from pipeline.history.snapshot import Snapshot, read_summary
from pipeline.progress import Progress
from pipeline.refresh.align import aligned
from pipeline.refresh.challenge import Challenge, Scored, Start, challenger_config, choose_start, compare_with_champion, damage_of
from pipeline.refresh.delta import Delta, compare
from pipeline.refresh.gates import Verdict, stopped_by
from pipeline.refresh.hook import run_hook
from pipeline.refresh.rollback import DAMAGED, step_back
from pipeline.run import go_through_stages, report_and_track, take_snapshot
from pipeline.safety.files import json_object, read_inside
from pipeline.safety.locks import HeldError, held
from pipeline.session import Session, holding, open_session
from pipeline.stages import tokenize
from pipeline.stages.ladder import NAMES, STAGES, up_to
from pipeline.stages.publish import send_exports
from pipeline.summary import write_summary
from pipeline.text.corpus import KNOWN_FILES, CorpusPlan, plan_corpus
from pipeline.tracking.aliases import move_alias
from pipeline.tracking.arrived import find_arrived

PROMOTED, KEPT, NOTHING_NEW = "promoted", "kept", "nothing new"
OWED, TELLING_LOCK = "on_finish.json", ".on-finish-lock"
"""The former names the decision that `refresh.on_finish` has to be told, until it has been; who tells it holds the latter."""
EXIT_CODES = {PROMOTED: 0, NOTHING_NEW: 0, KEPT: 79}


def refresh(
    config: RunConfig, *, cold: bool = False, workers: Workers | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """The outcome as plain data: `status` is promoted, kept or nothing new. `cold` trains the challenger from scratch.

    A program can pass its own `workers`. Raises subclasses of PipelineError; the champion then stays unchanged.
    """
    started = time.monotonic()
    with contextlib.ExitStack() as telling:
        with holding(config):
            told = _refresh(config, cold, workers, progress or Progress())
            about = _about(config, told, telling) if config.refresh.on_finish else None
        told["seconds"] = round(time.monotonic() - started, 3)
        if config.refresh.on_finish and about:
            reach("hook", "begins")
            told["on_finish"] = run_hook(config.refresh.on_finish, about, config.refresh.on_finish_timeout_s, config.folder)
            if _owed(config.workdir) == about["number"]:
                store.discard(config.workdir / OWED)
    return told


def _about(config: RunConfig, told: dict[str, Any], telling: contextlib.ExitStack) -> dict[str, Any] | None:
    """What `refresh.on_finish` has to be told: this decision or, where nothing is new, the last one, if its refresh was killed
    before it had told it. None if there is nothing to tell, or another process is just doing so."""
    is_new = told["status"] != NOTHING_NEW
    if not is_new:
        number = _owed(config.workdir)
        last = last_entry(config.workdir)
        if number is None or last.get("number") != number:
            return None
        told = last
    try:
        # Taken while the workdir is held, so that no other refresh comes between the decision and telling it.
        telling.enter_context(held(config.workdir / TELLING_LOCK, wait=is_new))
    except HeldError:
        return None
    return told


def _owed(workdir: Path) -> int | None:
    """The number of the decision that `refresh.on_finish` was not told; None if it was told everything."""
    try:
        number = json_object(read_inside(workdir, OWED)).get("number")
    except (OSError, ValueError):
        return None
    return number if isinstance(number, int) else None


def _refresh(config: RunConfig, cold: bool, workers: Workers | None, progress: Progress) -> dict[str, Any]:
    workdir = config.workdir
    plan = plan_corpus(config.corpus, config.storage, forbidden=workdir, known=workdir / KNOWN_FILES)
    key = input_key(config.digest, tokenize.identity(config, plan)[0])
    champion, damage, note = _intact_champion(config)
    described = champion if champion and not champion.damage() else None
    delta = compare(described.corpus() if described else [], files_of(plan))
    last = last_decision(workdir)
    # With `cold`, unchanged input counts as known only if the last challenger was trained from scratch, too.
    known = last.get("input") == key and (not cold or last.get("start", "cold") == "cold")
    # The champion may be an earlier one, because the snapshot that was decided for is damaged: then that is made again.
    decided = last_entry(workdir)
    known = known and champion is not None and decided.get("champion") == champion.id and DAMAGED not in decided
    if champion and known and not damage:
        _settle(config, champion)
        return _nothing_new(champion, plan, delta)
    start = choose_start(config, champion, delta, cold=cold, damage=damage)
    progress.line(f"refresh: {start.name} ({start.why})")
    with open_session(challenger_config(config, champion, start), NAMES[-1], workers, progress) as session:
        if note:
            session.note(note)
        comparison, leftover = _make_challenger(session, config, None if damage else champion, start)
        entry = _decide(session, config, champion, comparison, {
            "start": start.name, "why": start.why, "input": key, "delta": delta.as_data(),
            "corpus": _corpus_sizes(session, described),
        })  # fmt: skip
    if leftover:
        store.discard(leftover.directory)
    _remove_outdated(config)
    return entry


def _intact_champion(config: RunConfig) -> tuple[Snapshot | None, str, str]:
    """(champion, its damage, what to note): for a damaged one the last intact one before it, which is champion from then on; if
    there is none, the damaged one."""
    champion = champion_of(config.workdir)
    if champion is None or not (damage := damage_of(champion)):
        return champion, "", ""
    told = f"the champion {champion.id} is damaged ({damage})"
    if before := step_back(config, champion, damage):
        _settle(config, before)
        return before, "", f"{told}: {before.id}, the one before it, is champion again, and the challenger is compared with it"
    return champion, damage, f"{told}, and none before it is intact, so the challenger cannot be compared with one"


def files_of(plan: CorpusPlan) -> list[tuple[str, int, str]]:
    return [(file.path, file.size, file.sha256) for file in plan.files]


def _settle(config: RunConfig, champion: Snapshot) -> None:
    """Finishes what a decision for this champion entails, which a kill may have prevented."""
    try:
        found = read_summary(config.workdir)
    except StorageError:
        found = None
    if found is None or found.get("vectors", {}).get("sha256") != champion.body["vectors_sha256"]:
        _remove_outdated(config)
        move_alias(config, champion.vectors, why="w2v refresh: the champion, after an interruption or damage")
        write_summary(config.workdir, champion.summary())
    send_exports(config, store.load_artefact(champion.exports))


def _remove_outdated(config: RunConfig) -> None:
    arrived = find_arrived(config.workdir, config.refresh.keep, outdated=True)
    remove([*find_outdated(config.workdir, config.refresh.keep), *arrived])


def _nothing_new(champion: Snapshot, plan: CorpusPlan, delta: Delta) -> dict[str, Any]:
    summary, notes = champion.summary(), damage_notes(champion.workdir)
    return {
        "status": NOTHING_NEW, "champion": champion.id, "stages": [], "files": len(plan.files), "delta": delta.as_data(),
        "vectors": summary["vectors"], "tokens": summary["corpus"]["tokens"],
    } | ({"notes": notes} if notes else {})  # fmt: skip


def _make_challenger(
    session: Session, config: RunConfig, champion: Snapshot | None, start: Start
) -> tuple[Challenge, store.Artefact | None]:
    """(comparison of the challenger with the champion, vectors that are no longer needed because they were aligned)."""
    leftover = None
    go_through_stages(session, "train")
    old = store.load_artefact(champion.vectors) if champion else None
    trained = session.done["train"]
    if old and config.refresh.align and not start.warm:
        turned = aligned(trained.artefact, old, config.workdir)
        if turned.fingerprint != trained.artefact.fingerprint:
            leftover = trained.artefact
            session.done["train"] = replace(trained, artefact=turned)
    for stage in STAGES[len(up_to("train")) :]:
        session.go_through(stage)
    if old is None:
        return Challenge((), {}), leftover
    assert champion is not None
    evaluate = next(stage for stage in STAGES if stage.name == "evaluate")
    scores, _ = session.obtain(evaluate, (old,))
    tokens = store.artefact_directory(config.workdir, *champion.body["artefacts"]["tokenize"])
    done = session.done
    before = Scored(old, tokens, scores.manifest.totals)
    now = Scored(done["train"].artefact, done["tokenize"].artefact.directory, done["evaluate"].totals)
    return compare_with_champion(config, before, now, same_frame=start.warm or leftover is not None), leftover


def _decide(
    session: Session, config: RunConfig, champion: Snapshot | None, comparison: Challenge, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Takes and records the decision; returns its entry."""
    stopped = stopped_by(comparison.verdicts)
    promoted = champion is None or not stopped
    made = [name for name, done in session.done.items() if not done.cached]
    body: dict[str, Any] = {
        "status": PROMOTED if promoted else KEPT, "decision": _sentence(champion, comparison, stopped),
        "parent": champion and champion.id,
        "gates": [asdict(verdict) for verdict in comparison.verdicts], "stages": made,
    }  # fmt: skip
    body |= dict(facts) | dict(comparison.facts)
    place = config.workdir if promoted else config.workdir / "challenger"
    summary = report_and_track(session, place, {"refresh": body}, register=promoted)
    snapshot = take_snapshot(session, summary, parent=champion.id if champion else None)
    body |= {"snapshot": snapshot.id, "run_id": summary["run_id"], "vectors": summary["vectors"]}
    body |= {"tokens": summary["corpus"]["tokens"], "notes": [printable(note, 300) for note in summary["notes"]]}
    if config.refresh.on_finish:
        store.write_json(config.workdir / OWED, {"number": next_number(config.workdir)})
    entry = decide(config.workdir, "refresh", snapshot.id if promoted or champion is None else champion.id, body)
    if promoted:
        # The summary tells `_settle` that the alias has moved, so it is written after that.
        entry = entry | {"registry": move_alias(config, snapshot.vectors, why=f"w2v refresh: {body['decision']}")}
        write_summary(config.workdir, summary)
        send_exports(config, session.done[NAMES[-1]].artefact)
    return entry


def _sentence(champion: Snapshot | None, comparison: Challenge, stopped: list[Verdict]) -> str:
    if champion is None:
        return "the first result is champion"
    if not comparison.verdicts:
        return f"replaces {champion.id}, which is damaged and cannot be compared with"
    if not stopped:
        return f"replaces {champion.id}: every gate held"
    return f"{champion.id} stays: " + "; ".join(f"gate {verdict.gate}: {verdict.text}" for verdict in stopped)


def _corpus_sizes(session: Session, champion: Snapshot | None) -> dict[str, Any]:
    """Tokens, sentences and files before and now."""
    keys = ("tokens", "sentences", "files")
    before = champion.summary()["corpus"] if champion else {}
    now = session.done["tokenize"].totals
    return {"before": {key: before.get(key) for key in keys}, "now": {key: now[key] for key in keys}}
