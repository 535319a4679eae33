"""The commands that run stages: all of them, or up to one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from pipeline.commands.arguments import config_arguments, load, quiet_option, say, summary_option

STAGE_HELP = {
    "tokenize": "Corpus files → tokens/.",
    "vocab": "… → vocab/: words, counts, noise table.",
    "shards": "… → shards/ of the first epoch.",
    "train": "… → vectors/.",
    "publish": "… → exports/ in other programs' formats.",
}


@click.command()
@config_arguments
@summary_option
@quiet_option
def run(config: Path, overrides: tuple[str, ...], as_json: bool, quiet: bool) -> None:
    """Run all stages in order; unchanged results are reused, and an interrupted run continues."""
    run_until(config, overrides, "publish", as_json, quiet)


def run_until(path: Path, overrides: tuple[str, ...], until: str, as_json: bool, quiet: bool) -> None:
    from pipeline.progress import Progress
    from pipeline.safety.start import require_private_cache

    loaded = load(path, overrides)
    require_private_cache()
    with Progress(quiet=quiet) as progress:
        progress.start("start", note="looking at the corpus")
        from pipeline.run import run as run_pipeline

        summary = run_pipeline(loaded, until=until, progress=progress)
    _show(summary, as_json)


def show_refreshed(path: Path, overrides: tuple[str, ...], as_json: bool) -> bool:
    """Whether the last good result is one of `w2v refresh` with these settings, which then is shown with its scores: going
    through the stages, which know nothing of earlier vectors, would train anew."""
    from pipeline.history.answers import changes, find_answer, introduce

    config = load(path, overrides)
    answer = find_answer(config.workdir)
    if answer is None or not answer.summary.get("refresh"):
        return False
    say(f"{introduce(answer, config)} (made by w2v refresh)", err=True)
    if changes(answer, config):
        say(f"note: this trains anew; w2v evaluate {path} SET… scores that result as it is", err=True)
        return False
    _show(dict(answer.summary), as_json)
    return True


def _show(summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        say(json.dumps(summary, indent=1))
    else:
        from pipeline.report.report import format_summary

        say(format_summary(summary, _width()))


def _width() -> int:
    import shutil

    return min(120, max(60, shutil.get_terminal_size((100, 24)).columns))


def _stage_command(name: str) -> click.Command:
    @click.command(name, help=STAGE_HELP[name] + " Runs the stages before it as needed.")
    @config_arguments
    @summary_option
    @quiet_option
    def stage(config: Path, overrides: tuple[str, ...], as_json: bool, quiet: bool) -> None:
        run_until(config, overrides, name, as_json, quiet)

    return stage


STAGE_COMMANDS = {name: _stage_command(name) for name in STAGE_HELP}
