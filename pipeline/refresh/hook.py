"""`refresh.on_finish`: a command that is handed the refresh's JSON, bounded in time; whatever it does changes nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.errors import printable

SHOWN = 300


def run_hook(command: Sequence[str], told: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
    """How it ended: `{"exit": 0}`, or with `problem` saying what went wrong. Its output goes to standard error."""
    try:
        with subprocess.Popen(  # noqa: S603 - the configuration names it, to be run
            list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        ) as process:
            try:
                out, err = process.communicate(json.dumps(told).encode(), timeout=timeout_s)
            except subprocess.TimeoutExpired:
                _kill_group(process)
                return {"exit": None, "problem": f"{command[0]}: took longer than refresh.on_finish_timeout_s={timeout_s:g}"}
            except BaseException:
                _kill_group(process)
                raise
    except OSError as error:
        return {"exit": None, "problem": f"{command[0]}: cannot be run ({error.strerror})"}
    if process.returncode == 0:
        return {"exit": 0}
    said = printable((err or out).decode("utf-8", "replace").strip(), SHOWN)
    return {"exit": process.returncode, "problem": f"{command[0]}: exit code {process.returncode}: {said}"}


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """The command and what it started."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
