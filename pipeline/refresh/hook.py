"""`refresh.on_finish`: a command that gets the refresh's JSON and is limited in time; its outcome changes nothing."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from pipeline.errors import printable

SHOWN = 300
_PIECE_BYTES, _CLOSED_S = 1 << 16, 1.0


def run_hook(command: Sequence[str], told: Mapping[str, Any], timeout_s: float, folder: Path | None = None) -> dict[str, Any]:
    """How the command ended: `{"exit": 0}`, or another exit with `problem`, which includes the beginning of its output. The
    command is run in `folder`, by default the current one, and gets `told` as JSON on standard input."""
    try:
        with tempfile.TemporaryFile() as asked:
            asked.write(json.dumps(told).encode())
            asked.seek(0)
            process = subprocess.Popen(  # noqa: S603 - a command from the configuration
                list(command), stdin=asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, cwd=folder
            )
    except (OSError, ValueError) as error:
        return {"exit": None, "problem": f"{printable(command[0])}: cannot be run ({getattr(error, 'strerror', None) or error})"}
    pipes = [pipe for pipe in (process.stderr, process.stdout) if pipe]
    heads = [_Head(pipe) for pipe in pipes]
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        _kill_group(process)
        return {"exit": None, "problem": f"{printable(command[0])}: took longer than refresh.on_finish_timeout_s={timeout_s:g}"}
    except BaseException:
        _kill_group(process)
        raise
    if process.returncode == 0:
        return {"exit": 0}
    said = printable(next((text for head in heads if (text := head.text())), ""), SHOWN)
    return {"exit": process.returncode, "problem": f"{printable(command[0])}: exit code {process.returncode}: {said}"}


class _Head:
    """The beginning of what arrives through a pipe; the rest is read and discarded, whatever its size."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe, self._data = pipe, b""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with self._pipe:
            while data := os.read(self._pipe.fileno(), _PIECE_BYTES):
                self._data += data[: _PIECE_BYTES - len(self._data)]

    def text(self) -> str:
        self._thread.join(_CLOSED_S)  # a process that the command started may hold the pipe open
        return self._data.decode("utf-8", "replace").strip()


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kills the command and everything it started."""
    with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
