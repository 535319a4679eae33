"""The commands that use MLflow: delivering pending events, and choosing the champion of a registered model."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.commands.arguments import config_arguments, load, load_run, run_arguments, say


@click.command()
@config_arguments
@click.option("--version", metavar="N", help="Number of the version; default: the challenger, made by the last run.")
@click.option("--why", default="", help="A reason, recorded with who and when.")
def promote(config: Path, overrides: tuple[str, ...], version: str | None, why: str) -> None:
    """Make a version of the registered model (publish.register) the champion."""
    loaded = load(config, overrides)
    from pipeline.tracking.aliases import promote as make_champion
    from pipeline.tracking.aliases import undelivered

    if note := undelivered(loaded):
        say(f"note: {note}", err=True)
    say(f"{loaded.publish.register_as}: {make_champion(loaded, version, why or 'w2v promote')}")


@click.command()
@run_arguments
def sync(run: str, overrides: tuple[str, ...]) -> int:
    """Deliver to MLflow what earlier runs could not; exit 75 if anything is still undelivered. RUN is a CONFIG or a workdir."""
    loaded = load_run(run, overrides)
    from pipeline.tracking.tracker import sync as deliver

    states = deliver(loaded.workdir, loaded.tracking)
    for state in states:
        rest = "everything has arrived" if state.complete else state.message or "not complete"
        say(f"{state.uri} run {state.run_id or '(none yet)'}: {rest}")
    if not states:
        say(f"{loaded.workdir}: nothing was tracked here yet")
    return 0 if all(state.complete for state in states) else 75
