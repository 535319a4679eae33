"""The commands for several results: trying settings, and removing old results."""

from __future__ import annotations

import json
from pathlib import Path

import click

from pipeline.commands.arguments import found_empty, load_run, note_who_works, quiet_option, run_arguments, say, to_type


@click.command()
@click.argument("config", type=click.Path(path_type=Path), metavar="CONFIG")
@click.argument("settings", nargs=-1, required=True, metavar="KEY=VALUE,VALUE…")
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
@quiet_option
def sweep(config: Path, settings: tuple[str, ...], as_json: bool, quiet: bool) -> int:
    """Train and score every combination of values on the same text: one table, and MLflow runs grouped below one run.

    For example: w2v sweep mine.yaml train.alpha=.025,.05 train.lanes=1,4. A setting with a single value is an ordinary override.
    """
    from pipeline.progress import Progress
    from pipeline.safety.start import require_private_cache
    from pipeline.sweep.sweep import sweep as try_all
    from pipeline.sweep.sweep import table

    require_private_cache()
    with Progress(quiet=quiet) as progress:
        tried = try_all(config, settings, progress)
    if as_json:
        say(json.dumps([one.row() for one in tried], indent=1))
    else:
        for line in table(tried):
            say(line)
    problems = [one for one in tried if one.problem]
    for one in problems:
        say(f"w2v: {' '.join(f'{key}={value}' for key, value in one.settings.items())}: {one.problem}", err=True)
    return next((one.problem.exit_code for one in problems if one.problem), 0)


@click.command()
@run_arguments
@click.option("--keep", type=click.IntRange(min=1), default=3, show_default=True, help="How many complete results to keep.")
@click.option("--yes", is_flag=True, help="Remove the rest; without this, only list it.")
def prune(run: str, overrides: tuple[str, ...], keep: int, yes: bool) -> None:
    """Keep the last complete results, including the champion, and remove everything else; a dry run unless --yes is given.

    RUN is a CONFIG or a workdir.
    """
    loaded = load_run(run, overrides)
    workdir = loaded.workdir
    if found_empty(loaded):
        return
    from contextlib import nullcontext

    from pipeline.errors import amount
    from pipeline.history.gc import find_garbage, remove
    from pipeline.session import holding

    if not yes:
        note_who_works(workdir)
    with holding(loaded) if yes else nullcontext():
        garbage = find_garbage(workdir, keep)
        for piece in garbage:
            say(f"{amount(piece.bytes):>8}  {piece.path.relative_to(workdir)}  ({piece.why})")
        if yes:
            remove(garbage)
    if not garbage:
        say("nothing to remove")
        return
    total = amount(sum(piece.bytes for piece in garbage))
    again = to_type("prune", run, *overrides, "--keep", keep, "--yes")
    say(f"{total} removed" if yes else f"{total} would be freed; {again} removes it")
