"""The commands that remove old results: by the settings of refresh, or all but a number of them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.commands.arguments import (
    Whole,
    config_arguments,
    json_option,
    load,
    load_run,
    note_who_works,
    run_arguments,
    say,
    to_type,
)

if TYPE_CHECKING:
    from pipeline.config import RunConfig
    from pipeline.history.gc import Garbage


@click.command()
@config_arguments
@click.option("--yes", is_flag=True, help="Remove it; without this, only list it.")
@json_option
def gc(config: Path, overrides: tuple[str, ...], yes: bool, as_json: bool) -> None:
    """List what no kept snapshot needs (the last refresh.keep and the champion are kept), and with --yes remove it.

    With --json: workdir, removed (whether --yes was given), bytes (of all), garbage (of each piece path in the workdir, bytes,
    why).
    """
    loaded = load(config, overrides)
    garbage = _cleared(loaded, loaded.refresh.keep, yes, as_json, _list_in_bytes)
    if garbage is None:
        return
    freed = sum(piece.bytes for piece in garbage)
    if yes:
        say(f"{freed:>15,}  bytes removed")
    else:
        again = to_type("gc", config, *overrides, "--yes")
        say(f"{freed:>15,}  bytes could be freed; {again} removes them" if freed else "nothing to remove")


@click.command()
@run_arguments
@click.option("--keep", type=Whole(min=1), default=3, show_default=True, help="How many complete results to keep.")
@click.option("--yes", is_flag=True, help="Remove the rest; without this, only list it.")
@json_option
def prune(run: str, overrides: tuple[str, ...], keep: int, yes: bool, as_json: bool) -> None:
    """Keep the last complete results, including the champion, and remove everything else; a dry run unless --yes is given.

    RUN is a CONFIG or a workdir. With --json: workdir, removed (whether --yes was given), bytes (of all), garbage (of each piece
    path in the workdir, bytes, why).
    """
    from pipeline.errors import amount

    garbage = _cleared(load_run(run, overrides), keep, yes, as_json, _list_in_units)
    if garbage is None:
        return
    if not garbage:
        say("nothing to remove")
        return
    total = amount(sum(piece.bytes for piece in garbage))
    again = to_type("prune", run, *overrides, "--keep", keep, "--yes")
    say(f"{total} removed" if yes else f"{total} would be freed; {again} removes it")


def _cleared(
    config: RunConfig, keep: int, yes: bool, as_json: bool, list_them: Callable[[Path, list[Garbage]], None]
) -> list[Garbage] | None:  # fmt: skip
    """What was listed and, if `yes`, removed; None if everything has been said."""
    from pipeline.history.arrival import is_empty
    from pipeline.history.gc import find_garbage, remove
    from pipeline.session import holding
    from pipeline.tracking.arrived import find_arrived

    workdir, empty, garbage = config.workdir, is_empty(config), list["Garbage"]()
    if not empty:
        if not yes:
            note_who_works(workdir)
        with holding(config) if yes else contextlib.nullcontext():
            garbage = [*find_garbage(workdir, keep), *find_arrived(workdir, keep)]
            if not as_json:
                list_them(workdir, garbage)
            if yes:
                remove(garbage)
    if as_json:
        rows = [{"path": str(piece.path.relative_to(workdir)), "bytes": piece.bytes, "why": piece.why} for piece in garbage]
        total = sum(piece.bytes for piece in garbage)
        say(json.dumps({"workdir": str(workdir), "removed": yes, "bytes": total, "garbage": rows}, indent=1))
    elif empty:
        say(f"nothing to remove: {workdir}: no run has left anything here, or the folder is not mounted")
    return None if as_json or empty else garbage


def _list_in_bytes(workdir: Path, garbage: list[Garbage]) -> None:
    """Every piece, and the parts of tokens as one."""
    from pipeline.errors import counted
    from pipeline.history.gc import PARTS

    for piece in garbage:
        if piece.path.parent.name != PARTS:
            say(f"{piece.bytes:>15,}  {piece.path.relative_to(workdir)}  ({piece.why})")
    if parts := [piece for piece in garbage if piece.path.parent.name == PARTS]:
        say(f"{sum(piece.bytes for piece in parts):>15,}  tokens/{PARTS}: {counted(len(parts), 'files|file')}  ({parts[0].why})")


def _list_in_units(workdir: Path, garbage: list[Garbage]) -> None:
    from pipeline.errors import amount

    for piece in garbage:
        say(f"{amount(piece.bytes):>8}  {piece.path.relative_to(workdir)}  ({piece.why})")
