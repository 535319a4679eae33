"""`w2v`: every stage and every use of the vectors as a command.

This module handles signals and errors around the commands, which are in `pipeline.commands`, and so imports little: until its
handlers are in place, Ctrl-C would print a traceback. Heavy imports (mlflow, numba, dask) happen inside the command that needs
them, so help and configuration errors appear at once. An error is one message on standard error and an exit code
(`pipeline.errors.EXIT_CODES`), never a traceback; set W2V_TRACEBACK=1 to see where it came from.
"""

from __future__ import annotations

import atexit
import contextlib
import gc as garbage
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

from pipeline.errors import PipelineError, explained
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


AGAIN_S = 0.05
"""When a signal is raised again that Python has dropped."""


class Terminated(BaseException):
    """SIGTERM or SIGHUP arrived: unwind in order, then exit with 128 + signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


def main() -> None:
    """Runs the command line and exits with a documented code."""
    _open_closed_streams()
    terminations = list[Terminated]()
    try:
        _install_signal_handlers(terminations)
        garbage.set_threshold(YOUNG_OBJECTS)
        for name in UNUSED:
            sys.modules.setdefault(name, None)  # type: ignore[arg-type]
        for name, value in (AT_ONCE | {"OPENBLAS_NUM_THREADS": str(usable_cores())}).items():
            os.environ.setdefault(name, value)
        start_safely()
        from pipeline.commands.listed import run_commands

        code = run_commands()
        sys.stdout.flush()
        # Skip the interpreter's own shutdown, which spends a fifth of a second freeing objects one by one.
        atexit._run_exitfuncs()
        _exit(code)
    except PipelineError as error:
        _show_traceback_if_asked()
        _tell(f"w2v: {error}")
        _exit(error.exit_code)
    except SystemExit as end:
        _exit(end.code if isinstance(end.code, int) else 1)
    except KeyboardInterrupt:
        _exit_without_threads()
        _tell(f"\nw2v: interrupted; finished work is kept. Resume with:\n  {_this_command()}")
        _exit(130)
    except Terminated as stop:
        _exit_terminated(stop)
    except Exception as error:
        if terminations:
            # Code called from C, such as a part of Numba's compiler, lost what the signal raised, and then something else failed.
            _exit_terminated(terminations[0])
        _show_traceback_if_asked()
        if told := explained(error):
            _tell(f"w2v: {told}")
            _exit(told.exit_code)
        _tell(
            f"w2v: a bug in this program: {type(error).__name__}: {error}\n"
            "Set W2V_TRACEBACK=1 to see where, and please report it. Finished work is kept."
        )
        _exit(70)


def _exit_terminated(stop: Terminated) -> NoReturn:
    _tell(f"w2v: terminated; finished work is kept. Resume with:\n  {_this_command()}")
    _exit(stop.exit_code)


def _exit_without_threads() -> None:
    """Exits with what is missing if no thread can be started: OpenBLAS interrupts its own process for that."""
    import threading

    try:
        threading.Thread(target=bool).start()
    except RuntimeError as error:
        if told := explained(error):
            _tell(f"w2v: {told}")
            _exit(told.exit_code)


def _tell(text: str) -> None:
    """Prints a last message; if that fails, the exit code has to say it."""
    from pipeline.commands.arguments import say

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


def _this_command() -> str:
    import shlex

    return " ".join(["w2v", *map(shlex.quote, sys.argv[1:])])


def _show_traceback_if_asked() -> None:
    if os.environ.get("W2V_TRACEBACK") == "1":
        import traceback

        traceback.print_exc()


def _install_signal_handlers(terminations: list[Terminated]) -> None:
    """`terminations` gets what signals have raised, wherever it went."""
    interrupts = 0

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

    def raise_again(dropped: sys.UnraisableHookArgs) -> None:
        # Python drops what is raised while it finalises an object, and with it a signal that arrives at that moment.
        error = dropped.exc_value
        if not isinstance(error, Terminated | KeyboardInterrupt):
            sys.__unraisablehook__(dropped)
            return

        def again(number: int, frame: FrameType | None) -> None:
            raise error

        signal.signal(signal.SIGALRM, again)
        signal.setitimer(signal.ITIMER_REAL, AGAIN_S)

    sys.unraisablehook = raise_again
    signal.signal(signal.SIGINT, interrupt)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, terminate)


if __name__ == "__main__":
    main()
