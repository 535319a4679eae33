"""`refresh.on_finish`: a command that gets the refresh's JSON and is limited in time; its outcome changes nothing."""

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
    """How the command ended: `{"exit": 0}`, or another exit with `problem`, which includes the beginning of its output. The
    command gets `told` as JSON on standard input."""
    try:
        with subprocess.Popen(  # noqa: S603 - a command from the configuration
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
    """Kills the command and everything it started."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
