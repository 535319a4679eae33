"""Shared by the commands: CONFIG with its overrides, and groups that list their commands in the order they were added."""

from __future__ import annotations

import itertools
import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from w2v_core.text.printable import printable_lines

if TYPE_CHECKING:
    from pipeline.config import RunConfig


class InOrder(click.Group):
    """Lists commands in the order of the pipeline rather than alphabetically, each with its whole first sentence."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.get_short_help_str(1000)) for name, command in self.commands.items()])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does; a file that is given before the command (`w2v query mine.yaml river`) is no misspelt command."""
        if args[0] not in self.commands and os.path.exists(args[0]):
            example = f"{ctx.command_path} {next(iter(self.commands))}"
            ctx.fail(f"{args[0]!r} is a file or folder; a command comes before it, for example {example}")
        return super().resolve_command(ctx, args)


class Question(click.Command):
    """A command that asks about words, which may begin with a hyphen: only its own options and what begins with two hyphens are
    options, so `-man` is a word (click would take the `n` in it for `-n`)."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        options = [option for option in self.get_params(ctx) if isinstance(option, click.Option)]
        short = {name for option in options for name in option.opts if not name.startswith("--")}
        valued = {name for option in options if not option.is_flag for name in option.opts}
        own, words, rest = list[str](), list[str](), iter(args)
        for argument in rest:
            if argument == "--":
                words += rest
            elif argument.startswith("--") or argument in short or (argument[:2] in valued and argument[2:].isdecimal()):
                own += [argument, *itertools.islice(rest, argument in valued)]
            else:
                words.append(argument)
        return super().parse_args(ctx, [*own, "--", *words])


def quiet_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--quiet", is_flag=True, help="No progress on standard error.")(function)


def summary_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--json", "as_json", is_flag=True, help="Print summary.json instead of tables.")(function)


def json_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of lines.")(function)


class Whole(click.IntRange):
    """A whole number between bounds, written as settings write it; an IntRange also takes 1_0 and the digits of other scripts."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, str) and not re.fullmatch("[+-]?[0-9]+", value):
            self.fail(f"expected a whole number, found {value!r}", param, ctx)
        return int(super().convert(value, param, ctx))


class VectorSource(click.ParamType[Path]):
    """A path; for an address in a bucket, the path to which its vectors were downloaded, with access set by the environment."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        from pipeline.storage.addresses import is_address, parse_address

        if not isinstance(value, str) or not is_address(value) or value.startswith(("models:", "runs:")):
            return Path(value)
        from pipeline.config import Storage
        from pipeline.formats.published import bring_vectors

        return bring_vectors(parse_address(value, "SOURCE"), Storage())


def config_arguments(function: Callable[..., Any]) -> Callable[..., Any]:
    function = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]…")(function)
    return click.argument("config", type=click.Path(path_type=Path), metavar="CONFIG")(function)


def run_arguments(function: Callable[..., Any]) -> Callable[..., Any]:
    """RUN, which is a CONFIG or a workdir, and overrides: for commands that read what runs have left."""
    function = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]…")(function)
    return click.argument("run", metavar="RUN")(function)


def say(text: str, *, err: bool = False) -> None:
    """Prints text without characters that could control the terminal. Everything that commands print goes through here."""
    try:
        click.echo(printable_lines(text), err=err)
    except OSError as error:
        # Where messages cannot be written (a full disk), the answer on standard output and the exit code still can be.
        if not err or isinstance(error, BrokenPipeError):
            raise


def to_type(command: str, *arguments: object) -> str:
    """A command for people to copy, with everything that they gave: without an override it could work in another workdir."""
    return shlex.join(["w2v", command, *map(str, arguments)])


def note_who_works(workdir: Path) -> None:
    """Says on standard error if a run is working there: for commands that list what could be removed without holding it up."""
    from pipeline.safety.locks import busy, worker_in

    if holder := worker_in(workdir):
        say(f"note: {busy(workdir, holder)}; what it makes is listed, too, and --yes is refused until it has ended", err=True)


def names_workdir(run: str) -> bool:
    """Whether RUN is a folder, possibly one in a bucket, rather than a configuration."""
    from pipeline.storage.addresses import is_address

    return is_address(run) or Path(run).is_dir()


def load_run(run: str, overrides: tuple[str, ...]) -> RunConfig:
    """The configuration RUN, or for a workdir one with nothing but this workdir and the overrides."""
    if not names_workdir(run):
        return load(Path(run), overrides)
    from pipeline.config import parse_config
    from pipeline.errors import InputError
    from pipeline.history.answers import is_workdir
    from pipeline.history.arrival import look
    from pipeline.safety.values import why_unwritable
    from pipeline.store import iterate_artefacts

    if reason := why_unwritable(run):
        raise InputError(f"{run}: {reason}")
    # Nothing is read from standard input: a configuration needs an input, and one in the workdir would be refused.
    config = look(parse_config({"run": {"workdir": run}, "corpus": {"inputs": ["-"]}}, overrides, source=run))
    if not is_workdir(config.workdir) and not any(iterate_artefacts(config.workdir)):
        raise InputError(f"{run}: no run has left anything in this folder; give a CONFIG or a workdir")
    return config


def load(path: Path, overrides: tuple[str, ...]) -> RunConfig:
    from pipeline.config import load_config

    config = load_config(path, overrides)
    # Imports NumPy, which a faulty configuration need not wait for.
    from pipeline.history.arrival import look

    return look(config)
