"""The list of the commands of `w2v`, in the order that help shows, and how they end where click would end them itself."""

from __future__ import annotations

import contextlib
import io
import select
import signal
from collections.abc import Iterator
from typing import Any

import click

from pipeline.commands.arguments import InOrder, say
from pipeline.commands.clusters import cluster
from pipeline.commands.comparing import compare
from pipeline.commands.corpora import fetch
from pipeline.commands.planning import plan
from pipeline.commands.refreshing import history, refresh, rollback
from pipeline.commands.removing import gc, prune
from pipeline.commands.running import STAGE_COMMANDS, run
from pipeline.commands.sweeping import sweep
from pipeline.commands.tracking import promote, sync
from pipeline.commands.vectors import evaluate, export, query
from pipeline.commands.workdir import status, ui, verify
from pipeline.errors import EXIT_CODES, UsageError, explained

UNREAD = 128 + signal.SIGPIPE
EXIT_HELP = "Exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items()) + "."


class Unread(BaseException):
    """Nobody reads the output any more."""


class Commands(InOrder):
    """Keeps from click what it would end with exit code 1: it takes a broken pipe for that of the output, whichever it is, and
    prints when it is interrupted, into a pipe that an interrupt may have closed (`w2v run … 2>&1 | tee log`)."""

    def make_context(self, *given: Any, **more: Any) -> click.Context:
        with _kept_from_click():
            return super().make_context(*given, **more)

    def invoke(self, ctx: click.Context) -> Any:
        with _kept_from_click():
            return super().invoke(ctx)


@contextlib.contextmanager
def _kept_from_click() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise Unread if _nobody_reads() else (explained(error) or error) from error
    except KeyboardInterrupt:
        raise click.Abort from None


def _nobody_reads() -> bool:
    """Whether output goes into a pipe that was closed at its other end."""
    outputs = select.poll()
    for number in (1, 2):
        outputs.register(number, 0)
    return any(state & select.POLLERR for _, state in outputs.poll(0))


@click.group(cls=Commands, epilog=EXIT_HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dask-word2vec", prog_name="w2v")
def commands() -> None:
    """Distributed word2vec: raw text in, tracked word vectors out.

    CONFIG is a YAML file; any key can be overridden after it: w2v run configs/demo.yaml train.epochs=3
    """


_STAGES = [STAGE_COMMANDS.get(name, evaluate) for name in ("tokenize", "vocab", "shards", "train", "evaluate", "publish")]
for _command in (
    run,
    plan,
    *_STAGES,
    refresh,
    history,
    rollback,
    promote,
    compare,
    gc,
    prune,
    sweep,
    query,
    export,
    fetch,
    status,
    verify,
    sync,
    ui,
    cluster,
):
    commands.add_command(_command)


def run_commands() -> int:
    """Runs the command line; the exit code that its command asks for. Raises SystemExit for a command line that is wrong, which
    it shows, and for output that nobody reads."""
    try:
        code = commands.main(standalone_mode=False)
    except click.Abort:
        raise KeyboardInterrupt from None
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)
        shown.write(_meant_setting(error))
        with contextlib.suppress(OSError):
            say(shown.getvalue().rstrip().expandtabs(4), err=True)
        raise SystemExit(UsageError.exit_code) from None
    except Unread:
        raise SystemExit(UNREAD) from None
    return code if isinstance(code, int) else 0


def _meant_setting(error: click.ClickException) -> str:
    """How a setting is given, where one was written as an option (`--epochs 3`) of a command that takes settings."""
    if not isinstance(error, click.NoSuchOption) or not error.option_name.startswith("--") or not error.ctx:
        return ""
    if not any("KEY=VALUE" in (parameter.metavar or "") for parameter in error.ctx.command.params):
        return ""
    from pipeline.config import known_keys
    from pipeline.options.other_names import OTHER_NAMES, hint, suggest

    settings = [key for key in known_keys() if "." in key and not key.startswith("refresh")]
    name = error.option_name.strip("-").replace("-", "_")
    if error.possibilities and name not in {key.partition(".")[2] for key in settings} | OTHER_NAMES.keys():
        return ""
    near = suggest(name, settings) or "train.epochs"
    if " " in near:
        return hint(near)[0].upper() + hint(near)[1:]
    return f"A setting is given behind the file, without hyphens: {near}=…"
