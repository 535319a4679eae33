"""The command that tries settings."""

from __future__ import annotations

import json
from pathlib import Path

import click

from pipeline.commands.arguments import quiet_option, say


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
