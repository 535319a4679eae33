"""`w2v`: every stage and every use of the vectors as a command.

This module has the list of commands, in the order that help shows, and the handling of signals and errors around them; the
commands themselves are in `pipeline.commands`. Heavy imports (mlflow, numba, dask) happen inside the command that needs them, so
help and configuration errors appear at once. An error is one message on standard error and an exit code
(`pipeline.errors.EXIT_CODES`), never a traceback; set W2V_TRACEBACK=1 to see where it came from.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import gc as garbage
import io
import os
import select
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn

import click

from pipeline.commands.arguments import InOrder, say
from pipeline.commands.clusters import cluster
from pipeline.commands.comparing import compare
from pipeline.commands.corpora import fetch
from pipeline.commands.planning import plan
from pipeline.commands.refreshing import gc, history, refresh, rollback
from pipeline.commands.running import STAGE_COMMANDS, run
from pipeline.commands.sweeping import prune, sweep
from pipeline.commands.tracking import promote, sync
from pipeline.commands.vectors import evaluate, export, query
from pipeline.commands.workdir import status, ui, verify
from pipeline.errors import (
    EXIT_CODES,
    CapacityError,
    InputError,
    PermissionDeniedError,
    PipelineError,
    StorageError,
    UsageError,
    printable,
)
from pipeline.exchange.host import usable_cores
from pipeline.safety.start import start_safely

YOUNG_OBJECTS = 500_000
"""Threshold of Python's garbage collector: importing creates a million objects and no garbage, and by default they are scanned
again and again, for a quarter of a second in a small run (infra/benchmarks/records/text-to-vectors-2026-11-29.md)."""
UNUSED = ("scipy.linalg", "coverage")
"""Numba imports the former for `np.dot` in compiled code, which is not used here, the latter to tell which lines it compiled, and
does without if they are missing; importing them takes a tenth of a second and a twentieth."""
AT_ONCE = {"OPENBLAS_THREAD_TIMEOUT": "4", "PYDANTIC_DISABLE_PLUGINS": "__all__"}
"""Variables for this process and those it starts. A thread of OpenBLAS with nothing to do, after `import numpy` as after every
product, looks for work for a tenth of a second, without a pause, before it sleeps; with 4, the least, it sleeps at once, and
threads and results stay the same. pydantic searches all installed packages for plugins, which nothing here uses.
Also, OpenBLAS gets as many threads as there are cores within a container's quota, of which it knows nothing."""
UNREAD = 128 + signal.SIGPIPE
EXIT_HELP = "Exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items()) + "."


class Terminated(BaseException):
    """SIGTERM or SIGHUP arrived: unwind in order, then exit with 128 + signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


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
        raise Unread if _nobody_reads() else _explained(error) from error
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


def main() -> None:
    """Runs the command line and exits with a documented code."""
    _open_closed_streams()
    terminations = _install_signal_handlers()
    garbage.set_threshold(YOUNG_OBJECTS)
    for name in UNUSED:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
    for name, value in (AT_ONCE | {"OPENBLAS_NUM_THREADS": str(usable_cores())}).items():
        os.environ.setdefault(name, value)
    try:
        start_safely()
        code = commands.main(standalone_mode=False)
        sys.stdout.flush()
        # Skip the interpreter's own shutdown, which spends a fifth of a second freeing objects one by one.
        atexit._run_exitfuncs()
        _exit(code if isinstance(code, int) else 0)
    except PipelineError as error:
        _show_traceback_if_asked()
        _tell(f"w2v: {error}")
        _exit(error.exit_code)
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)
        _tell(shown.getvalue().rstrip().expandtabs(4))
        _exit(UsageError.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _tell(f"\nw2v: interrupted; finished work is kept. Resume with:\n  {_this_command()}")
        _exit(130)
    except Terminated as stop:
        _exit_terminated(stop)
    except Unread:
        _exit(UNREAD)
    except (OSError, MemoryError) as error:
        _show_traceback_if_asked()
        explained = _explained(error)
        _tell(f"w2v: {explained}")
        _exit(explained.exit_code)
    except Exception as error:
        if terminations:
            # Code called from C, such as a part of Numba's compiler, lost what the signal raised, and then something else failed.
            _exit_terminated(terminations[0])
        _show_traceback_if_asked()
        _tell(
            f"w2v: a bug in this program: {type(error).__name__}: {error}\n"
            "Set W2V_TRACEBACK=1 to see where, and please report it. Finished work is kept."
        )
        _exit(70)


def _exit_terminated(stop: Terminated) -> NoReturn:
    _tell(f"w2v: terminated; finished work is kept. Resume with:\n  {_this_command()}")
    _exit(stop.exit_code)


def _tell(text: str) -> None:
    """Prints a last message; if that fails, the exit code has to say it."""
    with contextlib.suppress(OSError):
        say(text, err=True)


def _open_closed_streams() -> None:
    """Opens the standard streams that were closed (`>&-`) on /dev/null: the next file would get their number, and what anything
    prints, here or in a child process, would be written into it."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    sys.stdin = sys.stdin or os.fdopen(0, "r")
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")


def _exit(code: int) -> NoReturn:
    """Exits at once: threads of a closing cluster must not hold up the process or print over the message."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code)


def _explained(error: OSError | MemoryError) -> PipelineError:
    """The error for an OSError or MemoryError that nothing else has handled: which file, and the system's message."""
    if isinstance(error, MemoryError):
        return CapacityError("out of memory; close other programs, or set a smaller train.vector_size or vocab.max_size")
    if isinstance(error, FileNotFoundError) and error.filename is None and not _has_current_folder():
        return InputError("the current folder does not exist any more; change to one that does")
    kind = PermissionDeniedError if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) else StorageError
    name = error.filename if isinstance(error.filename, str | bytes) else None
    where = "reading or writing failed" if name is None else printable(os.fsdecode(name), 200)
    return kind(f"{where}: {error.strerror or printable(str(error), 200) or type(error).__name__}; finished work is kept")


def _has_current_folder() -> bool:
    try:
        return bool(os.getcwd())
    except OSError:
        return False


def _this_command() -> str:
    import shlex

    return " ".join(["w2v", *map(shlex.quote, sys.argv[1:])])


def _show_traceback_if_asked() -> None:
    if os.environ.get("W2V_TRACEBACK") == "1":
        import traceback

        traceback.print_exc()


def _install_signal_handlers() -> list[Terminated]:
    """What signals have raised, wherever it went: empty for now."""
    interrupts, terminations = 0, list[Terminated]()

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal interrupts
        interrupts += 1
        if interrupts > 1:
            # Workers notice that their parent is gone and exit by themselves.
            os._exit(130)
        raise KeyboardInterrupt

    def terminate(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)
        terminations.append(Terminated(number))
        raise terminations[-1]

    signal.signal(signal.SIGINT, interrupt)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, terminate)
    return terminations


if __name__ == "__main__":
    main()
