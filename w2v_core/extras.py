"""How an optional package is installed: with an extra of this one, which is on no index and is named by its folder instead."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path


def install_command(extra: str) -> str:
    """The shell command that installs the packages of `extra` for this Python; from a checkout it works in any folder."""
    root = Path(__file__).resolve().parents[1]
    is_checkout = (root / "pyproject.toml").is_file()
    place = shlex.quote(f"{root if is_checkout else '.'}[{extra}]")
    command = f"{shlex.quote(sys.executable or 'python')} -m pip install -e {place}"
    return command if is_checkout else f"{command} in a checkout of dask-word2vec"
