"""The commands for a corpus that keeps changing: refresh, history and rollback."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from pipeline.commands.arguments import config_arguments, load, load_run, quiet_option, run_arguments, say, to_type


@click.command()
@config_arguments
@click.option("--cold", is_flag=True, help="Train the challenger from scratch instead of from the champion.")
@quiet_option
def refresh(config: Path, overrides: tuple[str, ...], cold: bool, quiet: bool) -> int:
    """For a scheduler: bring everything up to date with the corpus, or report that nothing is new.

    Trains a challenger on the current corpus, compares it with the champion, and promotes it only if the gates under
    refresh.gates hold. Prints one line of JSON; its status is promoted, nothing new (both exit 0) or kept (exit 79: the gates
    kept the challenger out). Safe to run concurrently: a second call while one runs exits with 73.
    """
    loaded = load(config, overrides)
    from pipeline.history.snapshot import SNAPSHOTS, open_snapshot
    from pipeline.progress import Progress
    from pipeline.refresh.refresh import EXIT_CODES
    from pipeline.refresh.refresh import refresh as refresh_workdir
    from pipeline.safety.start import require_private_cache

    require_private_cache()
    with Progress(quiet=quiet) as progress:
        told = refresh_workdir(loaded, cold=cold, progress=progress)
    say(json.dumps(told))
    if told["status"] == "kept":
        there = open_snapshot(loaded.workdir / SNAPSHOTS / told["snapshot"])
        use_it = f"to use it anyway: {to_type('rollback', config, *overrides, told['snapshot'])}"
        say(f"w2v: {told['decision']}; {use_it if there else 'it was removed, because refresh.keep is 1'}", err=True)
    if problem := told.get("on_finish", {}).get("problem"):
        say(f"w2v: refresh.on_finish: {problem}", err=True)
    return EXIT_CODES[told["status"]]


@click.command()
@run_arguments
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def history(run: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """List every decision taken in this workdir, newest last: what changed in the corpus, scores, which snapshot is champion.

    RUN is a CONFIG or a workdir. With --json: of each decision number, time (in seconds since 1970), kind, champion, snapshot,
    status and, for a refresh, what its own line of JSON had.
    """
    loaded = load_run(run, overrides)
    from pipeline.history.latest import champion_of, entries
    from pipeline.history.snapshot import snapshots

    if not (decisions := entries(loaded.workdir)):
        say(f"note: {loaded.workdir}: no decision yet; `w2v run` and `w2v refresh` take them", err=True)
    champion, kept = champion_of(loaded.workdir), {snapshot.id for snapshot in snapshots(loaded.workdir)}
    for entry in decisions:
        say(json.dumps(entry) if as_json else _line(entry, champion.id if champion else "", kept))


def _line(entry: dict[str, Any], champion: str, kept: set[str]) -> str:
    made = time.strftime("%Y-%m-%d %H:%M %Z", time.localtime(entry["time"]))
    snapshot = str(entry.get("snapshot", ""))
    mark = "*" if snapshot == champion else " " if snapshot in kept else "-"
    facts = [f"{entry['number']:>4} {mark} {snapshot:<16}  {made}  {entry['kind']:<8} {entry.get('status', ''):<11}"]
    if delta := entry.get("delta"):
        facts.append(
            " ".join(f"{sign}{delta[kind]['files']}" for sign, kind in _SIGNS if delta[kind]["files"]) or "no file changed"
        )
    if scores := entry.get("scores"):
        facts.append(_scores(scores))
    elif "why" in entry:
        facts.append(str(entry["why"]))
    if entry.get("status") == "kept":
        facts.append(str(entry.get("decision", "")).partition(": ")[2])
    return "  ".join(facts)


_SIGNS = (("+", "added"), ("~", "changed"), ("→", "renamed"), ("-", "deleted"))


def _scores(scores: dict[str, Any]) -> str:
    """`analogy 0.364 → 0.372` for every score that both have."""
    before, now = ({"analogy": found["analogy"]} | found["similarity"] for found in (scores["before"], scores["now"]))
    both = [name for name in now if now[name] is not None and before.get(name) is not None]
    return ", ".join(f"{name} {before[name]:.3f} → {now[name]:.3f}" for name in both)


@click.command()
@click.argument("config", type=click.Path(path_type=Path), metavar="CONFIG")
@click.argument("arguments", nargs=-1, metavar="[SNAPSHOT] [KEY=VALUE]…")
def rollback(config: Path, arguments: tuple[str, ...]) -> None:
    """Make an earlier snapshot the champion: SNAPSHOT as listed by `w2v history` (id, its beginning, or number); by default the
    champion before this one; twice, and it is the one before that."""
    loaded = load(config, tuple(argument for argument in arguments if "=" in argument))
    chosen = [argument for argument in arguments if "=" not in argument]
    if len(chosen) > 1:
        raise click.UsageError(f"expected one snapshot, found {' '.join(chosen)}")
    from pipeline.refresh.rollback import rollback as roll_back

    entry = roll_back(loaded, chosen[0] if chosen else None)
    say(f"{entry['champion']} is champion now; before it was {entry['before']}")
    if entry.get("registry"):
        say(entry["registry"])
